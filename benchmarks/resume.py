"""What a long campaign costs that is looked at or goes on: CPU seconds and memory of resume, status, verify, report.

    python benchmarks/resume.py --labels 10000 100000

Makes stores of so many labels of ethanol-sized frames (9 atoms), with their log: a frame proposed and a label accepted
each, an exploration report for ten labels, a heartbeat for fifty, a model promoted for each tenth of the campaign. Each
command runs in a process of its own. `resume` is all that a driver does before it hands out work: opening the store,
reading and folding the log, checking digests, loading waiting frames, teaching the quality gate. Prints JSON:
`cpu_s` and `peak_mb` of each, `*_slope` the exponent between the smallest and the largest store (1 is linear).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from orchestration import machine

from alsys.campaign.folder import CampaignFolder
from alsys.config import parse_config
from alsys.config.load import read_yaml
from alsys.config.overrides import apply_overrides
from alsys.control.state.audits import audit_of
from alsys.events import (
    CampaignOpened,
    CampaignStopped,
    Event,
    ExplorationReported,
    FrameProposed,
    Heartbeat,
    LabelAccepted,
    ModelPromoted,
    ModelPublished,
    StopRequested,
)
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.labels import Label, LabelCost
from alsys.store.digests import label_digest
from alsys.testing.fakes import FAKE_LEVEL

CHUNK = 1000
N_MODELS = 10
NUMBERS = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1], dtype=np.int32)
STEPS = ("resume", "status", "verify", "report")


def fill(directory: CampaignFolder, n_labels: int) -> None:
    """A campaign's folder with a store of `n_labels`."""
    from alsys.store.zarr import open_writer

    toy = Path(__file__).resolve().parent.parent / "configs" / "toy.yaml"
    overrides = [f"directory={directory.path}", f"stop.labels={2 * n_labels}"]
    directory.path.mkdir(parents=True)
    directory.write_record(parse_config(apply_overrides(read_yaml(str(toy)), overrides), source="toy.yaml"))
    rng = np.random.default_rng(1)
    rest = rng.normal(scale=1.5, size=(len(NUMBERS), 3))
    store = open_writer(directory.store)
    store.stage([CampaignOpened(t=0.0, epoch=store.epoch, config_hash="", version="benchmark")], levels=[FAKE_LEVEL])
    done = version = 0
    while done < n_labels:
        events: list[Event] = []
        candidates, labels = [], []
        for i in range(done, min(done + CHUNK, n_labels)):
            frame = Frame.molecule(NUMBERS, rest + rng.normal(scale=0.1, size=rest.shape))
            arm = Arm.RANDOM if i % 5 == 4 else Arm.UNCERTAIN
            label = Label(
                frame.frame_id, FAKE_LEVEL.level_id, float(rng.normal(-100.0)), rng.normal(size=rest.shape),
                LabelCost(wall_s=1.0, cpu_s=1.0, scf_cycles=9, host="benchmark"),
            )  # fmt: skip
            candidates.append(Candidate(frame, Source("ethanol", arm, "langevin", i // 10, version, i, 0.1, 300.0)))
            labels.append(label)
            events.append(
                FrameProposed(
                    t=float(i), frame_id=frame.frame_id, arm=arm, system="ethanol", deviation=0.1,
                    model_version=version, trajectory=i // 10, method="langevin", n_electrons=26,
                )
            )  # fmt: skip
            events.append(
                LabelAccepted(
                    t=float(i), frame_id=frame.frame_id, label_id=label.label_id, worker="labeler-0", wall_s=1.0,
                    sent=float(i), started=float(i), finished=float(i), digest=label_digest(label, None),
                    audit=audit_of(label.label_id, 0.01),
                )
            )  # fmt: skip
            if i % 10 == 0:
                events.append(
                    ExplorationReported(
                        t=float(i), worker="explorer-0", model_version=version, n_steps=50, walker_steps=3200,
                        n_candidates=4, n_above=4, wall_s=1.0, stops={"too-hot": 2}, trust=(0.1, 0.6), n_members=4,
                        n_distinct=4, method_steps={"langevin": 3200},
                    )
                )  # fmt: skip
            if i % 50 == 0:
                busy, workers = {"labeler": 5.0}, {"labeler": 2}
                events.append(Heartbeat(t=float(i), wall_s=5.0, busy_s=busy, workers=workers))
        store.stage(events, candidates, labels)
        store.commit()
        done = min(done + CHUNK, n_labels)
        while version < N_MODELS * done // n_labels:
            version += 1
            metrics = {"n_labels_train": 0.8 * done, "force_mae_random_arm": 0.05, "n_random": 0.2 * done}
            published = ModelPublished(
                t=float(done), version=version, parent=version - 1, seq=store.head.seq, n_labels=done, wall_s=60.0,
                metrics=metrics,
            )  # fmt: skip
            store.stage([published, ModelPromoted(t=float(done), version=version, reason="better")])
            store.commit()
    store.stage([CampaignStopped(t=float(done), reason="user", is_final=False)])
    store.commit()
    store.close()


def resume(directory: CampaignFolder) -> None:
    """Opens a campaign as a driver does, without workers, and stops it at once."""
    from alsys.campaign.opening import checked_ledger
    from alsys.control.coordinator import Coordinator
    from alsys.control.inprocess import InProcessPool
    from alsys.control.settings import PolicySettings
    from alsys.labeling.gate.gate import LabelGate
    from alsys.store.zarr import open_writer
    from alsys.testing.fakes import MemoryBundles, MemoryRegistry

    config = directory.config()
    store = open_writer(directory.store)
    ledger = checked_ledger(directory, PolicySettings.of(config), store)
    coordinator = Coordinator(
        ledger=ledger,
        store=store,
        pool=InProcessPool({}),
        bundles=MemoryBundles(),
        registry=MemoryRegistry(),
        level=FAKE_LEVEL,
        initial=list,
        opened=CampaignOpened(t=time.time(), epoch=store.epoch, config_hash="", version="benchmark"),
        gate=LabelGate(config.labeling.quality, None),
        stop_request=lambda: StopRequested(t=time.time(), drain=False),
    )
    asyncio.run(coordinator.run())
    store.close()


def step(name: str, path: str) -> None:
    """One measured step, in a process of its own; prints its CPU seconds, memory and elapsed time."""
    from alsys.cli import main as alsys

    directory, started = CampaignFolder(Path(path)), time.perf_counter()
    before = time.process_time()
    if name == "resume":
        resume(directory)
    else:
        command = {"status": ["status", path, "--json"], "verify": ["data", "verify", path, "--json"]}
        code = alsys(command.get(name, ["report", path]))
        if code:
            sys.exit(code)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "cpu_s": round(time.process_time() - before, 2),
        "wall_s": round(time.perf_counter() - started, 2),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }
    sys.stdout.write("\n" + json.dumps(figures) + "\n")


def measured(name: str, path: Path) -> dict[str, float]:
    """Runs `step` in a fresh interpreter."""
    command = [sys.executable, "-W", "ignore", __file__, "--step", name, "--path", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    output = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if output.returncode:
        raise SystemExit(f"{name} of {path}: {output.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--folder", help="keep the campaigns here, and take those that are there (default: temporary)")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        step(args.step, args.path)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary)
        results: dict[str, dict[str, dict[str, float]]] = {}
        for n_labels in args.labels:
            directory = CampaignFolder(folder / f"campaign-{n_labels}")
            if not directory.record.is_file():
                fill(directory, n_labels)
            results[str(n_labels)] = {name: measured(name, directory.path) for name in args.steps}
        slopes: dict[str, float] = {}
        least, most = min(args.labels), max(args.labels)
        if least < most:
            for name in args.steps:
                pair = [results[str(n)][name]["cpu_s"] for n in (least, most)]
                slopes[f"{name}_slope"] = round(math.log(pair[1] / max(pair[0], 0.01)) / math.log(most / least), 2)
        print(json.dumps({"labels": results, **slopes, "machine": machine()}, indent=1))


if __name__ == "__main__":
    main()
