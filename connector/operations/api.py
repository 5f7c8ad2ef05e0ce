"""The API of dead letters: list, show, replay."""

import asyncio
import base64
from dataclasses import asdict
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import BaseModel, Field

from connector.intake.dead_letters import DeadLetter, Selection, of_record
from connector.intake.reprocessing import MOST_ATTEMPTS, Listing, Progress
from connector.operations.context import Context

MOST_LISTED: Final = 1_000
_NOTHING_THERE: Final = "there is no such dead letter, or none any more"


class Selected(BaseModel):
    """Which dead letters are meant; what is not said does not matter."""

    model_config = {"extra": "forbid"}

    codes: list[int] = Field(default=[], description="Codes such as 42201, or the HTTP status of a group, as 422.")
    stage: str | None = Field(default=None, description="Where on the way they failed.")
    source: str | None = Field(default=None, description="Who sent them.")
    instance: str | None = Field(default=None, description="The instance's id.")
    reason: str | None = Field(default=None, description="Text that the reason holds.")
    since: int | None = Field(default=None, description="Received at this time or later, in epoch milliseconds.")
    until: int | None = Field(default=None, description="Received before this time.")

    @property
    def selection(self) -> Selection:
        """The same, frozen."""
        return Selection(**{**self.model_dump(include=set(Selected.model_fields)), "codes": tuple(self.codes)})


class Listed(Selected):
    """A listing that is asked for."""

    limit: int = Field(default=100, ge=0, le=MOST_LISTED, description="Most letters that are listed.")


class Order(Selected):
    """A replay that is asked for."""

    dry_run: bool = Field(default=False, description="Tell what it would come to; do nothing.")
    max_attempts: int = Field(default=MOST_ATTEMPTS, ge=2, description="Letters tried so often are left alone.")


def router(context: Context) -> APIRouter:
    """The routes of the API."""
    api = APIRouter(prefix="/api", tags=["dead letters"])

    @api.get("/dead-letters", response_model=dict[str, Any])
    async def listed(asked: Annotated[Listed, Query()]) -> Response:
        """Dead letters by reason, and the latest of them."""
        listing = await context.letters.listed(asked.selection, asked.limit)
        text = await asyncio.to_thread(lambda: msgspec.json.encode(listing_as_dict(listing)))
        return Response(text, media_type="application/json")

    @api.get("/dead-letters/{topic}/{partition}/{offset}")
    async def shown(topic: str, partition: int, offset: int) -> dict[str, Any]:
        """One dead letter with its bytes."""
        letter = await find(context, topic, partition, offset)
        if letter is None:
            raise HTTPException(404, _NOTHING_THERE)
        return letter_as_dict(letter, replayed=await context.letters.is_reprocessed(letter))

    @api.post("/replays", status_code=202)
    async def replay(order: Order) -> dict[str, Any]:
        """Replay dead letters; one replay runs at a time."""
        if order.dry_run:
            return (await context.letters.dry_run(order.selection, order.max_attempts)).as_dict()
        return context.letters.start(order.selection, order.max_attempts).as_dict()

    @api.get("/replays/current")
    async def current() -> dict[str, Any]:
        """How far the replay has come, or how the last one ended."""
        return _as_dict(context.letters.progress)

    @api.delete("/replays/current")
    async def stop() -> dict[str, Any]:
        """Stop the replay; it goes on where it was when it is started again."""
        await context.letters.stop()
        return _as_dict(context.letters.progress)

    return api


async def find(context: Context, topic: str, partition: int, offset: int) -> DeadLetter | None:
    """The dead letter in a place, or None.

    Raises:
        OutsideUnreachable, ConfigurationError: Kafka cannot be read.
    """
    record = await context.read(lambda reader: reader.dead_letter(topic, partition, offset))
    return None if record is None else of_record(record)


def listing_as_dict(listing: Listing) -> dict[str, Any]:
    """As JSON values."""
    return {
        "total": listing.total,
        "in_journal": listing.in_journal,
        "reasons": [asdict(one) for one in listing.reasons],
        "letters": [letter_as_dict(one.letter, replayed=one.replayed) for one in listing.letters],
    }


def letter_as_dict(letter: DeadLetter, *, replayed: bool) -> dict[str, Any]:
    """As JSON values; a body that is not UTF-8 is Base64."""
    try:
        body, is_base64 = letter.body.decode(), False
    except UnicodeDecodeError:
        body, is_base64 = base64.b64encode(letter.body).decode(), True
    return {**asdict(letter), "body": body, "bodyIsBase64": is_base64, "replayed": replayed}


def _as_dict(progress: Progress | None) -> dict[str, Any]:
    if progress is None:
        raise HTTPException(404, "nothing was replayed since the connector's start")
    return progress.as_dict()
