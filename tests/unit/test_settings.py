"""Settings: what is taken, what is refused in one line, and that no secret ever shows."""

import json
import traceback
from pathlib import Path

import pytest
import yaml

from connector.errors import ConfigurationError
from connector.settings import REDACTED, Settings, check_properties

SECRET = "hunter2-planted-secret"


def load(environment=None, file=None, flags=None):
    return Settings.load(environment=environment or {}, file=file, flags=flags or {})


def refusal(**given):
    with pytest.raises(ConfigurationError) as caught:
        load(**given)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return line


def value_of(settings, dotted):
    for name in dotted.split("."):
        settings = getattr(settings, name)
    return settings


@pytest.fixture
def write(tmp_path):
    def write(text, name="connector.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


DEFAULTS = {
    "kafka.bootstrap_servers": None,
    "kafka.properties": {},
    "kafka.publish_wait_seconds": 0.4,
    "streams": ("events", "instances", "tasks"),
    "topics.prefix": "weda.workflow",
    "topics.partitions": 12,
    "topics.replication_factor": None,
    "topics.retention_ms": 2_592_000_000,
    "topics.create": True,
    "journal.path": Path("var/journal.db"),
    "journal.max_bytes": 1_073_741_824,
    "receiver.host": "0.0.0.0",
    "receiver.port": 8080,
    "receiver.max_body_bytes": 524_288,
    "receiver.reply_deadline_seconds": 0.8,
    "receiver.max_in_flight": 1024,
    "receiver.shutdown_grace_seconds": 25,
    "repeats.window_seconds": 3600,
    "repeats.max_entries": 1_000_000,
    "token": None,
    "auth": "required",
    "operations.host": "127.0.0.1",
    "operations.port": 9464,
    "operations.token": None,
    "operations.url": "http://127.0.0.1:9464",
    "timezone": "Asia/Shanghai",
    "log.level": "info",
    "log.format": None,
}


@pytest.mark.parametrize(("setting", "expected"), DEFAULTS.items())
def test_a_setting_that_nobody_writes_has_its_default(setting, expected):
    assert expected == value_of(load(), setting)


def test_without_settings_there_is_one_source_without_credentials():
    settings = load()

    assert list(settings.sources) == ["default"]
    assert not settings.credentials_exist


@pytest.mark.parametrize(
    ("variable", "text", "setting", "expected"),
    [
        ("WEDA_KAFKA__BOOTSTRAP_SERVERS", "a:9092,b:9092", "kafka.bootstrap_servers", "a:9092,b:9092"),
        ("WEDA_KAFKA__BOOTSTRAP_SERVERS", "embedded", "kafka.bootstrap_servers", "embedded"),
        ("WEDA_KAFKA__PROPERTIES", '{"linger.ms": 5}', "kafka.properties", {"linger.ms": 5}),
        ("WEDA_KAFKA__PUBLISH_WAIT_SECONDS", "0.25", "kafka.publish_wait_seconds", 0.25),
        ("WEDA_STREAMS", "events", "streams", ("events",)),
        ("WEDA_STREAMS", "tasks, events", "streams", ("tasks", "events")),
        ("WEDA_STREAMS", '["instances"]', "streams", ("instances",)),
        ("WEDA_TOPICS__PREFIX", "acme_weda-1.x", "topics.prefix", "acme_weda-1.x"),
        ("WEDA_TOPICS__REPLICATION_FACTOR", "3", "topics.replication_factor", 3),
        ("WEDA_TOPICS__RETENTION_MS", "-1", "topics.retention_ms", -1),
        ("WEDA_TOPICS__CREATE", "false", "topics.create", False),
        ("WEDA_JOURNAL__PATH", "/data/j.db", "journal.path", Path("/data/j.db")),
        ("WEDA_JOURNAL__MAX_BYTES", "512MiB", "journal.max_bytes", 512 * 1024**2),
        ("WEDA_JOURNAL__MAX_BYTES", "2 GiB", "journal.max_bytes", 2 * 1024**3),
        ("WEDA_JOURNAL__MAX_BYTES", "2Gi", "journal.max_bytes", 2 * 1024**3),
        ("WEDA_JOURNAL__MAX_BYTES", "1048576", "journal.max_bytes", 1048576),
        ("WEDA_RECEIVER__PORT", "0", "receiver.port", 0),
        ("WEDA_RECEIVER__MAX_BODY_BYTES", "64KiB", "receiver.max_body_bytes", 65536),
        ("WEDA_AUTH", "none", "auth", "none"),
        ("WEDA_OPERATIONS__URL", "https://ops.example:1", "operations.url", "https://ops.example:1"),
        ("WEDA_TIMEZONE", "UTC", "timezone", "UTC"),
        ("WEDA_LOG__FORMAT", "console", "log.format", "console"),
    ],
)
def test_the_environment_sets_it(variable, text, setting, expected):
    assert expected == value_of(load({variable: text}), setting)


def test_variables_of_others_are_left_alone():
    assert load() == load({"PATH": "/bin", "WEDAX": "1", "weda_token": "x", "MY_WEDA_TOKEN": "x"})


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        (
            "WEDA_KAFKA__BOOTSTRAP_SERVER",
            "x",
            "unknown setting; the nearest known one is WEDA_KAFKA__BOOTSTRAP_SERVERS",
        ),
        ("WEDA_KAFKA_PROPERTIES", "x", "unknown setting; the nearest known one is WEDA_KAFKA__PROPERTIES"),
        ("WEDA_TOKEM_FILE", "x", "unknown setting; the nearest known one is WEDA_TOKEN"),
        ("WEDA_PORT", "1", "its group is missing: WEDA_RECEIVER__PORT or WEDA_OPERATIONS__PORT"),
        ("WEDA_PASSWORD_FILE", "x", "its group is missing: WEDA_REGISTRY__PASSWORD"),
        ("WEDA_FOO", "x", "unknown setting; no known one is similar"),
        ("WEDA_", "x", "unknown setting"),
        ("WEDA_receiver__port", "1", "the nearest known one is WEDA_RECEIVER__PORT"),
        ("WEDA_TOKEN\n\x1b[31m", "x", "unknown setting"),
        ("WEDA_KAFKA__BOOTSTRAP_SERVERS", " ", "must not be empty"),
        ("WEDA_KAFKA__BOOTSTRAP_SERVERS", f"user:{SECRET}@kafka:9092", "must not hold a credential"),
        ("WEDA_KAFKA__PROPERTIES", "{", "is not JSON: Expecting property name enclosed in double quotes at line 1"),
        ("WEDA_KAFKA__PROPERTIES", f'{{"a": 1{"0" * 5000}}}', "is not JSON that can be read"),
        ("WEDA_KAFKA__PROPERTIES", "[" * 100_000, "is not JSON that can be read"),
        ("WEDA_KAFKA__PROPERTIES", "[]", "should be a valid dictionary"),
        ("WEDA_KAFKA__PROPERTIES", '{"linger.ms": null}', "linger.ms must be text, a number, true or false"),
        ("WEDA_KAFKA__PROPERTIES", '{"linger.ms": Infinity}', "linger.ms must be text, a number, true or false"),
        ("WEDA_KAFKA__PUBLISH_WAIT_SECONDS", "0", "should be greater than 0"),
        ("WEDA_KAFKA__PUBLISH_WAIT_SECONDS", "nan", "should be a finite number"),
        ("WEDA_KAFKA__PUBLISH_WAIT_SECONDS", "0.8", "must be less than receiver.reply_deadline_seconds (0.8)"),
        ("WEDA_RECEIVER__REPLY_DEADLINE_SECONDS", "0.1", "kafka.publish_wait_seconds (0.4) must be less than"),
        ("WEDA_STREAMS", "", "at least 1 item"),
        ("WEDA_STREAMS", "events,", "1 should be 'events', 'instances', 'tasks', 'state', 'flat' or 'flat-state'"),
        ("WEDA_STREAMS", "states", "0 should be 'events', 'instances', 'tasks', 'state', 'flat' or 'flat-state'"),
        ("WEDA_STREAMS", "events,events", "must name each stream once"),
        ("WEDA_STREAMS", '["events"', "is not JSON"),
        ("WEDA_TOPICS__PREFIX", "weda/{source}", "must be 1 to 236 of the characters Kafka allows"),
        ("WEDA_TOPICS__PREFIX", "流程", "must be 1 to 236 of the characters Kafka allows"),
        ("WEDA_TOPICS__PREFIX", "a" * 237, "must be 1 to 236 of the characters Kafka allows"),
        ("WEDA_TOPICS__PARTITIONS", "0", "should be greater than or equal to 1"),
        ("WEDA_TOPICS__PARTITIONS", "many", "should be a valid integer"),
        ("WEDA_TOPICS__REPLICATION_FACTOR", "0", "should be greater than or equal to 1"),
        ("WEDA_TOPICS__RETENTION_MS", "0", "must be more than 0, or -1"),
        ("WEDA_TOPICS__CREATE", "maybe", "should be a valid boolean"),
        ("WEDA_JOURNAL__PATH", "", "must name a file"),
        ("WEDA_JOURNAL__MAX_BYTES", "1GB", "text such as 512KiB, 512MiB or 1GiB"),
        ("WEDA_JOURNAL__MAX_BYTES", "9" * 5000, "text such as 512KiB, 512MiB or 1GiB"),
        ("WEDA_JOURNAL__MAX_BYTES", "1.5GiB", "text such as 512KiB, 512MiB or 1GiB"),
        ("WEDA_JOURNAL__MAX_BYTES", "1KiB", "should be greater than or equal to 1048576"),
        ("WEDA_RECEIVER__MAX_BODY_BYTES", "1GiB", "must be less than journal.max_bytes"),
        ("WEDA_RECEIVER__PORT", "65536", "should be less than or equal to 65535"),
        ("WEDA_RECEIVER__PORT", "-1", "should be greater than or equal to 0"),
        ("WEDA_REPEATS__WINDOW_SECONDS", "1e300", "should be less than or equal to"),
        ("WEDA_TOKEN", "", "must not be empty"),
        ("WEDA_TOKEN", f"{SECRET} with spaces", "must hold visible ASCII characters only"),
        ("WEDA_TOKEN", REDACTED, "is the mask of a redacted output, not a secret"),
        ("WEDA_OPERATIONS__TOKEN", "", "must not be empty"),
        ("WEDA_SOURCES", "{}", "must name at least one source"),
        ("WEDA_SOURCES", '{"unknown": {}}', "unknown is reserved"),
        ("WEDA_SOURCES", '{"-hr": {}}', "-hr must be 1 to 64 letters"),
        ("WEDA_SOURCES", json.dumps({"a" * 65: {}}), "must be 1 to 64 letters"),
        ("WEDA_SOURCES", '{"hr": {"tokens": ["a", ""]}}', "hr.tokens.1 must not be empty"),
        ("WEDA_SOURCES", json.dumps({"hr": {"tokens": SECRET}}), "hr.tokens should be a valid tuple"),
        ("WEDA_SOURCES", json.dumps({"hr": {"token": SECRET}}), "hr.token is unknown; the nearest known one is tokens"),
        ("WEDA_SOURCES", json.dumps({"hr": SECRET}), "hr should be a valid dictionary"),
        ("WEDA_SOURCES", f'{{"hr": {SECRET}}}', "is not JSON: Expecting value at line 1, column 8"),
        ("WEDA_AUTH", "off", "should be 'required' or 'none'"),
        ("WEDA_OPERATIONS__URL", "localhost:9464", "must be an http or https URL"),
        ("WEDA_OPERATIONS__URL", "http://[", "must be an http or https URL"),
        ("WEDA_OPERATIONS__URL", f"http://me:{SECRET}@host", "must not hold a credential"),
        ("WEDA_TIMEZONE", "Asia/Shanghia", "is no time zone; the nearest known one is Asia/Shanghai"),
        ("WEDA_TIMEZONE", "/etc/passwd", "is no time zone"),
        ("WEDA_TIMEZONE", "Asia", "is no time zone"),
        ("WEDA_TIMEZONE", "", "is no time zone"),
        ("WEDA_LOG__LEVEL", "verbose", "should be 'debug', 'info', 'warning' or 'error'"),
        ("WEDA_LOG__FORMAT", "text", "should be 'json' or 'console'"),
    ],
)
def test_a_bad_variable_is_refused_in_one_line_that_names_it(variable, text, said):
    line = refusal(environment={variable: text})

    assert line.startswith(variable.split("\n")[0])
    assert said in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# only a comment\n", {}),
        ("kafka:\n", {}),
        ("kafka: {bootstrap_servers: 'a:1'}", {"kafka.bootstrap_servers": "a:1"}),
        ("kafka:\n  properties:\n    linger.ms: 5\n", {"kafka.properties": {"linger.ms": 5}}),
        ("streams: [events, tasks]\n", {"streams": ("events", "tasks")}),
        ("journal: {max_bytes: 64MiB, path: j.db}", {"journal.max_bytes": 2**26, "journal.path": Path("j.db")}),
        ("receiver: {max_body_bytes: 4096}", {"receiver.max_body_bytes": 4096}),
        ("timezone: Europe/Berlin\nlog: {format: null}", {"timezone": "Europe/Berlin", "log.format": None}),
        (b"\xef\xbb\xbftimezone: UTC\n", {"timezone": "UTC"}),
    ],
)
def test_the_file_sets_it(write, text, expected):
    settings = load(file=write(text))

    assert expected == {setting: value_of(settings, setting) for setting in expected}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kafka: {foo: 1}", "file: kafka.foo: unknown setting; no known one is similar"),
        ("kafak: {foo: 1}", "file: kafak: unknown setting; the nearest known one is kafka"),
        ("timezome: UTC", "file: timezome: unknown setting; the nearest known one is timezone"),
        ("kafka: [1]", "file: kafka: must hold settings by name"),
        ("kafka.bootstrap_servers: a:1", "file: kafka.bootstrap_servers: write the name after the dot"),
        ("- a", "must hold settings by name"),
        ("kafka: {bootstrap_servers: 5}", "file: kafka.bootstrap_servers: should be a valid string"),
        ("topics: {partitions: true}", "file: topics.partitions: must be a number, not true or false"),
        ("topics: {partitions: 1.5}", "file: topics.partitions: should be a valid integer"),
        ("journal: {max_bytes: yes}", "file: journal.max_bytes: must be a number, not true or false"),
        ("journal: {path: null}", "file: journal.path: "),
        ("streams: []", "file: streams: "),
        ("sources: {1: {}}", "file: sources: 1 should be a valid string"),
        (f"sources: {{hr: {{tokens: ['{SECRET} x']}}}}", "file: sources: hr.tokens.0 must hold visible ASCII"),
        (f"token: *{SECRET}", "is not YAML at line 1, column 8"),
        (f"token: !{SECRET} x", "is not YAML at line 1"),
        (f"token: {SECRET}: {SECRET}", "is not YAML at line 1"),
        ("timezone: 2020-99-99", "is not YAML that can be read"),
        ("[" * 100_000, "is not YAML that can be read"),
        ("log: {level: info}\nkafka:\nlog: {format: json}\n", "file: log: is written twice, again at line 3"),
        ("kafka: {properties: {linger.ms: 1, linger.ms: 2}}", "file: kafka.properties.linger.ms: is written twice"),
        ("? [a]\n: 1\n", "is not YAML at line 1"),
        ("a: \x00", "is not YAML that can be read"),
        (b"timezone: \xff", "is not UTF-8 text"),
        ("a: &a {b: *a}", "file: a: unknown setting"),
        ("kafka: &k {properties: *k}", "file: kafka.properties: properties must be text, a number, true or false"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_names_the_place(write, text, said):
    line = refusal(file=write(text))

    assert line.startswith("file: ")
    assert said in line


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert f"file: {tmp_path}/none.yaml cannot be read: No such file" in refusal(file=tmp_path / "none.yaml")
    assert "cannot be read: Is a directory" in refusal(file=tmp_path)


def test_a_variable_names_the_file_where_no_flag_does(write):
    named, given = write("log: {level: debug}\n"), write("log: {level: error}\n", "given.yaml")
    environment = {"WEDA_CONFIG": str(named)}

    assert Settings.load(environment=environment).log.level == "debug"
    assert Settings.load(environment=environment, file=given).log.level == "error"
    assert Settings.load(environment=environment | {"WEDA_LOG__LEVEL": "warning"}).log.level == "warning"
    assert Settings.files(environment=environment) == (named,)


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(write):
    file = write("receiver: {port: 1, host: file, max_in_flight: 7}\n")
    environment = {"WEDA_RECEIVER__PORT": "2", "WEDA_RECEIVER__HOST": "environment"}
    receiver = load(environment, file, {"receiver.port": 3, "receiver.host": None}).receiver

    assert receiver.port == 3
    assert receiver.host == "environment"
    assert receiver.max_in_flight == 7
    assert receiver.reply_deadline_seconds == 0.8


def test_a_bad_value_that_something_stronger_replaces_does_no_harm(write):
    assert load({"WEDA_RECEIVER__PORT": "2"}, write("receiver: {port: x}")).receiver.port == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            {"kafka.bootstrap": "x"},
            "flag: kafka.bootstrap: unknown setting; the nearest known one is kafka.bootstrap_servers",
        ),
        ({"receiver.port": "x"}, "flag: receiver.port: should be a valid integer"),
        ({"streams": "events,states"}, "flag: streams: 1 should be"),
    ],
)
def test_a_bad_flag_is_named(flags, said):
    assert said in refusal(flags=flags)


