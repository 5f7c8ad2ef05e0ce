"""The console: pages for people, rendered here, without a build step and without another host.

Every page works without JavaScript; with it, what is marked as live renews itself. Contents of messages are behind the
token, sessions in a signed cookie, forms marked against forgery.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from zoneinfo import ZoneInfo

import yaml
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from connector.dead_letters import Selection
from connector.errors import ConnectorError, Unreadable
from connector.messages import ENVELOPE, load
from connector.operations import timeline
from connector.operations.desk import Desk
from connector.operations.letters import find
from connector.operations.reference import operations
from connector.operations.sessions import COOKIE, SESSION_SECONDS, Sessions
from connector.operations.shapes import diagnose
from connector.operations.wording import LANGUAGES, language_of, translated
from connector.replay import MOST_ATTEMPTS

ROOT: Final = "/console/"
LOGIN: Final = f"{ROOT}login"
DOCUMENTS: Final = "/api/docs"
"""The page on the API for whoever has the token and no session."""

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

_STATIC: Final = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}
_LANGUAGE: Final = "weda_language"
_YEAR_SECONDS: Final = 365 * 24 * 3600
_MOST_FORM_BYTES: Final = 16 * 1024
_LISTED: Final = 50
_DIGITS: Final = len(str(2**63))
_LOGIN_SECONDS: Final = 0.5
_FILTERS: Final = ("code", "stage", "source", "instance", "reason")


class Refused(Exception):
    """A page is not shown: the status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def is_open(path: str) -> bool:
    """Whether a page of the console is shown to whoever asks."""
    return path == LOGIN or path.startswith(f"{ROOT}static/")


