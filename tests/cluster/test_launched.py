"""What `alsys launch --on skypilot` has machines run, on machines of the rig: it starts, works and ends on all."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from alsys.campaign.folder import CampaignFolder
from alsys.events import LabelAccepted
from alsys.launch.request import LaunchRequest
from alsys.launch.skypilot import ENGINE, RAY_PORT, TASK
from alsys.store.zarr import open_reader
from cluster.machines import REPOSITORY, Machine, Network, Process

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
SETTINGS = (
    "stop.labels=30", "launch.driver.cpus=1", "labeling.cpus=0.5", "exploration.cpus=0.5", "training.cpus=0.5",
    "tracking.enabled=false",
)  # fmt: skip


def task_of(*overrides: str) -> dict[str, Any]:
    task = yaml.safe_load(ENGINE.render(LaunchRequest.of(REPOSITORY / "configs" / "toy.yaml", overrides))[TASK])
    assert isinstance(task, dict)
    return task


def started(task: dict[str, Any], machines: list[Machine], folder: Path) -> list[Process]:
    """Has each machine do what SkyPilot would have it do, with SkyPilot's variables."""
    token = secrets.token_hex(32)
    processes = []
    for rank, machine in enumerate(machines):
        (machine.home / "campaign").mkdir()
        shutil.copy(REPOSITORY / "configs" / "toy.yaml", machine.home / "campaign" / "campaign.yaml")
        environment = {
            **task["envs"],
            "RAY_AUTH_TOKEN": token,
            "SKYPILOT_NODE_RANK": str(rank),
            "SKYPILOT_NODE_IPS": "\n".join(each.ip for each in machines),
            "SKYPILOT_NUM_NODES": str(len(machines)),
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        processes.append(machine.popen(["bash", "-c", task["run"]], folder / f"rank-{rank}.txt", environment))
    return processes


def test_a_campaign_runs_over_all_machines_and_all_end_with_it(network: Network, tmp_path: Path) -> None:
    machines = [network.machine("one"), network.machine("two")]
    first, second = started(task_of(*SETTINGS), machines, tmp_path)
    first.until(lambda: machines[1].processes("Actor"), 240.0)
    stranger = ["-m", "ray.scripts.scripts", "list", "nodes", "--address", f"http://{machines[0].ip}:8265"]
    assert machines[1].popen([sys.executable, *stranger], tmp_path / "stranger.txt").ends(120.0) != 0
    probe = ["-m", "ray.scripts.scripts", "status", "--address", f"{machines[0].ip}:{RAY_PORT}"]
    refused = machines[1].popen([sys.executable, *probe], tmp_path / "probe.txt", {"RAY_AUTH_MODE": "disabled"})
    assert refused.ends(120.0) != 0, refused.text()
    assert first.ends(300.0) == 0, first.text()
    assert second.ends(180.0) == 0, second.text()
    reader = open_reader(CampaignFolder(machines[0].home / "campaigns" / "toy").store)
    labels = [event for event in reader.iter_events() if isinstance(event, LabelAccepted)]
    reader.close()
    assert len(labels) >= 30
    assert not machines[0].processes("gcs_server"), "nothing of ours is left for SkyPilot to wait for"


def test_the_exit_code_is_that_of_the_campaign(network: Network, tmp_path: Path) -> None:
    machine, task = network.machine("one"), task_of(*SETTINGS)
    task["run"] = task["run"].replace("stop.labels=30", "stop.labels=none")
    (process,) = started(task, [machine], tmp_path)
    assert process.ends(240.0) == 2, process.text()
    assert "stop.labels" in process.text()
