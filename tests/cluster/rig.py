"""Ray on several machines, and campaigns that are driven from them.

    with Cluster(tmp_path) as cluster:
        cluster.start("one", "two", "three")       # beside the head, which has no CPUs
        driver = cluster.head.run("toy.yaml", "stop.labels=40")
        cluster["two"].kill()
        driver.finishes(120)
        driver.check(40)

Each node is a machine of its own (`cluster.machines`), with its own address, disk, home and processes; tokens are asked
for. What they and drivers say is under `<folder>/logs`; the nodes' disks are `<folder>/<name>`.
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from alsys.campaign.folder import CampaignFolder
from alsys.events import Event, FrameQuarantined, LabelAccepted
from alsys.store.zarr import open_reader
from cluster.machines import HOME, REPOSITORY, Machine, Network, Process

PORT: Final = 6379
OBJECT_STORE_BYTES: Final = 80_000_000
UP_S: Final = 240.0
MAX_STARTS: Final = 3
UP: Final = "Ray runtime started"
ENVIRONMENT: Final = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "false",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
RAY: Final = (sys.executable, "-m", "ray.scripts.scripts")


class Cluster:
    """A head without CPUs for workers, and nodes.

    Args:
        folder: Of disks and logs.
        token: What Ray asks for; nodes are given it in `~/.ray/auth_token`.

    Attributes:
        environment: In which nodes start Ray; drivers and commands have the usual one.
        head_options: Of the head's `ray start`, instead of those that leave out what campaigns do without.
    """

    def __init__(self, folder: Path, token: str | None = None) -> None:
        self.folder = folder
        self.environment = dict(ENVIRONMENT)
        self.head_options = ["--include-dashboard=false"]
        self.token = token or secrets.token_hex(32)
        self.logs = folder / "logs"
        self.logs.mkdir()
        self._network = Network(folder)
        self._nodes: dict[str, Node] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    @property
    def head(self) -> Node:
        """The node of the GCS."""
        return self._nodes["head"]

    @property
    def address(self) -> str:
        """For `runtime.address`."""
        return f"{self.head.machine.ip}:{PORT}"

    def stranger(self) -> Machine:
        """A machine of the same network that is no part of the cluster and knows no token."""
        return self._network.machine("stranger")

    @property
    def shared(self) -> Path:
        """The folder that is `/shared` on every node."""
        return self.folder / "shared"

    def start(self, *names: str, **settings: Any) -> None:
        """Starts nodes at the same time, and the head before them; returns once all are up.

        Args:
            names: Of nodes.
            settings: Of each, as of `node`.
        """
        if "head" not in self._nodes:
            self.node("head", cpus=0).is_up(UP_S)
        nodes = [self.node(name, **settings) for name in names]
        for node in nodes:
            node.is_up(UP_S)

    def node(
        self,
        name: str,
        *,
        cpus: float = 1,
        gpus: float = 0,
        memory: int | None = None,
        resources: Mapping[str, float] | None = None,
        has_alsys: bool = True,
        keeps_disk: bool = False,
    ) -> Node:
        """Starts a node and returns at once; the first one must be `head`.

        Args:
            name: Of a new node, or of one that was killed, whose address and name it takes.
            cpus: Told to Ray, likewise `gpus`, and custom `resources`.
            memory: Told to Ray, bytes; default is what Ray finds, which is this machine's.
            has_alsys: Whether alsys can be imported there.
            keeps_disk: Of the node that was killed; else it has an empty one.
        """
        if not keeps_disk and (self.folder / name).exists():
            shutil.rmtree(self.folder / name)
        machine = self._network.machine(name, hidden=() if has_alsys else [REPOSITORY / "alsys"])
        token = machine.home / ".ray" / "auth_token"
        token.parent.mkdir(mode=0o700, exist_ok=True)
        token.write_text(self.token)
        token.chmod(0o600)
        amounts = ["--num-cpus", f"{cpus:g}", "--num-gpus", f"{gpus:g}", "--resources", json.dumps(resources or {})]
        amounts += ["--object-store-memory", str(OBJECT_STORE_BYTES), "--include-log-monitor=false"]
        if memory is not None:
            amounts += ["--memory", str(memory)]
        where = ["--head", "--port", str(PORT), *self.head_options] if name == "head" else []
        where = where or ["--address", self.address]
        command = [*RAY, "start", *where, "--node-ip-address", machine.ip, *amounts, "--block"]
        self._nodes[name] = Node(self, machine, command)
        return self._nodes[name]

    def names(self, title: str) -> list[str]:
        """Nodes on which such an actor runs, as of `Node.actors`."""
        return [name for name, node in self._nodes.items() if node.actors(title)]

    def close(self) -> None:
        """Ends everything."""
        self._network.close()


class Node:
    """A machine on which Ray runs."""

    def __init__(self, cluster: Cluster, machine: Machine, command: Sequence[str]) -> None:
        self.machine = machine
        self._cluster = cluster
        self._command = command
        self._n_commands = 0
        self._ray = self._started()

    def _started(self) -> Process:
        n = 1 + len(list(self._cluster.logs.glob(f"{self.machine.name}-ray-*.txt")))
        output = self._cluster.logs / f"{self.machine.name}-ray-{n}.txt"
        return self.machine.popen(self._command, output, self._cluster.environment)

    def is_up(self, timeout_s: float) -> None:
        """Waits until Ray is up here. On a busy machine Ray may miss its own deadlines: then it is started again."""
        n_starts, deadline = 1, time.monotonic() + timeout_s
        while UP not in self._ray.text():
            assert time.monotonic() < deadline, self._ray.text()[-3000:]
            if self._ray.poll() is not None:
                assert n_starts < MAX_STARTS, self._ray.text()[-3000:]
                self._ray = self._started()
                n_starts += 1
            time.sleep(0.1)

    def run(
        self, config: str, *settings: str, directory: str = f"{HOME}/campaign", words: Sequence[str] = ()
    ) -> Driver:
        """Starts `alsys run` here.

        Args:
            config: Name of a file in `configs`, or a path as the node sees it.
            settings: For `--set`.
            directory: Of the campaign, as the node sees it; `/shared/...` is seen by all.
            words: More for the command line.
        """
        path = config if config.startswith("/") else f"{REPOSITORY}/configs/{config}"
        acks = f"{directory}.acks.txt"
        command = ["run", path, "--quiet", "--ack-log", acks, *words]
        for setting in (f"directory={directory}", f"runtime.address={self._cluster.address}", *settings):
            command += ["--set", setting]
        command += ["--set", "tracking.enabled=false"]
        process = self.alsys(*command)
        return Driver(process, self.machine.seen(directory), self.machine.seen(acks))

    def alsys(self, *words: str) -> Process:
        """Starts a command of alsys here."""
        return self._popen(sys.executable, "-m", "alsys.cli", *words)

    def ray(self, *words: str) -> Process:
        """Starts a command of Ray here."""
        return self._popen(*RAY, *words)

    def python(self, script: str) -> Process:
        """Starts a script here."""
        return self._popen(sys.executable, "-c", script)

    def _popen(self, *command: str) -> Process:
        self._n_commands += 1
        output = self._cluster.logs / f"{self.machine.name}-{self._n_commands}.txt"
        return self.machine.popen(command, output, ENVIRONMENT)

    @property
    def node_id(self) -> str:
        """Ray's."""
        for process in self.machine.processes("raylet/raylet"):
            for word in process.cmdline():
                if word.startswith("--node_id="):
                    return word.partition("=")[2]
        raise AssertionError(f"no raylet on {self.machine.name}")

    def actors(self, title: str = "Actor") -> list[psutil.Process]:
        """Workers of campaigns here: `LabelerActor`, `ExplorerActor`, `TrainerActor`, or all."""
        return [process for process in self.machine.processes("ray::") if title in " ".join(process.cmdline())]

    def kill(self) -> None:
        """SIGKILL of all that runs here, at the same time. Connections end, as they do when a machine is reset."""
        self.machine.kill()

    def terminate(self, grace_s: float = 30.0) -> None:
        """SIGTERM for `ray start`, as Kubernetes sends it; the rest is killed when that has ended, or after a while."""
        self._ray.send(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self._ray.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        self.kill()

    def drain(self, deadline_s: float, reason: str = "DRAIN_NODE_REASON_PREEMPTION") -> str:
        """Tells Ray that this node goes away; what Ray says. It goes on until it is killed."""
        command = ["drain-node", "--address", self._cluster.address, "--node-id", self.node_id, "--reason", reason]
        command += ["--reason-message", "of a test", "--deadline-remaining-seconds", str(int(deadline_s))]
        asked = self._cluster.head.ray(*command)
        assert asked.ends(60.0) == 0, asked.text()
        return asked.text()


class Driver:
    """`alsys run` on a node, and the folder that it writes."""

    def __init__(self, process: Process, campaign: Path, acks: Path) -> None:
        self.process = process
        self.campaign = campaign
        self.acks = acks

    def text(self) -> str:
        """What it has said."""
        return self.process.text()

    def n_labels(self) -> int:
        """How many labels have been acknowledged."""
        return len(self.acks.read_text().split()) if self.acks.exists() else 0

    def has_labels(self, n: int, timeout_s: float = 240.0) -> None:
        """Waits for so many acknowledged labels."""
        self.process.until(lambda: self.n_labels() >= n, timeout_s)

    def kill(self) -> None:
        """SIGKILL, of the driver only."""
        self.process.kill()

    def finishes(self, timeout_s: float) -> None:
        """Waits for its end, which must be a good one."""
        assert self.process.ends(timeout_s) == 0, self.text()[-3000:]

    def events(self) -> Iterable[Event]:
        """The campaign's log."""
        return open_reader(CampaignFolder(self.campaign).store).events()

    def quarantined(self) -> list[FrameQuarantined]:
        """Frames that were taken for bad ones."""
        return [event for event in self.events() if isinstance(event, FrameQuarantined)]

    def check(self, n_labels: int) -> None:
        """The promises: verified, nothing acknowledged lost, nothing doubled, all that was asked for."""
        command = [sys.executable, "-m", "alsys.cli", "data", "verify", str(self.campaign), "--json"]
        verified = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        assert verified["ok"], verified
        assert verified["duplicate_labels"] == 0
        stored = {event.label_id for event in self.events() if isinstance(event, LabelAccepted)}
        acknowledged = self.acks.read_text().split()
        assert len(acknowledged) == len(set(acknowledged)), "a label was acknowledged twice"
        assert set(acknowledged) <= stored, "an acknowledged label is lost"
        reader = open_reader(CampaignFolder(self.campaign).store)
        snapshot = reader.snapshot(reader.levels()[0].level_id)
        assert int((snapshot.arm != 0).sum()) >= n_labels
