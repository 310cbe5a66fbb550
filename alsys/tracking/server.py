"""How alsys talks to MLflow: which server, in which environment, one process at a time on SQLite.

The only module of the package that imports mlflow, on the first `connect`. Retries are few and short, so a dead server
costs seconds and not the four minutes of MLflow's defaults. Model versions that alsys registers carry the tags below;
they say whether a version is there already, so registering is safe to repeat.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from alsys.errors import InputError
from alsys.interop.mlflow_database import check_tables
from alsys.interop.mlflow_settings import DEFAULT_URI, check_database, prepare_environment, shown
from alsys.interop.moved_artifacts import mend
from alsys.tracking.database import locked, prepare

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
PREVIOUS: Final = "previous"


class Tag:
    """Names of the tags of a model version."""

    CAMPAIGN: Final = "alsys.campaign"
    CAMPAIGN_ID: Final = "alsys.campaign_id"
    VERSION: Final = "alsys.version"
    PARENT: Final = "alsys.parent"
    N_LABELS: Final = "alsys.n_labels"
    HEAD_SEQ: Final = "alsys.head_seq"
    DIGEST: Final = "alsys.dataset_digest"
    BUNDLE: Final = "alsys.bundle_digest"
    LEVEL: Final = "alsys.level_of_theory"
    METRICS: Final = "alsys.metrics"
    TEST_FRAMES: Final = "alsys.test_frames"
    VERDICT: Final = "alsys.verdict"
    REASON: Final = "alsys.reason"
    VALIDATION: Final = "alsys.validation"
    KIND: Final = "alsys.kind"
    MEMBERS: Final = "alsys.members"
    ELEMENTS: Final = "alsys.elements"
    SYSTEMS: Final = "alsys.systems"
    PERIODIC: Final = "alsys.periodic"
    CHARGES: Final = "alsys.charges"
    MULTIPLICITIES: Final = "alsys.multiplicities"
    ROLE: Final = "alsys.role"
    PARENT_RUN: Final = "mlflow.parentRunId"


_SCHEMES: Final = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "databricks-uc")
_RETRIES_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
_CONTENTION: Final = ("database is locked", "already exists", "UNIQUE constraint")

_T = TypeVar("_T")
logger = logging.getLogger(__name__)


def resolve_uri(uri: str | None) -> str:
    """The tracking server: `uri`, or ``MLFLOW_TRACKING_URI``, or SQLite in the working folder; paths made absolute.

    Raises:
        InputError: Not a server or database that has a model registry.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    scheme, separator, rest = uri.partition("://")
    if uri == "databricks":
        return uri
    if not separator or scheme.partition("+")[0] not in _SCHEMES:
        raise InputError(
            "not an MLflow server or database",
            field="tracking.uri",
            value=shown(uri),
            remedy="for example http://HOST:5000 or sqlite:///mlflow.db",
        )
    if scheme != "sqlite":
        return uri
    path = rest.removeprefix("/")
    if not path:
        raise InputError("names no file", field="tracking.uri", value=uri, remedy="for example sqlite:///mlflow.db")
    if Path(path).is_dir():
        raise InputError("is a folder", field="tracking.uri", value=uri, remedy=f"for example {uri}/mlflow.db")
    resolved = f"sqlite:///{Path(path).resolve()}"
    if "?" in resolved:
        raise InputError(
            "MLflow takes no `?` in the path of its database",
            field="tracking.uri",
            value=resolved,
            remedy="name one in another folder, for example sqlite:////home/me/mlflow.db",
        )
    return resolved


