"""Small calls to an identity provider: one request, one answer, one connection; http and https.

Everything is bounded: the time of the connect and of the whole call, the size of head and body. No redirect is
followed, no cookie kept, no proxy of the environment used. The certificate is checked against the system's
CAs (``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` count). Plain http reaches this machine only. The name is resolved here
and the connection goes to the address that was judged, so a link-local or metadata address is never called,
whatever a name or a provider's own metadata says.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from dataclasses import dataclass

import h11

from authgate_fast import __version__
from authgate_fast.addresses import AddressError, is_guarded, is_loopback, parse_target_url

MAX_BODY_BYTES = 524_288
"""The largest honest answer is a key set with certificates: tens of kilobytes."""
MAX_HEAD_BYTES = 32_768
MAX_URL_CHARACTERS = 2_048
CONNECT_TIMEOUT_S = 3.0
"""Name look-up, connect and TLS handshake together."""
TOTAL_TIMEOUT_S = 5.0
"""The whole call: three of them in a row stay below `limits.lookup_timeout_s`."""
_MAX_INTERIM = 8
_READ_BYTES = 65_536
_split_url = re.compile(r"(https?)://([^/?#\\@]+)(/[!-~]*|\?[!-~]*)?").fullmatch
_AGENT = f"authgate/{__version__}".encode("ascii")

Fields = list[tuple[bytes, bytes]]


class CallError(Exception):
    """A call came to no answer. The text is for an operator: the provider's host, and what happened."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint's URL in parts; ``target`` is path and query as they go on the wire."""

    scheme: str
    host: str
    port: int
    authority: str
    target: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A final answer; ``media_type`` is lower-case and without parameters."""

    status: int
    media_type: bytes
    body: bytes


def parse_endpoint(url: str) -> Endpoint:
    """Take an absolute URL apart; raise `AddressError`.

    RFC 6749 section 3.2 lets an endpoint have a query and forbids a fragment.
    """
    parts = _split_url(url) if len(url) <= MAX_URL_CHARACTERS else None
    if parts is None or "#" in url:
        raise AddressError(
            "an endpoint is an http or https URL of visible ASCII without user info and fragment"
        )
    scheme, authority, target = parts[1], parts[2], parts[3] or "/"
    parsed = parse_target_url(f"{scheme}://{authority}")
    if scheme == "http" and not is_loopback(parsed.host):
        raise AddressError("an endpoint over plain http must be on this machine; use https")
    if is_guarded(parsed.host):
        raise AddressError("link-local addresses and cloud metadata services cannot be endpoints")
    if target.startswith("?"):
        target = "/" + target
    return Endpoint(scheme, parsed.host, parsed.port, parsed.authority, target)


