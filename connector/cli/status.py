"""``status``: a running connector on one page."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import typer

from connector.admin.client import OperationsClient, ask
from connector.cli.exits import failed_if
from connector.cli.options import File, Json, OperationsToken, OperationsUrl, operations_settings
from connector.cli.output import print_json
from connector.errors import OutsideUnreachable
from connector.text import counted, duration, one_line, size

_LABEL_CHARS: Final = 12
_OUTCOME_LABELS: Final = {"dead_lettered": "could not be read or converted"}


def status(
    *,
    operations_url: OperationsUrl = None,
    token: OperationsToken = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Show a running connector on one page: readiness, rates, backlog, dead letters, settings, brokers, topics.

    \b
    Examples:
      weda-connector status
      weda-connector status --operations-url http://10.0.0.7:9464 --json

    Exit codes: 0 it is ready, 1 it is not, 2 bad usage or configuration, 3 no connector answers.
    """
    settings = operations_settings(file, operations_url, token)
    report = {"connector": settings.operations.url, **ask(settings.operations, _report)}
    if as_json:
        print_json(report)
    else:
        for name, text in _rows(report):
            print(f"{name:<{_LABEL_CHARS}} {one_line(text)}")
    raise typer.Exit(failed_if(not report["ready"]))


async def _report(client: OperationsClient) -> dict[str, Any]:
    status = await client.status()
    try:
        return status | await client.topics()
    except OutsideUnreachable as error:
        # Without Kafka the rest of the page matters most.
        return status | {"brokers": [], "topics": [], "topics_problem": error.message}


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    versions = found["versions"]
    yield "connector", found["connector"]
    yield "version", ", ".join(f"{name} {version}" for name, version in versions.items())
    yield "ready", "yes" if found["ready"] else "NO"
    yield from _traffic(found)
    yield "journal", _journal(found)
    waiting = found["dead_letters_waiting"]
    yield "dead letters", "not counted yet" if waiting is None else f"{waiting:,} waiting for a replay"
    yield "settings", _settings(found)
    yield "kafka", found["kafka"]
    for broker in found["brokers"]:
        yield "  broker", f"{broker['node_id']} {broker['address']} {'answers' if broker['answers'] else 'NO ANSWER'}"
    for topic in found["topics"]:
        yield "  topic", _topic(topic)
    if "topics_problem" in found:
        yield "  topics", found["topics_problem"]
    for about, problem in found["problems"].items():
        yield "PROBLEM", f"{about}: {problem}"


def _traffic(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    within = found["answered_within_seconds"]
    yield "accepted", f"{found['accepted_per_second']} a second"
    if within["p50"] is not None:
        p50, p99 = (duration(within[name] * 1000) for name in ("p50", "p99"))
        yield "answered", f"half within {p50}, 99 of 100 within {p99}"
    counts = [
        f"{count:,} {_OUTCOME_LABELS.get(outcome, outcome)}" for outcome, count in found["requests"].items() if count
    ]
    yield "requests", ", ".join(counts) or "none"


def _journal(found: Mapping[str, Any]) -> str:
    used = "no answer" if found["journal_bytes"] is None else size(found["journal_bytes"])
    messages, limit = counted(found["journal_messages"], "message"), size(found["journal_limit_bytes"])
    text = f"{found['journal']}, {messages}, {used} of {limit}"
    if not found["journal_messages"]:
        return text
    seconds = found["catch_up_seconds"]
    empty = "nothing leaves it now" if seconds is None else f"empty in {duration(seconds * 1000)}"
    oldest = duration(found["oldest_waiting_seconds"] * 1000)
    return f"{text}, oldest {oldest}, {found['publish_rate']} a second leave, {empty}"


def _settings(found: Mapping[str, Any]) -> str:
    if found["reload_failing"]:
        return f"FILES CANNOT BE READ: {', '.join(found['reload_failing'])}"
    return f"RESTART NEEDED: {found['restart_needed']}" if found["restart_needed"] else "as in the files"


def _topic(topic: Mapping[str, Any]) -> str:
    if not topic["exists"]:
        return f"{topic['topic']} MISSING"
    durable = "durable" if topic["durable"] else "NOT DURABLE"
    replicas = f"{topic['in_sync']} of {topic['replicas']} replicas in sync (at least {topic['min_insync_replicas']})"
    return f"{topic['topic']} {counted(topic['partitions'], 'partition')}, {replicas}, {durable}"
