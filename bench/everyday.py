"""A connector as people write it: FastAPI, a pydantic body, fastavro, a producer, a future until the delivery report.

No journal, no order, no recognition of repeats, no dead letters, no metrics, no log, no credential.
`python -m bench.everyday PORT BOOTSTRAP_SERVERS TOPIC`.
"""

import asyncio
import io
import json
import sys
import threading
import time
from datetime import datetime
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

from confluent_kafka import KafkaError, Message, Producer
from fastapi import FastAPI
from fastavro import schemaless_writer
from pydantic import BaseModel, BeforeValidator, Json, create_model

from bench.bare import serve
from connector.kafka.publisher import producer_properties
from connector.message.schemas import WORKFLOW_EVENT, kinds, load

SCHEMA: Final = load(WORKFLOW_EVENT)
SHANGHAI: Final = ZoneInfo("Asia/Shanghai")
FRAMING: Final = b"\x00\x00\x00\x00\x01"  # as Confluent's AvroSerializer writes: magic byte, schema id


def _milliseconds(value: Any) -> int | None:
    """Epoch numbers and ISO 8601 texts, as WeDa sends both."""
    if not value or isinstance(value, int):
        return value or None
    if value.isdigit():
        return int(value)
    moment = datetime.fromisoformat(value)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=SHANGHAI)).timestamp() * 1000)


def _maps(value: Any) -> list[dict[str, str]] | None:
    if not value:
        return None
    maps = [value] if isinstance(value, dict) else value
    return [{key: text if isinstance(text, str) else json.dumps(text) for key, text in one.items()} for one in maps]


TYPES: Final[dict[str, Any]] = {
    "string": str | None,
    "int": Annotated[int | None, BeforeValidator(lambda value: None if value == "" else value)],
    "boolean": Annotated[bool | None, BeforeValidator(lambda value: None if value == "" else value)],
    "date": Annotated[int | None, BeforeValidator(_milliseconds)],
    "maps": Annotated[list[dict[str, str]] | None, BeforeValidator(_maps)],
}
FIELDS: Final[dict[str, Any]] = {name: (TYPES[kind], None) for name, kind in kinds(SCHEMA).items()}
TaskMessage = create_model("TaskMessage", **FIELDS)


class Envelope(BaseModel):
    """What WeDa posts."""

    msgContext: Json[TaskMessage]  # type: ignore[valid-type]  # noqa: N815 - WeDa's own name


def build(bootstrap_servers: str, topic: str) -> FastAPI:
    """The application, with its producer and poll thread."""
    app = FastAPI()
    producer = Producer(producer_properties(bootstrap_servers, {}))
    threading.Thread(target=_poll, args=(producer,), daemon=True).start()

    @app.post("/messageDeliver")
    async def deliver(envelope: Envelope) -> dict[str, int]:
        value = envelope.msgContext.model_dump()  # type: ignore[attr-defined]
        value |= {"source": "default", "receivedAt": time.time_ns() // 1_000_000, "ingestId": "", "extras": {}}
        out = io.BytesIO()
        out.write(FRAMING)
        schemaless_writer(out, SCHEMA.parsed, value)
        await _published(producer, topic, value["instanceId"], out.getvalue())
        return {"code": 0}

    return app


async def _published(producer: Producer, topic: str, key: str, value: bytes) -> None:
    loop = asyncio.get_running_loop()
    acknowledged: asyncio.Future[None] = loop.create_future()

    def reported(error: KafkaError | None, _message: Message) -> None:
        if error is None:
            loop.call_soon_threadsafe(acknowledged.set_result, None)
        else:
            loop.call_soon_threadsafe(acknowledged.set_exception, RuntimeError(error.str()))

    producer.produce(topic, value, key, on_delivery=reported)
    await acknowledged


def _poll(producer: Producer) -> None:
    while True:
        producer.poll(1)


if __name__ == "__main__":
    serve(build(sys.argv[2], sys.argv[3]), int(sys.argv[1]))
