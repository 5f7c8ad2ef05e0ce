"""The console: pages for people, rendered here, without a build step and without another host.

Every page works without JavaScript; with it, what is marked as live renews itself. Contents of messages are behind the
token, sessions in a signed cookie, forms marked against forgery.
"""

import asyncio
import codecs
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from zoneinfo import ZoneInfo

import yaml
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from connector.errors import ConnectorError, OutsideUnreachable, Unreadable
from connector.intake.dead_letters import DeadLetter, Selection
from connector.intake.reprocessing import MOST_ATTEMPTS
from connector.kafka.topics import Broker, TopicState
from connector.message.parsing import load
from connector.message.weda import ENVELOPE, TEMPLATE
from connector.operations import api_docs, timeline
from connector.operations.api import find
from connector.operations.context import Context
from connector.operations.diagnosis import diagnose
from connector.operations.guesses import Guesses
from connector.operations.sessions import COOKIE, SESSION_SECONDS, Sessions
from connector.operations.translations import LANGUAGES, language_of, translated
from connector.telemetry.health import Health
from connector.text import visible

ROOT: Final = "/console/"
LOGIN: Final = f"{ROOT}login"
DOCUMENTS: Final = "/api/docs"
"""The page on the API for those who have the token and no session."""

_OPENAPI: Final = "/api/openapi.json"

PAGES: Final = (
    ("", "Overview"),
    ("events", "Events"),
    ("instances", "Instance"),
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
"""Those of a page; what every answer of the listener carries comes from `connector.operations.guard`."""

_OWN: Final = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}
_STATIC: Final = {**_OWN, **api_docs.ASSETS}
_LANGUAGE: Final = "weda_language"
_YEAR_SECONDS: Final = 365 * 24 * 3600
_MOST_FORM_BYTES: Final = 16 * 1024
_LISTED: Final = 50
_DIGITS: Final = len(str(2**63))
_MOST_REASONS: Final = 100
_ARRIVED_BYTES: Final = 2 * 1024
_READ_CHARACTERS: Final = 4 * 1024
"""What a list of requests shows of each body, as it arrived and as it reads."""

_LETTER_BYTES: Final = 64 * 1024
"""What the page of one dead letter shows of its body; the same in characters as it reads."""

_PLAIN: Final = "text/plain; charset=utf-8"
_FILTERS: Final = ("code", "stage", "source", "instance", "reason")


_EVENTS: Final = 100
_CUT: Final = "…"
_UNREACHABLE: Final = "Kafka does not answer: what is in its topics cannot be shown now."


class Refused(Exception):
    """A page is not shown: the status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def is_open(path: str) -> bool:
    """Whether a page of the console is shown to the client."""
    return path == LOGIN or path.startswith(f"{ROOT}static/")


def to_login(request: Request) -> Response:
    """Send a browser that has no session to the login."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"{LOGIN}?next={quote(wanted, safe='')}", 303)


def router(context: Context, sessions: Sessions, guesses: Guesses) -> APIRouter:
    """The pages."""
    pages = APIRouter(include_in_schema=False)
    console = _Console(context, sessions, guesses)
    for path, page in (
        ("", console.overview),
        ("events", console.events),
        ("instances", console.instance),
        ("requests", console.requests),
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
    ):
        pages.add_api_route(f"{ROOT}{path}", _guarded(page, console), methods=["GET"])
    pages.add_api_route(DOCUMENTS, _guarded(console.api, console), methods=["GET"])
    for path, act in (
        ("login", console.login),
        ("logout", console.logout),
        ("replays", console.replay),
        ("replays/stop", console.stop),
    ):
        pages.add_api_route(f"{ROOT}{path}", _guarded(act, console), methods=["POST"])
    return pages


