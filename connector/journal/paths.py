"""The files that belong to a journal: each has its name, and a suffix."""

from pathlib import Path
from typing import Final

WAL_SUFFIX: Final = "-wal"
"""SQLite's write-ahead log; of a set-aside journal, too."""

LOCK_SUFFIX: Final = ".lock"
"""The file whose lock the journal's owner holds."""

SALVAGING_SUFFIX: Final = ".salvaging"
"""What can be read of a damaged journal, while it is being written."""

SALVAGED_SUFFIX: Final = ".salvaged"
"""The same, whole: the next start puts it in the journal's place."""

RESCUING_SUFFIX: Final = ".rescuing"
"""The content of an open journal that is no longer at its path, while it is being written."""

RESCUED_SUFFIX: Final = ".rescued"
"""The same, whole: the next start puts it in the journal's place."""

DEDUP_SUFFIX: Final = ".repeats"
"""The dedup keys; journals on disk have this word."""

RESTORING_SUFFIX: Final = ".restoring"
"""Dedup keys that are no longer at their path, while they are being written there again."""

SCHEMAS_SUFFIX: Final = ".schemas"
"""The registry's ids of the schemas."""


def sibling(path: Path, suffix: str) -> Path:
    """A file that belongs to the one at a path."""
    return path.with_name(path.name + suffix)
