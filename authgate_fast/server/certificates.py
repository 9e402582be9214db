"""Certificates and their keys: read from files, judged in plain words, and made into TLS settings.

A pair is read once into memory, and what was judged is what is used: the files may change at any moment. Blocking;
an event loop calls this from a thread. Nothing here says or logs a byte of a key.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

MAX_FILE_BYTES = 1_048_576
"""A chain of certificates has some 10 KB; a bundle of all authorities 250 KB."""

# Mozilla's "intermediate" without its DHE suites, which cost much and need parameters of their own. The suites of
# TLS 1.3 are OpenSSL's own.
CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    )
)

_KEY_KINDS: tuple[tuple[type, str], ...] = (
    (ec.EllipticCurvePublicKey, "EC"),
    (rsa.RSAPublicKey, "RSA"),
    (ed25519.Ed25519PublicKey, "Ed25519"),
    (ed448.Ed448PublicKey, "Ed448"),
    (dsa.DSAPublicKey, "DSA"),
)


class CertificateError(Exception):
    """A file cannot be used; the text says which, why, and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A certificate with its chain and its key, as they were in their files when they were read.

    ``names`` are the DNS names of the certificate in lower case, ``fingerprint`` its SHA-256 in hex.
    """

    cert_file: Path
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    fingerprint: str
    key_kind: str
    chain: bytes
    key: bytes

    def seconds_left(self, now_s: float) -> float:
        """Return for how long the certificate is good; below zero, since when it is not."""
        return self.not_after.timestamp() - now_s


def read_pair(cert_file: Path, key_file: Path) -> Pair:
    """Read a certificate and its key. Raises `CertificateError`."""
    chain = read_file(cert_file)
    certificates = _read_certificates(chain, cert_file)
    key = read_file(key_file)
    public = _read_public_key(key, key_file)
    positions = [
        number for number, one in enumerate(certificates) if _public_bytes(one.public_key()) == public
    ]
    if not positions:
        raise CertificateError(f"{key_file}: the key does not belong to the certificate in {cert_file}")
    if positions[0]:
        raise CertificateError(
            f"{cert_file}: the key belongs to certificate {positions[0] + 1} of the file; "
            "the server's own certificate comes first, then those that signed it"
        )
    own = certificates[0]
    return Pair(
        cert_file=cert_file,
        names=_dns_names(own),
        not_before=own.not_valid_before_utc,
        not_after=own.not_valid_after_utc,
        fingerprint=own.fingerprint(hashes.SHA256()).hex(),
        key_kind=next((name for kind, name in _KEY_KINDS if isinstance(own.public_key(), kind)), "other"),
        chain=chain,
        key=key,
    )


def read_file(path: Path) -> bytes:
    """Return what a file holds. Raises `CertificateError` with a hint where the permissions are to blame."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except PermissionError:
        raise CertificateError(
            f"{path}: this user (uid {os.geteuid()}) may not read it; "
            "let its group read it (chgrp, chmod 640, and the directories above)"
        ) from None
    except OSError as error:
        said = (error.strerror or "it cannot be read").lower()
        raise CertificateError(f"{path}: {said}") from None
    if len(data) > MAX_FILE_BYTES:
        raise CertificateError(
            f"{path}: more than {MAX_FILE_BYTES} bytes; this is no PEM file of certificates"
        )
    return data


def anybody_may_read(path: Path) -> bool:
    """Tell whether every user of the machine may read a file, which a key should not allow."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def read_authorities(path: Path) -> bytes:
    """Return a file of authorities' certificates, which are all well-formed. Raises `CertificateError`."""
    data = read_file(path)
    _read_certificates(data, path)
    return data


def _read_certificates(data: bytes, path: Path) -> list[x509.Certificate]:
    if b"-----BEGIN" not in data:
        raise CertificateError(
            f"{path}: no PEM file; convert with `openssl x509 -inform DER -in FILE -out NEW`"
        )
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        what = (
            "it holds a key, where a certificate is expected" if b"PRIVATE KEY" in data else "no certificate"
        )
        raise CertificateError(f"{path}: {what}, or a malformed one") from None