def _guarded(
    page: Callable[[Request], Awaitable[Response]], console: "_Console"
) -> Callable[[Request], Awaitable[Response]]:
    """The page, or a page that says why there is none; with the headers that keep browsers strict."""

    async def guarded(request: Request) -> Response:
        try:
            response = await page(request)
        except Refused as refused:
            response = await console.page(request, "problem.html", status=refused.status, why=refused.why, detail="")
        except OutsideUnreachable as error:
            response = await console.page(request, "problem.html", status=503, why=_UNREACHABLE, detail=error.message)
        except ConnectorError as error:
            response = await console.page(request, "problem.html", status=503, why=error.message, detail="")
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.query_params.get("lang") in LANGUAGES:
            response.set_cookie(
                _LANGUAGE, request.query_params["lang"], _YEAR_SECONDS, path=ROOT, samesite="strict", httponly=True
            )
        return response

    return guarded


class _Console:
    """The pages of one connector."""

    def __init__(self, context: Context, sessions: Sessions, guesses: Guesses) -> None:
        self._context = context
        self._sessions = sessions
        self._guesses = guesses
        self._zone = ZoneInfo(context.settings()["timezone"])

    async def overview(self, request: Request) -> Response:
        """What matters now."""
        context = self._context
        history, health = context.history, replace(context.health, problems=dict(context.health.problems))
        return await self.page(
            request,
            "overview.html",
            health=health,
            rate=history.rate(),
            chart=_chart(history.accepted()),
            half=history.quantile(0.5),
            most=history.quantile(0.99),
            totals=history.totals(),
            share=min((health.journal_bytes or 0) / health.journal_limit_bytes, 1.0),
        )

    async def events(self, request: Request) -> Response:
        """What was accepted last."""
        recent = self._context.recent
        return await self.page(
            request, "events.html", events=await asyncio.to_thread(recent.read, recent.latest(_EVENTS))
        )

    async def instance(self, request: Request) -> Response:
        """One instance as a timeline."""
        wanted = request.query_params.get("id", "").strip()
        first = request.query_params.get("from", "")
        found = timeline.Timeline([], 0, None)
        if wanted:
            start = int(first) if _is_number(first) else 0
            found = await self._context.read(lambda reader: timeline.read(reader.instance(wanted), start))
        return await self.page(
            request,
            "instance.html",
            id=wanted,
            found=found,
            steps=found.steps,
            drawing=timeline.drawing(found.steps),
            back=timeline.LOOK_BACK,
        )

    async def record(self, request: Request) -> Response:
        """One record of the events as it is, whatever its size."""
        topic, partition, offset = _place(request)
        found = await self._context.read(lambda reader: reader.event(topic, partition, offset))
        if found is None:
            raise Refused(404, "there is no such record, or none any more")
        if isinstance(found.value, bytes):
            return Response(found.value, media_type=_PLAIN)
        text = await asyncio.to_thread(json.dumps, found.value, indent=2, ensure_ascii=False)
        return Response(text, media_type=_PLAIN)

    async def requests(self, request: Request) -> Response:
        """The last requests of a source as they arrived."""
        names = list(self._context.settings()["sources"])
        source = request.query_params.get("source", names[0])
        recent = self._context.recent.requests(source)
        found = await asyncio.to_thread(lambda: [(one, diagnose(one), _shown(one.body)) for one in recent])
        return await self.page(request, "requests.html", sources=names, source=source, found=found, paste=TEMPLATE)

    async def request_bodies(self, request: Request) -> Response:
        """The bodies of the requests of a source that came in one millisecond, as far as they are kept."""
        source, received_at = (request.path_params[name] for name in ("source", "received_at"))
        recent = self._context.recent.requests(source)
        bodies = [one.body for one in recent if str(one.received_at) == received_at]
        if not bodies:
            raise Refused(404, "this request is not kept any more")
        return Response(b"\n\n".join(bodies), media_type=_PLAIN)

    async def letters(self, request: Request) -> Response:
        """Dead letters by reason."""
        filters = _filters(request.query_params)
        listing = await self._context.letters.listed(_selection(filters), _LISTED)
        return await self.page(
            request,
            "letters.html",
            listing=listing,
            reasons=listing.reasons[:_MOST_REASONS],
            filters=filters,
            query=urlencode(filters),
        )

    async def letter(self, request: Request) -> Response:
        """One dead letter with its bytes."""
        found = await self._found(request)
        replayed = await self._context.letters.is_reprocessed(found)
        arrived, read = await asyncio.to_thread(_shown, found.body, _LETTER_BYTES, _LETTER_BYTES)
        return await self.page(
            request,
            "letter.html",
            letter=found,
            replayed=replayed,
            arrived=arrived,
            read=read,
            is_cut=len(found.body) > _LETTER_BYTES or read.endswith(_CUT),
            hex=_hex(found.body),
        )

    async def letter_body(self, request: Request) -> Response:
        """The bytes of one dead letter as they came."""
        return Response((await self._found(request)).body, media_type=_PLAIN)

    async def _found(self, request: Request) -> DeadLetter:
        found = await find(self._context, *_place(request))
        if found is None:
            raise Refused(404, "there is no such dead letter, or none any more")
        return found

    async def replay(self, request: Request) -> Response:
        """Do a dry run of a replay, or start the replay."""
        form = await self._form(request)
        filters = _filters(form)
        selection = _selection(filters)
        if form.get("act") == "replay":
            self._context.letters.start(selection, MOST_ATTEMPTS)
            return RedirectResponse(f"{ROOT}replays", 303)
        dry_run = await self._context.letters.dry_run(selection, MOST_ATTEMPTS)
        return await self.page(
            request, "dry_run.html", progress=dry_run.as_dict(), filters=filters, query=urlencode(filters)
        )

    async def replays(self, request: Request) -> Response:
        """How far the replay has come."""
        progress = self._context.letters.progress
        return await self.page(request, "replay.html", progress=progress and progress.as_dict())

    async def stop(self, request: Request) -> Response:
        """Stop the replay."""
        await self._form(request)
        await self._context.letters.stop()
        return RedirectResponse(f"{ROOT}replays", 303)

    async def topics(self, request: Request) -> Response:
        """Topics and schemas."""
        context = self._context
        specs, states, brokers = (
            ((), {}, ()) if context.is_embedded else await context.read(lambda reader: reader.topics())
        )
        silent = [each for each in brokers if not each.answers]
        verdicts = {name: _topic_verdict(state, context.health, silent) for name, state in states.items()}
        return await self.page(
            request,
            "topics.html",
            specs=specs,
            states=states,
            verdicts=verdicts,
            brokers=brokers,
            silent=silent,
            routes=context.routes,
            ids=context.schema_ids,
            schemas={route.schema.name: route.schema for route in context.routes},
        )

    async def settings(self, request: Request) -> Response:
        """What is in effect, secrets redacted."""
        text = yaml.safe_dump(self._context.settings(), sort_keys=False, allow_unicode=True)
        return await self.page(request, "settings.html", text=text)

    async def api(self, request: Request) -> Response:
        """Swagger's page of the listener's own API; it loads the document where its reader may."""
        document = _OPENAPI if request.url.path == DOCUMENTS else f"{ROOT}openapi.json"
        return api_docs.page(document, f"{ROOT}static/", f"{ROOT}static/icon.svg")

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI document for a browser with a session."""
        return JSONResponse(request.app.openapi())

    async def login_form(self, request: Request) -> Response:
        """Where the token is given."""
        return await self.page(request, "login.html", next=request.query_params.get("next", ROOT), wrong=False)

    async def login(self, request: Request) -> Response:
        """Begin a session."""
        form = await _read_form(request)
        self._check_origin(request)
        cookie = self._sessions.begin(form.get("token", ""))
        if cookie is None:
            await self._guesses.wrong("" if request.client is None else request.client.host)
            return await self.page(request, "login.html", status=403, next=form.get("next", ROOT), wrong=True)
        wanted = form.get("next", ROOT)
        response = RedirectResponse(wanted if wanted.startswith(ROOT) else ROOT, 303)
        response.set_cookie(COOKIE, cookie, SESSION_SECONDS, **_cookie_attributes(request))
        return response

    async def logout(self, request: Request) -> Response:
        """End the session."""
        await self._form(request)
        response = RedirectResponse(LOGIN, 303)
        self._sessions.end(request.cookies.get(COOKIE))
        response.delete_cookie(COOKIE, **_cookie_attributes(request))
        return response

    async def page(self, request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
        """Render a page, or its live part alone, beside the event loop: it has senders to answer."""
        language = language_of(
            request.query_params.get("lang") or request.cookies.get(_LANGUAGE), request.headers.get("accept-language")
        )
        cookie = request.cookies.get(COOKIE)
        common = {
            "t": lambda text: translated(text, language),
            "moment": self._moment,
            "language": language,
            "path": request.url.path,
            "pages": PAGES,
            "root": ROOT,
            "base": "fragment.html" if "fragment" in request.query_params else "layout.html",
            "mark": self._sessions.form_token(cookie),
            "has_session": self._sessions.are_needed and self._sessions.holds(cookie),
            "is_embedded": self._context.is_embedded,
            "version": self._context.version,
            "lang_query": urlencode({**_single(request), "lang": "en" if language == "zh" else "zh"}),
        }
        render = _templates().get_template(template).render
        return HTMLResponse(await asyncio.to_thread(render, common | values), status)

    def _moment(self, milliseconds: int) -> str:
        return datetime.fromtimestamp(milliseconds / 1000, self._zone).strftime("%Y-%m-%d %H:%M:%S")

    async def _form(self, request: Request) -> dict[str, str]:
        form = await _read_form(request)
        self._check_origin(request)
        if not self._sessions.is_form_token(request.cookies.get(COOKIE), form.get("mark", "")):
            raise Refused(403, "the form is of another session: go back, load the page again and repeat it")
        return form

    @staticmethod
    def _check_origin(request: Request) -> None:
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            raise Refused(403, "the form comes from another site")


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC:
        raise Refused(404, "there is no such file")
    headers = {"cache-control": "max-age=3600"}
    return Response(_content(name), media_type=_STATIC[name], headers=headers)


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
        "size": _size,
        "beginning": _beginning,
        "short": timeline.short,
        "exact": escape,
    }
    return environment


def _visible(value: Any) -> Any:
    """What templates write of a value: marks that change the direction of text, and controls, as escapes.

    They come from senders, and would let a text pass for another one. The filter ``exact`` goes around it.
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return visible(value)


