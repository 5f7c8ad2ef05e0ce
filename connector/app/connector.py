"""The composition root: builds every object, and owns start and stop as numbered steps."""

import asyncio
import contextlib
import gc
import ipaddress
import math
import resource
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import structlog
import uvicorn

from connector import supervision
from connector.app.canary import Canary, Uncounted
from connector.app.files import Rotation
from connector.delivery.delivery import Delivery
from connector.delivery.duplicates import Duplicates, DuplicatesFile
from connector.delivery.lanes import JournaledLanes, LaneCounts
from connector.delivery.order import LocalOrder, Order
from connector.errors import ConfigurationError, ConnectorError, OutsideUnreachable, Unavailable
from connector.intake import dead_letters
from connector.intake.pipeline import Counts, Pipeline, Reader
from connector.intake.reprocessing import DeadLetters
from connector.journal.model import Contents, Journal, JournalState
from connector.journal.sqlite import SqliteJournal
from connector.kafka.embedded import EmbeddedBroker
from connector.kafka.publisher import Failure, FailureKind, KafkaPublisher, Publisher, producer_properties
from connector.kafka.reader import Decoded, read_records, record_at
from connector.kafka.registry import Registry, Subject, resolve, subjects
from connector.kafka.timestamps import Timestamps
from connector.kafka.topics import Broker, TopicAdmin, TopicSpec, TopicState, canaries, canary_routes, routes_of, wanted
from connector.message.encoding import Framing, RegistryFraming, SingleObjectFraming
from connector.message.ingest_ids import IngestIds
from connector.message.redact import Privacy
from connector.message.routes import DEAD_LETTERS, Routes
from connector.message.schemas import Schema
from connector.operations import SECONDS_BETWEEN, Context, History, KafkaReader, operations_app
from connector.operations.timeline import LOOK_BACK
from connector.receiver.application import Receiver
from connector.receiver.authentication import Authentication, Credentials
from connector.receiver.connection import SWEEP_SECONDS, Listener, sweep
from connector.receiver.rates import Rates
from connector.receiver.single_use import SingleUse
from connector.receiver.tls import Files, ServerTls
from connector.receiver.tracing import RequestSpans, TracedPublisher, Tracing
from connector.replicas.journal import Link, SharedJournal
from connector.replicas.lease import MESSAGE_TIMEOUT_SECONDS, LeasedPublisher
from connector.replicas.order import SharedOrder
from connector.settings import EMBEDDED, Settings
from connector.settings.webhooks import secret_bytes
from connector.telemetry import logs
from connector.telemetry.health import Health
from connector.telemetry.metrics import Metrics
from connector.telemetry.recent import Recent
from connector.values import ProducibleRecord, Request

VERSION: Final = version("weda-kafka-connector")

ACCEPTS_PER_ITERATION: Final = 16
"""Connections to a listener that one turn of the event loop accepts."""

_ASK_AT_START_SECONDS: Final = 1.0
_CREATE_SECONDS: Final = 15.0
_ASK_SECONDS: Final = 3.0
_REPLICA_ASKS_SECONDS: Final = 1.0
"""How often a replica asks the brokers: the others hear of each answer."""

_AGAIN_SECONDS: Final = 0.5
_UNCONNECTED_SECONDS: Final = 20.0
_ISOLATED: Final = "Kafka answers another replica and not this one, which lets nothing in: look at its network and node"
_TOPICS_SECONDS: Final = 30.0
_GAUGES_SECONDS: Final = 0.5
_RESERVE_MILLISECONDS: Final = 10_000
_RESERVE_SECONDS: Final = 4.0
_DIRECT_SECONDS: Final = 1.0
_RESTART_SECONDS: Final = 5.0
_REGISTRY_SECONDS: Final = 15.0
_RATE_SECONDS: Final = 30.0
_LAG_SECONDS: Final = 0.05
_CLOCKS_DIFFER: Final = (
    "the clock of this machine and the brokers' are too far apart for the topic's message.timestamp.after.max.ms or "
    "message.timestamp.before.max.ms: set the clocks (NTP); what waits is then published with the time of then"
)
_FLOOR: Final = "ingest_floor"
_EVENTS: Final = "events"
_STOP_SHARE: Final = 0.3
_LOG = structlog.get_logger("connector.app")


