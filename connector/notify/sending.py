"""Sends one text to one URL by Apprise, and distinguishes what may succeed later from what never will."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from connector.errors import ConfigurationError, missing_extra
from connector.notify.rules import ADDRESS, Target

_STATUS: Final = re.compile(r"error=(\d{3})\b")
_LATER: Final = frozenset({408, 425, 429})
"""HTTP statuses below 500 after which another attempt may succeed."""

_CLIENT_ERRORS: Final = range(400, 500)
_CODES: Final = {"errcode": "", "StatusCode": "feishu", "code": "feishu"}
"""Where a platform that answers 200 says that it has refused, and where in its URL to know it by; "" is anywhere."""

_APP: Final = "WeDa"
_MAX_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a text was not sent, and whether another attempt can help."""

    reason: str
    is_final: bool


Send = Callable[[Target, str, str, str], Failed | None]
"""Sends to a target, at an address, with a title, a text; gives None where the platform has taken it. Blocking."""


class Apprise:
    """Sends by the package `apprise`.

    Raises:
        ConfigurationError: The package is not installed.
    """

    def __init__(self) -> None:
        try:
            import apprise  # noqa: PLC0415 - an extra
            import requests  # noqa: PLC0415 - Apprise's own
        except ImportError as error:
            raise missing_extra("notify: Apprise", "notify") from error
        self._apprise: Any = apprise
        self._answers = _Answers(requests.Session)

    def check(self, name: str, target: Target, address: str) -> None:
        """Raise where a target's URL, with this address in it, is none that Apprise knows.

        Raises:
            ConfigurationError: The message names the target.
        """
        if self._service(target, address) is None:
            raise ConfigurationError(f"target {name}: url: no URL that Apprise can send to (its text is not shown)")

    def __call__(self, target: Target, address: str, title: str, text: str) -> Failed | None:
        """See `Send`."""
        service = self._service(target, address)
        if service is None:
            return Failed("the URL with this address is none that Apprise can send to", is_final=True)
        sender = self._apprise.Apprise(asset=self._asset())
        sender.add(service)
        with self._answers.watched() as answers:
            result = sender.notify(body=text, title=title, body_format=target.format)
        if not result:
            return _failure([entry.message for one in result for attempt in one for entry in attempt], answers)
        refusals = [refusal for answer in answers if (refusal := _refusal(answer))]
        return Failed(refusals[0], is_final=False) if refusals else None

    def _service(self, target: Target, address: str) -> Any:
        url = (target.url or "").replace(ADDRESS, quote(address, safe=""))
        return self._apprise.Apprise.instantiate(url, asset=self._asset())

    def _asset(self) -> Any:
        return self._apprise.AppriseAsset(app_id=_APP, app_desc=_APP)


class _Answers:
    """The HTTP answers that come meanwhile: Apprise takes each 200 for a success, whatever its body says.

    Apprise sends in a thread of its own, to which it hands the context.
    """

    def __init__(self, session: Any) -> None:
        self._seen: ContextVar[list[Any] | None] = ContextVar("answers", default=None)
        send = session.send

        def watch(own: Any, request: Any, **how: Any) -> Any:
            answer = send(own, request, **how)
            if (seen := self._seen.get()) is not None:
                seen.append(answer)
            return answer

        session.send = watch

    @contextmanager
    def watched(self) -> Iterator[list[Any]]:
        """The answers that come within."""
        answers: list[Any] = []
        before = self._seen.set(answers)
        try:
            yield answers
        finally:
            self._seen.reset(before)


def _failure(messages: list[str], answers: list[Any]) -> Failed:
    statuses = [answer.status_code for answer in answers if answer.status_code >= _CLIENT_ERRORS.start]
    statuses = statuses or [int(found[1]) for message in messages if (found := _STATUS.search(message))]
    said = "; ".join(messages) or "Apprise does not say why"
    is_final = bool(statuses) and all(each in _CLIENT_ERRORS and each not in _LATER for each in statuses)
    return Failed(" ".join(said.split())[:_MAX_CHARS], is_final=is_final)


def _refusal(answer: Any) -> str | None:
    """What a platform says in an answer of status 200 that is none of success, such as 45009 for too many."""
    try:
        reply = answer.json()
    except ValueError:
        return None
    if not isinstance(reply, dict):
        return None
    for name, place in _CODES.items():
        code = reply.get(name)
        if isinstance(code, int) and code != 0 and place in answer.url:
            return f"the platform refused it: {name} {code} {reply.get('errmsg') or reply.get('msg') or ''}"[
                :_MAX_CHARS
            ]
    return None
