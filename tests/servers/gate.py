"""A gate in front of a server: TLS, clients' certificates and passwords, for servers that have none of that here."""

import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import trustme

from tests.servers.endpoint import Handler, serving
from tests.servers.ports import LOOPBACK

SECONDS = 60


@dataclass(frozen=True)
class Certificates:
    """PEM files of one authority: its own, a server's for the loopback, and a client's with its key.

    Beside them those that must not be taken: a server's and a client's whose time is over, and another host's.
    """

    authority: Path
    client: Path
    client_key: Path
    server: Path
    late_server: Path
    late_client: Path
    other_server: Path

    @classmethod
    def issue(cls, folder: Path) -> "Certificates":
        """Issue them all, by an authority that nobody else knows."""
        authority = trustme.CA()
        server, client = authority.issue_cert(LOOPBACK), authority.issue_cert("client@example.org")
        begun, over = (datetime.now(UTC) - timedelta(days=days) for days in (2, 1))
        made = cls(
            *(folder / name for name in ("ca.pem", "client.pem", "client.key", "server.pem")),
            *(folder / name for name in ("late-server.pem", "late-client.pem", "other-server.pem")),
        )
        authority.cert_pem.write_to_path(made.authority)
        client.cert_chain_pems[0].write_to_path(made.client)
        client.private_key_pem.write_to_path(made.client_key)
        for path, issued in (
            (made.server, server),
            (made.late_server, authority.issue_cert(LOOPBACK, not_before=begun, not_after=over)),
            (made.late_client, authority.issue_cert("client@example.org", not_before=begun, not_after=over)),
            (made.other_server, authority.issue_cert("kafka.example.org")),
        ):
            issued.private_key_and_cert_chain_pem.write_to_path(path)
        return made


@contextmanager
def gate(
    target: str,
    *,
    certificates: Certificates | None = None,
    asks_for_certificate: bool = False,
    credentials: tuple[str, str] | None = None,
) -> Iterator[str]:
    """Open a gate; gives its address, with the path of the target's.

    Args:
        target: The address of what is behind it.
        certificates: With them it speaks TLS alone.
        asks_for_certificate: Whether a client must show a certificate of the same authority.
        credentials: Name and password that it demands (HTTP basic authentication); 401 without.
    """
    origin, path = _split(target)
    demanded = None if credentials is None else f"Basic {b64encode(':'.join(credentials).encode()).decode()}"

    class PassingOn(Handler):
        def do_GET(self) -> None:  # noqa: N802 - named by http.server
            if demanded is not None and self.headers.get("authorization") != demanded:
                self.answer(401, b'{"error_code": 40101, "message": "Unauthorized"}')
                return
            asked = Request(origin + self.path, method=self.command, data=self.body() or None)
            asked.add_header("content-type", self.headers.get("content-type", "application/json"))
            try:
                with urlopen(asked, timeout=SECONDS) as answer:
                    self.answer(answer.status, answer.read())
            except HTTPError as refusal:
                self.answer(refusal.code, refusal.read())

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    context = None if certificates is None else _context(certificates, asks_for_certificate=asks_for_certificate)
    with serving(PassingOn, context) as port:
        yield f"{'https' if certificates else 'http'}://{LOOPBACK}:{port}{path}"


def _split(address: str) -> tuple[str, str]:
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}", slash + path


def _context(certificates: Certificates, *, asks_for_certificate: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.authority)
    context.load_cert_chain(certificates.server)
    context.verify_mode = ssl.CERT_REQUIRED if asks_for_certificate else ssl.CERT_NONE
    return context
