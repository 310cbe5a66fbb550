"""A distilled model against its teacher: force errors on published frames, speed, and what it cost.

The teacher is a committee of 4 that the product's trainer makes of the first ``--n-train`` frames of a file, without a
baseline or as a difference to GFN2-xTB; `alsys.training.distil` makes one plain member of it. Another ``--n-random``
frames are what a campaign would have drawn at random and say when it is good enough; errors are those on the last
``--n-test`` frames, which nothing has seen. ``--keep`` keeps the teacher in a bundle, and takes the one that is there.

    python benchmarks/distil.py --data FILE [--delta gfn2-xtb] [--teacher-s S] [--budget-s S] [--frames N] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import cpu_seconds, errors, free_atoms_of, snapshot_for
from fitted import Labelled
from orchestration import machine

from alsys.config import CampaignConfig, parse_config
from alsys.frames import Arm
from alsys.interop.extxyz_files import read_labelled
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.potentials.factory import build_committee
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.distil import distil
from alsys.training.evaluate import bootstrap_ratio, evaluate
from alsys.training.snapshots import joined, snapshot_of
from alsys.training.trainer import NequIPTrainer


def config_for(args: argparse.Namespace) -> CampaignConfig:
    """The campaign whose committee is the teacher."""
    labeling: dict[str, object] = {"kind": "xtb", "method": "GFN1-xTB"}
    if args.delta:
        labeling["baseline"] = {"kind": args.delta}
    model = {"kind": "nequip", "members": 4, "num_layers": args.layers, "l_max": args.l_max, "num_features": 32}
    training = {
        "budget_s": args.teacher_s, "max_epochs": 10_000_000, "learning_rate": 0.01, "batch_size": 2, "ema": 0.999,
        "bootstrap": 1.0, "validation_share": 0.0, "delta": args.delta, "compile": not args.eager,
    }  # fmt: skip
    return parse_config(
        {
            "name": "distil",
            "systems": [{"name": "molecule", "smiles": "CCO"}],
            "labeling": labeling,
            "model": model,
            "training": training,
            "promotion": {"examine": False},
        }
    )


def teacher_of(args: argparse.Namespace, config: CampaignConfig, train: Labelled, atoms: Labelled) -> CommitteeState:
    """The teacher, from its bundle where that is there."""
    if args.keep is not None and args.keep.exists():
        return read_bundle(args.keep)
    trained = NequIPTrainer(config).run(TrainingOrder(1, snapshot_for(train, atoms, args.delta), None, None, args.seed))
    if not isinstance(trained, TrainedCommittee):
        raise SystemExit(f"the teacher's fit failed: {trained.message}")
    if args.keep is not None:
        write_bundle(args.keep, trained.state, {})
    return trained.state


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Teacher, student, and both on frames that neither has seen."""
    config = config_for(args)
    labelled = read_labelled(args.data)
    train, random = labelled[: args.n_train], labelled[args.n_train : args.n_train + args.n_random]
    test = labelled[-args.n_test :]
    if args.n_train + args.n_random + args.n_test > len(labelled):
        raise SystemExit(f"{args.data} holds {len(labelled)} frames only")
    atoms, _ = free_atoms_of(args.atoms, Path(args.data))
    teacher = teacher_of(args, config, train, atoms)

    def snapshot(rows: Labelled, arm: Arm) -> Any:
        energies, forces = np.array([energy for _, energy, _ in rows]), np.concatenate([f for _, _, f in rows])
        return snapshot_of([frame for frame, _, _ in rows], energies, forces, system="molecule", arms=[arm] * len(rows))

    known = joined(snapshot_for(train, atoms, None), snapshot(random, Arm.RANDOM))
    started, cpu = time.perf_counter(), cpu_seconds()
    found = distil(
        teacher, known, config, frames=args.frames, temperatures=args.temperatures, members=1, budget_s=args.budget_s
    )
    wall_s, cpu_s = time.perf_counter() - started, cpu_seconds() - cpu
    unseen = snapshot(test, Arm.RANDOM)
    student_mae, teacher_mae = (evaluate(build_committee(s), unseen).force_mae for s in (found.state, teacher))
    return {
        "teacher": errors(teacher, test),
        "student": errors(found.state, test),
        "ratio": float(student_mae.mean() / teacher_mae.mean()),
        "ratio_interval_95": bootstrap_ratio(student_mae, teacher_mae),
        "speed_up": found.metrics["speed_up"],
        "distilling_cpu_s": cpu_s,
        "distilling_wall_s": wall_s,
        "is_good": found.is_good,
        "metrics": dict(found.metrics.items()),
        "spec": dict(found.state.spec),
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        "machine": machine(),
    }


def main() -> None:
    """Prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="labelled frames, extxyz")
    parser.add_argument("--atoms", help="free atoms at the same level, extxyz")
    parser.add_argument("--delta", choices=["gfn2-xtb"], help="the teacher is a difference to it")
    parser.add_argument("--keep", type=Path, help="bundle of the teacher, made where it is not there")
    parser.add_argument("--n-train", type=int, default=50)
    parser.add_argument("--n-random", type=int, default=15)
    parser.add_argument("--n-test", type=int, default=300)
    parser.add_argument("--teacher-s", type=float, default=240.0, help="CPU seconds for the teacher's four members")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--l-max", type=int, default=2)
    parser.add_argument("--budget-s", type=float, default=1200.0, help="CPU seconds of the student's fits")
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[300.0, 500.0, 750.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--json", action="store_true", help="one line instead of indented JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result = run(args)
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
