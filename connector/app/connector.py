"""The composition root: builds every object, and starts and stops the connector in numbered steps."""

import asyncio
import contextlib
import socket
import weakref
from collections import Counter
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from typing import Any, Final
from zoneinfo import ZoneInfo

import structlog

from connector.app.brokers import ASK_AT_START_SECONDS, RETRY_SECONDS, BrokerWatch, TopicChanges
from connector.app.canary import Canary, Uncounted
from connector.app.certificates import watch_certificates
from connector.app.gauges import Gauges
from connector.app.reload import Reload, Reloader
from connector.app.server import HttpServer, bind
from connector.app.watch import (
    FLOOR,
    Restarts,
    Watchers,
    add_direct,
    count_letters,
    keep_adding_direct,
    keep_history,
    keep_reserving,
    measure_lag,
    reserve,
    watch_registry,
)
from connector.delivery.delivery import Delivery
from connector.delivery.duplicates import Duplicates, DuplicatesFile
from connector.delivery.lanes import JournaledLanes, LaneCounts
from connector.delivery.order import Idempotency, LocalOrder, Order
from connector.errors import ConfigurationError, Unavailable
from connector.intake import dead_letters
from connector.intake.dead_letter_count import DeadLetterCount
from connector.intake.pipeline import Counts, Pipeline
from connector.intake.reprocessing import DeadLetterReprocessor
from connector.journal.model import Contents, Journal
from connector.journal.paths import DEDUP_SUFFIX, SCHEMAS_SUFFIX, sibling
from connector.journal.sqlite import SqliteJournal
from connector.kafka.embedded import EmbeddedBroker
from connector.kafka.limits import TopicLimits
from connector.kafka.publisher import Failure, KafkaPublisher, Publisher, producer_properties
from connector.kafka.registry import Registry, Resolved, resolve
from connector.kafka.topics import TopicAdmin, canaries, canary_routes, routes_of
from connector.message.decoding import MessageDecoder
from connector.message.encoding import Framing, RegistryFraming, SingleObjectFraming
from connector.message.ingest_ids import IngestIds
from connector.message.redact import Redaction
from connector.message.routes import Routes
from connector.operations.console import ROOT as CONSOLE
from connector.operations.context import Context, RunningParts
from connector.operations.history import History
from connector.operations.kafka_reader import KafkaReader
from connector.operations.listener import operations_app
from connector.receiver.application import Receiver
from connector.receiver.authentication import Authentication, Credentials
from connector.receiver.connection import ConnectionBounds
from connector.receiver.limits import RateLimiter
from connector.receiver.replay_protection import ReplayProtection
from connector.receiver.tls import ServerTls, TlsFiles
from connector.receiver.tracing import RequestSpans
from connector.replicas.connections import postgres_connections
from connector.replicas.journal import SharedJournal
from connector.replicas.lease import MESSAGE_TIMEOUT_SECONDS, LeasedPublisher
from connector.replicas.order import SharedOrder
from connector.settings import EMBEDDED, Settings, is_loopback
from connector.settings.signing_secrets import secret_bytes
from connector.telemetry.health import Health
from connector.telemetry.metrics import Metrics
from connector.telemetry.recent import Recent
from connector.telemetry.tracing import TracedPublisher, Tracing
from connector.values import ProducibleRecord, Request

VERSION: Final = version("weda-kafka-connector")

# The part of the grace period that requests in progress get; delivery has the rest to flush and to write the journal.
_STOP_SHARE: Final = 0.3
_LOG = structlog.get_logger()


