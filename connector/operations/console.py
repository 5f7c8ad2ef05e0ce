"""The console: server-rendered pages, without a build step and without files from another host.

Every page works without JavaScript; with it, live parts refresh automatically. Pages that show contents of messages
need the token; a session is a signed cookie, and forms carry a CSRF token.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache, partial
from importlib import resources
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context, select_autoescape
from jinja2.runtime import Context as TemplateContext
from markupsafe import Markup, escape

from connector import endpoints
from connector.clock import now_ms
from connector.errors import ConnectorError, OutsideUnreachable, Unavailable
from connector.intake.dead_letters import DeadLetter, Selection
from connector.intake.reprocessing import MAX_ATTEMPTS
from connector.kafka.topics import Broker, TopicOffsets, TopicState
from connector.lookup import timeline
from connector.lookup.fixes import fix_of
from connector.lookup.instances import figures
from connector.lookup.instances import find as find_instances
from connector.lookup.model import Coverage, SearchReport
from connector.message.events import MAX_IDENTIFIER_CHARS
from connector.message.weda import TEMPLATE
from connector.operations import api_docs, cards, charts, formats, pictures
from connector.operations.api import find
from connector.operations.context import Context
from connector.operations.diagnosis import diagnose
from connector.operations.history import P50, P99, Point
from connector.operations.search import search
from connector.operations.sessions import COOKIE, SESSION_SECONDS, Sessions
from connector.operations.token_throttle import TokenThrottle
from connector.operations.translations import LANGUAGES, language_of, meaning, problem, translated
from connector.telemetry.health import Health
from connector.text import CUT, cut, duration, size, visible
from connector.values import DEFAULT_SOURCE

ROOT: Final = "/console/"
LOGIN: Final = f"{ROOT}login"
DOCUMENTS: Final = "/api/docs"
"""The API's documentation for clients that have the token but no session."""

_OPENAPI: Final = "/api/openapi.json"

PAGES: Final = (
    ("", "Overview"),
    ("instances", "Instances"),
    ("events", "Events"),
    ("business", "Processes"),
    ("requests", "Requests"),
    ("dead-letters", "Dead letters"),
    ("topics", "Topics"),
    ("settings", "Settings"),
)
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
"""Headers of every page, in addition to those that `connector.operations.guard` sets on every answer."""

_OWN_FILES: Final = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}
_STATIC_FILES: Final = {**_OWN_FILES, **api_docs.ASSETS}
_LANGUAGE_COOKIE: Final = "weda_language"
_YEAR_SECONDS: Final = 365 * 24 * 3600
_MAX_FORM_BYTES: Final = 16 * 1024
_MAX_LETTERS: Final = 50
_INT64_DIGITS: Final = len(str(2**63))
_MAX_BODY_BYTES: Final = 64 * 1024
"""How much of its body the page of one dead letter shows, as received; formatted, as many characters."""

_PLAIN: Final = "text/plain; charset=utf-8"
_FILTERS: Final = ("code", "stage", "source", "instance", "reason", "place")
_MAX_EVENTS: Final = 100
_MAX_INSTANCES: Final = 50
_MAX_GROUPS: Final = 5
_MAX_TERM_CHARS: Final = 200
_RANGES_MILLISECONDS: Final[Mapping[str, int]] = {
    "15m": 900_000,
    "2h": 7_200_000,
    "24h": 86_400_000,
    "48h": 172_800_000,
}
_MAX_SETUP_REQUESTS: Final = 3
_UNREACHABLE: Final = "Kafka does not answer: what is in its topics cannot be shown now."


class _OneLetter(Selection):
    """Selects the dead letter at one topic, partition and offset."""

    place: tuple[str, int, int]

    def matches(self, letter: DeadLetter) -> bool:
        return self.place == (letter.topic, letter.partition, letter.offset) and super().matches(letter)


