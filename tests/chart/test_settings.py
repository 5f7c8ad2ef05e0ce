"""What the chart gives the connector is what the connector reads: its own settings, loaded from what is rendered."""

import json
import re
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import helm_python
import pytest
import trustme
import yaml

from connector.settings import Settings
from tests.chart import pods, values_schema
from tests.chart.rendering import CHART, EVERYTHING, NAME, SHARED, connector, objects, only, pod_specs, texts

SETTINGS, DEFINITIONS = values_schema.settings_schema()
FOLDER = "/etc/weda-connector/certificates/kafka"
AUTHORITY = trustme.CA()
PAIR = AUTHORITY.issue_cert("weda-connector")
SECRETS = {
    "kafka-user": {
        "ca.crt": AUTHORITY.cert_pem.bytes().decode(),
        "tls.crt": PAIR.cert_chain_pems[0].bytes().decode(),
        "tls.key": PAIR.private_key_pem.bytes().decode(),
    },
    "weda-connector": {"token": "a-token", "operations-token": "another-token"},
    "kafka": {
        "properties.json": json.dumps(
            {
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": "weda",
                "sasl.password": 'a "quoted" password',
                "ssl.ca.location": f"{FOLDER}/ca.crt",
            }
        )
    },
    "sources": {"sources.json": '{"hr": {"tokens": ["hr-token"]}}'},
    "basic-auth": {"username": "weda", "password": 'a "quoted" password\n'},
    "hr": {"token": "h-2\nh-1\n"},
    "wms": {"token": "w-1"},
    "registry": {"password": "registry-password"},
    "journal": {"url": "postgresql://weda_runner:runner-password@db/weda"},
    "journal-owner": {"owner-url": "postgresql://weda_owner:owner-password@db/weda"},
}
JOURNAL_URL = "WEDA_JOURNAL__URL"
PROPERTIES = "WEDA_KAFKA__PROPERTIES"
FOLLOWED = {
    "WEDA_JOURNAL__MAX_BYTES": "journal.max_bytes",
    "WEDA_JOURNAL__PATH": "journal.path",
    "WEDA_OPERATIONS__HOST": "operations.host",
    "WEDA_OPERATIONS__PORT": "operations.port",
    "WEDA_OPERATIONS__TLS_CERTIFICATE": "operations.tls_certificate",
    "WEDA_RECEIVER__HOST": "receiver.host",
    "WEDA_RECEIVER__PORT": "receiver.port",
    "WEDA_RECEIVER__SHUTDOWN_GRACE_SECONDS": "receiver.shutdown_grace_seconds",
    "WEDA_RECEIVER__TLS_CERTIFICATE": "receiver.tls_certificate",
}
"""Settings from which the chart derives others, so they must be where it can see them."""


def effective(values, folder: Path, component: str = "connector", needed: tuple[str, ...] = ()) -> Settings:
    """The settings of a connector whose pod has what the chart says."""
    pod = pods.lay_out(values, SECRETS, folder, component)
    return Settings.load(environment=pod.environment, file=pod.file, only=needed)


def secret(name, key):
    return {"existingSecret": name, "key": key}


def test_the_defaults_make_a_connector_that_is_reached_from_outside_its_pod(tmp_path):
    settings = effective({}, tmp_path)

    assert settings.kafka.bootstrap_servers == "kafka:9092"
    assert settings.journal.path == Path("/var/lib/weda-connector/journal.db")
    assert settings.token.get_secret_value() == "a-token"
    assert settings.operations.token.get_secret_value() == "another-token"
    assert (settings.receiver.host, settings.operations.host) == ("0.0.0.0", "0.0.0.0")
    assert settings.credentials_exist