def test_flags_take_text_and_values():
    settings = load(flags={"streams": "events", "kafka.properties": {"linger.ms": 1}, "receiver.port": "0"})

    assert settings.streams == ("events",)
    assert settings.kafka.properties == {"linger.ms": 1}
    assert settings.receiver.port == 0


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_file_variable_reads_the_value_without_the_newline_at_its_end(write, ending):
    path = write(SECRET + ending, "token")
    settings = load({"WEDA_TOKEN_FILE": str(path)})

    assert settings.token.get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("variable", "text", "setting", "expected"),
    [
        ("WEDA_RECEIVER__PORT_FILE", "81\n", "receiver.port", 81),
        ("WEDA_KAFKA__PROPERTIES_FILE", '{\n"linger.ms": 1\n}\n', "kafka.properties", {"linger.ms": 1}),
        ("WEDA_STREAMS_FILE", "events,tasks\n", "streams", ("events", "tasks")),
    ],
)
def test_any_variable_can_come_from_a_file(write, variable, text, setting, expected):
    assert expected == value_of(load({variable: str(write(text, "value"))}), setting)


def test_a_value_and_its_file_together_are_refused(write):
    line = refusal(environment={"WEDA_TOKEN": SECRET, "WEDA_TOKEN_FILE": str(write(SECRET, "token"))})

    assert line == "WEDA_TOKEN_FILE: WEDA_TOKEN is set as well; keep one of the two"


