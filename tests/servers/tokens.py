"""A token endpoint for clients (OAuth 2.0, client credentials) over HTTPS, and its keys for those who check tokens."""

import json
import secrets
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from tests.servers.endpoint import Handler, serving
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

    class Endpoint(Handler):
        def do_POST(self) -> None:  # noqa: N802 - named by http.server
            status, reply = service.answer(self.headers.get("authorization"), parse_qs(self.body().decode()))
            self.answer(status, json.dumps(reply).encode())

    class Keys(Handler):
        def do_GET(self) -> None:  # noqa: N802 - named by http.server
            self.answer(200, json.dumps(service.keys.as_dict(private=False)).encode())

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server)
    with ExitStack() as stack:
        service.endpoint = f"https://{LOOPBACK}:{stack.enter_context(serving(Endpoint, context))}/token"
        service.keys_address = f"http://{LOOPBACK}:{stack.enter_context(serving(Keys))}/keys"
        yield service