def test_ports_in_the_settings_are_those_of_the_pod():
    ports = {"settings": {"receiver": {"port": 8181}, "operations": {"port": 9999}}}
    named = {each["name"]: each["containerPort"] for each in connector(ports)["ports"]}

    assert named == {"http": 8181, "operations": 9999}
    assert [each["port"] for each in only("Service", ports, f"{NAME}-headless")["spec"]["ports"]] == [8181, 9999]
    ingress = only("NetworkPolicy", ports, NAME)["spec"]["ingress"]
    assert [rule["ports"][0]["port"] for rule in ingress] == [8181, 9999]


def test_who_looks_at_a_listener_speaks_tls_where_it_does():
    """A probe in plain HTTP would end every pod, and a scrape would find nothing."""
    certificate = {"tls_certificate": f"{FOLDER}/tls.crt", "tls_key": f"{FOLDER}/tls.key"}
    values = {
        "settings": {"operations": certificate, "receiver": certificate},
        "certificates": {"kafka": {"existingSecret": "kafka-user"}},
        "serviceMonitor": {"enabled": True, "tlsConfig": {"serverName": "weda"}},
    }
    secured = {"scheme": "https", "tlsConfig": {"serverName": "weda"}}

    assert schemes(values) == {"https"}
    assert schemes({"serviceMonitor": values["serviceMonitor"]}) == {"http"}
    assert secured.items() <= only("ServiceMonitor", values)["spec"]["endpoints"][0].items()
    assert "curl --insecure https://127.0.0.1:9464/readyz" in texts(values)["NOTES.txt"]
    assert "--operations-url http://127.0.0.1:9999" in texts({"settings": {"operations": {"port": 9999}}})["NOTES.txt"]


def test_the_notes_ask_with_the_settings_that_the_pod_has():
    """Half of them in the environment alone need not hold: a registry's password there, its user name in the file."""
    config = "/etc/weda-connector/config/config.yaml"

    assert config in connector({})["args"]
    assert {"name": "WEDA_CONFIG", "value": config} in connector({})["env"]
    assert "weda-connector journal status " in texts({})["NOTES.txt"]


def test_the_test_s_program_asks_listeners_of_either_kind():
    """By the names of Services, which no certificate needs to have."""
    program = pod_specs({})["test"]["containers"][0]["command"][2]

    for context in (None, ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)):
        with serving(context) as url:
            asked = [sys.executable, "-c", program, f"{url}/readyz"]
            good = subprocess.run([*asked, f"{url}/no-such-path"], capture_output=True, text=True, check=False)
            bad = subprocess.run([*asked, f"{url}/readyz"], capture_output=True, text=True, check=False)

        assert (good.returncode, good.stdout) == (0, "ready\ncode 40400\n"), good.stderr
        assert bad.returncode == 1


def test_the_test_s_doctor_looks_with_the_settings_of_the_release():
    """Wrong brokers leave a pod ready, since it can accept into its journal; the doctor fails, and so does the test."""
    values = EVERYTHING
    serving, [_, doctor] = connector(values), pod_specs(values)["test"]["containers"]
    config = "/etc/weda-connector/config/config.yaml"

    assert doctor["args"] == ["doctor", "--config", config]
    assert doctor["env"] == serving["env"]
    assert doctor["envFrom"] == serving["envFrom"]
    assert doctor["volumeMounts"] == serving["volumeMounts"]
    assert "weda-connector doctor\n" in texts({})["NOTES.txt"]


class Listener(BaseHTTPRequestHandler):
    """As the connector's two answer."""

    def do_GET(self):
        is_ready = self.path == "/readyz"
        self.send_response(200 if is_ready else 404)
        self.end_headers()
        self.wfile.write(b"ready" if is_ready else b'{"code": 40400}')

    def log_message(self, *_):
        pass


