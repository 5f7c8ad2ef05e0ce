"""HTTP in: from a request to its bytes and source, and from an outcome to status and ``code``.

A bare ASGI application, and beside it `Receiver.take` for requests that `connector.wire` has whole. The checks stand in
the contract's order: path, method, credential, size, media type, body.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from email.message import Message as MediaType
from functools import cached_property, partial
from http import HTTPStatus
from typing import Any, Final

import msgspec
import structlog

from connector.errors import (
    ConnectorError,
    Defect,
    Malformed,
    Overloaded,
    Refused,
    Rejected,
    TooLarge,
    TooSlow,
    Unauthenticated,
    Unavailable,
    WrongCredential,
    WrongMediaType,
    WrongMethod,
    WrongPath,
)
from connector.intake.pipeline import Accepted, Outcome, Pipeline
from connector.message.conversion import EventSummary
from connector.message.parsing import BodyKind
from connector.receiver.addresses import NOWHERE, ORIGIN, Origin, client_address
from connector.receiver.authentication import Authentication, RefusalDelay
from connector.receiver.head import Head
from connector.receiver.rates import Rates, ReadingRoom
from connector.receiver.signatures import Signature
from connector.receiver.single_use import SingleUse
from connector.telemetry import logs
from connector.telemetry.logs import REQUEST_ID
from connector.telemetry.metrics import Metrics
from connector.telemetry.recent import Recent, RecentRequest
from connector.values import UNKNOWN_SOURCE, Network, Request, SourceName

MAX_URL_BYTES: Final = 8 * 1024
MAX_CONTENT_TYPE: Final = 256
"""Most characters of a Content-Type: reading its parameters takes the square of them."""

BODY_SECONDS: Final = 10.0
"""How long a body may take to arrive."""

_METHODS: Final = ("GET", "POST", "PUT")
_PATH: Final = "/messageDeliver"
_SOURCES: Final = "/sources/"
_DEFAULT_SOURCE: Final = "default"
_KINDS: Final = {
    "": BodyKind.JSON,
    "application/json": BodyKind.JSON,
    "text/plain": BodyKind.JSON,
    "application/octet-stream": BodyKind.JSON,
    "application/x-www-form-urlencoded": BodyKind.FORM,
}
_PROCESS: Final = secrets.token_hex(4)
_NUMBERS: Final = itertools.count(1)
_LAST: Final = b"\r\nconnection: close\r\n\r\n"
_HANG_UP: Final = (b"connection", b"close")
_ACCEPTED_BODY: Final = b'{"code":0}'
_LOG = structlog.get_logger("connector.receiver")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class _ClientGone(Exception):
    """The sender hung up before its body was whole."""


class Receiver:
    """The public listener's ASGI application.

    Args:
        authentication: Which source sent a request.
        pipeline: Makes its message safe.
        metrics: Who counts.
        recent: Who keeps the last requests for people to look at.
        max_body_bytes: Bound of a body.
        max_in_flight: Bound of requests that are being read.
        rates: Bounds of the sources' requests a second.
        single_use: Lets a signed request through once.
        trusted_proxies: Networks of the proxies whose ``X-Forwarded-For`` counts.
        refusal_delay: Holds back the answers to wrong credentials.
    """

    def __init__(
        self,
        authentication: Authentication,
        pipeline: Pipeline,
        metrics: Metrics,
        recent: Recent,
        *,
        max_body_bytes: int,
        max_in_flight: int,
        rates: Rates,
        single_use: SingleUse,
        trusted_proxies: Sequence[Network] = (),
        refusal_delay: RefusalDelay | None = None,
    ) -> None:
        self._authentication = authentication
        self._pipeline = pipeline
        self._metrics = metrics
        self._recent = recent
        self._max_body = max_body_bytes
        self._max_in_flight = max_in_flight
        self._rates = rates
        self._single_use = single_use
        self._trusted_proxies = trusted_proxies
        self._refusal_delay = refusal_delay or RefusalDelay()
        self._room = ReadingRoom()
        self._open_requests = 0
        self.is_closing = False
        self.is_journal_lost = False

    @property
    def is_full(self) -> bool:
        """Whether as many requests are open as may be."""
        return self._open_requests >= self._max_in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of which the body is still to come, or parts of it."""
        if scope["type"] != "http":
            return
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        origin = scope["state"].get(ORIGIN, NOWHERE)
        head = Head(scope["method"], scope["path"], scope["headers"])
        call = Call(head, partial(_set, answered), origin)
        REQUEST_ID.set(call.request_id)
        self._open_requests += 1
        try:
            self._check(call)
            _check_url(scope)
            body = scope["query_string"] if head.method == "GET" else await self._body(head, receive)
            self._hand_over(call, body)
        except (_ClientGone, asyncio.CancelledError):
            self._open_requests -= 1
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the source gets the contract's answer
            self._fail(call, error)
        await (await answered).send(send, call.request_id)

    def take(self, call: "Call", body: bytes) -> None:
        """Answer one request that is whole, now or later."""
        REQUEST_ID.set(call.request_id)
        self._open_requests += 1
        try:
            self._check(call)
            self._check_size(len(body))
            self._hand_over(call, body)
        except Exception as error:  # noqa: BLE001 - whatever it is, the source gets the contract's answer
            self._fail(call, error)

    def _hand_over(self, call: "Call", body: bytes) -> None:
        """To the pipeline, which tells later what became of it."""
        call.size = len(body)
        if call.to_verify is not None:
            call.to_verify.verify(body, self._authentication.secrets_of(call.named))
            self._admit(call)
        kind, content_type = BodyKind.QUERY, ""
        if call.head.method != "GET":
            kind, content_type = _kind_of(call.head), call.head.content_type
        call.body = body
        request = Request(call.source, body, content_type, call.received_at, call.trace)
        if call.to_verify is None:
            done = self._pipeline.accept(request, kind)
        else:
            accept = partial(self._pipeline.accept, request, kind)
            done = self._single_use.once(call.source, call.to_verify, body, accept)
        done.then(partial(self._answer, call))

    def _fail(self, call: "Call", error: Exception) -> None:
        """Answer a request that did not get as far as the pipeline."""
        if isinstance(error, ConnectorError):
            self._answer(call, error)
            return
        _LOG.error("a defect of the connector", exc_info=error)
        self._answer(call, Defect("a defect of the connector"))

    def _answer(self, call: "Call", result: Accepted | ConnectorError) -> None:
        self._open_requests -= 1
        summary = None
        if isinstance(result, ConnectorError):
            _forget_the_way(result)
        else:
            summary = result.summary
        answer = _answer_of(result)
        if isinstance(result, WrongCredential):
            self._metrics.credential_refused(result.reason)
            self._refusal_delay.hold(partial(call.send, answer, call.request_id))
        else:
            call.send(answer, call.request_id)
        self._note(call, answer, summary)
        if call.body is not None:
            self._recent.came(call.source, call.arrived(call.body, answer, summary))

    def _check(self, call: "Call") -> None:
        """What is refused before the body is read."""
        head = call.head
        source = _source_of(head.path)
        if head.method not in _METHODS:
            raise WrongMethod(f"the method is {head.method[:16]}: use POST, PUT or GET")
        head.check_headers()
        token, certificate, signature = head.token, call.origin.certificate, head.signature
        call.named = self._authentication.check(
            source, token, certificate=certificate, signed=signature is not None, address=partial(self._address, call)
        )
        if signature is None or self._authentication.knows(call.named, token, certificate):
            self._admit(call)
        else:
            signature.check_time(time.time())
            call.to_verify = signature
        self._check_open()

    def _address(self, call: "Call") -> str | None:
        return client_address(call.origin.peer, call.head.headers, self._trusted_proxies)

    def _admit(self, call: "Call") -> None:
        """The source is who it says: from here on what it does counts as its own."""
        call.source = call.named
        self._rates.take(call.source)

    def _check_open(self) -> None:
        if self.is_closing:
            raise Unavailable("the connector is shutting down: send it again", retry_after=5)
        if self.is_journal_lost:
            raise Unavailable("the journal's file is no longer at its path: send it again", retry_after=5)
        if self._open_requests > self._max_in_flight:
            raise Overloaded("too many requests are open (WEDA_RECEIVER__MAX_IN_FLIGHT): send it again")
        self._pipeline.check_room()

    async def _body(self, head: Head, receive: Receive) -> bytes:
        declared = head.header(b"content-length")
        if declared.isdigit():
            self._check_size(int(declared))
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self._chunks(receive)
        except TimeoutError as error:
            raise TooSlow(f"the body did not arrive within {BODY_SECONDS:.0f} seconds") from error

    async def _chunks(self, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size = held = 0
        try:
            while True:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise _ClientGone
                chunk = event.get("body", b"")
                size += len(chunk)
                self._check_size(size)
                chunks.append(chunk)
                if not event.get("more_body"):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
                self._room.take(len(chunk))
                held = size
        finally:
            self._room.give_back(held)

    def _check_size(self, size: int) -> None:
        if size > self._max_body:
            raise TooLarge(f"the body is over {self._max_body} bytes (WEDA_RECEIVER__MAX_BODY_BYTES)")

    def _note(self, call: "Call", answer: "Answer", summary: EventSummary | None) -> None:
        """Count the request, and write its canonical line."""
        seconds = time.perf_counter() - call.started
        self._metrics.request_ended(call.source, answer.outcome, seconds)
        on_done: dict[str, Any] = {
            "request_id": call.request_id,
            "source": call.source,
            "outcome": answer.outcome,
            "status": answer.status,
            "code": answer.code,
            "bytes": call.size,
            "seconds": round(seconds, 6),
        }
        if summary is not None:
            on_done["instanceId"] = summary.instance_id
            on_done["msgId"] = summary.message_id
            on_done["processKey"] = summary.process_key
        if answer.error is not None:
            on_done |= {"stage": answer.error.stage, "reason": answer.error.message}
        logs.request(on_done)


class Call:
    """What the receiver knows of one request.

    Args:
        head: What it says before its body.
        send: Called once with the answer and the request's id.
        origin: What its connection says of the sender.

    Attributes:
        request_id: That of its head, or our own.
        trace: The span that it belongs to, as ``traceparent`` names it.
        named: The source that the path names, once it is known to be one.
        source: The same, once it has proven who it is; until then ``unknown``.
        to_verify: The signature that has to prove it, where nothing else does.
    """

    __slots__ = (
        *("body", "head", "named", "origin", "received_at", "request_id", "send", "size", "source", "started"),
        *("to_verify", "trace"),
    )

    def __init__(self, head: Head, send: Callable[["Answer", str], None], origin: Origin) -> None:
        self.head = head
        self.send = send
        self.origin = origin
        self.started = time.perf_counter()
        self.received_at = time.time_ns() // 1_000_000
        self.source: SourceName = UNKNOWN_SOURCE
        self.named: SourceName = UNKNOWN_SOURCE
        self.body: bytes | None = None
        self.size = 0
        self.to_verify: Signature | None = None
        self.trace = head.traceparent
        self.request_id = head.request_id or f"{_PROCESS}-{next(_NUMBERS):x}"

    def arrived(self, body: bytes, answer: "Answer", summary: EventSummary | None) -> RecentRequest:
        """The request for people to look at."""
        head = self.head
        instance_id = None if summary is None else summary.instance_id
        return RecentRequest(
            self.received_at, head.method, head.content_type, body, self.size, answer.code, answer.error, instance_id
        )


class Answer:
    """Status, ``code`` and outcome: the one place where an error becomes an answer.

    Attributes:
        is_last: The connection ends with it: who has no credential pays for each try with a connection.
    """

    def __init__(self, status: int, code: int, outcome: str, body: bytes, *, error: ConnectorError | None) -> None:
        self.status = status
        self.code = code
        self.outcome = outcome
        self.body = body
        self.error = error
        self.is_last = isinstance(error, WrongCredential | Malformed)
        self.headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *_extra_headers(error),
        ]

    def text(self, request_id: str, *, keep_alive: bool) -> bytes:
        """The bytes of the HTTP response, with the id under which the request stands in the log."""
        return b"".join((self._head, request_id.encode(), b"\r\n\r\n" if keep_alive else _LAST, self.body))

    @cached_property
    def _head(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}".encode()]
        lines += [name + b": " + value for name, value in self.headers]
        return b"\r\n".join((*lines, b"x-request-id: "))

    async def send(self, send: Send, request_id: str) -> None:
        """Send it by ASGI."""
        headers = [*self.headers, (b"x-request-id", request_id.encode()), *([_HANG_UP] if self.is_last else [])]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def _set(answered: "asyncio.Future[Answer]", answer: Answer, _request_id: str) -> None:
    """The answer to a request that may be gone meanwhile."""
    if not answered.done():
        answered.set_result(answer)


