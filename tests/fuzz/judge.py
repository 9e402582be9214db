"""The oracle for a client's stream: what the backends saw and what came back, against the strict parser's reading."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

import h11

from tests.fuzz import strict
from tests.fuzz.backend import Seen, Sight, echoed
from tests.fuzz.expect import EITHER, FORWARD, REFUSE, Expected, expect
from tests.fuzz.strict import COMPLETE, Message
from tests.fuzz.world import DOORS

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"proxy-authorization", b"proxy-authenticate", b"http2-settings", b"expect")
)  # fmt: skip
OURS = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"x-gateway-id", b"x-consumer-id", b"x-consumer-roles", b"x-credential-id",
     b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id")
)  # fmt: skip
"""What only the gateway writes."""
_FOLD = bytes.maketrans(b"!#$%&'*+.^_`|~", b"--------------")
# What a client may not tell a backend, in any spelling; a field that is not one of them must go on.
_claim = re.compile(
    rb"x-(?:consumer|user|authenticated|forwarded|original)(?:-.*)?|x-(?:credential|auth-request|client-cert)-.*|x-(?:gateway|client|tenant|request)-id|x-anonymous-consumer|forwarded|"
    rb"x-(?:real|client|cluster-client|originating|remote|proxyuser)-ip|(?:true-)?client-ip|x-remote-addr|x-forward-for|(?:x-)?client-cert(?:-chain)?|x-webauth-user|x-envoy-original-path|x-host|x-http-host-override|x-override-url|x-rewrite-url|x-http-method(?:-override)?|x-method-override|proxy|"
    rb"(?:x-)?remote-user|content-length|transfer-encoding|host|connection|expect|x-api-key|x-partner-key|keep-alive|te|trailer|upgrade|proxy-connection|proxy-authorization|proxy-authenticate|http2-settings"
).fullmatch
# These a claim may look like, and yet they may go on; and the other gateway's credential is an ordinary field here.
_KEPT = frozenset((b"authorization", b"cookie", b"via"))
_sane_id = re.compile(rb"[A-Za-z0-9._-]{1,128}").fullmatch


class Finding(Exception):  # noqa: N818  # it is no error of the judge's
    """The gateway did what it may not do."""


def judge(data: bytes, seen: Seen) -> list[str]:
    """Return what is wrong with what became of the stream `data`."""
    try:
        _judge(data, seen)
    except Finding as finding:
        return [str(finding)]
    return []


def require(is_so: bool, what: str) -> None:
    """Raise a finding unless `is_so`."""
    if not is_so:
        raise Finding(what)


def _judge(data: bytes, seen: Seen) -> None:
    require(not seen.hung, "hang: the client waited in vain for the end")
    messages, plans = _read(data)
    places = _match_sights(messages, plans, seen.sights)
    whole = [at for at, sight in zip(places, seen.sights, strict=True) if sight.whole]
    _check_missing(messages, plans, whole)
    _check_answers(messages, plans, dict(zip(places, seen.sights, strict=True)), seen)


@lru_cache(maxsize=1_024)
def _read(data: bytes) -> tuple[list[Message], list[Expected]]:
    """Read a stream, and say what must become of each request up to where it ends or breaks."""
    messages = strict.read_requests(data)
    plans = []
    for message in messages:
        if not message.head_read:
            break
        plan = expect(message, data.index(b"\r\n\r\n", message.at) + 4 - message.at)
        plans.append(plan)
        if plan.ends:
            break
    return messages, plans


# --- at the backend ----------------------------------------------------------------------------------------------


def _match_sights(messages: list[Message], plans: list[Expected], sights: list[Sight]) -> list[int]:
    """Find for each sight the request that it is, in order."""
    places: list[int] = []
    at = 0
    for sight in sights:
        require(
            sight.message.head_read and sight.message.state != strict.INVALID,
            f"backend: malformed request ({sight.message.why}): {sight.raw!r}",
        )
        while at < len(plans) and not _is(sight, messages[at], plans[at]):
            require(
                plans[at].verdict != FORWARD or not plans[at].whole,
                f"skipped: request {at} was passed over for {sight.raw!r}",
            )
            at += 1
        require(
            at < len(plans),
            f"smuggled: not in the client's stream, or not to be routed there: {sight.service} {sight.raw!r}",
        )
        if sight.whole:
            require(
                plans[at].whole,
                f"smuggled: request {at} is not whole in the stream ({messages[at].why}), but was at the backend: {sight.raw!r}",
            )
            require(sight.message.end == len(sight.raw), f"backend: bytes behind a request: {sight.raw!r}")
            _compare_with_h11(sight)
        _check_fields(sight.message, messages[at], plans[at])
        places.append(at)
        at += 1
    return places


def _is(sight: Sight, message: Message, plan: Expected) -> bool:
    seen = sight.message
    if (
        plan.verdict == REFUSE
        or sight.service != plan.service
        or seen.method != message.method
        or seen.target != plan.target
    ):
        return False
    return seen.body == message.body if sight.whole else message.body.startswith(seen.body)


def _check_missing(messages: list[Message], plans: list[Expected], places: list[int]) -> None:
    """A good request must get through, unless something before it may have ended the connection."""
    for at, plan in enumerate(plans):
        message = messages[at]
        if plan.verdict == FORWARD and plan.whole:
            require(
                at in places, f"lost: request {at} is good, but no backend saw all of it: {message.start!r}"
            )
        elif (
            plan.ends
            or plan.is_unusual
            or message.framing == "chunked"
            or message.body
            or plan.verdict == EITHER
        ):
            return


def _check_fields(seen: Message, sent: Message, plan: Expected) -> None:
    door = plan.door
    assert door is not None
    assert plan.way is not None
    only = _only(seen)
    require(seen.minor == 1, "backend: not HTTP/1.1")
    require(only(b"x-gateway-id") == door.name, f"identity: X-Gateway-Id {only(b'x-gateway-id')!r}")
    identity = [only(name) for name in (b"x-consumer-id", b"x-consumer-roles", b"x-credential-id")]
    wanted = [door.consumer, b"reader", b"default"] if plan.way.secure else [None, None, None]
    require(identity == wanted, f"identity: {identity!r} at the backend of {plan.way.name}")
    require(_sane_id(only(b"x-request-id") or b"") is not None, "backend: X-Request-ID")
    require(only(b"x-forwarded-proto") == b"http", "backend: X-Forwarded-Proto")
    host = (sent.values(b"host") or [b""])[0]
    require(only(b"x-forwarded-host") == host, "backend: X-Forwarded-Host")
    authority = only(b"host") or b""
    require(
        authority == plan.authority if plan.authority else authority.startswith(b"127.0.0.1:"),
        f"backend: Host {authority!r}",
    )
    framing = {b"content-length", b"transfer-encoding"} & {name for name, _ in seen.fields}
    require(len(framing) < 2, "framing: two kinds at once")
    has_body = sent.framing != "none"
    require(
        bool(framing) == has_body or (not sent.body and not seen.body),
        f"framing: {framing!r} for a body that is {sent.framing}",
    )
    options = seen.options()
    if seen.values(b"upgrade"):
        require(
            b"upgrade" in sent.options() and sent.minor == 1, "hop-by-hop: an Upgrade that nobody asked for"
        )
        require(options == {b"upgrade"}, "hop-by-hop: Connection with an Upgrade")
        require(
            seen.values(b"upgrade") == [b"websocket"], "hop-by-hop: an Upgrade that the route does not allow"
        )
    hops = [name for name, _ in seen.fields if name in HOP_BY_HOP and name not in (b"upgrade", b"connection")]
    require(not hops and (not options or b"upgrade" in options), f"hop-by-hop: {hops!r} {options!r}")
    via = (b"via", b"1.%d authgate" % sent.minor)
    own = [(name, value) for name, value in seen.fields if name not in OURS and name not in HOP_BY_HOP]
    require(own[-1:] == [via] or via in own, "backend: no Via of ours")
    own.reverse()
    own.remove(via)
    own.reverse()
    _compare_fields(own, sent, door.credential)


_IDS = rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
# W3C Trace Context, section 4: a later version may add to what version 00 has.
_is_parent = re.compile(rb"00%b|(?!00|ff)[0-9a-f]{2}%b(?:-[!-~]{0,200})?" % (_IDS, _IDS)).fullmatch


def _compare_fields(own: list[tuple[bytes, bytes]], sent: Message, credential: bytes) -> None:
    """What the client sent end to end goes on as it was, in order; nothing else does."""
    others = {door.credential for door in DOORS} - {credential}
    nominated = sent.options()
    parents = [value for name, value in sent.fields if name == b"traceparent"]
    is_traced = len(parents) == 1 and _is_parent(parents[0]) is not None and b"traceparent" not in nominated
    require(
        [value for name, value in own if name == b"traceparent"] == (parents if is_traced else []),
        f"field: of {parents!r} as traceparent only one that is valid goes on",
    )
    rest = iter([field for field in own if field[0] != b"traceparent"])
    ahead = next(rest, None)
    for name, value in sent.fields:
        if name == b"traceparent":
            continue
        if ahead is not None and ahead == (name, value) and name not in others:
            require(
                _claim(name.translate(_FOLD)) is None or name in _KEPT,
                f"claim: {name!r} went on to the backend",
            )
            ahead = next(rest, None)
            continue
        is_claim = _claim(name.translate(_FOLD)) is not None
        may_go = is_claim or name in others or name in nominated or name == credential
        require(may_go, f"field: {name!r}: {value!r} did not reach the backend")
    left = [ahead, *rest] if ahead is not None else []
    for field in left:  # a credential of another gateway is put behind the rest
        require(
            field in sent.fields and field[0] in others,
            f"field: {field!r} is not the client's, or out of order",
        )


def _only(message: Message):  # type: ignore[no-untyped-def]  # a look-up of one value
    def only(name: bytes) -> bytes | None:
        values = message.values(name)
        require(len(values) < 2, f"backend: {name!r} is there {len(values)} times")
        return values[0] if values else None

    return only


_changing = re.compile(rb"\b[0-9a-f]{12}-[0-9a-f]+-[0-9a-f]+\b|Date: [^\r]*|127\.[0-9.]+|\b1[0-9]{7}\b").sub
_agreed: set[bytes] = set()
"""Digests of what h11 has read as we do, but for ids, dates, addresses and numbers: h11 is ten times slower than all the
rest. Of messages of some KiB, kept whole, they would be what the memory of a campaign grows by."""
_MOST_AGREED = 50_000


def _is_agreed(kind: bytes, raw: bytes) -> bytes | None:
    key = blake2b(b"%b %b" % (kind, _changing(b"*", raw)), digest_size=16).digest()
    if len(_agreed) > _MOST_AGREED:
        _agreed.clear()
    return None if key in _agreed else key


def _compare_with_h11(sight: Sight) -> None:
    key = _is_agreed(b"", sight.raw)
    if key is None:
        return
    server = h11.Connection(h11.SERVER)
    server.receive_data(sight.raw)
    body = b""
    try:
        request = server.next_event()
        while isinstance(event := server.next_event(), h11.Data):
            body += bytes(event.data)
    except h11.RemoteProtocolError as error:
        raise Finding(f"h11 refuses what the backend saw ({error}): {sight.raw!r}") from None
    require(
        isinstance(request, h11.Request) and isinstance(event, h11.EndOfMessage),
        f"h11 sees no whole request: {sight.raw!r}",
    )
    read = (
        request.method,
        request.target,
        [(bytes(n), bytes(v)) for n, v in request.headers],
        body,
        server.trailing_data[0],
    )
    message = sight.message
    fields = [(name, b"chunked" if name == b"transfer-encoding" else value) for name, value in message.fields]
    require(
        read == (message.method, message.target, fields, message.body, b""),
        f"h11 reads another request: {sight.raw!r}",
    )
    _agreed.add(key)


# --- at the client --------------------------------------------------------------------------------------------------


def _check_answers(
    messages: list[Message], plans: list[Expected], sights: dict[int, Sight], seen: Seen
) -> None:
    data_answers = answers_of(messages, seen)
    closed = False
    for at, answer in enumerate(data_answers):
        require(not closed, f"answers: one behind a close: {answer.start!r}")
        closed = b"close" in answer.options()
        require(
            answer.status < 500 or answer.status in (501, 505), f"status {answer.status}: {answer.body!r}"
        )
        request = messages[at]
        require(
            len(answer.values(b"x-request-id")) == 1 and len(answer.values(b"date")) == 1,
            "answers: X-Request-ID or Date",
        )
        require(answer.framing != "close" or request.minor == 0, "answers: a body without framing")
        require(
            not answer.interim
            or (bool(request.values(b"expect")) and [i.status for i in answer.interim] == [100]),
            "answers: interim ones",
        )
        sight = sights.get(at)
        number = answer.values(b"x-echo")
        if number:
            require(
                sight is not None and sight.whole,
                f"answers: crossed: {answer.start!r} {answer.body!r} to request {at}",
            )
            assert sight is not None
            require(number == [b"%d" % sight.serial], f"answers: crossed: {number!r} for {sight.serial}")
            require(
                answer.body == (b"" if request.method == b"HEAD" else echoed(sight)),
                "answers: another body than the backend's",
            )
            require(answer.values(b"x-service") == [sight.service.encode()], "answers: fields")
        else:
            require(
                sight is None or not sight.whole,
                f"answers: request {at} was served, but its answer is {answer.start!r}",
            )
            _check_own(answer, request)
    whole = [at for at, sight in sights.items() if sight.whole]
    require(all(at < len(data_answers) for at in whole), "answers: one is missing")


def answers_of(messages: list[Message], seen: Seen) -> list[Message]:
    """Read what a client got as the answers to `messages`."""
    found: list[Message] = []
    seen.answers = found
    at = 0
    while at < len(seen.raw):
        require(len(found) < len(messages), f"answers: more than requests: {seen.raw[at:]!r}")
        request = messages[len(found)]
        method = request.method
        answer = strict.read_response(seen.raw, at, method, eof=not seen.was_reset)
        if answer.interim and answer.at == len(seen.raw) and request.state != COMPLETE:
            require(bool(request.values(b"expect")), "answers: interim ones")
            return found  # 100 Continue, and then the client did not
        require(answer.state == COMPLETE, f"answers: {answer.state} ({answer.why}): {seen.raw[at:]!r}")
        require(not answer.odd, f"answers: {answer.odd}: {seen.raw[at:]!r}")
        compare_answer_with_h11(seen.raw[at : answer.end], method, answer)
        found.append(answer)
        at = answer.end
    return found


def _check_own(answer: Message, request: Message) -> None:
    kinds = answer.values(b"content-type")
    if b"/auth" in request.target:
        require(
            answer.status == 204 or kinds in _OWN_KINDS,
            f"answers: not one of ours: {answer.start!r} {kinds!r}",
        )
    elif answer.status == 204:
        require(answer.values(b"allow") != [], "answers: 204 without Allow")
    else:
        require(kinds == _OWN_KINDS[0], f"answers: neither ours nor the backend's: {answer.start!r}")


_OWN_KINDS = ([b"application/problem+json"], [b"application/json"], [b"application/jwk-set+json"])


def compare_answer_with_h11(raw: bytes, method: bytes, answer: Message) -> None:
    """Let h11 read one whole answer."""
    key = _is_agreed(method or b"GET", raw)
    if key is None:
        return
    client = h11.Connection(h11.CLIENT)
    body, fields, status = b"", None, 0
    try:
        client.send(h11.Request(method=method or b"GET", target=b"/", headers=[(b"Host", b"a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(raw)
        if answer.framing == "close":
            client.receive_data(b"")
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status, fields = event.status_code, [(bytes(n), bytes(v)) for n, v in event.headers]
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif not isinstance(event, h11.InformationalResponse):
                raise Finding(f"h11 sees no whole answer: {raw!r}")
    except (h11.RemoteProtocolError, h11.LocalProtocolError) as error:
        raise Finding(f"h11 refuses an answer ({error}): {raw!r}") from None
    require(
        (status, fields, body) == (answer.status, answer.fields, answer.body),
        f"h11 reads another answer: {raw!r}",
    )
    _agreed.add(key)


def _is_end(answer: Message) -> bool:
    return answer.status in (400, 413, 414, 431, 501, 505) and b"close" in answer.options()


def compare_cuts(data: bytes, one: Seen, other: Seen) -> list[str]:
    """The same bytes, cut differently, must come to the same; a body that comes late may cost the connection."""
    messages, _ = _read(data)
    first, second = one.answers, other.answers
    for at, (a, b) in enumerate(zip(first, second, strict=False)):
        # Which fault of a message is met first may depend on the cuts; that it is refused may not, nor may a message
        # that is only too much (a length, an unknown method) be called broken.
        is_broken = messages[at].state != COMPLETE
        are_ends = _is_end(a) and _is_end(b) and (is_broken or 400 not in (a.status, b.status))
        if a.status != b.status and not are_ends:
            return [f"cuts: request {at} got {a.status} and, cut differently, {b.status}"]
    if len(first) != len(second):
        short = min(first, second, key=len)
        request = messages[len(short) - 1] if short else None
        if request is None or request.framing == "none" or b"close" not in short[-1].options():
            return [f"cuts: {len(first)} answers and, cut differently, {len(second)}"]
    return []