@contextmanager
def serving(context):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    if context is not None:
        PAIR.configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def schemes(values):
    """What probes, Services, scrapes, the test's pod and the notes say."""
    serving, tester = connector(values), pod_specs(values)["test"]["containers"][0]
    ports = [port for each in objects(values) if each["kind"] == "Service" for port in each["spec"]["ports"]]
    return {
        *(serving[probe]["httpGet"]["scheme"].lower() for probe in ("startupProbe", "livenessProbe", "readinessProbe")),
        *(port["appProtocol"] for port in ports),
        *(each.partition("://")[0] for each in tester["command"][-2:]),
        only("ServiceMonitor", values)["spec"]["endpoints"][0].get("scheme"),
        re.search(r"Sources send to: +(\w+)://", texts(values)["NOTES.txt"])[1],
    }


def test_a_scrape_in_plain_text_has_no_tls():
    values = {"serviceMonitor": {"enabled": True, "tlsConfig": {"serverName": "weda"}}}

    assert "tlsConfig" not in only("ServiceMonitor", values)["spec"]["endpoints"][0]


def test_every_setting_that_is_no_secret_can_be_set_in_the_values(tmp_path):
    """Each with its default, but for those that cannot be one in a pod."""
    settings = settable(Settings().model_dump(mode="json"))
    settings["journal"]["path"] = "/var/lib/weda-connector/journal.db"
    settings["kafka"] |= {"bootstrap_servers": "kafka:9092", "properties": {"linger.ms": 7, "client.id": "weda"}}
    settings["operations"]["host"] = "0.0.0.0"

    loaded = effective({"settings": settings}, tmp_path).model_dump(mode="json")

    assert settable(loaded) == settings


def test_what_cannot_be_set_in_the_values_is_secret():
    settings = settable(Settings().model_dump(mode="json"))
    groups = {name: under for name, under in settings.items() if isinstance(under, dict) and name != "sources"}
    names = [*settings, *(f"{group}__{name}" for group, under in groups.items() for name in under)]
    left = {name for name, _, _ in Settings.describe()} - {f"WEDA_{name}".upper() for name in names}

    assert left
    assert [name for name in left if not re.search(r"TOKEN|PASSWORD|SECRET|KEY|JOURNAL__URL", name)] == []


def settable(dumped, schema=None):
    """What the schema of the values lets in."""
    schema = schema or SETTINGS
    schema = DEFINITIONS.get(schema.get("$ref", "").rpartition("/")[2], schema)
    if "properties" not in schema:
        under = schema.get("additionalProperties")
        is_tree = isinstance(dumped, dict) and isinstance(under, dict)
        return {name: settable(value, under) for name, value in dumped.items()} if is_tree else dumped
    known = schema["properties"]
    return {name: settable(value, known[name]) for name, value in dumped.items() if name in known}


@pytest.mark.parametrize("name", [name for name, _, _ in Settings.describe() if name not in {JOURNAL_URL, *FOLLOWED}])
def test_every_setting_can_come_from_a_secret(name):
    """As a file, which a rotation of the Secret reaches; the address of a shared journal has a place of its own."""
    values = {"secretSettings": {name: secret("any", "a.key")}, "extraEnvFrom": [{"secretRef": {"name": "rest"}}]}
    spec = pod_specs(values)["connector"]
    [volume] = [each for each in spec["volumes"] if each["name"] == "secrets"]

    assert {"name": f"{name}_FILE", "value": f"/etc/weda-connector/secrets/{name}"} in connector(values)["env"]
    source = {"secret": {"name": "any", "items": [{"key": "a.key", "path": name}]}}
    assert source in volume["projected"]["sources"]


