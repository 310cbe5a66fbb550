"""Artifacts of an MLflow database in SQLite that was moved, or copied, together with its folder of artifacts.

MLflow writes down where artifacts are as absolute paths, in five columns of its tables, and has no call to change
them. A path that is somewhere else, and whose end (from `mlartifacts` or `mlruns` on) is there beside the database,
is one that has moved: artifacts lie in folders of random names, so it is the same artifact. What else was in the folder
that the database came from is taken to have come along, unless it is still where it was and not here.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from alsys.interop.mlflow_database import LOCK_WAIT_S, connect_to

COLUMNS: Final = (
    ("logged_models", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("experiments", "artifact_location"),
)
"""Where MLflow 3 keeps locations."""
FOLDERS: Final = ("mlartifacts", "mlruns")
"""Names of artifact folders beside a database: that of alsys, and MLflow's own."""


def displaced(database: Path) -> dict[str, str]:
    """Locations that have moved along with a database, and where they are now. The database is only read.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    with contextlib.closing(connect_to(database, "ro")) as connection:
        return _displaced(connection, database)


def mend(database: Path) -> int:
    """Writes down where artifacts that have moved are now; all or nothing. How many locations were wrong.

    Raises:
        sqlite3.Error: The database cannot be read, or written.
    """
    if not displaced(database):
        return 0
    with contextlib.closing(connect_to(database, "rw")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        moved = _displaced(connection, database)
        _rewrite(connection, moved)
        connection.commit()
    return len(moved)


@contextlib.contextmanager
def readable_database(database: Path, folder: Path) -> Iterator[Path]:
    """A database whose locations are right: itself, or where it has moved, a mended copy in `folder`.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    moved = displaced(database)
    if not moved:
        yield database
        return
    copy = folder / "mlflow.db"
    with (
        contextlib.closing(connect_to(database, "ro")) as source,
        contextlib.closing(sqlite3.connect(copy, timeout=LOCK_WAIT_S)) as target,
    ):
        source.backup(target)
        _rewrite(target, moved)
        target.commit()
    try:
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _displaced(connection: sqlite3.Connection, database: Path) -> dict[str, str]:
    here = database.resolve().parent
    found = {location: path for location in _locations(connection) if (path := _path(location)) is not None}
    roots = {
        root
        for path in found.values()
        if (root := _root(path)) is not None and root != here and (here / path.relative_to(root)).exists()
    }
    moved = {}
    for location, path in found.items():
        root = next((root for root in roots if path.is_relative_to(root)), None)
        if root is None:
            continue
        new = here / path.relative_to(root)
        if new.exists() or not path.exists():
            moved[location] = new.as_uri() if location.startswith("file:") else str(new)
    return moved


def _root(path: Path) -> Path | None:
    """The folder that a database was in, to which this artifact belongs; None where the path does not say."""
    places = [i for i, part in enumerate(path.parts) if part in FOLDERS]
    return Path(*path.parts[: places[-1]]) if places and places[-1] > 0 else None


def _path(location: str) -> Path | None:
    """A local location; None for another."""
    parts = urlsplit(location)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(location) if location.startswith("/") else None


def _locations(connection: sqlite3.Connection) -> set[str]:
    return {
        str(location)
        for table, column in _columns(connection)
        for (location,) in connection.execute(f'SELECT DISTINCT "{column}" FROM "{table}" WHERE "{column}" IS NOT NULL')
    }


def _columns(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Those of `COLUMNS` that there are."""
    known = {table: {row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')} for table, _ in COLUMNS}
    return [(table, column) for table, column in COLUMNS if column in known[table]]


def _rewrite(connection: sqlite3.Connection, moved: dict[str, str]) -> None:
    for table, column in _columns(connection):
        connection.executemany(
            f'UPDATE "{table}" SET "{column}" = ? WHERE "{column}" = ?', [(new, old) for old, new in moved.items()]
        )
