"""Checks settings, brokers, topics, registry, journal and clock.

Each check examines one thing, changes nothing that others use, and says what to do if something is wrong.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp

from connector import endpoints
from connector.clock import now_ms
from connector.delivery.completion import Completion
from connector.errors import ConfigurationError, ConnectorError, OutsideUnreachable
from connector.kafka.errors import LOG_NOTHING
from connector.kafka.publisher import Failures, KafkaPublisher, producer_properties
from connector.kafka.reader import TopicReader, read_records
from connector.kafka.registry import Registry
from connector.kafka.topics import (
    Broker,
    Difference,
    TopicAdmin,
    TopicSpec,
    TopicState,
    desired_topics,
    plan,
    routes_of,
)
from connector.lookup.topics import EVENTS
from connector.message import weda
from connector.message.routes import DEAD_LETTERS, STREAMS, Routes
from connector.replicas.connections import postgres_connections
from connector.replicas.database import DatabaseUnreachable, StatementError
from connector.settings import DEFAULT_SOURCE, EMBEDDED, Settings, is_loopback
from connector.text import counted
from connector.values import ProducibleRecord

Verdict = Literal["ok", "warning", "failed", "skipped"]

MARK: Final = "weda-connector-doctor"
"""The ``processKey`` of the message that the doctor sends through a connector."""

_TIMEOUT_SECONDS: Final = 10.0
_REACH_SECONDS: Final = 5.0
_ROUND_TRIP_SECONDS: Final = 20.0
_SYNCS: Final = 8
_SLOW_SYNC_MILLISECONDS: Final = 50.0
_MAX_SKEW_SECONDS: Final = 5.0
_CHECK_RETENTION_MS: Final = 3_600_000
_MIN_CLOCK_SECONDS: Final = 1_700_000_000  # in November 2023, before the first release
_INSTANCE_PREFIX: Final = "doctor-"
_OK: Final = 200
_ROUND_TRIP: Final = "end to end"
_THROUGH_CONNECTOR: Final = "through the connector"
_DISK: Final = "journal disk"
_DATABASE: Final = "journal database"
_REPLICAS_AND_ROWS: Final = (
    "SELECT (SELECT count(replica_id) FROM weda_replica WHERE reaches_kafka), (SELECT count(*) FROM weda_row)"
)
_NOT_MIGRATED: Final = frozenset({"42P01", "42703"})  # no such table, no such column
_CLOCK: Final = "clock"
_SET_CLOCK: Final = "let NTP (chrony, systemd-timesyncd) set the clock"
_MOUNTS: Final = Path("/proc/self/mountinfo")
_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs"})
_REMOTE_FUSE: Final = ("fuse.sshfs", "fuse.s3fs", "fuse.glusterfs", "fuse.ceph", "fuse.gcsfuse", "fuse.rclone")
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: What was checked.
        verdict: ``failed`` if it keeps the connector from working, or from keeping its promise.
        found: The result in a sentence.
        to_do: What to do about it, or an empty text.
    """

    check: str
    verdict: Verdict
    found: str
    to_do: str = ""


def examine(
    settings: Settings, url: str | None = None, on_check: Callable[[str], None] = lambda _name: None
) -> Iterator[Finding]:
    """Run the checks, and yield each finding as soon as it is known.

    Args:
        settings: The effective settings.
        url: The public listener of a running connector, to send one marked message through; None sends none.
        on_check: Called with the name of a check that begins and may take a while.
    """
    yield from _access(settings)
    on_check("brokers")
    yield from _kafka(settings, url, on_check)
    on_check("registry")
    yield from _registry(settings)
    if settings.journal.url is None:
        on_check(_DISK)
        yield from _journal(settings)
    else:
        on_check(_DATABASE)
        yield _database(settings.journal.url.get_secret_value())
    yield _clock(settings)


# --- who may do what ---