@pytest.mark.parametrize(
    "settings",
    [
        {"token": "t"},
        {"operations": {"token": "t"}},
        {"registry": {"password": "p"}},
        {"sources": {"hr": {"tokens": ["t"]}}},
        {"kafka": {"properties": {"sasl.password": "p"}}},
        {"kafka": {"properties": {"ssl.key.password": "p"}}},
        {"kafka": {"properties": {"ssl.key.pem": "p"}}},
        {"kafka": {"properties": {"ssl.keystore.password": "p"}}},
        {"kafka": {"properties": {"sasl.oauthbearer.client.secret": "p"}}},
        {"kafka": {"properties": {"sasl.oauthbearer.client.credentials.client.secret": "p"}}},
        {"kafka": {"properties": {"sasl.oauthbearer.assertion.private.key.passphrase": "p"}}},
        {"kafka": {"properties": {"sasl.oauthbearer.assertion.private.key.pem": "p"}}},
        {"kafka": {"properties": {"sasl.oauthbearer.config": "p"}}},
        {"kafka": {"properties": {"sasl.jaas.config": "p"}}},
    ],
    ids=json.dumps,
)
def test_a_secret_has_no_place_in_the_values(settings):
    """The error names it."""
    [*_, name] = names_in(settings)

    with pytest.raises(helm_python.HelmValuesError, match=f"'{name}'"):
        objects({"settings": settings})


def names_in(tree):
    for name, under in tree.items():
        yield name
        yield from names_in(under) if isinstance(under, dict) else ()


@pytest.mark.parametrize("name", ["ssl.key.location", "sasl.username", "sasl.oauthbearer.client.id", "linger.ms"])
def test_a_property_that_is_no_secret_has_its_place_there(name):
    assert objects({"settings": {"kafka": {"properties": {name: "p"}}}})


def test_kafka_with_sasl_over_tls(tmp_path):
    """All properties come from one Secret; the certificate of the authority is a file beside them."""
    values = {
        "secretSettings": {"WEDA_KAFKA__PROPERTIES": secret("kafka", "properties.json")},
        "certificates": {"kafka": {"existingSecret": "kafka-user"}},
    }

    properties = effective(values, tmp_path).kafka.properties  # librdkafka has read the certificate

    assert properties["sasl.password"] == 'a "quoted" password'
    assert properties["ssl.ca.location"] == f"{tmp_path}{FOLDER}/ca.crt"


def test_kafka_with_a_certificate_of_our_own(tmp_path):
    properties = {
        "security.protocol": "SSL",
        "ssl.ca.location": f"{FOLDER}/ca.crt",
        "ssl.certificate.location": f"{FOLDER}/tls.crt",
        "ssl.key.location": f"{FOLDER}/tls.key",
    }
    values = {
        "settings": {"kafka": {"properties": properties}},
        "certificates": {"kafka": {"existingSecret": "kafka-user"}},
    }
    [volume] = [each for each in pod_specs(values)["connector"]["volumes"] if each["name"] == "certificates-kafka"]

    loaded = effective(values, tmp_path).kafka.properties

    assert loaded["ssl.key.location"] == f"{tmp_path}{FOLDER}/tls.key"
    assert volume["secret"] == {"secretName": "kafka-user", "defaultMode": 0o440}
    assert {"name": "certificates-kafka", "mountPath": FOLDER, "readOnly": True} in connector(values)["volumeMounts"]


def test_sources_and_the_registry_s_password_from_secrets(tmp_path):
    values = {
        "settings": {"registry": {"url": "https://registry", "username": "weda"}},
        "secretSettings": {
            "WEDA_SOURCES": secret("sources", "sources.json"),
            "WEDA_REGISTRY__PASSWORD": secret("registry", "password"),
        },
    }

    settings = effective(values, tmp_path)

    assert [one.get_secret_value() for one in settings.sources["hr"].tokens] == ["hr-token"]
    assert settings.registry.password.get_secret_value() == "registry-password"


def test_replicas_run_with_the_runner_s_address_and_the_migration_with_the_owner_s(tmp_path):
    """Which has no other secret, and needs no configuration file: that is not there before the install."""
    values = {name: SHARED[name] for name in ("sharedJournal", "replicaCount")}

    serving = effective(values, tmp_path / "serving")
    migrating = effective(values, tmp_path / "migrating", "migration")

    assert serving.journal.url.get_secret_value() == SECRETS["journal"]["url"]
    assert serving.journal.path.parent == Path("/var/lib/weda-connector")
    assert migrating.journal.url.get_secret_value() == SECRETS["journal-owner"]["owner-url"]
    assert migrating.token is None
    assert not (tmp_path / "migrating/etc/weda-connector/config").exists()


