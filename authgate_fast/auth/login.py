"""A login under way: what is remembered between /bff/login and /bff/callback, and what the browser is sent with. Pure.

Authorization code flow with PKCE (RFC 7636, S256 only), ``state`` and ``nonce``. The store keeps a transaction under
the hash of its state, sealed with a key that needs both the state, which goes through the provider, and a secret that
only this browser holds as a cookie: neither the store's reader nor another browser can finish it.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256
from urllib.parse import quote

import orjson

from authgate_fast.auth.cookies import LOGIN_PREFIX, LOGIN_TTL_S
from authgate_fast.auth.session import SealError, derive_key, seal, unseal

LOGIN_NAME_PREFIX = "authgate:state:login:"
_PURPOSE = b"bff login 1"
_COOKIE_NAME_LENGTH = 16


class Transaction:
    """One login. ``state`` and ``binding`` are never stored."""

    __slots__ = ("begun_at", "nonce", "redirect_uri", "return_to", "verifier")

    def __init__(self, verifier: str, nonce: str, redirect_uri: str, return_to: str, begun_at: float) -> None:
        self.verifier = verifier
        self.nonce = nonce
        self.redirect_uri = redirect_uri
        self.return_to = return_to
        self.begun_at = begun_at


def begin(redirect_uri: str, return_to: bytes, now: float) -> tuple[bytes, bytes, Transaction]:
    """Return a new state, a new binding secret and what belongs to them."""
    transaction = Transaction(new_secret(), new_secret(), redirect_uri, return_to.decode("ascii"), now)
    return new_secret().encode("ascii"), new_secret().encode("ascii"), transaction


def new_secret() -> str:
    """Return 256 random bits in base64url: 43 characters, which is also what a PKCE verifier needs."""
    return secrets.token_urlsafe(32)


def login_name(gateway: str, state: bytes) -> str:
    """Return the name under which the store keeps the transaction of a state."""
    return f"{LOGIN_NAME_PREFIX}{gateway}:{sha256(state).hexdigest()}"


def login_cookie(state: bytes) -> bytes:
    """Return the name of the cookie that binds the transaction of a state to its browser."""
    return LOGIN_PREFIX + sha256(b"cookie " + state).hexdigest()[:_COOKIE_NAME_LENGTH].encode("ascii")


def seal_transaction(transaction: Transaction, name: str, state: bytes, binding: bytes) -> bytes:
    """Return what the store keeps."""
    text = orjson.dumps(
        [
            transaction.verifier,
            transaction.nonce,
            transaction.redirect_uri,
            transaction.return_to,
            transaction.begun_at,
        ]
    )
    return seal(derive_key(state + binding, _PURPOSE), name, b"", text)


def open_transaction(value: bytes, name: str, state: bytes, binding: bytes, now: float) -> Transaction:
    """Undo `seal_transaction`. Raises SealError for another browser's secret, and for a login that took too long."""
    text = unseal(derive_key(state + binding, _PURPOSE), name, value)
    transaction = Transaction(*orjson.loads(text))
    if now >= transaction.begun_at + LOGIN_TTL_S:
        raise SealError("the login took too long")
    return transaction


def code_challenge(verifier: str) -> str:
    """RFC 7636 section 4.2, S256."""
    return urlsafe_b64encode(sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode("ascii")


def authorization_url(
    endpoint: str, client_id: str, scopes: tuple[str, ...], state: bytes, transaction: Transaction
) -> str:
    """Return where the browser goes to log in. Nothing of what a client asked for gets in."""
    return with_query(
        endpoint,
        {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": transaction.redirect_uri,
            "scope": " ".join(scopes),
            "state": state.decode("ascii"),
            "nonce": transaction.nonce,
            "code_challenge": code_challenge(transaction.verifier),
            "code_challenge_method": "S256",
        },
    )


def with_query(endpoint: str, parameters: dict[str, str]) -> str:
    """Append parameters to a URL of the provider, which may have a query of its own (RFC 6749 section 3.1)."""
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"
