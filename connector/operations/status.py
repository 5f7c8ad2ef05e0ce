"""The connector on one page: what is accepted and published, what waits, brokers and topics, versions."""

import platform
from typing import Any

import confluent_kafka

from connector.kafka.topics import Broker, as_dict
from connector.operations.context import Context
from connector.operations.history import P50, P99, History


def status_of(context: Context) -> dict[str, Any]:
    """What is known without asking anybody; rates are those of the last minute, latencies of the last ten."""
    history, health = context.history, context.health
    return {
        "version": context.version,
        **health.as_dict(),
        "requests": history.totals(),
        "accepted_per_second": round(history.rate(), 1),
        "answered_within_seconds": {"p50": _within(history, P50), "p99": _within(history, P99)},
        "reload_failing": list(health.reload_failing),
        "restart_needed": health.restart_needed,
        "versions": {
            "connector": context.version,
            "python": platform.python_version(),
            "confluent_kafka": confluent_kafka.version()[0],
            "librdkafka": confluent_kafka.libversion()[0],
        },
    }


def _within(history: History, share: float) -> float | None:
    seconds = history.quantile(share)
    return None if seconds is None else round(seconds, 4)


async def topics_of(context: Context) -> dict[str, Any]:
    """Brokers and topics as they are.

    Raises:
        Unavailable: The connector is not up yet.
        OutsideUnreachable, ConfigurationError: Kafka cannot be asked.
    """
    if context.is_embedded:
        return {"brokers": [], "topics": []}
    specs, states, brokers = await context.read(lambda reader: reader.topics())
    silent = {one.node_id for one in brokers if not one.answers}
    return {
        "brokers": [_broker(one) for one in brokers],
        "topics": [as_dict(spec.name, states.get(spec.name), silent) for spec in specs],
    }


def _broker(one: Broker) -> dict[str, Any]:
    return {"node_id": one.node_id, "address": one.address, "answers": one.answers}
