"""What a browser tells of a request: is it a page navigation, does it come from this site, where to go after a login.

Fetch metadata (Sec-Fetch-*) is written by the browser itself and out of reach of scripts; Origin is the older
sign. A field that stands twice says nothing. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from authgate_fast.http.request import RequestHead

SAFE_METHODS: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))
"""Methods that are not checked for CSRF. RFC 9110 section 9.2.1 knows more of them, which no browser page sends."""
MAX_RETURN_TO_BYTES: Final = 2_048
HOME: Final = b"/"
LOGIN_PATH: Final = b"/bff/login"

_UPPER: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LOWER_CASE: Final = bytes.maketrans(_UPPER, _UPPER.lower())
_CHARACTER: Final = rb"[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2}"
# RFC 3986 sections 3.3 to 3.5: a path that begins with exactly one slash, and whose segments are not empty.
_RETURN_TO: Final = re.compile(
    rb"((?:/(?:%b)+)*/?)(?:\?((?:%b|[/?])*))?(?:#((?:%b|[/?])*))?" % (_CHARACTER, _CHARACTER, _CHARACTER)
)
_CONTROL: Final = re.compile(rb"%(?:[01][0-9A-Fa-f]|7[Ff])")
# What a proxy that decodes could read as a slash, a backslash or, decoded twice, as either.
_HIDDEN: Final = re.compile(rb"%(?:2[Ff]|5[Cc]|25)")
_DOT_SEGMENT: Final = re.compile(rb"/(?:\.|%2[Ee]){1,2}(?:/|\Z)")
_OWN_PATHS: Final = b"/bff"
_QUALITY: Final = re.compile(rb"(?:1(?:\.0{0,3})?|0(?:\.[0-9]{0,3})?)")
_HTML: Final = (b"text/html", b"application/xhtml+xml")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")


def field_value(head: RequestHead, wanted: bytes) -> bytes | None:
    """Return the value of a field given by its lower-case name; None without it, b"" if it stands twice."""
    found = head.values(wanted)
    if not found:
        return None
    return found[0] if len(found) == 1 else b""


def is_navigation(head: RequestHead) -> bool:
    """Tell whether a person is going to a page: then a redirect to the login helps, to a script it does not."""
    if head.method != b"GET" or head.upgrade:
        return False
    mode = field_value(head, b"sec-fetch-mode")
    if mode is not None:
        return mode == b"navigate"
    accept = field_value(head, b"accept")
    return accept is not None and _prefers_html(accept)


def is_page(head: RequestHead) -> bool:
    """Tell whether this may be a page that a person goes to: no other site's image or frame, as far as browsers say.

    One that says nothing, and whoever is none, may go there; and so may this origin's own scripts, since a service
    worker makes a navigation look like one.
    """
    if field_value(head, b"sec-fetch-site") == b"same-origin":
        return True
    mode, place = field_value(head, b"sec-fetch-mode"), field_value(head, b"sec-fetch-dest")
    return (mode is None or mode == b"navigate") and (place is None or place == b"document")


def is_from_browser(head: RequestHead) -> bool:
    """Tell whether a POST comes from a page: every browser sends Origin with it, if nothing newer."""
    return field_value(head, b"sec-fetch-site") is not None or field_value(head, b"origin") is not None


def _prefers_html(accept: bytes) -> bool:
    """RFC 9110 section 12.5.1: HTML is named, and nothing named is wanted more; of equals the first counts."""
    best_type, best_quality = b"", 0.0
    for item in accept.split(b","):
        media_type, *parameters = item.split(b";")
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition(b"=")
            if name.strip(b" \t") in (b"q", b"Q"):
                value = value.strip(b" \t")
                quality = float(value) if _QUALITY.fullmatch(value) else 0.0
        if quality > best_quality:
            best_type, best_quality = media_type.strip(b" \t").translate(_LOWER_CASE), quality
    return best_type in _HTML


def cross_site_problem(head: RequestHead, origin: bytes | None) -> str:
    """Return why a request may not change anything here, or "": it must come from a page of `origin`.

    DESIGN section 7: Sec-Fetch-Site must be same-origin or, where a browser sends none, Origin must be this origin.
    """
    site = field_value(head, b"sec-fetch-site")
    if site is not None:
        return "" if site == b"same-origin" else "Sec-Fetch-Site is not same-origin"
    sender = field_value(head, b"origin")
    if sender is None:
        return "the request has neither Sec-Fetch-Site nor Origin"
    if origin is None:
        return "the gateway's own origin is in doubt (X-Forwarded-Proto, X-Forwarded-Host)"
    if sender.translate(_LOWER_CASE) != origin:
        return f"Origin is not {origin.decode('ascii')}"
    return ""


def login_location(target: bytes) -> bytes:
    """Return where a browser without a session goes first; `target` is what it asked for."""
    if target[:1] != b"/" or len(target) > MAX_RETURN_TO_BYTES or safe_return_to(target) != target:
        return LOGIN_PATH
    encoded = b"".join([b"%c" % byte if byte in _UNRESERVED else b"%%%02X" % byte for byte in target])
    return b"%b?return_to=%b" % (LOGIN_PATH, encoded)


def safe_return_to(text: bytes) -> bytes:
    """Return `text` if it is a path on this origin that everybody reads the same way; else ``/``.

    So no open redirector stands behind the login (RFC 9700 section 4.11): no other scheme or host, no ``//`` or
    backslash, no control characters, none of these in an encoded form, no dot segments, and none of the gateway's
    own endpoints, where a browser would go in circles.
    """
    if not text or len(text) > MAX_RETURN_TO_BYTES:
        return HOME
    match = _RETURN_TO.fullmatch(text)
    if match is None or _CONTROL.search(text):
        return HOME
    path = match[1]
    if not path or _HIDDEN.search(path) or _DOT_SEGMENT.search(path):
        return HOME
    return HOME if path == _OWN_PATHS or path.startswith(_OWN_PATHS + b"/") else text


def form_values(text: bytes) -> dict[str, list[str]]:
    """Read a query or a form (application/x-www-form-urlencoded): every value of every name. Bounded by its input."""
    found: dict[str, list[str]] = {}
    for part in text.split(b"&"):
        name, equals, value = part.partition(b"=")
        if equals:
            found.setdefault(_decoded(name), []).append(_decoded(value))
    return found


def _decoded(text: bytes) -> str:
    """Undo percent-encoding once. Bytes that are no UTF-8 stay visible as such; a lone ``%`` stands for itself."""
    head, *rest = text.replace(b"+", b" ").split(b"%")
    out = [head]
    for piece in rest:
        code = piece[:2]
        if len(code) == 2 and all(byte in b"0123456789abcdefABCDEF" for byte in code):
            out.append(bytes((int(code, 16),)) + piece[2:])  # two hex digits, checked right here
        else:
            out.append(b"%" + piece)
    return b"".join(out).decode("utf-8", "surrogateescape")
