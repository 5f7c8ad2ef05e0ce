"""The ledger of this process, by source: accepted = published + dead-lettered + journaled (+ lost).

It continues the journal's own ledger, which counts rows. The two use different code and different events, so that an
error in either shows as a difference.
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
        published: Accepted messages and dead letters that are in Kafka.
        dead_lettered: Accepted messages with a record that Kafka rejected; a dead letter has replaced each.
        journaled: Rows in the journal.
    """

    def __init__(self, sources: Iterable[str]) -> None:
        self.accepted = Counter(dict.fromkeys(sources, 0))
        self.published: Counter[str] = Counter()
        self.dead_lettered: Counter[str] = Counter()
        self.journaled: Counter[str] = Counter()
        self._published_directly: Counter[str] = Counter()

    def recovered(self, contents: Contents) -> None:
        """Continue the ledger that the journal held at the start."""
        for source in {*contents.accounts, *contents.sources}:
            account = contents.accounts.get(source, Account())
            self.accepted[source], self.published[source] = account.accepted, account.published
            self.dead_lettered[source] = account.dead_lettered
            self.journaled[source] += contents.sources.get(source, 0)

    def published_directly(self, source: str) -> None:
        """Count a message that was published without a row, which the journal's ledger does not know yet."""
        self._published_directly[source] += 1

    def take_published_directly(self) -> dict[str, int]:
        """Return the messages published directly since the last call, by source."""
        counts, self._published_directly = self._published_directly, Counter()
        return dict(counts)

    def return_published_directly(self, taken: Mapping[str, int]) -> None:
        """Return counts that the journal did not store; the next `take_published_directly` includes them."""
        self._published_directly.update(taken)  # adds, since a Counter's `update` does: new ones may have come

    @property
    def waiting(self) -> dict[str, int]:
        """Rows in the journal by source, without sources that have none."""
        return {source: count for source, count in self.journaled.items() if count}

    def imbalances(self) -> dict[str, int]:
        """The difference between the two sides of each source's ledger."""
        return {source: self._account(source).imbalance(self.journaled[source]) for source in self.accepted}

    def _account(self, source: str) -> Account:
        return Account(self.accepted[source], self.published[source], self.dead_lettered[source])
