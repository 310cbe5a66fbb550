"""Machines made of Linux namespaces: each has its own address, disk, processes and name.

All of a network hang on one bridge, which lives in a network namespace of its own: nothing of it is seen by this
machine, and networks of parallel runs may use the same addresses. A namespace lives as long as its first process, and
that one dies with the process that made it (PR_SET_PDEATHSIG): whatever happens, nothing is left.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import psutil

HOME: Final = "/home/alsys"
SHARED: Final = "/shared"
"""Storage that all machines of a network see, as a network file system would be."""
DEVICES: Final = ("null", "zero", "full", "random", "urandom")
SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/etc/alternatives", "/etc/ssl")
SETTINGS: Final = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "localtime")
"""Files that are copied of /etc."""
REPOSITORY: Final = Path(__file__).parents[2]
TOOLS: Final = ("ip", "unshare", "nsenter", "setpriv", "pivot_root", "mount", "umount")
MADE_S: Final = 20.0


@cache
def why_not() -> str | None:
    """Why no machines can be made here; None where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network and mount namespaces need Linux and root"
    missing = [tool for tool in TOOLS if _tool(tool) is None]
    if missing:
        return f"no command {', '.join(missing)}"
    try:
        network = Network(Path())
    except OSError as error:
        return f"no namespaces: {error}"
    network.close()
    return None


