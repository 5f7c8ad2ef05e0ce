"""Settings of the front door: what is taken, and what is refused in one line that names the setting."""

import base64
from pathlib import Path

import pytest
import trustme

from connector.errors import ConfigurationError
from connector.receiver.tls import ServerTls, TlsFiles
from connector.settings import Settings

SECRET = f"whsec_{base64.b64encode(bytes(24)).decode()}"


@pytest.mark.parametrize(
    ("named", "settings"),
    [
        ("WEDA_RECEIVER__TLS_KEY", {"WEDA_RECEIVER__TLS_KEY": "key.pem"}),
        ("WEDA_OPERATIONS__TLS_KEY", {"WEDA_OPERATIONS__TLS_KEY": "key.pem"}),
        ("WEDA_RECEIVER__TLS_CLIENT_CA", {"WEDA_RECEIVER__TLS_CLIENT_CA": "ca.pem"}),
        ("WEDA_RECEIVER__TRUSTED_PROXIES", {"WEDA_RECEIVER__TRUSTED_PROXIES": "10.0.0.1/8"}),
        ("WEDA_RECEIVER__MAX_CONNECTIONS", {"WEDA_RECEIVER__MAX_CONNECTIONS": "0"}),
        ("WEDA_SOURCES", {"WEDA_SOURCES": '{"a": {"secrets": ["whsec_dG9vIHNob3J0"]}}'}),
        ("WEDA_SOURCES", {"WEDA_SOURCES": '{"a": {"secrets": ["dG9vIHNob3J0dG9vIHNob3J0"]}}'}),
        ("WEDA_SOURCES", {"WEDA_SOURCES": '{"a": {"secrets": ["whsec_#########################"]}}'}),
        ("WEDA_SOURCES", {"WEDA_SOURCES": '{"a": {"networks": ["10.0.0.1/8"]}}'}),
        ("WEDA_SOURCES", {"WEDA_SOURCES": '{"a": {"rate": 0}}'}),
        ("WEDA_SOURCES", {"WEDA_SOURCES": '{"a": {"certificates": ["a.example.org"]}}'}),
        ("WEDA_SOURCES", {"WEDA_SOURCES": '{"a": {"certificates": ["sha256:AB"]}}'}),
        ("WEDA_PRIVACY__PSEUDONYMS", {"WEDA_PRIVACY__PSEUDONYMS": "title"}),
        ("WEDA_PRIVACY__KEY", {"WEDA_PRIVACY__KEY": "k" * 16}),
        ("WEDA_PRIVACY__PSEUDONYMS", {"WEDA_PRIVACY__PSEUDONYMS": "action", "WEDA_PRIVACY__KEY": "k" * 16}),
        ("WEDA_PRIVACY__REDACT", {"WEDA_PRIVACY__REDACT": "instanceId"}),
        ("WEDA_PRIVACY__REDACT", {"WEDA_PRIVACY__REDACT": "msgType"}),
        ("WEDA_PRIVACY__KEY", {"WEDA_PRIVACY__PSEUDONYMS": "title", "WEDA_PRIVACY__KEY": "short"}),
    ],
)
def test_a_bad_setting_is_refused_by_its_name_without_its_value(named, settings):
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(environment=settings)

    assert named in str(caught.value)
    assert "dG9vIHNob3J0" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_credentials_of_a_source_are_read_and_masked():
    text = f'{{"hr": {{"secrets": ["{SECRET}"], "networks": ["10.0.0.0/8", "::1"], "rate": 0.5}}}}'
    settings = Settings.load(environment={"WEDA_SOURCES": text})
    source = settings.sources["hr"]

    assert settings.credentials_exist
    assert (source.rate, [str(each) for each in source.networks]) == (0.5, ["10.0.0.0/8", "::1/128"])
    assert SECRET not in str(settings.redacted())
    assert SECRET not in repr(settings)
    assert settings.redacted()["sources"]["hr"]["networks"] == ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(("window", "is_taken"), [("600", True), ("599", False), ("2", False)])
def test_what_is_signed_is_remembered_as_long_as_its_signature_holds(window, is_taken):
    """With a memory of two seconds a signed request could be sent again, and was published again, for ten minutes."""
    environment = {"WEDA_SOURCES": f'{{"hr": {{"secrets": ["{SECRET}"]}}}}', "WEDA_REPEATS__WINDOW_SECONDS": window}
    if is_taken:
        assert Settings.load(environment=environment).repeats.window_seconds == 600
    else:
        with pytest.raises(ConfigurationError, match=r"repeats.window_seconds and sources .* 600 s"):
            Settings.load(environment=environment)


def test_a_network_alone_is_no_credential():
    assert not Settings.load(environment={"WEDA_SOURCES": '{"hr": {"networks": ["10.0.0.0/8"]}}'}).credentials_exist


def test_a_token_of_the_default_source_keeps_what_else_it_has():
    text = f'{{"default": {{"secrets": ["{SECRET}"], "rate": 3, "env_types": ["uat"]}}}}'
    source = Settings.load(environment={"WEDA_TOKEN": "t", "WEDA_SOURCES": text}).sources["default"]

    assert (len(source.tokens), len(source.secrets), source.rate, source.env_types) == (1, 1, 3, ("uat",))


def test_what_may_change_while_it_runs_is_taken_and_nothing_else(tmp_path: Path):
    before = Settings.load(
        environment={
            "WEDA_SOURCES": '{"a": {"tokens": ["1"], "env_types": ["uat"]}, "b": {"tokens": ["2"]}}',
            "WEDA_TOPICS__PREFIX": "one",
        }
    )
    newer = Settings.load(
        environment={
            "WEDA_SOURCES": '{"a": {"tokens": ["3"], "answers": "code-only"}, "c": {"tokens": ["4"]}}',
            "WEDA_TOPICS__PREFIX": "two",
            "WEDA_OPERATIONS__TOKEN": "o",
            "WEDA_KAFKA__PROPERTIES": '{"linger.ms": 9}',
        }
    )
    rotated = before.rotated(newer)

    assert [one.get_secret_value() for one in rotated.sources["a"].tokens] == ["3"]
    assert rotated.sources["a"].env_types == ("uat",)
    assert rotated.sources["a"].answers == "code-only"
    assert rotated.sources["b"].tokens == ()
    assert {*rotated.sources} == {"a", "b"}
    assert rotated.topics.prefix == "one"
    assert rotated.operations.token is not None
    assert rotated.kafka.properties == {"linger.ms": 9}


def test_the_files_of_the_settings_are_known(tmp_path: Path):
    found = Settings.files(
        environment={"WEDA_TOKEN_FILE": "t", "PATH": "p", "WEDA_TOKEN": "x"}, file=tmp_path / "c.yaml"
    )

    assert found == (tmp_path / "c.yaml", Path("t"))


@pytest.mark.parametrize("broken", ["certificate", "key", "authority", "nothing there"])
def test_certificates_that_cannot_be_used_are_refused_by_the_name_of_their_settings(broken, tmp_path: Path):
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "authority")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate")
    issued.private_key_pem.write_to_path(tmp_path / "key")
    files = TlsFiles(tmp_path / "certificate", tmp_path / "key", tmp_path / "authority", "WEDA_RECEIVER")
    ServerTls(files)
    if broken == "nothing there":
        (tmp_path / "key").unlink()
    elif broken == "key":
        trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "key")
    else:
        (tmp_path / broken).write_text("nothing of the kind")

    with pytest.raises(ConfigurationError, match="WEDA_RECEIVER__TLS_CERTIFICATE, WEDA_RECEIVER__TLS_KEY"):
        ServerTls(files)
