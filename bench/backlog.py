"""Journals that hold a backlog before the connector starts: rows as the connector itself would have written them."""

import asyncio
from itertools import islice
from pathlib import Path
from typing import Final

from bench.produce import make_records
from connector.journal.model import Admission
from connector.journal.sqlite import SqliteJournal
from connector.values import Request

TOPIC: Final = "weda.workflow.events"
MAX_BYTES: Final = 16 * 1024**3
_BATCH: Final = 2_000


def fill(path: Path, rows: int, *, instances: int) -> None:
    """Write a journal.

    Args:
        path: The new file.
        rows: How many messages wait.
        instances: Of so many instances, in turn; 0 gives each message an instance of its own.
    """
    asyncio.run(_fill(path, rows, instances))


async def _fill(path: Path, rows: int, instances: int) -> None:
    journal = SqliteJournal(path, max_bytes=MAX_BYTES)
    await journal.open()
    (record,) = make_records(TOPIC, 1)
    request = Request("default", record.value or b"", "application/json", record.timestamp)
    admissions = (
        Admission(number + 1, f"backlog-{number % instances if instances else number}", request, (record,))
        for number in range(rows)
    )
    while batch := list(islice(admissions, _BATCH)):
        await asyncio.gather(*map(journal.store, batch))
    await journal.close()
