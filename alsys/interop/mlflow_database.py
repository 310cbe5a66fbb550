"""What a SQLite file is to MLflow: nothing yet, whole, half made, or of another version. Looked at before MLflow is.

MLflow answers a database whose tables are not those of its own version with migrations that it cannot interrupt, or
with an exception of SQLAlchemy. Here the file is only read.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from alsys.errors import EnvironmentProblem, InputError

LOCK_WAIT_S: Final = 10.0
"""Longest wait for another process that has locked a database."""
_REVISIONS: Final = "alembic_version"
_SEEDED: Final = {"experiments": "experiment_id <> 0", "workspaces": "name <> 'default'"}
"""What in these tables is a user's; MLflow fills them itself with the rest."""
_OWN: Final = frozenset({_REVISIONS, "experiments", "runs", "metrics", "params", "tags", "registered_models"})
"""Tables, one of which any database of MLflow has from the first moment on."""


class DatabaseState(StrEnum):
    """What a SQLite file is to the MLflow that is installed."""

    ABSENT = "absent"
    """No file, or one without any table."""
    WHOLE = "whole"
    """All tables, of this version of MLflow."""
    HALF_MADE = "half made"
    """Some tables, and nothing of a user's in them: their making was interrupted."""
    OLDER = "older"
    """Tables of an earlier version, with data; or a migration of them that was interrupted."""
    NEWER = "newer"
    """Tables of a version that this MLflow does not know."""
    FOREIGN = "foreign"
    """Tables of something else."""


def state_of_database(database: Path) -> DatabaseState:
    """What a file is to MLflow.

    Raises:
        EnvironmentProblem: It cannot be read, or another process has locked it.
        sqlite3.DatabaseError: It is no SQLite database.
    """
    if not database.is_file():
        return DatabaseState.ABSENT
    try:
        found = _contents(database, "ro")
    except sqlite3.OperationalError as error:
        if "readonly" not in str(error):  # a journal that a kill has left is to be played back first
            raise cannot_use(database, error) from error
        try:
            found = _contents(database, "rw")
        except sqlite3.OperationalError as second:
            raise cannot_use(database, second) from second
    if not found.tables:
        return DatabaseState.ABSENT
    if not found.tables & _OWN:
        return DatabaseState.FOREIGN
    head, known = _revisions_of_mlflow()
    if found.revisions == [head]:
        return DatabaseState.WHOLE
    if any(revision not in known for revision in found.revisions):
        return DatabaseState.NEWER
    return DatabaseState.OLDER if found.has_data else DatabaseState.HALF_MADE


def check_tables(database: Path, field: str, uri: str) -> None:
    """Refuses a database that MLflow would change before it reads from it, or could not read.

    Args:
        database: A SQLite file that is there.
        field: What the user calls the URI.
        uri: That names it.

    Raises:
        InputError: It holds no tables of MLflow, or those of another version.
        EnvironmentProblem: It cannot be read, or another process has locked it.
    """
    state = state_of_database(database)
    if state is not DatabaseState.WHOLE:
        raise refused(state, uri, field)


def connect_to(database: Path, mode: str) -> sqlite3.Connection:
    """A connection to a file that is there; `mode` is ``ro`` or ``rw``."""
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode={mode}", uri=True, timeout=LOCK_WAIT_S)


def cannot_use(database: Path, error: sqlite3.Error) -> EnvironmentProblem:
    """What SQLite says of a file that is a database, in a user's words."""
    text = " ".join(str(error).split())
    if "locked" in text:
        text = f"another process keeps it locked (waited {LOCK_WAIT_S:.0f} s)"
    elif "readonly" in text:
        text = "is read-only"
    return EnvironmentProblem(f"{database}: MLflow's database cannot be used: {text}")


def refused(state: DatabaseState, uri: str, field: str) -> InputError:
    """Why a database of this state is not used, and what to do."""
    message, remedy = _WORDS[state]
    return InputError(message, field=field, value=uri, remedy=remedy.format(uri=uri))


_WORDS: Final = {
    DatabaseState.ABSENT: ("holds no tables of MLflow yet", "the first model that a campaign delivers makes them"),
    DatabaseState.HALF_MADE: (
        "the making of its tables was interrupted, and it holds nothing",
        "the next delivery (the same `alsys run`) sets it aside and makes it anew",
    ),
    DatabaseState.OLDER: (
        "holds data in tables of an earlier MLflow, or a migration of them was interrupted",
        "copy the file, then `mlflow db upgrade {uri}`; or name another database (tracking.uri)",
    ),
    DatabaseState.NEWER: (
        "was made by a newer MLflow than the one that is installed",
        "install that version, or name another database (tracking.uri)",
    ),
    DatabaseState.FOREIGN: (
        "holds tables of something else than MLflow",
        "name another file, for example sqlite:///mlflow.db",
    ),
}


@dataclass(frozen=True, slots=True)
class _Contents:
    tables: frozenset[str]
    revisions: list[str]
    has_data: bool


def _contents(database: Path, mode: str) -> _Contents:
    with contextlib.closing(connect_to(database, mode)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        tables = frozenset(str(name) for (name,) in names if not str(name).startswith("sqlite_"))
        revisions: list[str] = []
        if _REVISIONS in tables:
            revisions = [str(revision) for (revision,) in connection.execute(f"SELECT version_num FROM {_REVISIONS}")]
        has_data = any(
            connection.execute(f'SELECT 1 FROM "{table}" WHERE {_SEEDED.get(table, "1")} LIMIT 1').fetchall()
            for table in tables - {_REVISIONS}
        )
    return _Contents(tables, revisions, has_data)


def _revisions_of_mlflow() -> tuple[str, set[str]]:
    """The newest revision of the tables that the installed MLflow knows, and all of them."""
    from alembic.script import ScriptDirectory

    spec = find_spec("mlflow")
    if spec is None or not spec.submodule_search_locations:
        raise EnvironmentProblem("mlflow is not installed; install alsys again, or set tracking.enabled to false")
    script = ScriptDirectory(str(Path(spec.submodule_search_locations[0]) / "store" / "db_migrations"))
    revisions = [revision.revision for revision in script.walk_revisions()]
    return revisions[0], set(revisions)
