"""A service's own TLS settings, and backends on Unix sockets."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from authgate_fast.config.compile import compile_service
from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.model import ServiceDocument
from authgate_fast.proxy import timeouts, tls_contexts
from authgate_fast.snapshot import Service, Snapshot, Target, UpstreamTls
from authgate_fast.upstream_tls import UpstreamTlsError, make_client_context
from tests.proxy.harness import Stack, backend, gateway, make_snapshot
from tests.proxy.scripted import Recorder, exchange, request, until
from tests.running import authgate


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    file = tmp_path / "backends.pem"
    authority.cert_pem.write_to_path(str(file))
    return str(file)


@pytest.fixture
def each_connect_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_contexts, "LOOK_S", 0.0)


def serving(
    authority: trustme.CA, *names: str, clients: trustme.CA | None = None, **how: object
) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names, **how).configure_cert(context)  # type: ignore[arg-type]
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        clients.configure_trust(context)
    return context


def snapshot_of(port: int, tls: UpstreamTls, host: str = "localhost", limits: Limits = DEFAULTS) -> Snapshot:
    target = Target("https", host, port, b"", b"Host: backend\r\n", tls=tls)
    return make_snapshot(port, limits, service=Service("svc", (target,)))


@asynccontextmanager
async def running(
    server: ssl.SSLContext, tls: UpstreamTls, host: str = "localhost", limits: Limits = DEFAULTS
) -> AsyncIterator[tuple[Stack, Recorder]]:
    recorder = Recorder()
    async with (
        backend(recorder.handle, server) as port,
        gateway(snapshot_of(port, tls, host, limits), limits) as stack,
    ):
        yield stack, recorder


async def ask(stack: Stack, path: bytes = b"/p/a") -> int:
    reader, writer = await stack.connect()
    status: int = (await exchange(reader, writer, request(b"GET", path))).status
    return status


async def test_a_services_own_authorities_are_trusted_and_the_systems_are_not(
    authority: trustme.CA, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(serving(authority, "localhost"), UpstreamTls(ca_file=bundle)) as (stack, _):
        assert await ask(stack) == 200
    other = trustme.CA()
    monkeypatch.setenv("SSL_CERT_FILE", bundle)
    with other.cert_pem.tempfile() as others:
        async with running(serving(authority, "localhost"), UpstreamTls(ca_file=others)) as (stack, recorder):
            assert await ask(stack) == 502
            assert recorder.seen == []
            assert "certificate verify failed" in stack.reports[0][1]


async def test_the_backend_is_asked_and_verified_by_the_name_that_is_set(
    authority: trustme.CA, bundle: str
) -> None:
    asked: list[str | None] = []
    server = serving(authority, "api.internal")
    server.sni_callback = lambda _tls, name, _context: asked.append(name)
    async with running(server, UpstreamTls(ca_file=bundle, server_name="api.internal"), "127.0.0.1") as (
        stack,
        _,
    ):
        assert await ask(stack) == 200
    async with running(server, UpstreamTls(ca_file=bundle)) as (stack, recorder):
        assert await ask(stack) == 502
        assert recorder.seen == []
    assert asked == ["api.internal", "localhost"]


async def test_without_verification_anybody_is_taken_and_the_log_says_so(
    authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(serving(authority, "else.example"), UpstreamTls(verify=False)) as (stack, _):
        assert await ask(stack) == 200
    assert "verify is false" in caplog.text


async def test_the_gateway_shows_its_certificate(authority: trustme.CA, bundle: str, tmp_path: Path) -> None:
    certificate = authority.issue_cert("gateway.internal")
    cert_file, key_file = str(tmp_path / "gw.crt"), str(tmp_path / "gw.key")
    certificate.cert_chain_pems[0].write_to_path(cert_file)
    certificate.private_key_pem.write_to_path(key_file)
    server = serving(authority, "localhost", clients=authority)
    shown = UpstreamTls(ca_file=bundle, cert_file=cert_file, key_file=key_file)
    async with running(server, shown) as (stack, _):
        assert await ask(stack) == 200
    async with running(server, UpstreamTls(ca_file=bundle)) as (stack, recorder):
        assert await ask(stack) == 502
        assert recorder.seen == []


async def test_services_with_different_settings_share_no_connection(
    authority: trustme.CA, bundle: str
) -> None:
    """Else a request of the one that verifies could go over a connection that nobody has verified."""
    recorder = Recorder()
    async with backend(recorder.handle, serving(authority, "else.example")) as port:
        careless, careful = (
            snapshot_of(port, tls) for tls in (UpstreamTls(verify=False), UpstreamTls(ca_file=bundle))
        )
        async with gateway(careless) as stack:
            assert await ask(stack) == 200
            stack.context.snapshot = careful
            assert await ask(stack) == 502
            stack.context.snapshot = snapshot_of(port, UpstreamTls(verify=False))
            assert await ask(stack) == 200
    assert len(recorder.seen) == 2
    assert recorder.connections == 1


@pytest.mark.usefixtures("each_connect_looks")
async def test_files_that_change_count_from_the_next_connection_on(
    authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    limits = Limits(max_idle_upstream=1)
    async with running(serving(authority, "localhost"), UpstreamTls(ca_file=str(file)), limits=limits) as (
        stack,
        _,
    ):
        assert await ask(stack) == 502
        authority.cert_pem.write_to_path(str(file))
        assert await ask(stack) == 200
        file.write_text("rubbish")
        for pool in stack.context.pools._by_endpoint.values():
            for upstream in list(pool.idle):
                upstream.abort()
        assert await ask(stack) == 200
        assert "what was in use before stays in use" in caplog.text


@pytest.mark.usefixtures("each_connect_looks")
async def test_a_file_that_is_missing_is_502_until_it_is_there(authority: trustme.CA, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    async with running(serving(authority, "localhost"), UpstreamTls(ca_file=str(file))) as (stack, _):
        assert await ask(stack) == 502
        assert "ca.pem: no such file" in stack.reports[0][1]
        authority.cert_pem.write_to_path(str(file))
        statuses = [await ask(stack)]
        while statuses[-1] != 200 and len(statuses) < 20:  # files are looked at off the loop
            await asyncio.sleep(0.05)
            statuses.append(await ask(stack))
        assert statuses[-1] == 200


async def test_a_context_is_made_once_and_off_the_loop(
    authority: trustme.CA, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    made: list[int] = []

    def make(settings: UpstreamTls) -> ssl.SSLContext:
        made.append(threading.get_ident())
        return make_client_context(settings)

    monkeypatch.setattr(tls_contexts, "make_client_context", make)
    async with running(serving(authority, "localhost"), UpstreamTls(ca_file=bundle)) as (stack, _):
        assert await asyncio.gather(*(ask(stack) for _ in range(20))) == [200] * 20
    if made:  # the compiled build calls it directly
        assert len(made) == 1
        assert made[0] != threading.get_ident()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_new_connection_resumes_the_session_of_an_earlier_one(
    authority: trustme.CA, bundle: str, version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "TICK_S", 0.01)
    server = serving(authority, "localhost")
    server.maximum_version = version
    async with running(server, UpstreamTls(ca_file=bundle)) as (stack, recorder):
        assert await ask(stack) == 200
        (pool,) = stack.context.pools._by_endpoint.values()
        (first,) = pool.idle
        context = first.transport.get_extra_info("ssl_object").context
        await until(lambda: bool(context.sessions))
        first.abort()
        assert await ask(stack) == 200
        await until(lambda: bool(pool.idle))
        assert pool.idle[0].transport.get_extra_info("ssl_object").session_reused
        assert recorder.connections == 2
        assert server.session_stats()["hits"] == 1


def _mismatch(directory: Path, authority: trustme.CA) -> UpstreamTls:
    one, other = (authority.issue_cert("a.example") for _ in range(2))
    one.cert_chain_pems[0].write_to_path(str(directory / "c.pem"))
    other.private_key_pem.write_to_path(str(directory / "k.pem"))
    return UpstreamTls(cert_file=str(directory / "c.pem"), key_file=str(directory / "k.pem"))


def _encrypted(directory: Path, authority: trustme.CA) -> UpstreamTls:
    one = authority.issue_cert("a.example")
    one.cert_chain_pems[0].write_to_path(str(directory / "c.pem"))
    key = serialization.load_pem_private_key(one.private_key_pem.bytes(), None)
    (directory / "k.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
    )
    return UpstreamTls(cert_file=str(directory / "c.pem"), key_file=str(directory / "k.pem"))


def _rubbish(directory: Path, _authority: trustme.CA) -> UpstreamTls:
    (directory / "ca.pem").write_text("rubbish")
    return UpstreamTls(ca_file=str(directory / "ca.pem"))


def _no_key(directory: Path, authority: trustme.CA) -> UpstreamTls:
    return UpstreamTls(cert_file=_mismatch(directory, authority).cert_file, key_file=str(directory / "none"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_mismatch, "does not belong"),
        (_encrypted, "k.pem: the key is encrypted"),
        (_rubbish, "ca.pem: no certificate in PEM"),
        (_no_key, "none: no such file"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_and_nobody_is_asked_for_a_password(
    authority: trustme.CA, tmp_path: Path, make: Callable[[Path, trustme.CA], UpstreamTls], said: str
) -> None:
    with pytest.raises(UpstreamTlsError) as wrong:
        make_client_context(make(tmp_path, authority))
    assert said in str(wrong.value)


# --- Unix sockets ------------------------------------------------------------------------------------


def unix_snapshot(path: Path) -> Snapshot:
    target = Target("http", str(path), 0, b"/base", b"Host: localhost\r\n")
    return make_snapshot(0, service=Service("svc", (target,)))


async def test_a_backend_on_a_unix_socket_is_used_like_any_other(tmp_path: Path) -> None:
    recorder = Recorder()
    path = tmp_path / "app.sock"
    async with backend(recorder.handle, path=path), gateway(unix_snapshot(path)) as stack:
        reader, writer = await stack.connect()
        for n in range(3):
            answer = await exchange(
                reader, writer, request(b"PUT", b"/p/%d" % n, body=b"x" * 200_000), b"PUT"
            )
            assert answer.status == 200
        assert stack.context.pools.counts() == {f"http://unix:{path}": {"open": 1, "idle": 1}}
    assert recorder.connections == 1
    assert [seen.head.split()[1] for seen in recorder.seen] == [b"/base/0", b"/base/1", b"/base/2"]
    assert all(b"\r\nHost: localhost\r\n" in seen.head for seen in recorder.seen)


async def test_a_unix_socket_that_nobody_listens_on_is_502(tmp_path: Path) -> None:
    limits = Limits(connect_retry_s=0.05)
    async with gateway(unix_snapshot(tmp_path / "none.sock"), limits) as stack:
        assert await ask(stack) == 502
        assert f"unix:{tmp_path}/none.sock: " in stack.reports[0][1]


# --- documents -----------------------------------------------------------------------------------------


def _check(directory: Path, service: str) -> tuple[int, str, str]:
    file = directory / "gateway.yaml"
    file.write_text(
        "gateways:\n  shop:\n    hosts: ['*']\n    auth: {type: API_KEY}\n"
        f"    services: {{s: {service}}}\n"
        "    routes: {r: {method: GET, public_path: /r, service: s, security: PUBLIC}}\n"
    )
    done = authgate("check", str(file))
    return done.returncode, done.stdout, done.stderr


def test_check_notes_a_service_that_takes_any_certificate(tmp_path: Path) -> None:
    code, out, err = _check(tmp_path, '{target_url: "https://b", tls: {verify: false}}')
    assert (code, "good" in out, "note: gateway shop: the service s takes any certificate" in err) == (
        0,
        True,
        True,
    )
    code, _, err = _check(tmp_path, '{target_url: "https://b", tls: {ca_file: {file: /etc/ca.pem}}}')
    assert (code, err) == (0, "")


def test_documents_become_the_settings_of_their_targets() -> None:
    tls = {"ca_file": {"file": "/ca"}, "cert_file": "/c", "key_file": "/k", "server_name": "api.internal"}
    raw = json.dumps({"target_urls": ["https://a", "http://b", "http://unix:/run/a.sock:/v1"], "tls": tls})
    document = ServiceDocument.model_validate_json(raw)
    secure, plain, unix = compile_service("s", document).targets
    assert secure.tls == UpstreamTls("/ca", "/c", "/k", "api.internal", True)
    assert (plain.tls, unix.tls) == (None, None)
    assert (unix.host, unix.base_path, unix.host_line) == ("/run/a.sock", b"/v1", b"Host: localhost\r\n")
    assert unix.url == "http://unix:/run/a.sock:/v1"
    default = ServiceDocument.model_validate_json('{"target_url": "https://a"}')
    assert compile_service("s", default).targets[0].tls == UpstreamTls()
