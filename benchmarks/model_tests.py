"""What the examination of a committee costs, and what it says of fits that are short, long and to shuffled labels.

``python benchmarks/examination.py --json``: a committee of the usual size for ethanol (GFN2-xTB labels, 500 K) is
fitted within `--budget-s` seconds, then within a tenth, a thirtieth, and to forces of other frames. Seconds and the
share of the budget that the examination takes, its metrics, and the verdict on it as a first version.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
from fitted import config_of, free_atoms, label, sample, snapshot_of, start_of
from orchestration import machine

from alsys.config import CampaignConfig
from alsys.control.rules.promotion import judge
from alsys.frames import ARMS, Arm
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.factory import build_trainer

HEADS = ("holdout_", "stability_", "blind", "trusted")

MODEL = {"members": 4, "num_features": 32}


def data_of(config: CampaignConfig, n_train: int, n_random: int) -> Snapshot:
    """Training frames, then the random arm, of one trajectory."""
    start = start_of(config)
    labelled = label(sample(start, 500.0, n_train + n_random, seed=1))
    snapshot = snapshot_of(labelled, free_atoms(start))
    arm = snapshot.arm.copy()
    arm[-n_random:] = ARMS.index(Arm.RANDOM)
    return replace(snapshot, arm=arm)


def shuffled(snapshot: Snapshot) -> Snapshot:
    """The same frames with energies and forces of others; the random arm keeps its own."""
    rows = np.flatnonzero(snapshot.is_arm(Arm.INITIAL))
    other = np.roll(rows, 1)
    energy, forces = snapshot.energy.copy(), snapshot.forces.copy()
    energy[rows] = snapshot.energy[other]
    offsets = snapshot.offsets
    for row, source in zip(rows, other, strict=True):
        forces[offsets[row] : offsets[row + 1]] = snapshot.forces[offsets[source] : offsets[source + 1]]
    return replace(snapshot, energy=energy, forces=forces)


def measure(budget_s: float, data: Snapshot) -> dict[str, Any]:
    """One fit and its examination."""
    config = config_of("CCO", model=MODEL, budget_s=budget_s, promotion={"examine": True})
    trained = build_trainer(config).run(TrainingOrder(1, data, None, None, seed=1))
    if not isinstance(trained, TrainedCommittee):
        return {"budget_s": budget_s, "failure": trained.message}
    trust = config.exploration.trust
    verdict = judge(1, trained.metrics, 0, [], config.promotion, getattr(trust, "probability", 0.9), 0.0)
    exam = {name: value for name, value in trained.metrics.items() if name.startswith(HEADS)}
    return {
        "budget_s": budget_s,
        "force_mae_mev_per_ang": 1e3 * trained.metrics["force_mae_random_arm"],
        "exam_share_of_budget": trained.metrics["model_tests_wall_s"] / budget_s,
        "verdict": type(verdict).__name__,
        "reason": verdict.reason,
        **exam,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget-s", type=float, default=60.0)
    parser.add_argument("--n-train", type=int, default=50)
    parser.add_argument("--n-random", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    data = data_of(config_of("CCO", model=MODEL, budget_s=args.budget_s), args.n_train, args.n_random)
    result: dict[str, Any] = {"benchmark": "examination", **machine(), "n_train": args.n_train}
    for name, budget_s, snapshot in (
        ("fit", args.budget_s, data),
        ("a tenth", args.budget_s / 10.0, data),
        ("a thirtieth", args.budget_s / 30.0, data),
        ("shuffled", args.budget_s / 2.0, shuffled(data)),
    ):
        result[name] = measure(budget_s, snapshot)
        sys.stderr.write(f"{name}: {result[name]}\n")
    sys.stdout.write(json.dumps(result, indent=None if args.json else 1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
