"""What could not become a record, and why: the request's bytes as received, with the reason in Kafka headers."""

from connector.errors import ConnectorError
from connector.publisher import Failure
from connector.streams import DEAD_LETTERS
from connector.values import InstanceId, ProducibleRecord, Request


def dead_letter(
    topic: str, request: Request, *, code: int, stage: str, reason: str, instance_id: InstanceId | None
) -> ProducibleRecord:
    """One record of the dead-letter topic.

    Args:
        topic: The dead-letter topic.
        request: What was received.
        code: The ``code`` of the answer.
        stage: Where on the way it failed.
        reason: What is wrong, without contents.
        instance_id: The key, where it is readable.
    """
    headers = (
        ("weda.error.code", str(code)),
        ("weda.error.stage", stage),
        ("weda.error.message", reason),
        ("weda.source", request.source),
        ("weda.received-at", str(request.received_at)),
        ("weda.content-type", request.content_type),
        ("weda.attempt", "1"),
    )
    return ProducibleRecord(
        stream=DEAD_LETTERS,
        topic=topic,
        key=None if instance_id is None else instance_id.encode(),
        value=request.body,
        headers=tuple((name, text.encode(errors="replace")) for name, text in headers),
        timestamp=request.received_at,
    )


def of_error(topic: str, request: Request, error: ConnectorError, instance_id: InstanceId | None) -> ProducibleRecord:
    """The dead letter of a request that an error kept from becoming a record."""
    return dead_letter(
        topic, request, code=error.code, stage=error.stage, reason=error.message, instance_id=instance_id
    )


def of_refusal(
    topic: str, request: Request, records: tuple[ProducibleRecord, ...], failure: Failure
) -> ProducibleRecord:
    """The dead letter of an accepted message whose record Kafka refused for its own sake.

    Args:
        topic: The dead-letter topic of its source.
        request: What was received.
        records: What Kafka refused.
        failure: Why.
    """
    key = records[0].key
    instance_id = None if key is None else InstanceId(key.decode())
    reason = f"Kafka refused the record: {failure.name}: {failure.detail}"
    return dead_letter(
        topic,
        request,
        code=failure.answer_code,
        stage="publish",
        reason=reason,
        instance_id=instance_id,
    )
