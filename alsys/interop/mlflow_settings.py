"""How alsys sets MLflow up, wherever it is used: few and short retries, nothing sent, nothing unpickled, nothing left.

MLflow is not imported with this module; what it would answer with a traceback is refused before it is asked.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from alsys.errors import InputError

DEFAULT_URI: Final = "sqlite:///mlflow.db"
"""Tracking server where neither the user nor ``MLFLOW_TRACKING_URI`` names one."""

SOURCE_TYPE: Final = "alsys"
"""MLflow's word for data of a campaign (`alsys.campaign.mlflow_source`)."""

_ENVIRONMENT: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
_SERVERS: Final = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


def prepare_environment() -> None:
    """Sets MLflow's variables where the user has not; must come before mlflow is imported."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def shown(uri: str) -> str:
    """A server's URI, or a text with such, as it may stand in a message, a page or a log: without its password."""
    return re.sub(r"(://[^/@:\s]*):[^/\s]*@", r"\1:***@", uri)


@contextlib.contextmanager
def servers_kept() -> Iterator[None]:
    """Afterwards this process' MLflow is pointed at the servers that it was pointed at before.

    MLflow's stores look models up at the server of the process, whatever client asks, so it must be set; left set, it
    would be the next campaign's, and the user's own.
    """
    tracking, registry = (os.environ.get(name) for name in _SERVERS)
    try:
        yield
    finally:
        if "mlflow" in sys.modules:
            import mlflow

            mlflow.set_tracking_uri(tracking)  # which sets the variable too
            mlflow.set_registry_uri(registry)
        for name, value in zip(_SERVERS, (tracking, registry), strict=True):
            if value is None:
                os.environ.pop(name, None)


def check_database(database: Path, field: str, uri: str) -> None:
    """Refuses a file that is no SQLite database; an empty one is, and one that is locked is left to MLflow.

    Args:
        database: A file that is there.
        field: What the user calls the URI.
        uri: That names it.

    Raises:
        InputError: It is something else, or damaged.
    """
    try:
        with contextlib.closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=0)
        ) as connection:
            connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()
    except sqlite3.OperationalError:
        return
    except sqlite3.DatabaseError as error:
        raise InputError(
            f"is no SQLite database: {error}", field=field, value=uri,
            remedy="name the database of MLflow, for example sqlite:///mlflow.db",
        ) from error  # fmt: skip
