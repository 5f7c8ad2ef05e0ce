"""What `make test-compose` and `make test-kind` count and start; neither runs here, for want of a container engine."""

import pytest
import yaml

from tests.chart import tools
from tests.chart.test_chart import held_against_schemas
from tools import smoke

PLAYED = 'seed 1\n{"sent":3,"accepted":3,"refused":0,"failed":0}\n'


def test_the_events_of_every_partition_are_counted():
    """Lines as Kafka's tool prints them."""
    assert smoke.events("weda.workflow.events:0:3\nweda.workflow.events:1:0\nweda.workflow.events:2:4\n") == 7


def test_as_many_events_as_accepted_messages_hold(capsys):
    smoke.hold(PLAYED, lambda: "weda.workflow.events:0:3\n")

    assert "3 messages were accepted" in capsys.readouterr().out


@pytest.mark.parametrize(("played", "offsets"), [(PLAYED, "t:0:2"), (PLAYED, "t:0:4"), ('{"accepted":0}', "t:0:0")])
def test_other_counts_are_refused(played, offsets, monkeypatch):
    """Too few, too many, and none at all."""
    monkeypatch.setattr(smoke, "SECONDS", 0)

    with pytest.raises(ValueError, match="messages were accepted"):
        smoke.hold(played, lambda: offsets)


def test_the_compose_file_s_broker_is_one_for_kubernetes(tmp_path):
    report = held_against_schemas(smoke.broker(), tools.NEWEST, tmp_path / "broker.yaml")
    compose = yaml.safe_load((smoke.ROOT / "docker-compose.yml").read_text())["services"]["kafka"]
    [container] = smoke.broker()[0]["spec"]["template"]["spec"]["containers"]

    assert report["summary"] == {"valid": 2, "invalid": 0, "errors": 0, "skipped": 0}
    assert container["image"] == compose["image"]
    assert smoke.COUNT[0].startswith(compose["healthcheck"]["test"][1].rpartition("/")[0])


def test_a_cluster_that_is_not_kind_s_is_left_alone(monkeypatch):
    monkeypatch.setattr(smoke, "output", lambda *_: "production\n")

    with pytest.raises(ValueError, match="production"):
        smoke.kind()
