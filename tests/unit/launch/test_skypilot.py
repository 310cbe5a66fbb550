"""The task for SkyPilot. Its own parser reads it in tests/deploy."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from alsys.cli import command_line
from alsys.errors import InputError
from alsys.launch.request import LaunchRequest
from alsys.launch.skypilot import ENGINE, TASK

ETHANOL = Path(__file__).parents[3] / "configs" / "ethanol.yaml"
MIRROR = "mirror=s3://bucket/ethanol"


def task_of(*overrides: str) -> dict[str, Any]:
    request = LaunchRequest.of(ETHANOL, [MIRROR, *overrides])
    ENGINE.check(request)
    task = yaml.safe_load(ENGINE.render(request)[TASK])
    assert isinstance(task, dict)
    return task


def driver_of(task: dict[str, Any]) -> list[str]:
    (line,) = [line for line in task["run"].splitlines() if line.startswith("alsys run")]
    return shlex.split(line.partition(" || ")[0])


def test_there_are_machines_for_all_workers_and_the_driver() -> None:
    much = "launch.skypilot.memory_gb=128"
    assert task_of("labeling.workers=10", much)["num_nodes"] == 1
    assert task_of("labeling.workers=11", much)["num_nodes"] == 2, "12 cores beside the driver's 4, two of them taken"
    assert task_of("labeling.workers=10")["num_nodes"] == 2, "memory for ten labels and the driver"
    assert task_of("labeling.workers=11", "launch.skypilot.nodes=7")["num_nodes"] == 7


def test_the_driver_runs_the_campaign_that_travels() -> None:
    task = task_of("labeling.workers=40")
    args = command_line().parse_args(driver_of(task)[1:])
    assert task["file_mounts"]["~/campaign"] == "./campaign"
    assert args.config == "campaign/campaign.yaml"
    assert {"runtime.address=$head:6479", MIRROR, "labeling.workers=40"} <= {*args.set}


def test_clouds_images_and_gpus_are_asked_for() -> None:
    task = task_of(
        "launch.skypilot={infra: [aws/us-west-2, gcp], accelerators: 'A100:2', spot: false}", "training.gpus=1"
    )
    resources = task["resources"]
    assert resources["any_of"] == [{"infra": "aws/us-west-2"}, {"infra": "gcp"}]
    assert (resources["accelerators"], resources["use_spot"]) == ("A100:2", False)
    assert "gpu]" in task["setup"]
    imaged = task_of("launch.image=example.com/alsys:1")
    assert imaged["resources"]["image_id"] == "docker:example.com/alsys:1"
    assert "setup" not in imaged


def test_ray_is_not_skypilots_and_asks_for_a_token() -> None:
    task = task_of()
    assert "--port=6380" not in task["run"]
    assert '"runtime.address=$head:6479"' in task["run"], "and not one that Ray would look for"
    assert "ray stop" not in task["run"], "it would end SkyPilot's Ray too"
    assert "nproc" not in task["run"].replace("env -u OMP_NUM_THREADS nproc", ""), "it would say one core"
    assert task["envs"]["RAY_AUTH_MODE"] == "token"
    assert task["secrets"] == {"RAY_AUTH_TOKEN": None}, "from the environment of the command, in no file"
    (command,) = ENGINE.submit(LaunchRequest.of(ETHANOL, [MIRROR]))
    assert command.secrets == ("RAY_AUTH_TOKEN",)


def test_secrets_are_named_and_not_written() -> None:
    settings = "launch.skypilot={environment: {AWS_REGION: us-west-2}, secrets: [MLFLOW_TRACKING_PASSWORD]}"
    task = task_of(settings)
    assert task["envs"]["AWS_REGION"] == "us-west-2"
    assert task["secrets"]["MLFLOW_TRACKING_PASSWORD"] is None
    (command,) = ENGINE.submit(LaunchRequest.of(ETHANOL, [MIRROR, settings]))
    assert " --secret MLFLOW_TRACKING_PASSWORD " in " ".join(command.words)
    assert command.secrets == ("RAY_AUTH_TOKEN",), "only the token may be drawn"


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("mirror=null", "mirror"),
        ("training.gpus=1", r"launch\.skypilot\.accelerators"),
        ("labeling.cpus=32", r"launch\.skypilot\.cpus"),
        ("launch.driver.cpus=32", r"launch\.driver\.cpus"),
    ],
)
def test_what_could_not_run_is_refused(override: str, field: str) -> None:
    with pytest.raises(InputError, match=rf"ethanol\.yaml: {field}: "):
        task_of(override)


def test_a_package_is_one_word_of_the_shell() -> None:
    package = "alsys @ file:///x'; touch /tmp/injected; echo '"
    (line,) = [line for line in task_of(f'launch.package="{package}"')["setup"].splitlines() if "file:///" in line]
    assert package in shlex.split(line)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("environment={RAY_AUTH_MODE: disabled}", "asks for its token"),
        ("environment={RAY_AUTH_TOKEN: mine}", "asks for its token"),
        ("secrets=[RAY_AUTH_MODE]", "asks for its token"),
        ("environment={AWS_SECRET_ACCESS_KEY: geheim}", "secret by its name"),
        ("environment={MLFLOW_TRACKING_PASSWORD: geheim}", "secret by its name"),
        ("environment={HF_TOKEN: geheim}", "secret by its name"),
    ],
)
def test_variables_that_open_ray_or_tell_secrets_are_refused(setting: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as told:
        task_of(f"launch.skypilot.{setting}")
    assert "geheim" not in str(told.value)


def test_variables_that_are_no_secrets_are_taken() -> None:
    given = "environment={AWS_REGION: x, AWS_ACCESS_KEY_ID: y, AWS_WEB_IDENTITY_TOKEN_FILE: /z}"
    task = task_of(f"launch.skypilot.{given}", "launch.skypilot.secrets=[RAY_AUTH_TOKEN, HF_TOKEN]")
    assert task["envs"]["AWS_WEB_IDENTITY_TOKEN_FILE"] == "/z"
    assert list(task["secrets"]) == ["RAY_AUTH_TOKEN", "HF_TOKEN"]
