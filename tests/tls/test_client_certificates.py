"""Certificates of clients: who is let in, and what a backend is told that nobody else can say."""

from __future__ import annotations

import datetime
import ssl
from ipaddress import ip_address
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from authgate_fast.server.client_certificate import MAX_VALUE_BYTES, certificate_lines, escape_subject
from authgate_fast.server.tls_options import OPTIONAL, REQUIRED
from tests.proxy.scripted import until
from tests.tls.kit import GET, client_context, door, put, visit, write_pair

FORGED = (
    "X-Client-Cert-Verified: SUCCESS",
    "X-Client-Cert-Subject: CN=admin",
    "x-client-cert-fingerprint: 00",
    "X_Client_Cert_Subject: CN=admin",
    "X.Client.Cert.Verified: SUCCESS",
    "X-Client_Cert.San: DNS:admin",
    "X-Client-Cert: CN=admin",
    "Client-Cert: :AAAA:",
    "client_cert_chain: :AAAA:",
    "X-Forwarded-Client-Cert: Hash=00",
)


@pytest.fixture(scope="module")
def clients() -> trustme.CA:
    return trustme.CA(organization_name="clients")


@pytest.fixture
def bundle(clients: trustme.CA, tmp_path: Path) -> Path:
    file = tmp_path / "clients.pem"
    clients.cert_pem.write_to_path(str(file))
    return file


def showing(context: ssl.SSLContext, certificate: trustme.LeafCert) -> ssl.SSLContext:
    certificate.configure_cert(context)
    return context


def fingerprint(certificate: trustme.LeafCert) -> str:
    return (
        x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes())
        .fingerprint(hashes.SHA256())
        .hex()
    )


