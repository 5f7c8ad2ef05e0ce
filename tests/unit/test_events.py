"""What counts as read after a rebalance, an error or a failed transaction; the subscription is replaced."""

import sqlite3
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from connector.consuming import Events, SqliteStore
from connector.consuming import events as events_module
from connector.errors import Unreadable
from connector.kafka.reader import ConsumerRecord


def record(offset: int, *, is_readable: bool = True) -> ConsumerRecord:
    value = {"receivedAt": 1, "ingestId": f"{offset:04}", "msgId": str(offset)} if is_readable else b"{"
    return ConsumerRecord("events", "weda.events", 0, offset, "i-1", 1, {"weda.fingerprint": str(offset)}, value)


class FakeSubscription:
    """Returns records, one by one, and then ends.

    Attributes:
        records: What `poll` returns.
        stored: The offsets that were stored or committed.
        excluded: The seconds that the caller has taken.
    """

    def __init__(self, *_: object, **__: object) -> None:
        self.records: list[ConsumerRecord | None] = []
        self.stored: list[Mapping[tuple[str, int], int]] = []
        self.excluded = 0.0

    @property
    def is_over(self) -> bool:
        return not self.records

    def poll(self) -> ConsumerRecord | None:
        return self.records.pop(0)

    def store(self, offsets: Mapping[tuple[str, int], int]) -> None:
        self.stored.append(dict(offsets))

    commit = store

    def exclude(self, seconds: float) -> None:
        self.excluded += seconds

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "Subscription", FakeSubscription)


def reading(*records: ConsumerRecord | None, **how: Any) -> tuple[Events, FakeSubscription]:
    events = Events("kafka:9092", group="g", **how)
    subscription: Any = events._subscription
    subscription.records = list(records)
    return events, subscription


def offsets(batch: list[Any]) -> list[int]:
    return [event.offset for event in batch]


def test_what_a_rebalance_brings_again_is_once_in_a_list():
    events, subscription = reading(record(0), record(1), record(0), record(1), record(2), auto_commit=False)

    assert [offsets(batch) for batch in events.batches(10)] == [[0, 1, 2]]
    events.commit()
    assert subscription.stored == [{("weda.events", 0): 3}]


@pytest.mark.parametrize("auto_commit", [True, False])
def test_what_was_fetched_before_an_error_is_returned_and_the_error_comes_again(auto_commit):
    events, subscription = reading(
        record(0), record(1), record(2, is_readable=False), record(3), auto_commit=auto_commit
    )
    batches = iter(events.batches(10))

    assert offsets(next(batches)) == [0, 1]
    for again in (batches, iter(events), iter(events.batches(10))):
        with pytest.raises(Unreadable):
            next(again)
    if not auto_commit:
        events.commit()
    assert subscription.stored[-1] == {("weda.events", 0): 2}, "nothing behind it"


def test_an_error_at_the_last_record_is_no_end():
    events, _ = reading(record(0), record(1, is_readable=False))
    assert next(iter(events)).offset == 0

    for _ in range(2):
        with pytest.raises(Unreadable):
            next(iter(events))


def test_a_transaction_that_failed_is_not_followed_by_one_without_the_effects(tmp_path):
    database = sqlite3.connect(tmp_path / "effects.db", timeout=0)
    database.execute("CREATE TABLE effect (offset INTEGER)")
    events, subscription = reading(record(0), auto_commit=False, store=SqliteStore(database))
    other = sqlite3.connect(tmp_path / "effects.db", timeout=0, isolation_level=None)

    for event in events:
        database.execute("INSERT INTO effect VALUES (?)", (event.offset,))
        other.execute("BEGIN")
        other.execute("SELECT * FROM effect").fetchall()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            events.commit()
        other.execute("COMMIT")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            events.commit()

    assert database.execute("SELECT count(*) FROM weda_seen").fetchone() == (0,)
    assert subscription.stored == []


def test_a_connection_without_transactions_is_no_store(tmp_path):
    class Committing(sqlite3.Connection):
        autocommit = True  # as of Python 3.12

    for how in ({"isolation_level": None}, {"factory": Committing}):
        with pytest.raises(ValueError, match="commits by itself"):
            SqliteStore(sqlite3.connect(tmp_path / "effects.db", **how))


def test_the_time_of_the_caller_is_excluded_after_an_empty_list_too(monkeypatch):
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    events, subscription = reading(None, record(0))
    batches: Iterator[list[Any]] = iter(events.batches(1, idle=0.0))
    assert next(batches) == []

    now[0] += 60
    assert next(batches) == []
    assert subscription.excluded == 60
