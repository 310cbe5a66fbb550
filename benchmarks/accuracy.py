"""Error of a committee trained on the first N frames of one file within a budget, on all frames of another.

What trains is the product's trainer. The budget is CPU time and holds everything (neighbour lists, fitting, measuring)
but the compiling of the step, once for an architecture on a machine: `compiling_cpu_s`. Free atoms set the zero of
energies where ``--atoms`` gives them or a file ``*isolated_atoms.xyz`` of the same level lies beside the training file;
else energies are fitted. With ``--delta`` the difference to GFN2-xTB is learned. ``--curve`` fits with fractions of the
budget too. Published rows are printed beside (rMD17, acetylacetone: arXiv:2206.07697, tables 2 and 4).

    python benchmarks/accuracy.py --train FILE --test FILE --n-train N --budget-s S [--delta gfn2-xtb] [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from fitted import Labelled, snapshot_of
from orchestration import machine

from alsys.config import CampaignConfig, parse_config
from alsys.interop.extxyz_files import read_labelled
from alsys.labeling.atoms import free_atom_frames
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.baseline import Baseline
from alsys.potentials.factory import build_committee
from alsys.potentials.xtb import XTBMethod
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.trainer import NequIPTrainer


def _row(energy: float, force: float) -> dict[str, float]:
    return {"energy_mev": energy, "force_mev_per_ang": force}


PUBLISHED = {
    "ethanol": {
        "source": "rMD17 ethanol, MAE, arXiv:2206.07697",
        "50 frames": {"NequIP": _row(8.7, 40.2), "MACE": _row(6.7, 32.6)},
        "1000 frames": {"NequIP": _row(0.4, 2.8), "MACE": _row(0.4, 2.1)},
    },
    "acetylacetone": {
        "source": "acetylacetone trained on 500 frames at 300 K, RMSE, arXiv:2206.07697",
        "300 K": {"NequIP": _row(0.81, 5.90), "MACE": _row(0.9, 5.1)},
        "600 K": {"NequIP": _row(6.04, 27.8), "MACE": _row(4.6, 22.4)},
    },
}
FORMULAS = {"C2H6O": "ethanol", "C5H8O2": "acetylacetone"}
SMALL_BELOW_S = 60.0
"""Budget, seconds, below which the model has l_max 1: one of l_max 2 has not been through its frames enough.

Measured with 50 frames of ethanol: l_max 2 is at 47.6 meV/Angstrom after 100 s, l_max 1 at 58.6, and 56.0 after 240 s.
"""
DEEP_FROM_S = 120.0
"""Budget, seconds, from which on the model has four layers instead of three, though a step takes nearly twice as long.

Measured with 50 frames of ethanol, batches of 2: four are at 40.7 meV/Angstrom after 120 s and 37.9 after 240 s, three
at 41.8 and 39.3 (one seed; two seeds of four layers differ by 2); with 600 frames, batches of 5, 16.7 and 16.9 after
240 s.
"""


def free_atoms_of(path: str | None, train: Path) -> tuple[Labelled, str | None]:
    """Free atoms with labels, and the file they come from."""
    if path is None:
        names = sorted(train.parent.glob("*isolated_atoms.xyz"))
        same = [name for name in names if name.name.split("_")[0] == train.name.split("_")[0]]
        if not same:
            return [], None
        path = str(same[0])
    energies = {int(image.numbers[0]): float(image.get_potential_energy()) for image in ase.io.read(path, ":")}
    return [(frame, energies[int(frame.numbers[0])], np.zeros((1, 3))) for frame in free_atom_frames(energies)], path


def beside(labelled: Labelled) -> Labelled:
    """What GFN2-xTB says of the same frames."""
    frames = [frame for frame, _, _ in labelled]
    values = Baseline(XTBMethod("GFN2-xTB").spec).evaluate(FrameBatch.of(frames))
    if values.is_failed.any():
        raise SystemExit(f"GFN2-xTB failed on frame {int(values.is_failed.argmax())}")
    ends = np.cumsum([frame.n_atoms for frame in frames])[:-1]
    return list(zip(frames, values.energy.tolist(), np.split(values.forces, ends), strict=True))


def snapshot_for(labelled: Labelled, atoms: Labelled, delta: str | None) -> Snapshot:
    """Training data, with baselines where a difference is learned."""
    elements = {int(z) for frame, _, _ in labelled for z in frame.numbers}
    atoms = [row for row in atoms if int(row[0].numbers[0]) in elements]
    snapshot = snapshot_of(labelled, atoms)
    if delta is None:
        return snapshot
    values = snapshot_of(beside(labelled), beside(atoms) if atoms else [])
    return replace(snapshot, baseline_energy=values.energy, baseline_forces=values.forces)


def config_for(args: argparse.Namespace, budget_s: float) -> CampaignConfig:
    """The campaign whose trainer is measured."""
    model = {
        "kind": "nequip",
        "members": args.members,
        "r_max": args.r_max,
        "num_layers": args.layers or (3 if budget_s < DEEP_FROM_S else 4),
        "l_max": args.l_max if args.l_max is not None else (1 if budget_s < SMALL_BELOW_S else 2),
        "num_features": args.features or 32,
    }
    training = {
        "budget_s": budget_s,
        "max_epochs": 10_000_000,
        "learning_rate": args.learning_rate,
        "batch_size": args.batch_size,
        "bootstrap": 1.0,
        "validation_share": 0.0,
        "energy_weight": args.energy_weight,
        "decay_share": args.decay_share,
        "ema": args.ema,
        "parallel": args.parallel,
        "compile": not args.eager,
        "delta": args.delta,
    }
    return parse_config(
        {
            "name": "accuracy",
            "systems": [{"name": "molecule", "smiles": "CCO"}],
            "labeling": {
                "kind": "xtb",
                "method": "GFN1-xTB",
                **({"baseline": {"kind": args.delta}} if args.delta else {}),
            },
            "model": model,
            "training": training,
            "promotion": {"examine": False},
        }
    )


def cpu_seconds() -> float:
    """CPU time of this process and of children that ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def errors(state: CommitteeState, test: Labelled) -> dict[str, float]:
    """Errors of energies and forces of a committee's mean, meV and meV/Angstrom."""
    committee = build_committee(state)
    parts = [test[first : first + 50] for first in range(0, len(test), 50)]
    predictions = [committee.evaluate(FrameBatch.of([frame for frame, _, _ in part])) for part in parts]
    energies = np.concatenate([prediction.energy for prediction in predictions])
    forces = np.concatenate([prediction.forces for prediction in predictions])
    de = 1e3 * (energies - np.array([energy for _, energy, _ in test]))
    df = 1e3 * (forces - np.concatenate([values for _, _, values in test]))
    return {
        "force_mae_mev_per_ang": float(np.abs(df).mean()),
        "force_rmse_mev_per_ang": float(np.sqrt(np.square(df).mean())),
        "energy_mae_mev": float(np.abs(de).mean()),
        "energy_rmse_mev": float(np.sqrt(np.square(de).mean())),
    }


