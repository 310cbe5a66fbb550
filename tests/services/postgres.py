"""PostgreSQL of Debian's package, with a database for MLflow; it asks for a password."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from services.processes import Service, free_port, running, unprivileged_user

USER = "mlflow"
DATABASE = "mlflow"
PASSWORD = "not-a-secret"


def programs() -> Path | None:
    """Folder of the newest PostgreSQL; None where there is none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if on_path := shutil.which("postgres"):
        found.append(Path(on_path).parent)
    return max(found, key=lambda folder: [int(part) for part in folder.parts if part.isdigit()], default=None)


@contextlib.contextmanager
def postgres_server() -> Iterator[Service]:
    """A server with an empty database.

    Its data are in a folder of its own and not in pytest's, through which another user may not go.
    """
    binaries = programs()
    assert binaries is not None
    user = unprivileged_user()
    with tempfile.TemporaryDirectory(prefix="alsys-postgres-", ignore_cleanup_errors=True) as folder:
        data, secret = Path(folder) / "data", Path(folder) / "password"
        secret.write_text(PASSWORD)
        if user:
            for path in (folder, secret):
                shutil.chown(path, user)
        port = free_port()
        initdb = [
            str(binaries / "initdb"), "-D", str(data), "-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}",
            "--no-sync", "-E", "UTF8",
        ]  # fmt: skip
        subprocess.run(initdb, check=True, capture_output=True, user=user or None, cwd=folder)
        command = [
            str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1",
            "-c", f"unix_socket_directories={folder}", "-c", "max_connections=40",
        ]  # fmt: skip
        with running(Service("PostgreSQL", command, port, Path(folder) / "log", user=user)) as service:
            create = [str(binaries / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", USER, DATABASE]
            subprocess.run(create, check=True, capture_output=True, env={"PGPASSWORD": PASSWORD})
            yield service
