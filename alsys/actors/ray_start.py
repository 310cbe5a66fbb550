"""How this process starts Ray or joins a cluster."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psutil
import ray
from ray._private import ray_constants
from ray._private.ray_logging import global_worker_stdstream_dispatcher

from alsys.actors.access import Access, check_access, check_reachable, found_address, take_mode
from alsys.actors.nodes import Demand
from alsys.config.runtime import RuntimeConfig
from alsys.errors import EnvironmentProblem

logger = logging.getLogger(__name__)

LOCAL_OBJECT_STORE_BYTES: Final = 512 * 1024 * 1024
TRIES: Final = 3
"""How often Ray is started before it is given up."""
PAUSE_S: Final = 2.0
"""Between two tries."""
LONGEST_TEMPORARY: Final = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""Longest name of Ray's folder: the path of a socket may have 107 bytes."""
SHORT_FOLDERS: Final = ("/tmp", "/var/tmp", "/dev/shm")
MIB: Final = 1024**2
MOST_MEMORY: Final = 10**14
"""Bytes: Ray takes no larger quantities."""
PACKAGE: Final = Path(__file__).parents[1]
"""This alsys."""
OWN_SETTINGS: Final = {"gcs_rpc_server_reconnect_timeout_s": 600}
"""Who is dead is found out here, before Ray ends this process."""
LISTENER: Final = "alsys"
PRINTER: Final = "ray_print_logs"
"""Names of who gets what workers write; the second one is Ray's, and prints it."""


def connect(
    runtime: RuntimeConfig,
    demand: Demand,
    least: Demand,
    is_left: Callable[[], bool] = lambda: False,
    listen: Callable[[Mapping[str, Any]], None] | None = None,
) -> bool:
    """Starts Ray here or joins a cluster; returns whether this process started it.

    A cluster of our own has at least as many Ray CPUs and as much memory as all workers ask for, so that a small
    machine runs them all; threads are limited by each worker. With `runtime.num_cpus` it has as many as that says. It
    is tried again where the machine is too busy.

    Args:
        runtime: Where Ray is.
        demand: What all workers ask for together.
        least: What the first of each role ask for together.
        is_left: Whether nobody waits for it any more.
        listen: Is given what workers write, by a thread of Ray; None where nobody wants to know.

    Raises:
        EnvironmentProblem: Ray does not come up.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    options: dict[str, Any] = {
        "log_to_driver": listen is not None,
        "logging_level": logging.ERROR,
        "configure_logging": False,
    }
    address = address_of(runtime)
    prepare_token(is_local=not address)
    if address:
        check_reachable(address)
        found = found_address(address)
        check_reachable(found)
        access = check_access(found, is_allowed=runtime.allow_unauthenticated)
        if access is Access.OPEN:
            logger.warning("the Ray cluster at %s asks for no token: whoever reaches it runs any code on it", address)
        take_mode(access)
        if runtime.ship_code:
            options["runtime_env"] = {"py_modules": [str(PACKAGE)], "excludes": ["**/__pycache__"]}
        try:
            _init(listen, address=address, **options)
        except Exception as error:
            remedy = (
                f"see that it is Ray {ray.__version__} with the token of ~/.ray/auth_token here (or RAY_AUTH_TOKEN)"
            )
            raise EnvironmentProblem(
                f"cannot join the Ray cluster at {address!r}: {_first_line(error)}; something answers there: {remedy}"
            ) from error
        return True
    if runtime.num_cpus is not None and least.get("CPU", 0.0) > runtime.num_cpus:
        raise EnvironmentProblem(
            f"a trainer, an explorer and a labeler ask for {least['CPU']:g} CPUs, runtime.num_cpus is "
            f"{runtime.num_cpus}; raise it or ask for fewer"
        )
    memory, asked = psutil.virtual_memory(), least.get("memory", 0.0)
    if asked > memory.total:
        raise EnvironmentProblem(
            f"a trainer, an explorer and a labeler ask for {asked / MIB:.0f} MiB (ray_memory_mb), this machine has "
            f"{memory.total / MIB:.0f}; ask for less, or give the runtime.address of a cluster"
        )
    take_mode(Access.REFUSED)
    options |= {
        "num_cpus": runtime.num_cpus or max(os.cpu_count() or 1, math.ceil(demand.get("CPU", 0.0))),
        "_memory": min(max(memory.available, math.ceil(demand.get("memory", 0.0))), MOST_MEMORY),
        "include_dashboard": False,
        "object_store_memory": LOCAL_OBJECT_STORE_BYTES,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": temporary_folder(),
        "_system_config": {**OWN_SETTINGS, "enable_metrics_collection": has_metrics(runtime)},
    }
    for left in reversed(range(TRIES)):
        try:
            options["_metrics_export_port"] = _free_metrics_port(runtime)
            with _on_loopback():
                # whatever another Ray has left in the folder of temporary files
                _init(listen, address="local", **options)
        except Exception as error:
            with contextlib.suppress(Exception):  # half a Ray
                ray.shutdown()
            if not left or is_left():
                raise EnvironmentProblem(
                    f"cannot start Ray on this machine, tried {TRIES} times: {_first_line(error)}"
                ) from error
            logger.warning("Ray did not come up: %s; it is tried again", _first_line(error))
            time.sleep(PAUSE_S)
        else:
            break
    _tell_of_metrics(runtime)
    return True


def address_of(runtime: RuntimeConfig) -> str | None:
    """Of a cluster that others run; None for a Ray that is started here, on the loopback interface."""
    address = runtime.address or os.environ.get("ALSYS_RAY_ADDRESS")
    return None if address == "local" else address


def has_metrics(runtime: RuntimeConfig) -> bool:
    """Whether the Ray of a campaign may have somebody who reads its metrics."""
    return address_of(runtime) is not None or runtime.metrics_port is not None


def _free_metrics_port(runtime: RuntimeConfig) -> int | None:
    """The port that is asked for; None, for any, where it is taken: Ray would die of it."""
    if runtime.metrics_port is None:
        return None
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", runtime.metrics_port))
        except OSError as error:
            logger.warning("runtime.metrics_port %d: %s; another one is taken", runtime.metrics_port, error.strerror)
            return None
    return runtime.metrics_port


def _tell_of_metrics(runtime: RuntimeConfig) -> None:
    if runtime.metrics_port is not None:
        ports = [node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]]
        logger.info("metrics for Prometheus: http://127.0.0.1:%d/metrics", ports[0])


def _init(listen: Callable[[Mapping[str, Any]], None] | None, **options: Any) -> None:
    """Ray's own, where what workers write goes to `listen` instead of the output of this process."""
    global_worker_stdstream_dispatcher.remove_handler(LISTENER)
    if listen is not None:
        global_worker_stdstream_dispatcher.add_handler(LISTENER, listen)
    ray.init(**options)
    global_worker_stdstream_dispatcher.remove_handler(PRINTER)


