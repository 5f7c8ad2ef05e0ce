"""Migrates the database of a shared journal to the schema of this version."""

import contextlib
import logging
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import psycopg
import yoyo
from yoyo.exceptions import LockTimeout

from connector.errors import OutsideUnreachable
from connector.replicas.postgres import cause

_MIGRATIONS: Final = Path(__file__).with_name("migrations")
_LOCK_SECONDS: Final = 30


def migrate(url: str) -> list[str]:
    """Apply the missing migrations, each in a transaction of its own; returns their names.

    Args:
        url: The database's URL, with a role that may create tables.

    Raises:
        OutsideUnreachable: The database is not reachable, or rejects the connection or a statement.
    """
    logging.getLogger("yoyo").setLevel(logging.WARNING)
    parts = urlsplit(url)
    try:
        backend: Any = yoyo.get_backend(urlunsplit(parts._replace(scheme="postgresql+psycopg")))
        with contextlib.closing(backend.connection), backend.lock(timeout=_LOCK_SECONDS):
            missing = backend.to_apply(yoyo.read_migrations(str(_MIGRATIONS)))
            names = [str(migration.id) for migration in missing]
            backend.apply_migrations(missing)
    except (psycopg.Error, LockTimeout) as error:
        reason = cause(url, error) if isinstance(error, psycopg.Error) else str(error)
        raise OutsideUnreachable(f"WEDA_JOURNAL__URL: the database was not migrated: {reason}") from error
    return names
