"""The settings of a TLS connection to a backend, made from files. Blocking: `proxy.tls_contexts` uses a thread.

Not compiled with the request path, because classes of the ssl module are extended here.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from authgate_fast.snapshot import UpstreamTls


class UpstreamTlsError(OSError):
    """The settings cannot be used; the text names the file."""


def files_of(settings: UpstreamTls) -> list[str]:
    """Return the files and directories that a context is made from."""
    if settings.ca_file or not settings.verify:
        named = [settings.ca_file]
    else:
        paths = ssl.get_default_verify_paths()
        named = [paths.cafile or "", paths.capath or ""]  # None where there is none, whatever the types say
    return [file for file in (*named, settings.cert_file, settings.key_file) if file]


def make_client_context(settings: UpstreamTls) -> ssl.SSLContext:
    """Make a context; blocks for some 30 ms where the system's authorities are read. Raises UpstreamTlsError."""
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sessions = {}
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    file = settings.ca_file
    try:
        if not settings.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif file:
            context.load_verify_locations(cafile=file)
        else:
            context.load_default_certs()
        if settings.cert_file:
            file = settings.cert_file
            context.load_cert_chain(file, settings.key_file, password=_no_password)
    except ssl.SSLError as error:
        reasons = {
            "KEY_VALUES_MISMATCH": f"the key in {settings.key_file} does not belong to the certificate",
            "NO_CERTIFICATE_OR_CRL_FOUND": "no certificate in PEM",
            "NO_START_LINE": "no certificate or key in PEM",
        }
        raise UpstreamTlsError(f"{file}: {reasons.get(error.reason or '', error.reason or error)}") from None
    except _EncryptedKeyError:
        raise UpstreamTlsError(
            f"{settings.key_file}: the key is encrypted; write it without a password"
        ) from None
    except OSError as error:
        both = f"{file} or {settings.key_file}" if file == settings.cert_file and file else file
        raise UpstreamTlsError(f"{both}: {(error.strerror or str(error)).lower()}") from None
    return context


class ResumingContext(ssl.SSLContext):
    """Settings that begin each connection with the last session of the same server name."""

    sessions: dict[str, ssl.SSLSession]

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        if session is None and isinstance(server_hostname, str):
            session = self.sessions.get(server_hostname)
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)


def remember_session(tls: ssl.SSLObject | None) -> None:
    """Keep a connection's session for the next one, if the server has given a ticket for it."""
    if tls is None or not isinstance(tls.context, ResumingContext):
        return
    session = tls.session
    if session is not None and session.has_ticket and tls.server_hostname:
        tls.context.sessions[tls.server_hostname] = session


class _EncryptedKeyError(Exception):
    """A key asked for its password."""


def _no_password() -> str:
    raise _EncryptedKeyError  # else OpenSSL would ask at the terminal, and wait