def _access(settings: Settings) -> Iterator[Finding]:
    if settings.credentials_exist:
        yield Finding("credentials", "ok", "every request needs a token")
    elif settings.auth == "none":
        yield Finding("credentials", "warning", "anyone may send (WEDA_AUTH=none)", "set WEDA_TOKEN")
    else:
        yield Finding("credentials", "warning", "none: serve listens on loopback only", "set WEDA_TOKEN")
    if settings.operations.token is None and not is_loopback(settings.operations.host):
        found = f"the operations listener is on {settings.operations.host} without a token: it shows no contents"
        yield Finding("operations", "warning", found, "set WEDA_OPERATIONS__TOKEN to use console and replay")


# --- Kafka ---


def _kafka(settings: Settings, url: str | None, on_check: Callable[[str], None]) -> Iterator[Finding]:
    servers = settings.kafka.bootstrap_servers
    if servers is None:
        yield Finding("brokers", "failed", "none are set", "set WEDA_KAFKA__BOOTSTRAP_SERVERS to host:port,host:port")
        return
    if servers == EMBEDDED:
        yield Finding("brokers", "warning", "embedded: in memory, nothing is durable", "name real brokers")
        return
    admin = TopicAdmin(servers, settings.kafka.properties)
    try:
        brokers = admin.each_broker(_REACH_SECONDS)
    except ConnectorError as error:
        yield Finding("brokers", "failed", error.message, _way_out(error))
        return
    yield _answering(servers, brokers)
    on_check("topics")
    # A failure here does not end the checks: the round trip below may show what is behind it.
    try:
        yield from _topics(settings, admin, {broker.node_id for broker in brokers if not broker.answers})
    except ConnectorError as error:
        yield Finding("topics", "failed", error.message, _way_out(error))
    on_check(_ROUND_TRIP)
    yield _round_trip(settings, servers, admin)
    if url is not None:
        on_check(_THROUGH_CONNECTOR)
        yield _through_connector(settings, servers, url)


def _answering(servers: str, brokers: Sequence[Broker]) -> Finding:
    silent = [broker.address for broker in brokers if not broker.answers]
    if not silent:
        return Finding(
            "brokers",
            "ok",
            f"{counted(len(brokers), 'broker')} at {servers}: every one answers and accepts our credentials",
        )
    found = f"{len(brokers) - len(silent)} of {len(brokers)} answer; these do not: {', '.join(silent)}"
    # One broker of three may be away: topics should have 3 replicas, and need 2 in sync.
    verdict: Verdict = "failed" if 2 * len(silent) >= len(brokers) else "warning"
    return Finding("brokers", verdict, found, "see that they run, and that this machine reaches them")


def _way_out(error: ConnectorError) -> str:
    if isinstance(error, OutsideUnreachable):
        return "check the address, the network, TLS (security.protocol) and that the brokers run"
    return "check user, password and ACLs: WEDA_KAFKA__PROPERTIES, and the ACL named in the message"


def _topics(settings: Settings, admin: TopicAdmin, silent: Collection[int]) -> Iterator[Finding]:
    specs = desired_topics(settings)
    actual = admin.describe((spec.name for spec in specs), _TIMEOUT_SECONDS)
    differences = plan(specs, actual)
    missing = [difference.topic for difference in differences if difference.action == "create"]
    if missing:
        yield _missing(settings, missing)
    yield from (_difference(difference) for difference in differences if difference.action != "create")
    yield from _durability(actual)
    yield from _replicas(actual, silent)
    rights = admin.rights([state.name for state in actual.values()], _TIMEOUT_SECONDS)
    yield from _rights(rights)
    if actual and not missing and not differences:
        yield Finding("topics", "ok", f"{len(actual)} as the settings ask for them")


def _missing(settings: Settings, missing: list[str]) -> Finding:
    found = f"{len(missing)} missing: {', '.join(missing)}"
    if settings.topics.create:
        return Finding("topics", "ok", f"{found}; serve creates them")
    return Finding("topics", "failed", found, "weda-connector topics apply, or set WEDA_TOPICS__CREATE=true")


