"""Water and its cation in one model with embeddings of charge and multiplicity, beside a model of each alone.

GFN2-xTB labels of frames from GFN2-xTB dynamics; the same frames, the same number of them for each state and the same
number of gradient steps on each state in both: a batch of the model of both holds frames of either, and it takes twice
the steps. Errors are of forces (MAE, meV/Angstrom) on frames of other trajectories, of each member alone. Also, with
`--plain`, a model that is told nothing. Prints JSON. Minutes on one core:

    python benchmarks/charged_states.py --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ase.build import molecule
from ase.calculators.calculator import CalculationFailed
from fitted import Labelled, free_atoms, label, sample, snapshot_of

from alsys.config import CampaignConfig, parse_config
from alsys.frames import Frame
from alsys.potentials.base import CommitteeState
from alsys.potentials.factory import build_committee
from alsys.states import ElectronicState
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.evaluate import evaluate
from alsys.training.factory import build_trainer

STATES = {"water": ElectronicState(0, 1), "cation": ElectronicState(1, 2)}


def config_of(states: Sequence[str], steps: int, told: bool, compiled: bool) -> CampaignConfig:
    """A campaign on one or both, whose fits end after so many gradient steps."""
    return parse_config(
        {
            "name": "charged-states",
            "systems": [
                {
                    "name": name,
                    "molecule": "H2O",
                    "charge": STATES[name].charge,
                    "multiplicity": STATES[name].multiplicity,
                }
                for name in states
            ],
            "labeling": {"kind": "xtb"},
            "model": {"kind": "nequip", "members": 2, "r_max": 4.0, "states": "auto" if told else False},
            "training": {
                "budget_s": 3000.0, "max_epochs": 1_000_000, "max_gradient_steps": steps, "learning_rate": 0.01,
                "validation_share": 0.0, "bootstrap": 1.0, "compile": compiled,
            },
            "promotion": {"examine": False},
        }
    )  # fmt: skip


def frames_of(name: str, n_frames: int, seed: int) -> Labelled:
    """Labelled frames of a state, from trajectories of their own; where an SCF fails a new one begins."""
    state = STATES[name]
    start = Frame.molecule(molecule("H2O").numbers, molecule("H2O").positions, state.charge, state.multiplicity)
    labelled: Labelled = []
    for attempt in range(100):
        with contextlib.suppress(CalculationFailed):
            labelled += label(sample(start, 500.0, min(10, n_frames - len(labelled)), 1000 * seed + attempt))
        if len(labelled) >= n_frames:
            return labelled
    raise SystemExit(f"GFN2-xTB labels too few frames of {name}")


def errors_of(state: CommitteeState, test: Labelled) -> list[float]:
    """Force error of each member, meV/Angstrom."""
    frames = snapshot_of(test, [])
    alone = [replace(state, members=(member,)) for member in state.members]
    return [1e3 * float(evaluate(build_committee(one), frames).force_mae.mean()) for one in alone]


def fit(config: CampaignConfig, labelled: Labelled, seed: int) -> TrainedCommittee:
    """A committee."""
    snapshot = snapshot_of(labelled, free_atoms(labelled[0][0]))
    trained = build_trainer(config).run(TrainingOrder(1, snapshot, None, None, seed))
    if not isinstance(trained, TrainedCommittee):
        raise SystemExit(f"the fit failed: {trained.message}")
    return trained


def main(argv: Sequence[str] | None = None) -> None:
    """Prints errors and their ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--labels", type=int, default=40, help="of each state")
    parser.add_argument("--steps", type=int, default=2000, help="gradient steps on each state")
    parser.add_argument("--tests", type=int, default=200, help="test frames of each state")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--plain", action="store_true", help="also a model that is told nothing")
    parser.add_argument("--compile", action="store_true", help="compile training steps: minutes once, then faster")
    args = parser.parse_args(argv)
    started = time.perf_counter()
    runs: list[dict[str, Any]] = []
    for seed in args.seeds:
        train = {name: frames_of(name, args.labels, 10 * seed + i) for i, name in enumerate(STATES)}
        test = {name: frames_of(name, args.tests, 10_000 + 10 * seed + i) for i, name in enumerate(STATES)}
        both = [*train["water"], *train["cation"]]
        run: dict[str, Any] = {"seed": seed}
        joint = fit(config_of(list(STATES), 2 * args.steps, True, args.compile), both, seed)
        for name in STATES:
            own = fit(config_of([name], args.steps, True, args.compile), train[name], seed)
            run[name] = {
                "own": errors_of(own.state, test[name]),
                "both": errors_of(joint.state, test[name]),
                "steps": [own.metrics["steps"], joint.metrics["steps"]],
            }
            run[name]["ratio"] = float(np.mean(run[name]["both"]) / np.mean(run[name]["own"]))
        if args.plain:
            untold = fit(config_of(list(STATES), 2 * args.steps, False, args.compile), both, seed)
            for name in STATES:
                run[name]["untold"] = errors_of(untold.state, test[name])
        runs.append(run)
        sys.stderr.write(json.dumps(run) + "\n")
    summary: dict[str, Any] = {}
    for name in STATES:
        ratios = np.array([run[name]["ratio"] for run in runs])
        summary[name] = {
            "own": float(np.mean([run[name]["own"] for run in runs])),
            "both": float(np.mean([run[name]["both"] for run in runs])),
            "ratio": float(ratios.mean()),
            "ratio_standard_error": float(ratios.std(ddof=1) / ratios.size**0.5) if ratios.size > 1 else None,
        }
        if args.plain:
            summary[name]["untold"] = float(np.mean([run[name]["untold"] for run in runs]))
    facts = {"labels": args.labels, "steps": args.steps, "tests": args.tests, "unit": "meV/Angstrom"}
    print(json.dumps({**facts, "summary": summary, "runs": runs, "wall_s": time.perf_counter() - started}, indent=1))


if __name__ == "__main__":
    main()
