"""Where a secret of the configuration stands. Pure: whoever needs the secret reads it (room ``lookup``)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Exactly one of the three is set: the text itself, an environment variable, the path of a file."""

    text: str | None = field(default=None, repr=False)
    env: str | None = None
    file: str | None = None