def test_the_migration_minds_no_setting_of_the_server(tmp_path):
    """Half of a pair is in `settings`, or a secret that it has no right to, or a file that is not there."""
    values = {
        "sharedJournal": SHARED["sharedJournal"],
        "settings": {"registry": {"url": "https://registry"}, "receiver": {"reply_deadline_seconds": 5}},
        "secretSettings": {"WEDA_REGISTRY__PASSWORD": secret("registry", "password")},
        "extraEnv": [
            {"name": "WEDA_REGISTRY__USERNAME", "value": "weda"},
            {"name": "WEDA_KAFKA__PUBLISH_WAIT_SECONDS", "value": "2"},
            {"name": "WEDA_SOURCES_FILE", "value": "/injected/sources.json"},
            {"name": "PGAPPNAME", "value": "weda"},
        ],
    }

    migrating = effective(values, tmp_path, "migration", needed=("journal.url",))

    assert migrating.journal.url.get_secret_value() == SECRETS["journal-owner"]["owner-url"]
    [container] = pod_specs(values)["migration"]["containers"]
    assert {"name": "PGAPPNAME", "value": "weda"} in container["env"]
    assert "WEDA_REGISTRY__PASSWORD_FILE" not in {each["name"] for each in container["env"]}


def test_the_address_of_a_shared_journal_has_one_place(tmp_path):
    with pytest.raises(helm_python.HelmRenderError, match=r"sharedJournal\.enabled=true"):
        objects({"secretSettings": {JOURNAL_URL: secret("journal", "url")}})
    with pytest.raises(helm_python.HelmValuesError):
        objects({"settings": {"journal": {"url": "postgresql://db/weda"}}})


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        ({"kafka": {"properties": {"linger.ms": 7}}}, "WEDA_KAFKA__PROPERTIES"),
        ({"sources": {"hr": {}}}, "WEDA_SOURCES"),
    ],
)
def test_what_a_secret_would_silently_replace_is_refused(settings, variable):
    with pytest.raises(helm_python.HelmRenderError, match=f"secretSettings.{variable} are both set"):
        objects({"settings": settings, "secretSettings": {variable: secret("s", "k")}})