@pytest.mark.parametrize("path", ["/nowhere/token", "/", "", "a\nb", "a\x00b"])
def test_a_value_file_that_cannot_be_read_is_named(path):
    line = refusal(environment={"WEDA_TOKEN_FILE": path})

    assert line.startswith("WEDA_TOKEN_FILE: ")
    assert "cannot be read" in line


def test_a_problem_in_a_value_file_names_the_variable_as_written(write):
    assert refusal(environment={"WEDA_AUTH_FILE": str(write("off", "auth"))}).startswith("WEDA_AUTH_FILE: should be")


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (None, {"default": ["new"]}),
        ({"hr": {"tokens": ["a"]}}, {"hr": ["a"], "default": ["new"]}),
        ({"default": {"tokens": ["old"]}}, {"default": ["old", "new"]}),
        ({"default": {"tokens": ["new"]}}, {"default": ["new"]}),
        ({"hr": {"tokens": ["new"]}}, {"hr": ["new"], "default": ["new"]}),
        ({}, {"default": ["new"]}),
    ],
)
def test_the_token_is_one_of_the_default_source(sources, expected):
    environment = {"WEDA_TOKEN": "new"} | ({} if sources is None else {"WEDA_SOURCES": json.dumps(sources)})
    settings = load(environment)

    assert expected == {
        name: [token.get_secret_value() for token in source.tokens] for name, source in settings.sources.items()
    }
    assert settings.credentials_exist


