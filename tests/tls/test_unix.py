"""Unix sockets in: their files, and what a peer without an address is to the gateway."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.server.entrance import Entrance, ProxySources
from authgate_fast.server.unix_listening import UnixAddress, file_id, open_unix, parse_unix, remove_unix
from tests.proxy.harness import Stack, backend, echo, gateway, make_snapshot
from tests.tls.kit import GET, echoed, read_all


@contextmanager
def bound(path: Path, mode: int = 0o660) -> Iterator[socket.socket]:
    with open_unix(UnixAddress(str(path), mode)) as one:
        yield one


@asynccontextmanager
async def listening(path: Path, limits: Limits = DEFAULTS, *, proxies: bool = False) -> AsyncIterator[Stack]:
    async with backend(echo) as port, gateway(make_snapshot(port, limits), limits) as stack:
        entrance = Entrance(stack.context, None, ProxySources((), unix=True) if proxies else None)
        with bound(path) as one:
            one.listen(16)
            entrance.accept_from(one)
            try:
                yield stack
            finally:
                await entrance.close()


async def ask(path: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(request)
        return await read_all(reader)
    finally:
        writer.transport.abort()


def with_fields(*lines: bytes) -> bytes:
    return GET.replace(b"\r\n\r\n", b"".join(b"\r\n" + line for line in lines) + b"\r\n\r\n")


CLAIMS = (b"X-Forwarded-For: 203.0.113.9", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: shop.example")


async def test_who_comes_by_a_unix_socket_has_no_address_and_no_trust(tmp_path: Path) -> None:
    async with listening(tmp_path / "s"):
        fields = echoed(await ask(tmp_path / "s", with_fields(*CLAIMS)))
        assert "x-forwarded-for" not in fields
        assert (fields["x-forwarded-proto"], fields["x-forwarded-host"]) == ("http", "gw.example")


async def test_a_gateway_that_trusts_unix_sockets_takes_their_word(tmp_path: Path) -> None:
    async with listening(tmp_path / "s") as stack:
        stack.context.snapshot.gateways["gw"].trusts_unix = True
        fields = echoed(await ask(tmp_path / "s", with_fields(*CLAIMS)))
        assert fields["x-forwarded-for"] == "203.0.113.9"
        assert (fields["x-forwarded-proto"], fields["x-forwarded-host"]) == ("https", "shop.example")
        fields = echoed(await ask(tmp_path / "s", with_fields(CLAIMS[1])))
        assert "x-forwarded-for" not in fields
        assert fields["x-forwarded-proto"] == "https"


@pytest.mark.parametrize("trusting", [False, True])
async def test_failed_checks_are_counted_for_the_client_that_a_trusted_peer_names(
    tmp_path: Path, trusting: bool
) -> None:
    def wrong(address: bytes) -> bytes:
        return with_fields(b"X-Api-Key: agk_wrong", b"X-Forwarded-For: " + address).replace(b"/p/x", b"/s/x")

    async with listening(tmp_path / "s", Limits(max_failures_per_address=2)) as stack:
        stack.context.snapshot.gateways["gw"].trusts_unix = trusting
        codes = [(await ask(tmp_path / "s", wrong(b"203.0.113.9")))[9:12] for _ in range(3)]
        assert codes == [b"401", b"401", b"429"]
        other = await ask(tmp_path / "s", wrong(b"203.0.113.10"))
        assert other[9:12] == (b"401" if trusting else b"429")


async def test_a_peer_on_a_unix_socket_may_have_to_send_a_proxy_header(tmp_path: Path) -> None:
    header = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
    async with listening(tmp_path / "s", proxies=True):
        assert echoed(await ask(tmp_path / "s", header + GET))["x-forwarded-for"] == "192.0.2.7"
        assert await ask(tmp_path / "s", GET) == b""


@pytest.mark.parametrize(
    ("text", "path", "mode"),
    [
        ("unix:/run/a.sock", "/run/a.sock", 0o660),
        ("unix:/run/a.sock:666", "/run/a.sock", 0o666),
        ("unix:/run/a.sock:0600", "/run/a.sock", 0o600),
    ],
)
def test_an_address_is_a_path_and_maybe_permissions(text: str, path: str, mode: int) -> None:
    address = parse_unix(text)
    assert (address.path, address.mode, str(address)) == (path, mode, f"unix:{path}")


@pytest.mark.parametrize(
    "text",
    [
        "unix:",
        "unix:a.sock",
        "unix:/",
        "unix:/run/",
        "unix:/a:",
        "unix:/a:9",
        "unix:/a:689",
        "unix:/a:b",
        "unix:/a\n",
        f"unix:/{'a' * 107}",
    ],
)
def test_whatever_else_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"unix:|at most"):
        parse_unix(text)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_file_has_its_permissions_from_the_start(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o022)
    try:
        with bound(tmp_path / "s", mode):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_a_file_that_a_dead_process_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bound(path) as one:
        one.listen()
    assert path.exists()
    with bound(path) as again:
        again.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_who_listens_is_never_pushed_aside(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bound(path) as one:
        one.listen()
        with pytest.raises(OSError, match="in use"):
            open_unix(UnixAddress(str(path)))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_nothing_but_a_socket_is_ever_deleted(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError, match="in use"):
        open_unix(UnixAddress(str(path)))
    assert path.read_text() == "data"


def test_at_the_end_the_file_goes_unless_it_is_anothers(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "s"))
    with open_unix(address):
        ours = file_id(address)
        remove_unix(address, ours)
        assert not Path(address.path).exists()
        remove_unix(address, ours)
        (tmp_path / "t").touch()  # so that the next inode is another one
        with open_unix(address):
            remove_unix(address, None)
            assert Path(address.path).exists()
            if file_id(address) != ours:
                remove_unix(address, ours)
                assert Path(address.path).exists()
