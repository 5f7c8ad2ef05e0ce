"""Which topics the settings ask for, and what lies between them and those that exist."""

import pytest

from connector.kafka.topics import Difference, TopicSpec, TopicState, desired_topics, plan
from connector.settings import Settings

DAY = 24 * 3600 * 1000
CONFIG = {
    "cleanup.policy": "delete",
    "retention.ms": "1000",
    "min.insync.replicas": "2",
    "max.message.bytes": "1048588",
    "unclean.leader.election.enable": "false",
}


def settings(**environment: str) -> Settings:
    return Settings.load(environment={f"WEDA_{name}": value for name, value in environment.items()})


def spec(partitions: int = 12, replication: int | None = None) -> TopicSpec:
    return TopicSpec("t", partitions, replication, {"cleanup.policy": "delete", "retention.ms": "1000"})


def state(partitions: int = 12, replication: int = 3, **config: str) -> TopicState:
    return TopicState("t", partitions, replication, CONFIG | {name.replace("_", "."): v for name, v in config.items()})


def test_every_stream_and_the_dead_letters_have_a_topic() -> None:
    assert [each.name for each in desired_topics(settings())] == [
        "weda.workflow.events",
        "weda.workflow.instances",
        "weda.workflow.tasks",
        "weda.workflow.dead-letters",
    ]
    assert [each.name for each in desired_topics(settings(STREAMS="tasks", TOPICS__PREFIX="hr"))] == [
        "hr.tasks",
        "hr.dead-letters",
    ]


@pytest.mark.parametrize(
    ("retention_ms", "of_dead_letters"),
    [(30 * DAY, 90 * DAY), (400 * DAY, 400 * DAY), (-1, -1)],
)
def test_dead_letters_are_kept_for_90_days_or_longer(retention_ms: int, of_dead_letters: int) -> None:
    events, *_, dead_letters = desired_topics(settings(TOPICS__RETENTION_MS=str(retention_ms)))

    assert str(retention_ms) == events.config["retention.ms"]
    assert str(of_dead_letters) == dead_letters.config["retention.ms"]
    assert events.config["cleanup.policy"] == "delete" == dead_letters.config["cleanup.policy"]


@pytest.mark.parametrize(("replication", "in_sync"), [("1", "1"), ("2", "2"), ("3", "2"), ("5", "2")])
def test_two_replicas_are_in_sync_where_there_are_two(replication: str, in_sync: str) -> None:
    for each in desired_topics(settings(TOPICS__REPLICATION_FACTOR=replication)):
        assert in_sync == each.config["min.insync.replicas"]


def test_the_brokers_default_replication_is_left_to_the_brokers() -> None:
    for each in desired_topics(settings()):
        assert each.replication_factor is None
        assert "min.insync.replicas" not in each.config


@pytest.mark.parametrize(
    ("durable", "topic"),
    [
        (True, state()),
        (False, state(replication=2)),
        (False, state(min_insync_replicas="1")),
        (False, state(unclean_leader_election_enable="true")),
    ],
)
def test_a_topic_is_durable_with_three_replicas_two_in_sync_and_clean_elections(
    durable: bool,  # noqa: FBT001 - a column of the table above
    topic: TopicState,
) -> None:
    assert durable is topic.is_durable


def test_nothing_differs_where_the_topic_is_as_wanted() -> None:
    assert plan([spec(), spec(replication=3)], {"t": state()}) == ()


@pytest.mark.parametrize(
    ("wanted_topic", "actual", "differences"),
    [
        (spec(), None, [("topic", "partitions=12, replication.factor=the brokers' default", "missing", "create")]),
        (spec(replication=3), None, [("topic", "partitions=12, replication.factor=3", "missing", "create")]),
        (spec(), state(retention_ms="5"), [("retention.ms", "1000", "5", "alter")]),
        (spec(), state(cleanup_policy="compact"), [("cleanup.policy", "delete", "compact", "alter")]),
        (spec(), state(min_insync_replicas="1"), [("min.insync.replicas", "2", "1", "alter")]),
        (spec(), state(partitions=6), [("partitions", "12", "6", "add-partitions")]),
        (spec(), state(partitions=24), [("partitions", "12", "24", "forbidden")]),
        (spec(replication=2), state(), [("replication.factor", "2", "3", "forbidden")]),
    ],
)
def test_each_difference_says_what_would_mend_it(
    wanted_topic: TopicSpec, actual: TopicState | None, differences: list[tuple[str, str, str, str]]
) -> None:
    existing = {} if actual is None else {"t": actual}

    assert tuple(Difference("t", *each) for each in differences) == plan([wanted_topic], existing)


def test_a_topic_is_never_asked_for_more_in_sync_replicas_than_it_has() -> None:
    """With min.insync.replicas=2, a topic of one replica would take no record at all."""
    differences = plan([spec(replication=3).at(3)], {"t": state(replication=1, min_insync_replicas="1")})

    assert [each.what for each in differences] == ["replication.factor"]