def test_sources_without_the_default_one_do_not_get_it():
    assert list(load({"WEDA_SOURCES": '{"hr": {"tokens": ["a"]}}'}).sources) == ["hr"]


@pytest.mark.parametrize(
    "properties",
    [
        {"acks": "all", "request.required.acks": -1, "topic.acks": "all"},
        {"enable.idempotence": True},
        {"max.in.flight": 5},
        {"max.in.flight.requests.per.connection": "1"},
        {"message.timeout.ms": 0},
        {"delivery.timeout.ms": "0"},
        {"partitioner": "murmur2_random"},
        {"retries": 2147483647},
        {"queue.buffering.backpressure.threshold": 1},
        {"linger.ms": 5.5, "compression.type": "zstd", "socket.keepalive.enable": True},
        {"security.protocol": "sasl_ssl", "sasl.mechanism": "PLAIN", "sasl.username": "u", "sasl.password": "p"},
    ],
)
def test_a_property_that_keeps_the_promises_is_taken_as_written(properties):
    assert properties == load({"WEDA_KAFKA__PROPERTIES": json.dumps(properties)}).kafka.properties


@pytest.mark.parametrize("name", ["message.timeout.ms", "topic.message.timeout.ms", "delivery.timeout.ms"])
def test_where_replicas_share_a_journal_the_time_of_a_message_is_not_a_setting(name):
    """The lease decides it, and librdkafka would take whichever of its names comes last."""
    properties = {"WEDA_KAFKA__PROPERTIES": json.dumps({name: 0})}
    with pytest.raises(ConfigurationError) as refusal:
        load({**properties, "WEDA_JOURNAL__URL": "postgresql://u@db.example.org/weda"})

    assert "WEDA_KAFKA__PROPERTIES" in str(refusal.value)
    assert f"the connector sets {name}; leave it out" in str(refusal.value)
    assert load(properties).kafka.properties == {name: 0}


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"acks": 1}, "acks must be all"),
        ({"acks": "0"}, "acks must be all"),
        ({"request.required.acks": 1}, "request.required.acks must be all"),
        ({"topic.acks": 1}, "topic.acks must be all"),
        ({"enable.idempotence": False}, "enable.idempotence must be true"),
        ({"max.in.flight": 6}, "max.in.flight must be 5"),
        ({"max.in.flight.requests.per.connection": 1000}, "must be 5: more than 5 breaks"),
        ({"max.in.flight": "0x6"}, "max.in.flight must be 5"),
        ({"message.timeout.ms": 1000}, "message.timeout.ms must be 0"),
        ({"topic.message.timeout.ms": 1000}, "topic.message.timeout.ms must be 0"),
        ({"delivery.timeout.ms": 120000}, "delivery.timeout.ms must be 0"),
        ({"partitioner": "consistent_random"}, "partitioner must be murmur2_random"),
        ({"transactional.id": "x"}, "transactional.id must not be set"),
        ({"enable.gapless.guarantee": False}, "enable.gapless.guarantee must not be set"),
        ({"retries": 5}, "retries must be 2147483647"),
        ({"message.send.max.retries": 2147483646}, "message.send.max.retries must be 2147483647"),
        ({"bootstrap.servers": "a:1"}, "bootstrap.servers must not be set: use WEDA_KAFKA__BOOTSTRAP_SERVERS"),
        ({"metadata.broker.list": "a:1"}, "must not be set: use WEDA_KAFKA__BOOTSTRAP_SERVERS"),
        ({"test.mock.num.brokers": 3}, "must not be set: use WEDA_KAFKA__BOOTSTRAP_SERVERS=embedded"),
        ({"delivery.report.only.error": True}, "delivery.report.only.error must not be set"),
        ({"enabled_events": 0}, "enabled_events must not be set"),
        ({"logger": "x"}, "logger must not be set"),
        ({"linger.msec": 5}, 'No such configuration property: "linger.msec"'),
        ({"a\nb": 5}, "a b must be the name of a librdkafka property"),
        ({"partitioner\0": "random"}, "must be the name of a librdkafka property"),
        ({"\ud800": 5}, "must be the name of a librdkafka property"),
        ({"": 5}, "must be the name of a librdkafka property"),
        ({"client.id": "\ud800"}, "client.id must be Unicode text without NUL"),
        ({"client.id": "a\0b"}, "client.id must be Unicode text without NUL"),
        ({"linger.ms": "soon"}, "Invalid value for configuration property"),
        ({"linger.ms": -1}, "is outside allowed range"),
        ({"queuing.strategy": "lifo"}, "must be set to `fifo`"),
        ({"error_cb": "x"}, "takes a Python object"),
        ({"default.topic.config": "x"}, "takes a Python object"),
        ({"sasl.kerberos.min.time.before.relogin": SECRET}, "Invalid value"),
        ({"security.protocol": SECRET, "sasl.password": SECRET}, f'Invalid value "{REDACTED}"'),
        ({"ssl.key.location": f"/{SECRET}", "security.protocol": "ssl"}, "ssl.key.location: cannot read"),
    ],
)
def test_a_property_that_breaks_a_promise_or_is_unknown_is_refused(properties, said):
    line = refusal(environment={"WEDA_KAFKA__PROPERTIES": json.dumps(properties)})

    assert line.startswith("WEDA_KAFKA__PROPERTIES: ")
    assert said in line


