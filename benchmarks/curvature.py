"""Vibrations of a model trained on N frames, without and with one Hessian of the minimum, beside the labeler's own.

The minimum and its Hessian are found as a campaign finds them (`alsys.labeling.hessians`), from the structure of a
SMILES; the frames are the first N of a file, with its labels (PBE/def2-SVP of rMD17) or, with ``--level xtb``, with
GFN2-xTB's. What trains is the product's trainer, within CPU seconds as in `benchmarks/accuracy.py`, whose arguments
apply. Wavenumbers are of the model at its own minimum. ``--hessian FILE`` keeps minimum and Hessian for another run.

    python benchmarks/curvature.py --level xtb|pbe --train FILE --n-train 50 --budget-s 240 --seeds 3 --json
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import config_for, cpu_seconds, errors, free_atoms_of, snapshot_for
from fitted import Labelled, label
from orchestration import machine

from alsys.config import parse_config
from alsys.config.labeling import PySCFLabeling, XTBLabeling
from alsys.dynamics.minima import relaxed
from alsys.dynamics.vibrations import vibrations
from alsys.frames import Frame
from alsys.interop.extxyz_files import read_labelled
from alsys.labeling.base import Curvature, HessianOrder
from alsys.labeling.factory import build_labeler, build_worker
from alsys.labels import Hessian, Label
from alsys.potentials.base import CommitteeState
from alsys.potentials.factory import build_committee
from alsys.systems.builders import build_frame
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.trainer import NequIPTrainer
from alsys.validation.minima import committee_potential
from alsys.validation.vibrations import committee_hessian, compare_vibrations

LEVELS: dict[str, XTBLabeling | PySCFLabeling] = {
    "xtb": XTBLabeling(kind="xtb"),
    "pbe": PySCFLabeling(kind="pyscf", xc="pbe", basis="def2-svp", timeout_s=3600.0),
}


def curvature_of(
    level: str, smiles: str, file: Path | None
) -> tuple[Frame, float, np.ndarray, Hessian, dict[str, Any]]:
    """Minimum, energy, forces and Hessian at a level, and what they took; from the file where it is there."""
    config = LEVELS[level]
    if file is not None and file.is_file():
        known = json.loads(file.read_text())
        frame = Frame.molecule(known["numbers"], known["positions"])
        hessian = Hessian.of_triangle(frame.frame_id, known["triangle"])
        return frame, known["energy"], np.array(known["forces"]), hessian, known["cost"]
    campaign = {"name": "b", "systems": [{"smiles": smiles}], "labeling": {"kind": "xtb"}, "model": {"kind": "pair"}}
    start = build_frame(parse_config(campaign).systems[0], Path())
    worker, labeler = build_worker(config), build_labeler(config)
    cost: dict[str, Any] = {}
    try:
        labeler.label(start)
        one = labeler.label(start)  # the first one starts the child process
        cost["label_cpu_s"] = one.cost.cpu_s
        step = worker.run(HessianOrder(start))
        assert isinstance(step, Curvature), step
        cost["relaxation_labels"], cost["relaxation_wall_s"] = step.n_labels, step.wall_s
        step = worker.run(HessianOrder(step.frame))
        assert isinstance(step, Curvature), step
        assert step.hessian is not None
        cost["hessian_wall_s"], cost["hessian_labels"] = step.wall_s, step.n_labels
        cost["is_analytic"] = step.is_analytic
    finally:
        worker.close()
        labeler.close()
    if file is not None:
        content = {
            "numbers": step.frame.numbers.tolist(),
            "positions": step.frame.positions.tolist(),
            "energy": step.label.energy,
            "forces": step.label.forces.tolist(),
            "triangle": step.hessian.triangle,
            "cost": cost,
        }
        file.write_text(json.dumps(content))
    return step.frame, step.label.energy, step.label.forces, step.hessian, cost


def offset(level: str, labelled: Labelled) -> float:
    """Energy of the level's own label of the first frame less that of the file, eV: programs have different zeros."""
    labeler = build_labeler(LEVELS[level])
    try:
        own = labeler.label(labelled[0][0])
    finally:
        labeler.close()
    assert isinstance(own, Label), own
    return own.energy - labelled[0][1]


