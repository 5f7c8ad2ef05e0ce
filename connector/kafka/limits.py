"""The largest record that each topic takes."""

from collections.abc import Iterator, Mapping


class TopicLimits(Mapping[str, int]):
    """Topic → its ``max.message.bytes``, for the topics that have been described.

    Only the watcher of the topics calls :meth:`note`; everyone else reads.
    """

    def __init__(self) -> None:
        self._bytes: dict[str, int] = {}

    def note(self, topic: str, max_message_bytes: int) -> None:
        """Record what a broker says about a topic."""
        self._bytes[topic] = max_message_bytes

    def __getitem__(self, topic: str) -> int:
        return self._bytes[topic]

    def __iter__(self) -> Iterator[str]:
        return iter(self._bytes)

    def __len__(self) -> int:
        return len(self._bytes)
