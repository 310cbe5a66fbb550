"""`cluster/slurm.sbatch` and `alsys launch --on slurm` on Debian's Slurm, whose nodes are namespaces of one machine."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.rig import Driver
from services.slurm import Slurm, why_not

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).parents[2]
SCRIPT = str(REPOSITORY / "cluster" / "slurm.sbatch")
UP_S = 240.0
TOY = ("--set", "labeling={kind: analytic, workers: 2, delay_s: 0.5}", "--set", "tracking.enabled=false")
ENVIRONMENT = {
    "ALSYS_VENV": sys.prefix,
    "ALSYS_RAY_OPTIONS": "--object-store-memory=80000000",
    "PYTHONDONTWRITEBYTECODE": "1",
    "RAY_enable_metrics_collection": "false",
}
LAUNCH = """
launch:
  slurm:
    hours: 0.5
    drain_s: 30
    nodes:
      cpu: {cpus: 3}
      gpu: {cpus: 2, gpus: 1}
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    """A Slurm that has not been started."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with Slurm(tmp_path) as made:
        yield made


class Campaign:
    """The toy campaign as jobs over two nodes, in `/shared/campaign`."""

    def __init__(self, slurm: Slurm, n_labels: int) -> None:
        self.n_labels = n_labels
        self._slurm = slurm
        shutil.copy(REPOSITORY / "configs" / "toy.yaml", slurm.shared)
        self.driver = Driver(slurm.controller, slurm.shared / "campaign", slurm.shared / "acks.txt")

    def submit(self, *options: str) -> str:
        """A job; its number."""
        words = ["--nodes=2", "--cpus-per-task=2", "--output=/shared/job.log", *options, SCRIPT, "/shared/toy.yaml"]
        words += ["/shared/campaign", *TOY, "--set", f"stop.labels={self.n_labels}", "--ack-log", "/shared/acks.txt"]
        return self._slurm.sbatch(*words, env=ENVIRONMENT)

    def log(self) -> str:
        """What all starts of jobs have said."""
        log = self._slurm.shared / "job.log"
        return log.read_text() if log.exists() else ""

    def completes(self, job: str) -> None:
        """Waits for the job's end, which must be a good one, and checks that nothing was lost."""
        self._slurm.ends(job, "COMPLETED", UP_S + self.n_labels)
        self.driver.check(self.n_labels)
        assert not list(self.driver.campaign.glob(".ray-token*")), "the token goes with the job"


def test_a_campaign_over_two_nodes_finishes(slurm: Slurm) -> None:
    slurm.start("n1", "n2")
    campaign = Campaign(slurm, 60)
    job = campaign.submit()
    slurm.until(lambda: campaign.driver.n_labels() >= 5, UP_S)
    assert all(slurm.titles(name, "Actor") for name in ("n1", "n2")), "workers on both nodes"
    campaign.completes(job)
    slurm.until(lambda: not any(machine.processes("ray") for machine in slurm.nodes.values()), 30.0)


def test_it_drains_before_the_walltime_and_the_requeued_job_resumes(slurm: Slurm) -> None:
    slurm.start("n1", "n2")
    campaign = Campaign(slurm, 400)
    job = campaign.submit("--time=2", "--signal=B:USR1@60")
    slurm.is_put_back(job, UP_S)
    first = campaign.driver.n_labels()
    assert 0 < first < 400, campaign.log()
    assert "walltime is near" in campaign.log()
    assert "not drained in time" not in campaign.log()
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now", "TimeLimit=30")  # Slurm waits two minutes
    campaign.completes(job)


def test_a_second_job_waits_for_the_first_and_resumes_after_scancel(slurm: Slurm) -> None:
    slurm.start("n1", "n2", "n3", "n4")
    campaign = Campaign(slurm, 80)
    job = campaign.submit("--dependency=singleton")
    slurm.until(lambda: campaign.driver.n_labels() >= 10, UP_S)
    second = campaign.submit("--dependency=singleton")
    slurm.until(lambda: slurm.job(second)["Reason"] == "Dependency", 30.0)
    slurm.run("scancel", job)
    slurm.ends(job, "CANCELLED", 60.0)
    campaign.completes(second)


@pytest.mark.parametrize("lost", ["n1", "n2"])
def test_a_node_that_fails_puts_the_job_back(slurm: Slurm, lost: str) -> None:
    """The driver is on n1."""
    slurm.start("n1", "n2", "n3")
    campaign = Campaign(slurm, 80)
    job = campaign.submit("--exclude=n3")
    slurm.until(lambda: campaign.driver.n_labels() >= 10, UP_S)
    slurm.nodes[lost].kill()
    slurm.until(lambda: slurm.node_state(lost).startswith("DOWN"), 120.0)
    slurm.is_put_back(job, 60.0)
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now", "ExcNodeList=")
    campaign.completes(job)
    assert slurm.job(job)["NodeList"] in ("n[1,3]", "n[2-3]")


def test_a_launched_campaign_trains_on_the_node_with_a_gpu_and_registers_its_model(slurm: Slurm) -> None:
    """Two kinds of nodes as one job, submitted on the login node; Slurm's GPU is `/dev/zero` here."""
    slurm.start("n1", "n2", "n3", gpus={"n3": 1})
    toy = (REPOSITORY / "configs" / "toy.yaml").read_text()
    toy = toy.replace("workers: 2 ", "workers: 4 ").replace("training: ", "training:\n  gpus: 1\n#")
    (slurm.shared / "toy.yaml").write_text(toy + LAUNCH)
    environment = {**ENVIRONMENT, "PATH": f"{sys.prefix}/bin:/usr/bin:/bin"}
    said = slurm.run("sh", "-c", "cd /shared && alsys launch toy.yaml --on slurm", env=environment)
    job = said.partition("Submitted batch job ")[2].split()[0]
    assert "48 node-hours a day: 2 " in said, "two nodes for four labelers and an explorer"
    slurm.until(lambda: all(slurm.titles(name, "Actor") for name in ("n1", "n2", "n3")), UP_S)
    slurm.until(lambda: slurm.titles("n3", "TrainerActor"), UP_S)
    assert [name for name in slurm.nodes if slurm.titles(name, "TrainerActor")] == ["n3"]
    slurm.ends(job, "COMPLETED", UP_S + 120)
    verified = json.loads(slurm.run("alsys", "data", "verify", "/shared/campaigns/toy", "--json", env=environment))
    assert verified["ok"], verified
    assert verified["labels"] >= 100
    shown = slurm.run("alsys", "models", "show", "/shared/campaigns/toy", env=environment)
    assert "champion" in shown
    assert (slurm.shared / "launch" / "toy-slurm" / "mlflow.db").exists()