@pytest.mark.parametrize("auth", [OPTIONAL, REQUIRED])
@pytest.mark.parametrize("name", ["localhost", "q.example"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_backend_is_told_of_a_good_certificate_also_in_a_resumed_session(
    authority: trustme.CA,
    clients: trustme.CA,
    bundle: Path,
    tmp_path: Path,
    auth: str,
    name: str,
    version: ssl.TLSVersion,
) -> None:
    certificate = clients.issue_cert("billing@client.example", "client.example", common_name="billing, 7")
    context = showing(client_context(authority), certificate)
    context.minimum_version = context.maximum_version = version
    pairs = [write_pair(authority, tmp_path, stem, stem) for stem in ("localhost", "q.example")]
    async with door(*pairs, client_ca=bundle, client_auth=auth) as here:
        first = await visit(here.port, context, name)
        again = await visit(here.port, context, name, session=first.session)
        assert again.reused
        for seen in (first, again):
            told = {key: value for key, value in seen.fields.items() if key.startswith("x-client-cert")}
            assert told["x-client-cert-verified"] == "SUCCESS"
            assert told["x-client-cert-fingerprint"] == fingerprint(certificate)
            assert "CN=billing\\, 7" in told["x-client-cert-subject"]
            assert told["x-client-cert-san"] == "EMAIL:billing@client.example, DNS:client.example"


async def test_without_a_certificate_optional_says_so_and_required_refuses(
    authority: trustme.CA, bundle: Path, tmp_path: Path
) -> None:
    pair = write_pair(authority, tmp_path, "p", "localhost")
    async with door(pair, client_ca=bundle, client_auth=OPTIONAL) as here:
        fields = (await visit(here.port, client_context(authority))).fields
        assert {key: value for key, value in fields.items() if key.startswith("x-client-cert")} == {
            "x-client-cert-verified": "NONE"
        }
    async with door(pair, client_ca=bundle, client_auth=REQUIRED) as here:
        with pytest.raises(ssl.SSLError) as refused:
            await visit(here.port, client_context(authority))
        assert refused.value.reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
        assert not here.stack.context.counters.requests


@pytest.mark.parametrize("auth", [OPTIONAL, REQUIRED])
async def test_a_certificate_that_cannot_be_verified_is_refused_even_where_none_is_needed(
    authority: trustme.CA, clients: trustme.CA, bundle: Path, tmp_path: Path, auth: str
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    cases = {
        "TLSV1_ALERT_UNKNOWN_CA": trustme.CA().issue_cert("client.example"),
        "SSLV3_ALERT_CERTIFICATE_EXPIRED": clients.issue_cert(
            "client.example",
            not_before=now - datetime.timedelta(9),
            not_after=now - datetime.timedelta(1),
        ),
    }
    pair = write_pair(authority, tmp_path, "p", "localhost")
    async with door(pair, client_ca=bundle, client_auth=auth) as here:
        for alert, certificate in cases.items():
            with pytest.raises(ssl.SSLError) as refused:
                await visit(here.port, showing(client_context(authority), certificate))
            assert refused.value.reason == alert
        assert not here.stack.context.counters.requests


@pytest.mark.parametrize("line", FORGED)
async def test_what_a_client_says_of_a_certificate_never_arrives(
    authority: trustme.CA, bundle: Path, tmp_path: Path, line: str
) -> None:
    request = GET.replace(b"\r\n\r\n", f"\r\n{line}\r\n\r\n".encode())
    pair = write_pair(authority, tmp_path, "p", "localhost")
    async with door(pair, client_ca=bundle, client_auth=OPTIONAL) as here:
        fields = (await visit(here.port, client_context(authority), request=request)).fields
        names = [name for name in fields if "client" in name]
        assert names == ["x-client-cert-verified"]
        assert fields["x-client-cert-verified"] == "NONE"
    async with door(pair) as here:
        fields = (await visit(here.port, client_context(authority), request=request)).fields
        assert not [name for name in fields if "client" in name]


@pytest.mark.usefixtures("fast_looks")
async def test_new_authorities_of_clients_count_from_the_next_handshake_on(
    authority: trustme.CA, clients: trustme.CA, bundle: Path, tmp_path: Path
) -> None:
    new = trustme.CA()
    old_client, new_client = clients.issue_cert("a.example"), new.issue_cert("a.example")
    pairs = [write_pair(authority, tmp_path, stem, stem) for stem in ("localhost", "q.example")]
    context = showing(client_context(authority), old_client)
    async with door(*pairs, client_ca=bundle, client_auth=REQUIRED) as here:
        assert here.tls is not None
        known = await visit(here.port, context, "q.example")
        serving = here.tls.context
        put(bundle, new.cert_pem.bytes())
        await until(lambda: here.tls is not None and here.tls.context is not serving)
        for name in ("localhost", "q.example"):
            assert (await visit(here.port, showing(client_context(authority), new_client), name)).answer
            with pytest.raises(ssl.SSLError):
                await visit(here.port, showing(client_context(authority), old_client), name)
        with pytest.raises(ssl.SSLError):  # and no session of before outlives it
            await visit(here.port, context, "q.example", session=known.session)


def made_of(subject: x509.Name, *names: x509.GeneralName) -> bytes:
    """Sign a certificate with whatever it is asked for, as a careless authority would."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text, _validate=False)])


@pytest.mark.parametrize(
    ("common_name", "told"),
    [
        ("plain", b"CN=plain"),
        ("a,b+c", rb"CN=a\,b\+c"),
        ("x\r\nX-Consumer-Id: admin", rb"CN=x\0D\0AX-Consumer-Id: admin"),
        ("nul\x00l", rb"CN=nul\00l"),
        ("Grüße", rb"CN=Gr\C3\BC\C3\9Fe"),
        ("\x7f", rb"CN=\7F"),
        (" spaces ", rb"CN=\ spaces\ "),
    ],
)
def test_no_byte_of_a_subject_can_end_its_field(common_name: str, told: bytes) -> None:
    lines = certificate_lines(made_of(named(common_name)))
    assert lines is not None
    assert b"X-Client-Cert-Subject: " + told + b"\r\n" in lines
    assert lines.count(b"\r\n") == 3
    assert lines.isascii()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (x509.DNSName("a.example"), b"DNS:a.example"),
        (x509.DNSName("a.example, DNS:admin.example"), b"DNS:a.example%2C%20DNS:admin.example"),
        (x509.DNSName("a\r\nX-User-Id: 1"), b"DNS:a%0D%0AX-User-Id:%201"),
        (x509.UniformResourceIdentifier("spiffe://td/ns/a?x=%2C"), b"URI:spiffe://td/ns/a?x=%252C"),
        (x509.RFC822Name("a@b.example"), b"EMAIL:a@b.example"),
        (x509.IPAddress(ip_address("2001:db8::1")), b"IP:2001:db8::1"),
    ],
)
def test_no_name_of_a_certificate_can_be_read_as_two(name: x509.GeneralName, told: bytes) -> None:
    lines = certificate_lines(made_of(named("c"), name))
    assert lines is not None
    assert b"X-Client-Cert-San: " + told + b"\r\n" in lines
    assert lines.count(b"\r\n") == 4


def test_what_is_too_long_is_not_told_in_part() -> None:
    many = [x509.DNSName(f"host-{number}.client.example") for number in range(MAX_VALUE_BYTES // 20)]
    assert certificate_lines(made_of(named("c"), *many)) is None
    assert certificate_lines(made_of(x509.Name(list(named("x" * 64)) * 80))) is None
    assert certificate_lines(b"rubbish") is None


def test_an_escaped_subject_is_what_it_was() -> None:
    assert escape_subject("CN=ü") == b"CN=\\C3\\BC"
