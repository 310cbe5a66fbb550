"""Making MLflow's database, and what is done with one that was left half made. Tables are made once for the module."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from alsys.errors import EnvironmentProblem, InputError
from alsys.interop.mlflow_database import DatabaseState, state_of_database
from alsys.tracking.database import locked, prepare
from alsys.tracking.server import connect, prepare_environment, resolve_uri

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its dependencies'


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that `prepare` has made in a folder with an odd name."""
    folder = tmp_path_factory.mktemp("50% it's #1")
    prepare_environment()
    (folder / "mlflow.db-journal").write_bytes(b"of a database that is gone")
    with locked(folder / "mlflow.db"):
        prepare(folder / "mlflow.db", "file:///tmp/x")
    assert sorted(os.listdir(folder)) == ["mlflow.db", "mlflow.db.half-made-1-journal", "mlflow.db.lock"]
    return folder / "mlflow.db"


def half_made(path: Path, whole: Path, revision: str | None = "451aebb31d03") -> Path:
    """What a kill among the migrations leaves: some tables, the revision of an early one, or none."""
    shutil.copy(whole, path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE spans")
        connection.execute("DELETE FROM alembic_version")
        if revision is not None:
            connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
    os.utime(path, (1e9, 1e9))
    return path


def test_a_database_is_made_whole_and_kept(whole: Path) -> None:
    assert state_of_database(whole) is DatabaseState.WHOLE
    before = whole.stat()
    with locked(whole):
        prepare(whole, "file:///tmp/x")
    assert (whole.stat().st_ino, whole.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert connect(f"sqlite:///{whole}").client.search_experiments()[0].name == "Default"


@pytest.mark.parametrize("revision", ["451aebb31d03", None])
def test_a_half_made_database_is_set_aside_and_made_anew(
    whole: Path, tmp_path: Path, revision: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = half_made(tmp_path / "mlflow.db", whole, revision)
    (tmp_path / "mlflow.db.making-0badcafe").write_bytes(b"left by a making that was killed")
    assert state_of_database(database) is DatabaseState.HALF_MADE
    with pytest.raises(InputError, match="interrupted, and it holds nothing"):
        connect(f"sqlite:///{database}")
    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", Copies(whole))
    with locked(database):
        prepare(database, "file:///tmp/x")
    assert state_of_database(database) is DatabaseState.WHOLE
    assert sorted(os.listdir(tmp_path)) == ["mlflow.db", "mlflow.db.half-made-1", "mlflow.db.lock"]


class Copies:
    """Stands in for MLflow's store, whose making of tables takes seconds: copies a file that has them."""

    def __init__(self, whole: Path) -> None:
        self._whole = whole

    def __call__(self, uri: str, _: str) -> Copies:
        shutil.copy(self._whole, uri.removeprefix("sqlite:///"))
        return self

    @property
    def engine(self) -> Copies:
        return self

    def dispose(self) -> None:
        """Nothing is open."""


def test_tables_that_somebody_is_making_are_waited_for(whole: Path, tmp_path: Path) -> None:
    database = half_made(tmp_path / "mlflow.db", whole)
    os.utime(database)

    def finish() -> None:
        for _ in range(3):
            time.sleep(0.3)
            os.utime(database)
        shutil.copy(whole, tmp_path / "other")
        (tmp_path / "other").replace(database)

    maker = threading.Thread(target=finish)
    maker.start()
    with locked(database):
        prepare(database, "file:///tmp/x", quiet_s=0.8)
    maker.join()
    assert sorted(os.listdir(tmp_path)) == ["mlflow.db", "mlflow.db.lock"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE alembic_version SET version_num = '451aebb31d03'; INSERT INTO registered_models VALUES ('m', 1, 1, "
         "'', 'default')", "mlflow db upgrade"),
        ("UPDATE alembic_version SET version_num = 'fffffffffffe'", "a newer MLflow"),
    ],
)  # fmt: skip
def test_tables_of_another_version_are_named_with_the_remedy(
    whole: Path, tmp_path: Path, change: str, words: str
) -> None:
    database = Path(shutil.copy(whole, tmp_path / "mlflow.db"))
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.executescript(change)
    before = database.read_bytes()
    for is_made in (True, False):
        with pytest.raises(InputError, match=words) as caught:
            connect(f"sqlite:///{database}", create=is_made)
        assert "\n" not in str(caught.value)
    assert database.read_bytes() == before


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "structures.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE systems (id INTEGER)")
    with pytest.raises(InputError, match="something else than MLflow"):
        connect(f"sqlite:///{database}", create=True)


def test_a_locked_database_is_named(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Path(shutil.copy(whole, tmp_path / "mlflow.db"))
    connected = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **how: connected(*args, **{**how, "timeout": 0.2}))
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        for is_made in (True, False):
            with pytest.raises(EnvironmentProblem, match="another process keeps it locked"):
                connect(f"sqlite:///{database}", create=is_made)


def test_a_process_that_does_not_let_go_is_named(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    with locked(database), pytest.raises(EnvironmentProblem, match="another alsys process"), locked(database, 0.3):
        pass
    with pytest.raises(EnvironmentProblem, match="cannot be written here"), locked(tmp_path / "no" / "mlflow.db"):
        pass


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("sqlite:///{folder}", "is a folder"),
        ("sqlite:///{folder}/what?/mlflow.db", "takes no `\\?`"),
        ("sqlite:///", "names no file"),
        ("{folder}/mlflow.db", "not an MLflow server or database"),
        ("SQLite:///mlflow.db", "not an MLflow server or database"),
        ("ftp://127.0.0.1/mlflow", "not an MLflow server or database"),
        ("http//127.0.0.1:5000", "not an MLflow server or database"),
    ],
)
def test_what_is_no_server_is_refused_in_one_line(tmp_path: Path, uri: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        resolve_uri(uri.format(folder=tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["ümlaut & 100% #2", "it's [odd] {too}; $HOME"])
def test_odd_folders_of_a_database(whole: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", Copies(whole))
    server = connect("sqlite:///ml flow.db", create=True)
    assert state_of_database(tmp_path / name / "ml flow.db") is DatabaseState.WHOLE
    assert server.artifact_root == (tmp_path / name / "mlartifacts").as_uri()
    assert sorted(os.listdir()) == ["ml flow.db", "ml flow.db.lock"]


KILLED = """
import os, signal, sys
import sqlalchemy
from alsys.tracking.server import connect, prepare_environment, resolve_uri
prepare_environment()
left = [int(sys.argv[2])]

def count(*_):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

sqlalchemy.event.listen(sqlalchemy.Engine, "after_cursor_execute", count)
sys.addaudithook(lambda name, _: count() if name in ("os.link", "os.remove") else None)
connect(f"sqlite:///{sys.argv[1]}", create=True)
print("made", int(sys.argv[2]) - left[0])
"""


@pytest.mark.slow
def test_a_making_that_is_killed_at_any_statement_is_made_again(tmp_path: Path) -> None:
    """Kills at the first statements, among the migrations, and around the renaming."""
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "mlflow.db")]
    done = subprocess.run([*command, "0"], capture_output=True, text=True, check=True)
    n_steps = int(done.stdout.split()[-1])
    assert n_steps > 200
    for step in (1, 2, n_steps // 5, n_steps // 2, n_steps - 3, n_steps - 2, n_steps - 1, n_steps):
        for path in tmp_path.iterdir():
            path.unlink()
        killed = subprocess.run([*command, str(step)], capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, (step, killed.stderr[-500:])
        assert not (tmp_path / "mlflow.db").exists() or state_of_database(tmp_path / "mlflow.db") is DatabaseState.WHOLE
    subprocess.run([*command, "0"], capture_output=True, text=True, check=True)
    assert state_of_database(tmp_path / "mlflow.db") is DatabaseState.WHOLE
    assert sorted(os.listdir(tmp_path)) == ["mlflow.db", "mlflow.db.lock"]