def _difference(difference: Difference) -> Finding:
    found = f"{difference.topic}: {difference.what} is {difference.actual}, the settings say {difference.wanted}"
    # More partitions would move keys to other partitions: of an instance, newer records could be read first.
    if difference.what == "partitions":
        return Finding(
            "partitions",
            "warning",
            found,
            "set WEDA_TOPICS__PARTITIONS to the actual count: order is not kept across a change",
        )
    return Finding(
        "topics", "warning", found, "weda-connector topics plan shows the details; topics apply changes what it can"
    )


def _durability(actual: Mapping[str, TopicState]) -> Iterator[Finding]:
    unwritable = [topic.name for topic in actual.values() if topic.min_insync_replicas > topic.replication_factor]
    if unwritable:
        found = f"min.insync.replicas is over the number of replicas: {', '.join(unwritable)}"
        yield Finding("min.insync.replicas", "failed", found, "lower it to at most the replicas: topics apply does")
    weak = [topic.name for topic in actual.values() if not topic.is_durable]
    if weak:
        found = f"weaker than 3 replicas with 2 in sync: {', '.join(weak)}"
        yield Finding(
            "min.insync.replicas", "warning", found, "losing a broker can lose records: 3 brokers, replication 3"
        )
    elif actual:
        yield Finding("min.insync.replicas", "ok", "every topic has 3 replicas or more, 2 of them in sync")


def _replicas(actual: Mapping[str, TopicState], silent: Collection[int]) -> Iterator[Finding]:
    """Check that enough replicas are in sync, on brokers that answer."""
    # Metadata lists a broker that has just died as in sync for some seconds, so silent brokers do not count.
    in_sync = {topic.name: topic.smallest_isr(silent) for topic in actual.values()}
    unwritable = [topic.name for topic in actual.values() if in_sync[topic.name] < topic.min_insync_replicas]
    if unwritable:
        found = f"too few replicas in sync, so that Kafka takes no record now: {', '.join(unwritable)}"
        yield Finding("replicas in sync", "failed", found, "bring the brokers back that hold the others")
    incomplete = [
        topic.name
        for topic in actual.values()
        if in_sync[topic.name] < topic.replication_factor and topic.name not in unwritable
    ]
    if incomplete:
        found = f"replicas are missing: {', '.join(incomplete)}"
        yield Finding("replicas in sync", "warning", found, "bring the brokers back that hold them, or wait")


def _rights(rights: Mapping[str, frozenset[str] | None]) -> Iterator[Finding]:
    # None means that Kafka did not say, which is no finding.
    known = {name: operations for name, operations in rights.items() if operations is not None}
    unwritable = [name for name, operations in known.items() if "WRITE" not in operations]
    if unwritable:
        found = f"this user may not write {', '.join(unwritable)}"
        yield Finding("ACLs", "failed", found, "grant Write and Describe on these topics")
    unreadable = [name for name, operations in known.items() if "READ" not in operations]
    if unreadable:
        found = f"this user may not read {', '.join(unreadable)}"
        yield Finding("ACLs", "warning", found, "grant Read to use console, tail and replay of dead letters")
    if known and not unwritable and not unreadable:
        yield Finding("ACLs", "ok", "this user may write and read every topic")


# --- one message, end to end ---


def _round_trip(settings: Settings, servers: str, admin: TopicAdmin) -> Finding:
    """Publish a record to the doctor's own topic and read it back."""
    # A prefix may have placeholders in braces, which a topic's name may not.
    topic = f"{settings.topics.prefix.replace('{', '').replace('}', '')}.doctor"
    # The brokers' timestamp is their clock, to compare ours with.
    config = {"retention.ms": str(_CHECK_RETENTION_MS), "message.timestamp.type": "LogAppendTime"}
    try:
        if topic not in admin.describe([topic], _TIMEOUT_SECONDS):
            admin.create([TopicSpec(topic, 1, settings.topics.replication_factor, config)], _TIMEOUT_SECONDS)
    except ConfigurationError as error:  # skipped, not failed: only this check needs the topic
        return Finding(_ROUND_TRIP, "skipped", error.message, f"let this user create {topic}, or use --url")
    except ConnectorError as error:
        return Finding(_ROUND_TRIP, "failed", error.message, _way_out(error))
    return asyncio.run(_sent_and_read(settings, servers, topic, admin))


