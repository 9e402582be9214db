"""Members and groups for the tests of the balancer; nothing here has a loop or a clock."""

from __future__ import annotations

from collections import Counter

from authgate_fast.balance.group import Group
from authgate_fast.balance.member import Member
from authgate_fast.snapshot import Balancing, HealthCheck, Service, Target

CHECK = HealthCheck(b"/healthz", 1.0, 1.0, 2, 3, None, b"")


def target(name: str, weight: int = 1) -> Target:
    return Target("http", name, 80, b"", f"Host: {name}\r\n".encode("ascii"), weight)


def member(name: str, weight: int = 1) -> Member:
    found = target(name, weight)
    return Member(found.url, found, weight, 0.0)


def service(weights: dict[str, int], *, check: HealthCheck | None = None, **settings: object) -> Service:
    targets = tuple(target(name, weight) for name, weight in weights.items())
    return Service("s", targets, balancing=Balancing(**settings), health_check=check)  # type: ignore[arg-type]


def group(weights: dict[str, int] | str, **settings: object) -> Group:
    """Make a group of members a, b, c... or of those with the given weights."""
    by_name = dict.fromkeys(weights, 1) if isinstance(weights, str) else weights
    return Group("g/s", service(by_name, **settings), 0.0)  # type: ignore[arg-type]  # as `service`


def name_of(found: Member | None) -> str:
    assert found is not None
    return found.target.host


def member_of(of: Group, name: str) -> Member:
    return next(m for m in of.members if m.target.host == name)


def pick(of: Group, now_s: float = 0.0, key: bytes = b"", tried: str = "") -> str:
    """Choose and let the request end at once, without an outcome."""
    found = of.choose(key, [member_of(of, name) for name in tried] or None, now_s)
    if found is None:
        return ""
    of.left(found, is_trial=of.chose_trial)
    return name_of(found)


def picks(of: Group, count: int, now_s: float = 0.0) -> Counter[str]:
    return Counter(pick(of, now_s) for _ in range(count))


def eject(of: Group, name: str, now_s: float = 0.0) -> None:
    for _ in range(100):
        if of.failed(member_of(of, name), now_s, 0.5):
            return
    raise AssertionError(f"{name} is not ejected")
