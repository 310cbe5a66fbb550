"""Makes MLflow's SQLite database: whole, or not at all.

MLflow's migrations cannot be interrupted: killed among them, they leave tables that no later try gets over. So they run
on a file of another name beside the place of the database, which gets its name when it is whole. One that an
interrupted making left (MLflow's own, or that of an older alsys) and that holds nothing is set aside, and made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from alsys.clock import RunningClock
from alsys.errors import EnvironmentProblem
from alsys.files import move, sync_file, sync_folder
from alsys.interop.mlflow_database import DatabaseState, cannot_use, connect_to, refused, state_of_database

logger = logging.getLogger("alsys.tracking.database")

QUIET_S: Final = 5.0
"""A half-made database that has not changed for so long is being made by nobody."""
_OLD_S: Final = 60.0
"""A file that was last written so long ago is left by somebody who is gone."""
LOCK_S: Final = 120.0
"""Longest wait for another alsys process that works on the same database."""
_POLL_S: Final = 0.1
_COMPANIONS: Final = ("-journal", "-wal", "-shm")


@contextlib.contextmanager
def locked(database: Path, timeout_s: float = LOCK_S) -> Iterator[None]:
    """One alsys process at a time; the lock dies with the process.

    Raises:
        EnvironmentProblem: The folder cannot be written, or another process does not let go.
    """
    try:
        handle = os.open(database.with_name(f"{database.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise EnvironmentProblem(f"{database}: MLflow's database cannot be written here: {error.strerror}") from error
    try:
        clock = RunningClock()
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock() >= timeout_s:
                    raise EnvironmentProblem(
                        f"{database}: another alsys process has been working on MLflow's database for more than "
                        f"{timeout_s:.0f} s; end it, or try again later"
                    ) from None
                time.sleep(_POLL_S)
        yield
    finally:
        os.close(handle)


def prepare(database: Path, artifact_root: str, *, quiet_s: float = QUIET_S) -> None:
    """Sees to it that a database is there, whole, and can be written. The caller holds `locked`.

    Args:
        database: The file.
        artifact_root: Where artifacts of MLflow's default experiment go, as a URI.
        quiet_s: See `QUIET_S`.

    Raises:
        InputError: It holds something else, or tables of another version of MLflow with data in them.
        EnvironmentProblem: It cannot be written, or another process has locked it.
    """
    _sweep(database)
    state = _settled_state(database, quiet_s)
    if state is DatabaseState.HALF_MADE:
        logger.warning("%s was left half made; it is now %s, and is made anew", database, _set_aside(database).name)
        state = DatabaseState.ABSENT
    if state is DatabaseState.ABSENT:
        _make(database, artifact_root)
    elif state is not DatabaseState.WHOLE:
        raise refused(state, f"sqlite:///{database}", "tracking.uri")
    else:
        _check_writable(database)


def _settled_state(database: Path, quiet_s: float) -> DatabaseState:
    """The state of a database; of one that is half made, once nobody is at it."""
    seen, since = None, time.monotonic()
    while True:
        state = state_of_database(database)
        if state is not DatabaseState.HALF_MADE:
            return state
        stat = database.stat()
        if (now := (stat.st_mtime_ns, stat.st_size)) != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since >= quiet_s or time.time() - stat.st_mtime > _OLD_S:
            return state
        time.sleep(_POLL_S)


def _make(database: Path, artifact_root: str) -> None:
    making = database.with_name(f"{_prefix(database)}{secrets.token_hex(4)}")
    try:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(f"sqlite:///{making}", artifact_root).engine.dispose()
        with contextlib.closing(connect_to(making, "rw")) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # nothing of it may be left in a second file
        sync_file(making)
        _publish(making, database)
    finally:
        for suffix in ("", *_COMPANIONS):
            making.with_name(making.name + suffix).unlink(missing_ok=True)
    sync_folder(database.parent)


def _publish(making: Path, database: Path) -> None:
    """Gives a whole database its name. One that another program has made meanwhile stays."""
    if not database.is_file() or database.stat().st_size == 0:
        _set_aside(database, ("-journal", "-wal", "-shm"))  # of a file that is gone: SQLite would play it back
    if database.is_file() and state_of_database(database) is DatabaseState.ABSENT:
        move(making, database)
        return
    try:
        database.hardlink_to(making)
    except FileExistsError:
        logger.warning("another program has made %s meanwhile", database)
    except OSError:  # no links on this file system
        move(making, database)


def _set_aside(database: Path, suffixes: tuple[str, ...] = ("", *_COMPANIONS)) -> Path:
    """Renames a database and what SQLite keeps beside it to the first free name."""
    number = 1
    while any(database.with_name(f"{database.name}.half-made-{number}{s}").exists() for s in ("", *_COMPANIONS)):
        number += 1
    aside = database.with_name(f"{database.name}.half-made-{number}")
    for suffix in suffixes:
        with contextlib.suppress(FileNotFoundError):
            move(database.with_name(database.name + suffix), aside.with_name(aside.name + suffix), is_durable=False)
    return aside


def _sweep(database: Path) -> None:
    """Removes what makings that were killed have left; nobody else is making one."""
    for name in os.listdir(database.parent):
        if name.startswith(_prefix(database)):
            database.with_name(name).unlink(missing_ok=True)


def _check_writable(database: Path) -> None:
    try:
        with contextlib.closing(connect_to(database, "rw")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.OperationalError as error:
        raise cannot_use(database, error) from error
    if not os.access(database.parent, os.W_OK):
        raise EnvironmentProblem(f"{database}: MLflow's database cannot be written: its folder is read-only")


def _prefix(database: Path) -> str:
    return f"{database.name[:200]}.making-"
