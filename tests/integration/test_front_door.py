"""The front door of a running connector: TLS, certificates, limits and secrets that change while it runs."""

import asyncio
import base64
import json
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import trustme
from yarl import URL

from tests.running import PATIENT_ENVIRONMENT
from tests.servers.ports import LOOPBACK, free_ports
from tests.waiting import PATIENCE_SECONDS, equals, until

BODY = json.dumps({"msgType": "Task", "instanceId": "i-1", "comment": "planted-comment"}).encode()


@dataclass
class Serving:
    """A connector in a process of its own."""

    process: asyncio.subprocess.Process
    url: str
    operations_url: str
    log: Path

    async def post(self, *, tls: ssl.SSLContext | None = None, **headers: str) -> int:
        """The status of one message."""
        address = f"{self.url}/messageDeliver"
        connector = aiohttp.TCPConnector(ssl=tls if tls is not None else True, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(address, data=BODY, headers=headers) as answer,
        ):
            await answer.read()
            return answer.status

    async def until(self, status: int, **headers: str) -> None:
        """Wait until a message with these headers has this status."""
        await until(partial(self.post, **headers), equals(status))

    async def get(self, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.operations_url + path, headers=headers) as answer,
        ):
            return answer.status, await answer.text(), {name.lower(): value for name, value in answer.headers.items()}


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator:
    """Start `weda-connector serve` with an embedded broker."""
    started: list[asyncio.subprocess.Process] = []

    async def serve(*, scheme: str = "http", **settings: str) -> Serving:
        port, operations_port = free_ports(2)
        log = tmp_path / "log"
        known = {
            "WEDA_KAFKA__BOOTSTRAP_SERVERS": "embedded",
            "WEDA_RECEIVER__HOST": LOOPBACK,
            "WEDA_RECEIVER__PORT": str(port),
            "WEDA_OPERATIONS__PORT": str(operations_port),
            "WEDA_JOURNAL__PATH": str(tmp_path / "journal.db"),
            **PATIENT_ENVIRONMENT,
        }
        environment = ["env", *(f"{name}={text}" for name, text in (known | settings).items())]
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *environment, sys.executable, "-m", "connector", "serve", stderr=errors
            )
        started.append(process)
        await until(lambda: b"the connector is up" in log.read_bytes() or process.returncode is not None)
        assert process.returncode is None, log.read_text()
        return Serving(process, f"{scheme}://localhost:{port}", f"http://localhost:{operations_port}", log)

    yield serve
    for process in started:
        if process.returncode is None:
            process.terminate()
            await process.wait()


class Authority:
    """Issues certificates, and writes them where a connector looks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.renew()

    def renew(self) -> None:
        """Another authority, and another certificate of the listener by it."""
        self.issuer = trustme.CA()
        self.issuer.cert_pem.write_to_path(self.folder / "ca.pem")
        issued = self.issuer.issue_cert("localhost")
        issued.private_key_pem.write_to_path(self.folder / "key.pem")
        (self.folder / "certificate.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))

    def client(self, name: str | None = None, *, by: trustme.CA | None = None, expired: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.issuer.configure_trust(context)
        if name is not None:
            end = datetime(2021, 1, 1, tzinfo=UTC) if expired else None
            begin = datetime(2020, 1, 1, tzinfo=UTC) if expired else None
            (by or self.issuer).issue_cert(name, not_before=begin, not_after=end).configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def files(authority: Authority) -> dict[str, str]:
    return {
        "WEDA_RECEIVER__TLS_CERTIFICATE": str(authority.folder / "certificate.pem"),
        "WEDA_RECEIVER__TLS_KEY": str(authority.folder / "key.pem"),
    }


def clients_of(authority: Authority, issuer: trustme.CA) -> dict[str, str]:
    """Let the clients of this issuer in; the listener's own certificate stays."""
    issuer.cert_pem.write_to_path(authority.folder / "clients.pem")
    return files(authority)


