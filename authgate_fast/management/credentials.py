"""The keys and passwords of a consumer document: made, replaced, rotated, and shown without their hashes.

A secret is shown once, when it is made, on stdout and nowhere else; documents get its hash. Changes here are changes of
plain fields; whoever reads and writes Redis is in `stored`.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from authgate_fast.auth.api_key import key_digest, new_key
from authgate_fast.auth.password import new_hash, new_password
from authgate_fast.management.options import OK, WRONG_INPUT, InputError, Subparsers, add_flag, say
from authgate_fast.management.stored import Fields
from authgate_fast.model_fields import DEFAULT_KEY_ID

if TYPE_CHECKING:
    from authgate_fast.model import ConsumerDocument

MIN_PASSWORD_LENGTH = 8
MAX_PASSWORD_BYTES = 1_024
"""A Basic credential may be some 3000 bytes; nobody's password is near that, but a file by mistake is."""


class Kind(NamedTuple):
    """One kind of credential and the fields that hold it: `single` one, or `several` with ids and ends."""

    noun: str
    secret: str
    single: str
    several: str
    digest: str
    prefix: str
    most: int


KEY = Kind("key", "api_key", "api_key_sha256", "api_keys", "sha256", "k", 64)
PASSWORD = Kind("password", "password", "password_hash", "passwords", "hash", "p", 4)


class Made(NamedTuple):
    """A new credential: what its owner gets ("" if they brought it) and what the document gets."""

    secret: str
    digest: str


class Held(NamedTuple):
    """A credential that a consumer has."""

    id: str
    digest: str
    end: datetime | None


def add_password_input(parser: argparse.ArgumentParser) -> None:
    add_flag(parser, "password-stdin", "read the password from stdin, one line, instead of making one")


def make(kind: Kind, options: argparse.Namespace) -> Made:
    """Make a credential, or take the password that stdin brings."""
    if kind is KEY:
        if options.password_stdin:
            raise InputError("--password-stdin: the consumers of this gateway have API keys, not passwords")
        key = new_key()
        return Made(key, key_digest(key))
    if options.password_stdin:
        return Made("", new_hash(read_password()))
    password = new_password()
    return Made(password, new_hash(password.encode("ascii")))


def read_password() -> bytes:
    """Read a password: the first line of stdin, or what somebody types, without showing it."""
    if sys.stdin.isatty():
        text = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != text:
            raise InputError("the two passwords are not the same")
        line = text.encode("utf-8", "surrogateescape")
    else:
        line = sys.stdin.buffer.readline(MAX_PASSWORD_BYTES + 3).removesuffix(b"\n").removesuffix(b"\r")
        if sys.stdin.buffer.read(1):
            raise InputError("--password-stdin: stdin has more than one line, or a line that is too long")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("--password-stdin: a password is UTF-8 text") from None
    if len(text) < MIN_PASSWORD_LENGTH:
        raise InputError(f"--password-stdin: a password has at least {MIN_PASSWORD_LENGTH} characters")
    if len(line) > MAX_PASSWORD_BYTES:
        raise InputError(f"--password-stdin: a password has at most {MAX_PASSWORD_BYTES} bytes")
    if any(byte < 0x20 or byte == 0x7F for byte in line):  # RFC 7617 section 2
        raise InputError("--password-stdin: a password holds no tabs and no other control characters")
    return line


def held(kind: Kind, document: ConsumerDocument) -> list[Held]:
    """Return the credentials of a kind that a consumer has, in the order of its document."""
    if kind is KEY:
        found = [Held(key.id, key.sha256, key.expires_at) for key in document.api_keys]
        first = document.api_key_sha256
    else:
        found = [Held(one.id, one.hash, one.expires_at) for one in document.passwords]
        first = document.password_hash
    if first is not None:
        found.insert(0, Held(DEFAULT_KEY_ID, first, None))
    return found


def replace(kind: Kind, fields: Fields, digest: str) -> None:
    """Make a credential the only one of its kind."""
    fields.pop(kind.several, None)
    fields[kind.single] = digest


def rotate(
    kind: Kind, fields: Fields, document: ConsumerDocument, digest: str, overlap: timedelta, now: datetime
) -> str:
    """Add a credential, and let the others end after `overlap`, or when they end anyway; return its id."""
    until = now + overlap
    kept: list[Fields] = []
    for old in held(kind, document):
        end = until if old.end is None or old.end > until else old.end
        if overlap and end > now:
            kept.append({"id": old.id, kind.digest: old.digest, "expires_at": time_text(end)})
    if len(kept) >= kind.most:
        raise InputError(
            f"the consumer has {len(kept)} {kind.noun}s that still work, and more than {kind.most} at a time "
            "are not kept; rotate when some of them have ended, or with --overlap 0"
        )
    taken = {old["id"] for old in kept}
    base = now.strftime(f"{kind.prefix}%Y%m%d-%H%M%S")
    new_id = next(name for name in (base, *(f"{base}-{n}" for n in range(2, 99))) if name not in taken)
    fields.pop(kind.single, None)
    fields[kind.several] = [*kept, {"id": new_id, kind.digest: digest}]
    return new_id


def facts(kind: Kind, document: ConsumerDocument) -> list[Fields]:
    """Return what may be shown of a consumer's credentials."""
    return [
        {"id": one.id, "expires_at": time_text(one.end) if one.end is not None else None}
        for one in held(kind, document)
    ]


def time_text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def show_new(options: argparse.Namespace, kind: Kind, made: Made, credential_id: str, said: str) -> int:
    """Print a new secret on stdout, and around it words for people on stderr."""
    if not options.quiet:
        what = f"Its new {kind.noun} ({credential_id})"
        say(f"{said}. {what} is shown this once:" if made.secret else f"{said}. {what} is the one from stdin")
    if options.json:
        shown = {"gateway": options.gateway, "consumer": options.name, f"{kind.noun}_id": credential_id}
        if made.secret:
            shown[kind.secret] = made.secret
        print(json.dumps(shown))
    elif made.secret:
        print(made.secret)
    return OK


def add_parser(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `authgate key` and `authgate password`, which need no Redis."""
    key = commands.add_parser(
        "key",
        help="a new API key and its hash, for a file",
        description="Print a new API key and its hash. The hash goes into a file, the key to its user.",
    )
    add_flag(key, "json", "print a JSON object")
    key.set_defaults(handler=_key)
    password = commands.add_parser(
        "password",
        help="a new password and its hash, for a file",
        description="Print a new password and its hash. The hash goes into a file, the password to its user.",
    )
    add_flag(password, "json", "print a JSON object")
    add_password_input(password)
    password.set_defaults(handler=_password)


def _key(options: argparse.Namespace) -> int:
    key = new_key()
    return _print_pair(options, {KEY.secret: key, KEY.single: key_digest(key)})


def _password(options: argparse.Namespace) -> int:
    try:
        made = make(PASSWORD, options)
    except InputError as error:
        say(f"authgate: {error}")
        return WRONG_INPUT
    pair = {PASSWORD.secret: made.secret, PASSWORD.single: made.digest}
    return _print_pair(options, {name: text for name, text in pair.items() if text})


def _print_pair(options: argparse.Namespace, pair: dict[str, str]) -> int:
    if options.json:
        print(json.dumps(pair))
    else:
        print("\n".join(f"{name}: {text}" for name, text in pair.items()))
    return OK