class PageError(Exception):
    """A page cannot be shown; carries the status and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def is_public(path: str) -> bool:
    """Whether a page needs no session: the login, its static files, and ``/``, which only redirects to the console."""
    return path in {"/", LOGIN} or path.startswith(f"{ROOT}static/")


def to_login(request: Request) -> Response:
    """Redirect a browser without a session to the login."""
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"{LOGIN}?next={quote(target, safe='')}", 303)


def router(context: Context, sessions: Sessions, throttle: TokenThrottle) -> APIRouter:
    """Create the routes of the pages."""
    pages = APIRouter(include_in_schema=False)
    console = _Console(context, sessions, throttle)
    for path, page in (
        ("", console.overview),
        ("events", console.events),
        ("instances", console.instances),
        ("business", console.business),
        ("requests", console.requests),
        ("setup", console.setup),
        ("dead-letters", console.letters),
        ("dead-letters/{topic}/{partition}/{offset}", console.letter),
        ("dead-letters/{topic}/{partition}/{offset}/body", console.letter_body),
        ("records/{topic}/{partition}/{offset}", console.record),
        ("requests/{source}/{received_at}", console.request_bodies),
        ("replays", console.replays),
        ("topics", console.topics),
        ("settings", console.settings),
        ("api", console.api),
        ("openapi.json", console.openapi),
        ("login", console.login_form),
        ("static/{name}", _static),
        ("{other:path}", _missing),  # matches every path, so it comes last
    ):
        pages.add_api_route(f"{ROOT}{path}", _with_error_page(page, console), methods=["GET"])
    pages.add_api_route(DOCUMENTS, _with_error_page(console.api, console), methods=["GET"])
    for path, act in (
        ("login", console.login),
        ("logout", console.logout),
        ("replays", console.replay),
        ("replays/stop", console.stop),
    ):
        pages.add_api_route(f"{ROOT}{path}", _with_error_page(act, console), methods=["POST"])
    return pages


def _with_error_page(
    page: Callable[[Request], Awaitable[Response]], console: "_Console"
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a page: an error becomes a page that explains it, and every answer carries the security headers."""

    async def guarded(request: Request) -> Response:
        try:
            response = await page(request)
        except PageError as error:
            response = await console.page(request, "problem.html", status=error.status, why=error.reason, detail="")
        except OutsideUnreachable as error:
            response = await console.page(request, "problem.html", status=503, why=_UNREACHABLE, detail=error.message)
        except ConnectorError as error:
            response = await console.page(request, "problem.html", status=503, why=error.message, detail="")
        # Only defaults: the API's documentation has a policy of its own, for its inline script.
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.query_params.get("lang") in LANGUAGES:
            response.set_cookie(
                _LANGUAGE_COOKIE,
                request.query_params["lang"],
                _YEAR_SECONDS,
                path=ROOT,
                samesite="strict",
                httponly=True,
            )
        return response

    return guarded


