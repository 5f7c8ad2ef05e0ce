"""A token endpoint for clients (OAuth 2.0, client credentials) over HTTPS, and its keys for those who check tokens."""

import json
import secrets
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from tests.servers.gate import Certificates
from tests.servers.ports import LOOPBACK

ISSUER = "https://identity.example.org"
AUDIENCE = "kafka"
CLIENT = "connector"


class TokenService:
    """Issues signed tokens; what it issues can be made wrong while it runs.

    Attributes:
        secret: The client's; it may have any characters, some of which must be escaped in a form.
        audience: Whom the next tokens are for.
        lifetime: Seconds that the next tokens are good for; may be negative.
        key: What the next tokens are signed with; `keys` says which are known.
        is_down: Whether it answers 503.
        issued: How many tokens it has issued.
        endpoint: Its address.
        keys_address: Where its public keys are, by plain HTTP.
    """

    def __init__(self) -> None:
        self.secret = secrets.token_urlsafe(24)
        self.audience = AUDIENCE
        self.lifetime = 3600
        self.key = ECKey.generate_key("P-256", {"kid": "first", "use": "sig"})
        self.keys = KeySet([self.key])
        self.is_down = False
        self.issued = 0
        self.endpoint = self.keys_address = ""

    def answer(self, authorization: str | None, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """Status and body of a request for a token."""
        if self.is_down:
            return 503, {"error": "temporarily_unavailable", "error_description": "the endpoint is down"}
        if form.get("grant_type") != ["client_credentials"]:
            return 400, {"error": "unsupported_grant_type"}
        if authorization != f"Basic {b64encode(f'{CLIENT}:{self.secret}'.encode()).decode()}":
            return 401, {"error": "invalid_client", "error_description": "no such client or another secret"}
        self.issued += 1
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": self.audience,
            "sub": CLIENT,
            "scope": " ".join(form.get("scope", [])),
            "iat": now + min(self.lifetime, 0) - 1,
            "exp": now + self.lifetime,
            "jti": str(self.issued),
        }
        token = jwt.encode({"alg": "ES256", "kid": self.key.kid}, claims, self.key)
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}


@contextmanager
def token_service(certificates: Certificates) -> Iterator[TokenService]:
    """Start one."""
    service = TokenService()

    class Endpoint(_Quiet):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
            self.tell(*service.answer(self.headers.get("authorization"), parse_qs(body)))

    class Keys(_Quiet):
        def do_GET(self) -> None:
            self.tell(200, service.keys.as_dict(private=False))

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server)
    with ExitStack() as stack:
        service.endpoint = f"https://{LOOPBACK}:{stack.enter_context(_served(Endpoint, context))}/token"
        service.keys_address = f"http://{LOOPBACK}:{stack.enter_context(_served(Keys))}/keys"
        yield service


class _Quiet(BaseHTTPRequestHandler):
    def tell(self, status: int, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def _served(handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Answer requests on a port, which it gives."""
    with ThreadingHTTPServer((LOOPBACK, 0), handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
