"""The check before the load: each contestant must do all of the work that is going to be measured."""

from __future__ import annotations

import json
import ssl
from http.client import HTTPConnection, HTTPSConnection

from bench.cases import BFF, ECHO, KEY, PUBLIC, UPLOAD
from bench.ground import Contestant, Ground
from bench.processes import BenchError
from bench.workload import HOST, PUBLIC_PREFIX, SEEN_PATH, Consumer, callers

_FAKE = {"X-Consumer-Id": "somebody-else"}


def check_case(contestant: Contestant, ground: Ground) -> None:
    """Raise BenchError unless the contestant lets in, keeps out and passes on as the case has it."""
    auth = ground.case.auth
    # The backend of these does not tell what it saw; and a session's caller is known to the backend by its token.
    tells = ground.case.driver not in (ECHO, UPLOAD) and auth != BFF
    if auth == KEY and tells:
        check_work(contestant, ground.consumers, is_tls=ground.case.tls_in)
    elif auth == PUBLIC:
        _check_seen(contestant, dict(_FAKE), "", is_tls=ground.case.tls_in)
    else:
        name, _, value = (contestant.lines or [f"X-Api-Key: {ground.consumers[0].key}"])[0].partition(": ")
        _check_refused(contestant, {}, "no credential")
        _check_refused(contestant, {name: value[:-1] + "!"}, "a wrong credential")
        if tells:
            _check_seen(contestant, {name: value, **_FAKE}, callers(ground.consumers)[0].name)
        else:
            _check_open(contestant, {name: value})


def check_work(contestant: Contestant, consumers: list[Consumer], *, is_tls: bool = False) -> None:
    """Raise BenchError unless the contestant does for API keys what it should."""
    for consumer in (consumers[0], consumers[-1]):
        _check_seen(contestant, {"X-Api-Key": consumer.key, **_FAKE}, consumer.name, is_tls=is_tls)
    _check_refused(contestant, _FAKE, "no key", is_tls=is_tls)
    wrong = {"X-Api-Key": consumers[0].key + "0", **_FAKE}
    _check_refused(contestant, wrong, "a wrong key", is_tls=is_tls)


def _check_seen(
    contestant: Contestant, fields: dict[str, str], consumer: str, *, is_tls: bool = False
) -> None:
    body = _check_open(contestant, fields, is_tls=is_tls)
    seen = json.loads(body)
    wanted = {"consumer": consumer, "key": "", "path": SEEN_PATH}
    if seen != wanted:
        raise BenchError(f"behind {contestant.name} the backend saw {seen}, it should see {wanted}")


def _check_open(contestant: Contestant, fields: dict[str, str], *, is_tls: bool = False) -> str:
    status, body = _get(contestant, fields, is_tls=is_tls)
    if status != 200:
        raise BenchError(f"{contestant.name} answered {status} to a good key: {body}")
    return body


def _check_refused(
    contestant: Contestant, fields: dict[str, str], what: str, *, is_tls: bool = False
) -> None:
    status, _ = _get(contestant, fields, is_tls=is_tls)
    if status not in (401, 403):
        raise BenchError(f"{contestant.name} answered {status} to {what}")


def _get(contestant: Contestant, fields: dict[str, str], *, is_tls: bool) -> tuple[int, str]:
    connection: HTTPConnection
    if is_tls:
        context = ssl._create_unverified_context()
        connection = HTTPSConnection("127.0.0.1", contestant.port, timeout=10, context=context)
    else:
        connection = HTTPConnection("127.0.0.1", contestant.port, timeout=10)
    try:
        connection.request("GET", PUBLIC_PREFIX + SEEN_PATH, headers={"Host": HOST, **fields})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except OSError as error:
        raise contestant.child.failed(f"did not answer: {error}") from error
    finally:
        connection.close()
