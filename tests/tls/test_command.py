"""`authgate run` with TLS, PROXY headers and Unix sockets, as users start it and with the clients that they use."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trustme

from tests.proxy.harness import backend, echo
from tests.running import BOUND_S, Gateway, authgate, running, until, write_config
from tests.tls.kit import client_context, put, write_pair

NO_WORKERS = ("--workers", "1", "--spare", "off")


@asynccontextmanager
async def configured(directory: Path) -> AsyncIterator[Path]:
    """A backend that echoes, and the file of a gateway in front of it."""
    async with backend(echo) as port:
        yield write_config(directory / "gateway.yaml", port)


@contextmanager
def at(sock: socket.socket) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("localhost", timeout=BOUND_S)
    connection.sock = sock
    try:
        yield connection
    finally:
        connection.close()


def ask(port: int, context: ssl.SSLContext | None, before: bytes = b"") -> str:
    """Return what the backend was sent."""
    sock: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=BOUND_S)
    sock.sendall(before)
    if context is not None:
        sock = context.wrap_socket(sock, server_hostname="localhost")
    with at(sock) as connection:
        connection.request("GET", "/open/x")
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()


def status(gateway: Gateway) -> dict[str, object]:
    shown: dict[str, object] = json.loads(gateway.get("/status", port=gateway.ops_port)[1])
    return shown


async def test_a_gateway_with_a_certificate_speaks_tls(authority: trustme.CA, tmp_path: Path) -> None:
    cert_file, key_file = write_pair(authority, tmp_path, "p", "localhost")
    context = client_context(authority)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    def talk(config: Path) -> None:
        options = ("--tls-cert", str(cert_file), "--tls-key", str(key_file), "--ops", "127.0.0.1:0")
        with running("--config", str(config), *options, *NO_WORKERS) as gateway:
            assert "\r\nX-Forwarded-Proto: https\r\n" in ask(gateway.port, context)
            shown = status(gateway)
            assert shown["tls_handshakes_total"] == 1
            tls = shown["tls"]
            assert isinstance(tls, dict)
            assert tls["certificates"][0]["names"] == ["localhost"]
            metrics = gateway.get("/metrics", port=gateway.ops_port)[1].decode()
            assert f'authgate_certificate_expiry_timestamp_seconds{{file="{cert_file}"}} ' in metrics
            if shutil.which("curl"):
                url = f"https://localhost:{gateway.port}/open/x"
                command = ["curl", "-sS", "--cacert", str(tmp_path / "ca.pem"), "--http1.1", url]
                done = subprocess.run(command, capture_output=True, timeout=BOUND_S, check=True)
                assert b"GET /x HTTP/1.1" in done.stdout
            assert gateway.stop() == 0

    async with configured(tmp_path) as config:
        await asyncio.to_thread(talk, config)


async def test_the_environment_names_several_pairs_and_one_listener_may_stay_plain(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [write_pair(authority, tmp_path, stem, stem) for stem in ("localhost", "q.example")]
    with socket.create_server(("127.0.0.1", 0)) as free:
        plain_port = free.getsockname()[1]

    def talk(config: Path) -> None:
        certificates, keys = (":".join(str(pair[n]) for pair in pairs) for n in (0, 1))
        environment = {"AUTHGATE_TLS_CERT": certificates, "AUTHGATE_TLS_KEY": keys}
        options = ("--listen", f"http://127.0.0.1:{plain_port}", "--ops", "off")
        with running("--config", str(config), *options, *NO_WORKERS, env=environment) as gateway:
            assert "X-Forwarded-Proto: https" in ask(gateway.port, client_context(authority))
            assert "X-Forwarded-Proto: http\r\n" in ask(plain_port, None)
            assert f"and 127.0.0.1:{plain_port}" in gateway.log

    async with configured(tmp_path) as config:
        await asyncio.to_thread(talk, config)


async def test_headers_of_a_balancer_and_certificates_of_clients_go_on_to_the_backend(
    authority: trustme.CA, tmp_path: Path
) -> None:
    cert_file, key_file = write_pair(authority, tmp_path, "p", "localhost")
    clients = trustme.CA()
    clients.cert_pem.write_to_path(str(tmp_path / "clients.pem"))
    context = client_context(authority)
    clients.issue_cert("app.example").configure_cert(context)

    def talk(config: Path) -> None:
        options = (
            *("--tls-cert", str(cert_file), "--tls-key", str(key_file), "--ops", "off"),
            *("--tls-client-ca", str(tmp_path / "clients.pem"), "--proxy-protocol-from", "127.0.0.0/8, ::1"),
        )
        with running("--config", str(config), *options, *NO_WORKERS) as gateway:
            header = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
            told = ask(gateway.port, context, header)
            assert "X-Forwarded-For: 192.0.2.7\r\n" in told
            assert "X-Client-Cert-San: DNS:app.example\r\n" in told
            with pytest.raises((ssl.SSLError, OSError)):
                ask(gateway.port, client_context(authority), header)

    async with configured(tmp_path) as config:
        await asyncio.to_thread(talk, config)


async def test_a_unix_socket_is_served_by_all_workers_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"

    def talk(config: Path) -> None:
        options = ("--listen", f"unix:{path}:600", "--ops", "off", "--workers", "2", "--spare", "off")
        with running("--config", str(config), *options) as gateway:
            for _ in range(6):
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(str(path))
                with at(sock) as connection:
                    connection.request("GET", "/open/x")
                    told = connection.getresponse().read().decode()
                    assert "X-Forwarded-For" not in told
            assert path.stat().st_mode & 0o777 == 0o600
            assert gateway.stop() == 0
            assert not path.exists()

    async with configured(tmp_path) as config:
        await asyncio.to_thread(talk, config)


async def test_no_request_over_tls_fails_while_workers_and_certificates_are_replaced(
    authority: trustme.CA, tmp_path: Path
) -> None:
    cert_file, key_file = write_pair(authority, tmp_path, "p", "localhost")
    context = client_context(authority)
    failures: list[str] = []
    served = [0]
    done = threading.Event()

    def client(port: int) -> None:
        while not done.is_set():
            try:
                assert "GET /x HTTP/1.1" in ask(port, context)
                served[0] += 1
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")

    def talk(config: Path) -> None:
        options = ("--tls-cert", str(cert_file), "--tls-key", str(key_file), "--ops", "off", "--workers", "2")
        with running("--config", str(config), *options, "--spare", "off") as gateway:
            threads = [threading.Thread(target=client, args=(gateway.port,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            try:
                for number in range(2):
                    before = served[0]
                    until(lambda before=before: served[0] > before + 20, "requests")  # type: ignore[misc]
                    write_pair(authority, tmp_path, "p", "localhost")
                    gateway.process.send_signal(signal.SIGHUP)
                    until(
                        lambda number=number: gateway.log.count("2 of 2 workers replaced") > number,  # type: ignore[misc]
                        "a reload",
                        40.0,
                    )
            finally:
                done.set()
            for thread in threads:
                thread.join(BOUND_S)
            assert gateway.stop() == 0

    async with configured(tmp_path) as config:
        await asyncio.to_thread(talk, config)
    assert failures == []


def test_what_cannot_be_used_ends_the_start_in_plain_words(authority: trustme.CA, tmp_path: Path) -> None:
    cert_file, key_file = write_pair(authority, tmp_path, "p", "localhost")
    put(key_file, authority.issue_cert("localhost").private_key_pem.bytes())
    config = write_config(tmp_path / "gateway.yaml", 1)
    done = authgate(
        *("run", "--config", str(config), "--listen", "127.0.0.1:0", "--ops", "off"),
        *("--tls-cert", str(cert_file), "--tls-key", str(key_file)),
    )
    assert done.returncode == 3
    assert "the key does not belong to the certificate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tls-cert", "a"), "go in pairs, but there are 1 of one and 0 of the other"),
        (("--tls-key", "a"), "0 of one and 1 of the other"),
        (("--tls-client-ca", "a"), "--tls-client-ca needs TLS"),
        (("--tls-dir", "a", "--tls-client-auth", "optional"), "needs --tls-client-ca"),
        (("--tls-dir", "a", "--tls-client-ca", "b", "--tls-client-auth", "x"), "write optional or required"),
        (("--proxy-protocol-from", "10.0.0.1/8"), "did you mean `10.0.0.0/8`?"),
        (("--proxy-protocol-from", "balancer"), "an address or a range"),
        (("--listen", "unix:a.sock"), "write it as unix:/run/authgate.sock"),
        (("--listen", "https://127.0.0.1:1"), "write it as HOST:PORT"),
        (("--listen", "127.0.0.1:1", "--listen", "127.0.0.1:1"), "stands there twice"),
    ],
)
def test_a_mistake_in_the_options_is_said_with_what_to_write(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    config = write_config(tmp_path / "gateway.yaml", 1)
    done = authgate("run", "--config", str(config), *options)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_a_unix_socket_that_another_gateway_serves_is_not_taken(tmp_path: Path) -> None:
    config = write_config(tmp_path / "gateway.yaml", 1)
    path = tmp_path / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        done = authgate("run", "--config", str(config), "--listen", f"unix:{path}", "--ops", "off")
        assert done.returncode == 3
        assert "another program listens there" in done.stderr
        assert path.exists()