def _topic_verdict(state: TopicState, health: Health, silent: Collection[Broker]) -> tuple[str, str]:
    """How a topic is now, in colour and words: the overview's state of Kafka comes first."""
    if health.kafka == "down":
        return "bad", "not reached"
    in_sync = state.fewest_in_sync({each.node_id for each in silent})
    if in_sync < state.min_insync_replicas:
        return "bad", "too few replicas in sync: it takes no record now"
    if in_sync < state.replication_factor:
        return "fair", "replicas are missing"
    return ("good", "durable") if state.is_durable else ("fair", "one broker can lose it")


def _place(request: Request) -> tuple[str, int, int]:
    topic, partition, offset = (request.path_params[name] for name in ("topic", "partition", "offset"))
    if not (_is_number(partition) and _is_number(offset)):
        raise Refused(404, "there is no such place in a topic")
    return topic, int(partition), int(offset)


def _cookie_attributes(request: Request) -> dict[str, Any]:
    """Of the session's cookie. A proxy's word that it speaks TLS is believed: it only makes the cookie stricter."""
    is_https = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", "").strip().lower())
    return {"path": ROOT, "secure": is_https, "httponly": True, "samesite": "strict"}


async def _read_form(request: Request) -> dict[str, str]:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MOST_FORM_BYTES:
            raise Refused(413, "the form is too large")
    return {name: values[-1] for name, values in parse_qs(body.decode(errors="replace")).items()}