def temporary_folder(short: Sequence[str] = SHORT_FOLDERS) -> str:
    """Where Ray keeps its sockets and logs: the usual place, or one in a folder of a short name.

    Raises:
        EnvironmentProblem: There is none that is short enough and can be written.
    """
    usual = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    folders = [os.path.join(usual, "ray")]
    folders += [os.path.join(folder, f"ray-{os.getuid()}") for folder in short]
    for folder in folders:
        if len(os.fsencode(folder)) <= LONGEST_TEMPORARY and _is_writable(Path(folder)):
            return folder
    raise EnvironmentProblem(
        f"Ray needs a folder for its sockets with a name of at most {LONGEST_TEMPORARY} bytes, and none of "
        f"{', '.join(folders)} will do; set RAY_TMPDIR"
    )


def full_folder(least: int = 32 * MIB) -> str:
    """Which folder of Ray's has hardly any space left, as the end of a line; empty where there is some.

    Args:
        least: Bytes.
    """
    try:
        folder = temporary_folder()
        free = shutil.disk_usage(folder).free
    except (OSError, EnvironmentProblem):
        return ""
    if free >= least:
        return ""
    return f"; {folder} has {free / MIB:.0f} MB left, which Ray's workers need: make space, or set RAY_TMPDIR"


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray takes 127.0.0.1 for the machine's address on the network, except where it may not form clusters."""
    was_enabled = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = was_enabled


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def prepare_token(*, is_local: bool) -> None:
    """Makes Ray's authentication token where there is none, readable by its owner only.

    Ray 2.60 makes one by itself only while `RAY_AUTH_MODE` is unset, and leaves it readable by all. A Ray of our own
    does without the file where the home folder cannot be written: its token lives as long as this process.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    path = Path.home() / ".ray" / "auth_token"
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
        if stat.S_IMODE(path.stat().st_mode) != 0o600:
            path.chmod(0o600)
    except OSError as error:
        if not is_local:
            raise EnvironmentProblem(f"cannot keep Ray's token in {path}: {error.strerror}") from error
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