def database_of(uri: str) -> Path | None:
    """File of a resolved SQLite URI; None for a server."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@dataclass(frozen=True, slots=True)
class Server:
    """An MLflow server or database.

    Attributes:
        uri: Resolved URI of tracking and registry.
        client: An `mlflow.MlflowClient` for both.
    """

    uri: str
    client: Any

    @property
    def place(self) -> str:
        """The URI for messages, without a password."""
        return shown(self.uri)

    @property
    def artifact_root(self) -> str | None:
        """Where artifacts go, as a URI that does not depend on the working folder; None lets a server decide."""
        database = database_of(self.uri)
        return None if database is None else _artifacts_of(database)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """On SQLite, one alsys process at a time; elsewhere nothing. The lock dies with the process."""
        database = database_of(self.uri)
        with contextlib.nullcontext() if database is None else locked(database):
            yield

    def patiently(self, action: Callable[[], _T]) -> _T:
        """Repeats an action that another process's work on the same database made fail.

        The action must be safe to repeat.
        """
        from mlflow.exceptions import MlflowException

        for delay in _RETRIES_S:
            try:
                return action()
            except MlflowException as error:
                if not any(word in str(error) for word in _CONTENTION):
                    raise
                time.sleep(delay)
        return action()

    def versions(self, name: str) -> list[Any]:
        """All versions of a registered model, oldest first; empty where there is none of this name."""
        found: list[Any] = []
        token: str | None = None
        while True:
            page = self.client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token)
            found += page
            token = page.token
            if not token:
                return sorted(found, key=lambda version: int(version.version))

    def aliases(self, name: str) -> dict[str, int]:
        """Version behind each alias of a registered model that exists."""
        aliases = self.client.get_registered_model(name).aliases
        return {alias: int(version) for alias, version in aliases.items()}

    def decide(self, name: str, version: int, verdict: str, reason: str) -> None:
        """Writes what became of a version, and why, into its tags and description. Safe to repeat."""
        self.client.set_model_version_tag(name, str(version), Tag.VERDICT, verdict)
        self.client.set_model_version_tag(name, str(version), Tag.REASON, reason)
        self.client.update_model_version(name, str(version), description=f"{verdict}: {reason}")

    def make_champion(self, name: str, version: int) -> None:
        """Moves `champion` to a version and `previous` to the champion before it. Safe to repeat."""
        aliases = self.aliases(name)
        champion = aliases.get(CHAMPION)
        if champion != version:
            if champion is not None:
                self.client.set_registered_model_alias(name, PREVIOUS, str(champion))
            self.client.set_registered_model_alias(name, CHAMPION, str(version))
        if aliases.get(CHALLENGER) == version:
            self.client.delete_registered_model_alias(name, CHALLENGER)


def checked_uri(uri: str | None = None, *, create: bool = False) -> str:
    """The tracking server, where it is one that can be asked; without mlflow.

    Args:
        uri: As for `resolve_uri`.
        create: A SQLite database need not be there.

    Raises:
        InputError: No such kind of server, no such database, or a file that is none.
    """
    resolved = resolve_uri(uri)
    database = database_of(resolved)
    if database is not None and database.is_file():
        check_database(database, "tracking.uri", resolved)
    elif database is not None and not create:
        raise InputError(
            "no such database",
            field="tracking.uri",
            value=resolved,
            remedy="run in the folder where it is, or give --uri; a campaign with tracking.enabled: false has none: "
            "`alsys status` lists its versions",
        )
    return resolved


def connect(uri: str | None = None, *, create: bool = False) -> Server:
    """A client of the tracking server, at which MLflow is pointed too; imports mlflow, which takes seconds.

    Args:
        uri: As for `resolve_uri`.
        create: Make a SQLite database that is not there.

    MLflow stays pointed at it until `servers_kept` ends.

    Raises:
        InputError: No such kind of server, or no such database, or a file that is none, or one of another MLflow.
        EnvironmentProblem: The database or its folder cannot be written, or is locked.
    """
    resolved = checked_uri(uri, create=create)
    prepare_environment()
    import mlflow

    if (database := database_of(resolved)) is not None:
        os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")  # else a removed file is written to
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # says so, each time
        if create:
            with locked(database):
                prepare(database, _artifacts_of(database))
        else:
            check_tables(database, "tracking.uri", resolved)
        _find_artifacts(database)
    mlflow.set_tracking_uri(resolved)
    mlflow.set_registry_uri(resolved)
    client = mlflow.MlflowClient(tracking_uri=resolved, registry_uri=resolved)
    return Server(resolved, client)


def _find_artifacts(database: Path) -> None:
    """Writes down where artifacts are, in a database that was moved along with them; one that is only read stays."""
    try:
        n = mend(database)
    except sqlite3.OperationalError as error:
        logger.warning("%s was moved, and does not say where its artifacts are now: %s", database, error)
        return
    if n:
        logger.warning("%s was moved: %d locations of artifacts in it are now those beside it", database, n)


def _artifacts_of(database: Path) -> str:
    return (database.parent / "mlartifacts").as_uri()