def _single(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.query_params.items() if name not in {"lang", "fragment"}}


def _filters(given: Mapping[str, str]) -> dict[str, str]:
    return {name: given[name].strip() for name in _FILTERS if given.get(name, "").strip()}


def _selection(filters: Mapping[str, str]) -> Selection:
    code = filters.get("code", "")
    if code and not _is_number(code):
        raise Refused(400, "a code is a number such as 42201, or 422 for all that begin so")
    rest = {name: value for name, value in filters.items() if name != "code"}
    return Selection(codes=(int(code),) if code else (), **rest)  # type: ignore[arg-type] # text, all of them


def _is_number(text: str) -> bool:
    """Whether it is one that Kafka could have: no more digits than 64 bits hold."""
    return text.isascii() and text.isdecimal() and len(text) < _DIGITS


def _chart(rates: list[float]) -> dict[str, Any]:
    """The points of a line of 300 by 60, and its top."""
    top = max([*rates, 1.0])
    step = 300 / max(len(rates) - 1, 1)
    points = [(round(number * step, 1), round(58 - rate / top * 54, 1)) for number, rate in enumerate(rates)]
    return {"points": " ".join(f"{x},{y}" for x, y in points), "last": points[-1] if points else None, "top": top}


def _duration(milliseconds: float | None) -> str:
    """As people say it: 350 ms, 12 s, 3 min, 2 h 5 min, 4 d 3 h."""
    if milliseconds is None:
        return "–"
    seconds = milliseconds / 1000
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.0f} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if hours < 1:
        return f"{minutes:.0f} min"
    return f"{hours:.0f} h {minutes % 60:.0f} min" if days < 1 else f"{days:.0f} d {hours % 24:.0f} h"


