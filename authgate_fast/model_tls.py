"""How a service's https backends are spoken to: one mapping of a service document. Part of `model`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from authgate_fast.addresses import parse_public_host
from authgate_fast.model_fields import Strict, read_with, refusal


def _read_path(value: object) -> object:
    """Take ``{file: PATH}`` too, as secrets are written."""
    if isinstance(value, dict) and list(value) == ["file"]:
        return value["file"]
    return value


def _check_server_name(text: str) -> str:
    host = read_with(parse_public_host, text)
    if "*" in host:
        raise refusal("a server's name is one name, without a wildcard")
    return host


FilePath = Annotated[
    str, BeforeValidator(_read_path), Field(min_length=1, max_length=4_096, pattern=r"^[^\x00-\x1f\x7f]+$")
]
ServerName = Annotated[str, Field(max_length=300), AfterValidator(_check_server_name)]
_PATH_RULE = "the path of a PEM file, or {file: PATH}"


class BackendTlsDocument(Strict):
    """Whom to trust, what to show, and by which name the backend is asked."""

    ca_file: FilePath | None = Field(
        None, description=f"{_PATH_RULE}, with the authorities to trust instead of the system's"
    )
    cert_file: FilePath | None = Field(None, description=f"{_PATH_RULE}, with the certificate to show")
    key_file: FilePath | None = Field(None, description=f"{_PATH_RULE}, with its key, not encrypted")
    server_name: ServerName | None = Field(
        None, description="the name in the backend's certificate; left out, the host of the URL"
    )
    verify: bool = Field(
        True, description="true, or false: any certificate is taken; never do so in production"
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            missing = "key_file" if self.key_file is None else "cert_file"
            raise refusal("a certificate and its key go together", at=(missing,))
        if not self.verify and self.ca_file is not None:
            raise refusal(
                "with verify: false nobody's word counts, so no authorities are needed", at=("ca_file",)
            )
        return self
