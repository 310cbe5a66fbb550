"""The script for Slurm. A real Slurm runs it in tests/services; stand-ins in tests/unit/deploy."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from alsys.cli import command_line
from alsys.errors import InputError
from alsys.launch.cost import cost_lines
from alsys.launch.request import LaunchRequest
from alsys.launch.slurm import ENGINE, SCRIPT, TEMPLATE, directory_of

REPOSITORY = Path(__file__).parents[3]
ETHANOL = REPOSITORY / "configs" / "ethanol.yaml"
TWO_KINDS = "launch.slurm.nodes={thin: {cpus: 32}, fat: {cpus: 16, gpus: 2, partition: gpu, resources: {big: 2}}}"


def request_of(*overrides: str) -> LaunchRequest:
    return LaunchRequest.of(ETHANOL, overrides)


def script_of(*overrides: str) -> str:
    request = request_of(*overrides)
    ENGINE.check(request)
    return ENGINE.render(request)[SCRIPT]


def options_of(script: str) -> list[dict[str, str]]:
    """Of each component of the job."""
    head = script.partition("\nset -euo")[0]
    return [dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", part, re.MULTILINE)) for part in head.split("hetjob")]


def alsys_run_of(script: str) -> list[str]:
    """Words that the script hands on to `alsys run`."""
    (line,) = [line for line in script.splitlines() if line.startswith("set -- ")]
    config, directory, *more = shlex.split(line)[2:]
    return ["run", config, "--set", f"directory={directory}", *more]


def test_there_is_one_script() -> None:
    generic = REPOSITORY / "cluster" / "slurm.sbatch"
    assert generic.resolve() == TEMPLATE.resolve()
    body = TEMPLATE.read_text().partition("# Settings:\n")[2]
    assert script_of().endswith(body)
    assert options_of(TEMPLATE.read_text())[0].keys() <= options_of(script_of())[0].keys()


def test_nodes_hold_all_workers() -> None:
    (options,) = options_of(script_of("labeling.workers=62"))
    assert (options["nodes"], options["cpus-per-task"]) == ("2", "32"), "62 labelers, an explorer and a trainer"
    (options,) = options_of(script_of("labeling.workers=63", "launch.slurm.nodes={any: {cpus: 16}}"))
    assert (options["nodes"], options["cpus-per-task"]) == ("5", "16")
    (options,) = options_of(script_of("labeling.workers=63", "launch.slurm.nodes={any: {count: 7}}"))
    assert options["nodes"] == "7"


def test_a_job_has_the_options_of_the_site() -> None:
    settings = "launch.slurm={account: chem42, qos: long, hours: 36.5, drain_s: 600, options: [--reservation=mine]}"
    (options,) = options_of(script_of(settings))
    assert options["account"] == "chem42"
    assert options["qos"] == "long"
    assert options["time"] == "36:30:00"
    assert options["signal"] == "B:USR1@720"
    assert options["reservation"] == "mine"
    assert options["dependency"] == "singleton", "a second job waits"
    assert "ALSYS_DRAIN_S=600\n" in script_of(settings)


def test_two_kinds_of_nodes_are_one_job() -> None:
    script = script_of(TWO_KINDS, "training.gpus=1", "labeling.groups={big: {workers: 3, resources: {big: 1}}}")
    thin, fat = options_of(script)
    assert (thin["nodes"], "gres" in thin) == ("1", False)
    assert (fat["nodes"], fat["gres"], fat["partition"]) == ("2", "gpu:2", "gpu"), "two of three fit on one"
    assert {"job-name", "signal", "requeue"} <= thin.keys()
    assert "dependency" not in thin, "its components would wait for each other"
    assert fat.keys().isdisjoint({"job-name", "signal", "requeue", "output"})
    assert '--num-gpus=2 --resources={"big":2.0}' in script


def test_the_campaign_runs_with_the_overrides() -> None:
    args = command_line().parse_args(alsys_run_of(script_of("name=a", "directory=/scratch/a b", "labeling.workers=4")))
    assert args.config == "campaign/campaign.yaml"
    assert args.set == ["directory=/scratch/a b", "name=a", "labeling.workers=4"]


def test_folders_are_those_of_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert directory_of(request_of()) == str(tmp_path / "campaigns" / "ethanol")
    assert directory_of(request_of("directory=mine")) == str(tmp_path / "mine")


def test_lines_of_the_site_come_first() -> None:
    script = script_of("launch.slurm={setup: [module load gcc], venv: /apps/alsys}")
    assert "# Settings:\nmodule load gcc\nALSYS_VENV=/apps/alsys\n" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_rendering_twice_gives_the_same() -> None:
    assert script_of(TWO_KINDS) == script_of(TWO_KINDS)


def test_a_day_is_told_in_node_hours() -> None:
    request = request_of("labeling.workers=62", "launch.prices={cpu: 2}")
    lines = list(cost_lines(ENGINE.machines(request), request.settings.prices))
    assert lines[0].startswith("nodes, 48 node-hours a day: 2 ")
    assert any("a day costs 96" in line for line in lines)


@pytest.mark.parametrize(
    ("override", "field", "said"),
    [
        ("labeling.cpus=64", "launch.slurm.nodes", "takes 64 cores"),
        ("exploration.gpus=1", "launch.slurm.nodes", "1 GPUs"),
        ("labeling.resources={big: 1}", "launch.slurm.nodes", "1 big"),
        ("launch.slurm.nodes={any: {cpus: 2, count: 1}}", "launch.slurm.nodes.any.count", "take 2 nodes"),
        ("launch.slurm.hours=0.1", "launch.slurm.hours", "300 s of it"),
    ],
)
def test_what_cannot_run_is_refused(override: str, field: str, said: str) -> None:
    request = request_of(override)
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        ENGINE.check(request)
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize("word", ["a b", "x;$(reboot)", "`id`", "it's"])
def test_words_of_directives_hold_no_shell(word: str) -> None:
    with pytest.raises(InputError, match="account"):
        request_of(f"launch.slurm.account={word!r}")


def test_a_home_directory_is_that_of_who_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert "ALSYS_VENV=/home/me/alsys-venv\n" in script_of("launch.slurm.venv=~/alsys-venv")
