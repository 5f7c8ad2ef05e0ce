"""The listing of dead letters: how they are counted, in bounded memory."""

from collections.abc import Iterator

import pytest

from connector.intake import listing
from connector.intake.dead_letters import Selection
from connector.intake.listing import Listing, list_letters
from connector.kafka.reader import ConsumerRecord
from connector.message.routes import DEAD_LETTERS

TOPIC = "weda.workflow.dead-letters"


def listed(*bodies: bytes) -> Listing:
    """The listing of a topic with these bodies; the same body is a copy of the same letter."""

    def read() -> Iterator[ConsumerRecord]:
        for offset, body in enumerate(bodies):
            yield ConsumerRecord(DEAD_LETTERS, TOPIC, 0, offset, None, 1_700_000_000_000, {}, body)

    return list_letters(read, {}, Selection(), limit=10, only_waiting=False)


def test_a_copy_of_a_letter_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_NAMES", 2)

    found = listed(b"a", b"b", b"c", b"c", b"b", b"d", b"c")

    assert (found.total, len(found.letters), [reason.waiting for reason in found.reasons]) == (4, 4, [4])


def test_the_names_of_letters_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten million letters were more than 1 GB; a copy that is too far from the first one is counted instead."""
    monkeypatch.setattr(listing, "MAX_NAMES", 2)

    assert listed(b"a", b"b", b"c", b"a").total == 4
