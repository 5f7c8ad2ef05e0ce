"""Sends what is due: each address in its order, within rates and outside quiet hours, until it is sent or parked."""

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog

from connector.notify.metrics import Metrics
from connector.notify.outbox import Notification, Outbox
from connector.notify.rules import Rule, Rules
from connector.notify.sending import Failed, Send
from connector.notify.templates import Unrenderable, render

_THREADS: Final = 4
_LINES: Final = 100
_IDLE_SECONDS: Final = 0.2
_SHOW_SECONDS: Final = 1.0
_LOG = structlog.get_logger()
_Lane = tuple[str, str]


class Delivery:
    """The sending half of the notifier; `run` belongs to a thread of its own.

    Args:
        path: The outbox's file.
        rules: The rules.
        send: Sends one text.
        metrics: Where it counts.
        is_stopped: Asked a few times a second; what is being sent then is still finished.
    """

    def __init__(self, path: Path, rules: Rules, send: Send, metrics: Metrics, is_stopped: Callable[[], bool]) -> None:
        self._path, self._rules, self._send, self._metrics, self._is_stopped = path, rules, send, metrics, is_stopped
        self._by_name = {rule.name: rule for rule in rules.rules}
        self._lanes_wait: dict[_Lane, float] = {}
        self._targets_wait: dict[str, float] = {}
        self._busy: dict[Future[Failed | None], tuple[_Lane, list[Notification]]] = {}
        self._shown = 0.0

    def run(self) -> None:
        """Send until stopped."""
        outbox = Outbox(self._path)
        try:
            with ThreadPoolExecutor(_THREADS, "weda-notify") as threads:
                while not self._is_stopped():
                    self._start_due(outbox, threads)
                    self._finish(outbox)
                while self._busy:
                    self._finish(outbox)
        finally:
            outbox.close()

    def _start_due(self, outbox: Outbox, threads: ThreadPoolExecutor) -> None:
        now = time.time()
        if now - self._shown >= _SHOW_SECONDS:
            self._shown = now
            self._metrics.show(outbox.counts())
        taken = {lane for lane, _ in self._busy.values()}
        for head in outbox.heads(now):
            lane = (head.target, head.address)
            if len(self._busy) >= 2 * _THREADS:
                return
            if lane not in taken and self._may_go(head, lane, now):
                self._start(outbox, threads, head, lane)

    def _may_go(self, head: Notification, lane: _Lane, now: float) -> bool:
        """Whether neither an earlier failure, nor the target's rate, nor the time of day holds it back."""
        if self._lanes_wait.get(lane, 0.0) > now or self._targets_wait.get(head.target, 0.0) > now:
            return False
        rule = self._by_name.get(head.rule)
        if self._rules.quiet is None or (rule is not None and rule.urgent):
            return True
        return self._rules.quiet.until(datetime.fromtimestamp(now, self._rules.zone)) is None

    def _start(self, outbox: Outbox, threads: ThreadPoolExecutor, head: Notification, lane: _Lane) -> None:
        together = outbox.gathered(head, time.time()) if head.digest else [head]
        target, rule = self._rules.targets.get(head.target), self._by_name.get(head.rule)
        if target is None or rule is None:
            self._park(outbox, together, f"{head.rule} with {head.target} is in the rules no longer")
            return
        try:
            title, text = self._worded(rule, together)
        except Unrenderable as error:
            self._park(outbox, together, f"digest {error}")
            return
        if target.per_minute is not None:
            self._targets_wait[head.target] = time.time() + 60 / target.per_minute

        def attempt() -> Failed | None:
            with self._metrics.send_seconds.labels(head.target).time():
                return self._send(target, head.address, title, text)

        self._busy[threads.submit(attempt)] = (lane, together)

    def _worded(self, rule: Rule, together: list[Notification]) -> tuple[str, str]:
        if rule.digest is None:
            return together[0].title, together[0].text
        lines = [each.text for each in together]
        fields = {"lines": lines[:_LINES], "count": len(lines), "more": max(len(lines) - _LINES, 0)}
        title, text = (render(each, fields, self._rules.zone) for each in (rule.digest.title, rule.digest.text))
        return title.replace("\n", " "), text

    def _finish(self, outbox: Outbox) -> None:
        """Write down what has come of the attempts that ended."""
        if not self._busy:
            time.sleep(_IDLE_SECONDS)
            return
        done, _ = wait(self._busy, _IDLE_SECONDS, FIRST_COMPLETED)
        for future in done:
            lane, together = self._busy.pop(future)
            error = future.exception()
            failed = Failed(f"{type(error).__name__}: {error}", is_final=False) if error else future.result()
            if failed is None:
                self._lanes_wait.pop(lane, None)
                outbox.remove(together)
                self._count(lane[0], "sent", len(together))
            else:
                self._note_failure(outbox, lane, together, failed)

    def _note_failure(self, outbox: Outbox, lane: _Lane, together: list[Notification], failed: Failed) -> None:
        attempts = together[0].attempts + 1
        if failed.is_final or attempts >= self._rules.retry.attempts:
            self._lanes_wait.pop(lane, None)
            self._park(outbox, together, failed.reason)
            return
        self._lanes_wait[lane] = time.time() + self._rules.retry.wait(attempts)
        outbox.failed(together, failed.reason, is_final=False)
        self._count(lane[0], "failed", 1)

    def _park(self, outbox: Outbox, together: list[Notification], reason: str) -> None:
        outbox.failed(together, reason, is_final=True)
        first = together[0]
        if first.target in self._rules.targets:  # labels are a closed set
            self._count(first.target, "parked", len(together))
        _LOG.error("notification parked", rule=first.rule, target=first.target, count=len(together), reason=reason)

    def _count(self, target: str, outcome: str, count: int) -> None:
        self._metrics.notifications.labels(target, outcome).inc(count)
