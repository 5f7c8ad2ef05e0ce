"""Parts of settings: one property of the Kafka clients, the credentials of one source, each in its own variable."""

import ctypes
import json
import re
from pathlib import Path

import confluent_kafka
import pytest

from connector.errors import ConfigurationError
from connector.settings import Settings
from connector.settings.librdkafka import ENDING_IN_FILE, UNDERSCORED, plain_name

PLAIN = "WEDA_KAFKA__PROPERTIES"
SECRET = "hunter2-planted-secret"
WEBHOOK = "whsec_" + "QUFBQUFBQUFBQUFBQUFBQQ=="


@pytest.fixture(scope="module")
def listed(tmp_path_factory) -> dict[str, tuple[str, str]]:
    """librdkafka's own list: each property with its type and its description."""
    file = tmp_path_factory.mktemp("librdkafka") / "properties.md"
    [library] = Path(confluent_kafka.__file__).parents[1].glob("confluent_kafka.libs/librdkafka*")
    libc, librdkafka = ctypes.CDLL(None), ctypes.CDLL(str(library))
    libc.fopen.restype = ctypes.c_void_p
    libc.fclose.argtypes = librdkafka.rd_kafka_conf_properties_show.argtypes = [ctypes.c_void_p]
    opened = libc.fopen(str(file).encode(), b"w")
    librdkafka.rd_kafka_conf_properties_show(opened)
    libc.fclose(opened)
    rows = re.findall(r"^(\S+) +\|.*\| (.*?) <br>\*Type: (.*)\*$", file.read_text(), re.MULTILINE)
    return {name: (kind, text) for name, text, kind in rows if name != "Property"}


@pytest.fixture
def write(tmp_path):
    def write(text, name="value"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def property_variable(name: str) -> str:
    """The variable of one librdkafka property."""
    return f"{PLAIN}__{re.sub('[.-]', '_', name).upper()}"


def load(environment, file=None):
    return Settings.load(environment=environment, file=file)


def refusal(environment, file=None):
    with pytest.raises(ConfigurationError) as caught:
        load(environment, file)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert SECRET not in line
    return line


# --- librdkafka's list ---


def test_every_property_that_is_written_in_text_has_a_variable_of_its_own(listed, monkeypatch):
    """Underscores stand for dots; the names that have underscores, or end in `.file`, are known."""
    monkeypatch.setattr("connector.settings.parts.check_promise", lambda *_: None)
    from connector.settings.parts import _property_name  # noqa: PLC0415

    textual = [name for name, (kind, _) in listed.items() if "see dedicated API" not in kind]

    assert len(textual) > 150
    assert {name: _property_name(property_variable(name)) for name in textual} == {name: name for name in textual}
    assert {name: _property_name(f"{property_variable(name)}_FILE") for name in textual} == {
        name: name for name in textual
    }


def test_the_names_that_are_no_plain_dots_are_those_of_the_list(listed):
    textual = {name for name, (kind, _) in listed.items() if "see dedicated API" not in kind}

    assert {name for name in textual if "_" in name} == set(UNDERSCORED)
    assert {name for name in textual if name.endswith(".file")} == set(ENDING_IN_FILE)


def test_every_alias_of_the_list_is_known(listed):
    aliases = {name: re.search(r"Alias for `(.+?)`", text) for name, (_, text) in listed.items()}
    pairs = [(name, found[1]) for name, found in aliases.items() if found]

    assert len(pairs) > 8
    assert [pair for pair in pairs if plain_name(pair[0]) != plain_name(pair[1])] == []


# --- properties ---


def test_a_property_alone_joins_those_of_the_json_and_of_the_file(write, tmp_path):
    password, file = write(f"{SECRET}\n"), tmp_path / "connector.yaml"
    file.write_text("kafka: {properties: {security.protocol: SASL_SSL, sasl.mechanism: SCRAM-SHA-512}}")
    alone = {f"{PLAIN}__SASL_USERNAME": "weda", f"{PLAIN}__SASL_PASSWORD_FILE": password}
    expected = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "weda",
        "sasl.password": SECRET,
    }

    assert load(alone, file).kafka.properties == expected
    whole = json.dumps({name: expected[name] for name in ("security.protocol", "sasl.mechanism")})
    assert load({PLAIN: whole, **alone}).kafka.properties == expected
    assert load({f"{PLAIN}__LINGER_MS": "7"}).kafka.properties == {"linger.ms": "7"}


