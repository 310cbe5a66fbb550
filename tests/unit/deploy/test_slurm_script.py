"""`cluster/slurm.sbatch`: directives, the command it runs, the drain before the walltime, requeue and resume.

`srun`, `ray`, `scontrol` and `alsys` are stand-ins on PATH that write down how they were called; what reaches
`ray symmetric-run` is then parsed by Ray's own command line.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.thorough

SCRIPT = Path(__file__).parents[3] / "cluster" / "slurm.sbatch"

FAKES = {
    "srun": 'while [ "$1" != ray ]; do shift; done; "$@"',
    "ray": 'cp "$RAY_AUTH_TOKEN_PATH" "$LOG.token"; stat -c %a "$RAY_AUTH_TOKEN_PATH" > "$LOG.mode";'
    ' env > "$LOG.env"; while [ "$1" != -- ]; do shift; done; shift; "$@"',
    "scontrol": 'if [ "$1" = show ]; then printf "node1\\nnode2\\n"; fi',
    "alsys": """
case $1 in
    run) echo started > "$LOG.running"
         for _ in $(seq 300); do [ ! -e "$LOG.finish" ] || exit "$(cat "$LOG.finish")"; sleep 0.05; done; exit 99 ;;
    stop) echo 0 > "$LOG.finish" ;;
    status) cat "$LOG.state" ;;