def test_an_unknown_property_in_the_file_is_named_as_written(write):
    line = refusal(file=write("kafka: {properties: {nope: 1}}"))

    assert line == 'file: kafka.properties: No such configuration property: "nope"'


def test_checking_properties_says_nothing_on_its_own(capfd):
    check_properties({"group.id": "a consumer's property, which librdkafka warns of", "linger.ms": 1})

    assert tuple(capfd.readouterr()) == ("", "")


def everything_secret(write):
    properties = {
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "PLAIN",
        "sasl.username": SECRET,
        "sasl.password": SECRET,
        "ssl.key.password": SECRET,
        "topic.request.timeout.ms": 5000,
    }
    return load(
        {
            "WEDA_TOKEN": SECRET + "1",
            "WEDA_SOURCES": json.dumps({"hr": {"tokens": [SECRET + "2", SECRET + "3"]}}),
            "WEDA_OPERATIONS__TOKEN_FILE": str(write(SECRET, "token")),
            "WEDA_KAFKA__PROPERTIES": json.dumps(properties),
        }
    )


def test_no_output_shows_a_secret(write):
    settings = everything_secret(write)
    outputs = [
        repr(settings),
        str(settings),
        repr(settings.kafka),
        json.dumps(settings.redacted()),
        settings.model_dump_json(),
        yaml.safe_dump(settings.redacted()),
    ]

    assert not [output for output in outputs if SECRET in output]


