"""Receives requests: checks them, passes them to the pipeline, and turns outcomes into answers.

Each request takes the same steps: `Receiver.accept_head` checks its head, then `Receiver.accept_body` finishes
its authentication with the body and passes it to the pipeline. A connection that has a whole request calls both in
turn; the ASGI application awaits the body in between. The checks are in the order that `docs/openapi.yaml` promises:
path, method (and headers that must be single), credential, rate, capacity, size, time, media type. Of a signed request
the head only shows whether the signature is too old; the signature itself, and the rate of its source, are checked
after size and time of the body.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import structlog

from connector import answers
from connector.answers import Answer, Send
from connector.clock import now_ms
from connector.errors import (
    ConnectorError,
    Defect,
    EmptyBody,
    Overloaded,
    Refused,
    Rejected,
    TooLarge,
    TooSlow,
    Unavailable,
    WrongCredential,
)
from connector.intake.pipeline import Accepted, Pipeline
from connector.message.events import Event
from connector.message.parsing import BodyKind
from connector.receiver.authentication import Authentication, Principal, RejectionDelay
from connector.receiver.client_address import NOWHERE, ORIGIN, Origin, client_address
from connector.receiver.head import Head
from connector.receiver.limits import BodyMemory, RateLimiter
from connector.receiver.replay_protection import ReplayProtection
from connector.telemetry import logs
from connector.telemetry.health import Health
from connector.telemetry.logs import REQUEST_ID
from connector.telemetry.metrics import Metrics
from connector.telemetry.recent import Recent, RecentRequest
from connector.values import UNKNOWN_SOURCE, Network, Request, SourceName

BODY_SECONDS: Final = 10.0
"""How long a body may take to arrive."""

HEALTH: Final = "/healthz"
"""Path of the health check for load balancers, with `GET` or `HEAD` and without a credential."""

# Together they make a request id that is unique among all processes, and cheaper than a random one for each request.
_PROCESS: Final = secrets.token_hex(4)
_NUMBERS: Final = itertools.count(1)
_DEFECT: Final = "a defect of the connector"
_LOG = structlog.get_logger()

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class _ClientGone(Exception):
    """The sender hung up before its body was complete."""


class Call:
    """A request until it is answered.

    Args:
        head: The request's first line and header fields.
        send: Called once, with the answer and the request's id.
        origin: What the connection says about the sender.

    Attributes:
        request_id: The head's ``x-request-id``, or an id that this process made.
        trace: The span that the request belongs to, in the form of ``traceparent``.
        principal: Who sent it, as far as the head tells; None before authentication.
        source: The source once it is proven; ``unknown`` until then.
        body: The body once the request goes to the pipeline: no body of an unknown sender is kept.
        size: Bytes of the body, once it is complete.
        is_code_only: Whether the answer always has HTTP status 200, as the source of the path wants it.
        on_end: Called once, with the answer, or with None if the sender hung up before.
    """

    __slots__ = (
        *("body", "head", "is_code_only", "on_end", "origin", "principal", "received_at", "request_id", "send", "size"),
        *("source", "started", "trace"),
    )

    def __init__(self, head: Head, send: Callable[[Answer, str], None], origin: Origin) -> None:
        self.head = head
        self.send = send
        self.origin = origin
        self.started = time.perf_counter()
        self.received_at = now_ms()
        self.principal: Principal | None = None
        self.source: SourceName = UNKNOWN_SOURCE
        self.body: bytes | None = None
        self.size = 0
        self.trace = head.traceparent
        self.request_id = head.request_id or f"{_PROCESS}-{next(_NUMBERS):x}"
        self.is_code_only = False
        self.on_end: Callable[[Answer | None], None] | None = None

    def answer(self, answer: Answer) -> None:
        """End the request's span, and send the answer."""
        if self.on_end is not None:
            self.on_end(answer)
        self.send(answer, self.request_id)


