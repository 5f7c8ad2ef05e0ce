"""The ledger as this process counts it, by source: accepted = published + dead-lettered + journaled (+ lost).

It continues the journal's own ledger, which counts by its rows: code of its own and other events, so that a difference
between the two becomes visible.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from connector.journal.model import Account, Contents


class LedgerCounts:
    """The counts of each source.

    Args:
        sources: Names of the sources that are known from the start.

    Attributes:
        accepted: Messages and dead letters that became safe.
        published: How many of the accepted ones are in Kafka.
        dead_lettered: Accepted messages whose record Kafka rejected; each is a dead letter now.
        journaled: Rows in the journal.
    """

    def __init__(self, sources: Iterable[str]) -> None:
        self.accepted = Counter(dict.fromkeys(sources, 0))
        self.published: Counter[str] = Counter()
        self.dead_lettered: Counter[str] = Counter()
        self.journaled: Counter[str] = Counter()
        self._published_directly: Counter[str] = Counter()

    def recovered(self, contents: Contents) -> None:
        """Continue the ledger of the journal that was found at start."""
        for source in {*contents.accounts, *contents.sources}:
            known = contents.accounts.get(source, Account())
            self.accepted[source], self.published[source] = known.accepted, known.published
            self.dead_lettered[source] = known.dead_lettered
            self.journaled[source] += contents.sources.get(source, 0)

    def published_directly(self, source: str) -> None:
        """A message was published without a row: the journal's ledger does not know of it yet."""
        self._published_directly[source] += 1

    def take_published_directly(self) -> dict[str, int]:
        """Messages published directly since the last call, by source."""
        taken, self._published_directly = self._published_directly, Counter()
        return dict(taken)

    def return_published_directly(self, taken: Mapping[str, int]) -> None:
        """The journal did not take them: give them out with the next call."""
        self._published_directly.update(taken)

    @property
    def waiting(self) -> dict[str, int]:
        """Rows in the journal by source, where there are some."""
        return {source: count for source, count in self.journaled.items() if count}

    def imbalances(self) -> dict[str, int]:
        """How far the two sides of each source's ledger are apart."""
        return {source: self._account(source).imbalance(self.journaled[source]) for source in self.accepted}

    def _account(self, source: str) -> Account:
        return Account(self.accepted[source], self.published[source], self.dead_lettered[source])