async def test_a_client_certificate_is_a_credential(serve, authority: Authority):
    sources = {"default": {"certificates": ["hr.example.org"]}, "other": {"certificates": ["other.example.org"]}}
    serving = await serve(
        scheme="https",
        WEDA_SOURCES=json.dumps(sources),
        WEDA_RECEIVER__TLS_CLIENT_CA=str(authority.folder / "ca.pem"),
        **files(authority),
    )

    assert await serving.post(tls=authority.client("hr.example.org")) == 200
    assert await serving.post(tls=authority.client("other.example.org")) == 403
    assert await serving.post(tls=authority.client("nobody.example.org")) == 401
    assert await serving.post(tls=authority.client()) == 401
    for stranger in (
        authority.client("hr.example.org", by=trustme.CA()),
        authority.client("hr.example.org", expired=True),
    ):
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await serving.post(tls=stranger)


async def test_a_new_certificate_of_the_listener_is_taken_without_a_restart(serve, authority: Authority):
    serving = await serve(scheme="https", WEDA_TOKEN="t", **files(authority))
    before = authority.client()
    assert await serving.post(tls=before, authorization="Bearer t") == 200
    authority.renew()
    await until(lambda: unless_refused(serving.post(tls=authority.client(), authorization="Bearer t")), equals(200))

    with pytest.raises(aiohttp.ClientError):
        await serving.post(tls=before, authorization="Bearer t")
    (authority.folder / "certificate.pem").write_text("no certificate")
    await until(partial(serving.get, "/readyz"), lambda answer: "WEDA_RECEIVER__TLS_CERTIFICATE" in answer[1])
    assert await serving.post(tls=authority.client(), authorization="Bearer t") == 200


async def unless_refused(asking: Awaitable[int]) -> int | None:
    """None where the one or the other does not trust the certificate."""
    try:
        return await asking
    except aiohttp.ClientError:
        return None


