"""Certificates that change while they are in use, and what is wrong with those that cannot be."""

from __future__ import annotations

import asyncio
import datetime
import logging
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from authgate_fast.server import tls as tls_module
from authgate_fast.server.certificates import CertificateError
from authgate_fast.server.tls import ServerTls
from authgate_fast.server.tls_options import OPTIONAL, TlsOptions
from tests.proxy.harness import BOUND_S, read_head
from tests.proxy.scripted import until
from tests.tls.kit import GET, Door, client_context, connected, door, put, visit, write_pair

NOW = datetime.datetime.now(datetime.UTC)
LONG_AGO = {"not_before": NOW - datetime.timedelta(20), "not_after": NOW - datetime.timedelta(1)}
SOON_OVER = {"not_before": NOW - datetime.timedelta(20), "not_after": NOW + datetime.timedelta(13)}


def fingerprints(here: Door) -> list[object]:
    assert here.tls is not None
    certificates = here.tls.status()["certificates"]
    assert isinstance(certificates, list)
    return [one["sha256"] for one in certificates]


def problems(here: Door) -> list[str]:
    assert here.tls is not None
    found = here.tls.status()["problems"]
    assert isinstance(found, list)
    return found


@pytest.mark.usefixtures("fast_looks")
async def test_a_good_new_pair_is_used_by_the_next_handshake_and_ends_no_connection(
    authority: trustme.CA, tmp_path: Path
) -> None:
    context = client_context(authority)
    async with (
        door(write_pair(authority, tmp_path, "p", "localhost")) as here,
        connected(here.port, context) as (reader, writer),
    ):
        before = await visit(here.port, context)
        known = fingerprints(here)
        write_pair(authority, tmp_path, "p", "localhost", "new.example")
        await until(lambda: fingerprints(here) != known)
        after = await visit(here.port, context, "new.example")
        assert before.der != after.der
        writer.write(GET)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.usefixtures("fast_looks")
