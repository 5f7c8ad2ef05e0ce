"""The state of a connector for the API: traffic, backlog, brokers, topics and versions."""

import platform
from typing import Any

import confluent_kafka

from connector.kafka.topics import Broker, as_dict
from connector.operations.context import Context
from connector.operations.history import P50, P99, History


def status_of(context: Context) -> dict[str, Any]:
    """Return the state without asking Kafka; rates cover the last minute, latencies the last ten."""
    history, health = context.history, context.health
    return {
        "version": context.version,
        **health.as_dict(),
        "requests": history.totals(),
        "accepted_per_second": round(history.rate(), 1),
        "answered_within_seconds": {"p50": _quantile(history, P50), "p99": _quantile(history, P99)},
        "reload_failing": list(health.reload_failing),
        "restart_needed": health.restart_needed,
        "versions": {
            "connector": context.version,
            "python": platform.python_version(),
            "confluent_kafka": confluent_kafka.version()[0],
            "librdkafka": confluent_kafka.libversion()[0],
        },
    }


def _quantile(history: History, share: float) -> float | None:
    seconds = history.quantile(share)
    return None if seconds is None else round(seconds, 4)


async def topics_of(context: Context) -> dict[str, Any]:
    """Return the state of brokers and topics, as Kafka reports it.

    Raises:
        Unavailable: The connector is not up yet.
        OutsideUnreachable, ConfigurationError: Kafka cannot be asked.
    """
    if context.is_embedded:
        return {"brokers": [], "topics": []}
    specs, states, brokers = await context.read(lambda reader: reader.topics())
    silent = {broker.node_id for broker in brokers if not broker.answers}
    return {
        "brokers": [_broker_as_dict(broker) for broker in brokers],
        "topics": [as_dict(spec.name, states.get(spec.name), silent) for spec in specs],
    }


def _broker_as_dict(broker: Broker) -> dict[str, Any]:
    return {"node_id": broker.node_id, "address": broker.address, "answers": broker.answers}