class Receiver:
    """The public listener's ASGI application.

    Args:
        authentication: Finds out which source sent a request.
        pipeline: Makes messages durable.
        metrics: Counts requests.
        recent: Keeps the latest requests for the console.
        max_body_bytes: Maximum bytes of a body.
        max_in_flight: Maximum open requests.
        rate_limiter: Limits the sources' requests per second.
        replay_protection: Accepts each signed request once.
        health: Knows whether the connector is shutting down or has lost its journal's file, when requests are refused.
        trusted_proxies: Networks of the proxies whose ``X-Forwarded-For`` is believed.
        rejection_delay: Delays the answers to wrong credentials.
        code_only: The sources whose answers always have HTTP status 200.
        on_begin: Called with each request before it is checked; tracing begins the span in it.
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
        rate_limiter: RateLimiter,
        replay_protection: ReplayProtection,
        health: Health,
        trusted_proxies: Sequence[Network] = (),
        rejection_delay: RejectionDelay | None = None,
        code_only: frozenset[str] = frozenset(),
        on_begin: Callable[[Call], None] | None = None,
    ) -> None:
        self._authentication = authentication
        self._pipeline = pipeline
        self._metrics = metrics
        self._recent = recent
        self._max_body = max_body_bytes
        self._max_in_flight = max_in_flight
        self._rate_limiter = rate_limiter
        self._replay_protection = replay_protection
        self._health = health
        self._trusted_proxies = trusted_proxies
        self._rejection_delay = rejection_delay or RejectionDelay()
        self._code_only = code_only
        self._on_begin = on_begin
        self._body_memory = BodyMemory()
        self._open_requests = 0

    def replace_code_only(self, sources: frozenset[str]) -> None:
        """From now on answer these sources, and no others, with HTTP status 200 always."""
        self._code_only = sources

    @property
    def is_full(self) -> bool:
        """Whether the limit of open requests is reached."""
        return self._open_requests >= self._max_in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that does not take the fast path of `connector.receiver.connection`, or a health check."""
        if scope["type"] != "http":
            return
        if scope["path"] == HEALTH and scope["method"] in {"GET", "HEAD"}:
            await (answers.HEALTHY if self._health.is_ready else answers.UNHEALTHY).send(send)
            return
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        head = Head(scope["method"], scope["path"], scope["headers"])
        call = Call(head, partial(_set, answered), scope["state"].get(ORIGIN, NOWHERE))
        if self.accept_head(call):
            try:
                body = await self._body(head, scope, receive)
            except (_ClientGone, asyncio.CancelledError):
                self._abandon(call)
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the source gets the contract's answer
                self._fail(call, error)
            else:
                self.accept_body(call, body)
        await (await answered).send(send, call.request_id)

    def accept_head(self, call: Call) -> bool:
        """Check the head of a request; return False if it is rejected or refused, and its answer on its way."""
        REQUEST_ID.set(call.request_id)
        # Before the check of capacity, which includes this request. `_answer` and `_abandon` end it.
        self._open_requests += 1
        try:
            if self._on_begin is not None:
                self._on_begin(call)
            self._check_head(call)
        except Exception as error:  # noqa: BLE001 - whatever it is, the source gets the contract's answer
            self._fail(call, error)
            return False
        return True

    def accept_body(self, call: Call, body: bytes) -> None:
        """Answer a complete request whose head was accepted, immediately or once its message is safe.

        Args:
            call: The request.
            body: The body; for a GET, the query string.
        """
        try:
            self._pass_on(call, body, self._check_body(call, body))
        except Exception as error:  # noqa: BLE001 - whatever it is, the source gets the contract's answer
            self._fail(call, error)

    # --- the steps of a request ---

    def _check_head(self, call: Call) -> None:
        """Raise the error for which a request is rejected or refused by its head."""
        head, origin = call.head, call.origin
        source = head.source()
        # The answer to HEAD has no body, so only its status can tell the outcome.
        call.is_code_only = source in self._code_only and head.method != "HEAD"
        head.validate()
        call.principal = principal = self._authentication.authenticate(
            source,
            head.token,
            certificate=origin.certificate,
            signature=head.signature,
            address=lambda: client_address(origin.peer, head.headers, self._trusted_proxies),
        )
        if principal.signature is None:
            self._record_source(call, principal)
        self._check_capacity()

    def _check_body(self, call: Call, body: bytes) -> BodyKind:
        """Raise the error for which a request is rejected or refused by its body; return the body's format."""
        if call.head.method != "GET":  # a URL has a limit of its own, see `_body`
            self._check_body_size(len(body))
        call.size = len(body)
        principal = call.principal
        assert principal is not None, "the head is accepted first"  # noqa: S101 - for the type checker
        if principal.signature is not None:
            self._authentication.verify_signature(principal.source, principal.signature, body)
            self._record_source(call, principal)
        return call.head.body_kind()

    def _pass_on(self, call: Call, body: bytes, kind: BodyKind) -> None:
        """Pass a checked request to the pipeline, whose completion answers it."""
        call.body = body
        content_type = "" if kind is BodyKind.QUERY else call.head.content_type
        request = Request(
            call.source, body, content_type, call.received_at, call.trace, request_id=call.head.request_id
        )
        signature = None if call.principal is None else call.principal.signature
        if signature is None:
            done = self._pipeline.accept(request, kind)
        else:
            accept = partial(self._pipeline.accept, request, kind)
            done = self._replay_protection.accept_once(call.source, signature, body, accept)
        done.then(partial(self._answer, call))

    def _record_source(self, call: Call, principal: Principal) -> None:
        """Record the proven source, and count the request against its rate."""
        call.source = principal.source
        self._rate_limiter.acquire(call.source)

    def _check_capacity(self) -> None:
        if self._health.is_closing:
            raise Unavailable("the connector is shutting down: send it again", retry_after=5)
        if self._health.is_journal_lost:
            raise Unavailable("the journal's file is no longer at its path: send it again", retry_after=5)
        if self._open_requests > self._max_in_flight:
            raise Overloaded("too many requests are open (WEDA_RECEIVER__MAX_IN_FLIGHT): send it again")
        self._pipeline.check_capacity()

    # --- bodies of requests by ASGI ---

    async def _body(self, head: Head, scope: Scope, receive: Receive) -> bytes:
        query = scope["query_string"]
        if len(scope["raw_path"]) + 1 + len(query) > answers.MAX_URL_BYTES:
            raise answers.url_too_long()
        if head.method == "GET":
            return bytes(query)
        declared = head.header(b"content-length")
        if declared.isdigit():  # reject a body that is too large before it arrives
            self._check_body_size(int(declared))
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self._read_pieces(receive)
        except TimeoutError as error:
            raise TooSlow(f"the body did not arrive within {BODY_SECONDS:.0f} seconds") from error

    async def _read_pieces(self, receive: Receive) -> bytes:
        pieces: list[bytes] = []
        size = held = 0
        try:
            while True:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise _ClientGone
                piece = event.get("body", b"")
                size += len(piece)
                self._check_body_size(size)
                pieces.append(piece)
                if not event.get("more_body"):  # nothing is reserved for the last piece, which does not wait
                    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
                self._body_memory.acquire(len(piece))
                held = size
        finally:
            self._body_memory.release(held)

    def _check_body_size(self, size: int) -> None:
        if size > self._max_body:
            raise TooLarge(f"the body is over {self._max_body} bytes (WEDA_RECEIVER__MAX_BODY_BYTES)")

    # --- ends ---

    def _abandon(self, call: Call) -> None:
        """End a request whose sender hung up before its body was complete, without an answer and uncounted."""
        self._open_requests -= 1
        if call.on_end is not None:
            call.on_end(None)

    def _fail(self, call: Call, error: Exception) -> None:
        """Answer a request that did not reach the pipeline."""
        if isinstance(error, ConnectorError):
            self._answer(call, error)
            return
        _LOG.error(_DEFECT, exc_info=error)
        self._answer(call, Defect(_DEFECT))

    def _answer(self, call: Call, result: Accepted | ConnectorError) -> None:
        self._open_requests -= 1
        if isinstance(result, ConnectorError):
            _drop_frames(result)
            error, event = result, None
            answer = answers.to_source(result, is_code_only=call.is_code_only)
        else:
            error, event, answer = None, result.event, answers.ACCEPTED
        if isinstance(error, WrongCredential):
            self._metrics.credential_rejected(call.head.source(), error.reason)
            self._rejection_delay.delay(partial(call.answer, answer))
        else:
            call.answer(answer)
        self._count_and_log(call, answer.status, result, event)
        if call.body is not None:
            self._recent.came(call.source, _recent(call, call.body, error, event))

    def _count_and_log(self, call: Call, status: int, result: Accepted | ConnectorError, event: Event | None) -> None:
        """Count a request, and write its line in the log."""
        outcome, seconds = _outcome_of(result), time.perf_counter() - call.started
        self._metrics.request_ended(call.source, outcome, seconds, call.trace)
        line: dict[str, Any] = {
            "request_id": call.request_id,
            "source": call.source,
            "outcome": outcome,
            "status": status,
            "code": result.code if isinstance(result, ConnectorError) else 0,
            "bytes": call.size,
            "seconds": round(seconds, 6),
        }
        if event is not None:
            line["instanceId"] = event.instance_id
            line["msgId"] = event.message_id
            line["processKey"] = event.process_key
        if isinstance(result, ConnectorError):
            line |= {"stage": result.stage, "reason": result.message}
        logs.request(line)


def _set(answered: "asyncio.Future[Answer]", answer: Answer, _request_id: str) -> None:
    """Set the answer to a request, unless its sender has hung up, which cancels the future."""
    if not answered.done():
        answered.set_result(answer)


def _drop_frames(error: ConnectorError) -> None:
    """Drop the frames that an error passed through: they refer to the request, which refers to the error."""
    error.__traceback__ = error.__cause__ = error.__context__ = None


def _outcome_of(result: Accepted | ConnectorError) -> str:
    """The outcome of a request for metrics and log."""
    if isinstance(result, Accepted):
        return result.outcome.value
    if isinstance(result, Rejected | EmptyBody):  # nothing is kept of either
        return "rejected"
    if isinstance(result, Refused):
        return "refused"
    return "failed" if isinstance(result, Defect) else "dead_lettered"


def _recent(call: Call, body: bytes, error: ConnectorError | None, event: Event | None) -> RecentRequest:
    """The record of a request for the console."""
    return RecentRequest(
        call.received_at,
        call.head.method,
        call.head.content_type,
        body,
        call.size,
        0 if error is None else error.code,
        error,
        None if event is None else event.instance_id,
        None if event is None else event.message_id,
        call.request_id,
    )
