"""Starting from a teacher against starting from nothing: force errors after a few DFT frames of one molecule.

For each draw of `--n` frames: (a) a committee is trained for `--teach-steps` on ANI-1x labels of frames that ANI-1x's
own dynamics visits from those very frames, then for `--fit-steps` on the frames with their DFT labels; (b) a committee
of the same architecture is trained on the frames alone for as many gradient steps as (a) has had in all. Steps and not
seconds, so that the load of the machine makes no difference; the seconds of labelling are given. Errors are of the mean
of the committee on frames that neither has seen. Beside them: the teacher itself, and what it has taught before any
DFT label.

    python benchmarks/teacher.py --data FILE --atoms FILE [--n 20] [--draws 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from math import ceil
from typing import Any

import ase.io
import numpy as np
from numpy.typing import NDArray
from orchestration import machine

from alsys.config import CampaignConfig, parse_config
from alsys.frames import Arm, Frame
from alsys.interop.extxyz_files import read_labelled
from alsys.potentials.base import CommitteeState
from alsys.potentials.factory import build_committee
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.evaluate import batch_of, evaluate
from alsys.training.snapshots import joined, snapshot_of
from alsys.training.start import rebased
from alsys.training.teacher import build_teacher, taught
from alsys.training.trainer import NequIPTrainer

BATCH_SIZE = 5
GROUND = {1: 2, 6: 3, 7: 4, 8: 3}
"""Multiplicities of free atoms."""


def labelled(path: str) -> Snapshot:
    frames = read_labelled(path)
    return snapshot_of(
        [frame for frame, _, _ in frames],
        np.array([energy for _, energy, _ in frames]),
        np.concatenate([forces for _, _, forces in frames]),
        system="molecule",
    )


def free_atoms(path: str, numbers: NDArray[np.int32]) -> Snapshot:
    atoms = [atom for atom in ase.io.read(path, ":", format="extxyz") if atom.numbers[0] in numbers]
    frames = [Frame.molecule(a.numbers, np.zeros((1, 3)), multiplicity=GROUND[int(a.numbers[0])]) for a in atoms]
    energies = np.array([atom.get_potential_energy() for atom in atoms])
    return snapshot_of(frames, energies, np.zeros((len(atoms), 3)), system="molecule", arms=[Arm.ATOM] * len(atoms))


def config_of(args: argparse.Namespace, steps: int, rate: float, n_frames: int) -> CampaignConfig:
    return parse_config(
        {
            "name": "teacher",
            "systems": [{"name": "molecule", "smiles": "CCO"}],
            "labeling": {"kind": "analytic"},
            "model": {
                "kind": "nequip",
                "num_layers": args.layers,
                "l_max": args.l_max,
                "num_features": args.features,
                "members": args.members,
            },
            "training": {
                "budget_s": 1e6,
                "max_epochs": max(1, round(steps / ceil(n_frames / BATCH_SIZE))),
                "batch_size": BATCH_SIZE,
                "learning_rate": rate,
                "validation_share": 0.0,
                "bootstrap": 1.0,
                "compile": args.compile,
            },
            "promotion": {"examine": False},
        }
    )


def errors(result: TrainedCommittee, test: Snapshot) -> dict[str, float]:
    found = evaluate(build_committee(result.state), test)
    return {
        "force_mae_mev_per_ang": 1e3 * float(found.force_mae.mean()),
        "energy_mae_mev": 1e3 * float((found.energy * test.n_atoms).mean()),
    }


def fitted(
    config: CampaignConfig, train: Snapshot, seed: int, parent: CommitteeState | None = None
) -> TrainedCommittee:
    result = NequIPTrainer(config).run(TrainingOrder(1, train, parent, None, seed=seed))
    if not isinstance(result, TrainedCommittee):
        raise SystemExit(f"the fit failed: {result.message}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--atoms", required=True)
    parser.add_argument("--teacher", default="ani-1x", choices=["ani-1x", "gfn2-xtb"])
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--n-test", type=int, default=300)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[300.0, 600.0, 900.0])
    parser.add_argument("--teach-steps", type=int, default=8000)
    parser.add_argument("--fit-steps", type=int, default=2000)
    parser.add_argument("--teach-rate", type=float, default=0.01, help="learning rate of teaching")
    parser.add_argument("--rate", type=float, default=0.005, help="of (b)")
    parser.add_argument("--fit-rate", type=float, default=0.002, help="after teaching")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--l-max", type=int, default=1)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    data = labelled(args.data)
    atoms = free_atoms(args.atoms, np.unique(data.numbers))
    order = np.random.default_rng(0).permutation(data.n_frames)
    test, pool = data.select(order[: args.n_test]), order[args.n_test :]
    teacher = build_teacher(args.teacher)
    _, teacher_forces, _ = teacher.labels(batch_of(test))
    draws = []
    for seed in range(args.draws):
        rows = np.sort(np.random.default_rng([1, seed]).choice(pool, args.n, replace=False))
        train = joined(atoms, replace(data.select(rows), trajectory=np.arange(args.n)))
        started = time.perf_counter()
        teacher_labels = taught(teacher, train, args.frames, args.temperatures, np.random.default_rng([2, seed]))
        labelling_s = time.perf_counter() - started
        pretrained = fitted(config_of(args, args.teach_steps, args.teach_rate, args.frames), teacher_labels, seed)
        fine = config_of(args, args.fit_steps, args.fit_rate, args.n)
        parent = rebased(pretrained.state, train, fine.training)
        results = {
            "alone": fitted(config_of(args, args.teach_steps + args.fit_steps, args.rate, args.n), train, seed),
            "taught": fitted(fine, train, seed, parent),
        }
        draw: dict[str, Any] = {name: errors(result, test) for name, result in results.items()}
        draw |= {
            "before_dft": errors(replace(pretrained, state=parent), test),
            "labelling_s": labelling_s,
            "steps": {
                name: result.metrics["steps"] for name, result in [*results.items(), ("pretraining", pretrained)]
            },
            "step_ms": {name: result.metrics["step_ms"] for name, result in results.items()},
            "pretraining_force_mae_mev_per_ang": 1e3 * pretrained.metrics["force_mae_train"],
        }
        draw["ratio"] = draw["taught"]["force_mae_mev_per_ang"] / draw["alone"]["force_mae_mev_per_ang"]
        draws.append(draw)
        sys.stderr.write(json.dumps(draw) + "\n")
    ratios = np.array([draw["ratio"] for draw in draws])
    result = {
        "teacher": args.teacher,
        "teacher_force_mae_mev_per_ang": 1e3 * float(np.abs(teacher_forces - test.forces).mean()),
        "draws": draws,
        "ratio_mean": float(ratios.mean()),
        "ratio_min": float(ratios.min()),
        "ratio_max": float(ratios.max()),
        "machine": machine(),
        "settings": vars(args),
    }
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print(f"ratio {ratios.mean():.3f} ({ratios.min():.3f} to {ratios.max():.3f}) over {len(draws)} draws")


if __name__ == "__main__":
    main()
