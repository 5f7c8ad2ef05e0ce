"""What users read about settings, and what the `config` command shows, is what the code does."""

import json
import re

import pytest
import typer
import yaml
from typer.testing import CliRunner

from connector.cli.config import config
from connector.errors import ConfigurationError
from connector.settings import REDACTED, Settings, environment_name

SECRET = "hunter2-planted-secret"
NAMES = [
    "WEDA_KAFKA__BOOTSTRAP_SERVERS",
    "WEDA_KAFKA__PROPERTIES",
    "WEDA_KAFKA__PUBLISH_WAIT_SECONDS",
    "WEDA_STREAMS",
    "WEDA_TOPICS__PREFIX",
    "WEDA_TOPICS__PARTITIONS",
    "WEDA_TOPICS__REPLICATION_FACTOR",
    "WEDA_TOPICS__RETENTION_MS",
    "WEDA_TOPICS__CREATE",
    "WEDA_JOURNAL__PATH",
    "WEDA_JOURNAL__MAX_BYTES",
    "WEDA_RECEIVER__HOST",
    "WEDA_RECEIVER__PORT",
    "WEDA_RECEIVER__MAX_BODY_BYTES",
    "WEDA_RECEIVER__REPLY_DEADLINE_SECONDS",
    "WEDA_RECEIVER__MAX_IN_FLIGHT",
    "WEDA_RECEIVER__SHUTDOWN_GRACE_SECONDS",
    "WEDA_REPEATS__WINDOW_SECONDS",
    "WEDA_REPEATS__MAX_ENTRIES",
    "WEDA_SOURCES",
    "WEDA_TOKEN",
    "WEDA_AUTH",
    "WEDA_OPERATIONS__HOST",
    "WEDA_OPERATIONS__PORT",
    "WEDA_OPERATIONS__TOKEN",
    "WEDA_OPERATIONS__URL",
    "WEDA_TIMEZONE",
    "WEDA_LOG__LEVEL",
    "WEDA_LOG__FORMAT",
]

application = typer.Typer()
application.command()(config)


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch):
    for name in [*NAMES, *(f"{name}_FILE" for name in NAMES)]:
        monkeypatch.delenv(name, raising=False)


def run(*arguments):
    return CliRunner().invoke(application, arguments)


def test_the_names_that_users_rely_on_exist():
    assert set(NAMES) <= {name for name, _, _ in Settings.describe()}


def test_every_setting_has_one_sentence():
    assert [name for name, _, text in Settings.describe() if re.fullmatch(r"\S.*[^.]\.", text, re.DOTALL) is None] == []


def test_a_default_can_be_written_as_it_is_shown():
    shown = {name: default for name, default, _ in Settings.describe() if default}

    assert Settings.load(environment={}) == Settings.load(environment=shown)


def test_the_schema_knows_every_setting_and_nothing_else():
    schema = Settings.json_schema()
    names = set()
    for name, field in schema["properties"].items():
        group = schema["$defs"].get(field.get("$ref", "").rpartition("/")[2], {})
        names |= {environment_name(f"{name}.{inner}") for inner in group.get("properties", {})} or {
            environment_name(name)
        }
        assert group.get("additionalProperties", False) is False

    assert {name for name, _, _ in Settings.describe()} == names
    assert schema["additionalProperties"] is False


def test_the_schema_says_bounds_in_words_that_it_has():
    """Pydantic writes its own (`le`) where it does not know what they bound, and nobody would read them."""
    text = json.dumps(Settings.json_schema())

    assert not {"ge", "gt", "le", "lt"} & {word.strip('"') for word in re.findall(r'"[a-z]+"(?=:)', text)}
    assert Settings.json_schema()["$defs"]["Receiver"]["properties"]["port"]["maximum"] == 65535


def test_config_prints_the_schema():
    assert Settings.json_schema() == json.loads(run("--schema").stdout)


@pytest.mark.parametrize(("arguments", "read"), [((), yaml.safe_load), (("--json",), json.loads)])
def test_config_prints_the_effective_settings_without_secrets(tmp_path, monkeypatch, arguments, read):
    file = tmp_path / "connector.yaml"
    file.write_text(f"sources: {{hr: {{tokens: [{SECRET}]}}}}\nkafka: {{properties: {{sasl.password: {SECRET}}}}}\n")
    monkeypatch.setenv("WEDA_TOKEN", SECRET)
    monkeypatch.setenv("WEDA_RECEIVER__PORT", "0")
    result = run("--config", str(file), *arguments)
    shown = read(result.stdout)

    assert result.exit_code == 0
    assert SECRET not in result.output
    assert shown["receiver"]["port"] == 0
    assert shown["kafka"]["properties"]["sasl.password"] == REDACTED
    tokens = {name: source["tokens"] for name, source in shown["sources"].items()}
    assert tokens == {"hr": [REDACTED], "default": [REDACTED]}


def test_config_leaves_a_bad_setting_to_the_command_line(monkeypatch):
    monkeypatch.setenv("WEDA_RECEIVER__PORT", "x")
    result = run()

    assert isinstance(result.exception, ConfigurationError)
    assert str(result.exception).startswith("WEDA_RECEIVER__PORT: ")
    assert not result.output