def test_redacted_settings_keep_their_shape_and_what_is_no_secret(write):
    redacted = everything_secret(write).redacted()

    tokens = {name: source["tokens"] for name, source in redacted["sources"].items()}
    assert tokens == {"hr": [REDACTED] * 2, "default": [REDACTED]}
    assert REDACTED == redacted["token"] == redacted["operations"]["token"]
    assert redacted["kafka"]["properties"] == {
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": REDACTED,
        "sasl.username": REDACTED,
        "sasl.password": REDACTED,
        "ssl.key.password": REDACTED,
        "topic.request.timeout.ms": 5000,
    }
    assert load().redacted()["token"] is None


def test_what_is_shown_can_be_a_file_again(write):
    settings = load({"WEDA_JOURNAL__MAX_BYTES": "64MiB", "WEDA_STREAMS": "events"})

    assert settings.changed(load(file=write(yaml.safe_dump(settings.redacted())))) == ()


def test_settings_never_change():
    settings = load()

    with pytest.raises(ValueError, match="frozen"):
        settings.receiver.port = 1


def test_who_needs_one_setting_is_not_stopped_by_others():
    """Half of a pair, a file that is not there; a name that is none is one all the same."""
    environment = {
        "WEDA_JOURNAL__URL": "postgresql://weda@db/weda",
        "WEDA_REGISTRY__USERNAME": "weda",
        "WEDA_KAFKA__PUBLISH_WAIT_SECONDS": "7",
        "WEDA_SOURCES_FILE": "/not/there",
    }

    settings = Settings.load(environment=environment, only=("journal.url",))

    assert settings.journal.url.get_secret_value() == "postgresql://weda@db/weda"
    assert settings.registry.username is None
    with pytest.raises(ConfigurationError, match="WEDA_SOURCES_FILE"):
        Settings.load(environment=environment)
    with pytest.raises(ConfigurationError, match="WEDA_JOURNAL__URI: unknown setting"):
        Settings.load(environment={"WEDA_JOURNAL__URI": "x"}, only=("journal.url",))