def measured(state: CommitteeState, minimum: Frame, hessian: Hessian) -> dict[str, Any]:
    """Vibrations of a model at its own minimum, beside the true ones, 1/cm."""
    committee = build_committee(state)
    own = relaxed(minimum, committee_potential(committee, minimum), 0.002, 500)
    true = vibrations(minimum, hessian.matrix)
    found = vibrations(own.frame, committee_hessian(committee, own.frame, 0.01))
    compared = compare_vibrations(true, found, minimum, own.frame)
    return {
        "wavenumber_mae": compared.mean,
        "wavenumber_mae_assigned": compared.assigned_mean,
        "wavenumber_max": compared.largest,
        "n_imaginary": found.n_imaginary,
        "wavenumbers": found.wavenumbers.round(1).tolist(),
    }


def main() -> None:
    """Prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--level", choices=list(LEVELS), required=True)
    parser.add_argument("--smiles", default="CCO")
    parser.add_argument("--train", required=True, help="labelled frames of the molecule, extxyz")
    parser.add_argument("--n-train", type=int, default=50)
    parser.add_argument("--n-test", type=int, default=200, help="the last so many frames of the file")
    parser.add_argument("--budget-s", type=float, default=240.0, help="CPU seconds for a fit, beside compiling")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--arms", nargs="+", choices=["without", "with"], default=["without", "with"])
    parser.add_argument(
        "--weight", type=float, help="of rows that are derived from the Hessian; default: the trainer's"
    )
    parser.add_argument("--hessian", type=Path, help="where minimum and Hessian are kept")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--l-max", type=int)
    parser.add_argument("--json", action="store_true", help="one line instead of indented JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rest = {"members": 2, "parallel": 1, "features": None, "r_max": 5.0, "learning_rate": 0.01, "batch_size": 2}
    rest |= {"energy_weight": 1.0, "decay_share": 0.5, "ema": 0.999, "eager": False, "delta": None}
    settings = argparse.Namespace(**vars(args), **rest)
    everything = read_labelled(args.train)
    train, test = everything[: args.n_train], everything[-args.n_test :]
    minimum, energy, forces, hessian, cost = curvature_of(args.level, args.smiles, args.hessian)
    if args.level == "xtb":
        train, test = label([frame for frame, _, _ in train]), label([frame for frame, _, _ in test])
        atoms = label([frame for frame, _, _ in free_atoms_of(None, Path(args.train))[0]])
    else:
        atoms, energy = free_atoms_of(None, Path(args.train))[0], energy - offset(args.level, train)
    runs = []
    for seed in range(args.seeds):
        for arm in args.arms:
            config = config_for(settings, args.budget_s)
            if args.weight is not None:
                weights = config.training.model_copy(update={"weights": {"curvature": args.weight}})
                config = config.model_copy(update={"training": weights})
            own = [*train, (minimum, energy, forces)] if arm == "with" else train
            order = TrainingOrder(1, snapshot_for(own, atoms, None), None, None, seed)
            if arm == "with":
                order = replace(order, hessians=(hessian,))
            before = cpu_seconds()
            trained = NequIPTrainer(config, clock=cpu_seconds).run(order)
            assert isinstance(trained, TrainedCommittee), trained
            result = {
                "seed": seed,
                "arm": arm,
                **measured(trained.state, minimum, hessian),
                **errors(trained.state, test),
            }
            result |= {"steps": trained.metrics["steps"], "train_cpu_s": cpu_seconds() - before}
            runs.append(result)
            print({k: v for k, v in result.items() if k != "wavenumbers"}, file=sys.stderr, flush=True)
    names = ("wavenumber_mae", "wavenumber_max", "n_imaginary", "force_mae_mev_per_ang")
    means = {
        f"{arm}_{name}": float(np.mean([run[name] for run in runs if run["arm"] == arm]))
        for arm in args.arms
        for name in names
    }
    true = vibrations(minimum, hessian.matrix).wavenumbers.round(1).tolist()
    settings_ = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    result = {**means, "cost": cost, "wavenumbers": true, "settings": settings_, "runs": runs, "machine": machine()}
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
