"""Learning the difference to GFN2-xTB against learning labels: force errors on held-out frames of acetylacetone.

Both arms see the same frames of the same splits, with the same architecture, seeds and gradient steps; only what is
learned differs: PBE-D3 labels of the revised acetylacetone data, or what is left of them after GFN2-xTB. Errors are
those of the mean of the committee on frames that neither arm has seen, from the trainer's own metrics. Free atoms at
both levels set the zero of energies. It also measures what the baseline costs at each step of a batch of walkers.

    python benchmarks/delta.py --train FILE --atoms FILE [--n 10 30 100] [--splits 4] [--steps 2000] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import ase.io
import numpy as np
from fitted import Labelled, config_of, snapshot_of
from orchestration import machine
from scipy.stats import t as student

from alsys.config import CampaignConfig
from alsys.frames import ARMS, Arm, Frame
from alsys.interop.extxyz_files import read_labelled
from alsys.labeling.atoms import free_atom_frames
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.baseline import Baseline
from alsys.potentials.factory import build_committee
from alsys.potentials.xtb import XTBMethod
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.factory import build_trainer

BATCH_SIZE = 5
WALKERS = 8


@dataclass(frozen=True)
class Data:
    """Labelled frames and free atoms, with what GFN2-xTB says of them.

    Attributes:
        frames: Frames with labels.
        atoms: Free atoms with labels.
        baseline: Energy and forces of each frame.
        baseline_of_atoms: Likewise of the free atoms.
        baseline_ms: Milliseconds that GFN2-xTB took for a frame.
    """

    frames: Labelled
    atoms: Labelled
    baseline: Labelled
    baseline_of_atoms: Labelled
    baseline_ms: float

    @classmethod
    def read(cls, train: str, atoms: str) -> Data:
        """Reads both files and evaluates GFN2-xTB once for each frame."""
        frames = read_labelled(train)
        energies = {int(image.numbers[0]): image.get_potential_energy() for image in ase.io.read(atoms, ":")}
        free = [(frame, energies[int(frame.numbers[0])], np.zeros((1, 3))) for frame in free_atom_frames(energies)]
        started = time.perf_counter()
        baseline = _evaluate([frame for frame, _, _ in frames])
        baseline_ms = 1e3 * (time.perf_counter() - started) / len(frames)
        return cls(frames, free, baseline, _evaluate([frame for frame, _, _ in free]), baseline_ms)

    def snapshot(self, train: Sequence[int], test: Sequence[int]) -> Snapshot:
        """Free atoms, training frames, and test frames as the random arm."""
        rows = [*train, *test]
        snapshot = snapshot_of([self.frames[i] for i in rows], self.atoms)
        beside = snapshot_of([self.baseline[i] for i in rows], self.baseline_of_atoms)
        arm = snapshot.arm.copy()
        arm[len(self.atoms) + len(train) :] = ARMS.index(Arm.RANDOM)
        return replace(snapshot, arm=arm, baseline_energy=beside.energy, baseline_forces=beside.forces)


def _evaluate(frames: Sequence[Frame]) -> Labelled:
    values = Baseline(XTBMethod("GFN2-xTB").spec).evaluate(FrameBatch.of(frames))
    if values.is_failed.any():
        raise SystemExit(f"GFN2-xTB failed on frame {int(values.is_failed.argmax())}")
    ends = np.cumsum([frame.n_atoms for frame in frames])[:-1]
    return list(zip(frames, values.energy.tolist(), np.split(values.forces, ends), strict=True))


def config_for(args: argparse.Namespace, n_train: int, delta: str | None) -> CampaignConfig:
    """The same gradient steps whatever the number of frames; time is no limit."""
    model = {
        "members": args.members,
        "r_max": 5.0,
        "num_layers": 2,
        "l_max": args.l_max,
        "num_features": args.features,
    }
    epochs = max(1, round(args.steps / -(-n_train // BATCH_SIZE)))
    config = config_of("CC(=O)CC(C)=O", model=model, budget_s=1e6)
    baseline = None if delta is None else {"kind": delta}
    training = {**config.training.model_dump(), "bootstrap": 1.0, "max_epochs": epochs, "delta": delta}
    labeling = {**config.labeling.model_dump(), "method": "GFN1-xTB", "baseline": baseline}
    return CampaignConfig.model_validate({**config.model_dump(), "training": training, "labeling": labeling})


def fit(config: CampaignConfig, snapshot: Snapshot, seed: int) -> TrainedCommittee:
    """One committee."""
    trained = build_trainer(config).run(TrainingOrder(1, snapshot, None, None, seed))
    if not isinstance(trained, TrainedCommittee):
        raise SystemExit(f"the fit failed: {trained.message}")
    return trained


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and 95 % interval (Student) over splits."""
    array = np.array(values)
    half = float(student.ppf(0.975, len(array) - 1) * array.std(ddof=1) / sqrt(len(array))) if len(array) > 1 else None
    return {"mean": float(array.mean()), "half_width_95": half, "values": [float(v) for v in values]}