def _size(count: float | None) -> str:
    if count is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:  # noqa: PLR2004 - the next unit
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _shown(body: bytes, most_bytes: int = _ARRIVED_BYTES, most_characters: int = _READ_CHARACTERS) -> tuple[str, str]:
    """The beginning of a body as it arrived and as it reads."""
    return _beginning(body, most_bytes), _read(body, most_characters)


def _beginning(body: bytes, most: int) -> str:
    """The first bytes as text, ended where a character ends."""
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    is_whole = len(body) <= most
    return decoder.decode(body[:most], final=is_whole) + ("" if is_whole else _CUT)


def _read(body: bytes, most: int) -> str:
    """The body as people read it, where it is JSON: indented, what is JSON text inside opened; else nothing.

    It is written until it has so many characters, and no further: what is nested deep indents to many times its size.
    """
    try:
        value = load(body.decode("utf-8-sig"))
        if isinstance(value, dict) and isinstance(value.get(ENVELOPE), str):
            value[ENVELOPE] = load(value[ENVELOPE])
        text, is_whole = _indented(value, most)
    except (ValueError, RecursionError, Unreadable):
        return ""
    return text.encode(errors="backslashreplace").decode() + ("" if is_whole else _CUT)


def _indented(value: Any, most: int) -> tuple[str, bool]:
    parts: list[str] = []
    left = most
    for part in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value):
        parts.append(part[:left])
        left -= len(part)
        if left < 0:
            return "".join(parts), False
    return "".join(parts), True


def _hex(body: bytes, most: int = 256) -> str:
    """The first bytes as hex and text, sixteen a line."""
    lines = []
    for at in range(0, min(len(body), most), 16):
        part = body[at : at + 16]
        text = "".join(chr(one) if 32 <= one < 127 else "." for one in part)  # noqa: PLR2004 - printable ASCII
        lines.append(f"{at:06x}  {part.hex(' '):<47}  {text}")
    return "\n".join(lines)