class Connector:
    """A running connector.

    Args:
        settings: The effective settings.
        reload: Reads them again, and the files that they come from; none where they stay as they are.
        restarts: How often this process has started anew, by reason; counted on.

    Attributes:
        url: Of the public listener, once it is up.
        operations_url: Of the operations listener.
        must_restart: Set when the journal is damaged, or its lease has run out: only a new start can go on.

    Raises:
        ConfigurationError: The settings do not make a connector.
    """

    def __init__(
        self, settings: Settings, reload: "Reload | None" = None, restarts: Counter[str] | None = None
    ) -> None:
        if settings.kafka.bootstrap_servers is None:
            raise ConfigurationError(
                "WEDA_KAFKA__BOOTSTRAP_SERVERS is not set: give the brokers as host:port,host:port, "
                "or embedded for a broker in memory"
            )
        self._settings = settings
        self._reload = reload
        self._rotation = Rotation()
        self._stack = contextlib.AsyncExitStack()
        self._watchers: set[asyncio.Task[None]] = set()
        self._privacy = _privacy(settings)
        self._reader = Reader(ZoneInfo(settings.timezone), self._privacy)
        self._topic_limits: dict[str, int] = {}
        self._is_topic_missing = False
        self._partitions: dict[str, int] = {}
        self._leaving = _Rate()
        self._topics_differ = asyncio.Event()
        self._tracing = Tracing(VERSION) if settings.tracing.enabled else None
        self.routes = routes_of(settings)
        self._canaries = canaries(settings)
        self._is_replica = settings.journal.url is not None
        self._shared: SharedJournal | None = None
        self._receiver_app: Receiver | None = None
        self.health = Health(settings.journal.max_bytes, needs_journal=self._is_replica)
        self.metrics = Metrics(
            version=VERSION,
            sources=settings.sources,
            streams=settings.streams,
            journal_is_shared=self._is_replica,
        )
        self._timestamps = Timestamps(self.metrics.timestamp_replaced)
        if not self._canaries:
            self.metrics.without_canary()
        self.recent = Recent(settings.sources, self._reader.read)
        self.bootstrap_servers = settings.kafka.bootstrap_servers
        self.url = ""
        self.operations_url = ""
        self.must_restart = asyncio.Event()
        self._restarts = Counter() if restarts is None else restarts
        self.metrics.restarted(self._restarts)
        self.context = self._context()

    async def start(self) -> None:
        """Start, step by step; each step leaves behind what undoes it.

        Raises:
            ConfigurationError: A port or the journal cannot be used.
            OutsideUnreachable: Another process holds the journal.
        """
        settings = self._settings
        # 1. The listeners' ports: a second connector on this machine fails here, before it touches anything.
        public = _bind(self._public_host(), settings.receiver.port, "WEDA_RECEIVER__PORT")
        self._stack.callback(public.close)
        operations = _bind(settings.operations.host, settings.operations.port, "WEDA_OPERATIONS__PORT")
        self._stack.callback(operations.close)
        if self._tracing is not None:
            self._stack.push_async_callback(self._tracing.stop)
        # 2. The journal: what an earlier run has accepted.
        journal = self._journal()
        contents = await journal.open()
        self.health.vital.needs("journal", lambda: journal.lives)
        self._stack.push_async_callback(journal.close)
        if isinstance(journal, SqliteJournal):  # it has a ledger
            self._stack.push_async_callback(self._add_direct, journal)
        self.metrics.recovered(contents)
        self.metrics.journal_limit.set(settings.journal.max_bytes)
        # 3. The operations listener, so that probes see the rest come; it is the last but one to go.
        self.operations_url = await self._serve_operations(operations)
        # 4. What was seen, and the ids that were used.
        duplicates = await self._open_duplicates()
        may_fail = [Unavailable] if self._is_replica else []  # its database may come later
        floor = 0
        with contextlib.suppress(*may_fail):
            floor = await journal.recall(_FLOOR)
        ingest_ids = IngestIds(floor)
        with contextlib.suppress(*may_fail):
            await self._reserve(journal, ingest_ids)
        # 5. The ids of the schemas, where there is a registry.
        framing = await self._framing()
        # 6. The broker in memory, where that is asked for.
        self._start_embedded()
        # 7. The publisher, and delivery with what the journal held.
        delivery, order = await self._start_delivery(journal, contents, duplicates)
        self._watch("lag", self._measure_lag)
        # 8. The topics; while the brokers are away, messages go to the journal.
        admin = TopicAdmin(self.bootstrap_servers, settings.kafka.properties)
        await self._try_to_connect(admin, delivery, _ASK_AT_START_SECONDS)
        self._watch("brokers", partial(self._connect_and_watch, admin, delivery))
        self._watch("gauges", partial(self._set_gauges, journal, delivery))
        self._watch("ids", partial(self._keep_reserving, journal, ingest_ids))
        if isinstance(journal, SqliteJournal):
            self._watch("ledger", partial(self._keep_adding_direct, journal))
        self._watch("history", self._keep_history)
        # 9. The public listener; the canary and replayed dead letters, which go in behind its door.
        pipeline = partial(
            self._pipeline,
            order=order,
            duplicates=duplicates,
            ingest_ids=ingest_ids,
            framing=framing,
        )
        if self._canaries:
            self._watch("canary", partial(self._run_canary, delivery, pipeline(canary_routes(settings), Uncounted())))
        main = pipeline(self.routes, self.metrics)
        self._open_context(main, journal, order)
        self._receiver_app = receiver = self._receiver(main, order)
        self.url = await self._serve_receiver(receiver, public)
        self._stack.callback(self._close_receiver, receiver)
        self.health.is_open = True
        # 10. What may change while it runs: credentials, certificates, the properties of the Kafka clients.
        self._follow_files(admin)
        _LOG.info("the connector is up", url=self.url, operations_url=self.operations_url, version=VERSION)

    async def stop(self) -> None:
        """Undo the steps of the start, in reverse: close the door, deliver or journal the rest, give up the journal."""
        if not self.url:
            await self._stack.aclose()  # it never came up: the error that is on its way says why
            return
        _LOG.info("the connector is shutting down")
        await self._stack.aclose()
        _LOG.info("the connector has stopped")

    # --- the parts ---

    def _journal(self) -> SqliteJournal | SharedJournal:
        settings = self._settings
        url = _revealed(settings.journal.url)
        if url is None:
            return SqliteJournal(
                settings.journal.path,
                max_bytes=settings.journal.max_bytes,
                on_damage=partial(self._restart, "journal"),
            )
        self._shared = SharedJournal(
            linked(url),
            max_bytes=settings.journal.max_bytes,
            repeats_within=settings.repeats.window_seconds,
            most_repeats=settings.repeats.max_entries,
            on_loss=partial(self._restart, "lease"),
        )
        return self._shared

    def _restart(self, reason: str) -> None:
        """Only a new start can go on: in the same process, with nothing of the old one's state but this count."""
        self._restarts[reason] += 1
        self.metrics.restarted(self._restarts)
        self.must_restart.set()

    def _public_host(self) -> str:
        settings = self._settings
        if settings.credentials_exist or settings.auth == "none" or _is_loopback(settings.receiver.host):
            return settings.receiver.host
        _LOG.warning(
            "there is no credential (WEDA_TOKEN, WEDA_SOURCES): listening on loopback only; "
            "WEDA_AUTH=none opens it to all"
        )
        return "127.0.0.1"

    async def _open_duplicates(self) -> Duplicates:
        settings = self._settings
        duplicates = Duplicates(
            window_seconds=settings.repeats.window_seconds,
            max_entries=settings.repeats.max_entries,
            is_written=not self._is_replica,
        )
        if self._is_replica:
            return duplicates
        file = DuplicatesFile(settings.journal.path.with_name(settings.journal.path.name + ".repeats"), duplicates)
        await file.start()
        self.health.vital.needs("duplicates", lambda: file.lives)
        self._stack.push_async_callback(file.stop)
        return duplicates

    def _start_embedded(self) -> None:
        if self.bootstrap_servers != EMBEDDED:
            return
        broker = EmbeddedBroker()
        self._stack.callback(lambda: broker)  # it lives as long as the connector
        self.bootstrap_servers = broker.bootstrap_servers
        _LOG.warning(
            "the broker is embedded: records are in memory only and are gone with this process; nothing is durable",
            bootstrap_servers=self.bootstrap_servers,
        )

    async def _start_delivery(
        self, journal: Journal, contents: Contents, duplicates: Duplicates
    ) -> tuple[Delivery, Order]:
        self.publisher = KafkaPublisher(self._producer_properties(), on_rebuild=self.metrics.producer_rebuilds.inc)
        await self.publisher.start()
        self.health.vital.needs("publisher", lambda: self.publisher.lives)
        tracing = self._tracing
        publisher = self.publisher if tracing is None else TracedPublisher(self.publisher, tracing.tracer)
        delivery, order = self._order(publisher, journal, contents, duplicates)
        self.health.vital.needs("replay", lambda: delivery.lives)
        grace = self._settings.receiver.shutdown_grace_seconds * (1 - _STOP_SHARE)
        self._stack.push_async_callback(delivery.stop, grace)
        self._stack.push_async_callback(self._end_watchers)
        return delivery, order

    def _order(
        self, publisher: Publisher, journal: Journal, contents: Contents, duplicates: Duplicates
    ) -> tuple[Delivery, Order]:
        """Choose the order of a connector with its own journal, or of a replica."""
        if self._shared is None:
            counts = LaneCounts(contents.lanes)
            delivery = self._delivery(publisher, journal, contents, counts)
            return delivery, LocalOrder(delivery, duplicates, counts)
        shared = self._shared
        delivery = self._delivery(LeasedPublisher(publisher, shared.lease), journal, contents, shared.remote_lanes)
        patience = self._settings.receiver.reply_deadline_seconds
        order = SharedOrder(shared, delivery, duplicates, self.metrics, reply_deadline_seconds=patience)
        self._stack.push_async_callback(order.stop)
        return delivery, order

    def _delivery(
        self, publisher: Publisher, journal: Journal, contents: Contents, journaled: JournaledLanes
    ) -> Delivery:
        return Delivery(
            publisher,
            journal,
            contents,
            ledger=self.metrics,
            make_dead_letter=self._dead_letter_of_refusal,
            publish_wait_seconds=self._settings.kafka.publish_wait_seconds,
            journaled=journaled,
            restamp=self._timestamps.taken,
        )

    def _producer_properties(self) -> dict[str, Any]:
        properties = producer_properties(self.bootstrap_servers, self._settings.kafka.properties)
        if self._is_replica:  # nothing may leave the queue after the lease
            properties["message.timeout.ms"] = int(MESSAGE_TIMEOUT_SECONDS * 1000)
        return properties

    async def _framing(self) -> Framing:
        settings = self._settings
        self.metrics.registry_up.set(1)
        if settings.registry.url is None:
            return SingleObjectFraming()
        registry = self._stack.enter_context(Registry(settings.registry))
        wanted_subjects = subjects((*self.routes.all, *self._canaries))
        cache = settings.journal.path.with_name(settings.journal.path.name + ".schemas")
        resolved = await asyncio.to_thread(
            resolve, registry, wanted_subjects, cache, auto_register=settings.registry.auto_register
        )
        self.metrics.registry_up.set(resolved.from_registry)
        self.context.schema_ids.update(resolved.ids)
        self._watch("registry", partial(self._watch_registry, registry, wanted_subjects, resolved.ids))
        return RegistryFraming(resolved.ids)

    def _context(self) -> Context:
        settings = self._settings
        return Context(
            version=VERSION,
            settings=lambda: self._settings.redacted(),  # noqa: PLW0108 - the settings of now, not of the start
            health=self.health,
            history=History(self.metrics.registry),
            recent=self.recent,
            routes=self.routes.all,
            is_loopback=_is_loopback(settings.operations.host),
            is_embedded=settings.kafka.bootstrap_servers == EMBEDDED,
        )

    def _open_context(self, pipeline: Pipeline, journal: Journal, order: Order) -> None:
        """Let people work with what the connector has."""
        self.context.reader = KafkaReader(
            self._read_dead_letter, self._read_event, self._read_instance, self._read_topics
        )
        self.context.dead_letters = DeadLetters(
            pipeline, journal, order, sources=self._settings.sources, read=self._read_dead_letters
        )
        self._stack.push_async_callback(self.context.dead_letters.stop)

    def _reached_kafka(self) -> tuple[str, Mapping[str, Any]]:
        """Addresses and properties for a reader.

        Raises:
            OutsideUnreachable: The connector does not reach Kafka now: no reader has to wait for that.
        """
        if self.health.kafka == "down":
            raise OutsideUnreachable(self.health.problems.get("brokers", "Kafka does not answer"))
        return self.bootstrap_servers, self._settings.kafka.properties

    def _read_dead_letters(self) -> Iterator[Decoded]:
        where = self._reached_kafka()
        for topic in self.routes.dead_letter_topics:
            yield from read_records(*where, stream=DEAD_LETTERS, topic=topic, from_beginning=True, until_end=True)

    def _read_dead_letter(self, topic: str, partition: int, offset: int) -> Decoded | None:
        if topic not in self.routes.dead_letter_topics:
            return None
        where = self._reached_kafka()
        return record_at(*where, stream=DEAD_LETTERS, topic=topic, partition=partition, offset=offset)

    def _read_event(self, topic: str, partition: int, offset: int) -> Decoded | None:
        if topic not in self._event_topics:
            return None
        where = self._reached_kafka()
        with self._schemas_by_id() as by_id:
            return record_at(*where, stream=_EVENTS, topic=topic, partition=partition, offset=offset, by_id=by_id)

    def _read_instance(self, instance_id: str) -> Iterator[Decoded]:
        where = self._reached_kafka()
        with self._schemas_by_id() as by_id:
            for topic in self._event_topics:
                yield from read_records(
                    *where,
                    stream=_EVENTS,
                    topic=topic,
                    by_id=by_id,
                    back=LOOK_BACK,
                    until_end=True,
                    key=instance_id,
                )

    @property
    def _event_topics(self) -> list[str]:
        return [route.topic for route in self.routes.all if route.stream.name == _EVENTS]

    @contextlib.contextmanager
    def _schemas_by_id(self) -> Iterator[Callable[[int], Schema] | None]:
        """What gives the schema that the registry has under an id, where there is a registry."""
        if self._settings.registry.url is None:
            yield None
            return
        with Registry(self._settings.registry) as registry:
            yield registry.schema

    def _read_topics(self) -> tuple[tuple[TopicSpec, ...], dict[str, TopicState], tuple[Broker, ...]]:
        admin = TopicAdmin(*self._reached_kafka())
        brokers = admin.each_broker(_ASK_SECONDS)
        return wanted(self._settings), admin.describe(self.routes.topics, _ASK_SECONDS), brokers

    def _pipeline(
        self,
        routes: Routes,
        counts: Counts,
        *,
        order: Order,
        duplicates: Duplicates,
        ingest_ids: IngestIds,
        framing: Framing,
    ) -> Pipeline:
        settings = self._settings
        return Pipeline(
            routes=routes,
            framing=framing,
            order=order,
            duplicates=duplicates,
            ingest_ids=ingest_ids,
            metrics=counts,
            reader=self._reader,
            max_in_flight=settings.receiver.max_in_flight,
            reply_deadline_seconds=settings.receiver.reply_deadline_seconds,
            topic_limits=self._topic_limits,
        )

    def _receiver(self, pipeline: Pipeline, order: Order) -> Receiver:
        settings = self._settings
        self._authentication = Authentication(
            _credentials(settings), open_without=settings.auth == "none" or not settings.credentials_exist
        )
        self._rates = Rates(_rates(settings))
        return Receiver(
            self._authentication,
            pipeline,
            self.metrics,
            self.recent,
            max_body_bytes=settings.receiver.max_body_bytes,
            max_in_flight=settings.receiver.max_in_flight,
            rates=self._rates,
            single_use=SingleUse(order),
            trusted_proxies=settings.receiver.trusted_proxies,
            on_begin=None if self._tracing is None else RequestSpans(self._tracing.tracer).begin,
        )

    async def _serve_operations(self, listener: socket.socket) -> str:
        settings = self._settings.operations
        self._guard = operations_app(
            self.metrics.registry,
            self.context,
            token=_revealed(settings.token),
            on_refused=self.metrics.operations_refused,
        )
        if settings.token is None and not self.context.is_loopback:
            _LOG.warning(
                "WEDA_OPERATIONS__TOKEN is not set: beyond loopback the operations listener gives metrics and probes "
                "alone"
            )
        tls = self._tls(Files.of(settings.tls_certificate, settings.tls_key, None, setting="WEDA_OPERATIONS"))
        return await self._serve("operations", self._guard, listener, tls, Listener.operations())

    async def _serve_receiver(self, receiver: Receiver, listener: socket.socket) -> str:
        settings = self._settings.receiver
        tls = self._tls(
            Files.of(settings.tls_certificate, settings.tls_key, settings.tls_client_ca, setting="WEDA_RECEIVER")
        )
        bounds = Listener.public(receiver, settings.max_connections, self.metrics.connection_refused)
        return await self._serve("receiver", receiver, listener, tls, bounds)

    def _tls(self, files: Files | None) -> ServerTls | None:
        if files is None:
            return None
        tls = ServerTls(files)
        self._rotation.follow(lambda: files.all, partial(self._reloading, files.setting, tls.reload))
        return tls

    async def _serve(
        self, part: str, app: Any, listener: socket.socket, tls: ServerTls | None, bounds: Listener
    ) -> str:
        config = uvicorn.Config(
            app,
            http=bounds.protocol,  # type: ignore[arg-type]  # uvicorn only calls it
            ws="none",
            lifespan="off",
            loop="none",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            ssl_context_factory=None if tls is None else lambda _config, _default: tls.context,
            timeout_graceful_shutdown=max(int(self._settings.receiver.shutdown_grace_seconds * _STOP_SHARE), 1),
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=duplicated_listeners(listener)))
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn tells of its start by a flag
            await asyncio.sleep(0.005)

        async def end() -> None:
            server.should_exit = True
            await task

        self._stack.push_async_callback(end)
        self.health.vital.needs(part, lambda: not task.done())
        self._watch("connections", partial(self._keep_sweeping, server))
        host, port = listener.getsockname()[:2]
        return f"{'http' if tls is None else 'https'}://{f'[{host}]' if ':' in host else host}:{port}"

    @staticmethod
    async def _keep_sweeping(server: uvicorn.Server) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            sweep(server.server_state.connections)

    def _close_receiver(self, receiver: Receiver) -> None:
        self.health.is_closing = True
        receiver.is_closing = True

    async def _run_canary(self, delivery: Delivery, pipeline: Pipeline) -> None:
        """Let the canary go once its topic is there."""
        settings = self._settings
        self.metrics.canary_starts(settings.canary.interval_seconds)
        while not delivery.is_connected:  # noqa: ASYNC110 - once a start
            await asyncio.sleep(_AGAIN_SECONDS)
        canary = Canary(
            pipeline,
            self._canaries[0].topic,
            watch=self.metrics,
            bootstrap_servers=self.bootstrap_servers,
            properties=settings.kafka.properties,
            interval_seconds=settings.canary.interval_seconds,
        )
        await canary.run()

    # --- what may change while it runs ---

    def _follow_files(self, admin: TopicAdmin) -> None:
        if self._reload is not None:
            reload = self._reload
            take = partial(self._reloading, "settings", partial(self._take_settings, admin))
            self._rotation.follow(lambda: reload.files, take)
        self._rotation.follow(self._kafka_files, partial(self._exchange_clients, admin))
        self._watch("files", self._rotation.run)

    def _reloading(self, about: str, act: Callable[[], None]) -> None:
        """Read changed files; what cannot be read leaves everything as it is, and is told."""
        try:
            act()
        except ConfigurationError as error:
            self.metrics.reloads.labels("failed").inc()
            self._note_problem(about, error.message)
            return
        self.metrics.reloads.labels("applied").inc()
        self._note_problem(about, "")
        _LOG.info("changed files were read", about=about)

    def _take_settings(self, admin: TopicAdmin) -> None:
        """Take over what may change: credentials, rates, the privacy key, the properties of the Kafka clients."""
        if self._reload is None:
            return
        before, newer = self._settings, self._reload.load()
        self._settings = settings = before.rotated(newer)
        self._authentication.replace(_credentials(settings))
        self._rates.replace(_rates(settings))
        self._guard.renew(_revealed(settings.operations.token))
        if self._privacy is not None:
            self._privacy.take_key(_revealed(settings.privacy.key))
        if settings.kafka.properties != before.kafka.properties:
            self._exchange_clients(admin)
        changed = ", ".join(settings.changed(newer))
        self._note_problem("restart", f"changed, and in effect only after a restart: {changed}" if changed else "")

    def _kafka_files(self) -> list[Path]:
        """Certificates and keys that the Kafka clients have read at their making."""
        properties = self._settings.kafka.properties
        return [Path(str(path)) for name, path in properties.items() if name.endswith(".location")]

    def _exchange_clients(self, admin: TopicAdmin) -> None:
        properties = self._settings.kafka.properties
        self.publisher.exchange(self._producer_properties())
        admin.exchange(self.bootstrap_servers, properties)

    # --- the watchers ---

    def _watch(self, part: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.create_task(supervision.forever(part, work))
        self._watchers.add(task)
        self.health.vital.needs(part, lambda: not task.done())

    async def _end_watchers(self) -> None:
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)

    async def _connect_and_watch(self, admin: TopicAdmin, delivery: Delivery) -> None:
        """Connect if that is still to be done, then look at brokers and topics again and again."""
        while not delivery.is_connected:
            await self._try_to_connect(admin, delivery, _ASK_SECONDS)
            await asyncio.sleep(_AGAIN_SECONDS)
        looked = time.monotonic()
        while True:
            within = _ASK_SECONDS if self._shared is None else _REPLICA_ASKS_SECONDS
            if await self._do_topics_differ(within=within) or self._is_topic_missing:
                looked = -_TOPICS_SECONDS
            try:
                await asyncio.to_thread(admin.brokers, _ASK_SECONDS)
                self._note_brokers(is_up=True)
                if self.publisher.unconnected_seconds >= _UNCONNECTED_SECONDS:
                    self.publisher.renew()
                if time.monotonic() - looked >= _TOPICS_SECONDS:
                    await self._look_at_topics(admin)
                    looked = time.monotonic()
            except ConnectorError as error:
                self._note_brokers(is_up=False, problem=error.message)

    def _dead_letter_of_refusal(
        self, request: Request, records: tuple[ProducibleRecord, ...], failure: Failure
    ) -> ProducibleRecord:
        """The dead letter of what Kafka refused: the topics' limits are other ones than were read."""
        self._topics_differ.set()
        topic = self.routes.dead_letter_topic(request.source)
        return dead_letters.of_refusal(topic, request, records, failure)

    async def _do_topics_differ(self, *, within: float) -> bool:
        """Whether Kafka said, within so many seconds, something of the topics that is new here."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._topics_differ.wait()
        was_set = self._topics_differ.is_set()
        self._topics_differ.clear()
        return was_set

    async def _try_to_connect(self, admin: TopicAdmin, delivery: Delivery, seconds: float) -> None:
        """Create missing topics and let delivery publish, if the brokers answer within so many seconds."""
        try:
            await asyncio.to_thread(admin.brokers, seconds)
            await self._look_at_topics(admin)
        except ConnectorError as error:
            self._note_brokers(is_up=False, problem=error.message)
        else:
            self._note_brokers(is_up=True)
            delivery.connect()

    async def _look_at_topics(self, admin: TopicAdmin) -> None:
        """See what the topics are like; make those that are missing, at the start or since then, where that is ours."""
        if self._settings.kafka.bootstrap_servers == EMBEDDED:
            self.metrics.durability_degraded.set(1)
            return  # they make themselves, and cannot be described
        states = await asyncio.to_thread(admin.describe, self._topics, _ASK_SECONDS)
        missing = [spec for spec in wanted(self._settings) if spec.name not in states]
        if missing and self._settings.topics.create:
            await self._create(admin, missing)
            states = await asyncio.to_thread(admin.describe, self._topics, _ASK_SECONDS)
        for name, state in states.items():
            self._topic_limits[name] = state.max_message_bytes
            self._timestamps.note(state)
            self._note_partitions(state)
        degraded = [name for name, state in states.items() if not state.is_durable]
        self.metrics.durability_degraded.set(1 if degraded else 0)
        self._note_problem(
            "durability", f"weaker than 3 replicas and 2 in sync: {', '.join(degraded)}" if degraded else ""
        )
        absent = [name for name in self._topics if name not in states]
        self._note_problem("topics", f"missing: {', '.join(absent)}" if absent else "")

    async def _create(self, admin: TopicAdmin, missing: Sequence[TopicSpec]) -> None:
        names = [spec.name for spec in missing]
        lost = [name for name in names if name in self._partitions]
        await asyncio.to_thread(admin.create, missing, _CREATE_SECONDS)
        if lost:
            _LOG.warning("topics were gone, and are created again, empty", topics=lost)
        else:
            _LOG.info("topics created", topics=names)

    @property
    def _topics(self) -> tuple[str, ...]:
        return (*self.routes.topics, *(route.topic for route in self._canaries))

    def _note_partitions(self, state: TopicState) -> None:
        before = self._partitions.setdefault(state.name, state.partitions)
        if before != state.partitions:
            self.metrics.partition_count_changed.set(1)
            self._note_problem("partitions", f"{state.name} went from {before} to {state.partitions}")

    def _note_brokers(self, *, is_up: bool, problem: str = "") -> None:
        self.metrics.broker_up.set(1 if is_up else 0)
        self.health.kafka = "up" if is_up else "down"
        if self._shared is not None:
            self._shared.note_kafka(answers=is_up)
        self._note_problem("brokers", problem)

    def _note_problem(self, about: str, problem: str) -> None:
        if problem and self.health.problems.get(about) != problem:
            _LOG.warning("a problem outside", about=about, problem=problem)
        if problem:
            self.health.problems[about] = problem
        else:
            self.health.problems.pop(about, None)

    async def _watch_registry(
        self, registry: Registry, wanted_subjects: Sequence[Subject], ids: Mapping[str, int]
    ) -> None:
        """Tell whether the registry answers, and whether it still has our ids; nothing waits for it."""
        while True:
            try:
                found = {each.topic: await asyncio.to_thread(registry.id_of, each) for each in wanted_subjects}
                changed = [topic for topic, schema_id in found.items() if schema_id != ids[topic]]
                self._note_problem("registry", f"it has other ids now for {', '.join(changed)}" if changed else "")
                self.metrics.registry_up.set(1)
            except ConnectorError as error:
                self._note_problem("registry", error.message)
                self.metrics.registry_up.set(0)
            await asyncio.sleep(_REGISTRY_SECONDS)

    async def _set_gauges(self, journal: Journal, delivery: Delivery) -> None:
        while True:
            try:
                async with asyncio.timeout(_ASK_SECONDS):
                    state = await journal.state()
                    if self._shared is not None:
                        await self._count_rows(self._shared, state)
                self._note_lost_journal(state.lost)
                self.health.journal_bytes = None if state.lost else state.size_bytes
                self.health.waiting_since = delivery.waiting_since(state.oldest)
                self._note_problem("journal", state.lost)
            except (TimeoutError, Unavailable) as error:
                self.health.journal_bytes = None
                cause = "" if self._shared is None else self._shared.problem
                self._note_problem("journal", cause or str(error) or "it does not answer")
            self._publish_gauges(delivery)
            self._look_at_process()
            await asyncio.sleep(_GAUGES_SECONDS)

    async def _count_rows(self, shared: SharedJournal, state: JournalState) -> None:
        """Report the rows of a shared journal, which the ledger of one replica does not know."""
        self.metrics.journal_counts({} if state.oldest is None else await shared.waiting_by_source())

    def _note_lost_journal(self, lost: str) -> None:
        """Without its file the journal keeps nothing for a restart, not even how far ids have gone: take nothing."""
        self.health.is_journal_lost = bool(lost)
        if self._receiver_app is not None:
            self._receiver_app.is_journal_lost = bool(lost)

    def _look_at_process(self) -> None:
        """Show what this process cannot do; a part that has ended is not to be had without a new start."""
        self.metrics.process_counts(supervision.restarts, logs.dropped_lines())
        self._note_problem("log", logs.problem())
        dead = self.health.dead
        self._note_problem("parts", f"ended: {', '.join(dead)}" if dead else supervision.problem())
        if dead and not self.must_restart.is_set():
            _LOG.error("parts of the connector have ended; starting again as a whole", parts=dead)
            self._restart("part")

    def _publish_gauges(self, delivery: Delivery) -> None:
        health = self.health
        health.is_isolated = self._shared is not None and self._shared.is_isolated
        self._note_problem("replica", _ISOLATED if health.is_isolated else "")
        self._note_failing(delivery.failing)
        health.backlog = delivery.waiting_rows
        health.waiting = self.metrics.waiting
        self._leaving.note(delivery.removed)
        health.leaving_rate = self._leaving.rate
        if health.kafka in {"up", "stalled"}:
            health.kafka = "stalled" if delivery.is_stalled else "up"
        self.metrics.ready.set(health.is_ready)
        self.metrics.journal_up.set(health.journal_bytes is not None)
        self.metrics.journal_bytes.set(health.journal_bytes or 0)
        self.metrics.journal_room.set(health.journal_room_bytes)
        self.metrics.journal_oldest_age.set(health.oldest_age_seconds)
        self.metrics.published_through.set(time.time() - health.oldest_age_seconds)
        self.metrics.settle_ledger()

    def _note_failing(self, failing: Mapping[str, Failure]) -> None:
        """Say why Kafka does not take records; look at the topics anew where one is missing."""
        self._note_problem("publishing", "; ".join(f"{topic}: {_reason(one)}" for topic, one in failing.items()))
        is_missing = any(failure.is_of_missing_topic for failure in failing.values())
        if is_missing and not self._is_topic_missing:
            self._topics_differ.set()
        self._is_topic_missing = is_missing

    async def _measure_lag(self) -> None:
        """Measure, again and again, how late the event loop comes to what is due."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_SECONDS
            await asyncio.sleep(_LAG_SECONDS)
            self.metrics.event_loop_lag.observe(loop.time() - due)

    async def _keep_reserving(self, journal: Journal, ingest_ids: IngestIds) -> None:
        while True:
            await asyncio.sleep(_RESERVE_SECONDS)
            try:
                await self._reserve(journal, ingest_ids)
            except Unavailable as error:
                _LOG.warning("the journal did not take the reservation of ids", reason=error.message)

    async def _keep_adding_direct(self, journal: SqliteJournal) -> None:
        while True:
            await asyncio.sleep(_DIRECT_SECONDS)
            await self._add_direct(journal)

    async def _keep_history(self) -> None:
        while True:
            self.context.history.take()
            await asyncio.sleep(SECONDS_BETWEEN)

    async def _add_direct(self, journal: SqliteJournal) -> None:
        """Tell the journal's ledger what was published without it."""
        taken = self.metrics.take_published_directly()
        try:
            await journal.add_direct(taken)
        except Unavailable as error:
            self.metrics.return_published_directly(taken)
            _LOG.warning("the journal did not take the ledger", reason=error.message)

    @staticmethod
    async def _reserve(journal: Journal, ingest_ids: IngestIds) -> None:
        """Note durably how far ids may go, so that none goes backwards after a restart, clock steps included."""
        latest = max(time.time_ns() // 1_000_000, ingest_ids.latest)
        await journal.remember(_FLOOR, latest + _RESERVE_MILLISECONDS)


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to the connector."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _Rate:
    """How fast a count grows, a second: the nearer past weighs more, by exponential decay."""

    def __init__(self) -> None:
        self._count = 0
        self._at = time.monotonic()
        self.rate = 0.0

    def note(self, count: int) -> None:
        """Take in the count of now."""
        now = time.monotonic()
        elapsed = max(now - self._at, 0.001)
        weight = 1 - math.exp(-elapsed / _RATE_SECONDS)
        self.rate += weight * ((count - self._count) / elapsed - self.rate)
        self._count, self._at = count, now


@dataclass(frozen=True, slots=True)
class Reload:
    """How to read the settings again.

    Attributes:
        load: Reads them; raises ConfigurationError.
        files: What they come from.
    """

    load: Callable[[], Settings]
    files: tuple[Path, ...]


async def run(settings: Settings, reload: Reload | None = None) -> None:
    """Run a connector until SIGTERM, SIGINT or SIGHUP; anew where its journal turned out to be damaged."""
    _raise_open_files()
    ended = asyncio.Event()
    _take_signals(ended)
    restarts: Counter[str] = Counter()
    while not ended.is_set():
        await _run_once(settings, ended, reload, restarts)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RESTART_SECONDS):
                await ended.wait()