def run(
    args: argparse.Namespace, train: Labelled, atoms: Labelled, test: Labelled, budget_s: float, seed: int
) -> dict[str, Any]:
    """One fit and its test."""
    started, cpu = time.perf_counter(), cpu_seconds()
    trainer = NequIPTrainer(config_for(args, budget_s), clock=cpu_seconds)
    trained = trainer.run(TrainingOrder(1, snapshot_for(train, atoms, args.delta), None, None, seed))
    if not isinstance(trained, TrainedCommittee):
        raise SystemExit(f"the fit failed: {trained.message}")
    train_s, train_cpu_s = time.perf_counter() - started, cpu_seconds() - cpu
    return {
        "budget_s": budget_s,
        "seed": seed,
        **errors(trained.state, test),
        "train_wall_s": train_s,
        "train_cpu_s": train_cpu_s,
        "compiling_cpu_s": trained.metrics["compiling_s"],
        "steps_per_member": trained.metrics["steps"],
        "step_ms": trained.metrics["step_ms"],
        "is_compiled": bool(trained.metrics["is_compiled"]),
        "force_mae_train_mev_per_ang": 1e3 * trained.metrics["force_mae_train"],
        "spec": dict(trained.state.spec),
    }


def main() -> None:
    """Prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", required=True, help="labelled frames, extxyz")
    parser.add_argument("--test", required=True, help="labelled frames, extxyz")
    parser.add_argument("--n-train", type=int, required=True, help="the first so many frames of the training file")
    parser.add_argument("--n-test", type=int, help="the last so many frames of the test file (default: all)")
    parser.add_argument("--budget-s", type=float, required=True, help="CPU seconds for a fit, beside compiling")
    parser.add_argument("--atoms", help="free atoms at the same level, extxyz")
    parser.add_argument("--delta", choices=["gfn2-xtb"], help="learn the difference to it")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--curve", type=float, nargs="*", default=[], help="fractions of the budget to fit with too")
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--parallel", type=int, default=1, help="members at a time, one thread each")
    parser.add_argument("--layers", type=int, help="default: 4, and 3 for budgets of less than two minutes")
    parser.add_argument("--l-max", type=int, help="default: 2, and 1 for budgets of less than a minute")
    parser.add_argument("--features", type=int)
    parser.add_argument("--r-max", type=float, default=5.0)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--energy-weight", type=float, default=1.0)
    parser.add_argument("--decay-share", type=float, default=0.5)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--json", action="store_true", help="one line instead of indented JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train = read_labelled(args.train)[: args.n_train]
    test = read_labelled(args.test)[-args.n_test if args.n_test else None :]
    if len(train) < args.n_train:
        raise SystemExit(f"{args.train} holds {len(train)} frames, --n-train asks for {args.n_train}")
    hidden = {frame.frame_id for frame, _, _ in train} & {frame.frame_id for frame, _, _ in test}
    if hidden:
        raise SystemExit(f"{len(hidden)} frames are in both files' parts; use others, or --n-test")
    atoms, atoms_file = free_atoms_of(args.atoms, Path(args.train))
    runs = []
    for fraction in [*args.curve, 1.0]:
        for seed in range(args.seeds):
            runs.append(run(args, train, atoms, test, fraction * args.budget_s, seed))
            print({k: v for k, v in runs[-1].items() if k != "spec"}, file=sys.stderr, flush=True)
    whole = [one for one in runs if one["budget_s"] == args.budget_s]
    formula = ase.Atoms(train[0][0].numbers).get_chemical_formula()
    names = ("force_mae_mev_per_ang", "force_rmse_mev_per_ang", "energy_mae_mev", "energy_rmse_mev")
    result = {
        **{name: float(np.mean([one[name] for one in whole])) for name in names},
        **(
            {f"{name}_std": float(np.std([one[name] for one in whole], ddof=1)) for name in names}
            if args.seeds > 1
            else {}
        ),
        "n_train": args.n_train,
        "n_test": len(test),
        "settings": vars(args),
        "atoms": atoms_file,
        "published": PUBLISHED.get(FORMULAS.get(formula, "")),
        "runs": runs,
        "machine": machine(),
    }
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
