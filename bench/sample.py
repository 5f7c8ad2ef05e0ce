"""What one measurement gives."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Sample(msgspec.Struct, frozen=True):
    """One measurement of one process.

    Attributes:
        accepted: Messages answered with ``{"code":0}`` (records acknowledged, for librdkafka alone).
        refused: Messages answered with anything else.
        seconds: How long was measured.
        p50: Median latency in milliseconds; None where there are no requests.
        p99: 99th percentile in milliseconds.
        p999: 99.9th percentile in milliseconds.
        cpu_seconds: CPU time that the process used meanwhile, all threads, user and system.
        rss: Resident memory of the process at the end, in bytes.
        offered: Messages that were to be sent a second, of an open loop.
        refused_p99: 99th percentile of the answers that refuse, in milliseconds.
        sent_p99: 99th percentile from the sending of a request to its acceptance, in milliseconds.
        refused_sent_p99: The same to a refusal.
    """

    accepted: int
    refused: int
    seconds: float
    p50: float | None
    p99: float | None
    p999: float | None
    cpu_seconds: float
    rss: int
    offered: float | None = None
    refused_p99: float | None = None
    sent_p99: float | None = None
    refused_sent_p99: float | None = None

    @property
    def per_second(self) -> float:
        """Accepted messages a second."""
        return self.accepted / self.seconds

    @property
    def cpu_microseconds(self) -> float:
        """CPU time of one accepted message."""
        return 1e6 * self.cpu_seconds / max(self.accepted, 1)


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value below which the share (0 to 1) of the sorted values lies."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


def cpu_seconds(pid: int) -> float:
    """User and system time of a process since its start, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    """The resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
