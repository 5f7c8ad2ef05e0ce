"""The files beside a journal: each has the journal's name and a suffix."""

from pathlib import Path
from typing import Final

WAL_SUFFIX: Final = "-wal"
"""SQLite's write-ahead log, also that of a journal that was set aside."""

LOCK_SUFFIX: Final = ".lock"
"""The file whose lock the journal's owner holds."""

SALVAGING_SUFFIX: Final = ".salvaging"
"""The readable rows of a damaged journal, while they are being written."""

SALVAGED_SUFFIX: Final = ".salvaged"
"""The same file once it is complete; the next start puts it in the journal's place."""

RESCUING_SUFFIX: Final = ".rescuing"
"""The content of an open journal whose file is no longer at its path, while it is being written."""

RESCUED_SUFFIX: Final = ".rescued"
"""The same file once it is complete; the next start puts it in the journal's place."""

DEDUP_SUFFIX: Final = ".repeats"
"""The dedup keys; existing installations have files of this name."""

RESTORING_SUFFIX: Final = ".restoring"
"""The dedup keys whose file is no longer at its path, while they are being written there again."""

SCHEMAS_SUFFIX: Final = ".schemas"
"""The ids of the schemas in the registry."""


def sibling(path: Path, suffix: str) -> Path:
    """Return the path of the file with a suffix beside a journal."""
    return path.with_name(path.name + suffix)