class Network:
    """A bridge, and the machines on it.

    Args:
        folder: Holds the machines' disks (`<folder>/<name>`), and the shared one (`<folder>/shared`).

    Raises:
        OSError: The system refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machines: dict[str, Machine] = {}
        self._hub = _held(["--net", "sh", "-c", "echo made; exec sleep infinity"], folder)
        try:
            self.link("add", "bridge", "type", "bridge")
            _ran([*_inside(self._hub.pid, "--net"), "ip", "address", "add", "10.77.0.254/24", "dev", "bridge"])
            self.link("set", "bridge", "up")
        except OSError:
            self.close()
            raise

    def machine(self, name: str, *, hidden: Sequence[Path] = ()) -> Machine:
        """A new machine.

        Args:
            name: Its host name, and that of its disk; a dead machine of this name leaves its disk to the new one.
            hidden: Folders that are empty there.
        """
        machine = Machine(self, name, len(self.machines) + 1, hidden)
        self.machines[name] = machine
        return machine

    def link(self, *words: str) -> None:
        """`ip link` where the bridge is."""
        _ran([*_inside(self._hub.pid, "--net"), "ip", "link", *words])

    def close(self) -> None:
        """Ends all machines."""
        for machine in self.machines.values():
            machine.kill()
        _end(self._hub)


class Machine:
    """A machine: what runs in it sees its own disk, the environment of Python and the repository, both read-only."""

    def __init__(self, network: Network, name: str, number: int, hidden: Sequence[Path] = ()) -> None:
        self.name = name
        self.disk = network.folder / name
        self.ip = f"10.77.0.{number}"
        self._network = network
        self._started: list[Process] = []
        self._port = f"port{number}"
        known = network.machines.get(name)
        if known is not None:
            self.ip, self._port = known.ip, known._port
        shared = network.folder / "shared"
        shared.mkdir(exist_ok=True)
        self._furnish()
        script = "\n".join(_mounts(self.disk, shared, hidden))
        script += f"\nhostname {name}; ip link set lo up; echo made; trap '' CHLD; exec sleep infinity"
        spaces = ["--mount", "--net", "--pid", "--uts", "--ipc", "--propagation", "private"]
        self._holder = _held([*spaces, "sh", "-ec", script], self.disk)
        pid = str(self._holder.pid)
        network.link("add", self._port, "type", "veth", "peer", "name", "eth0", "netns", pid)
        network.link("set", self._port, "master", "bridge", "up")
        for words in (
            f"address add {self.ip}/24 dev eth0",
            "link set eth0 up",
            "route add default via 10.77.0.254",
        ):
            _ran([*_inside(self._holder.pid, "--net"), "ip", *words.split()])

    def _furnish(self) -> None:
        """Folders to mount things on, and what programs look for in /etc."""
        for folder in ("proc", "sys", "dev", "tmp", "var/tmp", "run", "old", "etc", HOME[1:], SHARED[1:]):
            (self.disk / folder).mkdir(parents=True, exist_ok=True)
        (self.disk / "tmp").chmod(0o1777)
        for name in SETTINGS:
            if (source := Path("/etc") / name).exists():
                shutil.copyfile(source, self.disk / "etc" / name)
        (self.disk / "etc/hosts").write_text(f"127.0.0.1 localhost\n{self.ip} {self.name}\n")

    @property
    def home(self) -> Path:
        """Its home folder, as seen from here."""
        return self.disk / HOME[1:]

    def seen(self, path: str) -> Path:
        """A path of the machine, as seen from here."""
        under = path.removeprefix(f"{SHARED}/")
        return self._network.folder / "shared" / under if under != path else self.disk / path.lstrip("/")

    def popen(self, command: Sequence[str], output: Path, env: Mapping[str, str] | None = None) -> Process:
        """Starts a command in its home folder; what it says is added to a file."""
        self._started.append(Process(self._holder.pid, command, output, env or {}))
        return self._started[-1]

    def processes(self, title: str = "") -> list[psutil.Process]:
        """Those that run there and have this in their command lines."""
        own = _space(self._holder.pid)
        found = []
        for process in psutil.process_iter():
            try:
                is_ours = _space(process.pid) == own and process.pid != self._holder.pid
                if is_ours and process.status() != psutil.STATUS_ZOMBIE and title in " ".join(process.cmdline()):
                    found.append(process)
            except (OSError, psutil.Error):
                continue
        return found if own else []

    def unplug(self) -> None:
        """Takes the cable out: the others hear nothing more, not even that connections end."""
        self._network.link("set", self._port, "down")

    def plug(self) -> None:
        """Puts the cable in again."""
        self._network.link("set", self._port, "up")

    def kill(self) -> None:
        """SIGKILL of all that runs there, at the same time. Its disk stays."""
        if _end(self._holder):
            with contextlib.suppress(OSError):  # the kernel was quicker
                self._network.link("delete", self._port)
        for process in self._started:
            process.kill()


class Process:
    """A command that runs in a machine."""

    def __init__(self, holder: int, command: Sequence[str], output: Path, env: Mapping[str, str]) -> None:
        settings = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": HOME, "LANG": "C.UTF-8", **env}
        inside = _inside(holder, "--mount", "--net", "--pid", "--uts", "--ipc", "--root", f"--wdns={HOME}")
        self.output = output
        with output.open("ab") as file:
            self._entered = subprocess.Popen([*inside, *command], stdout=file, stderr=file, env=settings)

    @property
    def pid(self) -> int:
        """Of the command, as seen from here.

        Raises:
            ProcessLookupError: It has ended.
        """
        deadline = time.monotonic() + MADE_S
        while self._entered.poll() is None and time.monotonic() < deadline:
            for child in psutil.Process(self._entered.pid).children():
                if child.cmdline()[:1] != ["nsenter"]:  # it has begun
                    return child.pid
            time.sleep(0.01)
        raise ProcessLookupError(f"it has ended: {self.text()[-2000:]}")

    def text(self) -> str:
        """What it has said."""
        return self.output.read_text(errors="replace")

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._entered.poll()

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, where it still runs, and waits for its end."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.send(signal.SIGKILL)
        self._entered.wait(MADE_S)

    def ends(self, timeout_s: float) -> int:
        """Waits for its end; its exit code."""
        try:
            return self._entered.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {timeout_s:.0f} s: {self.text()[-3000:]}") from None

    def until(self, is_so: Callable[[], object], timeout_s: float) -> None:
        """Waits while it runs until something is so."""
        deadline = time.monotonic() + timeout_s
        while not is_so():
            assert self.poll() is None, self.text()[-3000:]
            assert time.monotonic() < deadline, self.text()[-3000:]
            time.sleep(0.1)


def _mounts(disk: Path, shared: Path, hidden: Sequence[Path]) -> list[str]:
    """Shell commands that make a disk the root of a mount namespace."""
    lines = [f"mount --bind {shlex.quote(str(disk))} {shlex.quote(str(disk))}", f"cd {shlex.quote(str(disk))}"]
    lines += [f"ln -sfn {shlex.quote(os.readlink(path))} .{path}" for path in SYSTEM if os.path.islink(path)]
    for path in _readable():
        quoted = shlex.quote(path)
        lines += [f"mkdir -p .{quoted}", f"mount --bind {quoted} .{quoted}", f"mount -o remount,ro,bind .{quoted}"]
    lines += [f"mount -t tmpfs -o ro hidden .{shlex.quote(str(path))}" for path in hidden]
    lines += ["mount -t tmpfs -o mode=755 dev dev", "mkdir dev/shm", "mount -t tmpfs -o size=1g shm dev/shm"]
    lines += [f"touch dev/{device}; mount --bind /dev/{device} dev/{device}" for device in DEVICES]
    lines += ["ln -s /proc/self/fd dev/fd", "mount -t proc proc proc", "mount --bind /sys sys"]
    lines += [f"mount --bind {shlex.quote(str(shared))} .{SHARED}"]
    return [*lines, "pivot_root . old", "cd /", "umount -l /old"]


def _readable() -> list[str]:
    """Folders of the system, of this Python and its packages, and of the repository; none within another."""
    links = [Path(sys.executable)]
    while links[-1].is_symlink():
        links.append(links[-1].parent / links[-1].readlink())
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    wanted = {*SYSTEM, sys.prefix, sys.base_prefix, str(REPOSITORY), *packages, *(str(link.parent) for link in links)}
    folders = sorted(
        os.path.abspath(path) for path in wanted if path and os.path.isdir(path) and not os.path.islink(path)
    )
    kept: list[str] = []
    for folder in folders:
        if not any(folder == other or folder.startswith(f"{other}/") for other in kept):
            kept.append(folder)
    return kept


def _held(arguments: Sequence[str], cwd: Path) -> psutil.Process:
    """The first process of new namespaces, once it has said that they are made.

    Raises:
        OSError: They could not be made.
    """
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--kill-child", *arguments]
    maker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert maker.stdout is not None
    with maker.stdout:
        line = maker.stdout.readline()
        if line != "made\n":
            raise OSError((line + maker.stdout.read()).strip() or f"unshare ended with {maker.wait()}")
    (first,) = psutil.Process(maker.pid).children()
    _MAKERS[first.pid] = maker
    return first


_MAKERS: dict[int, subprocess.Popen[str]] = {}
"""The `unshare` of each first process: it waits for it."""


def _end(first: psutil.Process) -> bool:
    """Whether it had not been ended before."""
    maker = _MAKERS.pop(first.pid, None)
    if maker is None:
        return False
    first.kill()
    maker.wait()
    return True


def _inside(pid: int, *spaces: str) -> list[str]:
    return ["nsenter", f"--target={pid}", *spaces]


def _space(pid: int) -> str:
    """Its namespace of processes; empty where it is gone."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _tool(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _ran(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
