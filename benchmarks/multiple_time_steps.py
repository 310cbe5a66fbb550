"""Walkers of a difference model on two time steps beside one: steps a second, drift, and where they go.

A committee learns PBE labels of ethanol less GFN2-xTB, and the small network of the inner steps learns the labels, as
a campaign's trainer fits both (`alsys.training.inner`). Then the product's explorers run: the same number of walkers
with and without `exploration.multiple_time_step`, in turn, for the ratio of walker-steps a second of CPU. The drift of
the total energy is that of walkers at constant energy (least-squares slopes); torsions of C-C-O-H are those of walkers
with friction, one value every `--spacing` fs, compared with the Kolmogorov-Smirnov test.

    python benchmarks/multiple_time_steps.py --train FILE --atoms FILE [--outer-steps 4] [--hydrogen-mass 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from fitted import config_of, snapshot_of
from orchestration import machine
from scipy.stats import ks_2samp

from alsys.config import CampaignConfig, parse_config
from alsys.dynamics import multiple_time_steps
from alsys.dynamics.runner import Evaluation, Potential, Runner, thermostatted
from alsys.dynamics.stopping import Limits, StopRule
from alsys.exploration.base import ExplorationOrder
from alsys.exploration.explorer import WalkerExplorer
from alsys.exploration.methods.torsions import torsion_gradient
from alsys.frames import FloatArray, Frame
from alsys.interop.extxyz_files import read_labelled
from alsys.labeling.atoms import free_atom_frames
from alsys.potentials.base import Committee, CommitteeState, FrameBatch
from alsys.potentials.baseline import Baseline
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.potentials.factory import build_committee
from alsys.potentials.xtb import XTBMethod
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.evaluate import batch_of
from alsys.training.factory import build_trainer

TEMPERATURE = 300.0
C_C_O_H = (1, 0, 2, 8)


def config_for(args: argparse.Namespace, is_split: bool) -> CampaignConfig:
    """A campaign on ethanol that learns the difference to GFN2-xTB."""
    exploration: dict[str, Any] = {
        "walkers": args.walkers, "temperatures": [args.temperature], "timestep": args.timestep,
        "max_steps": 10**7, "hydrogen_mass": args.hydrogen_mass, "compile": args.compile,
    }  # fmt: skip
    if is_split:
        exploration["multiple_time_step"] = {
            "outer_steps": args.outer_steps, "num_layers": args.inner_layers, "l_max": args.inner_l_max,
            "num_features": args.inner_features, "share": args.share,
        }  # fmt: skip
    model = {"members": args.members, "num_layers": 2, "l_max": 1, "num_features": 16}
    config = config_of("CCO", model=model, budget_s=args.budget_s)
    raw = config.model_dump(mode="json")
    raw["training"] |= {"delta": "gfn2-xtb", "compile": False}
    raw["labeling"] |= {"method": "GFN1-xTB", "baseline": {"kind": "gfn2-xtb"}}
    return parse_config({**raw, "exploration": exploration})


def fitted(args: argparse.Namespace) -> CommitteeState:
    """The committee with its small network: from `--model`, or trained and kept there."""
    place = None if args.model is None else Path(args.model)
    if place is not None and place.exists():
        return read_bundle(place)
    energies = {int(image.numbers[0]): image.get_potential_energy() for image in ase.io.read(args.atoms, ":")}
    atoms = [(frame, energies[int(frame.numbers[0])], np.zeros((1, 3))) for frame in free_atom_frames(energies)]
    snapshot = snapshot_of(read_labelled(args.train)[: args.n], atoms)
    baseline = Baseline(XTBMethod("GFN2-xTB").spec).evaluate(batch_of(snapshot))
    snapshot = replace(snapshot, baseline_energy=baseline.energy, baseline_forces=baseline.forces)
    trained = build_trainer(config_for(args, is_split=True)).run(TrainingOrder(1, snapshot, None, None, args.seed))
    if not isinstance(trained, TrainedCommittee):
        raise SystemExit(f"the fit failed: {trained.message}")
    if place is not None:
        write_bundle(place, trained.state, {"metrics": dict(trained.metrics.items())})
    return trained.state


def speed(args: argparse.Namespace, state: CommitteeState, start: Frame) -> dict[str, Any]:
    """Walker-steps a CPU second of the product's explorers, the two kinds in turn."""
    rates: dict[str, list[float]] = {"plain": [], "split": []}
    explorers = {
        name: WalkerExplorer(config_for(args, name == "split"), {"ethanol": [start]}, args.seed) for name in rates
    }
    first = ExplorationOrder(n_steps=8, state=state, trust=(50.0, 60.0))
    for explorer in explorers.values():
        explorer.run(first)
    order = ExplorationOrder(n_steps=args.chunk, trust=(50.0, 60.0))
    for _ in range(args.chunks):
        for name, explorer in explorers.items():
            started = time.process_time()
            report = explorer.run(order)
            rates[name].append(report.walker_steps / (time.process_time() - started))
    means = {name: float(np.mean(values)) for name, values in rates.items()}
    ratios = np.array(rates["split"]) / np.array(rates["plain"])
    return {
        "walker_steps_per_cpu_s": means, "ratio": means["split"] / means["plain"],
        "ratio_of_chunks": [float(ratios.min()), float(ratios.max())], "chunks": args.chunks,
    }  # fmt: skip