def _forget_the_way(error: ConnectorError) -> None:
    """Let go of the frames that an error came through: they hold the request, and it would be held by itself."""
    error.__traceback__ = error.__cause__ = error.__context__ = None


def _answer_of(result: Accepted | ConnectorError) -> Answer:
    return _refused(result) if isinstance(result, ConnectorError) else _ACCEPTED[result.outcome]


def _refused(error: ConnectorError) -> Answer:
    body = msgspec.json.encode(
        {"code": error.code, "message": error.message, "stage": error.stage, "retriable": error.retriable}
    )
    return Answer(error.code // 100, error.code, _outcome_of(error), body, error=error)


def _outcome_of(error: ConnectorError) -> str:
    if isinstance(error, Rejected):
        return "rejected"
    if isinstance(error, Refused):
        return "refused"
    return "failed" if isinstance(error, Defect) else "dead_lettered"


def _extra_headers(error: ConnectorError | None) -> list[tuple[bytes, bytes]]:
    if isinstance(error, Refused):
        return [(b"retry-after", str(error.retry_after).encode()), (b"x-weda-outcome", error.outcome.encode())]
    if isinstance(error, WrongMethod):
        return [(b"allow", ", ".join(_METHODS).encode())]
    return [(b"www-authenticate", b"Bearer")] if isinstance(error, Unauthenticated) else []


def _source_of(path: str) -> str:
    """The source that a path names."""
    if path == _PATH:
        return _DEFAULT_SOURCE
    source = path.removeprefix(_SOURCES).removesuffix(_PATH)
    if len(source) + len(_SOURCES) + len(_PATH) != len(path) or not source or "/" in source:
        raise WrongPath(f"no such address: use {_PATH} or {_SOURCES}<source>{_PATH}")
    return source


def _check_url(scope: Scope) -> None:
    if len(scope["raw_path"]) + 1 + len(scope["query_string"]) > MAX_URL_BYTES:
        raise TooLarge(f"the URL is over {MAX_URL_BYTES} bytes: send the message as the body of a POST")


def _kind_of(head: Head) -> BodyKind:
    if head.is_plain_json:
        return BodyKind.JSON
    if head.header(b"content-encoding").lower() not in {"", "identity"}:
        raise WrongMediaType("the body has a Content-Encoding: send it plain")
    text = head.content_type
    if not text:
        return BodyKind.JSON
    if len(text) > MAX_CONTENT_TYPE:
        raise WrongMediaType(f"the Content-Type has more than {MAX_CONTENT_TYPE} characters")
    media_type, charset = _media_type(text)
    if charset not in {"", "utf-8", "utf8"}:
        raise WrongMediaType("the body is declared in another charset: send UTF-8")
    kind = _KINDS.get(media_type)
    if kind is None:
        raise WrongMediaType("use Content-Type: application/json or application/x-www-form-urlencoded")
    return kind


def _media_type(text: str) -> tuple[str, str]:
    """Media type and charset, in lower case."""
    header = MediaType()
    header["content-type"] = text
    return text.partition(";")[0].strip().lower(), str(header.get_param("charset") or "").lower()


_ACCEPTED: Final = {outcome: Answer(200, 0, outcome.value, _ACCEPTED_BODY, error=None) for outcome in Outcome}
