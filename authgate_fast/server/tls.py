"""TLS for clients: which certificate answers which name, and how new files come into use without a restart.

`ServerTls` holds one `_Serving` at a time, immutable and swapped whole: a handshake that has begun ends with what it
began with, the next one uses what is new. A pair of files that is not good changes nothing: the pair before it stays
live, and the log and ``/status`` say why. Files are read and judged in a thread; the event loop only swaps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from authgate_fast.config.file import Signature, file_signature
from authgate_fast.server.certificates import (
    CertificateError,
    Pair,
    ServerContext,
    anybody_may_read,
    judge_time,
    make_server_context,
    read_authorities,
    read_pair,
)
from authgate_fast.server.client_certificate import certificate_lines
from authgate_fast.server.tls_options import OFF, REQUIRED, TlsOptions

_log = logging.getLogger("authgate.tls")

LOOK_S = 2.0
"""How often the files are looked at; a change must then hold still for one more look."""
WARN_BEFORE_S = 14 * 86_400.0
"""A certificate that ends sooner is said in the log, once a day; certbot renews at 30 days."""
TICKET_KEYS_S = 86_400.0
"""Session tickets are encrypted with keys of the context; after a day a new one is made, so that old keys go."""
_DAY_S = 86_400.0


def all_pairs(options: TlsOptions) -> tuple[tuple[Path, Path], ...]:
    """Return the pairs, and those of the directory as it is now, in the order of their names."""
    if options.directory is None:
        return options.pairs
    return (*options.pairs, *_pairs_of(options.directory))


def _pairs_of(directory: Path) -> list[tuple[Path, Path]]:
    """Find NAME.crt with NAME.key, and NAME/fullchain.pem with NAME/privkey.pem (certbot's layout)."""
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise CertificateError(f"{directory}: {(error.strerror or 'it cannot be read').lower()}") from None
    found = []
    for entry in entries:
        if entry.suffix == ".crt":
            found.append((entry, entry.with_suffix(".key")))
        elif (entry / "fullchain.pem").exists():
            found.append((entry / "fullchain.pem", entry / "privkey.pem"))
    return found


class _Serving:
    """The certificates in use. A context holds all pairs that answer one name, one for each kind of key."""

    __slots__ = ("authorities", "contexts", "default", "exact", "made_s", "pairs", "wildcards")

    def __init__(
        self,
        pairs: list[Pair],
        authorities: bytes | None,
        *,
        is_required: bool,
        failures: Counter[str],
        before: _Serving | None = None,
    ) -> None:
        """Make what is needed; contexts of pairs that have not changed are taken over. Raises `CertificateError`."""
        self.pairs = pairs
        self.authorities = authorities
        self.made_s = time.monotonic()
        self.contexts: dict[tuple[Pair, ...], ServerContext] = {}
        self.exact: dict[str, ServerContext] = {}
        self.wildcards: dict[str, ServerContext] = {}
        known = before.contexts if before is not None and before.authorities == authorities else {}

        def context_of(chosen: tuple[Pair, ...]) -> ServerContext:
            if chosen not in self.contexts:
                self.contexts[chosen] = known.get(chosen) or make_server_context(
                    chosen, authorities, is_required=is_required, failures=failures
                )
            return self.contexts[chosen]

        by_name: dict[str, dict[str, Pair]] = {}
        for pair in pairs:
            for name in pair.names:
                by_name.setdefault(name, {}).setdefault(pair.key_kind, pair)
        for name, kinds in by_name.items():
            context = context_of(tuple(kinds.values()))
            if name.startswith("*."):
                self.wildcards[name[2:]] = context
            else:
                self.exact[name] = context
        # A context of its own, because it is the one whose keys encrypt all session tickets and that chooses.
        self.default = make_server_context(
            tuple({pair.key_kind: pair for pair in reversed(self._default_pairs())}.values()),
            authorities,
            is_required=is_required,
            failures=failures,
        )
        self.default.sni_callback = self._choose

    def _default_pairs(self) -> list[Pair]:
        first = self.pairs[0]
        return [first, *(pair for pair in self.pairs[1:] if set(pair.names) == set(first.names))]

    def _choose(self, tls: ssl.SSLObject, name: str | None, _default: ssl.SSLContext) -> None:
        """Take the certificate of the name that the client asks for (RFC 6066 section 3), else the default."""
        if name:
            name = name.lower()  # ASCII, by the ssl module
            context = self.exact.get(name) or self.wildcards.get(name.partition(".")[2])
            if context is not None:
                tls.context = context


class ServerTls:
    """The TLS settings of a node's listeners, kept up with their files while `run` runs.

    `failures` counts the handshakes that failed by OpenSSL's reason.
    """

    def __init__(self, options: TlsOptions) -> None:
        self._options = options
        self._serving: _Serving | None = None
        self._seen: dict[Path, Signature | None] = {}
        self._problems: dict[str, str] = {}
        self._known: dict[tuple[Path, Path], tuple[tuple[Signature | None, ...], Pair]] = {}
        self._warned: dict[str, float] = {}
        self._wake: asyncio.Event | None = None
        self.failures: Counter[str] = Counter()

    @property
    def context(self) -> ServerContext:
        """The settings for the next handshake."""
        assert self._serving is not None, "load comes first"
        return self._serving.default

    @property
    def asks_for_certificates(self) -> bool:
        """Tell whether clients are asked for a certificate."""
        return self._options.client_auth != OFF

    def load(self, *, is_strict: bool = True) -> None:
        """Read all files for the first time. Raises `CertificateError`.

        With `is_strict` a certificate that has expired is an error, as somebody who starts a gateway should hear.
        Without, as in a worker that replaces a dead one, it is served: half-dead is better than dead. Pairs of the
        directory that cannot be used are only said.
        """
        _be_quiet_about_names()
        self._seen = self._look()
        serving, problems = self._read()
        own = {str(cert_file) for cert_file, _ in self._options.pairs}
        wrong = [text for place, text in problems.items() if place in own or serving is None]
        if serving is not None and is_strict:
            wrong += [
                text for pair in serving.pairs
                if str(pair.cert_file) in own and (text := judge_time(pair)) is not None
            ]  # fmt: skip
        if wrong or serving is None:
            raise CertificateError("\n".join(wrong) or "there is no certificate to serve")
        self._serving = serving
        self._problems = problems
        for text in problems.values():
            _log.error("%s", text)
        self._say_what_to_know(serving)

    def check(self) -> list[str]:
        """Load, strictly, and return what is worth saying to who starts workers. Raises `CertificateError`."""
        self.load()
        return list(self._problems.values())

    async def run(self) -> None:
        """Follow the files until cancelled."""
        self._wake = asyncio.Event()
        changed = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            is_asked = self._wake.is_set()
            self._wake.clear()
            seen = await asyncio.to_thread(self._look)
            moved, self._seen = seen != self._seen, seen
            # Writers replace one file after the other: read when nothing moves any more, or when told to.
            if is_asked or (changed and not moved):
                changed = False
                await self._reload()
            else:
                changed = changed or moved
            self._keep_fresh()

    def reload_soon(self) -> None:
        """Look at the files now (SIGHUP)."""
        if self._wake is not None:
            self._wake.set()

    def _look(self) -> dict[Path, Signature | None]:
        """Return what changes whenever one of the files does."""
        options = self._options
        with contextlib.suppress(CertificateError):
            pairs = all_pairs(options)
            files: Iterable[Path] = [file for pair in pairs for file in pair]
            if options.client_ca is not None:
                files = [*files, options.client_ca]
            return {file: file_signature(file) for file in files}
        return {}

    async def _reload(self) -> None:
        before = self._serving
        serving, problems = await asyncio.to_thread(self._read)
        for place, text in problems.items():
            if self._problems.get(place) != text:
                _log.error("%s; what was in use before stays in use", text)
        self._problems = problems
        if serving is None or (before is not None and _is_same(serving, before)):
            return
        self._serving = serving
        for pair in serving.pairs:
            if before is None or all(pair.fingerprint != old.fingerprint for old in before.pairs):
                _log.info("%s: in use from now on, %s", pair.cert_file, _describe(pair))
        if before is not None and before.authorities != serving.authorities:
            _log.info("%s: in use from now on", self._options.client_ca)
        self._say_what_to_know(serving)

    def _read(self) -> tuple[_Serving | None, dict[str, str]]:
        """Read and judge all files; return what to serve and, by file, what is wrong."""
        options, before = self._options, self._serving
        problems: dict[str, str] = {}
        pairs: list[Pair] = []
        try:
            places = all_pairs(options)
        except CertificateError as error:
            problems[str(options.directory)] = str(error)
            places = (*options.pairs, *(place for place in self._known if place not in options.pairs))
        for place in places:
            pair = self._read_pair(place, problems)
            if pair is not None:
                pairs.append(pair)
        for gone in [place for place in self._known if place not in places]:
            del self._known[gone]
        authorities = before.authorities if before is not None else None
        if options.client_ca is not None:
            try:
                authorities = read_authorities(options.client_ca)
            except CertificateError as error:
                problems[str(options.client_ca)] = str(error)
                if before is None:
                    return None, problems
        if not pairs:
            problems.setdefault(
                str(options.directory), f"{options.directory}: no certificate that can be used"
            )
            return None, problems
        try:
            return self._make(pairs, authorities, before), problems
        except CertificateError as error:
            problems["tls"] = str(error)
            return None, problems

    def _make(self, pairs: list[Pair], authorities: bytes | None, before: _Serving | None) -> _Serving:
        is_required = self._options.client_auth == REQUIRED
        return _Serving(pairs, authorities, is_required=is_required, failures=self.failures, before=before)

    def _read_pair(self, place: tuple[Path, Path], problems: dict[str, str]) -> Pair | None:
        """Read one pair, unless it has not changed; when it is bad, return the one before it, if any."""
        signature = tuple(file_signature(file) for file in place)
        known = self._known.get(place)
        if known is not None and known[0] == signature:
            return known[1]
        try:
            pair = read_pair(*place)
            make_server_context((pair,))  # what OpenSSL has against it should be known now
            expired = judge_time(pair)
            if expired is not None and known is not None:
                raise CertificateError(expired)
        except CertificateError as error:
            problems[str(place[0])] = str(error)
            return known[1] if known is not None else None
        if known is not None and known[1].chain == pair.chain and known[1].key == pair.key:
            pair = known[1]  # touched, not changed: sessions and contexts live on
        self._known[place] = (signature, pair)
        return pair

    def _say_what_to_know(self, serving: _Serving) -> None:
        for _, key_file in self._known:
            if anybody_may_read(key_file):
                _log.warning(
                    "%s: every user of this machine may read this key; chmod 640 %s", key_file, key_file
                )
        for number, pair in enumerate(serving.pairs):
            if not pair.names and number:
                _log.warning(
                    "%s: the certificate names no host (subjectAltName), so it is never chosen",
                    pair.cert_file,
                )

    def _keep_fresh(self) -> None:
        """Say which certificates end soon, once a day each; change the keys of session tickets when they are old."""
        serving = self._serving
        if serving is None:
            return
        now_s = time.time()
        for pair in serving.pairs:
            left_s = pair.seconds_left(now_s)
            if left_s < WARN_BEFORE_S and now_s - self._warned.get(pair.fingerprint, 0.0) >= _DAY_S:
                self._warned[pair.fingerprint] = now_s
                _log.warning("%s: %s", pair.cert_file, _describe(pair))
        if time.monotonic() - serving.made_s > TICKET_KEYS_S:
            self._serving = self._make(serving.pairs, serving.authorities, serving)

    def client_lines(self, tls: ssl.SSLObject) -> bytes | None:
        """Return the field lines that tell a backend of the client's certificate; None: it cannot be told."""
        return certificate_lines(tls.getpeercert(binary_form=True))

    def expiries(self) -> list[tuple[str, float]]:
        """Return the file of each certificate in use and its end in seconds since the epoch, for metrics."""
        pairs = self._serving.pairs if self._serving is not None else []
        return [(str(pair.cert_file), pair.not_after.timestamp()) for pair in pairs]

    def status(self) -> dict[str, object]:
        """What /status shows."""
        serving = self._serving
        now_s = time.time()
        return {
            "certificates": [
                {
                    "file": str(pair.cert_file),
                    "names": list(pair.names),
                    "key": pair.key_kind,
                    "sha256": pair.fingerprint,
                    "not_after": pair.not_after.isoformat(),
                    "days_left": round(pair.seconds_left(now_s) / _DAY_S, 1),
                }
                for pair in (serving.pairs if serving is not None else ())
            ],
            "client_auth": self._options.client_auth,
            "problems": list(self._problems.values()),
        }


def _be_quiet_about_names() -> None:
    """Let no client write into the log: the ssl module reports a name that is not ASCII as a fault of this process.

    It refuses the handshake with an alert, which is right; the report tells an operator nothing.
    """
    before = sys.unraisablehook
    if getattr(before, "__name__", "") == _ignore_names.__name__:
        return

    def hook(report: sys.UnraisableHookArgs) -> None:
        if not _ignore_names(report):
            before(report)

    hook.__name__ = _ignore_names.__name__
    sys.unraisablehook = hook


def _ignore_names(report: sys.UnraisableHookArgs) -> bool:
    return isinstance(report.exc_value, UnicodeDecodeError) and isinstance(report.object, bytes)


def _is_same(one: _Serving, other: _Serving) -> bool:
    return one.pairs == other.pairs and one.authorities == other.authorities


def _describe(pair: Pair) -> str:
    names = ", ".join(pair.names[:3]) or "no names"
    more = f" and {len(pair.names) - 3} more" if len(pair.names) > 3 else ""
    left_days = pair.seconds_left(time.time()) / _DAY_S
    ends = f"ends in {left_days:.1f} days" if left_days > 0 else "has EXPIRED"
    return f"{names}{more}; {ends} ({pair.not_after:%Y-%m-%d %H:%M} UTC)"