def _take_signals(ended: asyncio.Event) -> None:
    """SIGTERM, SIGINT and SIGHUP stop the connector in good order; SIGUSR1 and SIGUSR2 are logged, and that is all."""
    loop = asyncio.get_running_loop()
    is_kept_running = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # by nohup
    for number in (signal.SIGTERM, signal.SIGINT, *(() if is_kept_running else (signal.SIGHUP,))):
        loop.add_signal_handler(number, ended.set)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        loop.add_signal_handler(number, partial(_LOG.warning, "a signal without a meaning here", signal=number.name))


async def _run_once(settings: Settings, ended: asyncio.Event, reload: Reload | None, restarts: Counter[str]) -> None:
    connector = Connector(settings, reload, restarts)
    try:
        await connector.start()
        _freeze_garbage_collector()
        ends = [asyncio.create_task(event.wait()) for event in (ended, connector.must_restart)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()
    finally:
        await connector.stop()


def _freeze_garbage_collector() -> None:
    """What the start has built stays: keep the garbage collector from walking over it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _reason(failure: Failure) -> str:
    """Why Kafka does not take a record, and what to do where that is not for the brokers' operators to know."""
    said = f"{failure.name} ({failure.detail})"
    return f"{said}: {_CLOCKS_DIFFER}" if failure.kind is FailureKind.TIMESTAMP else said


def _bind(host: str, port: int, setting: str) -> socket.socket:
    """Take a port; connections are refused until its server listens."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise ConfigurationError(f"{setting}: cannot listen on {host}:{port} ({error.strerror})") from error
    return listener


def duplicated_listeners(listener: socket.socket) -> list[socket.socket]:
    """A listener and copies of it: the event loop accepts one connection of each in a turn.

    A turn under load takes as long as all who are connected already need; with a single listener, a thousand senders
    who come at once would be let in one by one, the last of them after minutes.
    """
    return [listener, *(listener.dup() for _ in range(ACCEPTS_PER_ITERATION - 1))]


def _raise_open_files() -> None:
    """Connections are bounded by our own setting, not by the shell's habit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _credentials(settings: Settings) -> dict[str, Credentials]:
    return {
        name: Credentials(
            tokens=tuple(one.get_secret_value() for one in source.tokens),
            secrets=tuple(secret_bytes(one.get_secret_value()) for one in source.secrets),
            certificates=source.certificates,
            networks=source.networks,
        )
        for name, source in settings.sources.items()
    }


def _rates(settings: Settings) -> dict[str, float]:
    return {name: source.rate for name, source in settings.sources.items() if source.rate is not None}


def _privacy(settings: Settings) -> Privacy | None:
    asked = settings.privacy
    if not asked.redact and not asked.pseudonyms:
        return None
    return Privacy(asked.redact, asked.pseudonyms, _revealed(asked.key))


def linked(url: str) -> Callable[[str], Link]:
    """What makes connections to the database of a shared journal.

    Raises:
        ConfigurationError: The client of PostgreSQL is not installed.
    """
    try:
        from connector.replicas.database import DatabaseLink  # noqa: PLC0415 - its client is installed on demand
    except ImportError as error:
        raise ConfigurationError(
            "WEDA_JOURNAL__URL: the client of PostgreSQL is not installed: add the extra postgresql "
            "(pip install '.[postgresql]' in the checkout)"
        ) from error
    return partial(DatabaseLink, url)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _revealed(secret: Any) -> str | None:
    return None if secret is None else secret.get_secret_value()