class Connector:
    """A running connector.

    Attributes hold what several steps of the start share; whatever a single step needs is local to it.

    Args:
        settings: The effective settings.
        reload: Reads the settings again; None if they never change.
        restarts: Restarts within this process by reason, carried over from one connector to the next.

    Attributes:
        url: Address of the public listener; empty until it is up.
        operations_url: Address of the operations listener; empty until it is up.
        bootstrap_servers: The brokers as ``host:port``; for the embedded broker its actual address.

    Raises:
        ConfigurationError: The settings name no brokers.
    """

    def __init__(self, settings: Settings, reload: Reload | None = None, restarts: Counter[str] | None = None) -> None:
        if settings.kafka.bootstrap_servers is None:
            raise ConfigurationError(
                "WEDA_KAFKA__BOOTSTRAP_SERVERS is not set: give the brokers as host:port,host:port, "
                "or embedded for a broker in memory"
            )
        self._settings = settings
        self._stack = contextlib.AsyncExitStack()
        self.bootstrap_servers = settings.kafka.bootstrap_servers
        if self.bootstrap_servers == EMBEDDED:
            broker = EmbeddedBroker()
            self._stack.callback(lambda: broker)  # a reference: the mock cluster lives until the connector stops
            self.bootstrap_servers = broker.bootstrap_servers
        self.url = ""
        self.operations_url = ""
        self.routes = routes_of(settings)
        self.health = Health(settings.journal.max_bytes, needs_journal=self._is_replica)
        self.metrics = Metrics(
            version=VERSION,
            sources=settings.sources,
            streams=settings.streams,
            journal_is_shared=self._is_replica,
        )
        if not canaries(settings):
            self.metrics.without_canary()
        self._restarts = Restarts(Counter() if restarts is None else restarts, self.metrics)
        self._reloader = Reloader(settings, reload, self.health, self.metrics)
        self._watchers = Watchers(self.health.watchdog)
        self._tracing = Tracing(VERSION) if settings.tracing.enabled else None
        self._decoder = self._message_decoder()
        self._topic_changes = TopicChanges()
        self._topic_limits = TopicLimits(self.metrics.timestamp_replaced)
        self.publisher = KafkaPublisher(self._producer_properties(), on_rebuild=self.metrics.producer_rebuilds.inc)
        self._running: RunningParts | None = None
        self.recent = Recent(settings.sources, self._decoder.decode)
        self.context = self._context()

    async def start(self) -> None:
        """Start step by step; each step registers how to undo it.

        Raises:
            ConfigurationError: A port or the journal cannot be used.
            OutsideUnreachable: Another process holds the journal.
        """
        settings = self._settings
        # 1. The listeners' ports: a second connector on this machine fails here, before it touches anything.
        public = self._bind(self._public_host(), settings.receiver.port, "WEDA_RECEIVER__PORT")
        operations = self._bind(settings.operations.host, settings.operations.port, "WEDA_OPERATIONS__PORT")
        if self._tracing is not None:
            self._stack.push_async_callback(self._tracing.stop)
        # 2. The journal, with the messages that an earlier run accepted and did not publish.
        local: SqliteJournal | None = None
        shared: SharedJournal | None = None
        journal: SqliteJournal | SharedJournal
        if self._is_replica:
            journal = shared = self._shared_journal()
        else:
            journal = local = self._local_journal()
        contents = await journal.open()
        self.health.watchdog.watch("journal", lambda: journal.is_alive)
        self._stack.push_async_callback(journal.close)
        if local is not None:  # only a local journal has a ledger
            # Registered after the journal's close, so that it runs before it.
            self._stack.push_async_callback(add_direct, local, self.metrics)
        self.metrics.recovered(contents)
        self.metrics.journal_limit.set(settings.journal.max_bytes)
        # 3. The operations listener, so that probes can watch the rest of the start; it stops after the public one.
        self.operations_url = await self._serve_operations(operations)
        # 4. The dedup keys, and the floor of the ingest ids.
        duplicates = await self._open_duplicates()
        ingest_ids = await self._ingest_ids(journal)
        # 5. The ids of the schemas, if a registry is set.
        resolved = await self._resolve_schemas()
        framing = SingleObjectFraming() if resolved is None else RegistryFraming(resolved.ids)
        # 6. The publisher, and delivery, which starts with the messages in the journal.
        if settings.kafka.bootstrap_servers == EMBEDDED:
            _LOG.warning(
                "the broker is embedded: records are in memory only and are gone with this process; nothing is durable",
                bootstrap_servers=self.bootstrap_servers,
            )
        delivery, order = await self._start_delivery(journal, shared, contents, duplicates)
        self._watchers.start("lag", partial(measure_lag, self.metrics))
        # 7. The topics. Brokers that are away do not stop the start: messages go to the journal until they are back.
        await self._start_watching_brokers(delivery, shared)
        self._watchers.start("ids", partial(keep_reserving, journal, ingest_ids))
        if local is not None:
            self._watchers.start("ledger", partial(keep_adding_direct, local, self.metrics))
        self._watchers.start("history", partial(keep_history, self.context.history))
        # 8. The public listener, and what enters the pipeline behind it: the canary and reprocessed dead letters.
        pipeline = partial(
            self._pipeline,
            order=order,
            duplicates=duplicates,
            ingest_ids=ingest_ids,
            framing=framing,
            journal=journal,
        )
        self._start_canary(delivery, pipeline(canary_routes(settings), Uncounted()))
        main = pipeline(self.routes, self.metrics)
        receiver = self._receiver(main, order)
        self._start_gauges(journal, shared, delivery)
        self._open_console(main, journal, order, resolved, delivery)
        self.url = await self._serve_receiver(receiver, public)
        # Registered last, so that the stop begins with it: requests are refused before the listener closes.
        self._stack.callback(self._refuse_requests)
        self.health.is_open = True
        # 9. Changes while the connector runs: credentials, certificates, properties of the Kafka clients.
        self._watchers.start("files", self._reloader.run)
        certificates = partial(watch_certificates, lambda: self.settings, self.metrics)
        self._watchers.start("certificates", certificates)
        _LOG.info(
            "the connector is up",
            url=self.url,
            operations_url=self.operations_url,
            console_url=f"{self.operations_url}{CONSOLE}",
            version=VERSION,
        )

    async def stop(self) -> None:
        """Undo the steps of the start in reverse: refuse requests, deliver or journal the rest, close the journal."""
        if not self.url:
            await self._stack.aclose()  # the start failed; the exception that is being raised says why
            return
        _LOG.info("the connector is shutting down")
        await self._stack.aclose()
        _LOG.info("the connector has stopped")

    @property
    def settings(self) -> Settings:
        """The settings in effect now."""
        return self._reloader.settings

    @property
    def must_restart(self) -> asyncio.Event:
        """Set when only a restart helps: the journal is damaged, the lease has run out, or a part has ended."""
        return self._restarts.requested

    @property
    def _is_replica(self) -> bool:
        """Whether the journal is in a database that replicas share."""
        return self._settings.journal.url is not None

    # --- before the start ---

    def _message_decoder(self) -> MessageDecoder:
        """The decoder of messages, with redaction if the settings ask for it."""
        privacy = self._settings.privacy
        zone = ZoneInfo(self._settings.timezone)
        if not privacy.redact and not privacy.pseudonyms:
            return MessageDecoder(zone)
        redaction = Redaction(privacy.redact, privacy.pseudonyms, _revealed(privacy.key))
        self._reloader.on_settings(lambda settings: redaction.replace_key(_revealed(settings.privacy.key)))
        return MessageDecoder(zone, redaction)

    def _context(self) -> Context:
        settings = self._settings
        return Context(
            version=VERSION,
            settings=lambda: self.settings,
            health=self.health,
            history=History(self.metrics.registry, self.health),
            recent=self.recent,
            routes=self.routes.all,
            is_loopback=is_loopback(settings.operations.host),
            is_embedded=settings.kafka.bootstrap_servers == EMBEDDED,
            running=lambda: self._running,
        )

    def _kafka_connection(self) -> tuple[str, Mapping[str, Any]]:
        """Brokers and librdkafka properties as they are now: credentials may have been rotated since the start."""
        return self.bootstrap_servers, self.settings.kafka.properties

    def _producer_properties(self) -> dict[str, Any]:
        properties = producer_properties(*self._kafka_connection())
        if self._is_replica:  # librdkafka must not send a record after the lease: its lane may have another owner then
            properties["message.timeout.ms"] = int(MESSAGE_TIMEOUT_SECONDS * 1000)
        return properties

    # --- 1. and 2. ports and journal ---

    def _bind(self, host: str, port: int, setting: str) -> socket.socket:
        listener = bind(host, port, setting)
        self._stack.callback(listener.close)
        return listener

    def _public_host(self) -> str:
        settings = self._settings
        if settings.credentials_exist or settings.auth == "none" or is_loopback(settings.receiver.host):
            return settings.receiver.host
        _LOG.warning(
            "there is no credential (WEDA_TOKEN, WEDA_SOURCES): listening on loopback only; "
            "WEDA_AUTH=none opens it to all"
        )
        return "127.0.0.1"

    def _local_journal(self) -> SqliteJournal:
        settings = self._settings.journal
        on_damage = partial(self._restarts.request, "journal")
        return SqliteJournal(settings.path, max_bytes=settings.max_bytes, on_damage=on_damage)

    def _shared_journal(self) -> SharedJournal:
        settings = self._settings
        return SharedJournal(
            postgres_connections(_revealed(settings.journal.url) or ""),
            max_bytes=settings.journal.max_bytes,
            dedup_window_seconds=settings.repeats.window_seconds,
            max_dedup_keys=settings.repeats.max_entries,
            on_loss=partial(self._restarts.request, "lease"),
        )

    # --- 3. and 8. the listeners ---

    async def _serve_operations(self, listener: socket.socket) -> str:
        settings = self._settings.operations
        # By a weak reference: FastAPI keeps the endpoints of every application in a cache, and with them the connector.
        guard = operations_app(
            self.metrics.registry,
            weakref.proxy(self.context),
            token=_revealed(settings.token),
            on_rejected=self.metrics.operations_rejected,
        )
        self._reloader.on_settings(lambda newer: guard.replace_token(_revealed(newer.operations.token)))
        if settings.token is None and not self.context.is_loopback:
            _LOG.warning(
                "WEDA_OPERATIONS__TOKEN is not set: beyond loopback the operations listener gives metrics and probes "
                "alone"
            )
        files = TlsFiles.of(settings.tls_certificate, settings.tls_key, None, setting="WEDA_OPERATIONS")
        return await self._serve(
            "operations", guard, listener, self._reloader.tls(files), ConnectionBounds.operations()
        )

    async def _serve_receiver(self, receiver: Receiver, listener: socket.socket) -> str:
        settings = self._settings.receiver
        files = TlsFiles.of(settings.tls_certificate, settings.tls_key, settings.tls_client_ca, setting="WEDA_RECEIVER")
        bounds = ConnectionBounds.public(receiver, settings.max_connections, self.metrics.connection_turned_away)
        return await self._serve("receiver", receiver, listener, self._reloader.tls(files), bounds)

    async def _serve(
        self, part: str, app: Any, listener: socket.socket, tls: ServerTls | None, bounds: ConnectionBounds
    ) -> str:
        grace = max(int(self._settings.receiver.shutdown_grace_seconds * _STOP_SHARE), 1)
        server = HttpServer(app, listener, bounds, tls, grace_seconds=grace)
        await server.start()
        self._stack.push_async_callback(server.stop)
        self.health.watchdog.watch(part, lambda: server.is_alive)
        self._watchers.start("connections", server.keep_sweeping)
        return server.url

    def _refuse_requests(self) -> None:
        self.health.is_closing = True

    # --- 4. and 5. duplicates, ids, schemas ---

    async def _open_duplicates(self) -> Duplicates:
        settings = self._settings
        duplicates = Duplicates(
            window_seconds=settings.repeats.window_seconds,
            max_entries=settings.repeats.max_entries,
            is_written=not self._is_replica,
        )
        if self._is_replica:
            return duplicates
        file = DuplicatesFile(sibling(settings.journal.path, DEDUP_SUFFIX), duplicates)
        await file.start()
        self.health.watchdog.watch("duplicates", lambda: file.is_alive)
        self._stack.push_async_callback(file.stop)
        return duplicates

    async def _ingest_ids(self, journal: Journal) -> IngestIds:
        may_fail = [Unavailable] if self._is_replica else []  # the shared database may come up after this replica
        floor = 0
        with contextlib.suppress(*may_fail):
            floor = await journal.read_note(FLOOR)
        ingest_ids = IngestIds(floor)
        with contextlib.suppress(*may_fail):
            await reserve(journal, ingest_ids)
        return ingest_ids

    async def _resolve_schemas(self) -> Resolved | None:
        settings = self._settings
        self.metrics.registry_up.set(1)
        if settings.registry.url is None:
            return None
        registry = self._stack.enter_context(Registry(settings.registry))
        routes = (*self.routes.all, *canaries(settings))
        cache = sibling(settings.journal.path, SCHEMAS_SUFFIX)
        resolved = await asyncio.to_thread(
            resolve, registry, routes, cache, auto_register=settings.registry.auto_register
        )
        self.metrics.registry_up.set(resolved.from_registry)
        watch = partial(watch_registry, registry, routes, resolved.ids, self.health, self.metrics)
        self._watchers.start("registry", watch)
        return resolved

    # --- 6. and 7. delivery and brokers ---

    async def _start_delivery(
        self, journal: Journal, shared: SharedJournal | None, contents: Contents, duplicates: Duplicates
    ) -> tuple[Delivery, Order]:
        await self.publisher.start()
        self.health.watchdog.watch("publisher", lambda: self.publisher.is_alive)
        tracing = self._tracing
        publisher = self.publisher if tracing is None else TracedPublisher(self.publisher, tracing.tracer)
        if shared is None:
            delivery, order = self._local_order(publisher, journal, contents, duplicates)
        else:
            delivery, order = self._shared_order(publisher, shared, contents, duplicates)
        self.health.watchdog.watch("replay", lambda: delivery.is_alive)
        grace = self._settings.receiver.shutdown_grace_seconds * (1 - _STOP_SHARE)
        self._stack.push_async_callback(delivery.stop, grace)
        # The watchers use delivery, so they stop before it.
        self._stack.push_async_callback(self._watchers.stop)
        return delivery, order

    def _local_order(
        self, publisher: Publisher, journal: Journal, contents: Contents, duplicates: Duplicates
    ) -> tuple[Delivery, Order]:
        counts = LaneCounts(contents.lanes)
        delivery = self._delivery(publisher, journal, contents, counts)
        assert contents.next_sequence is not None, "only a shared journal has none"  # noqa: S101 - for the type checker
        return delivery, LocalOrder(delivery, duplicates, counts, contents.next_sequence)

    def _shared_order(
        self, publisher: Publisher, shared: SharedJournal, contents: Contents, duplicates: Duplicates
    ) -> tuple[Delivery, Order]:
        self.publisher.failure_now = shared.lease.failure_now
        delivery = self._delivery(LeasedPublisher(publisher, shared.lease), shared, contents, shared.lanes)
        deadline = self._settings.receiver.reply_deadline_seconds
        order = SharedOrder(shared, delivery, duplicates, self.metrics, reply_deadline_seconds=deadline)
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
            make_dead_letter=self._dead_letter_of_rejection,
            publish_wait_seconds=self._settings.kafka.publish_wait_seconds,
            journaled=journaled,
            restamp=self._topic_limits.restamp,
        )

    def _dead_letter_of_rejection(
        self, request: Request, records: tuple[ProducibleRecord, ...], failure: Failure
    ) -> ProducibleRecord:
        """The dead letter of a message that Kafka rejected."""
        self._topic_changes.signal()  # the pipeline checked the topic's limits, so they may have changed
        topic = self.routes.dead_letter_topic(request.source)
        return dead_letters.for_rejection(topic, request, records, failure)

    async def _start_watching_brokers(self, delivery: Delivery, shared: SharedJournal | None) -> None:
        admin = TopicAdmin(*self._kafka_connection())
        self._reloader.on_properties(lambda: self._replace_properties(admin))
        brokers = BrokerWatch(
            self._settings,
            admin,
            delivery,
            self.publisher,
            shared=shared,
            changes=self._topic_changes,
            limits=self._topic_limits,
            health=self.health,
            metrics=self.metrics,
        )
        await brokers.connect(ASK_AT_START_SECONDS)
        self._watchers.start("brokers", brokers.run)

    def _replace_properties(self, admin: TopicAdmin) -> None:
        self.publisher.replace_properties(self._producer_properties())
        admin.replace_properties(self.settings.kafka.properties)

    # --- 8. pipeline, receiver, canary, gauges, console ---

    def _pipeline(
        self,
        routes: Routes,
        counts: Counts,
        *,
        order: Order,
        duplicates: Duplicates,
        ingest_ids: IngestIds,
        framing: Framing,
        journal: Journal,
    ) -> Pipeline:
        settings = self._settings
        return Pipeline(
            routes=routes,
            framing=framing,
            order=order,
            duplicates=duplicates,
            ingest_ids=ingest_ids,
            metrics=counts,
            decoder=self._decoder,
            max_in_flight=settings.receiver.max_in_flight,
            reply_deadline_seconds=settings.receiver.reply_deadline_seconds,
            topic_limits=self._topic_limits,
            write_note=journal.write_note,
        )

    def _receiver(self, pipeline: Pipeline, idempotency: Idempotency) -> Receiver:
        settings = self._settings
        authentication = Authentication(
            _credentials(settings), allow_anonymous=settings.auth == "none" or not settings.credentials_exist
        )
        rate_limiter = RateLimiter(_rates(settings))
        self._reloader.on_settings(lambda newer: authentication.replace_credentials(_credentials(newer)))
        self._reloader.on_settings(lambda newer: rate_limiter.replace_rates(_rates(newer)))
        receiver = Receiver(
            authentication,
            pipeline,
            self.metrics,
            self.recent,
            max_body_bytes=settings.receiver.max_body_bytes,
            max_in_flight=settings.receiver.max_in_flight,
            rate_limiter=rate_limiter,
            replay_protection=ReplayProtection(
                idempotency, reply_deadline_seconds=settings.receiver.reply_deadline_seconds
            ),
            health=self.health,
            trusted_proxies=settings.receiver.trusted_proxies,
            code_only=_code_only(settings),
            on_begin=None if self._tracing is None else RequestSpans(self._tracing.tracer).begin,
        )
        self._reloader.on_settings(lambda newer: receiver.replace_code_only(_code_only(newer)))
        return receiver

    def _start_canary(self, delivery: Delivery, pipeline: Pipeline) -> None:
        routes = canaries(self._settings)
        if not routes:
            return
        canary = Canary(
            pipeline,
            routes[0].topic,
            metrics=self.metrics,
            connection=self._kafka_connection,
            interval_seconds=self._settings.canary.interval_seconds,
        )
        self._reloader.on_properties(canary.reconnect)

        async def run() -> None:
            self.metrics.canary_starts(self._settings.canary.interval_seconds)
            while not delivery.topics_ready:  # noqa: ASYNC110 - only at the start, until the canary's topic exists
                await asyncio.sleep(RETRY_SECONDS)
            await canary.run()

        self._watchers.start("canary", run)

    def _start_gauges(self, journal: Journal, shared: SharedJournal | None, delivery: Delivery) -> None:
        gauges = Gauges(
            journal,
            shared,
            delivery,
            changes=self._topic_changes,
            restarts=self._restarts,
            health=self.health,
            metrics=self.metrics,
        )
        self._watchers.start("gauges", gauges.run)

    def _open_console(
        self, pipeline: Pipeline, journal: Journal, order: Order, resolved: Resolved | None, delivery: Delivery
    ) -> None:
        """Give the operations listener the parts that it needs for more than probes."""
        reader = KafkaReader(self.bootstrap_servers, lambda: self.settings, self.health)
        letters = DeadLetterReprocessor(
            pipeline,
            journal,
            order,
            count_in_journal=order.dead_letters_in_journal,
            sources=self._settings.sources,
            read=reader.dead_letters,
        )
        self._stack.push_async_callback(letters.stop)
        self._stack.push_async_callback(self.context.catalog.stop)
        waiting = DeadLetterCount(self.routes.dead_letter_topics, reader.connection_arguments)
        count = partial(count_letters, waiting, journal, delivery, self.health, self.metrics)
        self._watchers.start("letters", count)
        self._running = RunningParts(letters, journal, reader, {} if resolved is None else resolved.ids)


def _credentials(settings: Settings) -> dict[str, Credentials]:
    return {
        name: Credentials(
            tokens=tuple(token.get_secret_value() for token in source.tokens),
            secrets=tuple(secret_bytes(secret.get_secret_value()) for secret in source.secrets),
            certificates=source.certificates,
            networks=source.networks,
        )
        for name, source in settings.sources.items()
    }


def _rates(settings: Settings) -> dict[str, float]:
    return {name: source.rate for name, source in settings.sources.items() if source.rate is not None}


def _code_only(settings: Settings) -> frozenset[str]:
    return frozenset(name for name, source in settings.sources.items() if source.answers == "code-only")


def _revealed(secret: Any) -> str | None:
    return None if secret is None else secret.get_secret_value()