async def _sent_and_read(settings: Settings, servers: str, topic: str, admin: TopicAdmin) -> Finding:
    key = f"{_INSTANCE_PREFIX}{secrets.token_hex(8)}"
    record = ProducibleRecord("doctor", topic, key.encode(), MARK.encode(), (), now_ms())
    # The connector's own publisher, so that its properties are checked. It logs nothing: the finding has the error.
    publisher = KafkaPublisher(producer_properties(servers, {"log_level": LOG_NOTHING, **settings.kafka.properties}))
    reported: Completion[Failures] = Completion()
    began = time.monotonic()
    await publisher.start()
    publisher.publish((record,), reported.complete)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ROUND_TRIP_SECONDS):
            await reported
    milliseconds = (time.monotonic() - began) * 1000
    # After a timeout `stop` reports the record as failed, so that the next line always has a report.
    await publisher.stop(1)
    failure = (await reported)[0]
    if failure is not None:
        found = f"a record to {topic} was not acknowledged: {failure.name}: {failure.detail}"
        return Finding(
            _ROUND_TRIP, "failed", found, "look at the brokers (replicas in sync, leaders) and at the right to write"
        )
    return await asyncio.to_thread(_read_back, settings, servers, record, milliseconds, admin)


def _read_back(
    settings: Settings, servers: str, record: ProducibleRecord, milliseconds: float, admin: TopicAdmin
) -> Finding:
    # Values of dead letters are not decoded: the check needs neither a schema nor the registry.
    reading: dict[str, Any] = {"stream": DEAD_LETTERS, "topic": record.topic, "key": (record.key or b"").decode()}
    try:
        read_back = next(
            read_records(servers, settings.kafka.properties, from_beginning=True, until_end=True, **reading), None
        )
    except ConnectorError as error:
        return Finding(_ROUND_TRIP, "failed", error.message, _way_out(error))
    if read_back is None or read_back.value != record.value:
        return Finding(
            _ROUND_TRIP, "failed", f"a record was acknowledged and is not in {record.topic}", "look at the brokers"
        )
    seconds_ahead = (record.timestamp - read_back.timestamp) / 1000
    if abs(seconds_ahead) > _MAX_SKEW_SECONDS:
        return _clock_skew(seconds_ahead, admin.describe(routes_of(settings).topics, _TIMEOUT_SECONDS))
    return Finding(_ROUND_TRIP, "ok", f"written, acknowledged in {milliseconds:.0f} ms and read back: {record.topic}")


def _clock_skew(seconds_ahead: float, topics: Mapping[str, TopicState]) -> Finding:
    """Report the clock skew, and the topics that reject records because of it."""
    is_ahead = seconds_ahead > 0
    found = f"our clock is {abs(seconds_ahead):.0f} s {'ahead of' if is_ahead else 'behind'} the brokers'"
    unwritable = [
        topic.name
        for topic in topics.values()
        if abs(seconds_ahead) * 1000 > (topic.timestamp_after_ms if is_ahead else topic.timestamp_before_ms)
    ]
    if not unwritable:
        return Finding(_CLOCK, "warning", found, _SET_CLOCK)
    limit = f"message.timestamp.{'after' if is_ahead else 'before'}.max.ms"
    return Finding(
        _CLOCK, "failed", f"{found}, over {limit} of {', '.join(unwritable)}: their records are refused", _SET_CLOCK
    )


