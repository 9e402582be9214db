"""A gateway behind an `Entrance`, and clients that tell what they saw of its TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import trustme

from authgate_fast.limits import DEFAULTS, Limits
from authgate_fast.server.entrance import Entrance, ProxySources
from authgate_fast.server.tls import ServerTls
from authgate_fast.server.tls_options import OFF, TlsOptions
from authgate_fast.snapshot import Snapshot
from tests.proxy.harness import BOUND_S, Handler, Stack, backend, echo, gateway, make_snapshot

LOOPBACK = "127.0.0.0/8"
GET = b"GET /p/x HTTP/1.1\r\nHost: gw.example\r\nConnection: close\r\n\r\n"


def write_pair(
    authority: trustme.CA, directory: Path, stem: str, *names: str, **how: Any
) -> tuple[Path, Path]:
    """Issue a certificate for `names`; return its files."""
    certificate = authority.issue_cert(*names, **how)
    cert_file, key_file = directory / f"{stem}.crt", directory / f"{stem}.key"
    put(cert_file, b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    put(key_file, certificate.private_key_pem.bytes())
    return cert_file, key_file


def put(file: Path, data: bytes) -> None:
    """Write as certbot does: a new file takes the place of the old one."""
    new = file.with_name(file.name + ".new")
    new.write_bytes(data)
    new.chmod(0o600)
    new.replace(file)


@dataclass
class Door:
    """A running gateway with an entrance."""

    stack: Stack
    entrance: Entrance
    port: int
    tls: ServerTls | None


@asynccontextmanager
async def door(
    *pairs: tuple[Path, Path],
    directory: Path | None = None,
    client_ca: Path | None = None,
    client_auth: str = OFF,
    proxies: Sequence[str] = (),
    limits: Limits = DEFAULTS,
    handler: Handler = echo,
    snapshot: Snapshot | None = None,
    send_buffer: int = 0,
) -> AsyncIterator[Door]:
    """Run a gateway; without certificates it speaks plain HTTP. `send_buffer`: what its kernel holds for a client."""
    tls = None
    if pairs or directory is not None:
        tls = ServerTls(TlsOptions(pairs, directory, client_ca, client_auth))
        tls.load()
    sources = ProxySources([ip_network(text) for text in proxies]) if proxies else None
    async with backend(handler) as port, gateway(snapshot or make_snapshot(port, limits), limits) as stack:
        if snapshot is None:
            stack.context.snapshot = make_snapshot(port, limits)
        entrance = Entrance(stack.context, tls, sources)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            if send_buffer:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            entrance.accept_from(listening)
            following = asyncio.ensure_future(tls.run()) if tls is not None else None
            try:
                yield Door(stack, entrance, listening.getsockname()[1], tls)
            finally:
                if following is not None:
                    following.cancel()
                await entrance.close()


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@dataclass
class Visit:
    """What a client saw of one connection."""

    answer: bytes
    names: tuple[str, ...]
    version: str | None
    cipher: str
    alpn: str | None
    reused: bool
    session: ssl.SSLSession | None
    der: bytes
    compression: str | None = None
    fields: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what the echoing backend was sent."""
        for line in self.answer.partition(b"\r\n\r\n")[2].split(b"\r\n")[1:]:
            name, _, value = line.partition(b": ")
            if name:
                self.fields[name.decode().lower()] = value.decode()


def _visit(
    port: int,
    context: ssl.SSLContext,
    name: str | None,
    session: ssl.SSLSession | None,
    request: bytes,
    before: bytes,
) -> Visit:
    with socket.create_connection(("127.0.0.1", port), timeout=BOUND_S) as raw:
        if before:
            raw.sendall(before)
        with context.wrap_socket(raw, server_hostname=name, session=session) as tls:
            tls.sendall(request)
            answer = b"".join(iter(lambda: tls.recv(65_536), b""))
            certificate = tls.getpeercert() or {}
            alternatives: Any = certificate.get("subjectAltName", ())
            return Visit(
                answer,
                tuple(value for _, value in alternatives),
                tls.version(),
                (tls.cipher() or ("", "", 0))[0],
                tls.selected_alpn_protocol(),
                bool(tls.session_reused),
                tls.session,
                tls.getpeercert(binary_form=True) or b"",
                tls.compression(),
            )


async def visit(
    port: int,
    context: ssl.SSLContext,
    name: str | None = "localhost",
    *,
    session: ssl.SSLSession | None = None,
    request: bytes = GET,
    before: bytes = b"",
) -> Visit:
    """Connect, send `request` (after the bytes `before`, outside TLS) and read to the end."""
    return await asyncio.to_thread(_visit, port, context, name, session, request, before)


@asynccontextmanager
async def connected(
    port: int, context: ssl.SSLContext | None = None, name: str = "localhost", before: bytes = b""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection in the test's own loop, plain without a context."""
    raw = socket.create_connection(("127.0.0.1", port))
    raw.setblocking(False)
    if before:
        raw.sendall(before)
    tls = {} if context is None else {"ssl": context, "server_hostname": name}
    reader, writer = await asyncio.open_connection(sock=raw, limit=1 << 20, **tls)  # type: ignore[arg-type]
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Read to the end, however it comes."""
    data = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(BOUND_S):
            while piece := await reader.read(65_536):
                data += piece
    return data


def echoed(answer: bytes) -> dict[str, str]:
    """Return the fields that the echoing backend was sent."""
    lines = answer.partition(b"\r\n\r\n")[2].split(b"\r\n")[1:]
    return dict(_fields(lines))


def _fields(lines: list[bytes]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(": ")
        if colon:
            yield name.lower(), value
