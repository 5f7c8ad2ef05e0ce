"""Sends one text to one URL through Apprise, and tells failures that may pass from those that never will."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from connector.errors import ConfigurationError, missing_extra
from connector.notify.rules import ADDRESS, Target

# Apprise's own log entries name the HTTP status like this.
_STATUS: Final = re.compile(r"error=(\d{3})\b")
_TEMPORARY_STATUSES: Final = frozenset({408, 425, 429})
"""HTTP statuses below 500 after which another attempt may succeed."""

_CLIENT_ERRORS: Final = range(400, 500)
_CODE_FIELDS: Final = {"errcode": "", "StatusCode": "feishu", "code": "feishu"}
"""Fields with an error code in answers of status 200 → a part of the URLs of the platform that uses the field."""

_APP: Final = "WeDa"
_MAX_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a text was not sent, and whether that is final: another attempt cannot help."""

    reason: str
    is_final: bool


Send = Callable[[Target, str, str, str], Failed | None]
"""Sends to a target, at an address, a title and a text; returns None if the platform accepted it. Blocking."""


class Apprise:
    """Sends through the package `apprise`.

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
        """Check that Apprise knows a target's URL, with an address in it.

        Raises:
            ConfigurationError: It does not; the message names the target.
        """
        if self._service(target, address) is None:
            raise ConfigurationError(f"target {name}: url: no URL that Apprise can send to (its text is not shown)")

    def __call__(self, target: Target, address: str, title: str, text: str) -> Failed | None:
        """Send a text; see `Send`."""
        service = self._service(target, address)
        if service is None:
            return Failed("the URL with this address is none that Apprise can send to", is_final=True)
        sender = self._apprise.Apprise(asset=self._asset())
        sender.add(service)
        with self._answers.watched() as answers:
            result = sender.notify(body=text, title=title, body_format=target.format)
        if not result:
            messages = [entry.message for service_result in result for attempt in service_result for entry in attempt]
            return _failure(messages, answers)
        # Not final: many platforms answer 200 with such a code when too much is sent.
        refusals = [refusal for answer in answers if (refusal := _refusal(answer))]
        return Failed(refusals[0], is_final=False) if refusals else None

    def _service(self, target: Target, address: str) -> Any:
        url = (target.url or "").replace(ADDRESS, quote(address, safe=""))
        return self._apprise.Apprise.instantiate(url, asset=self._asset())

    def _asset(self) -> Any:
        return self._apprise.AppriseAsset(app_id=_APP, app_desc=_APP)


class _Answers:
    """Records the HTTP answers to a notification: Apprise takes every 200 for a success, whatever the body says.

    A context variable tells the answers of parallel notifications apart. Apprise sends in a thread of its own, and
    passes the context on to it.
    """

    def __init__(self, session: Any) -> None:
        self._seen: ContextVar[list[Any] | None] = ContextVar("answers", default=None)
        send = session.send

        def watch(own: Any, request: Any, **options: Any) -> Any:
            answer = send(own, request, **options)
            if (seen := self._seen.get()) is not None:
                seen.append(answer)
            return answer

        # In the whole process, which is the notifier's own: Apprise lets nobody pass a session.
        session.send = watch

    @contextmanager
    def watched(self) -> Iterator[list[Any]]:
        """Collect the answers that come within the context."""
        answers: list[Any] = []
        before = self._seen.set(answers)
        try:
            yield answers
        finally:
            self._seen.reset(before)


def _failure(messages: list[str], answers: list[Any]) -> Failed:
    statuses = [answer.status_code for answer in answers if answer.status_code >= _CLIENT_ERRORS.start]
    statuses = statuses or [int(match[1]) for message in messages if (match := _STATUS.search(message))]
    reason = "; ".join(messages) or "Apprise does not say why"
    # Without any status, no answer came: the network or the platform was away.
    is_final = bool(statuses) and all(
        status in _CLIENT_ERRORS and status not in _TEMPORARY_STATUSES for status in statuses
    )
    return Failed(" ".join(reason.split())[:_MAX_CHARS], is_final=is_final)


def _refusal(answer: Any) -> str | None:
    """Return the error in an answer of status 200, such as WeCom's 45009 for too many messages, or None."""
    try:
        reply = answer.json()
    except ValueError:
        return None
    if not isinstance(reply, dict):
        return None
    for name, url_part in _CODE_FIELDS.items():
        code = reply.get(name)
        if isinstance(code, int) and code != 0 and url_part in answer.url:
            return f"the platform refused it: {name} {code} {reply.get('errmsg') or reply.get('msg') or ''}"[
                :_MAX_CHARS
            ]
    return None
