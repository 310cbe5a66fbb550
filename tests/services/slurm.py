"""A Slurm of several machines: Debian's munged, slurmctld and slurmd as processes of the test.

    with Slurm(tmp_path) as slurm:
        slurm.start("n1", "n2", cpus=4)
        job = slurm.sbatch("--nodes=2", "/shared/job.sbatch")
        slurm.until(lambda: slurm.state(job) == "COMPLETED", 60.0)

Each machine is a set of Linux namespaces with an address and a disk of its own (`cluster.machines`): `/etc/slurm`,
`/run/munge` and `/var/spool` of this machine are neither read nor written, and nothing is left when the test's process
ends, however it ends. The controller runs on the machine `login`, from which jobs are submitted. Root only, for the
namespaces.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cluster.machines import Machine, Network, Process
from cluster.machines import why_not as why_no_machines

PROGRAMS: Final = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
PACKAGES: Final = ("munge", "slurm-wlm")
"""Debian's, which have them."""
UP_S: Final = 60.0
ENDED: Final = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL")
SETTINGS: Final = """\
ClusterName=test
SlurmctldHost=login({login})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=/var/lib/slurm
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1
GresTypes=gpu
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=5
MinJobAge=3600
ReturnToService=2
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no Slurm can be started here; None where one can."""
    missing = [program for program in PROGRAMS if shutil.which(program, path="/usr/bin:/usr/sbin:/bin:/sbin") is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install {' '.join(PACKAGES)}"
    return why_no_machines()


class Slurm:
    """A controller, from whose machine jobs are submitted, and nodes.

    Args:
        folder: Of disks and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.nodes: dict[str, Machine] = {}
        self._network = Network(folder)
        self._key = secrets.token_bytes(64)
        self._n_commands = 0
        self.login: Machine
        self.controller: Process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._network.close()

    @property
    def shared(self) -> Path:
        """The folder that is `/shared` on every machine."""
        return self.folder / "shared"

    def start(self, *names: str, cpus: int = 4, gpus: Mapping[str, int] | None = None) -> None:
        """Starts the controller and nodes; returns once all nodes are idle.

        Args:
            names: Of nodes.
            cpus: That each says it has.
            gpus: That nodes of these names say they have.
        """
        self.login = self._network.machine("login")
        self.nodes = {name: self._network.machine(name) for name in names}
        lines = [
            f"NodeName={name} NodeAddr={machine.ip} CPUs={cpus} Gres=gpu:{n} Weight={1 + n} State=UNKNOWN"
            for name, machine in self.nodes.items()
            for n in [(gpus or {}).get(name, 0)]
        ]
        self._settings = SETTINGS.format(login=self.login.ip, nodes="\n".join(lines))
        self._gres = "".join(
            f"NodeName={name} Name=gpu File={device}\n"
            for name, n in (gpus or {}).items()
            for device in ("/dev/zero", "/dev/full")[:n]
        )
        self.controller = self._daemons(self.login, "slurmctld", "-D")
        for name, machine in self.nodes.items():
            self._daemons(machine, "slurmd", "-D", "-N", name)
        self.until(lambda: all(self.node_state(name) == "IDLE" for name in names), UP_S)

    def restart(self, name: str) -> None:
        """A node that was killed comes back, with its disk."""
        self.nodes[name] = self._network.machine(name)
        self._daemons(self.nodes[name], "slurmd", "-D", "-N", name)

    def _daemons(self, machine: Machine, *command: str) -> Process:
        """munged, and Slurm's own, once munged answers."""
        self._furnish(machine)
        self._popen(machine, "munged", "--foreground", "--force", "--num-threads=2")
        socket = machine.disk / "run/munge/munge.socket.2"
        deadline = time.monotonic() + UP_S
        while not socket.exists():
            assert time.monotonic() < deadline, "munged did not start"
            time.sleep(0.05)
        return self._popen(machine, *command)

    def _furnish(self, machine: Machine) -> None:
        """What the daemons read, and where they write."""
        folders = ("etc/slurm", "etc/munge", "run/munge", "var/lib/munge", "var/log/munge", "var/lib/slurm")
        for folder in (*folders, "var/spool/slurmd", "root"):
            (machine.disk / folder).mkdir(parents=True, exist_ok=True)
        key = machine.disk / "etc/munge/munge.key"
        key.unlink(missing_ok=True)
        key.touch(0o400)
        key.write_bytes(self._key)
        (machine.disk / "etc/slurm/slurm.conf").write_text(self._settings)
        (machine.disk / "etc/slurm/gres.conf").write_text(self._gres)
        (machine.disk / "etc/slurm/cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # none is used
        hosts = [f"{known.ip} {name}" for name, known in {"login": self.login, **self.nodes}.items()]
        (machine.disk / "etc/hosts").write_text("\n".join(["127.0.0.1 localhost", *hosts, ""]))

    def _popen(self, machine: Machine, *command: str, env: Mapping[str, str] | None = None) -> Process:
        self._n_commands += 1
        output = self.logs / f"{machine.name}-{command[0]}-{self._n_commands}.txt"
        return machine.popen(command, output, env)

    def run(self, *command: str, env: Mapping[str, str] | None = None) -> str:
        """Runs a command on `login`, in its home folder; what it said."""
        process = self._popen(self.login, *command, env=env)
        assert process.ends(UP_S) == 0, process.text()
        said = process.text()
        process.output.unlink()
        return said

    def sbatch(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        """Submits a job from `login`; its number."""
        return self.run("sbatch", "--parsable", *words, env=env).strip()

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol show job` says of a job."""
        return _fields(self.run("scontrol", "--oneliner", "show", "job", number).splitlines()[0])

    def state(self, number: str) -> str:
        """Of a job, such as RUNNING."""
        return self.job(number)["JobState"]

    def node_state(self, name: str) -> str:
        """Of a node, such as IDLE or DOWN+NOT_RESPONDING."""
        return _fields(self.run("scontrol", "--oneliner", "show", "node", name)).get("State", "")

    def until(self, is_so: Callable[[], object], timeout_s: float) -> None:
        """Waits until something is so."""
        deadline = time.monotonic() + timeout_s
        while not is_so():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.5)

    def ends(self, number: str, state: str, timeout_s: float) -> None:
        """Waits until a job has ended, in this state."""
        self.until(lambda: self.state(number) in ENDED, timeout_s)
        assert self.state(number) == state, self.said()

    def is_put_back(self, number: str, timeout_s: float) -> None:
        """Waits until a job is in the queue again, where Slurm lets it wait for two minutes."""
        self.until(lambda: (self.job(number)["Restarts"], self.job(number)["Reason"]) == ("1", "BeginTime"), timeout_s)

    def titles(self, name: str, text: str) -> list[str]:
        """Titles of Ray's processes on a node, those with a text in them."""
        titles = [" ".join(process.cmdline()) for process in self.nodes[name].processes("ray::")]
        return [title for title in titles if text in title]

    def said(self) -> str:
        """The ends of what daemons and commands said."""
        return "\n".join(
            f"{path.name}: {path.read_text(errors='replace')[-1500:]}" for path in sorted(self.logs.iterdir())
        )


def _fields(line: str) -> dict[str, str]:
    return dict(re.findall(r"(\S+?)=(\S*)", line))
