"""Bytes of a body: they become records as fastavro writes them, or one of the errors that sources are answered."""

from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import yaml

from connector.errors import EmptyBody, Unconvertible, Unreadable
from connector.message.encoding import SingleObjectFraming, decode
from connector.message.events import convert, readable_instance_id
from connector.message.headers import headers
from connector.message.parsing import BodyKind, parse
from connector.message.redact import Redaction
from connector.message.schemas import ALL, load
from connector.testing import encode
from connector.values import IngestId, Request

ZONE = ZoneInfo("Asia/Shanghai")
KINDS = tuple(BodyKind)
INGEST_ID = IngestId("0195-x")
HEADER = {name: SingleObjectFraming().header(name, load(name)) for name in ALL}
PRIVACY = Redaction(["comment"], ["instanceId", "msgId", "approverMap", "flowTitle", "unknown"], "a-key-for-the-fuzzer")
WORDS = [
    *(
        b'"msgContext":',
        b'"msgType":',
        b'"Task"',
        b'"Instance"',
        b'"instanceId":',
        b'"startTime":',
        b'"taskMap":',
        b'"isCcTask":',
    ),
    *(
        b"\\ud800",
        b"\\u0000",
        b"NaN",
        b"1e999",
        b"-0.0",
        b"null",
        b"[{}]",
        b'{\\"a\\":1}',
        b"msgContext=",
        b"%22",
        b"\xef\xbb\xbf",
    ),
    *(b'"2026-03-02 10:00:00"', b"99999999999999999999"),
]
"""What mutations may put in."""
TABLE = Path(__file__).parents[1] / "data" / "bodies.yaml"


def seeds() -> Iterator[bytes]:
    """Bodies of the contract's table, each as every kind."""
    for rows in yaml.safe_load(TABLE.read_text(encoding="utf-8")).values():
        for row in rows:
            if isinstance(row.get("body"), str):
                yield from (bytes([number]) + row["body"].encode() for number in range(2 * len(KINDS)))


def execute(data: bytes) -> None:
    """One execution: the first byte tells how the rest is read."""
    how, body = data[:1], data[1:]
    kind = KINDS[how[0] % len(KINDS)] if how else BodyKind.JSON
    try:
        message = parse(body, kind)
        if how and how[0] // len(KINDS) % 2:
            message = PRIVACY.apply(message)
    except (EmptyBody, Unreadable, Unconvertible):
        return
    readable_instance_id(message)
    try:
        event = convert(message, ZONE)
        request = Request("default", body, "", 1_772_415_000_000)
        records = {name: event.encode(load(name), HEADER[name], request, INGEST_ID) for name in ALL}
    except (Unreadable, Unconvertible):
        return
    headers(event, request, INGEST_ID)
    for name, record in records.items():
        if encode(load(name), decode(record)) != record:
            raise AssertionError("other bytes than those of the reference")
