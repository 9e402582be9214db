from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authgate_fast.config import file as file_module
from authgate_fast.config.check import check_file
from authgate_fast.config.file import file_signature, load_file, watch_file
from authgate_fast.config.keys import DocumentKey
from authgate_fast.config.yaml_text import YamlError, read_yaml

GOOD = """\
gateways:
  shop:
    hosts: [shop.test]
    auth: {type: API_KEY}
    services:
      catalog: {target_url: "http://catalog:8080"}
    routes:
      get-product:
        method: GET
        public_path: /products/{id}
        service: catalog
        security: SECURE
    consumers:
      app:
        expires_at: 2030-01-01T00:00:00Z
      other:
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.yaml"


def _said(path: Path, text: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    return [str(problem).removeprefix(str(path)) for problem in check_file(path)]


def test_a_file_becomes_canonical_documents(path: Path) -> None:
    path.write_text(GOOD, encoding="utf-8")
    loaded = load_file(path)
    assert loaded.problems == []
    assert loaded.documents == {
        DocumentKey("gateway", "shop", "shop"): b'{"auth":{"type":"API_KEY"},"hosts":["shop.test"]}',
        DocumentKey("service", "shop", "catalog"): b'{"target_url":"http://catalog:8080"}',
        DocumentKey("route", "shop", "get-product"): (
            b'{"method":"GET","public_path":"/products/{id}","security":"SECURE","service":"catalog"}'
        ),
        DocumentKey("consumer", "shop", "app"): b'{"expires_at":"2030-01-01T00:00:00Z"}',
        DocumentKey("consumer", "shop", "other"): b"{}",
    }


def test_json_is_read_like_yaml(tmp_path: Path) -> None:
    path = tmp_path / "gateway.json"
    path.write_text('{\t"gateways": {"shop": {"hosts": ["\\u002a"], "auth": {"type": "API_KEY"}}}}')
    assert load_file(path).documents == {
        DocumentKey("gateway", "shop", "shop"): b'{"auth":{"type":"API_KEY"},"hosts":["*"]}'
    }
    for text, said in (
        ('{"gateways": {},}', ":1: found a text that is not JSON"),
        ('{"gateways": {}, "gateways": {}}', ": found the key gateways twice"),
        ('{"gateways": NaN}', ": found a text that is not JSON"),
        ("[" * 100_000, ": found a text that is not JSON"),
        ("1" * 10_000, ": found a text that is not JSON"),
    ):
        (problem,) = _said(path, text)
        assert problem.startswith(said)


def test_a_problem_has_the_line_of_what_is_wrong(path: Path) -> None:
    text = GOOD.replace("SECURE", "SECUR").replace("    auth:", "    adress: a\n    auth:")
    assert _said(path, text) == [
        ":4: gateways.shop.adress: found a field that does not exist; the fields here are enabled, "
        "description, hosts, auth, path_policy, trusted_proxies, services, routes, consumers",
        ':13: gateways.shop.routes.get-product.security: found "SECUR"; allowed: PUBLIC (anybody may call) '
        "or SECURE (a credential is checked) (did you mean `SECURE`?)",
    ]


def test_a_misspelt_part_of_a_gateway_is_guessed(path: Path) -> None:
    said = _said(path, GOOD.replace("    consumers:", "    consumer:"))
    assert said[0].startswith(":13: gateways.shop.consumer: ")
    assert said[0].endswith("(did you mean `consumers`?)")


def test_a_missing_field_has_the_line_of_its_document(path: Path) -> None:
    (said,) = _said(path, GOOD.replace("        method: GET\n", ""))
    assert said.startswith(
        ":8: gateways.shop.routes.get-product.method: found nothing; this field is required"
    )


def test_one_broken_document_is_not_said_to_be_missing(path: Path) -> None:
    (said,) = _said(path, GOOD.replace("http://catalog:8080", "catalog"))
    assert "services.catalog.target_url" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ": found an empty file; a file starts with `gateways:`"),
        ("# nothing\n", ": found an empty file"),
        ("{}", ": found no `gateways`"),
        ("- a", ": found a list; a file starts with `gateways:`"),
        (
            "gateway:\n  a: 1",
            ":1: gateway: found a field that does not exist; the only field here is gateways (did",
        ),
        ("gateways: [a]", ":1: gateways: found a list; a mapping from names to gateways"),
        ("gateways:\n  Shop A: {}", ':2: gateways.Shop A: found "Shop A"; a name has 1 to 63'),
        ("gateways:\n  a: b", ':2: gateways.a: found "b"; a gateway is a mapping'),
        ("gateways:\n  a:\n    hosts: [h]\n   auth: 1", ":4: found a text that is not YAML; "),
        ("gateways: {a: &x {b: *x}}", ":1: found *x; an alias names an anchor that is complete"),
        ("gateways:\n  a: 1\n  a: 2", ":3: found a twice, first in line 2; write each key"),
        ("gateways: !!python/object:os.system {}", ":1: found a tag (!...); values are plain"),
        ("gateways: !!binary aGk=", ":1: found a tag (!...); values are plain"),
        ("gateways:\n  a: {<<: {}}", ":2: found a merge key (<<)"),
        ("a: 1\n---\nb: 2", ":2: found a second document (---)"),
        ("a: \x07", ": found a character that YAML does not allow"),
        ("? [a]\n: b", ":1: found a key that is not a name"),
        ("[" * 300_000, ":1: found more levels than a document has"),
        ('gateways: {a: {description: "\\ud83d"}}', ":1: found a text that is not YAML"),
    ],
)
def test_a_text_with_another_form_has_one_clear_problem(path: Path, text: str, said: str) -> None:
    assert _said(path, text)[0].startswith(said)


def test_names_are_texts_whatever_they_look_like(path: Path) -> None:
    text = GOOD.replace("catalog:", "007:", 1).replace("service: catalog", 'service: "007"')
    assert _said(path, text.replace("  app:", "  on:").replace("  other:", "  null:")) == []


def test_aliases_are_allowed_until_they_unfold_into_too_much(path: Path) -> None:
    text = GOOD.replace("auth: {type", "auth: &auth {type") + "  two:\n    hosts: [b.test]\n    auth: *auth\n"
    assert _said(path, text) == []
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "unfold into a huge document" in _said(path, "\n".join(lines))[0]


def test_yaml_reads_the_scalars_of_1_2() -> None:
    text = (
        "[no, on, 12:30, 2030-01-01, 0x10, 1_000, .inf, '1', !!str 1,"
        " 007, -5, 1e3, 1.5, true, null, ~, 123456789012345678901]"
    )
    assert read_yaml(text) == [
        *("no", "on", "12:30", "2030-01-01", "0x10", "1_000", ".inf", "1", "1"),
        *(7, -5, 1000.0, 1.5, True, None, None, "123456789012345678901"),
    ]


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%#,?\n \t0<~", max_size=40))
def test_any_text_is_a_value_or_an_error_with_words(text: str) -> None:
    try:
        read_yaml(text)
    except YamlError as error:
        assert error.message  # noqa: PT017  # most texts are fine


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "missing.yaml"
    assert [str(problem) for problem in check_file(missing)] == [
        f"{missing}: found no such file or directory; a file that can be read"
    ]
    assert "is a directory" in str(check_file(tmp_path)[0])
    assert "a file's path" in str(check_file("a\0b")[0])
    path = tmp_path / "gateway.yaml"
    path.write_bytes(b"gateways:\n  \xff: {}")
    assert str(check_file(path)[0]) == f"{path}:2: found bytes that are not UTF-8; a text in UTF-8"
    path.write_bytes(b"\xef\xbb\xbfgateways: {}")
    assert check_file(path) == []
    monkeypatch.setattr(file_module, "MAX_FILE_BYTES", 10)
    assert "at most 10 bytes" in str(check_file(path)[0])


class _Watch:
    """A watched file and an event for each time it is said to have changed."""

    def __init__(self, path: Path) -> None:
        self.seen: asyncio.Queue[bytes] = asyncio.Queue()
        self.path = path

    async def changed(self) -> None:
        self.seen.put_nowait(self.path.read_bytes())

    async def next(self) -> bytes:
        return await asyncio.wait_for(self.seen.get(), 5)


async def test_edits_renames_and_link_swaps_are_changes_and_vanishing_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for directory, text in ((first, b"one"), (second, b"two")):
        directory.mkdir()
        (directory / "f").write_bytes(text)
    link, path = tmp_path / "data", tmp_path / "f"
    link.symlink_to(first)
    path.symlink_to(link / "f")
    watch = _Watch(path)
    task = asyncio.create_task(watch_file(path, watch.changed, 0.01, since=(0, 0, 0, 0)), name="watch")
    try:
        assert await watch.next() == b"one"
        swap = tmp_path / "swap"
        swap.symlink_to(second)
        os.replace(swap, link)
        assert await watch.next() == b"two"
        (second / "f").write_bytes(b"three")
        assert await watch.next() == b"three"
        (second / "g").write_bytes(b"four!")
        os.replace(second / "g", second / "f")
        assert await watch.next() == b"four!"
        (second / "f").unlink()
        async with asyncio.timeout(5):
            while "is gone" not in caplog.text:  # noqa: ASYNC110  # a log has no event
                await asyncio.sleep(0.01)
        assert file_signature(path) is None
        assert watch.seen.empty()
        (second / "f").write_bytes(b"back")
        assert await watch.next() == b"back"
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert caplog.text.count("is gone") == 1


async def test_a_file_that_holds_still_is_read_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"one")  # nothing else runs yet
    polled = asyncio.Event()
    polls = 0

    def counting(name: Path) -> tuple[int, int, int, int] | None:
        nonlocal polls
        polls += 1
        if polls >= 12:
            polled.set()
        return file_signature(name)

    monkeypatch.setattr(file_module, "file_signature", counting)
    watch = _Watch(path)
    task = asyncio.create_task(watch_file(path, watch.changed, 0.001, since=(0, 0, 0, 0)), name="watch")
    try:
        await asyncio.wait_for(polled.wait(), 5)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert watch.seen.qsize() == 1