class _Console:
    """The pages of one connector."""

    def __init__(self, context: Context, sessions: Sessions, throttle: TokenThrottle) -> None:
        self._context = context
        self._sessions = sessions
        self._throttle = throttle
        self._zone = ZoneInfo(context.settings().timezone)
        # When topics were looked at last, on the monotonic clock, and how many records each had then.
        self._written: tuple[float, dict[str, int]] = 0.0, {}

    async def overview(self, request: Request) -> Response:
        """The state now, and charts of the past."""
        context = self._context
        # A copy: the page is rendered in a thread while the event loop goes on changing the original.
        history, health = context.history, replace(context.health, problems=dict(context.health.problems))
        chosen = request.query_params.get("range", "")
        chosen = chosen if chosen in _RANGES_MILLISECONDS else next(iter(_RANGES_MILLISECONDS))
        milliseconds = _RANGES_MILLISECONDS[chosen]
        now, points, outages = now_ms(), history.points(milliseconds), history.outages(milliseconds)
        drawn = await asyncio.to_thread(
            charts.draw, points, outages, (_begin(points, now - milliseconds), now), self._zone
        )
        return await self.page(
            request,
            "overview.html",
            health=health,
            verdict=cards.verdict(health),
            rate=history.rate(),
            charts=drawn,
            size=(charts.WIDTH, charts.HEIGHT),
            outages=list(reversed(outages)),
            ranges=list(_RANGES_MILLISECONDS),
            range=chosen,
            p50=history.quantile(P50),
            p99=history.quantile(P99),
            totals=history.totals(),
            share=min((health.journal_bytes or 0) / health.journal_limit_bytes, 1.0),
        )

    async def events(self, request: Request) -> Response:
        """The events accepted last."""
        terms = _terms(request, ("process", "person", "action"))
        recent = self._context.recent
        # recent.latest() is a copy for the thread: the event loop adds to the original.
        latest = recent.latest()
        event_cards = await asyncio.to_thread(lambda: [cards.event_card(event) for event in recent.read(latest)])
        shown = [card for card in event_cards if cards.is_wanted(card, terms)][:_MAX_EVENTS]
        return await self.page(request, "events.html", events=shown, asked=terms, total=len(event_cards))

    async def instances(self, request: Request) -> Response:
        """One instance, or the instances that match a text, or those that changed last."""
        if "id" in request.query_params:
            return await self._instance(request)
        text = request.query_params.get("q", "").strip()[:_MAX_TERM_CHARS]
        view = await self._context.catalog_view()
        matches = await asyncio.to_thread(find_instances, view.instances, text, _MAX_INSTANCES)
        if text and not matches:
            # The page of one instance searches the journal and the dead letters, too, and finds the ids of messages.
            return RedirectResponse(f"{ROOT}instances?{urlencode({'id': text})}", 303)
        return await self.page(request, "instances.html", text=text, found=matches, known=view, now=now_ms())

    async def _instance(self, request: Request) -> Response:
        """The timeline of one instance with its waiting messages and dead letters, or other matches of the text."""
        text = request.query_params.get("id", "").strip()[:MAX_IDENTIFIER_CHARS]
        first = request.query_params.get("from", "")
        is_everywhere = "all" in request.query_params
        history, report, unreached = timeline.Timeline([], 0, None), SearchReport(text), ""
        searched: list[Coverage] = []
        if text:
            start = int(first) if _is_number(first) else 0
            seen = self._context.recent.seen(text)  # the text may be the id of a request
            instance_id = text if seen is None or seen.instance_id is None else seen.instance_id
            try:
                history, searched = await self._context.read(
                    lambda reader: reader.timeline(instance_id, start, all_partitions=is_everywhere)
                )
            except OutsideUnreachable as error:
                unreached = error.message
            # The timeline has just read this instance's records: its topics need no second search.
            report = await search(self._context, text, with_records=not history.steps)
            if history.steps:
                report.add([], searched)
        now, instance = now_ms(), history.instance
        return await self.page(
            request,
            "instance.html",
            status=503 if unreached else 200,
            id=text,
            found=history,
            steps=history.steps,
            instance=instance,
            now=now,
            waits=None if instance is None else pictures.waits(instance, now, self._zone),
            drawing=pictures.drawing(history.steps),
            report=report,
            unreached=unreached,
            is_whole=all(coverage.is_whole for coverage in searched),
            why=_UNREACHABLE,
            is_everywhere=is_everywhere,
        )

    async def business(self, request: Request) -> Response:
        """How long processes and nodes take, what is sent back, and whom instances wait for."""
        view = await self._context.catalog_view()
        numbers = await asyncio.to_thread(figures, view.instances)
        return await self.page(request, "business.html", figures=numbers, known=view, now=now_ms())

    async def record(self, request: Request) -> Response:
        """One record of a topic of events, uncut, as plain text."""
        topic, partition, offset = _offset_in_path(request)
        record = await self._context.read(lambda reader: reader.event(topic, partition, offset))
        if record is None:
            raise PageError(404, "there is no such record, or none any more")
        if isinstance(record.value, bytes):  # no schema of ours reads it
            return Response(record.value, media_type=_PLAIN)
        text = await asyncio.to_thread(json.dumps, record.value, indent=2, ensure_ascii=False)
        return Response(text, media_type=_PLAIN)

    async def requests(self, request: Request) -> Response:
        """The last requests of a source, as received."""
        names = list(self._context.settings().sources)
        source = request.query_params.get("source", names[0])
        only_failed = "failed" in request.query_params
        diagnosed = await self._diagnosed(source, only_failed=only_failed)
        return await self.page(
            request,
            "requests.html",
            sources=names,
            source=source,
            only_failed=only_failed,
            found=diagnosed,
            paste=TEMPLATE,
        )

    async def setup(self, request: Request) -> Response:
        """What to enter in WeDa for a source, and its first requests as they arrive."""
        settings = self._context.settings()
        names = list(settings.sources)
        source = request.query_params.get("source", names[0])
        since = request.query_params.get("since", "")
        # The page passes its own `since` on when it refreshes, so that earlier requests stay out of it.
        begun = int(since) if _is_number(since) else now_ms()
        is_default = source == names[0] and source == DEFAULT_SOURCE
        path = endpoints.DELIVER_PATH if is_default else endpoints.path_of(source)
        arrived = [entry for entry in await self._diagnosed(source) if entry[0].received_at >= begun]
        return await self.page(
            request,
            "setup.html",
            sources=names,
            source=source,
            since=begun,
            path=path,
            address=request.query_params.get("address", "").strip().rstrip("/")[:_MAX_TERM_CHARS]
            or "https://connector.example",
            header=endpoints.TOKEN_HEADER,
            found=arrived[:_MAX_SETUP_REQUESTS],
            total=len(arrived),
            paste=TEMPLATE,
        )

    async def _diagnosed(self, source: str, *, only_failed: bool = False) -> list[Any]:
        recent = self._context.recent.requests(source, only_failed=only_failed)
        # In a thread: every body is parsed again.
        return await asyncio.to_thread(
            lambda: [(request, diagnose(request), formats.shown(request.body)) for request in recent]
        )

    async def request_bodies(self, request: Request) -> Response:
        """The bodies of a source's requests of one millisecond, if they are still in memory."""
        source, received_at = (request.path_params[name] for name in ("source", "received_at"))
        recent = self._context.recent.requests(source)
        # Requests have no key of their own: the time of receipt names one, or the few of the same millisecond.
        bodies = [kept.body for kept in recent if str(kept.received_at) == received_at]
        if not bodies:
            raise PageError(404, "this request is not kept any more")
        return Response(b"\n\n".join(bodies), media_type=_PLAIN)

    async def letters(self, request: Request) -> Response:
        """Dead letters by reason."""
        filters = _filters(request.query_params)
        listing = await self._context.letters.listed(_selection(filters), _MAX_LETTERS)
        return await self.page(
            request,
            "letters.html",
            listing=listing,
            causes=cards.causes(listing),
            paste=TEMPLATE,
            filters=filters,
            query=urlencode(filters),
        )

    async def letter(self, request: Request) -> Response:
        """One dead letter with its bytes."""
        letter = await self._letter(request)
        replayed = await self._context.letters.is_reprocessed(letter)
        arrived, read = await asyncio.to_thread(formats.shown, letter.body, _MAX_BODY_BYTES, _MAX_BODY_BYTES)
        return await self.page(
            request,
            "letter.html",
            letter=letter,
            replayed=replayed,
            arrived=arrived,
            read=read,
            is_cut=len(letter.body) > _MAX_BODY_BYTES or read.endswith(CUT),
            hex=formats.hexdump(letter.body),
            fix=fix_of(letter.code, letter.body),
            paste=TEMPLATE,
            filters={"place": f"{letter.topic}/{letter.partition}/{letter.offset}"},
        )

    async def letter_body(self, request: Request) -> Response:
        """The body of one dead letter, byte for byte."""
        # As plain text, with nosniff: a browser must not run what a sender wrote.
        return Response((await self._letter(request)).body, media_type=_PLAIN)

    async def _letter(self, request: Request) -> DeadLetter:
        letter = await find(self._context, *_offset_in_path(request))
        if letter is None:
            raise PageError(404, "there is no such dead letter, or none any more")
        return letter

    async def replay(self, request: Request) -> Response:
        """Do a dry run of reprocessing (to users: a replay), or start it."""
        form = await self._form(request)
        filters = _filters(form)
        selection = _selection(filters)
        if form.get("act") == "replay":
            self._context.letters.start(selection, MAX_ATTEMPTS)
            return RedirectResponse(f"{ROOT}replays", 303)
        dry_run = await self._context.letters.dry_run(selection, MAX_ATTEMPTS)
        return await self.page(
            request, "dry_run.html", progress=dry_run.as_dict(), filters=filters, query=urlencode(filters)
        )

    async def replays(self, request: Request) -> Response:
        """How far the run of reprocessing has come."""
        progress = self._context.letters.progress
        return await self.page(request, "replay.html", progress=progress and progress.as_dict())

    async def stop(self, request: Request) -> Response:
        """Stop the run of reprocessing."""
        await self._form(request)
        await self._context.letters.stop()
        return RedirectResponse(f"{ROOT}replays", 303)

    async def topics(self, request: Request) -> Response:
        """Topics and schemas."""
        context = self._context
        groups = [name.strip() for name in request.query_params.get("groups", "")[:1_000].split(",") if name.strip()]
        groups = groups[:_MAX_GROUPS]
        specs, states, brokers = (
            ((), {}, ()) if context.is_embedded else await context.read(lambda reader: reader.topics())
        )
        silent = [broker for broker in brokers if not broker.answers]
        offsets = await self._offsets(states)
        return await self.page(
            request,
            "topics.html",
            specs=specs,
            states=states,
            verdicts={name: _topic_verdict(state, context.health, silent) for name, state in states.items()},
            in_sync={name: state.smallest_isr({broker.node_id for broker in silent}) for name, state in states.items()},
            offsets=offsets,
            rates=self._rates(offsets),
            groups=groups,
            lags=[(group, await self._lag(group, offsets)) for group in groups if offsets],
            brokers=brokers,
            silent=silent,
            routes=context.routes,
            ids=context.schema_ids,
            schemas={route.schema.name: route.schema for route in context.routes},
        )

    async def _offsets(self, states: dict[str, TopicState]) -> dict[str, TopicOffsets]:
        """Read the offsets of the topics; empty if that fails now, such as while a partition has no leader."""
        if not states:
            return {}
        try:
            return await self._context.read(lambda reader: reader.offsets(states))
        except (OutsideUnreachable, Unavailable):
            return {}

    async def _lag(self, group: str, offsets: Mapping[str, TopicOffsets]) -> dict[str, int]:
        committed = await self._context.read(lambda reader: reader.committed(group))
        lags = {name: topic.lag(name, committed) for name, topic in offsets.items()}
        return {name: lag for name, lag in lags.items() if lag is not None}

    def _rates(self, offsets: Mapping[str, TopicOffsets]) -> dict[str, float]:
        """Return the records a second of each topic since this page was last shown to anybody."""
        before, self._written = (
            self._written,
            (time.monotonic(), {name: topic.written for name, topic in offsets.items()}),
        )
        at, written = before
        seconds = self._written[0] - at
        return {
            name: max(topic.written - written[name], 0) / seconds  # less than before: the topic was created again
            for name, topic in offsets.items()
            if name in written and seconds > 0
        }

    async def settings(self, request: Request) -> Response:
        """The effective settings, secrets redacted."""
        return await self.page(request, "settings.html", settings=self._context.settings().shown().values())

    async def api(self, request: Request) -> Response:
        """Swagger's page of the API; it loads the OpenAPI document from a URL that this client can read."""
        document = _OPENAPI if request.url.path == DOCUMENTS else f"{ROOT}openapi.json"
        return api_docs.page(document, f"{ROOT}static/", f"{ROOT}static/icon.svg")

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI document for a browser with a session."""
        return JSONResponse(request.app.openapi())

    async def login_form(self, request: Request) -> Response:
        """The form for the token."""
        return await self.page(request, "login.html", next=request.query_params.get("next", ROOT), wrong=False)

    async def login(self, request: Request) -> Response:
        """Begin a session."""
        # Without a session there is no form token yet; the Origin is what is left to check.
        form = await _read_form(request)
        self._check_origin(request)
        cookie = self._sessions.begin(form.get("token", ""))
        if cookie is None:
            await self._throttle.wrong("" if request.client is None else request.client.host)
            return await self.page(request, "login.html", status=403, next=form.get("next", ROOT), wrong=True)
        target = form.get("next", ROOT)
        # Only to a page of the console: a link to the login must not lead to another site.
        response = RedirectResponse(target if target.startswith(ROOT) else ROOT, 303)
        response.set_cookie(COOKIE, cookie, SESSION_SECONDS, **_cookie_attributes(request))
        return response

    async def logout(self, request: Request) -> Response:
        """End the session."""
        await self._form(request)
        response = RedirectResponse(LOGIN, 303)
        # The server ends the session, too: a copy of the cookie must not outlive the logout.
        self._sessions.end(request.cookies.get(COOKIE))
        response.delete_cookie(COOKIE, **_cookie_attributes(request))
        return response

    async def page(self, request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
        """Render a page, or only its live part, in a thread, to keep the event loop free."""
        language = language_of(
            request.query_params.get("lang") or request.cookies.get(_LANGUAGE_COOKIE),
            request.headers.get("accept-language"),
        )
        cookie = request.cookies.get(COOKIE)
        common = {
            "t": lambda text: translated(text, language),
            "meaning": lambda code: meaning(code, language),
            "problem": lambda text: problem(text, language),
            "moment": self._moment,
            "language": language,
            "path": request.url.path,
            "pages": PAGES,
            "root": ROOT,
            "base": "fragment.html" if "fragment" in request.query_params else "layout.html",
            "mark": self._sessions.form_token(cookie),
            "has_session": self._sessions.are_needed and self._sessions.is_valid(cookie),
            "is_embedded": self._context.is_embedded,
            "version": self._context.version,
            "zone": self._zone.key,
            "lang_query": urlencode({**_single(request), "lang": "en" if language == "zh" else "zh"}),
        }
        render = _templates().get_template(template).render
        return HTMLResponse(await asyncio.to_thread(render, common | values), status)

    def _moment(self, milliseconds: int) -> str:
        try:
            return datetime.fromtimestamp(milliseconds / 1000, self._zone).strftime("%Y-%m-%d %H:%M:%S")
        except (ValueError, OverflowError, OSError):  # a sender's time whose year no date can have
            return str(milliseconds)

    async def _form(self, request: Request) -> dict[str, str]:
        form = await _read_form(request)
        self._check_origin(request)
        if not self._sessions.is_form_token(request.cookies.get(COOKIE), form.get("mark", "")):
            raise PageError(403, "the form is of another session: go back, load the page again and repeat it")
        return form

    @staticmethod
    def _check_origin(request: Request) -> None:
        # Browsers send an Origin with every POST; clients that send none cannot be steered by another site.
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            raise PageError(403, "the form comes from another site")


async def _missing(_: Request) -> Response:
    raise PageError(404, "there is no such page")


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC_FILES:
        raise PageError(404, "there is no such file")
    headers = {"cache-control": "max-age=3600"}
    return Response(_content(name), media_type=_STATIC_FILES[name], headers=headers)


@cache
def _content(name: str) -> bytes:
    if name in api_docs.ASSETS:
        return api_docs.asset(name)
    return resources.files("connector.operations").joinpath("static", name).read_bytes()


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("connector.operations"),
        autoescape=select_autoescape(default=True),
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": _duration,
        "size": size,
        "beginning": formats.beginning,
        "short": partial(cut, limit=timeline.MAX_TEXT_CHARS),
        "colour": cards.colour_of,
        "exact": escape,
    }
    return environment


@pass_context
def _duration(context: TemplateContext, milliseconds: float | None) -> str:
    return duration(milliseconds, context["language"])


def _visible(value: Any) -> Any:
    """Escape control characters and marks that change the direction of text, in every value that a template writes.

    Senders could use them to disguise text. The filter ``exact`` skips this.
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return visible(value)


