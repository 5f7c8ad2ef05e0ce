"""Every file of sinks/, run as it stands there against simulated traffic, and its table compared row by row.

Only addresses, topics and folders are exchanged. What a table must hold is read from the topic by another decoder.
"""

import io
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import chdb.session
import duckdb
import fastavro
import polars as pl
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from sqlalchemy.exc import OperationalError

from connector.message.encoding import MAGIC
from connector.message.schemas import FLAT_EVENT, load
from connector.simulator.processes import PEOPLE
from tests.faults.reliability import machine
from tests.running import PATIENT_ENVIRONMENT
from tests.servers import KafkaCluster, SchemaRegistry, produce, read_topic
from tests.servers.artifacts import CONNECT, ICEBERG, PLUGINS, READERS, SPARK, products
from tests.servers.connect import Connect
from tests.servers.flink import sql_client
from tests.servers.ports import LOOPBACK, free_ports
from tests.servers.postgres import OWNER, PASSWORD, Postgres
from tests.servers.processes import ServerProcess
from tests.servers.spark import Spark
from tests.waiting import equals, wait_until

ROOT = Path(__file__).parents[2]
SINKS = ROOT / "sinks"
MODELS = ROOT / "models"
SHANGHAI = timezone(timedelta(hours=8))
PREFIX = "sinks.workflow"
INSTANCES = int(os.environ.get("SINKS_INSTANCES", "150"))
FIGURES = os.environ.get("SINKS_FIGURES")
"""Where to write what was run, for docs/sinks.md. See tools/sinks.py."""

TOKEN = "a-token-for-tests"
UP = "the connector is up"
ROWS_SECONDS = 240


Row = dict[str, Any]
Place = tuple[int, int]


@dataclass(frozen=True)
class Stage:
    """Brokers, registry and a connector with the traffic in its topics.

    Attributes:
        folder: What the files call ``/lake``.
        addresses: What the files call something → what it is in this run.
        events: Place in the topic `flat` → the record.
        state: The last record of each instance in `flat-state`.
        ledger: What was sent, a JSON object a line.
        figures: What was run, for docs/sinks.json.
    """

    folder: Path
    addresses: dict[str, str]
    events: dict[Place, Row]
    state: dict[str, Row]
    ledger: Path
    figures: dict[str, Any]

    @property
    def repeats(self) -> int:
        """How many records say again what another has said."""
        return len(self.events) - len({(row["instanceId"], row["fingerprint"]) for row in self.events.values()})

    def text(self, name: str) -> str:
        """A file of sinks/ with this run's addresses."""
        text = (SINKS / name).read_text(encoding="utf-8")
        for shown, real in self.addresses.items():
            text = text.replace(shown, real)
        return text

    def run(self, name: str, *arguments: str) -> str:
        """Run a script of sinks/; what it prints."""
        return self.execute([sys.executable, str(self.written(name)), *arguments])

    def written(self, name: str) -> Path:
        """A file of sinks/ as this run has it."""
        path = self.folder / name
        path.write_text(self.text(name), encoding="utf-8")
        return path

    def execute(self, command: list[str], given: str = "", **variables: str) -> str:
        """Run a command with this on its standard input; what it prints."""
        environment = {**os.environ, **variables}
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            cwd=self.folder,
            env=environment,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def measured(self, name: str, rows: int, *artifacts: str) -> Iterator[None]:
        """Note a recipe whose table has been found equal, and how long that took."""
        began = time.monotonic()
        yield
        run = {"artifacts": artifacts, "rows": rows, "seconds": round(time.monotonic() - began, 1)}
        self.figures["runs"][name] = run