esac""",
}


class Job:
    """One start of the batch script, as Slurm does it."""

    def __init__(self, folder: Path) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        self.folder = folder
        self.log = folder / "calls"
        self.directory = folder / "campaign dir"
        bin_folder = folder / "bin"
        bin_folder.mkdir(exist_ok=True)
        for name, body in FAKES.items():
            record = "{ printf '%s\\037' " + name + ' "$@"; echo; } >> "$LOG"'
            program = bin_folder / name
            program.write_text(f"#!/bin/bash\n{record}\n{body}\n")
            program.chmod(0o755)
        Path(f"{self.log}.state").write_text(json.dumps({"name": "x", "state": "stopped"}) + "\n")
        self.environment = {
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LOG": str(self.log),
            "SLURM_JOB_ID": "123456",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "32",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["bash", str(SCRIPT), "config.yaml", str(self.directory), *arguments],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._processes.append(process)
        return process

    def close(self) -> None:
        """Ends what a failed test has left running."""
        self.finish(1)
        for process in self._processes:
            process.communicate(timeout=30)

    def wait_until_running(self) -> None:
        deadline = time.monotonic() + 20
        while not Path(f"{self.log}.running").exists():
            assert time.monotonic() < deadline, "the campaign never started"
            time.sleep(0.02)

    def finish(self, code: int) -> None:
        Path(f"{self.log}.finish").write_text(str(code))

    def calls(self, name: str) -> list[list[str]]:
        lines = [line.split("\037")[:-1] for line in self.log.read_text().splitlines()]
        return [words[1:] for words in lines if words[0] == name]


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=30)
    return process.returncode, output


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path)
    yield job
    job.close()


def directives() -> dict[str, str]:
    lines = SCRIPT.read_text().splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    found: dict[str, str] = {}
    for i, line in enumerate(lines):
        if line.startswith("#SBATCH"):
            assert i < first_command, "Slurm reads no directive after the first command"
            match = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line)
            assert match, line
            found[match[1]] = match[2] or ""
    return found


def seconds(walltime: str) -> int:
    hours, minutes, rest = walltime.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(rest)


def test_the_script_is_bash() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say() -> None:
    subprocess.run(["shellcheck", "--shell=bash", str(SCRIPT)], check=True)


def test_directives_give_whole_nodes_a_warning_and_a_requeue() -> None:
    options = directives()
    assert {"exclusive", "requeue"} <= options.keys()
    assert options["ntasks-per-node"] == "1", "one Ray per node"
    assert options["open-mode"] == "append", "the log of an earlier start stays"
    receiver, number, before = re.fullmatch(r"(\w):(\w+)@(\d+)", options["signal"]).groups()  # type: ignore[union-attr]
    assert (receiver, number) == ("B", "USR1"), "the batch shell handles it"
    (drain_s,) = map(int, re.findall(r"--drain --timeout \"\$\{ALSYS_DRAIN_S:-(\d+)", SCRIPT.read_text()))
    assert drain_s + 60 < int(before) < seconds(options["time"])


def test_it_runs_the_campaign_on_ray_over_all_nodes(job: Job) -> None:
    job.finish(0)
    code, output = ended(job.start("--set", "labeling.workers=60"))
    assert code == 0, output
    (srun,) = job.calls("srun")
    assert "--ntasks=2" in srun
    assert "--nodes=2" in srun
    (run,) = job.calls("alsys")
    assert run == [
        "run", "config.yaml", "--set", "runtime.address=auto", "--set", f"directory={job.directory}", "--quiet",
        "--set", "labeling.workers=60",
    ]  # fmt: skip
    assert job.calls("scontrol") == [["show", "hostnames", "node[1-2]"]], "a campaign that ends is not requeued"


def test_ray_takes_the_arguments(job: Job) -> None:
    from ray.scripts.scripts import cli
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    job.finish(0)
    ended(job.start())
    ((subcommand, *arguments),) = job.calls("ray")
    assert subcommand == "symmetric-run"
    own = arguments[: arguments.index("--")]
    context = cli.commands["symmetric-run"].make_context("symmetric-run", [*own])
    assert context.params["address"] == "node1:23456"
    assert context.params["min_nodes"] == 2
    start = curate_and_validate_ray_start_args(own)
    assert cli.commands["start"].make_context("start", [*start]).params["num_cpus"] == 32


def test_another_interface_of_the_first_node_can_be_named(job: Job) -> None:
    job.finish(0)
    job.environment["HEAD_HOST"] = "10.1.2.3"
    assert ended(job.start())[0] == 0
    (symmetric_run,) = job.calls("ray")
    assert symmetric_run[symmetric_run.index("--address") + 1] == "10.1.2.3:23456"


def test_nodes_of_two_kinds_are_one_ray(job: Job) -> None:
    job.finish(0)
    del job.environment["SLURM_CPUS_PER_TASK"]  # as in a heterogeneous job
    for i, (nodes, cpus, hosts) in enumerate([("2", "32", "node[1-2]"), ("1", "16", "gpu7")]):
        job.environment[f"SLURM_JOB_NUM_NODES_HET_GROUP_{i}"] = nodes
        job.environment[f"SLURM_CPUS_PER_TASK_HET_GROUP_{i}"] = cpus
        job.environment[f"SLURM_JOB_NODELIST_HET_GROUP_{i}"] = hosts
    job.environment["SLURM_HET_SIZE"] = "2"
    job.environment["ALSYS_RAY_OPTIONS_1"] = '--num-gpus=4 --resources={"big":1}'
    assert ended(job.start())[0] == 0
    (words,) = job.calls("srun")
    split = words.index(":")
    first, second = words[:split], words[split + 1 :]
    assert {"--het-group=0", "--nodes=2", "--ntasks=2", "--cpus-per-task=32", "--num-cpus=32"} <= {*first}
    assert {"--het-group=1", "--nodes=1", "--ntasks=1", "--cpus-per-task=16", "--num-cpus=16"} <= {*second}
    assert {"--num-gpus=4", '--resources={"big":1}'} <= {*second} - {*first}
    assert [part[part.index("--min-nodes") + 1] for part in (first, second)] == ["3", "3"]


def test_the_token_is_new_private_and_gone_afterwards(job: Job) -> None:
    job.finish(0)
    tokens = []
    for _ in range(2):
        ended(job.start())
        tokens.append(Path(f"{job.log}.token").read_text())
        assert Path(f"{job.log}.mode").read_text().strip() == "600"
    assert tokens[0] != tokens[1]
    assert all(re.fullmatch("[0-9a-f]{64}", token) for token in tokens)
    assert list(job.directory.iterdir()) == []
    assert stat.S_IMODE(job.directory.stat().st_mode) == 0o700
    environment = dict(line.split("=", 1) for line in Path(f"{job.log}.env").read_text().splitlines() if "=" in line)
    assert environment["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in environment
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "1"


def test_before_the_walltime_it_drains_and_requeues(job: Job) -> None:
    process = job.start()
    job.wait_until_running()
    process.send_signal(signal.SIGUSR1)
    code, output = ended(process)
    assert code == 0, output
    assert "draining" in output
    commands = job.calls("alsys")
    assert [words[0] for words in commands] == ["run", "stop", "status"]
    assert commands[1][1:3] == [str(job.directory), "--drain"]
    assert job.calls("scontrol")[-1] == ["requeue", "123456"]


def test_a_campaign_that_ends_while_draining_is_not_requeued(job: Job) -> None:
    Path(f"{job.log}.state").write_text(json.dumps({"state": "finished"}) + "\n")
    process = job.start()
    job.wait_until_running()
    process.send_signal(signal.SIGUSR1)
    assert ended(process)[0] == 0
    assert ["requeue", "123456"] not in job.calls("scontrol")


def test_the_requeued_job_runs_the_same_command(job: Job) -> None:
    process = job.start("--set", "stop.labels=7")
    job.wait_until_running()
    process.send_signal(signal.SIGUSR1)
    ended(process)
    ended(job.start("--set", "stop.labels=7"))
    first, second = (words for words in job.calls("alsys") if words[0] == "run")
    assert first == second


@pytest.mark.parametrize("code", [2, 3, 4])
def test_a_campaign_that_fails_fails_the_job_and_is_not_requeued(job: Job, code: int) -> None:
    job.finish(code)
    assert ended(job.start())[0] == code
    assert ["requeue", "123456"] not in job.calls("scontrol")


@pytest.mark.parametrize("arguments", [[], ["config.yaml"]])
def test_missing_arguments_are_refused_before_anything_starts(job: Job, arguments: Sequence[str]) -> None:
    done = subprocess.run(
        ["bash", str(SCRIPT), *arguments], env=job.environment, cwd=job.folder, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert not job.log.exists()


def test_a_campaign_whose_state_cannot_be_read_is_requeued(job: Job) -> None:
    Path(f"{job.log}.state").unlink()
    process = job.start()
    job.wait_until_running()
    process.send_signal(signal.SIGUSR1)
    assert ended(process)[0] == 0
    assert job.calls("scontrol")[-1] == ["requeue", "123456"]
