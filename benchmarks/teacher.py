"""Starting from a teacher against starting from nothing: force errors after a few DFT frames of one molecule.

For each draw of `--n` frames: (a) a committee is trained on ANI-1x labels of frames that ANI-1x's own dynamics visits
from those very frames, then on the frames with their DFT labels; (b) a committee of the same architecture is trained
on the frames alone, for as many seconds as (a) has used in all, labelling included. Errors are of the mean of the
committee on frames that neither has seen. Beside them: the teacher itself, and what it has taught before any DFT label.

    python benchmarks/teacher.py --data FILE --atoms FILE [--n 20] [--draws 3] [--teach-s 120] [--fit-s 60] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace

import ase.io
import numpy as np
from orchestration import machine

from alsys.config import CampaignConfig, parse_config
from alsys.frames import Arm, Frame
from alsys.interop.extxyz import read_labelled
from alsys.potentials.factory import build_committee
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, Trainer, TrainingOrder
from alsys.training.evaluate import batch_of, evaluate
from alsys.training.snapshots import joined, snapshot_of
from alsys.training.start import StartingTrainer, rebased
from alsys.training.teacher import build_teacher
from alsys.training.trainer import NequIPTrainer

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


def free_atoms(path: str, numbers: np.ndarray) -> Snapshot:
    atoms = [atom for atom in ase.io.read(path, ":", format="extxyz") if atom.numbers[0] in numbers]
    frames = [Frame.molecule(a.numbers, np.zeros((1, 3)), multiplicity=GROUND[int(a.numbers[0])]) for a in atoms]
    energies = np.array([atom.get_potential_energy() for atom in atoms])
    return snapshot_of(frames, energies, np.zeros((len(atoms), 3)), system="molecule", arms=[Arm.ATOM] * len(atoms))


def config_of(args: argparse.Namespace, budget_s: float, *, is_taught: bool, seed: int) -> CampaignConfig:
    training = {
        "budget_s": budget_s, "max_epochs": 10**6, "validation_share": 0.0, "bootstrap": 1.0,
        **({"compile": True} if args.compile else {}),
    }  # fmt: skip
    if is_taught:
        training["start"] = {
            "kind": "teacher", "teacher": args.teacher, "frames": args.frames, "temperatures": args.temperatures,
            "budget_s": args.teach_s, "learning_rate": args.learning_rate,
        }  # fmt: skip
    return parse_config(
        {
            "name": "teacher",
            "seed": seed,
            "systems": [{"name": "molecule", "smiles": "CCO"}],
            "labeling": {"kind": "analytic"},
            "model": {
                "kind": "nequip",
                "num_layers": args.layers,
                "l_max": args.l_max,
                "num_features": 32,
                "members": args.members,
            },
            "training": training,
        }
    )


def errors(result: TrainedCommittee, test: Snapshot) -> dict[str, float]:
    found = evaluate(build_committee(result.state), test)
    return {
        "force_mae_mev_per_ang": 1e3 * float(found.force_mae.mean()),
        "energy_mae_mev": 1e3 * float((found.energy * test.n_atoms).mean()),
    }


def fitted(trainer: Trainer, train: Snapshot, seed: int) -> TrainedCommittee:
    result = trainer.fit(TrainingOrder(1, train, None, None, seed=seed))
    if not isinstance(result, TrainedCommittee):
        raise SystemExit(f"the fit failed: {result.message}")
    return result


class Kept(StartingTrainer):
    """Keeps what the teacher has taught, to measure it before any DFT label."""

    taught_state = None

    def _taught(self, order: TrainingOrder):  # type: ignore[no-untyped-def]
        self.taught_state = super()._taught(order)
        return self.taught_state


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
    parser.add_argument("--teach-s", type=float, default=120.0)
    parser.add_argument("--fit-s", type=float, default=60.0)
    parser.add_argument("--learning-rate", type=float, default=None, help="of the fit after teaching")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--l-max", type=int, default=1)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    data = labelled(args.data)
    atoms = free_atoms(args.atoms, np.unique(data.numbers))
    order = np.random.default_rng(0).permutation(data.n_frames)
    test, pool = data.select(order[: args.n_test]), order[args.n_test :]
    _, teacher_forces = build_teacher(args.teacher).labels(batch_of(test))
    draws = []
    for seed in range(args.draws):
        rows = np.sort(np.random.default_rng([1, seed]).choice(pool, args.n, replace=False))
        train = joined(atoms, replace(data.select(rows), trajectory=np.arange(args.n)))
        started = time.perf_counter()
        config = config_of(args, args.fit_s, is_taught=True, seed=seed)
        trainer = Kept(config, None)
        taught = fitted(trainer, train, seed)
        used = time.perf_counter() - started
        before = rebased(trainer.taught_state, train, config.training)
        untaught = evaluate(build_committee(before), test)
        alone = fitted(NequIPTrainer(config_of(args, used, is_taught=False, seed=seed)), train, seed)
        draw = {
            "seconds_each": used,
            "taught": errors(taught, test),
            "taught_before_dft_force_mae_mev_per_ang": 1e3 * float(untaught.force_mae.mean()),
            "alone": errors(alone, test),
            "steps_alone_epochs": alone.metrics["epochs"],
        }
        draw["ratio"] = draw["taught"]["force_mae_mev_per_ang"] / draw["alone"]["force_mae_mev_per_ang"]
        draws.append(draw)
        sys.stderr.write(json.dumps(draw) + "\n")
    ratios = np.array([draw["ratio"] for draw in draws])
    result = {
        "teacher": args.teacher,
        "n_train": args.n,
        "n_test": args.n_test,
        "frames_taught": args.frames,
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