def test_properties_that_have_an_underscore_or_end_in_file_are_themselves(write):
    key, level = write("key"), write("3\n", "level")
    properties = load(
        {
            f"{PLAIN}__SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_FILE": key,
            f"{PLAIN}__SASL_OAUTHBEARER_ASSERTION_FILE_FILE": write(key, "name"),
            f"{PLAIN}__LOG_LEVEL_FILE": level,
        }
    ).kafka.properties

    assert properties == {
        "sasl.oauthbearer.assertion.private.key.file": key,
        "sasl.oauthbearer.assertion.file": key,
        "log_level": "3",
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {PLAIN: '{"sasl.password": "x"}', f"{PLAIN}__SASL_PASSWORD": SECRET},
            f"{PLAIN}__SASL_PASSWORD: sasl.password is set by {PLAIN} as well; keep one of the two",
        ),
        (
            {PLAIN: '{"sasl.mechanisms": "PLAIN"}', f"{PLAIN}__SASL_MECHANISM": "PLAIN"},
            f"{PLAIN}__SASL_MECHANISM: sasl.mechanisms is set by {PLAIN} as well; keep one of the two",
        ),
        (
            {f"{PLAIN}__LINGER_MS": "1", f"{PLAIN}__QUEUE_BUFFERING_MAX_MS": "2"},
            f"{PLAIN}__QUEUE_BUFFERING_MAX_MS: linger.ms is set by {PLAIN}__LINGER_MS as well; keep one of the two",
        ),
        (
            {f"{PLAIN}__SASL_PASSWORD": SECRET, f"{PLAIN}__SASL_PASSWORD_FILE": "/f"},
            f"{PLAIN}__SASL_PASSWORD_FILE: sasl.password is set by {PLAIN}__SASL_PASSWORD as well; keep one of the two",
        ),
        (
            {f"{PLAIN}__SASL_PASSWORD_FILE": "/no/file"},
            f"{PLAIN}__SASL_PASSWORD_FILE: /no/file cannot be read: No such",
        ),
        ({f"{PLAIN}__SASL_PASSWORD": ""}, f"{PLAIN}__SASL_PASSWORD: must not be empty"),
        ({f"{PLAIN}__sasl_password": SECRET}, f"{PLAIN}__sasl_password: unknown setting; the name of a property"),
        ({f"{PLAIN}__": SECRET}, f"{PLAIN}__: unknown setting; the name of a property"),
        (
            {f"{PLAIN}__SASL_PASWORD": SECRET},
            f'{PLAIN}__SASL_PASWORD: No such configuration property: "sasl.pasword"',
        ),
        ({f"{PLAIN}__LINGER_MS": "soon"}, f"{PLAIN}__LINGER_MS: Invalid value"),
        ({f"{PLAIN}__ACKS": "1"}, f"{PLAIN}__ACKS: acks must be all: "),
        ({f"{PLAIN}__ENABLED_EVENTS": "1"}, f"{PLAIN}__ENABLED_EVENTS: enabled_events must not be set: "),
        ({f"{PLAIN}__CLIENT_ID": "a\0b"}, f"{PLAIN}__CLIENT_ID: must be Unicode text without NUL"),
        (
            {f"{PLAIN}__SSL_CA_LOCATION": "/no/file"},
            f"{PLAIN}__SSL_CA_LOCATION: ssl.ca.location: cannot read /no/file (No such file or directory)",
        ),
        ({PLAIN: "[]", f"{PLAIN}__LINGER_MS": "1"}, f"{PLAIN}: should be a valid dictionary"),
    ],
    ids=lambda given: ",".join(given) if isinstance(given, dict) else "",
)
def test_a_property_that_is_wrong_or_set_twice_stops_the_start(given, said):
    assert refusal(given).startswith(said)


def test_a_property_that_the_file_sets_too_stops_the_start(write):
    file = Path(write("kafka: {properties: {sasl.username: weda}}", "connector.yaml"))

    assert refusal({f"{PLAIN}__SASL_USERNAME": "other"}, file) == (
        f"{PLAIN}__SASL_USERNAME: sasl.username is set by file: kafka.properties as well; keep one of the two"
    )


# --- sources ---


