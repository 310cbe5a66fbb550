"""Tasks for SkyPilot, before its own parser and optimiser, with a catalog of three machines; no cloud is asked."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from alsys.launch.folder import write_folder
from alsys.launch.request import LaunchRequest
from alsys.launch.skypilot import ENGINE, TASK
from deploy.conftest import ROOT

ETHANOL = ROOT / "configs" / "ethanol.yaml"
READER = Path(__file__).with_name("skypilot_reads.py")
MIRROR = "mirror=gs://bucket/ethanol"
CATALOG = """\
InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,GpuInfo,Region,AvailabilityZone,Price,SpotPrice
n2-standard-8,8.0,32.0,,,,us-central1,us-central1-a,0.5,0.1
n2-standard-16,16.0,64.0,,,,us-central1,us-central1-a,1.0,0.2
n2-standard-32,32.0,128.0,,,,us-central1,us-central1-a,2.0,0.4
g2-standard-16,16.0,64.0,,,,us-central1,us-central1-a,1.1,0.3
n2-standard-16,16.0,64.0,,,,us-east1,us-east1-b,1.5,0.9
,,,L4,1.0,"{'Gpus': [{'Name': 'L4'}]}",us-central1,us-central1-a,0.6,0.2
"""


@pytest.fixture
def read(tool: Callable[[str], str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Has SkyPilot read the task of a campaign."""
    python = Path(tool("sky")).with_name("python")

    def run(*overrides: str, change: Callable[[dict[str, Any]], None] | None = None) -> Any:
        request = LaunchRequest.of(ETHANOL, [MIRROR, *overrides])
        ENGINE.check(request)
        rendered = ENGINE.render(request)
        if change is not None:
            task = yaml.safe_load(rendered[TASK])
            change(task)
            rendered = {TASK: yaml.safe_dump(task)}
        write_folder(tmp_path / "files", rendered, request)
        (tmp_path / "catalog.csv").write_text(CATALOG)
        home = tmp_path / "home"
        home.mkdir()
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
        words = [python, READER, TASK, tmp_path / "catalog.csv"]
        return subprocess.run(
            words, cwd=tmp_path / "files", env=environment, capture_output=True, text=True, check=False
        )

    return run


def said(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_its_optimiser_finds_the_machines_that_were_meant(read: Callable[..., Any]) -> None:
    found = said(read("labeling.workers=40"))
    assert (found["instance_type"], found["use_spot"], found["num_nodes"]) == ("n2-standard-16", True, 5)
    assert found["an_hour"] == pytest.approx(0.2), "the price of spot"
    assert found["job_recovery"]["max_restarts_on_errors"] == 3
    assert found["secrets"] == ["RAY_AUTH_TOKEN"]


def test_gpus_images_and_places(read: Callable[..., Any]) -> None:
    found = said(
        read(
            "training.gpus=1",
            "launch.image=example.com/alsys:1",
            "launch.skypilot={accelerators: 'L4:1', infra: [gcp/us-central1, gcp/us-east1], spot: false}",
        )
    )
    assert (found["instance_type"], found["accelerators"]) == ("g2-standard-16", {"L4": 1})
    assert found["image"] == "example.com/alsys:1"
    assert not found["use_spot"]


def test_a_field_that_there_is_not_is_noticed(read: Callable[..., Any]) -> None:
    done = read(change=lambda task: task["resources"].update(use_spots=True))
    assert done.returncode != 0
    assert "use_spots" in done.stderr


def test_machines_that_there_are_not_are_noticed(read: Callable[..., Any]) -> None:
    done = read("launch.skypilot.cpus=999")
    assert done.returncode != 0
    assert "ResourcesUnavailableError" in done.stderr
