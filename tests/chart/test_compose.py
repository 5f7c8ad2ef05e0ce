"""docker-compose.yml, as the real tool reads it."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from connector.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = [Path(sys.executable).with_name("docker-compose"), "-f", ROOT / "docker-compose.yml"]


@pytest.fixture(scope="module")
def services():
    printed = subprocess.run(
        [*COMPOSE, "--profile", "*", "config", "--format", "json"], capture_output=True, text=True, check=True
    )
    return json.loads(printed.stdout)


def test_the_tool_finds_nothing_to_complain_of():
    checked = subprocess.run([*COMPOSE, "config", "--quiet"], capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_every_image_has_a_version(services):
    tags = {name: each["image"].rpartition(":")[2] for name, each in services["services"].items()}

    assert {name for name, tag in tags.items() if "latest" in tag or not tag[-1].isdigit()} == set()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert tags["connector"] == tags["simulator"] == project
    assert services["services"]["connector"]["build"]["args"] == {"VERSION": project}


def test_broker_and_registry_are_those_of_the_tests(services):
    pom = (ROOT / "tests" / "servers" / "pom.xml").read_text()

    for service, artifact in {"kafka": "kafka", "registry": "apicurio"}.items():
        version = services["services"][service]["image"].rpartition(":")[2]
        assert f"<{artifact}.version>{version}<" in pom


def test_every_service_tells_its_health_and_is_waited_for(services):
    of_the_image = {"connector"}  # the Dockerfile has it
    for name, each in services["services"].items():
        assert name in of_the_image or each["healthcheck"], name
        assert {one["condition"] for one in each.get("depends_on", {}).values()} <= {"service_healthy"}
    needs = {name: set(each.get("depends_on", {})) for name, each in services["services"].items()}

    assert needs["connector"] == {"kafka", "registry"}
    assert needs["simulator"] == needs["prometheus"] == {"connector"}
    assert needs["grafana"] == {"prometheus"}


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

    assert sorted(Path(path).name for path in bound) == ["dashboards", "rules"]
    assert all(Path(path).is_dir() for path in bound)


def test_prometheus_scrapes_the_connector_and_grafana_asks_prometheus(services):
    contents = {name: yaml.safe_load(each["content"]) for name, each in services["configs"].items()}
    [job] = contents["prometheus"]["scrape_configs"]
    [source] = contents["grafana-data-sources"]["datasources"]
    [provider] = contents["grafana-dashboards"]["providers"]
    grafana = services["services"]["grafana"]["volumes"][0]

    assert job["static_configs"] == [{"targets": ["connector:9464"]}]
    assert source["url"] == "http://prometheus:9090"
    assert provider["options"]["path"] == grafana["target"]
