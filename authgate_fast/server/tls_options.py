"""What the command line says of TLS for clients. Light: the supervisor reads it too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

OFF, OPTIONAL, REQUIRED = "off", "optional", "required"


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Where certificates are. ``pairs`` are (certificate, key) files, the first of them the default.

    ``client_auth``: whether clients show a certificate, `OFF`, `OPTIONAL` or `REQUIRED`.
    """

    pairs: tuple[tuple[Path, Path], ...]
    directory: Path | None = None
    client_ca: Path | None = None
    client_auth: str = OFF