@pytest.mark.parametrize("key", ["ssl.ca.location", "ssl.certificate.location", "ssl.crl.location"])
def test_a_file_that_a_property_names_and_nobody_can_read_is_named(key, tmp_path):
    """librdkafka says ``BIO lib`` and not which file."""
    missing = tmp_path / "certificates" / "ca.crt"
    properties = {"security.protocol": "SSL", key: str(missing)}

    with pytest.raises(ConfigurationError) as refused:
        check_properties(properties)

    assert refused.value.message == f"WEDA_KAFKA__PROPERTIES: {key}: cannot read {missing} (No such file or directory)"


def test_the_system_s_certificates_and_a_folder_of_them_are_no_missing_files(tmp_path):
    check_properties({"security.protocol": "SSL", "ssl.ca.location": "probe"})
    check_properties({"security.protocol": "SSL", "ssl.ca.location": str(tmp_path)})


def test_what_changed_is_named_by_its_variable():
    before = Settings.load(environment={"WEDA_LOG__LEVEL": "info", "WEDA_RECEIVER__PORT": "8081"})
    after = Settings.load(environment={"WEDA_LOG__LEVEL": "debug", "WEDA_RECEIVER__PORT": "8082"})

    assert before.changed(after) == ("WEDA_RECEIVER__PORT", "WEDA_LOG__LEVEL")
    assert before.changed(before) == ()
