"""SIGKILL of every process of a campaign, many times: what is lost, what is doubled, and how soon the next label comes.

A scenario is a campaign and the kind of process that is killed at random moments: the driver, an actor, the child that
computes a label, the process that delivers models to MLflow, Ray's raylet or its GCS. Whenever the driver is gone,
killed or by itself, the same command starts it again; of killed drivers every third is killed once more while it comes
up. After the last kill the campaign runs to its end by that command. Where it ends before all kills are made, another
one takes its place.

    python benchmarks/kills.py --kills 200                    # shared out over all scenarios by their weights
    python benchmarks/kills.py --scenarios ray-raylet --each 10

Prints JSON, one row a scenario:

- ``campaigns``: how many it took.
- ``kills``: processes killed; ``drivers``: times the command was run; ``exit_codes``: how drivers ended by themselves.
- ``acknowledged``, ``lost``, ``doubled``: labels in the driver's acknowledgement log, those of them that are not in the
  store, and those acknowledged or stored twice. Both must be 0.
- ``labels``: labels of the finished campaign beside ``wanted``; ``verified``: what `alsys data verify` says.
- ``first_label_s``: from a kill to the next acknowledged label: median, largest; ``after_driver_s``: where the driver
  had to be started anew.
- ``registered``: versions of the model in the registry beside ``versions`` published, for scenarios with MLflow.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from orchestration import machine

from alsys.events import LabelAccepted, ModelPublished
from alsys.store.zarr import open_reader

CONFIGS = Path(__file__).parents[1] / "configs"
DRIVER = "driver"
POLL_S = 0.1
EARLY = 1 / 3
"""Share of killed drivers that are killed again before their next label."""
SILENT_S = 240.0
"""No label for so long after a kill is written down as a hang; the driver is then killed and started again."""
MAX_CAMPAIGNS = 20
END_S = 900.0
"""Longest time to the end after the last kill."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is killed in which campaign.

    Attributes:
        config: Campaign file in `configs/`.
        victims: Parts of the command lines of those that are killed; `DRIVER` for the driver itself.
        weight: Share of all kills.
        pause_s: Shortest and longest time from one label after a kill to the next kill.
        label_s: Seconds that the labels of made-up potentials pretend to take.
        is_ray: On Ray instead of in process.
        is_tracked: With MLflow, in an SQLite database of its own.
    """

    config: str
    victims: tuple[str, ...]
    weight: int
    pause_s: tuple[float, float] = (0.0, 2.0)
    label_s: float = 0.2
    is_ray: bool = False
    is_tracked: bool = False


ACTORS = ("LabelerActor", "ExplorerActor", "TrainerActor")
SCENARIOS = {
    "in-process-driver": Scenario("toy.yaml", (DRIVER,), 50),
    "in-process-driver-xtb": Scenario("xtb.yaml", (DRIVER,), 15, pause_s=(0.0, 8.0)),
    "in-process-child-xtb": Scenario("xtb.yaml", ("alsys.worker_process",), 20),
    "in-process-delivery": Scenario("toy.yaml", ("alsys.tracking.deliver",), 30, (0.0, 0.2), is_tracked=True),
    "ray-driver": Scenario("toy.yaml", (DRIVER,), 20, is_ray=True, label_s=0.4),
    "ray-driver-xtb": Scenario("xtb.yaml", (DRIVER,), 10, is_ray=True, pause_s=(0.0, 8.0)),
    "ray-actors": Scenario("toy.yaml", ACTORS, 30, is_ray=True, label_s=0.4),
    "ray-actors-xtb": Scenario("xtb.yaml", ACTORS, 10, is_ray=True),
    "ray-raylet": Scenario("toy.yaml", ("raylet/raylet",), 8, is_ray=True, label_s=0.4),
    "ray-gcs": Scenario("toy.yaml", ("gcs/gcs_server",), 7, is_ray=True, label_s=0.4),
}


@dataclass(slots=True)
class Tries:
    """What was seen."""

    kills: int = 0
    drivers: int = 0
    hangs: int = 0
    exit_codes: Counter[int] = field(default_factory=Counter)
    victims: Counter[str] = field(default_factory=Counter)
    first_label_s: list[float] = field(default_factory=list)
    after_driver_s: list[float] = field(default_factory=list)


class Campaign:
    """A campaign by the command that a user gives, again and again."""

    def __init__(self, folder: Path, scenario: Scenario, n_labels: int, seed: int, tries: Tries) -> None:
        self.path, self._acks, self._output = folder / "campaign", folder / "acks.txt", folder / "output.txt"
        self._folder, self._scenario, self.n_labels = folder, scenario, n_labels
        self._process: subprocess.Popen[bytes] | None = None
        self.tries = tries
        config = str(CONFIGS / scenario.config)
        self._command = [
            sys.executable, "-m", "alsys.cli", "run", config, "--quiet", "--ack-log", str(self._acks)
        ]  # fmt: skip
        settings = [f"directory={self.path}", f"stop.labels={n_labels}", f"seed={seed}", "stop.wall_s=null"]
        settings += [f"runtime.kind={'ray' if scenario.is_ray else 'in-process'}", "runtime.worker_retries=1000"]
        settings += [f"tracking.enabled={str(scenario.is_tracked).lower()}"]
        if scenario.is_tracked:
            settings += [f"tracking.uri=sqlite:///{folder}/mlflow.db", "tracking.flush_s=120"]
        if scenario.config == "toy.yaml":
            settings += [f"labeling.delay_s={scenario.label_s}", "training.refit_every=20"]
        else:
            settings += ["training.budget_s=5", "training.max_ahead=null", "training.refit_every=40"]
        for setting in settings:
            self._command += ["--set", setting]

    @property
    def is_running(self) -> bool:
        """Whether the driver lives; its own end is written down once."""
        if self._process is None:
            return False
        code = self._process.poll()
        if code is not None:
            self._process = None
            if code != -signal.SIGKILL:
                self.tries.exit_codes[code] += 1
        return code is None

    @property
    def acknowledged(self) -> list[str]:
        """Identities of labels, in their order."""
        try:
            return self._acks.read_text().split()
        except FileNotFoundError:
            return []

    def start(self) -> None:
        """Runs the command."""
        self.tries.drivers += 1
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output, cwd=self._folder)

    def kill(self, rng: random.Random) -> bool:
        """Kills one victim that is there; False where there is none."""
        if self._process is None or not self.is_running:
            return False
        if DRIVER in self._scenario.victims:
            victim = psutil.Process(self._process.pid)
        else:
            victims = [p for p in psutil.Process(self._process.pid).children(recursive=True) if self._is_victim(p)]
            if not victims:
                return False
            victim = rng.choice(victims)
        try:
            name = next((v for v in self._scenario.victims if v in " ".join(victim.cmdline())), DRIVER)
            victim.kill()
        except psutil.NoSuchProcess:
            return False
        if DRIVER in self._scenario.victims:
            self._process.wait()
        self.tries.kills += 1
        self.tries.victims[name] += 1
        return True

    def await_label(self, n_before: int, since: float) -> None:
        """Until a label has come, by starting the driver again where it ended; a hang is ended and written down."""
        is_restarted = False
        while len(self.acknowledged) == n_before:
            if not self.is_running:
                if len(self.acknowledged) >= self.n_labels:
                    return
                is_restarted = True
                self.start()
            if time.monotonic() - since > SILENT_S:
                self.tries.hangs += 1
                self.end()
                since = time.monotonic()
            time.sleep(POLL_S)
        seconds = time.monotonic() - since
        self.tries.first_label_s.append(seconds)
        if is_restarted:
            self.tries.after_driver_s.append(seconds)

    def finish(self) -> int | None:
        """Runs to the end by the same command; its exit code, None where it did not end."""
        until = time.monotonic() + END_S
        if not self.is_running:
            self.start()
        while time.monotonic() < until:
            process = self._process
            assert process is not None
            try:
                code = process.wait(max(1.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                break
            if not self.is_running and code == 0:
                return 0
            self.start()
        self.end()
        return None

    def end(self) -> None:
        """Kills the driver."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def words(self) -> str:
        """The last that the drivers said."""
        return self._output.read_text(errors="replace")[-2000:]

    def _is_victim(self, process: psutil.Process) -> bool:
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            return False
        return any(part in line for part in self._scenario.victims)