@pytest.fixture(scope="module")
def stage(
    kafka: KafkaCluster, registry: SchemaRegistry, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("sinks")
    kafka.create_topic(f"{PREFIX}.control", partitions=1)
    receiver, operations = free_ports(2)
    settings = {
        "WEDA_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "WEDA_REGISTRY__URL": registry.url,
        "WEDA_REGISTRY__AUTO_REGISTER": "true",
        "WEDA_STREAMS": "flat,flat-state",
        "WEDA_TOPICS__PREFIX": PREFIX,
        "WEDA_TOPICS__PARTITIONS": "3",
        "WEDA_REPEATS__WINDOW_SECONDS": "1",
        "WEDA_TOKEN": TOKEN,
        "WEDA_RECEIVER__HOST": LOOPBACK,
        "WEDA_RECEIVER__PORT": str(receiver),
        "WEDA_OPERATIONS__PORT": str(operations),
        "WEDA_JOURNAL__PATH": str(folder / "journal.db"),
        **PATIENT_ENVIRONMENT,
    }
    process = ServerProcess("connector", [sys.executable, "-m", "connector", "serve"], folder, detached=False)
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("WEDA_")]:
                patch.delenv(name)
            for name, value in settings.items():
                patch.setenv(name, value)
            process.start()
        stack.callback(process.kill)
        process.wait_for_log_line(UP)
        sent = _play(f"http://{LOOPBACK}:{receiver}", folder / "ledger.jsonl")
        addresses = {
            "localhost:9092": kafka.bootstrap_servers,
            "http://localhost:8081": registry.url.removesuffix("/apis/ccompat/v7"),
            "localhost:9464": f"{LOOPBACK}:{operations}",
            "localhost:5432": f"{LOOPBACK}:{postgres.port}",
            "choose-a-long-one": PASSWORD,
            "control-iceberg": f"{PREFIX}.control",
            "weda.workflow.": f"{PREFIX}.",
            '"weda.workflow"': f'"{PREFIX}"',
            "/lake": str(folder / "lake"),
        }
        (folder / "lake").mkdir()
        # More: what was sent again because its answer was late may be there again.
        events = wait_until(partial(_read, kafka, f"{PREFIX}.flat"), lambda found: len(found) >= sent)
        last = {row["instanceId"]: row for _, row in sorted(events.items()) if row["msgType"] == "Instance"}
        deleted = {key for key, row in last.items() if row["action"] == 18 or row["instanceStatus"] == 5}
        state = {key: row for key, row in last.items() if key not in deleted}
        measured = datetime.now(UTC).date().isoformat()
        figures = {"instances": INSTANCES, "messages": sent, "machine": machine(), "measured": measured, "runs": {}}
        yield Stage(folder, addresses, events, state, folder / "ledger.jsonl", figures)
        if FIGURES:
            figures["load"] = round(os.getloadavg()[2], 1)
            Path(FIGURES).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def connect(stage: Stage) -> Iterator[Connect]:
    """One worker for all of the recipes."""
    names = ("postgresql-events", "postgresql-state", "iceberg")
    files = {name: stage.text(f"connect/{name}.properties") for name in names}
    files["iceberg"] = files["iceberg"].replace("interval-ms=60000", "interval-ms=3000")
    with Connect(stage.folder, stage.text("connect/worker.properties"), files) as worker:
        yield worker


