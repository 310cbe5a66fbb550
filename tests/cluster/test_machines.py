"""What a machine of the rig sees: its own address, disk, processes; of this machine's only what it needs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

from cluster.machines import REPOSITORY, Machine, Network


def said(machine: Machine, folder: Path, *command: str) -> str:
    process = machine.popen(command, folder / f"said-{time.monotonic_ns()}.txt")
    assert process.ends(60.0) == 0, process.text()
    return process.text()


def test_each_machine_has_its_own_address_and_they_hear_each_other(network: Network, tmp_path: Path) -> None:
    one, two = network.machine("one"), network.machine("two")
    assert one.ip != two.ip
    script = "import socket; s = socket.create_server(('0.0.0.0', 7000)); s.accept()[0].sendall(b'hello')"
    server = two.popen([sys.executable, "-c", script], tmp_path / "server.txt")
    script = f"import socket; print(socket.create_connection(({two.ip!r}, 7000), 5).recv(9))"
    deadline = time.monotonic() + 20.0
    while True:
        client = one.popen([sys.executable, "-c", script], tmp_path / "client.txt")
        if client.ends(20.0) == 0:
            break
        assert time.monotonic() < deadline, client.text()
    assert "hello" in client.text()
    assert server.ends(20.0) == 0
    assert said(one, tmp_path, "hostname") == "one\n"


def test_a_machine_sees_its_own_disk_and_no_other(network: Network, tmp_path: Path) -> None:
    one, two = network.machine("one"), network.machine("two")
    secret = tmp_path / "driver.txt"
    secret.write_text("of this machine")
    said(one, tmp_path, "sh", "-c", "echo 1 > /tmp/here; echo 2 > ~/there; echo 3 > /shared/all")
    assert (one.seen("/tmp/here").read_text(), one.seen("/home/alsys/there").read_text()) == ("1\n", "2\n")
    assert said(two, tmp_path, "sh", "-c", "ls /tmp; ls ~; cat /shared/all") == "3\n"
    assert two.seen("/shared/all") == one.seen("/shared/all")
    assert said(one, tmp_path, "sh", "-c", f"ls {secret} 2>&1 || true").endswith("No such file or directory\n")
    assert said(one, tmp_path, "sh", "-c", f"touch {REPOSITORY}/x 2>&1 || true").endswith("Read-only file system\n")


def test_alsys_can_be_imported_except_where_it_is_hidden(network: Network, tmp_path: Path) -> None:
    script = "import numpy, alsys.frames"
    said(network.machine("one"), tmp_path, sys.executable, "-c", script)
    hidden = network.machine("two", hidden=[REPOSITORY / "alsys"])
    process = hidden.popen([sys.executable, "-c", script], tmp_path / "hidden.txt")
    assert process.ends(60.0) == 1
    assert "No module named 'alsys" in process.text()


def test_a_killed_machine_leaves_its_disk_and_address_to_the_next(network: Network, tmp_path: Path) -> None:
    one = network.machine("one")
    said(one, tmp_path, "sh", "-c", "echo 1 > /tmp/here")
    sleeper = one.popen(["sleep", "1000"], tmp_path / "sleeper.txt")
    pid = sleeper.pid  # once it has begun
    assert [process.pid for process in one.processes("sleep 1000")] == [pid]
    one.kill()
    assert sleeper.ends(10.0) != 0
    assert not one.processes()
    again = network.machine("one")
    assert again.ip == one.ip
    assert said(again, tmp_path, "cat", "/tmp/here") == "1\n"


def test_nothing_outlives_a_killed_test(network: Network, tmp_path: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
sys.path[:0] = [{str(REPOSITORY)!r}, {str(REPOSITORY / "tests")!r}]
from cluster.machines import Network
network = Network(Path({str(tmp_path)!r}))
network.machine("three")
print("made", flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "made\n"
        children = psutil.Process(maker.pid).children(recursive=True)
        assert len(children) >= 4
        maker.kill()
    _, alive = psutil.wait_procs(children, timeout=20.0)
    assert not alive


def test_a_machine_without_its_cable_hears_nothing(network: Network, tmp_path: Path) -> None:
    one, two = network.machine("one"), network.machine("two")
    script = f"import socket; socket.create_connection(({two.ip!r}, 7000), 2)"

    def fails_with() -> str:
        process = one.popen([sys.executable, "-c", script], tmp_path / f"client-{time.monotonic_ns()}.txt")
        process.ends(30.0)
        return process.text()

    assert "ConnectionRefusedError" in fails_with()
    two.unplug()
    assert "TimeoutError" in fails_with()
    two.plug()
    assert "ConnectionRefusedError" in fails_with()
