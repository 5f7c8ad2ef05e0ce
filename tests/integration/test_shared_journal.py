"""The journal that replicas share, on a real PostgreSQL: who owns a lane, what is before what, who may publish."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import Any

import msgspec
import psycopg
import pytest

from connector.admin import doctor
from connector.delivery.completion import Durability
from connector.delivery.delivery import Delivery
from connector.delivery.duplicates import DedupState, Duplicates, dedup_key_of
from connector.delivery.order import NewMessage
from connector.errors import ConfigurationError, OutcomeUnknown, TooLarge, Unavailable
from connector.intake.dead_letters import for_rejection
from connector.journal.model import Admission, Contents
from connector.lookup.journal import search
from connector.lookup.model import SearchQuery
from connector.message.routes import DEAD_LETTERS
from connector.replicas.batch import APPLY, Batch, ClaimResult
from connector.replicas.database import DatabaseUnreachable, StatementError
from connector.replicas.journal import SharedJournal
from connector.replicas.order import SharedOrder
from connector.replicas.postgres import PostgresConnection
from connector.settings import REDACTED, Settings
from connector.telemetry.metrics import Metrics
from connector.testing import TOO_LARGE, InMemoryPublisher
from connector.values import ProducibleRecord, Request
from tests.servers.postgres import OWNER, Postgres
from tests.waiting import PATIENCE_SECONDS, equals, until

WINDOW = 3600.0


def admission(sequence: int, lane: str = "i", *, body: bytes = b"b", source: str = "default") -> Admission:
    request = Request(source, body, "application/json", 1_763_000_000_000 + sequence)
    record = ProducibleRecord("events", "t", lane.encode(), b"v", (("h", b"1"),), request.received_at)
    return Admission(sequence, lane, request, (record,))


@contextlib.asynccontextmanager
async def replica(
    database: Postgres,
    *,
    max_bytes: int = 1 << 30,
    window: float = WINDOW,
    has_lease: bool = True,
    connection: type[PostgresConnection] = PostgresConnection,
) -> AsyncIterator[SharedJournal]:
    journal = SharedJournal(
        partial(connection, database.url()),
        max_bytes=max_bytes,
        dedup_window_seconds=window,
        max_dedup_keys=5,
        on_loss=lambda: None,
    )
    await journal.open()
    try:
        await until(lambda: journal.lease.is_held, equals(has_lease))
        yield journal
    finally:
        await journal.close()


async def hear_no_more_of(journal: SharedJournal, database: Postgres) -> None:
    """A replica renews its lease no more, and it runs out: another one removes it."""
    journal._tasks[0].cancel()
    mine = f"replica_id = '{journal._membership.replica_id}'"
    database.ask(f"UPDATE weda_replica SET lease_until = clock_timestamp() WHERE {mine}", role=OWNER)
    await until(lambda: database.ask(f"SELECT count(*) FROM weda_replica WHERE {mine}") == [(0,)])


@pytest.fixture
async def one(database) -> AsyncIterator[SharedJournal]:
    async with replica(database) as journal:
        yield journal


@pytest.fixture
async def other(database) -> AsyncIterator[SharedJournal]:
    async with replica(database) as journal:
        yield journal


async def claimed(journal: SharedJournal, lane: str = "i", seen=None) -> ClaimResult:
    journal.lanes.pin(lane)
    return await journal.claim(lane, seen)


@contextlib.asynccontextmanager
async def answering(journal: SharedJournal) -> AsyncIterator[None]:
    """Kafka answers a replica, again and again."""

    async def answer() -> None:
        while True:
            journal.record_kafka(answers=True)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(answer())
    yield
    task.cancel()


async def until_reported(*journals: SharedJournal) -> None:
    """What the replicas say of Kafka is in the database."""
    renewed = [journal.lease._until for journal in journals]
    await until(lambda: all(one.lease._until != was for one, was in zip(journals, renewed, strict=True)))
    await asyncio.sleep(0.1)


async def settled(journal: SharedJournal) -> None:
    """What was asked, answered or not, is done."""
    await until(lambda: not journal._batches.has_work)


async def test_who_comes_first_owns_the_lane_until_nothing_of_it_is_left(one, other):
    first = await claimed(one)
    second = await claimed(other)
    other.lanes.unpin("i")
    one.lanes.unpin("i")
    await settled(one)
    third = await claimed(other)

    assert (first.is_owner, second.is_owner, third.is_owner) == (True, False, True)
    assert first.sequence < second.sequence < third.sequence


async def test_a_message_of_another_ones_lane_goes_behind_what_is_there_and_only_the_owner_reads_it(one, other):
    """Whoever receives the next message finds the row before it."""
    await claimed(one)
    behind = await claimed(other)
    await other.append(admission(behind.sequence, body=b"second"))
    third = await claimed(one)
    [rows] = await one.first_rows("", lanes=10, depth=10)

    assert (third.is_owner, third.lane_has_rows) == (True, True)
    assert [row.request.body for row in rows] == [b"second"]
    assert rows[0].sequence < third.sequence
    assert await other.first_rows("", lanes=10, depth=10) == []


async def test_a_row_keeps_the_place_that_was_claimed_though_it_is_written_later(one, other):
    first = await claimed(one)
    behind = await claimed(other)
    await other.append(admission(behind.sequence, body=b"second"))
    await one.store(admission(first.sequence, body=b"first"))
    [rows] = await one.first_rows("", lanes=10, depth=10)

    assert [row.request.body for row in rows] == [b"first", b"second"]


async def test_a_lane_with_rows_is_not_given_up(one, other):
    first = await claimed(one)
    await one.store(admission(first.sequence))
    one.lanes.unpin("i")
    verdict = await claimed(other)

    assert (verdict.is_owner, verdict.lane_has_rows) == (False, True)
    await one.remove(first.sequence)
    one.lanes.removed("i")
    other.lanes.unpin("i")
    await settled(one)
    assert (await claimed(other)).is_owner


class LossyConnection(PostgresConnection):
    """Runs statements, and loses the answers to batches of some kind while it is told to."""

    loses: Callable[[Mapping[str, Any]], bool] = staticmethod(lambda _: False)
    is_refusing = False
    defects = 0

    async def execute(self, sql: str, parameters: Mapping[str, Any], *, seconds: float) -> list[tuple[Any, ...]]:
        if sql == APPLY and self.is_refusing:
            raise DatabaseUnreachable("no batch is taken")
        if sql == APPLY and self.defects:
            self.defects -= 1
            raise RuntimeError("a defect")
        rows = await super().execute(sql, parameters, seconds=seconds)
        if sql == APPLY and self.loses(parameters):
            self.loses = lambda _: False
            raise DatabaseUnreachable("the answer is lost")
        return rows


@contextlib.asynccontextmanager
async def publishing(journal: SharedJournal, publisher: InMemoryPublisher) -> AsyncIterator[SharedOrder]:
    """A replica from claim to publisher."""
    ledger = Metrics(version="", sources=("default",), streams=("events",), journal_is_shared=True)
    delivery = Delivery(
        publisher,
        journal,
        Contents({}, {}, None),
        ledger=ledger,
        make_dead_letter=partial(for_rejection, "t.dead-letters"),
        publish_wait_seconds=PATIENCE_SECONDS,
        journaled=journal.lanes,
    )
    delivery.start_publishing()
    duplicates = Duplicates(window_seconds=WINDOW, max_entries=1000, is_written=False)
    order = SharedOrder(journal, delivery, duplicates, ledger, reply_deadline_seconds=0.8)
    yield order
    await delivery.stop(1)
    await order.stop()


@pytest.mark.parametrize("loses", ["no answer", "removed_sequences", "amended_sequences"])
async def test_a_lane_whose_message_became_a_dead_letter_is_given_up_though_nothing_more_comes(database, loses):
    """By an owner that goes on living, also where the answer to a batch that was committed is lost."""
    publisher = InMemoryPublisher()
    publisher.fail_next(2, TOO_LARGE)  # in its batch, then alone
    async with replica(database, connection=LossyConnection) as journal, publishing(journal, publisher) as order:
        journal._connections[0].loses = lambda parameters: bool(parameters.get(loses))
        message = admission(0)
        await order.admit(NewMessage("i", message.request, message.records))
        await until(lambda: publisher.of(DEAD_LETTERS))

        await until(lambda: database.ask("SELECT count(*) FROM weda_row"), equals([(0,)]))
        await until(lambda: database.ask("SELECT convert_from(lane, 'UTF8') FROM weda_lane"), equals([]))


async def test_a_row_may_be_written_and_removed_twice(one, database):
    """What is asked once more after a broken connection may have been done."""
    first = await claimed(one)
    await one.store(admission(first.sequence))
    await one.store(admission(first.sequence))
    assert database.ask("SELECT rows_in_lane FROM weda_lane") == [(1,)]
    await one.remove(first.sequence)
    await one.remove(first.sequence)

    assert database.ask("SELECT rows_in_lane, bytes FROM weda_lane") in ([(0, 0)], [])


async def test_a_row_that_is_amended_into_another_lane_is_counted_there(one, database):
    first = await claimed(one)
    await one.store(admission(first.sequence))
    await one.amend(admission(first.sequence, "dead-letter/1", body=b"a longer one"))
    rows = database.ask("SELECT convert_from(lane, 'UTF8'), rows_in_lane, bytes FROM weda_lane ORDER BY 1")
    [[row]] = await one.first_rows("", lanes=10, depth=10)

    assert [(lane, backlog) for lane, backlog, _ in rows] == [("dead-letter/1", 1), ("i", 0)]
    assert rows[0][2] == database.ask("SELECT length(content) FROM weda_row")[0][0]
    assert row.lane == "dead-letter/1"


async def test_a_repeat_elsewhere_is_pending_then_safe(one, other):
    seen = dedup_key_of("message", "default", "1", b"f" * 16)
    assert (await claimed(one, seen=seen)).dedup_state is DedupState.NEW
    assert (await claimed(other, "j", seen)).dedup_state is DedupState.PENDING
    one.set_key_safe(seen)
    await settled(one)

    assert (await claimed(other, "j", seen)).dedup_state is DedupState.SAFE


async def test_a_repeat_of_what_was_refused_elsewhere_is_new(one, other):
    seen = dedup_key_of("message", "default", "1", b"f" * 16)
    await claimed(one, seen=seen)
    one.set_key_void(seen)
    await settled(one)

    assert (await claimed(other, seen=seen)).dedup_state is DedupState.NEW


async def test_what_became_a_row_is_safe_in_the_same_transaction(one, other):
    seen = dedup_key_of("message", "default", "1", b"f" * 16)
    first = await claimed(one, seen=seen)
    await one.store(msgspec.structs.replace(admission(first.sequence), dedup_key=seen))

    assert (await claimed(other, seen=seen)).dedup_state is DedupState.SAFE


async def test_one_id_with_two_contents_is_a_conflict_for_the_second_alone(one, other):
    first, second = (dedup_key_of("message", "default", "1", each * 16) for each in (b"f", b"g"))
    verdicts = await asyncio.gather(claimed(one, "i", first), claimed(other, "j", second))

    assert sorted(each.dedup_state.value for each in verdicts) == ["conflict", "new"]
    assert (await claimed(one, "k", second)).dedup_state in {DedupState.PENDING, DedupState.CONFLICT}


async def test_a_conflict_with_a_message_of_another_replica_is_counted_as_such(start, database):
    replicas = [await start(journal__url=database.url()) for _ in range(2)]
    for number, running in enumerate(replicas):
        message = {"msgType": "Task", "instanceId": f"i-{number}", "msgId": "m-1", "comment": str(number)}
        assert await running.post(message) == (200, {"code": 0})
    counted = [await running.metric("weda_connector_message_id_conflicts_total") for running in replicas]

    assert counted == [0, 1]


async def test_a_record_that_a_conflict_makes_too_large_is_rejected_and_its_key_is_free(one, other):
    """The longer ``ce_id`` is known only once the database has found the conflict."""
    first, second = (dedup_key_of("message", "default", "1", each * 16) for each in (b"f", b"g"))
    await claimed(one, seen=first)
    message = admission(0)

    def in_conflict() -> tuple[ProducibleRecord, ...]:
        raise TooLarge("a record is over the limit")

    async with publishing(other, InMemoryPublisher()) as order:
        for _ in range(2):
            with pytest.raises(TooLarge):
                await order.admit(NewMessage("j", message.request, message.records, second, in_conflict))
        assert await order.admit(NewMessage("j", message.request, message.records, second)) is Durability.PUBLISHED


async def test_content_that_conflicted_is_recognised_when_the_first_is_forgotten(one, other, database):
    first, second = (dedup_key_of("message", "default", "1", each * 16) for each in (b"f", b"g"))
    await claimed(one, seen=first)
    await claimed(one, seen=second)
    one.set_key_safe(first)
    one.set_key_safe(second)
    await settled(one)
    database.ask("DELETE FROM weda_dedup_key WHERE fingerprint = 'ffffffffffffffff'::bytea", role=OWNER)

    assert (await claimed(other, seen=second)).dedup_state is DedupState.SAFE


async def test_what_was_seen_longer_ago_than_the_window_is_new(database):
    seen = dedup_key_of("message", "default", "1", b"f" * 16)
    async with replica(database, window=0.2) as one, replica(database, window=0.2) as other:
        await claimed(one, seen=seen)
        one.set_key_safe(seen)
        await settled(one)
        await asyncio.sleep(0.4)

        assert (await claimed(other, seen=seen)).dedup_state is DedupState.NEW


async def test_of_too_many_dedup_keys_the_oldest_are_forgotten_and_none_that_is_pending(one, database):
    keys = [dedup_key_of("message", "default", str(number), b"f" * 16) for number in range(9)]
    for seen in keys:
        await claimed(one, seen=seen)
        await asyncio.sleep(0.001)
    for seen in keys[1:]:
        one.set_key_safe(seen)
    await settled(one)
    await one._expire_dedup_keys()
    left = {bytes(key) for (key,) in database.ask("SELECT key FROM weda_dedup_key")}

    assert left == {key for key, _ in (keys[0], *keys[5:])}


async def test_dedup_keys_older_than_the_window_are_removed(database):
    async with replica(database, window=0.1) as one:
        seen = dedup_key_of("message", "default", "1", b"f" * 16)
        await claimed(one, seen=seen)
        one.set_key_safe(seen)
        await settled(one)
        await asyncio.sleep(0.2)
        await one._expire_dedup_keys()

    assert database.ask("SELECT count(*) FROM weda_dedup_key") == [(0,)]


async def test_rows_of_a_replica_whose_lease_ran_out_are_taken_over(one, other, database):
    first = await claimed(one)
    await one.store(admission(first.sequence, body=b"left"))
    await hear_no_more_of(one, database)
    await until(lambda: other.lanes.total > 0)
    [rows] = await other.first_rows("", lanes=10, depth=10)

    assert [row.request.body for row in rows] == [b"left"]


async def test_who_has_lost_its_lease_can_do_nothing_more(one, other, database):
    first = await claimed(one)
    await one.store(admission(first.sequence))
    await hear_no_more_of(one, database)
    await until(lambda: other.lanes.total > 0)
    with pytest.raises(Unavailable):
        await one.remove(first.sequence)
    with pytest.raises(Unavailable):
        await claimed(one, "j")

    assert one.lease.is_lost
    assert database.ask("SELECT count(*) FROM weda_row") == [(1,)]


async def test_who_gets_no_lease_says_so_though_the_database_can_be_read(database):
    """So that probes take it out of the balancer."""
    database.ask("REVOKE INSERT, UPDATE ON weda_replica FROM weda_runner", role=OWNER)
    try:
        async with replica(database, has_lease=False) as journal:
            with pytest.raises(Unavailable, match="no lease"):
                await journal.state()
    finally:
        database.ask("GRANT INSERT, UPDATE ON weda_replica TO weda_runner", role=OWNER)


async def test_what_is_refused_without_a_lease_leaves_nothing_behind(database):
    database.ask("REVOKE INSERT, UPDATE ON weda_replica FROM weda_runner", role=OWNER)
    try:
        async with replica(database, has_lease=False) as journal, publishing(journal, InMemoryPublisher()) as order:
            for number in range(20):
                message = admission(number)
                with pytest.raises(Unavailable):
                    await order.admit(NewMessage(f"i-{number}", message.request, message.records))

            assert not journal._batches.has_work
    finally:
        database.ask("GRANT INSERT, UPDATE ON weda_replica TO weda_runner", role=OWNER)


async def test_an_id_that_postgresql_cannot_index_harms_nobody(database):
    """A thousand characters, each of three bytes, of which none repeats: an entry of an index has 2,700."""
    long_id = "".join(chr(0x4E00 + number) for number in range(1_024))
    publisher = InMemoryPublisher()
    async with replica(database) as journal, publishing(journal, publisher) as order:
        message = admission(1)
        admitted = [order.admit(NewMessage(name, message.request, message.records)) for name in (long_id, "i", long_id)]

        assert [await one for one in admitted] == [Durability.PUBLISHED] * 3
    assert len(publisher.published) == 3


async def test_a_stop_ends_though_the_database_takes_no_batch_any_more(database, monkeypatch):
    """The lease is renewed all the while: nothing else would ever end what waits for a row."""
    monkeypatch.setattr("connector.replicas.order._STOP_SECONDS", 0.1)
    publisher = InMemoryPublisher()
    publisher.hold()
    async with replica(database, connection=LossyConnection) as journal:
        async with publishing(journal, publisher) as order:
            message = admission(1)
            admitted = order.admit(NewMessage("i", message.request, message.records))
            await until(lambda: publisher.published)
            journal._connections[0].is_refusing = True
        assert admitted.result is None
    with pytest.raises(OutcomeUnknown):
        await admitted


@pytest.mark.parametrize("defects", [1, 2])
async def test_a_defect_of_a_batch_leaves_nobody_waiting(database, defects):
    """What may be executed twice is tried once more; then the connector restarts."""
    async with replica(database, connection=LossyConnection) as journal:
        first = await claimed(journal)
        journal._connections[0].defects = defects
        stored = asyncio.ensure_future(journal.store(admission(first.sequence)))
        await asyncio.wait([stored], timeout=PATIENCE_SECONDS)

        assert [type(stored.exception())] == ([type(None)] if defects == 1 else [OutcomeUnknown])
        assert journal.lease.is_lost == (defects == 2), "what may be committed is not removed as refused"


async def test_who_does_not_reach_kafka_lets_nothing_in_while_another_one_does(one, other, database):
    async with answering(one):
        await until(lambda: other.is_isolated)
        with pytest.raises(Unavailable, match="another one does"):
            await claimed(other)
        async with replica(database) as third, answering(third):
            await until(lambda: not third.is_isolated)
            first = await claimed(third)
            await third.store(admission(first.sequence))
        await until(lambda: one.lanes.total > 0)
        assert other.lanes.total == 0, "it adopts nothing either"

    one.record_kafka(answers=False)
    await until(lambda: not other.is_isolated)
    assert not one.is_isolated
    assert (await claimed(other, "j")).is_owner, "none of them does: rows are all that is left"


async def test_when_kafka_goes_no_replica_stands_aside_for_what_was_so_before(one, other):
    """They notice one after the other: nobody may refuse because of one that has not noticed yet."""
    for journal in (one, other):
        journal.record_kafka(answers=True)
    await until_reported(one, other)
    one.record_kafka(answers=False)
    for _ in range(40):  # two seconds, in which the other one goes on saying what was true last
        assert not one.is_isolated
        assert (await claimed(one)).is_owner
        one.lanes.unpin("i")
        await asyncio.sleep(0.05)
    other.record_kafka(answers=True)  # it was not Kafka: it is this replica alone
    await until(lambda: one.is_isolated)

    other.record_kafka(answers=False)
    await until(lambda: not one.is_isolated)
    assert not other.is_isolated


async def test_what_a_dead_replica_had_claimed_is_free_again(one, other, database):
    seen = dedup_key_of("message", "default", "1", b"f" * 16)
    await claimed(one, seen=seen)
    await hear_no_more_of(one, database)
    verdict = await claimed(other, seen=seen)

    assert (verdict.dedup_state, verdict.is_owner, verdict.lane_has_rows) == (DedupState.NEW, True, False)


async def test_who_leaves_leaves_its_rows_to_the_others_at_once(other, database):
    async with replica(database) as one:
        first = await claimed(one)
        await one.store(admission(first.sequence))

    await until(lambda: other.lanes.total > 0)
    assert len(await other.first_rows("", lanes=10, depth=10)) == 1


async def test_a_batch_that_arrives_behind_the_next_one_does_nothing(one, database):
    """A request that was given up may still be on its way: it must not undo what came after it."""
    await claimed(one)
    late = Batch(released={"i"}).parameters(one._membership.replica_id, 0, WINDOW)
    connection = PostgresConnection(database.url(), "late")
    with pytest.raises(StatementError) as refusal:
        await connection.execute(APPLY, late, seconds=PATIENCE_SECONDS)
    connection.close()

    assert refusal.value.sqlstate == "WL002"
    assert database.ask("SELECT count(*) FROM weda_lane") == [(1,)]


async def test_every_row_is_counted_by_one_replica(one, other, database):
    await one.store(admission((await claimed(one, "i")).sequence, "i"))
    await other.store(admission((await claimed(other, "j")).sequence, "j", source="hr"))
    states = [await each.state() for each in (one, other)]

    assert [await each.waiting_by_source() for each in (one, other)] == [{"default": 1}, {"hr": 1}]
    assert {state.size_bytes for state in states} == {database.ask("SELECT sum(length(content)) FROM weda_row")[0][0]}


async def test_the_oldest_of_reprocessed_dead_letters_waits_since_it_was_reprocessed(one, other):
    """An operator who reprocesses a letter of three weeks ago in an outage has not had three weeks of outage."""
    once = admission((await claimed(one)).sequence)
    again = msgspec.structs.replace(once.request, attempt=2, reprocessed_at=once.request.received_at + 1_814_400_000)
    await one.store(msgspec.structs.replace(once, request=again))

    assert (await other.state()).oldest == (once.sequence, again.reprocessed_at)


async def test_every_replica_finds_the_rows_of_all_of_them_by_their_bytes(one, other):
    """An instance, a text of the body in whichever form it has, the id of a request; and in parts, as a search goes."""
    name = "请假%_\\"
    rows = (
        (one, "i-1", json.dumps({"flowTitle": name}).encode(), None),
        (other, "i-2", json.dumps({"flowTitle": name}, ensure_ascii=False).encode(), "request-2"),
        (other, "i-3", "\0请假\0".encode(), "request-3"),
    )
    written = []
    for journal, lane, body, request_id in rows:
        verdict = await claimed(journal, lane)
        row = admission(verdict.sequence, lane, body=body)
        request = msgspec.structs.replace(row.request, request_id=request_id)
        await journal.store(msgspec.structs.replace(row, request=request))
        written.append(verdict.sequence)

    for text, found in ((name, 2), ("request-3", 1), ("i-1", 1), ("nothing", 0), ("请假X", 0)):
        matches, searched = await search(one, SearchQuery(text))
        assert (len(matches), searched.is_whole) == (found, True), text
    forms = SearchQuery("i-2").forms
    [first], after = await one.search([b""], 0, 1)
    assert (first.sequence, after) == (written[0], written[0])
    assert await one.search(forms, written[0], 1) == await other.search(forms, written[0], 1)
    [second], after = await one.search(forms, written[0], 1)
    assert (second.request.request_id, after) == ("request-2", written[1])
    assert await one.search(forms, written[1], 2) == ([], None)
    assert await one.search(forms, written[2], 2) == ([], None)


async def test_a_full_journal_refuses_and_what_is_published_makes_room(database):
    async with replica(database, max_bytes=4_000) as one:
        first = await claimed(one)
        await one.store(admission(first.sequence, body=b"b" * 3_000))
        second = await claimed(one)
        with pytest.raises(Unavailable, match="full"):
            await one.store(admission(second.sequence, body=b"b" * 3_000))
        await one.remove(first.sequence)
        await until(lambda: one.lanes.bytes == 0)

        await one.store(admission(second.sequence, body=b"b" * 3_000))


async def test_a_restarted_database_costs_no_lease(one, database):
    await claimed(one)
    await asyncio.to_thread(database.shut_down)
    with pytest.raises(Unavailable):
        await claimed(one, "j")
    await asyncio.to_thread(database.restart)

    async def claimed_again() -> ClaimResult | None:
        with contextlib.suppress(Unavailable):
            return await claimed(one, "k")
        return None

    result = await until(claimed_again)
    assert result is not None
    assert result.is_owner
    assert not one.lease.is_lost
    assert database.ask("SELECT count(*) FROM weda_replica") == [(1,)]


async def test_a_number_is_the_greatest_of_all_replicas(one, other):
    await one.write_note("n", 7)
    await other.write_note("n", 5)

    assert (await other.read_note("n"), await one.read_note("none")) == (7, 0)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE weda_row",
        "ALTER TABLE weda_lane ADD COLUMN more text",
        "TRUNCATE weda_dedup_key",
        "CREATE OR REPLACE FUNCTION weda_dead_owners() RETURNS SETOF uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'",
    ],
)
def test_who_runs_may_not_change_the_tables(database, statement):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.ask(statement)


def test_a_database_that_fits_is_left_as_it_is(database):
    database.ask("INSERT INTO weda_note VALUES ('kept', 1)")
    database.migrate()

    assert database.ask("SELECT value FROM weda_note") == [(1,)]


@pytest.fixture
def of_another_version(database) -> Iterator[Postgres]:
    """A database whose tables are not those that this version works with."""
    database.ask("ALTER TABLE weda_replica RENAME replica_id TO other", role=OWNER)
    yield database
    database.ask("ALTER TABLE weda_replica RENAME other TO replica_id", role=OWNER)


async def test_in_a_database_that_was_not_migrated_there_is_no_lease_and_everybody_names_the_migration(
    of_another_version,
):
    settings = Settings.load(environment={}, flags={"journal.url": of_another_version.url()})
    finding = await asyncio.to_thread(
        lambda: next(one for one in doctor.examine(settings) if one.check == "journal database")
    )

    assert (finding.verdict, finding.to_do) == ("failed", "weda-connector journal migrate")
    async with replica(of_another_version, has_lease=False) as journal:
        assert "does not exist" in journal.problem


def test_the_command_migrates_and_says_so(postgres):
    command = [sys.executable, "-m", "connector", "journal", "migrate", "--json"]
    environment = {**os.environ, "WEDA_JOURNAL__URL": postgres.url(OWNER)}

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert (done.returncode, json.loads(done.stdout)) == (0, {"applied": []}), done.stderr


def test_the_address_is_never_shown():
    settings = Settings.load(environment={"WEDA_JOURNAL__URL": "postgresql://weda:a-secret@db/weda"}, flags={})

    assert "a-secret" not in f"{settings!r} {settings.redacted()}"
    assert settings.redacted()["journal"]["url"] == REDACTED


def test_an_address_of_something_else_is_refused():
    with pytest.raises(ConfigurationError, match="WEDA_JOURNAL__URL"):
        Settings.load(environment={"WEDA_JOURNAL__URL": "mysql://db/weda"}, flags={})
