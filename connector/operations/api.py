"""The API: where a message is; dead letters: list, show, reprocess."""

import asyncio
from dataclasses import asdict
from enum import Enum
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import BaseModel, Field

from connector.intake.dead_letters import DeadLetter, Selection, from_record
from connector.intake.reprocessing import MAX_ATTEMPTS, Listing, Progress
from connector.message.events import MAX_IDENTIFIER_CHARS
from connector.operations.context import Context
from connector.operations.search import search
from connector.text import text_or_base64

MOST_LISTED: Final = 1_000
_LETTERS: Final[list[str | Enum]] = ["dead letters"]
_NOTHING_THERE: Final = "there is no such dead letter, or none any more"


class ListQuery(Selection):
    """A listing that is asked for."""

    limit: int = Field(default=100, ge=0, le=MOST_LISTED, description="Most letters that are listed.")
    waiting: bool = Field(default=False, description="Leave out the letters that were reprocessed.")


class Asked(BaseModel):
    """A message that is looked for."""

    model_config = {"extra": "forbid"}

    text: str = Field(
        min_length=1,
        max_length=MAX_IDENTIFIER_CHARS,
        description="An instanceId, a msgId, a part of a title, or the id of a request (X-Request-Id).",
    )
    since: int | None = Field(default=None, description="Received at this time or later, in epoch milliseconds.")
    records: bool = Field(default=True, description="Search the topics of records too, not the dead letters alone.")


class ReprocessingRequest(Selection):
    """A run of reprocessing that is asked for."""

    dry_run: bool = Field(default=False, description="Report the result it would have; do nothing.")
    max_attempts: int = Field(default=MAX_ATTEMPTS, ge=2, description="Letters tried so often are left alone.")


def router(context: Context) -> APIRouter:
    """The routes of the API."""
    api = APIRouter(prefix="/api")

    @api.get("/dead-letters", tags=_LETTERS, response_model=dict[str, Any])
    async def listed(asked: Annotated[ListQuery, Query()]) -> Response:
        """Dead letters by reason, and the latest of them."""
        listing = await context.letters.listed(asked, asked.limit, only_waiting=asked.waiting)
        text = await asyncio.to_thread(lambda: msgspec.json.encode(listing_as_dict(listing)))
        return Response(text, media_type="application/json")

    @api.get("/dead-letters/{topic}/{partition}/{offset}", tags=_LETTERS)
    async def shown(topic: str, partition: int, offset: int) -> dict[str, Any]:
        """One dead letter with its bytes."""
        letter = await find(context, topic, partition, offset)
        if letter is None:
            raise HTTPException(404, _NOTHING_THERE)
        return letter_as_dict(letter, reprocessed=await context.letters.is_reprocessed(letter))

    @api.get("/messages", tags=["messages"])
    async def messages(asked: Annotated[Asked, Query()]) -> Response:
        """Where a message is: published and where, waiting in the journal, a dead letter and why, or nowhere."""
        report = await search(context, asked.text, since=asked.since, with_records=asked.records)
        text = await asyncio.to_thread(lambda: msgspec.json.encode(report.as_dict()))
        return Response(text, media_type="application/json")

    # In paths and JSON users read "replay", as in the command `dead-letters replay`.
    @api.post("/replays", tags=_LETTERS, status_code=202)
    async def replay(order: ReprocessingRequest) -> dict[str, Any]:
        """Reprocess dead letters; one run at a time."""
        if order.dry_run:
            return (await context.letters.dry_run(order, order.max_attempts)).as_dict()
        return context.letters.start(order, order.max_attempts).as_dict()

    @api.get("/replays/current", tags=_LETTERS)
    async def current() -> dict[str, Any]:
        """How far the run has come, or how the last one ended."""
        return _as_dict(context.letters.progress)

    @api.delete("/replays/current", tags=_LETTERS)
    async def stop() -> dict[str, Any]:
        """Stop the run; it continues where it was when it is started again."""
        await context.letters.stop()
        return _as_dict(context.letters.progress)

    return api


async def find(context: Context, topic: str, partition: int, offset: int) -> DeadLetter | None:
    """The dead letter at an offset, or None.

    Raises:
        OutsideUnreachable, ConfigurationError: Kafka cannot be read.
    """
    record = await context.read(lambda reader: reader.dead_letter(topic, partition, offset))
    return None if record is None else from_record(record)


def listing_as_dict(listing: Listing) -> dict[str, Any]:
    """As JSON values."""
    return {
        "total": listing.total,
        "in_journal": listing.in_journal,
        "reasons": [asdict(one) for one in listing.reasons],
        "letters": [letter_as_dict(one.letter, reprocessed=one.reprocessed) for one in listing.letters],
    }


def letter_as_dict(letter: DeadLetter, *, reprocessed: bool) -> dict[str, Any]:
    """As JSON values; a body that is not UTF-8 is Base64."""
    body, is_base64 = text_or_base64(letter.body)
    return {**asdict(letter), "body": body, "bodyIsBase64": is_base64, "replayed": reprocessed}


def _as_dict(progress: Progress | None) -> dict[str, Any]:
    if progress is None:
        raise HTTPException(404, "nothing was reprocessed since the connector's start")
    return progress.as_dict()
