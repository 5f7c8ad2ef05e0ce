"""docker-compose.yml, as the real tool reads it."""

import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml

from connector.settings import Settings
from tests.chart import compose
from tests.servers.postgres import OWNER, RUNNER, SET_UP

ROOT = compose.FILE.parent


@pytest.fixture(scope="module")
def services():
    return compose.read()


def test_the_tool_finds_nothing_to_complain_of():
    checked = subprocess.run([*compose.COMMAND, "config", "--quiet"], capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_every_image_of_ours_is_built_whatever_is_started(services):
    """Nobody publishes it: without a ``build`` of its own, Compose looks for a service's image in a registry."""
    ours = {name: each for name, each in services["services"].items() if each["image"].startswith("weda-connector:")}

    assert {"connector", "simulator", "migration", "replica"} <= {*ours}
    assert [name for name, each in ours.items() if "build" not in each] == []


def test_every_image_has_a_version(services):
    tags = {name: each["image"].rpartition(":")[2] for name, each in services["services"].items()}

    assert {name for name, tag in tags.items() if "latest" in tag or not tag[-1].isdigit()} == set()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {tags[name] for name in ("connector", "simulator", "migration", "replica")} == {project}
    assert services["services"]["connector"]["build"]["args"] == {"VERSION": project}


def test_broker_and_registry_are_those_of_the_tests(services):
    pom = (ROOT / "tests" / "servers" / "pom.xml").read_text()

    for service, artifact in {"kafka": "kafka", "registry": "apicurio"}.items():
        version = services["services"][service]["image"].rpartition(":")[2]
        assert f"<{artifact}.version>{version}<" in pom


def test_every_service_tells_its_health_and_is_waited_for(services):
    of_the_image = {"connector", "replica"}  # the Dockerfile has it
    for name, each in services["services"].items():
        assert name in of_the_image or each["healthcheck"], name
        for needed, one in each.get("depends_on", {}).items():
            ends = needed in {"migration", "lake-plugins", "lake-topic"}
            assert one["condition"] == ("service_completed_successfully" if ends else "service_healthy"), name
    needs = {name: set(each.get("depends_on", {})) for name, each in services["services"].items()}

    assert needs["connector"] == {"kafka", "registry"}
    assert needs["simulator"] == needs["prometheus"] == {"connector"}
    assert needs["grafana"] == {"prometheus"}
    assert needs["replica"] == {"kafka", "registry", "migration"}
    assert needs["lake"] == {"connector", "lake-plugins", "lake-topic"}
    assert (needs["migration"], needs["balancer"]) == ({"database"}, {"replica"})


def test_the_connector_s_settings_are_good(services):
    each = services["services"]["connector"]
    settings = Settings.load(environment=each["environment"])

    assert settings.kafka.bootstrap_servers == "kafka:9092"
    assert settings.credentials_exist
    assert settings.operations.token is not None
    assert settings.receiver.shutdown_grace_seconds < 40
    assert each["stop_grace_period"] == "40s"


def test_only_this_machine_reaches_it(services):
    ports = [port for each in services["services"].values() for port in each.get("ports", ())]

    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert len({port["published"] for port in ports}) == len(ports)


def test_the_simulator_comes_on_demand_and_sends_the_token(services):
    each = services["services"]["simulator"]

    assert each["profiles"] == ["simulate"]
    assert services["services"]["connector"]["environment"]["WEDA_TOKEN"] in each["command"]


def test_what_is_mounted_is_there(services):
    bound = [
        one["source"]
        for each in services["services"].values()
        for one in each.get("volumes", ())
        if one["type"] == "bind"
    ]

    assert {Path(path).name for path in bound} == {"dashboards", "rules", "sinks"}
    assert all(Path(path).is_dir() for path in bound)


def test_prometheus_scrapes_the_connector_and_grafana_asks_prometheus(services):
    ours = ("prometheus", "grafana-data-sources", "grafana-dashboards")
    contents = {name: yaml.safe_load(compose.content(name)) for name in ours}
    [job] = contents["prometheus"]["scrape_configs"]
    [source] = contents["grafana-data-sources"]["datasources"]
    [provider] = contents["grafana-dashboards"]["providers"]
    grafana = services["services"]["grafana"]["volumes"][0]

    assert job["static_configs"] == [{"targets": ["connector:9464"]}]
    assert [(one["names"], one["port"]) for one in job["dns_sd_configs"]] == [(["replica"], 9464)]
    assert source["url"] == "http://prometheus:9090"
    assert provider["options"]["path"] == grafana["target"]


# --- the lake ---


def test_the_lake_is_written_by_the_recipe_that_a_test_runs(services, tmp_path):
    """The worker's own command, run here but for the worker: the recipe with the addresses of the services.

    What the recipe does is tried with a real worker: tests/integration/test_sinks.py.
    """
    each = services["services"]["lake"]
    assert each["command"][:2] == ["sh", "-ec"]
    script = (
        each["command"][2].replace("$$", "$").replace("/tmp/", f"{tmp_path}/").replace(" /sinks/", f" {ROOT}/sinks/")
    )
    worker = "/opt/kafka/bin/connect-standalone.sh"
    printed = subprocess.run(["sh", "-ec", script.replace(worker, "cat")], capture_output=True, text=True, check=True)

    recipe = "".join((ROOT / "sinks" / "connect" / f"{one}.properties").read_text() for one in ("worker", "iceberg"))
    expected = recipe.replace("localhost:9092", "kafka:9092").replace("localhost:8081", "registry:8080")
    assert printed.stdout == expected
    assert worker in script
    assert set(re.findall(r"localhost:\d+", expected)) == {"localhost:8083"}
    assert each["image"] == services["services"]["kafka"]["image"] == services["services"]["lake-topic"]["image"]
    targets = {one["target"] for one in each["volumes"]}
    assert targets == {"/sinks", "/opt/connect-plugins", "/lake"}
    assert "iceberg.control.topic=" + services["services"]["lake-topic"]["command"][-1] in expected.splitlines()


def test_the_lake_s_connector_publishes_what_the_recipe_reads(services):
    settings = Settings.load(environment=services["services"]["connector"]["environment"])

    assert "flat" in settings.streams


def test_the_table_is_read_with_the_package_of_the_tests_on_the_python_of_the_image(services):
    each = services["services"]["lake-table"]

    assert f"pyiceberg[pyarrow,sql-sqlite]=={version('pyiceberg')}'" in each["command"][2]
    assert f"ARG PYTHON={each['image'].removeprefix('python:')}\n" in (ROOT / "Dockerfile").read_text()


# --- replicas ---


def test_replicas_come_on_demand_with_all_they_need(services):
    on_demand = {name for name, each in services["services"].items() if each.get("profiles") == ["scale"]}

    assert on_demand == {"database", "migration", "replica", "balancer"}
    assert services["services"]["replica"]["deploy"]["replicas"] == 3


def test_a_replica_has_the_connector_s_settings_and_a_shared_journal(services):
    alone, replica = (services["services"][name]["environment"] for name in ("connector", "replica"))
    url = urlsplit(Settings.load(environment=replica).journal.url.get_secret_value())

    assert replica == {**alone, "WEDA_JOURNAL__URL": url.geturl()}
    assert (url.username, url.hostname, url.path) == (RUNNER, "database", "/weda")
    assert services["services"]["replica"]["stop_grace_period"] == "40s"


def test_the_tables_are_made_by_their_owner(services):
    each = services["services"]["migration"]
    url = urlsplit(Settings.load(environment=each["environment"]).journal.url.get_secret_value())

    assert each["command"] == ["journal", "migrate"]
    assert (url.username, url.hostname, url.path) == (OWNER, "database", "/weda")


def test_the_database_is_made_as_the_guide_says(services):
    """With the guide's own statements the tests make theirs."""
    [mounted] = services["services"]["database"]["configs"]

    assert compose.content(mounted["source"]) == SET_UP.replace("…", "local-only")
    assert mounted["target"].startswith("/docker-entrypoint-initdb.d/")
    assert mounted["target"].endswith(".sql")


def test_a_table_of_a_later_version_is_the_runner_s_to_use_and_not_to_change(database):
    database.ask("CREATE TABLE weda_later (number integer)", role=OWNER)
    try:
        database.ask("INSERT INTO weda_later VALUES (1)", role=RUNNER)
        assert database.ask("SELECT number FROM weda_later", role=RUNNER) == [(1,)]
        for change in ("ALTER TABLE weda_later ADD COLUMN other integer", "DROP TABLE weda_later", "TRUNCATE weda_row"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                database.ask(change, role=RUNNER)
    finally:
        database.ask("DROP TABLE weda_later", role=OWNER)


def test_the_balancer_reaches_the_replicas_at_their_ports(services):
    """What it does there is tried with a real one: tests/integration/test_balancer.py."""
    replica = Settings.load(environment=services["services"]["replica"]["environment"])
    configuration = compose.content("balancer")

    assert f"server-template replica 9 replica:{replica.receiver.port} " in configuration
    assert f" check port {replica.operations.port} " in configuration
    assert replica.operations.host == "0.0.0.0"
    [port] = services["services"]["balancer"]["ports"]
    assert f"bind :{port['target']}\n" in configuration
