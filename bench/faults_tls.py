"""A fault that is none: the certificate that TLS clients are shown is replaced under load, and no request notices."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import signal
import ssl
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bench.faults_stage import START_S, Outcome, Stage, count_seen
from bench.faults_workers import reloaded
from bench.numbered import Backend, gateway_file

RENEW_EVERY = 25
"""Requests on one connection: most of the work are requests, and there are new handshakes at any time."""
IN_USE_S = 10.0
"""The files are looked at every 2 s, and a change must hold still for one more look."""
_IN_A_ROW = 20
_LIFE = datetime.timedelta(days=30)


class Authority:
    """Issues certificates for localhost."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
        self._certificate = self._build(self._name, self._key.public_key(), is_authority=True)

    def context(self) -> ssl.SSLContext:
        """Return the settings of clients that trust it."""
        pem = self._certificate.public_bytes(Encoding.PEM).decode("ascii")
        return ssl.create_default_context(cadata=pem)

    def issue(self, directory: Path) -> bytes:
        """Replace the pair of files as certbot does; return the certificate (DER)."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        certificate = self._build(name, key.public_key(), is_authority=False)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for file, data in (
            ("shop.key", secret),
            ("shop.crt", certificate.public_bytes(Encoding.PEM)),
        ):
            new = directory / f"{file}.new"
            new.write_bytes(data)
            new.chmod(0o600)
            new.replace(directory / file)
        return certificate.public_bytes(Encoding.DER)

    def _build(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, *, is_authority: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=is_authority, crl_sign=is_authority, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _LIFE)
            .not_valid_after(now + _LIFE)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )


class Shown:
    """Which certificate each new connection of the load was shown, and since when only one may be."""

    def __init__(self, first: bytes) -> None:
        self.handshakes = 0
        self.stale = 0
        self._wanted = first
        self._since_s = 0.0

    def note(self, begun_s: float, certificate: bytes) -> None:
        self.handshakes += 1
        if begun_s > self._since_s and certificate != self._wanted:
            self.stale += 1

    def replaced(self, certificate: bytes) -> None:
        """Another one is on its way: until it is in use everywhere, either may be shown."""
        self._wanted, self._since_s = certificate, float("inf")

    def in_use(self) -> None:
        """From now on, nothing but the new one may be shown."""
        self._since_s = time.monotonic()


async def certificates(stage: Stage) -> Outcome:
    """Replace the certificate at each event; every second time the node is reloaded too, and does not wait to look."""
    authority = Authority()
    directory = stage.directory / "tls"
    directory.mkdir()
    first = authority.issue(directory)
    clients = authority.context()
    shown = Shown(first)
    async with Backend() as backend:
        node = await stage.start_node(
            "--config", stage.config(gateway_file(backend.port)), "--tls-dir", directory
        )
        load = stage.load(tls=clients, renew_every=RENEW_EVERY, on_connect=shown.note)
        async with load:
            outcome = Outcome(
                stage.kind, load, recovery="a new certificate was seen and in use in all workers after"
            )
            reloads_s: list[float] = []
            async for number in stage.beats(0.2):
                begun_s = time.monotonic()
                new = authority.issue(directory)
                shown.replaced(new)
                is_reload = number % 2 == 0
                if is_reload:
                    os.kill(node.pid, signal.SIGHUP)
                    await reloaded(node, len(reloads_s) + 1)
                await _until_shown(stage.port, clients, new)
                shown.in_use()
                (reloads_s if is_reload else outcome.recoveries_s).append(time.monotonic() - begun_s)
        count_seen(outcome, backend)
    outcome.judge()
    outcome.notes.append(
        f"{shown.handshakes:,} handshakes; {len(reloads_s)} more times with a reload (SIGHUP), which took "
        f"{max(reloads_s, default=0.0):.2f} s at most; an old certificate was shown after that {shown.stale} times"
    )
    outcome.require(not shown.stale, f"{shown.stale} new connections were shown an old certificate")
    if stage.options.timed:
        longest_s = max(outcome.recoveries_s, default=0.0)
        outcome.require(longest_s <= IN_USE_S, f"not in use within {IN_USE_S:g} s")
    return outcome


async def _until_shown(port: int, clients: ssl.SSLContext, wanted: bytes) -> None:
    """Wait until so many new connections in a row show the certificate that all workers must have it."""
    seen = 0
    async with asyncio.timeout(START_S):
        while seen < _IN_A_ROW:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=clients, server_hostname="localhost"
            )
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.transport.abort()
            seen = seen + 1 if shown == wanted else 0
            if not seen:
                await asyncio.sleep(0.05)