def step_cost(state: CommitteeState, data: Data, seconds: float = 3.0) -> dict[str, float]:
    """Milliseconds to evaluate a batch of walkers, with the baseline and without it."""
    batch = FrameBatch.of([frame for frame, _, _ in data.frames[:WALKERS]])
    result: dict[str, float] = {"walkers": WALKERS}
    for name, one in (("with_baseline_ms", state), ("without_baseline_ms", replace(state, baseline=None))):
        committee = build_committee(one)
        committee.evaluate(batch)
        started, n = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            committee.evaluate(batch)
            n += 1
        result[name] = 1e3 * (time.perf_counter() - started) / n
    return result


def main() -> None:
    """Prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", required=True, help="labelled frames, extxyz")
    parser.add_argument("--atoms", required=True, help="free atoms at the same level, extxyz")
    parser.add_argument("--n", type=int, nargs="+", default=[30], help="training frames")
    parser.add_argument("--splits", type=int, default=4, help="splits, each with a seed of its own")
    parser.add_argument("--test", type=int, default=200, help="held-out frames of each split")
    parser.add_argument("--steps", type=int, default=2000, help="gradient steps of one member")
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--l-max", type=int, default=1)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--json", action="store_true", help="one line instead of indented JSON")
    args = parser.parse_args()
    data = Data.read(args.train, args.atoms)
    result: dict[str, Any] = {"settings": vars(args), "baseline_ms_per_frame": data.baseline_ms}
    state = None
    for n in args.n:
        runs: dict[str, list[dict[str, float]]] = {"labels": [], "gfn2-xtb": []}
        alone = []
        for seed in range(args.splits):
            order = np.random.default_rng(seed).permutation(len(data.frames)).tolist()
            held_out, chosen = order[: args.test], order[args.test : args.test + n]
            alone += [float(np.abs(data.frames[i][2] - data.baseline[i][2]).mean()) for i in held_out]
            snapshot = data.snapshot(chosen, held_out)
            for name, delta in (("labels", None), ("gfn2-xtb", "gfn2-xtb")):
                trained = fit(config_for(args, n, delta), snapshot, seed)
                metrics = trained.metrics
                runs[name].append(
                    {
                        "force_mae": 1e3 * metrics["force_mae_random_arm"],
                        "force_rmse": 1e3 * metrics["force_rmse_random_arm"],
                        "energy_mae": 1e3 * metrics["energy_mae_random_arm"] * data.frames[0][0].n_atoms,
                        "force_mae_train": 1e3 * metrics["force_mae_train"],
                        "wall_s": metrics["wall_s"],
                    }
                )
                state = trained.state
                print(n, seed, name, runs[name][-1], file=sys.stderr, flush=True)
        ratios = [b["force_mae"] / a["force_mae"] for a, b in zip(runs["labels"], runs["gfn2-xtb"], strict=True)]
        result[f"n_{n}"] = {
            "baseline_alone_force_mae_mev_per_ang": 1e3 * float(np.mean(alone)),
            "force_mae_ratio": interval(ratios),
            **{
                name: {
                    "force_mae_mev_per_ang": interval([run["force_mae"] for run in of_arm]),
                    "force_rmse_mev_per_ang": interval([run["force_rmse"] for run in of_arm]),
                    "energy_mae_mev": interval([run["energy_mae"] for run in of_arm]),
                    "force_mae_train_mev_per_ang": interval([run["force_mae_train"] for run in of_arm]),
                    "wall_s": [run["wall_s"] for run in of_arm],
                }
                for name, of_arm in runs.items()
            },
        }
    if state is not None:
        result["step"] = step_cost(state, data)
    result["machine"] = machine()
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
