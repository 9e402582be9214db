"""What has to become of a request, decided naively from the documents of `world`: no trie, no memo, no plan.

It knows three answers: ``forward``, ``refuse``, and ``either`` where the contract leaves room. Whatever it says,
a request that is forwarded must reach the service and target named here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tests.fuzz.strict import COMPLETE, Message
from tests.fuzz.world import ANY, BASES, DOORS, KEEPS_HOST, LIMITS, Door, Way

FORWARD = "forward"
REFUSE = "refuse"
EITHER = "either"

USUAL = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
NEVER = frozenset((b"CONNECT", b"TRACE"))
_usual_path = re.compile(rb"(?:/[A-Za-z0-9_~.=,@:+!$&'()*-]*)+").fullmatch
_usual_host = re.compile(
    rb"[A-Za-z0-9][A-Za-z0-9-]{0,62}(?:\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*(?::[0-9]{1,4})?"
).fullmatch
_LAYERS = 6


@dataclass(slots=True)
class Expected:
    """`whole`: the backend may see all of it; else its head, and a part of its body, at most."""

    verdict: str
    why: str = ""
    door: Door | None = None
    way: Way | None = None
    target: bytes = b""
    authority: bytes = b""
    whole: bool = True
    ends: bool = False
    """Nothing behind it may be served."""
    is_unusual: bool = False
    """It may be refused, and the connection with it, for a reason that is not looked at here."""

    @property
    def service(self) -> str:
        assert self.way is not None
        return self.way.service


def expect(message: Message, head_bytes: int) -> Expected:
    """Judge a request whose head is good; `head_bytes` is the length of that head."""
    found = _decide(message, head_bytes)
    host = (message.values(b"host") or [b""])[0]
    if (
        message.method not in USUAL
        or _usual_host(host) is None
        or message.minor == 0
        or message.odd
        or message.values(b"upgrade")
        or message.values(b"expect")
        or found.why == "an endpoint of the gateway's own"
        or not message.target.startswith((b"/", b"http://" + host + b"/"))
    ):
        found.is_unusual = True
        if found.verdict == FORWARD:
            found.verdict = EITHER
    found.whole = found.whole and message.state == COMPLETE
    options = message.options()
    found.ends = found.ends or b"close" in options or (message.minor == 0 and b"keep-alive" not in options)
    return found


def _refuse(why: str, *, ends: bool = False) -> Expected:
    return Expected(REFUSE, why, ends=ends)


def _decide(message: Message, head_bytes: int) -> Expected:
    if head_bytes > LIMITS.max_head_bytes or len(message.fields) > LIMITS.max_fields:
        return _refuse("over a limit of heads", ends=True)
    if message.method in NEVER:
        return _refuse("method", ends=True)
    if message.minor == 1:
        expectations = [value.lower() for value in message.values(b"expect")]
        if any(value != b"100-continue" for value in expectations):
            return _refuse("expectation", ends=True)
    host = (message.values(b"host") or [b""])[0]
    target = message.target
    if len(target) > LIMITS.max_target_bytes:
        return _refuse("over the limit of targets", ends=True)
    if not target.startswith(b"/"):
        scheme, separator, rest = target.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https"):
            return _refuse("form of the target")
        cut = re.search(rb"[/?#]|\Z", rest)
        assert cut is not None
        authority, target = rest[: cut.start()], rest[cut.start() :]
        if authority.lower() != host.lower():
            return _refuse("an authority that is not Host", ends=True)
        if not target.startswith(b"/"):
            target = b"/" + target
    path, mark, query = target.partition(b"?")
    clean = _judge_path(path)
    if clean == REFUSE or b"#" in query:
        return _refuse("path")
    door = _door(host)
    if is_own_endpoint(door, path):
        return _refuse("an endpoint of the gateway's own")
    way = _way(door, message.method, path)
    if way is None:
        return _refuse("no route for it")
    if way.secure and not _has_key(message, door):
        return _refuse("no key")
    found = Expected(clean, "", door, way)
    if way.max_body is not None and (message.framing != "none" or message.body):
        length = message.values(b"content-length")
        if length and int(length[0]) > way.max_body:  # digits, says the strict parser
            return _refuse("too large a body", ends=True)
        if len(message.body) > way.max_body:
            found.whole, found.verdict = False, EITHER
    found.target = (BASES[way.service] + _target(way, path) or b"/") + mark + query
    found.authority = host if way.service in KEEPS_HOST else b""
    return found


def is_own_endpoint(door: Door, path: bytes) -> bool:
    """Tell whether a gateway answers a path by itself."""
    return door.auth == "JWT" and [unquote_to_bytes(part) for part in path.split(b"/")[1:]][:1] == [b"auth"]


def _judge_path(path: bytes) -> str:
    """DESIGN section 4: what two servers may read differently."""
    if _usual_path(path) and b"//" not in path and not _has_dots(path):
        return FORWARD
    if re.search(rb"%(?![0-9A-Fa-f]{2})", path):
        return REFUSE
    slashes = path.count(b"/")
    layer = path
    for _ in range(_LAYERS):
        if re.search(rb"[\x00-\x1f\x7f\\;#]|//", layer) or layer.count(b"/") != slashes or _has_dots(layer):
            return REFUSE
        if layer is path and re.search(rb"[^!-~]", path):
            return REFUSE
        deeper = unquote_to_bytes(layer)
        if deeper == layer:
            break
        layer = deeper
    return EITHER


def _has_dots(path: bytes) -> bool:
    return any(segment in (b".", b"..") for segment in path.split(b"/"))


def _door(host: bytes) -> Door:
    name = re.sub(rb":[0-9]*\Z", b"", host.lower())
    name = name.removesuffix(b".")
    for door in DOORS:
        if name in door.hosts:
            return door
    for door in DOORS:
        if any(pattern.startswith(b"*.") and name.endswith(pattern[1:]) for pattern in door.hosts):
            return door
    return DOORS[-1]


def _way(door: Door, method: bytes, path: bytes) -> Way | None:
    """Return the route that serves it: the most specific shape that fits, and in it one for the method."""
    segments = [unquote_to_bytes(segment) for segment in path.split(b"/")[1:]]
    fitting = [way for way in door.ways if _fits(way.public, segments)]
    if not fitting:
        return None
    best = min(_rank(way.public) for way in fitting)
    ways = [way for way in fitting if _rank(way.public) == best]
    wanted = b"GET" if method == b"HEAD" else method
    for way in ways:
        if way.method in (method, wanted):
            return way
    return next((way for way in ways if way.method == ANY), None)


def _fits(public: tuple[bytes, ...], segments: list[bytes]) -> bool:
    if public and public[-1] == b"**":
        public, segments = public[:-1], segments[: len(public) - 1]
    if len(public) != len(segments):
        return False
    return all(
        segment if part == b"*" else part == segment for part, segment in zip(public, segments, strict=True)
    )


def _rank(public: tuple[bytes, ...]) -> tuple[int, ...]:
    return tuple({b"*": 1, b"**": 2}.get(part, 0) for part in public)


def _has_key(message: Message, door: Door) -> bool:
    return message.values(door.credential) == [door.key] and door.key != b""


def _target(way: Way, path: bytes) -> bytes:
    raw = path.split(b"/")[1:]
    made = b""
    for part in way.target:
        if part == b"**":
            made += b"".join(b"/" + segment for segment in raw[len(way.public) - 1 :])
        elif part == b"*":
            made += b"/" + raw[way.public.index(b"*")]
        else:
            made += b"/" + part
    return made