class Walk:
    """Walkers of ethanol under a committee, on one time step or two.

    Args:
        args: Of the command line.
        state: The committee with its small network.
        starts: Where they begin.
        friction: 1/fs; 0 conserves the energy.
        is_split: On two time steps.
    """

    def __init__(
        self, args: argparse.Namespace, state: CommitteeState, starts: Sequence[Frame], friction: float, is_split: bool
    ) -> None:
        assert state.inner is not None
        self._n = args.outer_steps if is_split else 1
        self._slow = _potential(build_committee(replace(state, inner=None)))
        self._fast = _potential(build_committee(state.inner))
        self._rng = np.random.default_rng([args.seed, int(is_split)])
        temperatures = np.full(len(starts), args.temperature)
        integrator = thermostatted(starts, temperatures, args.timestep, friction, args.hydrogen_mass)
        self._runner = Runner(starts, integrator, StopRule(starts, integrator.n_degrees, Limits()))
        self._runner.velocities = integrator.maxwell(np.random.default_rng(args.seed))
        self._runner.evaluate(multiple_time_steps.impulsive(self._slow, self._fast, self._n))
        self.interval = self._n * args.timestep
        self.lost: dict[int, str] = {}

    def advance(self) -> None:
        """One outer step."""
        problems = multiple_time_steps.step(self._runner, self._slow, self._fast, self._n, self._rng)
        self.lost = problems | self.lost

    def total_energy(self) -> FloatArray:
        """``(n_walkers,)`` per atom, eV."""
        energy = self._runner.evaluation.energy
        assert energy is not None
        total: FloatArray = (energy + self._runner.kinetic_energy()) / self._runner.batch.n_atoms
        return total

    def temperature(self) -> float:
        """Mean kinetic temperature, K."""
        return float(
            self._runner.kinetic_energy().mean() / (0.5 * self._runner.integrator.n_degrees.mean() * 8.617333e-5)
        )

    def torsions(self) -> FloatArray:
        """``(n_walkers,)`` of C-C-O-H, rad."""
        positions = self._runner.positions.reshape(len(self._runner.batch.n_atoms), -1, 3)
        values: FloatArray = torsion_gradient(positions[:, C_C_O_H])[0]
        return values


def _potential(committee: Committee) -> Potential:
    def evaluate(batch: FrameBatch) -> Evaluation:
        found = committee.evaluate(batch)
        return Evaluation(found.forces, found.energy)

    return evaluate


def drift(args: argparse.Namespace, state: CommitteeState, starts: Sequence[Frame], is_split: bool) -> dict[str, Any]:
    """Slope of the total energy at constant energy: mean of the walkers' and its standard error."""
    walk = Walk(args, state, starts, 0.0, is_split)
    totals = [walk.total_energy()]
    for _ in range(round(1e3 * args.drift_ps / walk.interval)):
        walk.advance()
        totals.append(walk.total_energy())
    kept = [k for k in range(len(starts)) if k not in walk.lost]
    energies = 1e3 * np.stack(totals)[:, kept]
    times = 1e-3 * walk.interval * np.arange(len(totals))
    slopes = np.polyfit(times, energies, 1)[0]
    error = float(slopes.std(ddof=1) / np.sqrt(len(kept))) if len(kept) > 1 else None
    return {
        "mev_per_atom_and_ps": float(slopes.mean()), "standard_error": error, "ps": float(times[-1]),
        "walkers": len(kept), "lost": sorted(walk.lost.values()),
        "rms_mev_per_atom": float((energies - energies.mean(axis=0)).std()),
    }  # fmt: skip