def to_login(request: Request) -> Response:
    """Send a browser that has no session to the login."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"{LOGIN}?next={quote(wanted, safe='')}", 303)


def router(desk: Desk, sessions: Sessions) -> APIRouter:
    """The pages."""
    pages = APIRouter(include_in_schema=False)
    console = _Console(desk, sessions)
    for path, page in (
        ("", console.overview),
        ("events", console.events),
        ("instances", console.instance),
        ("requests", console.requests),
        ("dead-letters", console.letters),
        ("dead-letters/{topic}/{partition}/{offset}", console.letter),
        ("replays", console.replays),
        ("topics", console.topics),
        ("settings", console.settings),
        ("api", console.api),
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
            response = console.page(request, "problem.html", status=refused.status, why=refused.why)
        except ConnectorError as error:
            response = console.page(request, "problem.html", status=503, why=error.message)
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

    def __init__(self, desk: Desk, sessions: Sessions) -> None:
        self._desk = desk
        self._sessions = sessions
        self._zone = ZoneInfo(desk.settings()["timezone"])

    async def overview(self, request: Request) -> Response:
        """What matters now."""
        desk = self._desk
        history, health = desk.history, desk.health
        return self.page(
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
        return self.page(request, "events.html", events=self._desk.recent.events(100))

    async def instance(self, request: Request) -> Response:
        """One instance as a timeline."""
        wanted = request.query_params.get("id", "").strip()
        desk = self._desk
        told = await desk.read(lambda outside: timeline.steps(outside.instance(wanted))) if wanted else []
        return self.page(
            request, "instance.html", id=wanted, steps=told, drawing=timeline.drawing(told), back=timeline.LOOK_BACK
        )

    async def requests(self, request: Request) -> Response:
        """The last requests of a source as they arrived."""
        names = list(self._desk.settings()["sources"])
        source = request.query_params.get("source", names[0])
        found = [(one, diagnose(one)) for one in self._desk.recent.requests(source)]
        return self.page(request, "requests.html", sources=names, source=source, found=found)

    async def letters(self, request: Request) -> Response:
        """Dead letters by reason."""
        filters = _filters(request.query_params)
        listing = await self._desk.letters.listed(_selection(filters), _LISTED)
        return self.page(
            request, "letters.html", listing=listing, filters=filters, query=urlencode(filters), limit=_LISTED
        )

    async def letter(self, request: Request) -> Response:
        """One dead letter with its bytes."""
        topic, partition, offset = (request.path_params[name] for name in ("topic", "partition", "offset"))
        found = None
        if _is_number(partition) and _is_number(offset):
            found = await find(self._desk, topic, int(partition), int(offset))
        if found is None:
            raise Refused(404, "there is no such dead letter, or none any more")
        replayed = await self._desk.letters.is_replayed(found)
        return self.page(request, "letter.html", letter=found, replayed=replayed, hex=_hex(found.body))

    async def replay(self, request: Request) -> Response:
        """Rehearse a replay, or begin it."""
        form = await self._form(request)
        filters = _filters(form)
        selection = _selection(filters)
        if form.get("act") == "replay":
            self._desk.letters.start(selection, MOST_ATTEMPTS)
            return RedirectResponse(f"{ROOT}replays", 303)
        rehearsed = await self._desk.letters.rehearse(selection, MOST_ATTEMPTS)
        return self.page(request, "rehearsal.html", progress=rehearsed, filters=filters, query=urlencode(filters))

    async def replays(self, request: Request) -> Response:
        """How far the replay has come."""
        return self.page(request, "replay.html", progress=self._desk.letters.progress)

    async def stop(self, request: Request) -> Response:
        """Stop the replay."""
        await self._form(request)
        await self._desk.letters.stop()
        return RedirectResponse(f"{ROOT}replays", 303)

    async def topics(self, request: Request) -> Response:
        """Topics and schemas."""
        desk = self._desk
        specs, states = ((), {}) if desk.is_embedded else await desk.read(lambda outside: outside.topics())
        return self.page(
            request,
            "topics.html",
            specs=specs,
            states=states,
            routes=desk.routes,
            ids=desk.schema_ids,
            schemas={route.schema.name: route.schema for route in desk.routes},
        )

    async def settings(self, request: Request) -> Response:
        """What is in effect, secrets redacted."""
        text = yaml.safe_dump(self._desk.settings(), sort_keys=False, allow_unicode=True)
        return self.page(request, "settings.html", text=text)

    async def api(self, request: Request) -> Response:
        """The operations of the listener's own API."""
        return self.page(request, "api.html", operations=operations(request.app.openapi()))

    async def login_form(self, request: Request) -> Response:
        """Where the token is given."""
        return self.page(request, "login.html", next=request.query_params.get("next", ROOT), wrong=False)

    async def login(self, request: Request) -> Response:
        """Begin a session."""
        form = await _read_form(request)
        self._check_origin(request)
        cookie = self._sessions.begin(form.get("token", ""))
        if cookie is None:
            await asyncio.sleep(_LOGIN_SECONDS)
            return self.page(request, "login.html", status=403, next=form.get("next", ROOT), wrong=True)
        wanted = form.get("next", ROOT)
        response = RedirectResponse(wanted if wanted.startswith(ROOT) else ROOT, 303)
        is_secure = request.url.scheme == "https"
        response.set_cookie(
            COOKIE, cookie, SESSION_SECONDS, path=ROOT, secure=is_secure, httponly=True, samesite="strict"
        )
        return response

    async def logout(self, request: Request) -> Response:
        """End the session."""
        await self._form(request)
        response = RedirectResponse(LOGIN, 303)
        response.delete_cookie(COOKIE, path=ROOT)
        return response

    def page(self, request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
        """Render a page, or its live part alone."""
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
            "mark": self._sessions.mark(cookie),
            "has_session": self._sessions.are_needed and self._sessions.holds(cookie),
            "is_embedded": self._desk.is_embedded,
            "version": self._desk.version,
            "lang_query": urlencode({**_single(request), "lang": "en" if language == "zh" else "zh"}),
        }
        return HTMLResponse(_templates().get_template(template).render(common | values), status)

    def _moment(self, milliseconds: int) -> str:
        return datetime.fromtimestamp(milliseconds / 1000, self._zone).strftime("%Y-%m-%d %H:%M:%S")

    async def _form(self, request: Request) -> dict[str, str]:
        form = await _read_form(request)
        self._check_origin(request)
        if not self._sessions.is_mark(request.cookies.get(COOKIE), form.get("mark", "")):
            raise Refused(403, "the form is of another session: go back, load the page again and repeat it")
        return form

    @staticmethod
    def _check_origin(request: Request) -> None:
        origin = request.headers.get("origin")
        if origin not in (None, "null") and urlsplit(origin).netloc != request.headers.get("host"):
            raise Refused(403, "the form comes from another site")


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC:
        raise Refused(404, "there is no such file")
    headers = {"cache-control": "max-age=3600"}
    return Response(_content(name), media_type=_STATIC[name], headers=headers)


@cache
def _content(name: str) -> bytes:
    return resources.files("connector.operations").joinpath("static", name).read_bytes()


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("connector.operations"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": _duration, "size": _size, "text": _text, "read": _read, "asdict": asdict}
    return environment


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


def _text(body: bytes) -> str:
    return body.decode(errors="backslashreplace")


def _read(body: bytes) -> str:
    """The body as people read it, where it is JSON: indented, what is JSON text inside opened; else nothing.

    What is nested deeper than a message may be stays as it is: half a megabyte of it indents to half a gigabyte.
    """
    try:
        value = load(body.decode("utf-8-sig"))
        if isinstance(value, dict) and isinstance(value.get(ENVELOPE), str):
            value[ENVELOPE] = load(value[ENVELOPE])
        return json.dumps(value, indent=2, ensure_ascii=False).encode(errors="backslashreplace").decode()
    except (ValueError, RecursionError, Unreadable):
        return ""


def _hex(body: bytes, most: int = 256) -> str:
    """The first bytes as hex and text, sixteen a line."""
    lines = []
    for at in range(0, min(len(body), most), 16):
        part = body[at : at + 16]
        text = "".join(chr(one) if 32 <= one < 127 else "." for one in part)  # noqa: PLR2004 - printable ASCII
        lines.append(f"{at:06x}  {part.hex(' '):<47}  {text}")
    return "\n".join(lines)
