"""What one node has compiled comes to the next one, where that can run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alsys.actors.campaign_files import MAX_PACKAGES, CampaignFiles
from alsys.actors.compiled_packages import COMPILED, CompiledPackages
from alsys.actors.placement import WorkerSpec
from alsys.actors.shells import WorkerActor
from alsys.control.ports import Role
from alsys.exploration.base import ExplorationOrder
from alsys.potentials import compile_cache
from alsys.potentials.compile_cache import cached_package, default_folder, machine_tag

pytestmark = pytest.mark.thorough

RECORD = {"constants": {"a": "b"}}


def compile_(path: Path) -> dict[str, Any]:
    path.write_bytes(b"code")
    return RECORD


class Compiling:
    """Stands for an explorer: compiles where its node's cache has nothing."""

    def __init__(self) -> None:
        self.n_compiled = 0

    def run(self, order: ExplorationOrder) -> Any:
        def compile_here(path: Path) -> dict[str, Any]:
            self.n_compiled += 1
            return compile_(path)

        cached_package(default_folder(), "0123", compile_here)


class Node:
    """A node with a cache of its own."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        self.worker = Compiling()
        self.actor = WorkerActor(lambda: self.worker, 1)

    def explores(self, files: CampaignFiles) -> int:
        """How often it had to compile."""
        self.actor.ready(*files.at_start("explorer-0", WorkerSpec(Role.EXPLORER, Compiling)))
        files.take("explorer-0", self.actor.run(ExplorationOrder(1))[3]).result()
        return self.worker.n_compiled


def test_a_later_worker_need_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = CampaignFiles(tmp_path / "driver", lambda value: value)
    assert Node(tmp_path / "one", monkeypatch).explores(files) == 1
    assert Node(tmp_path / "two", monkeypatch).explores(files) == 0
    assert (default_folder() / "0123.pt2").read_bytes() == b"code"
    assert not (tmp_path / "driver").exists(), "no code is put into the campaign's folder"
    assert files.at_start("labeler-0", WorkerSpec(Role.LABELER, Compiling)) == [None]
    monkeypatch.setattr(compile_cache.platform, "libc_ver", lambda: ("glibc", "1.0"))
    assert Node(tmp_path / "three", monkeypatch).explores(files) == 1, "it was made for another machine"


def test_what_is_there_or_incomplete_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    packages, start = CompiledPackages(), f"{COMPILED}{machine_tag()}"
    packages.add({f"{start}/a.pt2": b"code"})
    assert not default_folder().exists()
    cached_package(default_folder(), "b", compile_)
    packages.add({f"{start}/b.pt2": b"other", f"{start}/b.json": b"{}"})
    assert (default_folder() / "b.pt2").read_bytes() == b"code"
    assert packages.made() == {}
    cached_package(default_folder(), "c", compile_)
    assert sorted(packages.made()) == [f"{start}/c.json", f"{start}/c.pt2"]
    assert packages.made() == {}


def test_a_driver_keeps_a_bounded_number(tmp_path: Path) -> None:
    files = CampaignFiles(tmp_path, lambda value: value)
    for i in range(2 * MAX_PACKAGES):
        files.take("trainer-0", {f"{COMPILED}x/{i}.pt2": b"", f"{COMPILED}x/{i}.json": b""}).result()
    [_, sent] = files.at_start("trainer-0", WorkerSpec(Role.TRAINER, Compiling))
    assert len(sent) == MAX_PACKAGES
    assert f"{COMPILED}x/{2 * MAX_PACKAGES - 1}.pt2" in sent