async def test_a_bad_new_pair_is_said_and_the_old_one_stays(
    authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert_file, key_file = write_pair(authority, tmp_path, "p", "localhost")
    good_cert, good_key = cert_file.read_bytes(), key_file.read_bytes()
    expired = authority.issue_cert("localhost", **LONG_AGO)
    foreign = authority.issue_cert("localhost")
    bad: dict[str, tuple[bytes, bytes]] = {
        "does not belong": (good_cert, foreign.private_key_pem.bytes()),
        "no PEM file": (b"rubbish", good_key),
        "malformed": (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", good_key),
        "no private key": (good_cert, b""),
        "has expired": (expired.cert_chain_pems[0].bytes(), expired.private_key_pem.bytes()),
    }
    async with door((cert_file, key_file), write_pair(authority, tmp_path, "q", "q.example")) as here:
        known = fingerprints(here)
        for said, (cert, key) in bad.items():
            put(cert_file, cert)
            put(key_file, key)
            await until(lambda said=said: any(said in text for text in problems(here)))  # type: ignore[misc]
            assert said in caplog.text
            assert fingerprints(here) == known
            assert (await visit(here.port, client_context(authority))).answer
        cert_file.unlink()
        await until(lambda: any("no such file" in text for text in problems(here)))
        assert (await visit(here.port, client_context(authority))).answer
        # A neighbour's renewal is not held up by it.
        write_pair(authority, tmp_path, "q", "q.example")
        await until(lambda: fingerprints(here)[1] != known[1])
        assert fingerprints(here)[0] == known[0]
        write_pair(authority, tmp_path, "p", "localhost")
        await until(lambda: not problems(here) and fingerprints(here)[0] != known[0])


@pytest.mark.usefixtures("fast_looks")
async def test_certificates_come_and_go_in_a_directory(authority: trustme.CA, tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    context = client_context(authority)
    async with door(write_pair(authority, tmp_path, "p", "localhost"), directory=live) as here:
        write_pair(authority, live, "q", "q.example")
        await until(lambda: len(fingerprints(here)) == 2)
        assert (await visit(here.port, context, "q.example")).names == ("q.example",)
        (live / "bad.crt").write_text("rubbish")
        await until(lambda: len(problems(here)) == 1)
        assert len(fingerprints(here)) == 2
        for file in live.iterdir():
            file.unlink()
        await until(lambda: len(fingerprints(here)) == 1)
        assert not problems(here)
        with pytest.raises(ssl.SSLCertVerificationError):
            await visit(here.port, context, "q.example")


@pytest.mark.usefixtures("fast_looks")
async def test_links_that_move_are_followed_as_certbot_moves_them(
    authority: trustme.CA, tmp_path: Path
) -> None:
    archive, live = tmp_path / "archive", tmp_path / "live" / "a.example"
    archive.mkdir()
    live.mkdir(parents=True)

    def renew(number: int) -> None:
        pair = write_pair(authority, archive, f"p{number}", "a.example")
        for name, file in zip(("fullchain.pem", "privkey.pem"), pair, strict=True):
            new = live / f"{name}.new"
            new.symlink_to(file)
            new.replace(live / name)

    renew(1)
    async with door(directory=tmp_path / "live") as here:
        known = fingerprints(here)
        renew(2)
        await until(lambda: fingerprints(here) != known)
        assert not problems(here)


@pytest.mark.usefixtures("fast_looks")
async def test_no_request_fails_while_certificates_are_replaced(
    authority: trustme.CA, tmp_path: Path
) -> None:
    context = client_context(authority)
    async with door(write_pair(authority, tmp_path, "p", "localhost")) as here:
        done = asyncio.Event()
        answers: list[bytes] = []
        seen: set[bytes] = set()

        async def client(number: int) -> None:
            while not done.is_set():
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", here.port, ssl=context, server_hostname="localhost"
                )
                seen.add(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
                for turn in range(5):
                    writer.write(b"GET /p/%d-%d HTTP/1.1\r\nHost: a\r\n\r\n" % (number, turn))
                    head = await read_head(reader)
                    echoed = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND_S)
                    assert echoed.startswith(b"GET /%d-%d " % (number, turn))
                    answers.append(head[:15])
                writer.transport.abort()

        clients = [asyncio.ensure_future(client(number)) for number in range(8)]
        for _ in range(10):
            known = fingerprints(here)
            write_pair(authority, tmp_path, "p", "localhost")
            await until(lambda known=known: fingerprints(here) != known)  # type: ignore[misc]
        done.set()
        await asyncio.gather(*clients)
        assert set(answers) == {b"HTTP/1.1 200 OK"}
        assert len(seen) > 5
        assert here.tls is not None
        assert not here.tls.failures


async def test_asked_to_it_looks_at_once(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_module, "LOOK_S", 3_600.0)
    async with door(write_pair(authority, tmp_path, "p", "localhost")) as here:
        assert here.tls is not None
        known = fingerprints(here)
        await asyncio.sleep(0)
        write_pair(authority, tmp_path, "p", "localhost")
        here.tls.reload_soon()
        await until(lambda: fingerprints(here) != known)


@pytest.mark.usefixtures("fast_looks")
async def test_files_that_are_touched_and_not_changed_end_no_session(
    authority: trustme.CA, tmp_path: Path
) -> None:
    context = client_context(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    pair = write_pair(authority, tmp_path, "p", "localhost")
    async with door(pair) as here:
        assert here.tls is not None
        before, serving = await visit(here.port, context), here.tls.context
        for file in pair:
            put(file, file.read_bytes())
        here.tls.reload_soon()
        write_pair(authority, tmp_path, "unrelated", "x.example")
        await asyncio.sleep(0.1)
        assert here.tls.context is serving
        assert (await visit(here.port, context, session=before.session)).reused


@pytest.mark.usefixtures("fast_looks")
async def test_the_keys_of_session_tickets_do_not_live_for_ever(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with door(write_pair(authority, tmp_path, "p", "localhost")) as here:
        assert here.tls is not None
        context, old = client_context(authority), here.tls.context
        first = await visit(here.port, context)
        monkeypatch.setattr(tls_module, "TICKET_KEYS_S", 0.0)
        await until(lambda: here.tls is not None and here.tls.context is not old)
        again = await visit(here.port, context, session=first.session)
        assert (again.reused, again.der) == (False, first.der)


async def test_a_certificate_that_ends_soon_is_said_once_a_day(
    authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture, fast_looks: None
) -> None:
    async with door(
        write_pair(authority, tmp_path, "soon", "localhost", **SOON_OVER),
        write_pair(authority, tmp_path, "later", "later.example"),
    ) as here:
        await until(lambda: "soon.crt" in caplog.text)
        await asyncio.sleep(0.1)  # several more looks
        warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert "ends in 12.9 days" in warnings[0] or "ends in 13.0 days" in warnings[0]
        assert here.tls is not None
        (soon, end), (later, _) = here.tls.expiries()
        assert (Path(soon).name, Path(later).name) == ("soon.crt", "later.crt")
        assert abs(end - SOON_OVER["not_after"].timestamp()) < 2


# --- what is wrong at the start ------------------------------------------------------------------------


def encrypted(pem: bytes) -> bytes:
    key = serialization.load_pem_private_key(pem, None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def test_each_mistake_is_said_in_plain_words(authority: trustme.CA, tmp_path: Path) -> None:
    cert_file, key_file = write_pair(authority, tmp_path, "p", "localhost")
    cert, key = cert_file.read_bytes(), key_file.read_bytes()
    leaf = authority.issue_cert("localhost")
    backwards = authority.cert_pem.bytes() + leaf.cert_chain_pems[0].bytes()
    other = authority.issue_cert("localhost").private_key_pem.bytes()
    expired = authority.issue_cert("localhost", **LONG_AGO)
    cases = [
        (cert, other, "p.key: the key does not belong to the certificate in"),
        (b"", key, "p.crt: no PEM file"),
        (key, key, "p.crt: it holds a key, where a certificate is expected"),
        (cert, cert, "p.key: a certificate, where its key is expected"),
        (cert, encrypted(key), "p.key: the key is encrypted"),
        (cert, b"x", "p.key: no private key in PEM"),
        (backwards, leaf.private_key_pem.bytes(), "the key belongs to certificate 2 of the file"),
        (
            expired.cert_chain_pems[0].bytes(),
            expired.private_key_pem.bytes(),
            "p.crt: the certificate has expired at",
        ),
    ]
    for certificate, private, said in cases:
        put(cert_file, certificate)
        put(key_file, private)
        with pytest.raises(CertificateError) as wrong:
            ServerTls(TlsOptions(((cert_file, key_file),))).load()
        assert said in str(wrong.value)
        assert "PRIVATE KEY" not in str(wrong.value)


def test_a_file_that_is_not_there_or_no_file_is_said(authority: trustme.CA, tmp_path: Path) -> None:
    cert_file, key_file = write_pair(authority, tmp_path, "p", "localhost")
    for pair, said in (
        ((tmp_path / "none.crt", key_file), "none.crt: no such file"),
        ((cert_file, tmp_path / "none.key"), "none.key: no such file"),
        ((tmp_path, key_file), "is a directory"),
    ):
        with pytest.raises(CertificateError) as wrong:
            ServerTls(TlsOptions((pair,))).load()
        assert said in str(wrong.value)


def test_a_key_that_is_too_short_is_said(tmp_path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    key = rsa.generate_private_key(65_537, 1_024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "short")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - datetime.timedelta(1))
        .not_valid_after(NOW + datetime.timedelta(100))
        .sign(key, hashes.SHA256())
    )
    put(tmp_path / "p.crt", certificate.public_bytes(serialization.Encoding.PEM))
    put(
        tmp_path / "p.key",
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
    with pytest.raises(CertificateError, match="its key is too short"):
        ServerTls(TlsOptions(((tmp_path / "p.crt", tmp_path / "p.key"),))).load()


def test_all_mistakes_are_said_at_once(authority: trustme.CA, tmp_path: Path) -> None:
    pairs = ((tmp_path / "a.crt", tmp_path / "a.key"), (tmp_path / "b.crt", tmp_path / "b.key"))
    with pytest.raises(CertificateError) as wrong:
        ServerTls(TlsOptions(pairs)).load()
    assert "a.crt" in str(wrong.value)
    assert "b.crt" in str(wrong.value)


def test_an_expired_certificate_is_served_by_a_worker_that_replaces_another(
    authority: trustme.CA, tmp_path: Path
) -> None:
    serving = ServerTls(TlsOptions((write_pair(authority, tmp_path, "p", "localhost", **LONG_AGO),)))
    serving.load(is_strict=False)
    assert serving.context


def test_a_bad_pair_of_a_directory_does_not_stop_the_others(
    authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pair(authority, tmp_path, "good", "good.example")
    write_pair(authority, tmp_path, "old", "old.example", **LONG_AGO)
    (tmp_path / "bad.crt").write_text("rubbish")
    serving = ServerTls(TlsOptions((), tmp_path))
    serving.load()
    assert [Path(file).name for file, _ in serving.expiries()] == ["good.crt", "old.crt"]
    assert "bad.crt: no PEM file" in caplog.text
    with pytest.raises(CertificateError, match="none: no such file"):
        ServerTls(TlsOptions((), tmp_path / "none")).load()


def test_a_key_that_everybody_may_read_is_said(
    authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair = write_pair(authority, tmp_path, "p", "localhost")
    pair[1].chmod(0o644)
    ServerTls(TlsOptions((pair,))).load()
    assert "every user of this machine may read this key" in caplog.text


def test_authorities_of_clients_that_cannot_be_read_are_said(authority: trustme.CA, tmp_path: Path) -> None:
    pair = write_pair(authority, tmp_path, "p", "localhost")
    for content, said in ((b"rubbish", "no PEM file"), (None, "no such file")):
        bundle = tmp_path / "clients.pem"
        if content is None:
            bundle.unlink()
        else:
            bundle.write_bytes(content)
        with pytest.raises(CertificateError, match=said):
            ServerTls(TlsOptions((pair,), None, bundle, OPTIONAL)).load()
