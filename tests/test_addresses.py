from __future__ import annotations

import pytest

from authgate_fast.addresses import (
    AddressError,
    is_guarded,
    parse_network,
    parse_public_host,
    parse_target_url,
)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("*", "*"),
        ("Shop.Example.COM", "shop.example.com"),
        ("*.Example.com", "*.example.com"),
        ("localhost", "localhost"),
        ("my_service", "my_service"),
        ("10.0.0.1", "10.0.0.1"),
        ("[2001:DB8:0::1]", "[2001:db8::1]"),
        ("xn--bcher-kva.test", "xn--bcher-kva.test"),
        ("a" * 63 + ".test", "a" * 63 + ".test"),
    ],
)
def test_a_public_host_gets_its_one_form(text: str, host: str) -> None:
    assert parse_public_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        "-a.test",
        "a-.test",
        "a b",
        "a\n",
        "a.test\n",
        "*a.test",
        "**.test",
        "*.",
        "*.10.0.0.1",
        "*.[::1]",
        "http://a",
        "a/b",
        "a:80",
        "[::1]:80",
        "::1",
        "[::1",
        "[fe80::1%25eth0]",
        "[::g]",
        "a.test.",
        "b\u00fccher",
        "\u212aelvin.test",
        "1.2.3",
        "256.1.1.1",
        "01.2.3.4",
        "0x7f.1",
        "a" * 64,
        ".".join(["a" * 60] * 5),
        "\ud800",
    ],
)
def test_what_is_no_public_host_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_public_host(text)


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "base_path", "authority"),
    [
        ("http://catalog:8080", "http", "catalog", 8080, "", "catalog:8080"),
        ("https://Example.com/", "https", "example.com", 443, "", "example.com"),
        ("HTTPS://example.com:443/v1/", "https", "example.com", 443, "/v1", "example.com"),
        ("http://example.com:443", "http", "example.com", 443, "", "example.com:443"),
        ("http://[::1]:9000/a/b%20c", "http", "::1", 9000, "/a/b%20c", "[::1]:9000"),
        ("http://[::1]", "http", "::1", 80, "", "[::1]"),
        ("http://127.0.0.1:1", "http", "127.0.0.1", 1, "", "127.0.0.1:1"),
    ],
)
def test_a_target_url_comes_apart(  # a row of the table
    text: str, scheme: str, host: str, port: int, base_path: str, authority: str
) -> None:
    url = parse_target_url(text)
    assert (url.scheme, url.host, url.port, url.base_path) == (scheme, host, port, base_path)
    assert url.authority == authority


@pytest.mark.parametrize(
    "text",
    [
        "",
        "catalog",
        "//catalog",
        "http:/catalog",
        "ftp://catalog",
        "http://",
        "http:///path",
        "http://:80",
        "http://h:",
        "http://h:0",
        "http://h:080",
        "http://h:65536",
        "http://h:+80",
        "http://h:\u0661",
        "http://h:80:80",
        "http://u@h",
        "http://u:p@h",
        "http://h?q",
        "http://h#f",
        "http://h\\@evil",
        "http://h/a//b",
        "http://h//",
        "http://h/../b",
        "http://h/%2e%2e/b",
        "http://h/a%2fb",
        "http://h/a;b",
        "http://h/\u00fc",
        "http://h/{id}",
        "http://h/a b",
        "http://h/a\r\nX: y",
        "http://h h/",
        "http://h\n/",
        "http://[::1",
        "http://[::1%25eth0]/",
        "http://0x7f000001/",
        "http://017700000001/",
        "http://2130706433/",
        "http://127.1/",
    ],
)
def test_what_is_no_target_url_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_target_url(text)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.0.1",
        "[fe80::1]",
        "[febf::1]",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "[64:ff9b::a9fe:a9fe]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "METADATA.google.internal",
        "metadata",
        "instance-data",
    ],
)
def test_metadata_services_and_link_local_addresses_are_guarded_in_every_form(host: str) -> None:
    assert is_guarded(parse_target_url(f"http://{host}/").host)


@pytest.mark.parametrize(
    "host", ["169.253.0.1", "10.0.0.1", "[::1]", "[fec0::1]", "catalog", "metadata.test"]
)
def test_other_hosts_are_not_guarded(host: str) -> None:
    assert not is_guarded(parse_target_url(f"http://{host}/").host)


@pytest.mark.parametrize(
    "host",
    [
        "2852039166",
        "0xA9FEA9FE",
        "0251.0376.0251.0376",
        "0xa9.254.0251.254",
        "169.254.43518",
        "169.254.169.254.",
    ],
)
def test_odd_spellings_of_a_link_local_address_are_refused_with_what_they_mean(host: str) -> None:
    with pytest.raises(AddressError) as refusal:
        parse_target_url(f"http://{host}/")
    assert "169.254.169.254" in refusal.value.hint


def test_networks_are_addresses_or_ranges_from_their_first_address() -> None:
    assert str(parse_network("10.0.0.0/8")) == "10.0.0.0/8"
    assert str(parse_network("::1")) == "::1/128"
    for text in ("10.0.0.1/8", "10.0.0.0/33", "localhost", "", "10.0.0.0/8 "):
        with pytest.raises(AddressError):
            parse_network(text)


@pytest.mark.parametrize(
    ("text", "path", "base_path"),
    [
        ("http://unix:/run/app.sock", "/run/app.sock", ""),
        ("http://unix:/run/app.sock:", "/run/app.sock", ""),
        ("HTTP://unix:/run/app.sock:/", "/run/app.sock", ""),
        ("http://unix:/run/my-app/a_b.1@c~:/v1/x", "/run/my-app/a_b.1@c~", "/v1/x"),
        (f"http://unix:/{'a' * 106}", f"/{'a' * 106}", ""),
    ],
)
def test_a_unix_socket_is_a_target_as_nginx_writes_it(text: str, path: str, base_path: str) -> None:
    target = parse_target_url(text)
    assert (target.scheme, target.host, target.port, target.base_path) == ("http", path, 0, base_path)
    assert target.authority == "localhost"
    assert not is_guarded(target.host)


@pytest.mark.parametrize(
    "text",
    [
        "http://unix:",
        "http://unix:/",
        "http://unix:run/a",
        "http://unix://run/a",
        "http://unix:/run//a",
        "http://unix:/run/../a",
        "http://unix:/run/a/..",
        "http://unix:/run/a b",
        "http://unix:/run/%61",
        "http://unix:/run/a:v1",
        "http://unix:/run/a:/v1/../x",
        "http://unix:/run/a:/v1:/x?y",
        "http://unix:/run/a?x",
        f"http://unix:/{'a' * 107}",
        "https://unix:/run/a",
    ],
)
def test_what_is_no_path_of_a_unix_socket_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_target_url(text)


def test_a_host_may_be_called_unix() -> None:
    target = parse_target_url("http://unix:8080/run/a")
    assert (target.host, target.port, target.base_path) == ("unix", 8080, "/run/a")
