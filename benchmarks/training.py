"""Training: speed against a bare loop, warm starts against fits from scratch, and forgetting.

``speed``: frames per second and core of the trainer's loop (draws of batches, schedule, clipping, averages, guards)
against a bare loop of the same model on one batch that is built beforehand (gradient and Adam), eager and compiled; the
best of several turns of each, in turn. ``stream``: ten refits from 10 to 200 frames, each with a share of the gradient
steps that a fit from scratch at each size gets; errors on held-out frames, and the number of steps of both.
``forgetting``: the error on the first file's frames after the stream went on with the second file's.

    python benchmarks/training.py --train FILE [--second FILE] [--parts speed stream forgetting] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import errors, free_atoms_of
from fitted import Labelled, snapshot_of
from orchestration import machine

from alsys.config import CampaignConfig, parse_config
from alsys.interop.extxyz_files import read_labelled
from alsys.potentials.base import CommitteeState
from alsys.potentials.nequip import build_model
from alsys.store.base import Snapshot
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.factory import build_trainer
from alsys.training.fit import Budget, Optimisation, fit_model
from alsys.training.loss import LossWeights, Objective
from alsys.training.replay import Shuffle
from alsys.training.step import CompiledStep, EagerStep, Layout, Step, compile_step, load_package
from alsys.training.tensors import TrainingFrames

OBJECTIVE = Objective(LossWeights(1.0, 1.0), LossWeights(1.0, 1.0))
SIZES = (10, 14, 20, 28, 38, 52, 74, 102, 144, 200)


def spec_of(args: argparse.Namespace, snapshot: Snapshot) -> dict[str, Any]:
    from ase.data import chemical_symbols

    return {
        "elements": [chemical_symbols[z] for z in np.unique(snapshot.numbers)],
        "r_max": 5.0,
        "num_layers": args.layers,
        "l_max": args.l_max,
        "num_features": args.features,
        "parity": False,
        "dtype": "float32",
        "avg_num_neighbors": 8.0,
    }


def bare_eager(
    model: torch.nn.Module, data: dict[str, torch.Tensor], forces: torch.Tensor, energy: torch.Tensor
) -> Callable[[], None]:
    """What a script of ten lines does."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005, amsgrad=True)

    def step() -> None:
        out = model(dict(data))
        loss = torch.nn.functional.mse_loss(out["forces"].double(), forces)
        loss = loss + torch.nn.functional.mse_loss(out["total_energy"].reshape(-1).double(), energy)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def bare_compiled(step: CompiledStep, weights: torch.Tensor, batch: Any) -> Callable[[], None]:
    """The package and Adam, nothing else."""
    parameter = torch.nn.Parameter(weights.clone())
    optimizer = torch.optim.Adam([parameter], lr=0.005, amsgrad=True, fused=True)

    def one() -> None:
        parameter.grad = step.gradient(parameter.detach(), batch, OBJECTIVE.first)[1]
        optimizer.step()

    return one