def sampled(args: argparse.Namespace, state: CommitteeState, starts: Sequence[Frame], is_split: bool) -> dict[str, Any]:
    """Torsions of walkers with friction, one of each every `--spacing` fs, and their mean temperature."""
    walk = Walk(args, state, starts, 0.01, is_split)
    every = max(1, round(args.spacing / walk.interval))
    values, temperatures = [], []
    for step in range(round(1e3 * args.torsions_ps / walk.interval)):
        walk.advance()
        temperatures.append(walk.temperature())
        if (step + 1) * walk.interval > 1e3 * args.equilibration_ps and (step + 1) % every == 0:
            values.append(walk.torsions())
    late = temperatures[len(temperatures) // 4 :]
    return {
        "torsions": np.stack(values), "temperature": float(np.mean(late)), "lost": sorted(walk.lost.values()),
    }  # fmt: skip


def torsions(args: argparse.Namespace, state: CommitteeState, starts: Sequence[Frame]) -> dict[str, Any]:
    """Histograms of both kinds of walkers, and whether they are of one distribution (KS test of absolute values)."""
    found = {name: sampled(args, state, starts, name == "split") for name in ("plain", "split")}
    values = {name: np.abs(result.pop("torsions")).ravel() for name, result in found.items()}
    test = ks_2samp(values["plain"], values["split"])
    counts = {name: np.histogram(v, 6, (0.0, np.pi))[0].tolist() for name, v in values.items()}
    return {
        "ks_p": float(test.pvalue),
        "ks": float(test.statistic),
        "n": len(values["split"]),
        "counts": counts,
        **found,
    }


def main() -> None:
    """Prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", required=True, help="labelled frames of ethanol in rMD17's order, extxyz")
    parser.add_argument("--atoms", required=True, help="free atoms at the same level, extxyz")
    parser.add_argument("--n", type=int, default=50, help="training frames")
    parser.add_argument("--model", help="folder where the fitted committee is kept between runs")
    parser.add_argument("--parts", nargs="+", default=["speed", "drift", "torsions"])
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--budget-s", type=float, default=120.0, help="CPU seconds of both fits")
    parser.add_argument("--share", type=float, default=0.25, help="of the budget for the small network")
    parser.add_argument("--inner-layers", type=int, default=2)
    parser.add_argument("--inner-l-max", type=int, default=1)
    parser.add_argument("--inner-features", type=int, default=16)
    parser.add_argument("--outer-steps", type=int, default=4)
    parser.add_argument("--timestep", type=float, default=0.5, help="fs, of the inner steps")
    parser.add_argument("--hydrogen-mass", type=float, help="amu")
    parser.add_argument("--temperature", type=float, default=500.0, help="K")
    parser.add_argument("--walkers", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=48, help="steps of a chunk")
    parser.add_argument("--chunks", type=int, default=6)
    parser.add_argument("--compile", action="store_true", help="compiled networks")
    parser.add_argument("--drift-ps", type=float, default=10.0)
    parser.add_argument("--torsions-ps", type=float, default=4.0)
    parser.add_argument("--equilibration-ps", type=float, default=1.0)
    parser.add_argument("--torsion-walkers", type=int, default=24)
    parser.add_argument("--spacing", type=float, default=250.0, help="fs between two torsions of a walker")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one line instead of indented JSON")
    args = parser.parse_args()
    state = fitted(args)
    frames = [frame for frame, _, _ in read_labelled(args.train)]
    rng = np.random.default_rng(args.seed)
    starts = [frames[k] for k in rng.choice(len(frames), args.torsion_walkers, replace=False)]
    result: dict[str, Any] = {"machine": machine(), "settings": vars(args)}
    if "speed" in args.parts:
        result["speed"] = speed(args, state, starts[0])
    if "drift" in args.parts:
        result["drift"] = drift(args, state, starts[: args.walkers], is_split=True)
    if "torsions" in args.parts:
        result["torsions"] = torsions(args, state, starts)
    print(json.dumps(result, indent=None if args.json else 1))


if __name__ == "__main__":
    main()
