"""The guard of the operations listener: what the request says of its host opens no page."""

import asyncio
from itertools import islice

import pytest
from fastapi import Request
from starlette.datastructures import URL

from connector.admin.doctor import examine
from connector.operations.guard import Guard
from connector.operations.sessions import Sessions
from connector.operations.token_throttle import MAX_ANSWERS_PER_SECOND, MIN_DELAY_SECONDS, TokenThrottle
from connector.settings import Settings, is_loopback


async def asked(path: str, host: bytes) -> list[int]:
    """The statuses of one request without a session; 200 where the application is asked."""
    statuses: list[int] = []

    async def application(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(event):
        statuses.extend([event["status"]] if "status" in event else [])

    scope = {"type": "http", "method": "GET", "scheme": "http", "path": path, "query_string": b"", "server": ("x", 80)}
    await Guard(application, Sessions("token"), TokenThrottle(), on_loopback=False)(
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
    assert await asked("/", host) == [200], "it leads to the console, which asks for the session"


async def answered(
    *,
    token: str | None,
    path: str = "/api/status",
    method: str = "GET",
    counted: list[str] | None = None,
    **headers: str,
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of one request; of ``headers``, underscores are hyphens."""
    events: list[dict] = []

    async def application(scope, _receive, send):
        assert scope["method"] == "GET", "what lies behind has no HEAD of its own"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(event):
        events.append(event)

    guard = Guard(application, Sessions(token), TokenThrottle((counted or []).append), on_loopback=True)
    given = [
        (name.replace("_", "-").encode(), value.encode()) for name, value in ({"host": "localhost"} | headers).items()
    ]
    scope = {"type": "http", "method": method, "scheme": "http", "path": path, "query_string": b"", "headers": given}
    await guard(scope | {"client": ("203.0.113.9", 1)}, lambda: None, send)
    body = b"".join(event.get("body", b"") for event in events)
    return events[0]["status"], dict(events[0]["headers"]), body


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz", "/api/status", "/console/"])
async def test_head_is_there_wherever_get_is(path):
    assert (await answered(token=None, path=path, method="HEAD"))[::2] == (200, b"")
    assert (await answered(token=None, path=path, method="HEAD"))[1][b"content-length"] == b"2"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec_fetch_site": "none"}, 200),
        ({"sec_fetch_site": "same-origin", "origin": "http://localhost:9464"}, 200),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://other.example"}, 403),
        ({"host": "other.example"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/api/status", "/console/instances"])
async def test_without_a_token_no_other_site_reaches_it(headers, status, path):
    assert (await answered(token=None, path=path, **headers))[0] == status


async def test_browsers_name_themselves_to_our_own_forms():
    """With no-referrer, Chromium sends "Origin: null" with every form of ours, which is refused for good reason."""
    assert (await answered(token=None))[1][b"referrer-policy"] == b"same-origin"


async def test_wrong_tokens_are_counted_and_slowed_down_and_a_right_one_is_not():
    counted: list[str] = [""]
    throttle = TokenThrottle(counted.append)
    guard_of = Guard(None, Sessions("right"), throttle, on_loopback=True)  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()

    async def refused(given: bytes):
        return await guard_of._rejection({"client": ("203.0.113.9", 1)}, {b"authorization": b"Bearer " + given})

    began = loop.time()
    assert await refused(b"right") is None
    assert (await guard_of._rejection({}, {}))[0] == 401
    assert loop.time() - began < MIN_DELAY_SECONDS
    assert {status for status, _ in await asyncio.gather(*(refused(b"wrong") for _ in range(15)))} == {401}
    assert loop.time() - began >= 14 / MAX_ANSWERS_PER_SECOND
    assert counted[1:] == ["missing", *["unknown"] * 15]


def test_a_session_ends_where_it_was_begun():
    sessions = Sessions("token")
    one, other = sessions.begin("token"), sessions.begin("token")
    assert sessions.is_valid(one)
    assert sessions.is_valid(other)

    sessions.end(one)

    assert not sessions.is_valid(one)
    assert sessions.is_valid(other)
    assert not Sessions("token").is_valid(other), "a restart ends all"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.2", "::1"])
def test_every_part_takes_the_same_addresses_for_this_machine(host):
    assert is_loopback(host)
    settings = Settings.load(environment={"WEDA_OPERATIONS__HOST": host})
    first_checks = [finding.check for finding in islice(examine(settings), 2)]
    assert first_checks == ["credentials", "brokers"], "no warning of a listener without a token"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "kafka", ""])
def test_other_addresses_are_not_this_machine(host):
    assert not is_loopback(host)
