"""Whole campaigns on GFN2-xTB whose labeler returns wrong labels: with the quality gate, without it, and unpoisoned.

The campaign is that of `campaigns.py` (arm `plain`: molecular dynamics, a fixed trust band). One call in twenty returns
a label that was tampered with: wrong sign, forces of two atoms swapped, ten times the forces, another method
(GFN1-xTB), forces of a frame displaced by 0.02 Angstrom, or noise of 1 meV and 1 meV/Angstrom. Labels at tighter
settings are not spared either. A seed decides the campaign and what is poisoned. Arms: `clean` (no poison, no gate),
`gate`, `no_gate`.

For each run: errors of the last version on test sets of GFN2-xTB dynamics, wrong labels made and how many are data at
the end (a frame's stored forces against GFN2-xTB computed once more), good labels that failed the gate, were not
reproduced, were rejected or retracted. Finished runs are kept in `--out`. Run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from campaign_curves import interval
from campaigns import TestSet, config_of_campaign, curve_of, test_sets
from fitted import label as label_again
from orchestration import machine

from alsys.actors.placement import worker_specs
from alsys.campaign.bundles import BundleFolder
from alsys.campaign.checks import make_plan
from alsys.campaign.workers import first_frames, label_gate
from alsys.config import parse_config
from alsys.config.labeling import XTBLabeling
from alsys.control.coordinator import Coordinator
from alsys.control.inprocess import InProcessPool
from alsys.control.ports import NoRegistry, Role
from alsys.control.settings import PolicySettings
from alsys.control.state.ledger import Ledger
from alsys.events import CampaignOpened, FrameQuarantined, LabelAudited, LabelFailedGate, LabelNotReproduced
from alsys.frames import Arm, FloatArray, Frame
from alsys.labeling.base import LabelingOrder
from alsys.labeling.factory import build_labeler, build_worker
from alsys.labeling.worker import LabelingWorker
from alsys.labels import Label, LabelFailure
from alsys.store.zarr import open_writer

KINDS = ("sign", "swapped", "scaled", "method", "displaced", "noise")
GROSS = ("sign", "swapped", "scaled")
ARMS = ("clean", "gate", "no_gate")
SHARE = 0.05
WRONG = 5e-3
"""Largest force component difference from which a stored label counts as wrong, eV/Angstrom; noise is below."""


class PoisonedLabeler:
    """A labeler, some of whose labels are tampered with.

    Args:
        honest: The one that computes.
        config: Its configuration.
        share: Of the labels, free atoms left out.
        seed: What is tampered with, and how.
    """

    def __init__(self, honest: LabelingWorker, config: XTBLabeling, share: float, seed: int) -> None:
        self._honest = honest
        self._other = build_labeler(config.model_copy(update={"method": "GFN1-xTB"}))
        self._plain = build_labeler(config)
        self._rng = np.random.default_rng([seed, 5])
        self._share = share
        self.made: list[tuple[str, str]] = []

    def run(self, order: LabelingOrder) -> tuple[Label | LabelFailure, ...]:
        """Labels, some of them wrong."""
        outcomes = self._honest.run(order)
        return tuple(self._tampered(f, o) for f, o in zip(order.frames, outcomes, strict=True))

    def close(self) -> None:
        """Ends child processes."""
        for part in (self._honest, self._other, self._plain):
            part.close()

    def _tampered(self, frame: Frame, outcome: Label | LabelFailure) -> Label | LabelFailure:
        if isinstance(outcome, LabelFailure) or frame.n_atoms < 2 or self._rng.random() >= self._share:
            return outcome
        kind = KINDS[int(self._rng.integers(len(KINDS)))]
        energy, forces = self._wrong(kind, frame, outcome)
        self.made.append((frame.frame_id, kind))
        return Label(outcome.frame_id, outcome.level_id, energy, forces, outcome.cost)

    def _wrong(self, kind: str, frame: Frame, label: Label) -> tuple[float, FloatArray]:
        if kind == "sign":
            return label.energy, -label.forces
        if kind == "scaled":
            return label.energy, 10.0 * label.forces
        if kind == "swapped":
            forces = label.forces.copy()
            i, j = self._rng.choice(frame.n_atoms, 2, replace=False)
            forces[[i, j]] = forces[[j, i]]
            return label.energy, forces
        if kind == "noise":
            noise = 1e-3 * self._rng.normal(size=label.forces.shape)
            return label.energy + 1e-3 * float(self._rng.normal()), label.forces + noise
        if kind == "method":
            return self._labelled(self._other.label(frame))
        moved = frame.positions + 0.02 / np.sqrt(3) * self._rng.normal(size=frame.positions.shape)
        return self._labelled(self._plain.label(frame.with_positions(moved)))

    @staticmethod
    def _labelled(outcome: Label | LabelFailure) -> tuple[float, FloatArray]:
        assert isinstance(outcome, Label)
        return outcome.energy, outcome.forces


def run_campaign(folder: Path, arm: str, seed: int, labels: int, epochs: int) -> dict[str, Any]:
    """Runs a campaign in this process; returns what became of its labels."""
    content = config_of_campaign("plain", seed, "CO", labels, epochs, 1.0)
    content["directory"] = str(folder / "campaign")
    content["name"] = f"{arm.replace('_', '-')}-{seed}"
    content["labeling"] = {**content["labeling"], "workers": 1, "quality": {"enabled": arm == "gate"}}
    config = parse_config(content)
    assert isinstance(config.labeling, XTBLabeling)
    labeling = config.labeling
    plan = make_plan(config, str(folder / "campaign.yaml"))
    plan.directory.logs.mkdir(parents=True, exist_ok=True)
    store = open_writer(plan.directory.store)
    labelers: list[PoisonedLabeler] = []

    def labeler() -> PoisonedLabeler:
        share = 0.0 if arm == "clean" else SHARE
        labelers.append(PoisonedLabeler(build_worker(labeling), labeling, share, seed))
        return labelers[-1]

    workers: dict[str, tuple[Role, Callable[[], Any]]] = {
        name: (spec.role, labeler if spec.role is Role.LABELER else spec.build)
        for name, spec in worker_specs(config, plan.starts).items()
    }
    plan.directory.write_record(config)
    ledger = Ledger.fold(PolicySettings.of(config), store.events())
    coordinator = Coordinator(
        ledger=ledger,
        store=store,
        pool=InProcessPool(workers, use_threads=True),
        bundles=BundleFolder(plan.directory.models, ledger.models),
        registry=NoRegistry(),
        level=plan.level,
        initial=lambda: first_frames(plan),
        opened=CampaignOpened(t=time.time(), epoch=store.epoch, config_hash="", version="benchmark"),
        gate=label_gate(plan),
    )
    asyncio.run(coordinator.run())
    result = account(store, plan.level.level_id, [made for each in labelers for made in each.made])
    store.close()
    return result


def account(store: Any, level_id: str, made: list[tuple[str, str]]) -> dict[str, Any]:
    """Labels that are data and wrong, by kind, and what the gate did with good ones."""
    snapshot = store.snapshot(level_id)
    rows = np.flatnonzero(~snapshot.is_arm(Arm.ATOM))
    offsets = snapshot.offsets
    truth = {frame.frame_id: forces for frame, _, forces in label_again([snapshot.frame(row) for row in rows])}
    wrong = {}
    for row in rows:
        frame_id = snapshot.frame_ids[row]
        if frame_id in truth:
            forces = snapshot.forces[offsets[row] : offsets[row + 1]]
            wrong[frame_id] = float(np.abs(forces - truth[frame_id]).max())
    kinds = dict(made)
    events = store.events()
    poisoned = {frame_id for frame_id, _ in made}
    return {
        "labels": len(rows),
        "made": {kind: sum(k == kind for _, k in made) for kind in KINDS},
        "wrong_in_data": {
            kind: sum(error > WRONG and kinds.get(frame_id) == kind for frame_id, error in wrong.items())
            for kind in KINDS
        },
        "largest_wrong": max(wrong.values(), default=0.0),
        "failed_gate": sum(isinstance(e, LabelFailedGate) for e in events),
        "failed_gate_good": sum(isinstance(e, LabelFailedGate) and e.frame_id not in poisoned for e in events),
        "not_reproduced": sum(isinstance(e, LabelNotReproduced) for e in events),
        "audited": sum(isinstance(e, LabelAudited) for e in events),
        "refuted": sum(isinstance(e, LabelAudited) and not e.is_confirmed for e in events),
        "refuted_good": sum(
            isinstance(e, LabelAudited) and not e.is_confirmed and e.frame_id not in poisoned for e in events
        ),
        "quarantined": sum(isinstance(e, FrameQuarantined) for e in events),
        "quarantined_good": sum(isinstance(e, FrameQuarantined) and e.frame_id not in poisoned for e in events),
    }


def run_one(folder: Path, arm: str, seed: int, sets: dict[str, TestSet], labels: int, epochs: int) -> dict[str, Any]:
    place = folder / f"{arm}-{seed}"
    file = place / "result.json"
    if file.is_file():
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return known
    place.mkdir(parents=True)
    started = time.perf_counter()
    result = run_campaign(place, arm, seed, labels, epochs)
    curve = curve_of(place / "campaign", sets)
    result |= {"arm": arm, "seed": seed, "wall_s": time.perf_counter() - started, "curve": curve}
    file.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--frames", type=int, default=150, help="of a test set")
    parser.add_argument("--json", action="store_true", help="one line")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    sets = test_sets(args.out, "CO", args.frames)
    runs = [
        run_one(args.out, arm, seed, sets, args.labels, args.epochs)
        for seed in range(1, args.seeds + 1)
        for arm in ARMS
    ]
    last = {arm: [run["curve"][-1] for run in runs if run["arm"] == arm] for arm in ARMS}
    metrics = ("cold_mae", "hot_mae", "hot_p95")
    summary: dict[str, Any] = {
        "final_errors_mev_per_ang": {arm: {m: [round(r[m], 1) for r in last[arm]] for m in metrics} for arm in ARMS},
        "over_clean": {
            arm: {
                m: interval([a[m] / b[m] for a, b in zip(last[arm], last["clean"], strict=True)], is_ratio=True)
                for m in metrics
            }
            for arm in ("gate", "no_gate")
        },
        "labels": [{k: v for k, v in run.items() if k != "curve"} for run in runs],
        "machine": machine(),
    }
    print(json.dumps(summary, indent=None if args.json else 1))


if __name__ == "__main__":
    main()
