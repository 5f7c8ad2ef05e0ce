"""What every test can ask for."""

import logging
import os
import re
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
import structlog
from hypothesis import settings

from tests.servers import KafkaCluster, NotInstalled, SchemaRegistry
from tests.servers.postgres import OWNER, Postgres
from tests.servers.processes import Server

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
