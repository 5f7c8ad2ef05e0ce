"""FastAPI's Swagger page for the API; the listener itself serves its scripts and styles."""

import base64
import hashlib
import re
from importlib import resources
from typing import Final

from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

ASSETS: Final = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
"""File of Swagger UI that the page loads → its media type."""

_CONTRAST: Final = b"""
.swagger-ui .info .title small pre, .swagger-ui .info .title small { background: #3b4151; color: #fff }
.swagger-ui .info .url, .swagger-ui .info .link { color: #1b5fa8 }
.swagger-ui .json-schema-2020-12-expand-deep-button { color: #3b4151 }
.swagger-ui .opblock.opblock-get .opblock-summary-method { background: #1b5fa8 }
.swagger-ui .opblock.opblock-post .opblock-summary-method { background: #19683f }
.swagger-ui .opblock.opblock-delete .opblock-summary-method { background: #a12a2a }
"""
"""Added to Swagger UI's style, whose grey on white has too little contrast."""

_INLINE_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def page(openapi_url: str, assets_url: str, icon_url: str) -> HTMLResponse:
    """Render the page.

    Args:
        openapi_url: URL of the OpenAPI document.
        assets_url: URL under which :data:`ASSETS` are served; ends with a slash.
        icon_url: URL of the icon.
    """
    response = get_swagger_ui_html(
        openapi_url=openapi_url,
        title="weda-connector API",
        swagger_js_url=f"{assets_url}swagger-ui-bundle.js",
        swagger_css_url=f"{assets_url}swagger-ui.css",
        swagger_favicon_url=icon_url,
        swagger_ui_parameters={"validatorUrl": None},  # else the page asks swagger.io about the document
    )
    # FastAPI sets no language; screen readers need it.
    body = bytes(response.body).replace(b"<html>", b'<html lang="en">', 1)
    return HTMLResponse(body, headers={"content-security-policy": _policy(body)})


def asset(name: str) -> bytes:
    """Return the content of one of :data:`ASSETS`."""
    content = resources.files("fastapi_offline").joinpath("static", name).read_bytes()
    return content + _CONTRAST if name.endswith(".css") else content


def _policy(body: bytes) -> str:
    """Return a content security policy that allows this host and the page's own inline script, by its hash."""
    # The console's policy forbids inline scripts; FastAPI's page starts Swagger UI with one.
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
        for script in _INLINE_SCRIPT.findall(body)
    )
    return (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
