"""A SECURE route that a PUBLIC pattern passes by is told to the author of the documents."""

from __future__ import annotations

import json

import pytest

from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.shadows import shadows
from authgate_fast.config.store import Configuration
from authgate_fast.limits import Limits


def _said(**routes: tuple[str, str, str]) -> list[str]:
    """Return what is said about routes given as (method, path, security)."""
    documents = {
        DocumentKey("gateway", "g", "g"): {"hosts": ["g.test"], "auth": {"type": "API_KEY"}},
        DocumentKey("service", "g", "s"): {"target_url": "http://127.0.0.1:1"},
    }
    for name, (method, path, security) in routes.items():
        documents[DocumentKey("route", "g", name)] = {
            "method": method,
            "public_path": path,
            "target_path": "/",
            "service": "s",
            "security": security,
        }
    configuration = Configuration(Limits())
    configuration.replace_all({key: json.dumps(document).encode() for key, document in documents.items()})
    assert not configuration.refused
    return shadows(configuration.snapshot)


@pytest.mark.parametrize(
    ("method", "path", "twin"),
    [
        ("GET", "/admin", "/admin/"),
        ("ANY", "/admin", "/admin/"),
        ("GET", "/admin/", "/admin"),
        ("GET", "/users/{id}", "/users/{id}/"),
        ("GET", "/users/{id}/", "/users/{id}"),
    ],
)
def test_the_other_ending_of_a_SECURE_path_that_is_PUBLIC_is_told(method: str, path: str, twin: str) -> None:
    (said,) = _said(secret=(method, path, "SECURE"), rest=("ANY", "/{rest*}", "PUBLIC"))
    assert said.startswith(f"gateway g: the route secret is SECURE on {path}, but {twin} is another path")
    assert "the PUBLIC route rest (/{rest*})" in said


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"rest": ("ANY", "/{rest*}", "SECURE")},
        {"rest": ("POST", "/{rest*}", "PUBLIC")},
        {"rest": ("ANY", "/{rest*}", "PUBLIC"), "twin": ("GET", "/admin/", "SECURE")},
        {"rest": ("ANY", "/{rest*}", "PUBLIC"), "below": ("ANY", "/admin/{rest*}", "SECURE")},
        {"rest": ("ANY", "/other/{rest*}", "PUBLIC")},
        {"rest": ("ANY", "/{one}", "PUBLIC")},
    ],
)
def test_nothing_is_told_where_the_other_ending_is_SECURE_or_nobodys(
    others: dict[str, tuple[str, str, str]],
) -> None:
    assert _said(secret=("GET", "/admin", "SECURE"), **others) == []


def test_a_root_and_a_rest_have_no_other_ending() -> None:
    assert (
        _said(
            root=("GET", "/", "SECURE"),
            all=("GET", "/a/{rest*}", "SECURE"),
            rest=("ANY", "/{rest*}", "PUBLIC"),
        )
        == []
    )
