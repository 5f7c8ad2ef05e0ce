"""The guard of the operations listener: what the request says of its host opens no page."""

import pytest
from fastapi import Request
from starlette.datastructures import URL

from connector.operations.guard import Guard
from connector.operations.guesses import Guesses
from connector.operations.sessions import Sessions


async def asked(path: str, host: bytes) -> list[int]:
    """The statuses of one request without a session; 200 where the application is asked."""
    statuses: list[int] = []

    async def application(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(event):
        statuses.extend([event["status"]] if "status" in event else [])

    scope = {"type": "http", "method": "GET", "scheme": "http", "path": path, "query_string": b"", "server": ("x", 80)}
    await Guard(application, Sessions("token"), Guesses(), on_loopback=False)(
        scope | {"headers": [(b"host", host)]}, lambda: None, send
    )
    return statuses


@pytest.mark.parametrize("host", [b"x", b"x/console/login?", b"x/console/static/", b"x/console/login#"])
async def test_a_host_that_looks_like_the_login_opens_no_other_page(host, monkeypatch):
    """Starlette before 1.0.1 puts the address together as text, and reads the path back from it."""
    url = property(lambda request: URL(f"http://{request.headers['host']}{request.scope['path']}"))
    monkeypatch.setattr(Request, "url", url)

    assert await asked("/console/settings", host) == [303]
    assert await asked("/console/login", host) == [200]