def test_a_part_of_a_setting_comes_from_any_key_of_any_secret(tmp_path):
    """Beside what is no secret, which stays in the values."""
    values = {
        "settings": {
            "kafka": {"properties": {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512"}},
            "sources": {"hr": {"rate": 5}, "wms-east": {"env_types": ["prod"]}},
        },
        "secretSettings": {
            "WEDA_TOKEN": {"existingSecret": ""},
            f"{PROPERTIES}__SASL_USERNAME": secret("basic-auth", "username"),
            f"{PROPERTIES}__SASL_PASSWORD": secret("basic-auth", "password"),
            "WEDA_SOURCES__HR__TOKENS": secret("hr", "token"),
            "WEDA_SOURCES__WMS_EAST__TOKENS": secret("wms", "token"),
        },
    }

    settings = effective(values, tmp_path)

    assert settings.kafka.properties == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "weda",
        "sasl.password": 'a "quoted" password',
    }
    sources = {
        name: (source.rate, source.env_types, [token.get_secret_value() for token in source.tokens])
        for name, source in settings.sources.items()
    }
    assert sources == {"hr": (5, (), ["h-2", "h-1"]), "wms-east": (None, ("prod",), ["w-1"])}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {
                "settings": {"kafka": {"properties": {"sasl.username": "weda"}}},
                "secretSettings": {f"{PROPERTIES}__SASL_USERNAME": secret("s", "k")},
            },
            f"settings.kafka.properties: sasl.username is set by secretSettings.{PROPERTIES}__SASL_USERNAME too",
        ),
        (
            {
                "settings": {"kafka": {"properties": {"linger.ms": 7}}},
                "extraEnv": [{"name": f"{PROPERTIES}__LINGER_MS_FILE", "value": "/f"}],
            },
            f"settings.kafka.properties: linger.ms is set by extraEnv: {PROPERTIES}__LINGER_MS_FILE too",
        ),
        (
            {"secretSettings": {"WEDA_SOURCES__HR__TOKENS": secret("s", "k")}},
            "secretSettings.WEDA_SOURCES__HR__TOKENS: settings.sources has no source of this name (sources there: def",
        ),
        (
            {
                "settings": {"sources": {"travel": {}, "wms-east": {}}},
                "extraEnv": [{"name": "WEDA_SOURCES__HR__SECRETS", "value": "s"}],
            },
            "extraEnv: WEDA_SOURCES__HR__SECRETS: settings.sources has no source of this name (sources there: travel",
        ),
        (
            {
                "settings": {"sources": {"a-b": {}, "a_b": {}}},
                "secretSettings": {"WEDA_SOURCES__A_B__TOKENS": secret("s", "k")},
            },
            "settings.sources: a-b and a_b have the same variables (WEDA_SOURCES__A_B__…); rename one of the two",
        ),
        (
            {"extraEnv": [{"name": "WEDA_SOURCES__HR__RATE", "value": "5"}]},
            "extraEnv: WEDA_SOURCES__HR__RATE is not a setting",
        ),
    ],
    ids=str,
)
def test_a_part_that_is_set_twice_or_of_no_source_is_refused(values, said):
    with pytest.raises(helm_python.HelmRenderError, match=re.escape(said)):
        objects(values)


@pytest.mark.parametrize("name", ["WEDA_KAFKA__PROPERTIES__sasl_password", "WEDA_SOURCES__HR__RATE"])
def test_what_is_no_part_has_no_place_among_secrets(name):
    with pytest.raises(helm_python.HelmValuesError, match=name):
        objects({"secretSettings": {name: secret("s", "k")}})


GUIDE = (CHART.parent / "docs" / "kubernetes.md").read_text(encoding="utf-8")
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)]


@pytest.mark.parametrize("values", [each for each in BLOCKS if "apiVersion" not in each], ids=str)
def test_the_values_in_the_guide_are_values_of_the_chart(values):
    """Each block as it stands; `serve` would start with what it says."""
    assert objects(values)