def measure(scenario: Scenario, n_kills: int, seed: int) -> dict[str, Any]:
    """One row of the table."""
    tries = Tries()
    rows: list[dict[str, Any]] = []
    started = time.monotonic()
    while tries.kills < n_kills and len(rows) < MAX_CAMPAIGNS:
        with tempfile.TemporaryDirectory(prefix="alsys-kills-") as folder:
            rows.append(one_campaign(scenario, n_kills, seed + 1000 * len(rows), Path(folder), tries))
    summed = {name: sum(row[name] for row in rows) for name in rows[0] if name not in ("verified", "end", "words")}
    return {
        "campaigns": len(rows),
        "kills": tries.kills,
        "victims": dict(tries.victims),
        "drivers": tries.drivers,
        "hangs": tries.hangs,
        "exit_codes": {str(code): n for code, n in tries.exit_codes.items()},
        **summed,
        "verified": all(row["verified"] for row in rows),
        "ends": [row["end"] for row in rows],
        "first_label_s": _spread(tries.first_label_s),
        "after_driver_s": _spread(tries.after_driver_s),
        "words": [row["words"] for row in rows if "words" in row],
        "wall_s": round(time.monotonic() - started, 1),
    }


def one_campaign(scenario: Scenario, n_kills: int, seed: int, folder: Path, tries: Tries) -> dict[str, Any]:
    """What the log, the store and the registry hold after a campaign with kills, `n_kills` of them in all `tries`."""
    rng = random.Random(seed)
    # Twice the kills where each costs a label or two; what labels cost in a second of dynamics comes on top.
    n_labels = 30 + int((n_kills - tries.kills) * (4 if scenario.config == "toy.yaml" else 6))
    campaign = Campaign(folder, scenario, n_labels, seed, tries)
    campaign.start()
    while tries.kills < n_kills and len(campaign.acknowledged) < n_labels:
        time.sleep(rng.uniform(*scenario.pause_s))
        n_before = len(campaign.acknowledged)
        if campaign.kill(rng):
            if DRIVER in scenario.victims and rng.random() < EARLY and tries.kills < n_kills:
                campaign.start()
                time.sleep(rng.uniform(0.0, 12.0 if scenario.is_ray else 3.0))
                campaign.kill(rng)
            campaign.await_label(n_before, time.monotonic())
        elif not campaign.is_running and len(campaign.acknowledged) < n_labels:
            campaign.start()
        else:
            time.sleep(POLL_S)
    code = campaign.finish()
    return {**row(campaign, folder, scenario), "end": code}


