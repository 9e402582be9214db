"""The options of how clients come in: addresses, TLS and PROXY headers. Part of `options`, and as light."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from authgate_fast.addresses import AddressError, parse_network
from authgate_fast.decision import UNIX
from authgate_fast.server.listening import Address
from authgate_fast.server.tls_options import OFF, OPTIONAL, REQUIRED, TlsOptions
from authgate_fast.server.unix_listening import UnixAddress, parse_unix

DEFAULT_LISTEN = "127.0.0.1:8080"


class UsageError(Exception):
    """An option's value is wrong; the text says how to write it."""


def environment(name: str) -> str | None:
    """Return the setting AUTHGATE_`name`, None if it is not there or empty."""
    return os.environ.get(f"AUTHGATE_{name}") or None


def add_entry(parser: argparse.ArgumentParser) -> None:
    """Add what `authgate run` has beside ``--listen``."""
    for option, metavar, what in (
        (
            "--tls-cert",
            "FILE",
            "a certificate with its chain, in PEM; repeatable, the first one is the default",
        ),
        ("--tls-key", "FILE", "its key; as many as --tls-cert, in the same order"),
    ):
        parser.add_argument(option, action="append", default=None, metavar=metavar, help=what)
    for option, metavar, what in (
        ("--tls-dir", "DIR", "more of them: NAME.crt with NAME.key, NAME/fullchain.pem with privkey.pem"),
        ("--tls-client-ca", "FILE", "authorities whose certificates clients may show"),
        (
            "--tls-client-auth",
            "optional|required",
            "whether clients must show one (default required, with --tls-client-ca)",
        ),
        (
            "--proxy-protocol-from",
            "CIDR,...",
            "balancers whose connections begin with a PROXY protocol header",
        ),
    ):
        name = option.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(option, default=environment(name), metavar=metavar, help=what)


def read_listen(options: argparse.Namespace) -> tuple[Address | UnixAddress, ...]:
    """Read ``--listen``. Raises UsageError."""
    texts = options.listen
    if texts is None:
        texts = (environment("LISTEN") or DEFAULT_LISTEN).replace(",", " ").split()
    found: list[Address | UnixAddress] = []
    for text in texts:
        address: Address | UnixAddress
        if text.startswith(UNIX):
            try:
                address = parse_unix(text)
            except ValueError as error:
                raise UsageError(f"--listen {error}") from None
        else:
            address = read_address(text.removeprefix("http://"), "--listen")
            if text.startswith("http://"):
                address = Address(address.host, address.port, plain=True)
        is_fixed = isinstance(address, UnixAddress) or address.port
        if is_fixed and str(address) in map(str, found):
            raise UsageError(f"--listen {text}: this address stands there twice")
        found.append(address)
    return tuple(found)


def read_address(text: str, option: str) -> Address:
    """Read HOST:PORT. Raises UsageError."""
    host, colon, port_text = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    port = int(port_text) if port_text.isascii() and port_text.isdecimal() else -1
    if not colon or not host or "/" in host or not 0 <= port <= 65_535:
        raise UsageError(f"{option} {text}: write it as HOST:PORT, for instance 127.0.0.1:8080")
    return Address(host, port)


def read_tls(options: argparse.Namespace) -> TlsOptions | None:
    """Read what was said of TLS; None: nothing. Raises UsageError."""
    certificates = _paths(options.tls_cert, "TLS_CERT")
    keys = _paths(options.tls_key, "TLS_KEY")
    if len(certificates) != len(keys):
        counts = f"{len(certificates)} of one and {len(keys)} of the other"
        raise UsageError(f"--tls-cert and --tls-key go in pairs, but there are {counts}")
    directory = None if options.tls_dir is None else Path(options.tls_dir)
    client_ca = None if options.tls_client_ca is None else Path(options.tls_client_ca)
    auth = options.tls_client_auth
    if auth not in {None, OPTIONAL, REQUIRED}:
        raise UsageError(f"--tls-client-auth {auth}: write {OPTIONAL} or {REQUIRED}")
    if auth is not None and client_ca is None:
        raise UsageError(
            "--tls-client-auth needs --tls-client-ca FILE: who may sign the certificates of clients?"
        )
    if not certificates and directory is None:
        if client_ca is not None:
            raise UsageError(
                "--tls-client-ca needs TLS: --tls-cert FILE and --tls-key FILE, or --tls-dir DIR"
            )
        return None
    pairs = tuple(zip(certificates, keys, strict=True))
    return TlsOptions(pairs, directory, client_ca, OFF if client_ca is None else auth or REQUIRED)


def _paths(given: list[str] | None, name: str) -> list[Path]:
    texts = (environment(name) or "").split(":") if given is None else given
    return [Path(text) for text in texts if text]


def read_proxy_sources(options: argparse.Namespace) -> tuple[str, ...]:
    """Read ``--proxy-protocol-from``. Raises UsageError."""
    texts = (options.proxy_protocol_from or "").replace(",", " ").split()
    for text in texts:
        try:
            if text != UNIX:
                parse_network(text)
        except AddressError as error:
            hint = f" ({error.hint})" if error.hint else ""
            raise UsageError(f"--proxy-protocol-from {text}: write {error}{hint}") from None
    return tuple(texts)
