"""The API: find a message; list, show and reprocess dead letters."""

import asyncio
from dataclasses import asdict
from enum import Enum
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import BaseModel, Field

from connector.intake.dead_letters import DeadLetter, Selection, from_record
from connector.intake.listing import Listing
from connector.intake.reprocessing import MAX_ATTEMPTS, Progress
from connector.message.events import MAX_IDENTIFIER_CHARS
from connector.operations.context import Context
from connector.operations.search import search
from connector.text import text_or_base64

MAX_LISTED: Final = 1_000
_LETTERS: Final[list[str | Enum]] = ["dead letters"]
_NO_SUCH_LETTER: Final = "there is no such dead letter, or none any more"


class ListQuery(Selection):
    """The query of a listing of dead letters."""

    limit: int = Field(default=100, ge=0, le=MAX_LISTED, description="Most letters that are listed.")
    waiting: bool = Field(default=False, description="Leave out the letters that were reprocessed.")


class MessageQuery(BaseModel):
    """The query of a search for a message."""

    model_config = {"extra": "forbid"}

    text: str = Field(
        min_length=1,
        max_length=MAX_IDENTIFIER_CHARS,
        description="An instanceId, a msgId, a part of a title, or the id of a request (X-Request-Id).",
    )
    since: int | None = Field(default=None, description="Received at this time or later, in epoch milliseconds.")
    records: bool = Field(default=True, description="Search the topics of records too, not the dead letters alone.")


class ReprocessingRequest(Selection):
    """A request to reprocess dead letters."""

    dry_run: bool = Field(default=False, description="Report the result it would have; do nothing.")
    max_attempts: int = Field(default=MAX_ATTEMPTS, ge=2, description="Letters tried so often are left alone.")


def router(context: Context) -> APIRouter:
    """Create the routes of the API."""
    api = APIRouter(prefix="/api")

    @api.get("/dead-letters", tags=_LETTERS, response_model=dict[str, Any])
    async def listed(query: Annotated[ListQuery, Query()]) -> Response:
        """Dead letters by reason, and the latest of them.

        A letter that Kafka has twice counts once, unless more than 100,000 others are between the two.
        """
        listing = await context.letters.listed(query, query.limit, only_waiting=query.waiting)
        # In a thread: a thousand letters with their bodies would hold up the event loop.
        text = await asyncio.to_thread(lambda: msgspec.json.encode(listing_as_dict(listing)))
        return Response(text, media_type="application/json")

    @api.get("/dead-letters/{topic}/{partition}/{offset}", tags=_LETTERS)
    async def shown(topic: str, partition: int, offset: int) -> dict[str, Any]:
        """One dead letter with its bytes."""
        letter = await find(context, topic, partition, offset)
        if letter is None:
            raise HTTPException(404, _NO_SUCH_LETTER)
        return letter_as_dict(letter, reprocessed=await context.letters.is_reprocessed(letter))

    @api.get("/messages", tags=["messages"])
    async def messages(query: Annotated[MessageQuery, Query()]) -> Response:
        """Where a message is: published and where, waiting in the journal, a dead letter and why, or nowhere."""
        report = await search(context, query.text, since=query.since, with_records=query.records)
        text = await asyncio.to_thread(lambda: msgspec.json.encode(report.as_dict()))
        return Response(text, media_type="application/json")

    # In paths and JSON users read "replay", as in the command `dead-letters replay`.
    @api.post("/replays", tags=_LETTERS, status_code=202)
    async def replay(request: ReprocessingRequest) -> dict[str, Any]:
        """Reprocess dead letters; one run at a time."""
        if request.dry_run:
            return (await context.letters.dry_run(request, request.max_attempts)).as_dict()
        return context.letters.start(request, request.max_attempts).as_dict()

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
    """Read the dead letter at an offset; None if it is not there.

    Raises:
        OutsideUnreachable, ConfigurationError: Kafka cannot be read.
    """
    record = await context.read(lambda reader: reader.dead_letter(topic, partition, offset))
    return None if record is None else from_record(record)


def listing_as_dict(listing: Listing) -> dict[str, Any]:
    """Return a listing as JSON values."""
    return {
        "total": listing.total,
        "in_journal": listing.in_journal,
        "reasons": [asdict(reason) for reason in listing.reasons],
        "letters": [letter_as_dict(listed.letter, reprocessed=listed.reprocessed) for listed in listing.letters],
    }


def letter_as_dict(letter: DeadLetter, *, reprocessed: bool) -> dict[str, Any]:
    """Return a dead letter as JSON values; a body that is not UTF-8 becomes Base64."""
    body, is_base64 = text_or_base64(letter.body)
    return {**asdict(letter), "body": body, "bodyIsBase64": is_base64, "replayed": reprocessed}


def _as_dict(progress: Progress | None) -> dict[str, Any]:
    if progress is None:
        raise HTTPException(404, "nothing was reprocessed since the connector's start")
    return progress.as_dict()