def resumed(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None]:
    """Send a message over a connection that goes on with a session; gives the answer's begin and the session after."""
    with (
        socket.create_connection((LOOPBACK, port), PATIENCE_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as secured,
    ):
        secured.sendall(b"POST /messageDeliver HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY)
        return secured.recv(12), secured.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_does_not_outlive_the_authority_of_its_certificate(serve, authority: Authority, version):
    """A resumed session brings its certificate along, and nobody verifies that again: once in, in for ever."""
    serving = await serve(
        scheme="https",
        WEDA_SOURCES=json.dumps({"default": {"certificates": ["hr.example.org"]}}),
        WEDA_RECEIVER__TLS_CLIENT_CA=str(authority.folder / "clients.pem"),
        **clients_of(authority, authority.issuer),
    )
    port = int(serving.url.rpartition(":")[2])
    context = authority.client("hr.example.org")
    context.minimum_version = context.maximum_version = version
    answer, session = await asyncio.to_thread(resumed, port, context, None)
    assert (answer, (await asyncio.to_thread(resumed, port, context, session))[0]) == (b"HTTP/1.1 200",) * 2

    another = trustme.CA()
    clients_of(authority, another)
    by_another = authority.client("hr.example.org", by=another)
    await until(lambda: unless_refused(serving.post(tls=by_another)), equals(200))

    with pytest.raises(OSError, match=r"EOF|alert|reset"):
        await asyncio.to_thread(resumed, port, context, session)


async def test_plain_http_and_old_tls_are_not_spoken_on_a_tls_port(serve, authority: Authority):
    serving = await serve(scheme="https", WEDA_TOKEN="t", **files(authority))
    plain = Serving(serving.process, serving.url.replace("https", "http"), "", serving.log)
    with pytest.raises(aiohttp.ClientError):
        await plain.post(authorization="Bearer t")
    old = authority.client()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(aiohttp.ClientError):
        await serving.post(tls=old, authorization="Bearer t")


def write_at_once(path: Path, text: str) -> None:
    """So that nobody reads half of it: reloads are counted."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.rename(path)


async def test_tokens_secrets_and_rates_change_without_a_restart(serve, tmp_path: Path):
    token, sources = tmp_path / "token", tmp_path / "sources.json"
    token.write_text("first\n")
    secret = f"whsec_{base64.b64encode(bytes(32)).decode()}"
    sources.write_text(json.dumps({"hr": {"tokens": ["h-1"]}}))
    serving = await serve(WEDA_TOKEN_FILE=str(token), WEDA_SOURCES_FILE=str(sources))
    assert await serving.post(authorization="Bearer first") == 200

    write_at_once(token, "second\n")
    await serving.until(200, authorization="Bearer second")
    assert await serving.post(authorization="Bearer first") == 401

    changed = {"default": {"secrets": [secret], "rate": 1}, "hr": {"tokens": ["h-2"]}}
    write_at_once(sources, json.dumps(changed))
    await serving.until(429, authorization="Bearer second")

    write_at_once(sources, "no JSON")
    await until(partial(serving.get, "/readyz"), lambda answer: "WEDA_SOURCES_FILE" in answer[1])
    assert await serving.post(authorization="Bearer first") == 401
    metrics = (await serving.get("/metrics"))[1]
    assert 'weda_connector_reloads_total{outcome="failed"} 1.0' in metrics
    assert 'weda_connector_reloads_total{outcome="applied"} 2.0' in metrics


async def test_a_source_is_switched_to_code_only_without_a_restart(serve, tmp_path: Path):
    sources = tmp_path / "sources.json"
    sources.write_text(json.dumps({"default": {"tokens": ["t-1"]}}))
    serving = await serve(WEDA_SOURCES_FILE=str(sources))
    assert await serving.post(authorization="Bearer wrong") == 401

    sources.write_text(json.dumps({"default": {"tokens": ["t-1"], "answers": "code-only"}}))
    await serving.until(200, authorization="Bearer wrong")

    assert await serving.post(authorization="Bearer t-1", **{"content-encoding": "gzip"}) == 200
    metrics = (await serving.get("/metrics"))[1]
    assert 'weda_connector_requests_total{outcome="rejected",source="default"} 1.0' in metrics
    assert (await serving.get("/nowhere"))[0] == 404


async def test_the_tokens_of_one_source_change_in_a_file_of_their_own(serve, tmp_path: Path):
    tokens = tmp_path / "tokens"
    tokens.write_text("h-1\n")
    serving = await serve(WEDA_SOURCES='{"default": {"rate": 1000}}', WEDA_SOURCES__DEFAULT__TOKENS_FILE=str(tokens))
    assert await serving.post(authorization="Bearer h-1") == 200

    tokens.write_text("h-2\nh-1\n")
    await serving.until(200, authorization="Bearer h-2")
    assert await serving.post(authorization="Bearer h-1") == 200
    tokens.write_text("h-2\n")
    await serving.until(401, authorization="Bearer h-1")
    assert await serving.post(authorization="Bearer h-2") == 200


async def test_a_change_that_needs_a_restart_is_named(serve, tmp_path: Path):
    sources = tmp_path / "sources.json"
    sources.write_text(json.dumps({"hr": {"tokens": ["h-1"]}}))
    serving = await serve(WEDA_SOURCES_FILE=str(sources))

    sources.write_text(json.dumps({"hr": {"tokens": ["h-1"]}, "travel": {"tokens": ["t-1"]}}))

    _, reported, _ = await until(partial(serving.get, "/readyz"), lambda answer: "WEDA_SOURCES" in answer[1])
    assert json.loads(reported)["problems"]["restart"].endswith("only after a restart: WEDA_SOURCES")


async def test_beyond_loopback_the_operations_listener_is_closed_without_a_token(serve, tmp_path: Path):
    serving = await serve(WEDA_OPERATIONS__HOST="0.0.0.0")

    assert [(await serving.get(path))[0] for path in ("/metrics", "/livez", "/readyz")] == [200, 200, 200]
    for path in ("/api/status", "/api/config", "/api/docs", "/api/openapi.json", "/console/", "/"):
        status, reported, _ = await serving.get(path)
        assert status == 403
        assert "WEDA_OPERATIONS__TOKEN" in reported


async def test_the_operations_token_opens_and_changes_without_a_restart(serve, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("first")
    serving = await serve(WEDA_OPERATIONS__HOST="0.0.0.0", WEDA_OPERATIONS__TOKEN_FILE=str(token))
    assert (await serving.get("/api/status"))[0] == 401
    assert (await serving.get("/api/status", authorization="Bearer first"))[0] == 200
    token.write_text("second")
    by_second = partial(serving.get, "/api/status", authorization="Bearer second")
    await until(by_second, lambda answer: answer[0] == 200)

    assert (await serving.get("/api/status", authorization="Bearer first"))[0] == 401


async def test_a_browser_is_held_to_the_operations_listener_s_own_pages_and_to_this_machine(serve):
    serving = await serve()

    for path in ("/metrics", "/readyz", "/api/status", "/api/docs", "/nothing"):
        _, _, headers = await serving.get(path)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "server" not in headers
    assert (await serving.get("/api/status"))[0] == 200
    assert (await serving.get("/api/status", host="127.0.0.1:9464"))[0] == 200
    assert (await serving.get("/api/status", host="rebound.example.org"))[0] == 403
    assert (await serving.get("/api/status", origin="https://example.org"))[0] == 403
    assert (await serving.get("/api/status", origin="null"))[0] == 403
    assert (await serving.get("/api/status", origin=serving.operations_url))[0] == 200


async def test_a_slow_head_is_hung_up_on(serve):
    serving = await serve(WEDA_TOKEN="t")
    port = int(serving.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(b"POST /messageDeliver HTTP/1.1\r\n")
    reported = await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
    writer.close()

    assert reported.startswith(b"HTTP/1.1 408 ")
    assert await serving.post(authorization="Bearer t") == 200


@pytest.mark.parametrize("endless", [b"a: b\r\n" * 10_000, b"x" * 65_536], ids=["fields", "one field"])
async def test_a_head_without_an_end_is_not_taken_in_by_the_operations_listener(serve, endless: bytes):
    """Whoever reaches it can send one: 40 MB of header fields took 750 MB of memory."""
    serving = await serve(WEDA_OPERATIONS__TOKEN="t")
    reader, writer = await asyncio.open_connection(LOOPBACK, int(serving.operations_url.rpartition(":")[2]))
    writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\nx-a: ")
    sent = 0
    while not reader.at_eof() and sent < 100_000_000:
        try:
            writer.write(endless)
            await writer.drain()
        except ConnectionError:
            break
        sent += len(endless)
    writer.close()

    assert sent < 40_000_000
    assert (await serving.get("/livez"))[0] == 200


ODD = [
    ("GET", "/api/dead-letters?since=1e400&codes=x&limit=99999999999999999999", b"", {}),
    ("GET", "/api/dead-letters/%2e%2e/99999999999999999999/-1", b"", {}),
    *(
        ("POST", "/api/replays", body, {"content-type": "application/json"})
        for body in (
            b"{",
            b"[" * 100_000,
            b"\xff",
            b'{"max_attempts":NaN}',
            b'{"dry_run":true,"codes":[1e400]}',
            b'{"dry_run":"\\ud800"}',
            b'{"dry_run":true,"\\ud800":"\\ud800"}',
        )
    ),
    ("GET", f"/console/dead-letters?code={'9' * 5000}", b"", {}),
    ("GET", "/console/dead-letters?code=%D9%A3", b"", {}),
    ("GET", f"/console/dead-letters/x/{'9' * 5000}/0", b"", {}),
    ("GET", "/console/dead-letters/x/%C2%B2/1", b"", {}),
    ("GET", "/console/instances?id=%00%ff", b"", {}),
    ("GET", "/console/", b"", {"cookie": "weda_session=a.\xff"}),
    ("GET", "/console/", b"", {"accept-language": "zh;q=1e999,zh;q=nan;" * 500}),
    ("POST", "/console/login", b"token=%ff&next=//x", {"content-type": "application/x-www-form-urlencoded"}),
    ("POST", "/console/login", b"x" * 500_000, {"content-type": "application/x-www-form-urlencoded"}),
]


@pytest.mark.parametrize("token", [None, "planted-operations-token"])
async def test_odd_requests_to_the_operations_listener_are_answered_and_no_defect(token, serve):
    serving = await serve(**({} if token is None else {"WEDA_OPERATIONS__TOKEN": token}))
    statuses = []
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {token}"}) as session:
        for method, path, body, headers in ODD:
            address = URL(serving.operations_url + path, encoded=True)
            async with session.request(method, address, data=body, headers=headers, allow_redirects=False) as answer:
                statuses.append(answer.status)
                text = await answer.text()
            assert "planted" not in text

    assert {status for status in statuses if status >= 500} == set(), statuses
    assert statuses[-1] == 413
    assert '"level":"error"' not in serving.log.read_text()


async def test_a_form_that_does_not_end_is_not_waited_for(serve):
    """The login is open to whoever reaches the listener."""
    serving = await serve(WEDA_OPERATIONS__TOKEN="t")

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 4096
            await asyncio.sleep(0.05)

    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        aiohttp.ClientSession() as session,
        session.post(f"{serving.operations_url}/console/login", data=endless()) as answer,
    ):
        assert answer.status == 413
