"""What a backend is told of a client's certificate, which the handshake has verified.

The bytes of a certificate are its owner's choice, whoever signed it: whatever could end a field or be read as a second
value is escaped, and what would not fit is not told in part. Pure.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509
from cryptography.hazmat.primitives import hashes

MAX_VALUE_BYTES = 4_096
"""A subject, or all names together; a certificate with more is not let in."""
NO_CERTIFICATE = b"X-Client-Cert-Verified: NONE\r\n"

_PLAIN_IN_NAME = re.compile(rb"[^A-Za-z0-9._~:/@?&=+*-]")


def certificate_lines(der: bytes | None) -> bytes | None:
    """Return complete field lines; None for a certificate that cannot be told whole."""
    if der is None:
        return NO_CERTIFICATE
    try:
        certificate = x509.load_der_x509_certificate(der)
        subject = escape_subject(certificate.subject.rfc4514_string())
        names = b", ".join(_alternative_names(certificate))
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return None
    if len(subject) > MAX_VALUE_BYTES or len(names) > MAX_VALUE_BYTES:
        return None
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex().encode("ascii")
    return (
        b"X-Client-Cert-Verified: SUCCESS\r\nX-Client-Cert-Subject: %b\r\n%bX-Client-Cert-Fingerprint: %b\r\n"
        % (
            subject,
            b"X-Client-Cert-San: %b\r\n" % names if names else b"",
            fingerprint,
        )
    )


def escape_subject(text: str) -> bytes:
    r"""Return a distinguished name in ASCII: RFC 4514 section 2.4 lets any byte of UTF-8 be written as ``\XX``."""
    return b"".join(
        b"%c" % byte if 0x20 <= byte < 0x7F else b"\\%02X" % byte
        for byte in text.encode("utf-8", "surrogatepass")
    )


def _alternative_names(certificate: x509.Certificate) -> list[bytes]:
    """Return ``DNS:name``, ``URI:...``, ``EMAIL:...`` and ``IP:...``; what is unusual in a name is percent-encoded."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    named = []
    for name in extension.value:
        if isinstance(name, x509.DNSName):
            named.append(b"DNS:" + _escape_name(name.value))
        elif isinstance(name, x509.UniformResourceIdentifier):
            named.append(b"URI:" + _escape_name(name.value))
        elif isinstance(name, x509.RFC822Name):
            named.append(b"EMAIL:" + _escape_name(name.value))
        elif isinstance(name, x509.IPAddress) and isinstance(name.value, IPv4Address | IPv6Address):
            named.append(b"IP:" + str(name.value).encode("ascii"))
    return named


def _escape_name(text: str) -> bytes:
    return _PLAIN_IN_NAME.sub(lambda match: b"%%%02X" % match[0][0], text.encode("utf-8", "surrogatepass"))
