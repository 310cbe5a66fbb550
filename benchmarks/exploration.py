"""Walker-steps a second of ethanol under a committee of four, against ASE and torch-sim, all in one run on one thread.

Committee: 2 layers, l_max 1, 32 features, float32, fitted for some seconds to GFN2-xTB labels so that dynamics make
sense; all members are evaluated at every step. Time step 0.5 fs, Langevin at 300 K. Contestants take turns and the
ratios are medians over the turns, so a machine that is busy for a while disturbs all alike.

- `ase_eager`: ASE's Langevin, one eager `NequIPCalculator` a member (what most packages do).
- `ase_compiled`: the same with AOTInductor packages from NequIP's own export.
- `torchsim`: torch-sim's Langevin on 32 walkers, compiled members that share one neighbour list.
- `explorer_N`: `WalkerExplorer` with N walkers as a campaign runs it: checks, candidates and random arm included.
- `explorer_32_every_5`: all members at every fifth step, the first one between.
- `water_N`: cost per atom-step of N periodic boxes of 64 molecules, at constant volume, in microseconds.

`share_outside_model` is the share of the explorer's time at 32 walkers that is not spent inside the compiled members.
torch-sim is in the extra `benchmarks`; without it its keys are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from ase import Atoms
from fitted import config_of, fit, label, sample, start_of
from md_peers import ase_rate, compile_for, compiled_member, eager_member, torchsim_rate
from orchestration import machine

from alsys.config import CampaignConfig
from alsys.exploration.base import ExplorationOrder
from alsys.exploration.explorer import WalkerExplorer
from alsys.frames import Frame
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.compiled import CompiledNequIPCommittee

N_MEMBERS = 4
MODEL = {"members": N_MEMBERS, "num_layers": 2, "l_max": 1, "num_features": 32, "parity": True}
CHUNK_STEPS = 50  # the default of `exploration.chunk_steps`
TARGETS = {"ratio_to_ase_eager": 35.0, "ratio_to_ase_compiled": 5.5, "ratio_to_torchsim": 1.5}


class Timed:
    """A compiled member that adds up the seconds spent in it."""

    seconds = 0.0

    def __init__(self, run: Callable[[Sequence[torch.Tensor]], Any]) -> None:
        self._run = run

    def __call__(self, inputs: Sequence[torch.Tensor]) -> Any:
        """Evaluates the member."""
        started = time.perf_counter()
        result = self._run(inputs)
        Timed.seconds += time.perf_counter() - started
        return result


def build_timed(state: CommitteeState) -> CompiledNequIPCommittee:
    """A compiled committee whose members are timed."""
    committee = CompiledNequIPCommittee(state)
    if not committee.is_compiled:
        raise SystemExit("NequIP cannot be compiled here; see the warning")
    committee._runs = [Timed(run) for run in committee._runs]
    return committee


def explorer_of(config: CampaignConfig, start: Frame, n_walkers: int, state: CommitteeState, every: int = 1) -> Any:
    """An explorer with its weights loaded, and a function that advances it and returns walker-steps."""
    settings = {
        "walkers": n_walkers, "temperatures": [300], "spacing_steps": 20, "uncertainty_every": every,
        "trust": {"kind": "fixed", "accurate_below": 0.5, "failed_above": 2.0},
    }  # fmt: skip
    exploration = config.exploration.model_validate({**config.exploration.model_dump(), **settings})
    explorer = WalkerExplorer(
        config.model_copy(update={"exploration": exploration}), {"molecule": [start]}, 0, build=build_timed
    )
    explorer.run(ExplorationOrder(n_steps=2, state=state))
    count = 0

    def advance(n_steps: int) -> int:
        nonlocal count
        count += 1
        report = explorer.run(ExplorationOrder(n_steps=n_steps, n_random=1, trajectory_base=count << 20))
        return report.walker_steps

    return advance


def rate_of(advance: Callable[[int], int], n_steps: int, seconds: float) -> float:
    """Walker-steps a second."""
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        done += advance(n_steps)
    return done / (time.perf_counter() - started)


def water_cost(config: CampaignConfig, state: CommitteeState, n_boxes: int, seconds: float) -> float:
    """Microseconds per atom-step of `n_boxes` periodic boxes of 64 water molecules under a compiled committee."""
    rng = np.random.default_rng(0)
    edge = 12.42  # Angstrom, 1 g/cm3
    sites = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * (edge / 4)
    shape = np.array([[0.0, 0.0, 0.0], [0.757, 0.586, 0.0], [-0.757, 0.586, 0.0]])
    positions = (sites[:, None] + shape + 0.02 * rng.normal(size=(64, 3, 3))).reshape(-1, 3)
    box = Frame(np.tile([8, 1, 1], 64), positions, np.eye(3) * edge, np.ones(3, dtype=np.bool_))
    committee = CompiledNequIPCommittee(state)
    batch = FrameBatch.of([box] * n_boxes)
    committee.evaluate(batch)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        committee.evaluate(batch)
        count += 1
    return (time.perf_counter() - started) / count / batch.numbers.size * 1e6


def swap(config: CampaignConfig, start: Frame, old: CommitteeState, new: CommitteeState) -> dict[str, float]:
    """Seconds that a chunk takes longer with new weights than without, and how equal forces then are."""
    explorer = WalkerExplorer(config, {"molecule": [start]}, 0, build=build_timed)
    explorer.run(ExplorationOrder(n_steps=2, state=old))
    times = []
    for state in (None, new):
        started = time.perf_counter()
        report = explorer.run(ExplorationOrder(n_steps=2, state=state, trajectory_base=1 << 20))
        times.append(time.perf_counter() - started)
    if report.model_version != new.version:
        raise SystemExit("the explorer did not take the new weights")
    batch = FrameBatch.of([start, start])
    found = explorer._committee.evaluate(batch).forces  # type: ignore[union-attr]
    expected = CompiledNequIPCommittee(new).evaluate(batch).forces
    return {"new_weights_s": times[1] - times[0], "force_difference_ev_per_ang": float(np.abs(found - expected).max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one line")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each contestant in each turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--fit-s", type=float, default=60.0, help="seconds of fitting the committee first")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = config_of("CCO", model=MODEL, budget_s=args.fit_s)
    start = start_of(config)
    state = fit(config, label(sample(start, 500.0, 80, seed=0)))
    spec = dict(state.spec)
    atoms = Atoms(start.numbers, start.positions)
    walkers = {n: explorer_of(config, start, n, state) for n in (1, 8, 32, 128)}
    every = explorer_of(config, start, 32, state, every=5)
    eager, compiled = eager_member(spec), compiled_member(compile_for("ase", spec, atoms))
    contestants: dict[str, Callable[[float], float]] = {
        "ase_eager": lambda s: ase_rate(eager, N_MEMBERS, atoms, s),
        "ase_compiled": lambda s: ase_rate(compiled, N_MEMBERS, atoms, s),
        **{f"explorer_{n}": partial(rate_of, walkers[n], CHUNK_STEPS) for n in walkers},
        "explorer_32_every_5": lambda s: rate_of(every, CHUNK_STEPS, s),
    }
    if importlib.util.find_spec("torch_sim") is not None:
        batched = compile_for("batch", spec, atoms)
        contestants["torchsim"] = lambda s: torchsim_rate(batched, N_MEMBERS, atoms, 32, s)
    turns: list[dict[str, float]] = []
    outside: list[float] = []
    for _ in range(args.turns):
        turn = {}
        for name, run in contestants.items():
            Timed.seconds = 0.0
            started = time.perf_counter()
            turn[name] = run(args.seconds)
            if name == "explorer_32":
                outside.append(1.0 - Timed.seconds / (time.perf_counter() - started))
        turns.append(turn)
    result: dict[str, Any] = {f"{name}_per_s": median(turn[name] for turn in turns) for name in contestants}
    for name in ("ase_eager", "ase_compiled", "torchsim"):
        if name in contestants:
            ratios = sorted(turn["explorer_32"] / turn[name] for turn in turns)
            result[f"ratio_to_{name}"], result[f"ratio_to_{name}_all"] = median(ratios), ratios
    result["every_5_over_every_step"] = median(turn["explorer_32_every_5"] / turn["explorer_32"] for turn in turns)
    result["share_outside_model"], result["share_outside_model_all"] = median(outside), sorted(outside)
    result["targets"] = {**TARGETS, "share_outside_model": 0.1}
    result |= swap(config, start, state, fit(config.model_copy(update={"training": config.training.model_copy(
        update={"budget_s": 5.0})}), label(sample(start, 300.0, 20, seed=1)), version=2))  # fmt: skip
    result |= {f"water_{n}_us_per_atom_step": water_cost(config, state, n, args.seconds) for n in (1, 2, 4, 8)}
    result["machine"] = machine()
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