def _through_connector(settings: Settings, servers: str, url: str) -> Finding:
    """Send a marked message through a running connector, and read it from the topic of events."""
    instance = f"{_INSTANCE_PREFIX}{secrets.token_hex(8)}"
    source = DEFAULT_SOURCE if DEFAULT_SOURCE in settings.sources else next(iter(settings.sources))
    environment = next(iter(settings.sources[source].env_types), "pre")
    message = {"msgType": weda.INSTANCE, "instanceId": instance, "msgId": instance, "envType": environment}
    message |= {"processKey": MARK, "processName": MARK, "flowTitle": "a check by weda-connector doctor"}
    topic = Routes(STREAMS, settings.topics.prefix).topic(EVENTS, source, environment)
    reader = TopicReader(servers, settings.kafka.properties, topic, idle_seconds=_ROUND_TRIP_SECONDS)
    try:
        with contextlib.closing(reader):
            # Where to read from is fixed before the message is sent, and not by time: the topic may be large, and the
            # record's timestamp is of another clock.
            exists = bool(reader.partitions())
            if exists:
                reader.assign(from_beginning=False, back=0)
            problem = _problem_of_sending(settings, url, source, message)
            is_found = problem is None and _is_found(reader, instance, exists=exists)
    except ConnectorError as error:
        return Finding(_THROUGH_CONNECTOR, "failed", error.message, _way_out(error))
    if problem is not None:
        return problem
    if not is_found:
        found = f"accepted, and not in {topic} after {_ROUND_TRIP_SECONDS:.0f} s"
        return Finding(
            _THROUGH_CONNECTOR, "failed", found, "it is safe in the journal: see /readyz of its operations listener"
        )
    return Finding(_THROUGH_CONNECTOR, "ok", f"sent to {url}, found in {topic} under {instance}")


def _is_found(reader: TopicReader, instance: str, *, exists: bool) -> bool:
    """Whether a record of an instance comes in time, also if its topic has yet to be created."""
    if not exists:
        if not reader.await_topic():
            return False
        reader.assign(from_beginning=True, back=0)
    return any(message.key() == instance.encode() for message in reader.messages(until_end=False))


def _problem_of_sending(settings: Settings, url: str, source: str, message: Mapping[str, str]) -> Finding | None:
    """Send a message to a connector; None if it was accepted."""
    try:
        status, text = asyncio.run(_post(settings, url, source, message))
    except (aiohttp.ClientError, TimeoutError) as error:
        return Finding(
            _THROUGH_CONNECTOR,
            "failed",
            f"no connector answers at {url} ({type(error).__name__})",
            "start it; see --url",
        )
    if status != _OK or text != weda.ACCEPTED_BODY.decode():  # of a code-only source every answer has status 200
        return Finding(
            _THROUGH_CONNECTOR, "failed", f"the connector answers {status}: {text}", "the answer says what to do"
        )
    return None


async def _post(settings: Settings, url: str, source: str, message: Mapping[str, str]) -> tuple[int, str]:
    tokens = settings.sources[source].tokens
    headers = {endpoints.TOKEN_HEADER: tokens[0].get_secret_value()} if tokens else {}
    address = f"{url.rstrip('/').removesuffix(endpoints.DELIVER_PATH)}{endpoints.path_of(source)}"
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
        session.post(address, json={weda.ENVELOPE: message}) as answer,
    ):
        return answer.status, await answer.text()


# --- the registry ---


def _registry(settings: Settings) -> Iterator[Finding]:
    if settings.registry.url is None:
        yield Finding("registry", "ok", "none, not needed: records name their schema themselves")
        return
    try:
        with Registry(settings.registry) as registry:
            routes = routes_of(settings).all
            missing = [route.subject for route in routes if registry.id_of(route) is None]
    except ConnectorError as error:
        yield Finding("registry", "failed", error.message, "check WEDA_REGISTRY__URL and its credentials")
        return
    if not missing:
        yield Finding("registry", "ok", f"{settings.registry.url} has our {len(routes)} schemas")
    elif settings.registry.auto_register:
        yield Finding("registry", "ok", f"{counted(len(missing), 'subject')} missing; serve registers them")
    else:
        yield Finding("registry", "failed", f"not there: {', '.join(missing)}", "weda-connector schemas register")


# --- the journal's disk, or its database ---