def _read_public_key(data: bytes, path: Path) -> bytes:
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise CertificateError(
            f"{path}: the key is encrypted, and there is nobody to ask for its password; "
            f"write it without one: openssl pkey -in {path} -out NEW"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        what = (
            "a certificate, where its key is expected"
            if b"BEGIN CERTIFICATE" in data
            else "no private key in PEM"
        )
        raise CertificateError(f"{path}: {what}, or a malformed one") from None
    return _public_bytes(key.public_key())


def _public_bytes(key: object) -> bytes:
    try:
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]
    except (AttributeError, ValueError, UnsupportedAlgorithm):
        return b""


def _dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names of a certificate; its common name counts no more (RFC 9525 section 2)."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    names = extension.value.get_values_for_type(x509.DNSName)
    return tuple(dict.fromkeys(name.lower() for name in names))


def judge_time(pair: Pair, now: datetime | None = None) -> str | None:
    """Return what is wrong with a certificate's time, or None."""
    now = now or datetime.now(UTC)
    if pair.not_after <= now:
        return f"{pair.cert_file}: the certificate has expired at {pair.not_after:%Y-%m-%d %H:%M} UTC"
    if pair.not_before > now:
        return f"{pair.cert_file}: the certificate is not valid before {pair.not_before:%Y-%m-%d %H:%M} UTC"
    return None


class ServerContext(ssl.SSLContext):
    """Settings that count failed handshakes by OpenSSL's reason in ``failures``."""

    failures: Counter[str]


def make_server_context(
    pairs: tuple[Pair, ...],
    authorities: bytes | None = None,
    *,
    is_required: bool = False,
    failures: Counter[str] | None = None,
) -> ServerContext:
    """Make the settings of a server with the keys of one name, at most one of each kind. Raises `CertificateError`.

    With `authorities` (PEM) it asks for a client's certificate, and with `is_required` insists.
    """
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _AlertingObject
    context.failures = Counter() if failures is None else failures
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    for pair in pairs:
        load_chain(context, pair)
    if authorities is not None:
        context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL
        try:
            context.load_verify_locations(cadata=authorities.decode("latin-1"))
        except ssl.SSLError as error:
            raise CertificateError(f"the authorities of clients: {error.reason or error}") from None
    return context


def load_chain(context: ssl.SSLContext, pair: Pair) -> None:
    """Give a context a pair from memory. The ssl module reads files only, so it gets one that has no name."""
    descriptors = []
    try:
        for data in (pair.chain, pair.key):
            descriptor = os.memfd_create("authgate-tls", os.MFD_CLOEXEC)
            descriptors.append(descriptor)
            os.write(descriptor, data)
        context.load_cert_chain(*(f"/proc/self/fd/{descriptor}" for descriptor in descriptors))
    except ssl.SSLError as error:
        reasons = {
            "EE_KEY_TOO_SMALL": "its key is too short; an RSA key has 2048 bits or more",
            "CA_KEY_TOO_SMALL": "the key of an authority in its chain is too short",
            "CA_MD_TOO_WEAK": "a signature in its chain uses a broken hash",
        }
        said = reasons.get(error.reason or "", error.reason or str(error))
        raise CertificateError(f"{pair.cert_file}: {said}") from None
    except OSError as error:
        raise CertificateError(f"{pair.cert_file}: {error.strerror or error}") from None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


class _AlertingObject(ssl.SSLObject):
    """A TLS connection whose failed handshake tells the client why.

    OpenSSL leaves an alert to be sent (RFC 8446 section 6.2), but event loops drop the connection without it. So
    a failure first looks like a wait for more, which sends what there is; it is raised at the next step, or the
    client closes, or the time for the handshake is over.
    """

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._failure = error
            if isinstance(self.context, ServerContext):
                self.context.failures[error.reason or "TLS"] += 1
            raise ssl.SSLWantReadError from error