def test_the_credentials_of_a_source_stand_apart_from_what_is_no_secret(write):
    """One a line, taken as they are: a token may hold commas and brackets."""
    file = Path(
        write("sources: {hr: {rate: 5, networks: [10.0.0.0/8]}, wms-east_2: {env_types: [prod]}}", "connector.yaml")
    )
    settings = load(
        {
            "WEDA_SOURCES__HR__TOKENS_FILE": write("[new],token\r\nold-token\n\n", "tokens"),
            "WEDA_SOURCES__WMS_EAST_2__SECRETS": WEBHOOK,
        },
        file,
    )
    hr, wms = settings.sources["hr"], settings.sources["wms-east_2"]

    assert [token.get_secret_value() for token in hr.tokens] == ["[new],token", "old-token"]
    assert (hr.rate, [str(each) for each in hr.networks]) == (5, ["10.0.0.0/8"])
    assert [secret.get_secret_value() for secret in wms.secrets] == [WEBHOOK]
    assert wms.env_types == ("prod",)


def test_the_source_default_needs_no_word_elsewhere():
    settings = load({"WEDA_TOKEN": "a", "WEDA_SOURCES__DEFAULT__TOKENS": "b"})

    assert [token.get_secret_value() for token in settings.sources["default"].tokens] == ["b", "a"]


@pytest.mark.parametrize(
    ("sources", "variable", "said"),
    [
        (
            {"hr": {}},
            "WEDA_SOURCES__HRR__TOKENS",
            "in WEDA_SOURCES or in the file first); the nearest known one is WEDA_SOURCES__HR__TOKENS",
        ),
        ({"hr": {}}, "WEDA_SOURCES__HR__RATE", "unknown setting (a source is named"),
        ({"hr": {}}, "WEDA_SOURCES__HR", "unknown setting (a source is named"),
        ({"hr": {}}, "WEDA_SOURCES__hr__TOKENS", "unknown setting (a source is named"),
        ({"a-b": {}, "a_b": {}}, "WEDA_SOURCES__A_B__TOKENS", "stands for several sources: a-b, a_b"),
        (
            {"hr": {"tokens": ["t"]}},
            "WEDA_SOURCES__HR__TOKENS",
            "the tokens of hr are set by WEDA_SOURCES as well; keep one of the two",
        ),
        ({"hr": {}}, "WEDA_SOURCES__HR__SECRETS", "must be whsec_ and the Base64 of 16 bytes or more"),
    ],
    ids=str,
)
def test_credentials_of_no_source_or_of_two_or_given_twice_stop_the_start(sources, variable, said):
    line = refusal({"WEDA_SOURCES": json.dumps(sources), variable: SECRET})

    assert line.startswith(f"{variable}: ")
    assert said in line


def test_a_bad_token_is_named_by_its_variable_and_its_line(write):
    environment = {"WEDA_SOURCES": '{"hr": {}}', "WEDA_SOURCES__HR__TOKENS_FILE": write(f"good\n{SECRET} with spaces")}

    assert refusal(environment).startswith("WEDA_SOURCES__HR__TOKENS_FILE: 1 must hold visible ASCII characters only")


def test_both_forms_of_a_source_s_tokens_are_one_too_many():
    environment = {
        "WEDA_SOURCES": '{"hr": {}}',
        "WEDA_SOURCES__HR__TOKENS": SECRET,
        "WEDA_SOURCES__HR__TOKENS_FILE": "/f",
    }

    assert refusal(environment).startswith(
        "WEDA_SOURCES__HR__TOKENS_FILE: the tokens of hr are set by WEDA_SOURCES__HR"
    )


@pytest.mark.parametrize("sources", ["[]", "{}", '{"hr": 3}'])
def test_what_are_no_sources_is_reported_of_the_sources(sources):
    assert refusal({"WEDA_SOURCES": sources, "WEDA_SOURCES__HR__TOKENS": SECRET}).startswith("WEDA_SOURCES: ")


# --- both ---


def test_the_files_of_parts_are_watched(write):
    """A property whose own value names a file is none of them."""
    environment = {
        f"{PLAIN}__SASL_PASSWORD_FILE": "p",
        f"{PLAIN}__SASL_OAUTHBEARER_ASSERTION_FILE": "q",
        "WEDA_SOURCES__HR__TOKENS_FILE": "t",
    }

    assert Settings.files(environment=environment) == (Path("p"), Path("t"))


def test_parts_of_what_nobody_needs_are_not_read():
    environment = {f"{PLAIN}__SASL_PASSWORD_FILE": "/no/file", "WEDA_SOURCES__HR__TOKENS_FILE": "/no/file"}

    assert Settings.load(environment=environment, only=("journal.url",)).journal.url is None
