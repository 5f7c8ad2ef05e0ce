"""What a client is known by in its certificate, over a real handshake in memory."""

import hashlib
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connector.receiver.tls import names_of

PINNED = f"sha256:{hashlib.sha256(b'the certificate of somebody else').hexdigest()}"


def issued(issuer: trustme.CA, *alternatives: x509.GeneralName) -> bytes:
    """A certificate of a client and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority = x509.load_pem_x509_certificate(issuer.cert_pem.bytes())
    authority_key = serialization.load_pem_private_key(issuer.private_key_pem.bytes(), None)
    now = datetime.now(UTC)
    subject = x509.NameAttribute(NameOID.COMMON_NAME, "cn")
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([subject]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(authority_key, hashes.SHA256())  # type: ignore[arg-type]  # trustme's keys can sign
    text = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*text) + certificate.public_bytes(serialization.Encoding.PEM)


def shaken(issuer: trustme.CA, client_pem: Path) -> ssl.SSLObject:
    """The server's side of a connection whose client shows this certificate."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    issuer.issue_cert("localhost").configure_cert(server)
    for context in (server, client):
        issuer.configure_trust(context)
    server.verify_mode = ssl.CERT_REQUIRED
    client.load_cert_chain(client_pem)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = server.wrap_bio(there, back, server_side=True), client.wrap_bio(back, there, server_hostname="localhost")
    for side in (*reversed(sides), *sides, *reversed(sides)):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return sides[0]


@pytest.mark.parametrize(
    ("alternatives", "expected"),
    [
        (
            [x509.DNSName("hr.example.org"), x509.UniformResourceIdentifier("spiffe://x/hr")],
            {"hr.example.org", "spiffe://x/hr"},
        ),
        ([], {"cn"}),
        ([x509.UniformResourceIdentifier(PINNED)], set()),
        ([x509.RFC822Name(PINNED)], set()),
        ([x509.UniformResourceIdentifier(PINNED), x509.DNSName("hr.example.org")], {"hr.example.org"}),
    ],
    ids=["alternatives", "a common name", "a URI", "a mail address", "a URI and another"],
)
def test_no_name_in_a_certificate_passes_for_the_fingerprint_of_another(tmp_path, alternatives, expected):
    """Who gets any certificate of the authority could be whoever is known by a fingerprint alone."""
    issuer, pem = trustme.CA(), tmp_path / "client.pem"
    pem.write_bytes(issued(issuer, *alternatives))
    connection = shaken(issuer, pem)
    own = f"sha256:{hashlib.sha256(connection.getpeercert(binary_form=True)).hexdigest()}"

    assert names_of(connection) == {*expected, own}
