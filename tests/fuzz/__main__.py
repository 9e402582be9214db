"""``python -m tests.fuzz``, or ``make fuzz``: fuzz the gateway for as long as wanted; exit 1 if anything was found."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import uvloop

from authgate_fast import is_compiled
from tests.fuzz.arena import apart, here
from tests.fuzz.campaign import BATCH, REPLIES, REQUESTS, Campaign, as_named_case, make

SAY_EVERY_S = 10.0


def main() -> int:
    """Start one process per core, or be one of them."""
    options = _options()
    if options.iteration is not None:
        return uvloop.run(_once(options))
    if options.job is not None:
        return uvloop.run(_fuzz(options))
    build = "compiled" if is_compiled() else "pure Python"
    where = "authgate run" if options.apart else "in this process"
    print(
        f"fuzzing the {build} build, {where}: seed {options.seed}, {options.seconds:g} s, {options.jobs} processes",
        flush=True,
    )
    arguments = [
        sys.executable,
        "-m",
        "tests.fuzz",
        "--seed",
        str(options.seed),
        "--seconds",
        str(options.seconds),
    ]
    arguments += [
        "--jobs",
        str(options.jobs),
        "--only",
        options.only,
        *(["--apart"] if options.apart else []),
        *(["--first"] if options.first else []),
    ]
    jobs = [subprocess.Popen([*arguments, "--job", str(job)]) for job in range(options.jobs)]
    try:
        codes = [job.wait() for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    print("something was found" if any(codes) else "nothing was found")
    return int(any(codes))


async def _fuzz(options: argparse.Namespace) -> int:
    """Fuzz both directions in turn until the time is over."""
    deadline_s = time.monotonic() + options.seconds
    async with (apart if options.apart else here)() as arena:
        campaigns = [
            Campaign(arena, name, options.seed)
            for name in (REQUESTS, REPLIES)
            if options.only in (name, "both")
        ]
        spent_s = dict.fromkeys(campaigns, 0.0)
        seen: set[str] = set()
        said_s = begun_s = time.monotonic()
        while time.monotonic() < deadline_s:
            campaign = min(campaigns, key=lambda each: spent_s[each])
            turn_s = time.monotonic()
            block = campaign.batches * options.jobs + options.job
            await campaign.run(range(block * BATCH, (block + 1) * BATCH))
            spent_s[campaign] += time.monotonic() - turn_s
            while campaign.found:
                found = campaign.found.pop()
                if found.kind not in seen:
                    seen.add(found.kind)
                    before, after_s = found.case, time.monotonic() - begun_s
                    found = await campaign.shrink(found)
                    print(
                        f"\nFOUND by {campaign.direction}, seed {options.seed}, iteration {found.iteration}, "
                        f"{after_s:.1f} s: {found.what[:600]}\n{as_named_case(found)}\n    # from {before!r}"[
                            :6_000
                        ],
                        flush=True,
                    )
                    if options.first:
                        return 1
            if time.monotonic() - said_s > SAY_EVERY_S or time.monotonic() > deadline_s:
                said_s = time.monotonic()
                rates = ", ".join(
                    f"{c.direction} {c.cases:,} ({c.cases / max(spent_s[c], 0.001):,.0f}/s)"
                    for c in campaigns
                )
                print(
                    f"[{options.job}] {said_s - begun_s:4.0f} s: {rates}; {len(seen)} kinds found", flush=True
                )
    return int(bool(seen))


async def _once(options: argparse.Namespace) -> int:
    """Run one iteration again and show it."""
    async with (apart if options.apart else here)() as arena:
        wrong = 0
        for direction in (REQUESTS, REPLIES):
            if options.only in (direction, "both"):
                campaign = Campaign(arena, direction, options.seed)
                print(direction, make(direction, options.seed, options.iteration))
                await campaign.run(range(options.iteration, options.iteration + 1))
                for found in campaign.found:
                    wrong += 1
                    print(f"FOUND: {found.what}\n{as_named_case(await campaign.shrink(found))}")
        return int(bool(wrong))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument(
        "--seed",
        type=int,
        default=int.from_bytes(os.urandom(4), "big"),
        help="a number; the same makes the same cases",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (one per core)")
    parser.add_argument("--only", choices=(REQUESTS, REPLIES, "both"), default="both", help="one direction")
    parser.add_argument("--apart", action="store_true", help="against `authgate run` in a process of its own")
    parser.add_argument("--first", action="store_true", help="stop at the first finding")
    parser.add_argument("--iteration", type=int, help="run one iteration of a seed again")
    parser.add_argument("--job", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
