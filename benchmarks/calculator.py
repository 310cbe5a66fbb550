"""A calculator's bounds on held-out frames of a file, and its time a step: compiled and eager, all members and one.

A committee is fitted to frames of a file; its bound is measured on others (`n_random`, which play the random arm), and
counted on the rest, as a consumer sees it: `load_calculator` on a bundle. ``within_bound`` is the mean over trusted
frames of the share of atoms whose force error is below the bound, ``within_bound_all`` that of all frames. ``foreign``
is a molecule of the same elements that the model has never seen. Times are medians over steps of frames in turn.

    python benchmarks/calculator.py --train FILE [--n-train 200] [--n-random 50] [--budget-s 240] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from accuracy import config_for, free_atoms_of
from ase import Atoms
from ase.build import molecule
from fitted import Labelled, snapshot_of
from orchestration import machine

import alsys
from alsys.interop.calculator import AlsysCalculator
from alsys.interop.extxyz_files import read_labelled
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import write_bundle
from alsys.potentials.factory import build_committee
from alsys.potentials.force_bound import ForceBound
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.model_errors import atom_errors
from alsys.training.trainer import NequIPTrainer


def fitted(args: argparse.Namespace, labelled: Labelled, atoms: Labelled) -> CommitteeState:
    config = config_for(args, args.budget_s)
    trained = NequIPTrainer(config).run(TrainingOrder(1, snapshot_of(labelled, atoms), None, None, 0))
    if not isinstance(trained, TrainedCommittee):
        raise SystemExit(f"no fit: {trained}")
    return trained.state


def step_ms(calculator: AlsysCalculator, frames: list[Atoms], n: int) -> float:
    times = []
    for k in range(n + 5):
        atoms = frames[k % len(frames)]
        started = time.perf_counter()
        calculator.calculate(atoms, ["forces"])
        times.append(time.perf_counter() - started)
    return 1e3 * median(times[5:])


def judged(calculator: AlsysCalculator, labelled: Labelled) -> dict[str, float]:
    shares, is_trusted = [], []
    for frame, _, forces in labelled:
        calculator.calculate(Atoms(frame.numbers, frame.positions), ["forces"])
        error = np.linalg.norm(calculator.results["forces"] - forces, axis=1)
        shares.append(float((error <= calculator.results["force_bound"]).mean()))
        is_trusted.append(calculator.results["is_trusted"])
    trusted = [share for share, is_one in zip(shares, is_trusted, strict=True) if is_one]
    return {
        "n_test": len(labelled),
        "trusted": float(np.mean(is_trusted)),
        "within_bound": float(np.mean(trusted)),
        "within_bound_standard_error": float(np.std(trusted, ddof=1) / np.sqrt(len(trusted))),
        "within_bound_all": float(np.mean(shares)),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, type=Path, help="labelled frames, extxyz")
    parser.add_argument("--n-train", type=int, default=200)
    parser.add_argument("--n-random", type=int, default=50)
    parser.add_argument("--budget-s", type=float, default=240.0, help="CPU seconds of the fit")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--foreign", default="CH3CHO", help="of ase.build.molecule")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(
        r_max=5.0, layers=3, l_max=1, features=32, learning_rate=0.01, batch_size=5, energy_weight=1.0,
        decay_share=0.5, ema=0.99, parallel=1, eager=False, delta=None,
    )  # fmt: skip
    return parser.parse_args()


def main() -> None:
    args = arguments()
    rows = list(read_labelled(args.train))
    order = np.random.default_rng(0).permutation(len(rows))
    labelled: Labelled = [rows[i] for i in order]
    train, random, test = np.split(np.arange(len(labelled)), [args.n_train, args.n_train + args.n_random])
    atoms, _ = free_atoms_of(None, args.train)
    state = fitted(args, [labelled[i] for i in train], atoms)
    errors = atom_errors(build_committee(state), snapshot_of([labelled[i] for i in random], []))
    bound = ForceBound.measured(errors.deviation, errors.error)
    if bound is None:
        raise SystemExit("too few frames for a bound")
    with tempfile.TemporaryDirectory() as folder:
        path = write_bundle(Path(folder) / "v0001", state, {"metrics": dict(bound.metrics().items())})
        compiled = alsys.load_calculator(path, compile=True, device="cpu")
        one = alsys.load_calculator(path, compile=True, members=1, device="cpu")
        eager = alsys.load_calculator(path, compile=False, device="cpu")
        frames = [Atoms(labelled[i][0].numbers, labelled[i][0].positions) for i in test[:20]]
        ms = {"committee": step_ms(compiled, frames, args.steps), "one_member": step_ms(one, frames, args.steps),
              "eager": step_ms(eager, frames, max(10, args.steps // 10))}  # fmt: skip
        other = molecule(args.foreign)
        compiled.calculate(other, ["forces"])
        foreign = {
            "molecule": args.foreign,
            "is_trusted": compiled.results["is_trusted"],
            "deviation_over_largest": compiled.results["max_force_deviation"] / bound.largest_deviation,
        }
        result = {
            **judged(compiled, [labelled[i] for i in test]),
            "probability": bound.probability,
            "force_mae_random": float(errors.mae.mean()),
            "step_ms": ms,
            "committee_over_one": ms["committee"] / ms["one_member"],
            "foreign": foreign,
            "machine": machine(),
        }  # fmt: skip
    json.dump(result, sys.stdout, indent=None if args.json else 1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