def _play(url: str, ledger: Path) -> int:
    """Play the simulator; how many messages the connector has taken."""
    options = ["--instances", str(INSTANCES), "--seed", "7", "--overlaps", "0.1", "--ledger", str(ledger)]
    command = [sys.executable, "-m", "connector", "simulate", "--url", url, "--token", TOKEN, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    reported = json.loads(done.stdout.splitlines()[-1])
    assert reported["accepted"] == reported["sent"] > INSTANCES
    return reported["accepted"]


def _read(kafka: KafkaCluster, topic: str) -> dict[Place, Row]:
    """The records of a topic, times as epoch milliseconds; not by the connector's own reader."""
    schema = json.loads((ROOT / "avro" / f"{FLAT_EVENT}.avsc").read_text(encoding="utf-8"))
    parsed = fastavro.parse_schema(schema)
    return {
        (record.partition(), record.offset()): comparable(
            fastavro.schemaless_reader(io.BytesIO(record.value()[5:]), parsed, None)
        )
        for record in read_topic(kafka.bootstrap_servers, topic)
    }


NAMES = {
    field["name"].lower(): field["name"]
    for field in json.loads((ROOT / "avro" / f"{FLAT_EVENT}.avsc").read_text(encoding="utf-8"))["fields"]
}


def comparable(row: Row) -> Row:
    """The record's own columns by its names, whatever an engine makes of letters' case and of times."""
    return {NAMES[name.lower()]: _plain(value) for name, value in row.items() if name.lower() in NAMES}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
    if isinstance(value, Decimal | float):
        return int(value) if value == int(value) else float(value)
    return list(value) if isinstance(value, tuple) else value


def product(pom: Path, name: str, shown: str) -> str:
    """What a pom fetches, with its version."""
    return f"{shown} {products(pom)[name]}"


def of(package: str) -> str:
    """A package of Python with its version."""
    return f"{package} {version(package)}"


OF_CONNECT = (product(CONNECT, "connect", "Kafka Connect"), product(PLUGINS, "converter", "Apicurio converter"))
OF_POSTGRESQL = (*OF_CONNECT, product(PLUGINS, "debezium", "Debezium JDBC"))
OF_ICEBERG = (
    *OF_CONNECT,
    *(
        product(ICEBERG, name, shown)
        for name, shown in (("iceberg", "Iceberg"), ("hadoop", "Hadoop"), ("sqlite", "SQLite"))
    ),
    of("pyiceberg"),
)


def until_equal(expected: int, count: Callable[[], int], worker: Connect, name: str) -> None:
    """Wait until a table has as many rows; a task that failed ends it."""

    def checked() -> int:
        worker.check(name)
        return count()

    wait_until(checked, equals(expected), seconds=ROWS_SECONDS)


def _query(postgres: Postgres, sql: str) -> list[Row]:
    with psycopg.connect(postgres.url(OWNER), row_factory=psycopg.rows.dict_row) as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        return connection.execute(sql.encode()).fetchall()


def _rows_of(postgres: Postgres, table: str) -> int:
    exists = _query(postgres, f"SELECT to_regclass('{table}') AS known")[0]["known"]
    return _query(postgres, f"SELECT COUNT(*) AS rows FROM {table}")[0]["rows"] if exists else 0


def test_debezium_s_sink_appends_the_events_to_postgresql(stage: Stage, connect: Connect, postgres: Postgres):
    count = len(stage.events)
    with stage.measured("connect/postgresql-events.properties", count, *OF_POSTGRESQL):
        until_equal(count, lambda: _rows_of(postgres, "workflow_events"), connect, "weda-postgresql-events")
        rows = _query(postgres, "SELECT * FROM workflow_events")

        found = {(row["__connect_partition"], row["__connect_offset"]): comparable(row) for row in rows}
        assert found == stage.events


def test_debezium_s_sink_keeps_the_state_in_postgresql(stage: Stage, connect: Connect, postgres: Postgres):
    """Upserts by the key, and a deleted instance's row goes."""

    def rows() -> dict[str, Row]:
        if not _rows_of(postgres, "workflow_state"):
            return {}
        return {row["instanceid"]: comparable(row) for row in _query(postgres, "SELECT * FROM workflow_state")}

    with stage.measured("connect/postgresql-state.properties", len(stage.state), *OF_POSTGRESQL):
        until_equal(1, lambda: int(rows() == stage.state), connect, "weda-postgresql-state")
    assert 0 < len(stage.state) < INSTANCES


def test_iceberg_s_sink_makes_a_table_of_the_events(stage: Stage, connect: Connect):
    """Read by pyiceberg, which shares no code with what wrote it."""
    lake = stage.folder / "lake"
    catalog = SqlCatalog("iceberg", uri=f"sqlite:///{lake}/catalog.db", warehouse=f"file://{lake}/warehouse")

    def rows() -> list[Row]:
        try:
            return catalog.load_table("weda.events").scan().to_arrow().to_pylist()
        except (NoSuchTableError, OperationalError):
            return []

    with stage.measured("connect/iceberg.properties", len(stage.events), *OF_ICEBERG):
        until_equal(len(stage.events), lambda: len(rows()), connect, "weda-iceberg-events")
        assert by_place(rows()) == stage.events
    assert stage.run("iceberg.py") == f"{len(stage.events)}\n"


@pytest.fixture(scope="module")
def parquet(stage: Stage) -> str:
    """The folder with the Parquet files of sinks/parquet.py."""
    folder = str(stage.folder / "lake" / "parquet")
    with stage.measured("parquet.py", len(stage.events), of("pyarrow"), of("polars")):
        printed = stage.run("parquet.py", folder)
        assert printed == f"000000.parquet {len(stage.events)}\n"
        assert by_place(pl.read_parquet(f"{folder}/*.parquet").to_dicts()) == stage.events
    return folder


@pytest.fixture(scope="module")
def lake(stage: Stage, parquet: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB over them, by sinks/duckdb.sql."""
    with duckdb.connect() as database:
        database.execute(stage.text("duckdb.sql"))
        yield database


def by_place(rows: list[Row]) -> dict[Place, Row]:
    return {(row["kafkaPartition"], row["kafkaOffset"]): comparable(row) for row in rows}


def test_duckdb_reads_the_parquet_files(stage: Stage, lake: duckdb.DuckDBPyConnection):
    with stage.measured("duckdb.sql", len(stage.events), of("duckdb")):
        assert by_place(lake.sql("FROM workflow_events").to_arrow_table().to_pylist()) == stage.events


def test_polars_and_pyarrow_take_the_values_as_they_are(stage: Stage):
    values = list(stage.events.values())

    assert pa.Table.from_pylist(values).to_pylist() == values
    assert pl.DataFrame(values, infer_schema_length=None).to_dicts() == values


def test_clickhouse_reads_the_topic_itself(stage: Stage):
    """By chdb, which is ClickHouse in this process."""
    session = chdb.session.Session(str(stage.folder / "clickhouse"))
    try:
        with stage.measured("clickhouse.sql", len(stage.events), of("chdb")):
            for statement in statements(stage.text("clickhouse.sql")):
                _made(session, statement)
            count = "SELECT count() FROM weda.workflow_events FINAL"
            wait_until(lambda: int(str(session.query(count))), equals(len(stage.events)), seconds=ROWS_SECONDS)
            answer = session.query("SELECT * FROM weda.workflow_events FINAL", "Arrow")
            assert by_place(pa.ipc.open_file(answer.bytes()).read_all().to_pylist()) == stage.events
    finally:
        session.close()


def statements(text: str) -> list[str]:
    """The statements of a file of SQL, without the semicolons that end them."""
    return [each.strip().removesuffix(";") for each in text.split(";\n") if each.strip()]


def _made(session: chdb.session.Session, statement: str) -> None:
    """Run a statement; chdb says of a table of a topic that it was shut down, and makes it all the same."""
    try:
        session.query(statement)
    except Exception as error:  # noqa: BLE001 - chdb has two classes of one name for it
        assert "ENGINE = Kafka" in statement, statement
        assert "Shutdown was called" in str(error)  # noqa: PT017 - other engines of it say nothing


def test_flink_writes_the_topic_into_files(stage: Stage):
    tools = stage.folder / "flink"
    tools.mkdir()
    own = sql_client(tools)
    kafka = f"flink-sql-connector-kafka {products(READERS)['flink-kafka']}"
    with stage.measured("flink.sql", len(stage.events), product(READERS, "flink", "Flink"), kafka):
        printed = stage.execute([str(tools / "sql-client.sh"), "-f", str(stage.written("flink.sql"))], **own)
        files = [path for path in (stage.folder / "lake" / "flink").iterdir() if not path.name.startswith(".")]
        rows = [row for path in files for row in fastavro.reader(io.BytesIO(path.read_bytes()))]
        assert by_place(rows) == stage.events, printed


@pytest.fixture(scope="module")
def spark(stage: Stage) -> Iterator[dict[str, str]]:
    """What the environment of a program must have, to be run by Spark; times are shown in UTC."""
    with Spark(stage.folder) as server:
        yield {"SPARK_REMOTE": server.url, "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module")
def spark_files(stage: Stage, spark: dict[str, str]) -> str:
    """The folder with what sinks/spark.py has written, called twice."""
    folder = str(stage.folder / "lake" / "spark")
    command = [sys.executable, str(stage.written("spark.py")), folder]
    with stage.measured("spark.py", len(stage.events), product(SPARK, "spark", "Spark"), of("pyspark-client")):
        stage.execute(command, **spark)
        stage.execute(command, **spark)
        assert spark_rows(folder) == stage.events
    return folder


def spark_rows(folder: str) -> dict[Place, Row]:
    table = pq.read_table(folder).to_pylist()
    found = by_place(table)
    assert len(found) == len(table)
    return found


def test_spark_writes_what_is_new_into_files(stage: Stage, spark_files: str):
    """Each record once, though the program ran twice."""
    assert spark_rows(spark_files) == stage.events


def test_spark_reads_every_version_and_both_framings(
    stage: Stage, spark: dict[str, str], kafka: KafkaCluster, registry: SchemaRegistry
):
    """A topic of the schema's older version, its newest one, and of the time before there was a registry."""
    topic = f"{PREFIX}.versions"
    newest = json.loads((ROOT / "avro" / f"{FLAT_EVENT}.avsc").read_text(encoding="utf-8"))
    older = newest | {"fields": [each for each in newest["fields"] if each["name"] != "extrasJson"]}
    ids = [_registered(registry, f"{topic}-value", schema) for schema in (older, newest)]
    framings = (MAGIC + load(FLAT_EVENT).fingerprint, *(b"\0" + number.to_bytes(4, "big") for number in ids))
    expected = {}
    kafka.create_topic(topic, partitions=1)
    records = []
    for offset, row in enumerate(list(stage.events.values())[:30]):
        framing, schema = framings[offset % 3], (newest, older, newest)[offset % 3]
        record = io.BytesIO()
        fastavro.schemaless_writer(record, fastavro.parse_schema(schema), row)
        records.append({"topic": topic, "value": framing + record.getvalue()})
        expected[0, offset] = row | {"extrasJson": None} if schema is older else row
    produce(kafka.bootstrap_servers, records)
    (stage.folder / "avro").symlink_to(ROOT / "avro")
    script = stage.written("spark.py")
    script.write_text(script.read_text(encoding="utf-8").replace(f"{PREFIX}.flat", topic), encoding="utf-8")
    folder = str(stage.folder / "lake" / "versions")

    stage.execute([sys.executable, str(script), folder, "whole"], **spark)

    assert spark_rows(folder) == expected


def _registered(registry: SchemaRegistry, subject: str, schema: Row) -> int:
    body = json.dumps({"schema": json.dumps(schema)}).encode()
    headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    request = urllib.request.Request(f"{registry.url}/subjects/{subject}/versions", body, headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["id"]


def test_a_daily_job_waits_until_the_day_is_complete(stage: Stage):
    midnight = datetime.now(SHANGHAI).replace(hour=0, minute=0, second=0, microsecond=0)
    if datetime.now(SHANGHAI) - midnight < timedelta(minutes=2):
        time.sleep(120)
    stage.run("gate.py", "30")

    script = stage.folder / "gate-without-connector.py"
    script.write_text((SINKS / "gate.py").read_text(encoding="utf-8").replace("localhost:9464", f"{LOOPBACK}:1"))
    done = subprocess.run([sys.executable, str(script), "1"], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (1, "not complete\n")


# --- models ---

STATUS_KEYS = ("in_approval", "terminated", "turned_down", "approved", "voided", "deleted")
ACTION_KEYS = {2: "approved", 3: "rejected", 6: "sent_back", 13: "handled"}
APPROVE, TURN_OVER = 2, 4
OPENING = {0: ("approverMap",), TURN_OVER: ("turnToUserMap",), 7: ("approverMap", "addAssigneeMap")}
"""Action that says for whom a node waits → the fields that name them."""

CLOSING = {1, APPROVE, 3, 5, 6, 8, 9, 13, 19, 20}
PROGRAM = Path(__file__).with_name("spark_queries.py")
VIEWS = (
    *("stg_person", "stg_event", "fct_instance", "fct_task"),
    *("process_duration", "waiting_by_node", "waiting_by_person", "send_back", "open_work", "left_out"),
)
PEOPLE_IDS = {person.id for person in PEOPLE}


RULES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((MODELS / "tests").glob("*.sql"))}
"""The models' own tests: each finds what breaks a rule."""

QUERIES = {**RULES, **{view: f"SELECT * FROM {view}" for view in VIEWS}}
Answers = dict[str, list[Row]]
"""Rule or view → the rows that an engine gives, in an order of their own."""


def models(engine: str = "") -> list[str]:
    """The statements that make every view, in their order; an engine's own file goes before the common one."""
    own = {path.stem: path for path in (MODELS / engine).glob("*.sql")}
    paths = [own.get(view, MODELS / f"{view}.sql") for view in VIEWS]
    return [statement for path in paths for statement in statements(path.read_text(encoding="utf-8"))]


def answers(ask: Callable[[str], list[Row]]) -> Answers:
    return {name: in_order(ask(sql)) for name, sql in QUERIES.items()}


def in_order(rows: list[Row]) -> list[Row]:
    plain = [{name.lower(): _plain(value) for name, value in row.items()} for row in rows]
    return sorted(plain, key=lambda row: str(sorted(row.items())))


@pytest.fixture(scope="module")
def sent(stage: Stage) -> dict[str, list[Row]]:
    """The ledger's messages of production by instance, in their order, read by nothing of the connector's."""
    found: dict[str, list[Row]] = {}
    lines = map(json.loads, stage.ledger.read_text(encoding="utf-8").splitlines())
    for line in sorted(lines, key=lambda one: one["seq"]):
        if line["message"].get("envType") != "pre":
            found.setdefault(line["instanceId"], []).append(line["message"])
    started = {key: each for key, each in found.items() if any(int(one["action"]) not in {17, 18} for one in each)}
    assert len(found) - len(started) > 0
    return started


def moment(value: Any) -> int | None:
    """Epoch milliseconds of a date in any of the simulator's forms."""
    if value in {None, "", 0}:
        return None
    if isinstance(value, int) or str(value).isdigit():
        number = int(value)
        return number if number > 10**11 else number * 1000
    parsed = datetime.fromisoformat(value)
    return round((parsed if parsed.tzinfo else parsed.replace(tzinfo=SHANGHAI)).timestamp() * 1000)


def persons(message: Row, field: str) -> set[str]:
    """The simulator's people that a field of a message names."""
    value = message.get(field) or []
    pairs = [value] if isinstance(value, dict) else value
    return {text for one in pairs for text in (*one, *map(str, one.values())) if text in PEOPLE_IDS}


def expected_instances(sent: dict[str, list[Row]]) -> dict[str, tuple[Any, ...]]:
    rows = {}
    for key, messages in sent.items():
        ends = [(end, int(one["instanceStatus"])) for one in messages if (end := moment(one.get("endTime")))]
        starts = [start for one in messages if (start := moment(one.get("startTime")))]
        back = sum(one["msgType"] == "Task" and int(one["action"]) == 6 for one in messages)
        status = STATUS_KEYS[max(ends)[1] if ends else 0]
        rows[key] = (min(starts), min(ends)[0] if ends else None, status, len(messages), back)
    return rows


def expected_tasks(sent: dict[str, list[Row]]) -> list[tuple[Any, ...]]:
    rows = []
    for key, messages in sent.items():
        for one in messages:
            if one["msgType"] == "Task" and int(one["action"]) in ACTION_KEYS:
                waited = moment(one["taskEndTime"]) - moment(one["taskStartTime"])
                people = persons(one, "approverMap")
                alone = next(iter(people)) if len(people) == 1 else None
                action = ACTION_KEYS[int(one["action"])]
                rows.append((key, one["elementId"], action, waited // 1000, len(people), alone))
    return sorted(rows, key=str)


def expected_open(sent: dict[str, list[Row]]) -> set[tuple[str, str | None, str | None]]:
    """Instance, node and person of what is open: by the messages one after the other, as they were sent."""
    return {
        (key, *waited)
        for key, messages in sent.items()
        if not any(moment(one.get("endTime")) for one in messages)
        for waited in _waited_for(messages)
    }


def _waited_for(messages: list[Row]) -> set[tuple[str | None, str | None]]:
    names: set[str] = set()
    node, visit, approved = None, None, 0
    for one in messages:
        action = int(one["action"])
        if one["msgType"] == "Task" and action in OPENING:
            node, last = one["elementId"], visit
            visit = (node, moment(one["taskStartTime"]) // 1000)
            approved = approved if visit == last and action != TURN_OVER else 0
            names = set().union(*(persons(one, field) for field in OPENING[action]))
        elif one["msgType"] == "Task" and action in CLOSING:
            approved += 1
            names = names if action == APPROVE and approved < len(names) else set()
    return {(node, name) for name in names} or {(None, None)}


def check_answers(found: Answers, sent: dict[str, list[Row]], repeats: int) -> None:
    """Every view answers, the models' own tests find nothing, and the facts are those of the ledger."""
    assert {name: found[name] for name in RULES} == {name: [] for name in RULES}
    columns = ("startedat", "endedat", "statuskey", "messages", "sentback")
    facts = {row["instanceid"]: tuple(map(row.get, columns)) for row in found["fct_instance"]}
    assert facts == expected_instances(sent)
    columns = ("instanceid", "elementid", "actionkey", "waitseconds", "persons", "personid")
    tasks = [tuple(map(row.get, columns)) for row in found["fct_task"]]
    assert sorted(tasks, key=str) == expected_tasks(sent)
    assert opened(found) == expected_open(sent)
    assert [name for name in VIEWS if not found[name] and name != "open_work"] == []
    left = {(row["model"], row["reason"]): row["leftout"] for row in found["left_out"]}
    assert left["stg_event", "repeat of another record"] == repeats
    assert left["stg_event", "preview environment"] > 0
    alone = sum(row["decisions"] for row in found["waiting_by_person"])
    assert alone + left["waiting_by_person", "several persons, or none"] == len(tasks)


def opened(found: Answers) -> set[tuple[Any, ...]]:
    rows = [(row["instanceid"], row["elementid"], row["personid"]) for row in found["open_work"]]
    assert len(rows) == len(set(rows))
    return set(rows)


def by_duckdb(database: duckdb.DuckDBPyConnection) -> Answers:
    for statement in models():
        database.execute(statement)
    return answers(lambda sql: database.sql(sql).to_arrow_table().to_pylist())


@pytest.fixture(scope="module")
def answers_of_duckdb(lake: duckdb.DuckDBPyConnection) -> Answers:
    return by_duckdb(lake)


def test_the_models_in_duckdb_say_what_the_ledger_says(
    stage: Stage, answers_of_duckdb: Answers, sent: dict[str, list[Row]]
):
    check_answers(answers_of_duckdb, sent, stage.repeats)


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_what_is_open_is_what_the_ledger_says_when_the_stream_is_cut_off(
    shift: int, stage: Stage, parquet: str, sent: dict[str, list[Row]]
):
    """The first messages of each instance, here one, there two …: whom it waits for, whatever the last one is."""
    kept = {key: each[: 1 + (place + shift) % len(each)] for place, (key, each) in enumerate(sorted(sent.items()))}
    started = {key: each for key, each in kept.items() if any(int(one["action"]) not in {17, 18} for one in each)}
    expected = expected_open(started)
    assert len({person for _, _, person in expected}) > 1
    with duckdb.connect() as database:
        database.execute(
            "CREATE TABLE kept AS SELECT UNNEST($1) AS id", [[one["msgId"] for one in chain(*kept.values())]]
        )
        database.execute(
            f"CREATE VIEW workflow_events AS SELECT * FROM '{parquet}/*.parquet' WHERE msgId IN (SELECT id FROM kept)"
        )
        assert opened(by_duckdb(database)) == expected


def test_the_models_in_postgresql_say_what_they_say_in_duckdb(
    stage: Stage, connect: Connect, postgres: Postgres, answers_of_duckdb: Answers
):
    rows = len(stage.events)
    until_equal(rows, lambda: _rows_of(postgres, "workflow_events"), connect, "weda-postgresql-events")
    for statement in models():
        postgres.ask(statement, role=OWNER)

    assert answers(lambda sql: _query(postgres, sql)) == answers_of_duckdb


def test_the_models_in_spark_say_what_they_say_in_duckdb(
    stage: Stage, spark: dict[str, str], spark_files: str, answers_of_duckdb: Answers
):
    assert spark_files.endswith("/lake/spark")
    kept = [f"CACHE TABLE {view}" for view in VIEWS[:4]]  # the other views read them many times
    order = {"statements": [*statements(stage.text("spark.sql")), *models("spark"), *kept], "queries": QUERIES}
    with stage.measured("spark.sql", sum(map(len, answers_of_duckdb.values())), product(SPARK, "spark", "Spark")):
        printed = stage.execute([sys.executable, str(PROGRAM)], given=json.dumps(order), **spark)
        found = json.loads(printed)

        assert answers({QUERIES[name]: rows for name, rows in found.items()}.__getitem__) == answers_of_duckdb