def _terms(request: Request, names: tuple[str, ...]) -> dict[str, str]:
    """Return the filters that are set, each cut to a bounded length."""
    terms = {name: request.query_params.get(name, "").strip()[:_MAX_TERM_CHARS] for name in names}
    return {name: text for name, text in terms.items() if text}


def _begin(points: Sequence[Point], earliest: int) -> int:
    """Return where charts begin: at the first point, if later, so that charts of a new connector fill their width."""
    if not points:
        return earliest
    return max(earliest, points[0].at - int(points[0].seconds * 1000))


def _topic_verdict(state: TopicState, health: Health, silent: Collection[Broker]) -> tuple[str, str]:
    """Return a topic's state as a colour and words; if Kafka is down, that comes first."""
    if health.kafka == "down":
        return "bad", "not reached"
    condition = state.condition({broker.node_id for broker in silent})
    if condition == "too few replicas in sync":
        return "bad", "too few replicas in sync: it takes no record now"
    return "good" if condition == "durable" else "fair", condition


def _offset_in_path(request: Request) -> tuple[str, int, int]:
    return _checked_offset(*(request.path_params[name] for name in ("topic", "partition", "offset")))


def _offset_in_form(text: str) -> tuple[str, int, int]:
    """Parse the place of a record in a form: ``topic/partition/offset``."""
    # Padded: a missing part becomes an empty text, which is rejected as not a number.
    topic, partition, offset = [*text.split("/"), "", ""][:3]
    return _checked_offset(topic, partition, offset)