def speed(args: argparse.Namespace, snapshot: Snapshot) -> dict[str, Any]:
    """Frames per second and core."""
    spec = spec_of(args, snapshot)
    size, n_steps = args.batch_size, args.speed_steps
    result: dict[str, Any] = {"batch_size": size, "spec": spec}
    started = time.perf_counter()
    compile_step(spec, OBJECTIVE, 1)
    result["compile_s"] = time.perf_counter() - started
    for name in ("eager", "compiled"):
        model = build_model(spec, seed=0)
        frames = TrainingFrames(snapshot, spec, is_on_pairs=name == "compiled")
        weights = Layout.of(model).flat(model)
        batch = frames.batch(np.arange(size))
        step: Step
        if name == "eager":
            step = EagerStep(build_model(spec, seed=0), OBJECTIVE)
            bare = bare_eager(model, batch.data, batch.forces, batch.energy)
        else:
            package = load_package(model, spec, OBJECTIVE, 1)
            if package is None:
                raise SystemExit("the step cannot be compiled here")
            step = CompiledStep(package, model)
            bare = bare_compiled(step, weights, batch)
        how = Optimisation(OBJECTIVE, 0.005, 0.99, 0.5)
        rates: dict[str, list[float]] = {"trainer": [], "bare": []}
        for _ in range(args.turns):
            draw = Shuffle(np.arange(snapshot.n_frames // size * size), size, np.random.default_rng(0))
            cpu = time.process_time()
            fit_model(step, weights, frames, draw, how, Budget(1e9, 10**9, n_steps))
            rates["trainer"].append(size * n_steps / (time.process_time() - cpu))
            cpu = time.process_time()
            for _ in range(n_steps):
                bare()
            rates["bare"].append(size * n_steps / (time.process_time() - cpu))
        best = {key: max(values) for key, values in rates.items()}
        result[name] = {
            "trainer_frames_per_s": best["trainer"],
            "bare_frames_per_s": best["bare"],
            "overhead": best["bare"] / best["trainer"] - 1.0,
            "turns": rates,
        }
    result["compiled_over_eager"] = result["compiled"]["trainer_frames_per_s"] / result["eager"]["trainer_frames_per_s"]
    return result


def config_for(args: argparse.Namespace, max_steps: int, **training: Any) -> CampaignConfig:
    """Steps are the only limit."""
    settings: dict[str, Any] = {
        "budget_s": 1e6,
        "max_epochs": 10_000_000,
        "max_gradient_steps": max_steps,
        "learning_rate": 0.01,
        "batch_size": args.batch_size,
        "validation_share": 0.0,
        "compile": True,
        "renew_every": 0,
        **training,
    }
    return parse_config(
        {
            "name": "training",
            "systems": [{"name": "molecule", "smiles": "CCO"}],
            "labeling": {"kind": "xtb"},
            "model": {
                "kind": "nequip",
                "members": args.members,
                "num_layers": args.layers,
                "l_max": args.l_max,
                "num_features": args.features,
            },
            "training": settings,
            "promotion": {"examine": False},
        }
    )


def tested(state: CommitteeState, test: Labelled) -> float:
    """Force MAE on frames, meV/Angstrom."""
    return errors(state, test)["force_mae_mev_per_ang"]


def fitted(
    trainer: Any,
    version: int,
    snapshot: Snapshot,
    parent: CommitteeState | None,
    seed: int,
    known: Sequence[str] = (),
) -> TrainedCommittee:
    result = trainer.run(TrainingOrder(version, snapshot, parent, None, seed, known=frozenset(known)))
    if not isinstance(result, TrainedCommittee):
        raise SystemExit(f"the fit failed: {result.message}")
    return result


def stream(args: argparse.Namespace, data: Labelled, atoms: Labelled, seed: int) -> dict[str, Any]:
    """Ten refits, and a fit from scratch at each size."""
    order = np.random.default_rng(seed).permutation(len(data))
    test = [data[i] for i in order[-args.n_test :]]
    warm_steps = round(args.warm_share * args.steps)
    scratch, warm = build_trainer(config_for(args, args.steps)), build_trainer(config_for(args, warm_steps))
    first = build_trainer(config_for(args, args.steps))
    rows: list[dict[str, float]] = []
    parent: CommitteeState | None = None
    known: tuple[str, ...] = ()
    for version, size in enumerate(SIZES, start=1):
        snapshot = snapshot_of([data[i] for i in order[:size]], atoms)
        anew = fitted(scratch, version, snapshot, None, seed + version)
        if parent is None:
            going = fitted(first, version, snapshot, None, seed + version)
        else:
            going = fitted(warm, version, snapshot, parent, seed + version, known)
        parent, known = going.state, snapshot.frame_ids
        row = {
            "n_train": size,
            "scratch": tested(anew.state, test),
            "warm": tested(going.state, test),
            "scratch_steps": anew.metrics["steps"],
            "warm_steps": going.metrics["steps"],
        }
        row["ratio"] = row["warm"] / row["scratch"]
        rows.append(row)
        print(seed, row, file=sys.stderr, flush=True)
    total = sum(row["warm_steps"] for row in rows) / sum(row["scratch_steps"] for row in rows)
    return {"rows": rows, "steps_share_first_fit_included": total, "worst_ratio": max(row["ratio"] for row in rows[1:])}


def forgetting(args: argparse.Namespace, paths: Sequence[str], seed: int) -> dict[str, Any]:
    """The first domain's error before and after the stream went on with the second."""
    first, second = (read_labelled(path) for path in paths)
    atoms = {int(row[0].numbers[0]): row for path in paths for row in free_atoms_of(None, Path(path))[0]}
    rng = np.random.default_rng(seed)
    one, two = ([data[i] for i in rng.permutation(len(data))] for data in (first, second))
    test, train = one[-args.n_test :], one[:50]
    trainer = build_trainer(config_for(args, args.steps))
    learned = two_domains(train, [], list(atoms.values()))
    parent = fitted(trainer, 1, learned, None, seed)
    before = tested(parent.state, test)
    state, trail = parent.state, []
    for version, size in enumerate((50, 100, 150, 200), start=2):
        snapshot = two_domains(train, two[:size], list(atoms.values()))
        state = fitted(trainer, version, snapshot, state, seed + version, learned.frame_ids).state
        learned = snapshot
        trail.append(tested(state, test))
        print(seed, "forgetting", size, before, trail[-1], file=sys.stderr, flush=True)
    return {"before": before, "after": trail, "worst_growth": max(trail) / before - 1.0}


def two_domains(first: Labelled, second: Labelled, atoms: Labelled) -> Snapshot:
    """Frames of two systems; atoms of elements of either."""
    from dataclasses import replace

    elements = {int(z) for frame, _, _ in first for z in frame.numbers}
    snapshot = snapshot_of([*first, *second], [row for row in atoms if int(row[0].numbers[0]) in elements])
    n_other = snapshot.n_frames - len(second)
    system = (np.arange(snapshot.n_frames) >= n_other).astype(np.int32)
    return replace(snapshot, systems=("first", "second"), system=system)


def main() -> None:
    """Prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", required=True, help="labelled frames, extxyz")
    parser.add_argument("--second", help="labelled frames of another molecule at about the same level, extxyz")
    parser.add_argument("--parts", nargs="+", choices=["speed", "stream", "forgetting"], default=["speed", "stream"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--n-test", type=int, default=200)
    parser.add_argument("--steps", type=int, default=4000, help="gradient steps of a member, from scratch")
    parser.add_argument("--warm-share", type=float, default=0.25, help="share of them that a refit gets")
    parser.add_argument("--speed-steps", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--l-max", type=int, default=1)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one line instead of indented JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = read_labelled(args.train)
    atoms = free_atoms_of(None, Path(args.train))[0]
    elements = {int(z) for frame, _, _ in data for z in frame.numbers}
    atoms = [row for row in atoms if int(row[0].numbers[0]) in elements]
    result: dict[str, Any] = {"settings": vars(args)}
    if "speed" in args.parts:
        result["speed"] = speed(args, snapshot_of(data[:100], []))
    if "stream" in args.parts:
        result["stream"] = [stream(args, data, atoms, seed) for seed in range(args.seeds)]
    if "forgetting" in args.parts:
        if args.second is None:
            raise SystemExit("--parts forgetting needs --second")
        result["forgetting"] = [forgetting(args, (args.train, args.second), seed) for seed in range(args.seeds)]
    result["machine"] = machine()
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