def _database(url: str) -> Finding:
    connection = postgres_connections(url)("doctor")
    try:
        [(replicas, rows)] = asyncio.run(connection.execute(_REPLICAS_AND_ROWS, {}, seconds=_TIMEOUT_SECONDS))
    except StatementError as error:
        is_migrated = error.sqlstate not in _NOT_MIGRATED
        to_do = "grant what docs/scaling.md names" if is_migrated else "weda-connector journal migrate"
        return Finding(_DATABASE, "failed", str(error), to_do)
    except DatabaseUnreachable as error:
        return Finding(_DATABASE, "failed", str(error), "check WEDA_JOURNAL__URL, and that the database runs")
    finally:
        connection.close()
    return Finding(
        _DATABASE,
        "ok",
        f"the database answers: {counted(replicas, 'replica')} in reach of Kafka, {counted(rows, 'message')} waiting",
    )


def _journal(settings: Settings) -> Iterator[Finding]:
    folder = _existing(settings.journal.path.absolute().parent)
    kind = _file_system(folder)
    if kind in _NETWORK or kind in _REMOTE_FUSE:
        found = f"{folder} is on a network file system ({kind}): locks and fsync cannot be relied on"
        yield Finding(_DISK, "failed", found, "set WEDA_JOURNAL__PATH to a local disk")
    elif kind in _IN_MEMORY:
        found = f"{folder} is in memory ({kind}): what is accepted would be gone with the machine"
        yield Finding(_DISK, "failed", found, "set WEDA_JOURNAL__PATH to a disk that survives a restart")
    try:
        milliseconds = _sync_milliseconds(folder)
    except OSError as error:
        found = f"{folder} cannot be written: {error.strerror}"
        yield Finding(_DISK, "failed", found, "give this user the folder, or set WEDA_JOURNAL__PATH to another")
        return
    if milliseconds > _SLOW_SYNC_MILLISECONDS:
        found = f"a sync takes {milliseconds:.0f} ms: while Kafka is away, answers wait for it"
        yield Finding(_DISK, "warning", found, "a faster disk, or one of its own")
    else:
        yield Finding(_DISK, "ok", f"{folder} ({kind}) takes a synced write in {milliseconds:.1f} ms")
    yield _space(settings, folder)


def _space(settings: Settings, folder: Path) -> Finding:
    free, limit = shutil.disk_usage(folder).free, settings.journal.max_bytes
    used = settings.journal.path.stat().st_size if settings.journal.path.exists() else 0
    found = f"{free >> 20} MiB free, the journal may take {limit >> 20} MiB"
    # What the journal uses now is part of its limit, and is not free.
    if free + used < limit:
        return Finding("journal space", "warning", found, "free some, or set WEDA_JOURNAL__MAX_BYTES to what there is")
    return Finding("journal space", "ok", found)


def _existing(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists; `serve` creates the rest."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _file_system(folder: Path) -> str:
    """Return the type of the file system that a folder is on."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    # A line has a varying number of optional fields before " - "; the mount point is the fifth field, and the type the
    # first one behind the dash. A later mount on the same point covers an earlier one, and wins in the dict too.
    halves = (line.partition(" - ") for line in lines)
    mounts = {Path(before.split()[4]): after.split()[0] for before, _, after in halves}
    resolved = folder.resolve()
    return next((mounts[path] for path in (resolved, *resolved.parents) if path in mounts), "unknown")


def _sync_milliseconds(folder: Path) -> float:
    """Measure how long a synced write takes, as the median of several."""
    milliseconds = []
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".weda-doctor-") as file:
        for _ in range(_SYNCS):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            milliseconds.append((time.perf_counter() - began) * 1000)
    return statistics.median(milliseconds)


# --- the clock ---


def _clock(settings: Settings) -> Finding:
    """Check that the clock was set at all, and is not before the journal's last write."""
    now = time.time()
    if now < _MIN_CLOCK_SECONDS:
        return Finding(_CLOCK, "failed", f"it says {time.ctime(now)}", _SET_CLOCK)
    journal = settings.journal.path
    written = journal.stat().st_mtime if journal.exists() else 0
    if written > now + _MAX_SKEW_SECONDS:
        found = f"the journal was written {written - now:.0f} s from now: the clock has stepped back"
        return Finding(_CLOCK, "warning", found, _SET_CLOCK)
    return Finding(
        _CLOCK, "ok", f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(now))}, {settings.timezone} for dates"
    )