@pytest.mark.parametrize(("variable", "name"), FOLLOWED.items(), ids=FOLLOWED)
def test_what_the_chart_follows_stands_where_it_sees_it(variable, name):
    with pytest.raises(
        helm_python.HelmRenderError, match=f"secretSettings.{variable}: set it as settings.{name} instead:"
    ):
        objects({"secretSettings": {variable: secret("s", "k")}})
    with pytest.raises(
        helm_python.HelmRenderError, match=f"extraEnv: {variable}_FILE: set it as settings.{name} instead:"
    ):
        objects({"extraEnv": [{"name": f"{variable}_FILE", "value": "/f"}]})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"settings": {"receiver": {"port": 9464}}}, "settings.operations.port are both 9464"),
        ({"settings": {"operations": {"host": "127.0.0.1"}}}, "settings.operations.host is 127.0.0.1"),
        ({"settings": {"operations": None}}, "settings.operations.host is 127.0.0.1"),
        ({"settings": {"operations": {"host": ""}}}, "settings.operations.host is 127.0.0.1"),
        ({"settings": {"operations": {"host": "::1"}}}, "settings.operations.host is ::1"),
        ({"settings": {"kafka": None}}, "settings.kafka.bootstrap_servers is empty"),
        ({"settings": {"kafka": {"bootstrap_servers": ""}}}, "settings.kafka.bootstrap_servers is empty"),
        ({"settings": {"kafka": {"bootstrap_servers": None}}}, "settings.kafka.bootstrap_servers is empty"),
        ({"settings": {"kafka": {"bootstrap_servers": "embedded"}}}, "settings.kafka.bootstrap_servers is embedded"),
        (
            {"settings": {"receiver": {"reply_deadline_seconds": 0.3}}},
            "publish_wait_seconds (0.4) must be less than settings.receiver.reply_deadline_seconds (0.3)",
        ),
        (
            {"settings": {"kafka": {"publish_wait_seconds": 1}}},
            "settings.kafka.publish_wait_seconds (1) must be less than settings.receiver.reply_deadline_seconds (0.8)",
        ),
        ({"settings": {"registry": {"username": "u"}}}, "secretSettings.WEDA_REGISTRY__PASSWORD must be set together"),
        (
            {"secretSettings": {"WEDA_PRIVACY__KEY": {"existingSecret": "s", "key": "k"}}},
            "settings.privacy.pseudonyms and secretSettings.WEDA_PRIVACY__KEY must be set together",
        ),
        (
            {"settings": {"registry": {"ca_location": "/etc/weda-connector/certificates/registry/ca.crt"}}},
            "exist only if certificates.registry names a Secret",
        ),
        ({"secretSettings": {"WEDA_TOKEN": None}}, "no source has a credential"),
        ({"extraEnv": [{"name": "WEDA_LOG__LEVLE", "value": "debug"}]}, "extraEnv: WEDA_LOG__LEVLE is not a setting"),
        ({"extraEnv": [{"name": "WEDA_TOKEN", "value": "t"}]}, "WEDA_TOKEN is set by secretSettings.WEDA_TOKEN too"),
        ({"extraEnv": [{"name": "TZ", "value": "UTC"}] * 2}, "extraEnv: TZ is set by extraEnv: TZ too"),
        ({"extraEnv": [{"name": f"{JOURNAL_URL}_FILE", "value": "/f"}]}, "sharedJournal.enabled=true"),
        (
            {"settings": {"sources": {"hr": {}}}, "extraEnv": [{"name": "WEDA_SOURCES", "value": "{}"}]},
            "settings.sources and extraEnv: WEDA_SOURCES are both set",
        ),
    ],
    ids=str,
)
def test_what_would_end_every_pod_or_leave_it_unreached_is_refused(values, said):
    """In one line that names the value."""
    with pytest.raises(helm_python.HelmRenderError, match=re.escape(said)):
        objects(values)


@pytest.mark.parametrize(
    "values",
    [
        {"secretSettings": {"WEDA_TOKEN": None}, "settings": {"sources": {"hr": {"certificates": ["hr.example.com"]}}}},
        {"secretSettings": {"WEDA_TOKEN": None}, "extraEnv": [{"name": "WEDA_AUTH", "value": "none"}]},
        {"secretSettings": {"WEDA_TOKEN": None}, "settings": {"receiver": {"host": "127.0.0.1"}}},
        {"secretSettings": {"WEDA_TOKEN": None}, "extraEnvFrom": [{"secretRef": {"name": "all"}}]},
        {"settings": {"kafka": None}, "extraEnv": [{"name": "WEDA_KAFKA__BOOTSTRAP_SERVERS", "value": "kafka:9092"}]},
    ],
    ids=str,
)
def test_what_is_set_in_another_way_is_not_missed(values):
    assert connector(values)


def test_large_numbers_stay_whole(tmp_path):
    """Helm's numbers are floating point; 30 days in milliseconds must not become 2.592e+09."""
    values = yaml.safe_load("settings: {topics: {retention_ms: 2592000001}, repeats: {max_entries: 12345678}}")

    settings = effective(values, tmp_path)

    assert (settings.topics.retention_ms, settings.repeats.max_entries) == (2_592_000_001, 12_345_678)


def test_the_chart_holds_no_secret():
    assert [each for each in objects({}) if each["kind"] == "Secret"] == []
    assert "kind: Secret" not in "".join(path.read_text() for path in CHART.rglob("*.yaml"))