class HttpClient:
    """Makes calls. It keeps nothing between them but the CA certificates."""

    __slots__ = ("_context", "_loading", "connect_timeout_s", "total_timeout_s")

    def __init__(
        self, connect_timeout_s: float = CONNECT_TIMEOUT_S, total_timeout_s: float = TOTAL_TIMEOUT_S
    ) -> None:
        self.connect_timeout_s = connect_timeout_s
        self.total_timeout_s = total_timeout_s
        self._context: ssl.SSLContext | None = None
        self._loading: asyncio.Task[ssl.SSLContext] | None = None

    async def get(self, url: str, fields: Fields | None = None) -> Answer:
        """Call with GET. Raises `CallError`."""
        return await self.call(b"GET", url, fields or [], b"")

    async def call(self, method: bytes, url: str, fields: Fields, body: bytes) -> Answer:
        """Send one request and return the final answer, whatever its status. Raises `CallError`."""
        try:
            endpoint = parse_endpoint(url)
        except AddressError as error:
            raise CallError(f"{_shorten(url)}: {error}") from None
        try:
            async with asyncio.timeout(self.total_timeout_s):
                return await self._exchange(endpoint, method, fields, body)
        except TimeoutError:
            raise CallError(f"{endpoint.authority} did not answer in {self.total_timeout_s:g} s") from None
        except h11.RemoteProtocolError as error:
            raise CallError(f"{endpoint.authority} answered with malformed HTTP ({error})") from None
        except ssl.SSLCertVerificationError as error:
            raise CallError(
                f"the certificate of {endpoint.authority} was not accepted: {error.verify_message}"
            ) from None
        except (OSError, ssl.SSLError, EOFError) as error:
            raise CallError(f"{endpoint.authority} cannot be reached ({_what_happened(error)})") from None

    async def _exchange(self, endpoint: Endpoint, method: bytes, fields: Fields, body: bytes) -> Answer:
        reader, writer = await self._connect(endpoint)
        try:
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
            head = [
                (b"Host", endpoint.authority.encode("ascii")),
                (b"User-Agent", _AGENT),
                (b"Accept", b"application/json"),
                (b"Accept-Encoding", b"identity"),
                (b"Connection", b"close"),
                *fields,
            ]
            if body or method == b"POST":
                head.append((b"Content-Length", b"%d" % len(body)))
            target = endpoint.target.encode("ascii")
            wire = connection.send(h11.Request(method=method, target=target, headers=head)) or b""
            if body:
                wire += connection.send(h11.Data(data=body)) or b""
            writer.write(wire + (connection.send(h11.EndOfMessage()) or b""))
            await writer.drain()
            return await _read_answer(endpoint, connection, reader)
        finally:
            writer.transport.abort()  # nothing is left to say; a graceful TLS close would wait for the peer

    async def _connect(self, endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                tls = await self._tls() if endpoint.scheme == "https" else None
                addresses = await _resolve(endpoint)
                failure: OSError | None = None
                for address in addresses:
                    try:
                        return await asyncio.open_connection(
                            address,
                            endpoint.port,
                            ssl=tls,
                            server_hostname=endpoint.host if tls is not None else None,
                            limit=_READ_BYTES,
                        )
                    except ssl.SSLError:
                        raise
                    except OSError as error:
                        failure = error
                raise failure or OSError("the name has no address")
        except TimeoutError:
            raise CallError(
                f"{endpoint.authority} could not be reached in {self.connect_timeout_s:g} s"
            ) from None

    async def _tls(self) -> ssl.SSLContext:
        """Return the TLS settings; loading the CA file takes tens of milliseconds, so off the loop, and once."""
        if self._context is None:
            if self._loading is None:
                self._loading = asyncio.create_task(asyncio.to_thread(_make_tls), name="load-ca-certificates")
            loading = self._loading
            try:
                self._context = await asyncio.shield(loading)
            finally:
                if loading.done():
                    self._loading = None
        return self._context

    async def close(self) -> None:
        """End what is under way beside the calls themselves."""
        if self._loading is not None:
            await asyncio.wait({self._loading})


def _make_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _resolve(endpoint: Endpoint) -> list[str]:
    """Return the addresses of a host. One that must not be called spoils all: a name with both is a trick."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(item[4][0]) for item in found))
    for address in addresses:
        if is_guarded(address):
            raise CallError(f"{endpoint.authority} leads to a link-local or metadata address")
        if endpoint.scheme == "http" and not is_loopback(address):
            raise CallError(f"{endpoint.authority} leads to another machine, over plain http")
    return addresses


async def _read_answer(
    endpoint: Endpoint, connection: h11.Connection, reader: asyncio.StreamReader
) -> Answer:
    answer: h11.Response | None = None
    pieces: list[bytes] = []
    length = interim = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(_READ_BYTES)
            if not data and answer is None:
                raise CallError(f"{endpoint.authority} closed the connection without an answer")
            connection.receive_data(data)
        elif isinstance(event, h11.InformationalResponse):
            interim += 1
            if interim > _MAX_INTERIM:
                raise CallError(f"{endpoint.authority} sent too many interim answers")
        elif isinstance(event, h11.Response):
            answer = event
        elif isinstance(event, h11.Data):
            length += len(event.data)
            if length > MAX_BODY_BYTES:
                raise CallError(f"{endpoint.authority} answered with more than {MAX_BODY_BYTES} bytes")
            pieces.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage) and answer is not None:
            return Answer(answer.status_code, _media_type(answer), b"".join(pieces))
        else:
            raise CallError(f"{endpoint.authority} answered with malformed HTTP")


def _media_type(answer: h11.Response) -> bytes:
    for name, value in answer.headers:
        if name == b"content-type":
            return bytes(value).partition(b";")[0].strip(b" \t").lower()
    return b""


def _what_happened(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def _shorten(url: str) -> str:
    return ascii(url if len(url) <= 200 else url[:200] + "...")
