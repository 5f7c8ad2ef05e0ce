"""What every test can ask for."""

import logging
import os
import re
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import pytest
import structlog
from hypothesis import settings

from connector.app.connector import Connector
from connector.settings import Settings
from tests.failing_disk import FailingDisk
from tests.running import PATIENT, TOKEN, Running, Start
from tests.servers import KafkaCluster, NotInstalled, SchemaRegistry
from tests.servers.postgres import OWNER, Postgres
from tests.servers.processes import Server
from tests.waiting import equals, until

AnyServer = TypeVar("AnyServer", bound=Server)

# Started in the background, a shell has us ignore SIGINT, and whatever we start would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
settings.register_profile("ci", deadline=None, print_blob=True)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaCluster]:
    """One broker for the whole run. Tests that break brokers use `cluster` or start their own."""
    yield from _running(nodes=1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    """Three brokers, of which two must have each record; a new cluster for each module, which may break it."""
    yield from _running(nodes=3)


@pytest.fixture(scope="session")
def registry() -> Iterator[SchemaRegistry]:
    """One schema registry for the whole run; the topics' prefixes keep the tests' subjects apart."""
    with _started(SchemaRegistry.start) as registry:
        yield registry


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for the whole run, with the tables of a shared journal; `database` empties them."""
    with _started(Postgres.start) as server:
        server.migrate()
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Postgres:
    """The same, with empty tables."""
    postgres.ask("TRUNCATE weda_replica, weda_lane, weda_row, weda_dedup_key, weda_note", role=OWNER)
    return postgres


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> str:
    """A prefix that no other test has, for topics that nobody else touches."""
    test = re.sub(r"[^a-zA-Z0-9]+", "-", request.node.name)[:60].strip("-")
    return f"{test}-{secrets.token_hex(4)}"


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    made = FailingDisk()
    yield made
    made.unregister()


@pytest.fixture
def base_flags(kafka, topic_prefix, tmp_path) -> dict[str, Any]:
    """The flags of a patient connector on the session's broker."""
    return {
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "topics.prefix": topic_prefix,
        "receiver.host": "127.0.0.1",
        "receiver.port": 0,
        "operations.port": 0,
        "journal.path": tmp_path / "journal.db",
        **PATIENT,
    }


@pytest.fixture
async def start(kafka, base_flags) -> AsyncIterator[Start]:
    """Start a connector on the session's broker; flags override; whatever runs at the end is stopped.

    Where the broker answers it has made its topics: a slow one may take longer than a start waits.
    """
    started: list[Connector] = []

    async def start(**flags: Any) -> Running:
        given = {name.replace("__", "."): value for name, value in flags.items()}
        connector = Connector(Settings.load(environment={"WEDA_TOKEN": TOKEN}, flags=base_flags | given))
        started.append(connector)
        await connector.start()
        if connector.bootstrap_servers == kafka.bootstrap_servers and kafka.is_whole:
            await until(lambda: connector.health.kafka, equals("up"))
        return Running(connector)

    yield start
    for connector in started:
        await connector.stop()


@pytest.fixture
def seed() -> int:
    """A seed for the test's own chance; shown when the test fails, WEDA_TEST_SEED repeats it."""
    chosen = int(os.environ.get("WEDA_TEST_SEED") or secrets.randbits(32))
    sys.stdout.write(f"WEDA_TEST_SEED={chosen}\n")
    return chosen


def _running(*, nodes: int) -> Iterator[KafkaCluster]:
    with _started(lambda: KafkaCluster.start(nodes)) as cluster:
        yield cluster


def _started(start: Callable[[], AnyServer]) -> AnyServer:
    try:
        return start()
    except NotInstalled as error:
        missing = str(error)
    pytest.fail(missing, pytrace=False)
