"""Sends due notifications: in order per address, within rate limits, in quiet hours urgent ones only."""

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog

from connector.notify.metrics import Metrics
from connector.notify.outbox import Notification, Outbox
from connector.notify.rules import Digest, Rules
from connector.notify.sending import Failed, Send
from connector.notify.templates import Unrenderable, render

_THREADS: Final = 4
_MAX_DIGEST_LINES: Final = 100
_IDLE_SECONDS: Final = 0.2
_GAUGES_SECONDS: Final = 1.0
_LOG = structlog.get_logger()
_Lane = tuple[str, str]


class Delivery:
    """The sending half of the notifier; `run` needs a thread of its own.

    Args:
        path: The outbox's file.
        rules: The rules.
        send: Sends one text.
        metrics: The notifier's metrics.
        is_stopped: Called a few times a second; once it returns True, only the attempts under way are finished.
        may_remind: Called a few times a second; reminders wait until it returns True.
    """

    def __init__(
        self,
        path: Path,
        rules: Rules,
        send: Send,
        metrics: Metrics,
        *,
        is_stopped: Callable[[], bool],
        may_remind: Callable[[], bool],
    ) -> None:
        self._path, self._rules, self._send, self._metrics = path, rules, send, metrics
        self._is_stopped, self._may_remind = is_stopped, may_remind
        self._by_name = {rule.name: rule for rule in rules.rules}
        self._urgent = [rule.name for rule in rules.rules if rule.urgent]
        self._lane_resumes_at: dict[_Lane, float] = {}
        self._target_resumes_at: dict[str, float] = {}
        self._attempts: dict[Future[Failed | None], tuple[_Lane, list[Notification]]] = {}
        self._gauges_set_at = 0.0

    def run(self) -> None:
        """Send until stopped."""
        # A connection of its own: on a shared one, a commit here would commit the reader's half-handled batch.
        outbox = Outbox(self._path)
        try:
            with ThreadPoolExecutor(_THREADS, "weda-notify") as threads:
                while not self._is_stopped():
                    self._start_due(outbox, threads)
                    self._finish(outbox)
                # An attempt that is not recorded would be made again after the restart.
                while self._attempts:
                    self._finish(outbox)
        finally:
            outbox.close()

    def _start_due(self, outbox: Outbox, threads: ThreadPoolExecutor) -> None:
        now = time.time()
        if now - self._gauges_set_at >= _GAUGES_SECONDS:
            self._gauges_set_at = now
            self._metrics.show(outbox.counts())
        busy_lanes = {lane for lane, _ in self._attempts.values()}
        rules = self._urgent if self._is_quiet(now) else None
        for head in outbox.heads(now, rules, reminders=self._may_remind()):
            lane = (head.target, head.address)
            # Twice the threads: one that is done finds its next attempt queued, and few are left to finish at a stop.
            if len(self._attempts) >= 2 * _THREADS:
                return
            if lane in busy_lanes or not self._may_send(lane, now):
                continue
            first = outbox.notification(head.number)
            if first is not None:
                self._start(outbox, threads, first, lane)

    def _may_send(self, lane: _Lane, now: float) -> bool:
        """Whether an earlier failure and the target's rate allow sending now."""
        return self._lane_resumes_at.get(lane, 0.0) <= now and self._target_resumes_at.get(lane[0], 0.0) <= now

    def _is_quiet(self, now: float) -> bool:
        quiet = self._rules.quiet
        return quiet is not None and quiet.until(datetime.fromtimestamp(now, self._rules.zone)) is not None

    def _start(self, outbox: Outbox, threads: ThreadPoolExecutor, head: Notification, lane: _Lane) -> None:
        # None if it was removed from the file.
        target, rule = self._rules.targets.get(head.target), self._by_name.get(head.rule)
        # Both: the rule may have lost or got its digest since the event was read. What was no line of a digest then, or
        # belongs to none now, is sent by itself.
        digest = rule.digest if rule is not None and head.digest else None
        group = [head] if digest is None else outbox.gathered(head, time.time())
        if target is None or rule is None:
            self._park(outbox, group, f"{head.rule} with {head.target} is in the rules no longer")
            return
        try:
            title, text = self._title_and_text(digest, group)
        except Unrenderable as error:
            self._park(outbox, group, f"digest {error}")
            return
        # Evenly spread, so that no minute has more, wherever the platform's begins.
        if target.per_minute is not None:
            self._target_resumes_at[head.target] = time.time() + 60 / target.per_minute

        def attempt() -> Failed | None:
            with self._metrics.send_seconds.labels(head.target).time():
                return self._send(target, head.address, title, text)

        self._attempts[threads.submit(attempt)] = (lane, group)

    def _title_and_text(self, digest: Digest | None, group: list[Notification]) -> tuple[str, str]:
        if digest is None:
            return group[0].title, group[0].text
        lines = [notification.text for notification in group]
        more = max(len(lines) - _MAX_DIGEST_LINES, 0)
        fields = {"lines": lines[:_MAX_DIGEST_LINES], "count": len(lines), "more": more}
        templates = digest.title, digest.text
        title, text = (render(template, fields, self._rules.zone) for template in templates)
        return title.replace("\n", " "), text

    def _finish(self, outbox: Outbox) -> None:
        """Record the outcomes of attempts that have ended."""
        if not self._attempts:
            time.sleep(_IDLE_SECONDS)
            return
        done, _ = wait(self._attempts, _IDLE_SECONDS, FIRST_COMPLETED)
        for future in done:
            lane, group = self._attempts.pop(future)
            # `Send` returns failures; an exception is a bug, ours or a library's, and must not end the thread.
            error = future.exception()
            failed = Failed(f"{type(error).__name__}: {error}", is_final=False) if error else future.result()
            if failed is None:
                self._lane_resumes_at.pop(lane, None)
                outbox.remove(group)
                self._count(lane[0], "sent", len(group))
            else:
                self._record_failure(outbox, lane, group, failed)

    def _record_failure(self, outbox: Outbox, lane: _Lane, group: list[Notification], failed: Failed) -> None:
        attempts = group[0].attempts + 1
        if failed.is_final or attempts >= self._rules.retry.attempts:
            # The next notification of the lane does not wait for the failures of this one.
            self._lane_resumes_at.pop(lane, None)
            self._park(outbox, group, failed.reason)
            return
        self._lane_resumes_at[lane] = time.time() + self._rules.retry.wait(attempts)
        outbox.failed(group, failed.reason, is_final=False)
        self._count(lane[0], "failed", 1)

    def _park(self, outbox: Outbox, group: list[Notification], reason: str) -> None:
        outbox.failed(group, reason, is_final=True)
        first = group[0]
        if first.target in self._rules.targets:  # labels are a closed set
            self._count(first.target, "parked", len(group))
        _LOG.error("notification parked", rule=first.rule, target=first.target, count=len(group), reason=reason)

    def _count(self, target: str, outcome: str, count: int) -> None:
        self._metrics.notifications.labels(target, outcome).inc(count)