def _checked_offset(topic: str, partition: str, offset: str) -> tuple[str, int, int]:
    if not (_is_number(partition) and _is_number(offset)):
        raise PageError(404, "there is no such place in a topic")
    return topic, int(partition), int(offset)


def _cookie_attributes(request: Request) -> dict[str, Any]:
    """Return the attributes of the session's cookie."""
    # X-Forwarded-Proto may be forged; trusting https is safe, because it only makes the cookie stricter.
    is_https = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", "").strip().lower())
    return {"path": ROOT, "secure": is_https, "httponly": True, "samesite": "strict"}


async def _read_form(request: Request) -> dict[str, str]:
    # Counted while it is read: a chunked body announces no length.
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_FORM_BYTES:
            raise PageError(413, "the form is too large")
    return {name: values[-1] for name, values in parse_qs(body.decode(errors="replace")).items()}


def _single(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.query_params.items() if name not in {"lang", "fragment"}}


def _filters(parameters: Mapping[str, str]) -> dict[str, str]:
    return {name: parameters[name].strip() for name in _FILTERS if parameters.get(name, "").strip()}


def _selection(filters: Mapping[str, str]) -> Selection:
    code = filters.get("code", "")
    if code and not _is_number(code):
        raise PageError(400, "a code is a number such as 42201, or 422 for all that begin so")
    rest = {name: value for name, value in filters.items() if name not in {"code", "place"}}
    selected = {**rest, "codes": (int(code),) if code else ()}
    if "place" not in filters:
        return Selection.model_validate(selected)
    return _OneLetter.model_validate({**selected, "place": _offset_in_form(filters["place"])})


def _is_number(text: str) -> bool:
    """Whether a text is a non-negative number that is certain to fit into 64 bits."""
    return text.isascii() and text.isdecimal() and len(text) < _INT64_DIGITS