def row(campaign: Campaign, folder: Path, scenario: Scenario) -> dict[str, Any]:
    """What the log, the store and the registry hold."""
    command = [sys.executable, "-m", "alsys.cli", "data", "verify", str(campaign.path), "--json"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    verified = json.loads(said) if said.startswith("{") else {"ok": False}
    reader = open_reader(campaign.path / "store.zarr")
    events = reader.events()
    stored = Counter(event.label_id for event in events if isinstance(event, LabelAccepted))
    published = {event.version for event in events if isinstance(event, ModelPublished)}
    snapshot = reader.snapshot(reader.levels()[0].level_id)
    reader.close()
    acknowledged = Counter(campaign.acknowledged)
    found: dict[str, Any] = {
        "acknowledged": len(acknowledged),
        "lost": sum(label_id not in stored for label_id in acknowledged),
        "doubled": sum(n - 1 for n in (*acknowledged.values(), *stored.values())),
        "labels": int((snapshot.arm != 0).sum()),
        "wanted": campaign.n_labels,
        "verified": bool(verified["ok"]),
    }
    if scenario.is_tracked:
        found |= {"versions": len(published), "registered": _registered(folder)}
    if any(code not in (0, 3) for code in campaign.tries.exit_codes):
        found["words"] = campaign.words()
    return found


def _registered(folder: Path) -> int:
    """Versions in the registry."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return len(client.search_model_versions())


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"median": round(median(values), 2), "largest": round(max(values), 2), "n": len(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of all scenarios together")
    parser.add_argument("--each", type=int, help="of each scenario, instead")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    weights = {name: SCENARIOS[name].weight for name in args.scenarios}
    rows: dict[str, Any] = {}
    for i, name in enumerate(args.scenarios):
        n_kills = args.each or max(1, round(args.kills * weights[name] / sum(weights.values())))
        rows[name] = measure(SCENARIOS[name], n_kills, args.seed + i)
        sys.stderr.write(f"{name}: {json.dumps(rows[name])}\n")
    names = ("kills", "lost", "doubled", "hangs", "drivers")
    totals = {name: sum(row[name] for row in rows.values()) for name in names}
    print(json.dumps({"machine": machine(), "totals": totals, "scenarios": rows}, indent=1))


if __name__ == "__main__":
    main()
