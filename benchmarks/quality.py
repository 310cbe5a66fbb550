"""Whether the quality gate keeps poison out: 1,000 published rMD17 ethanol labels as a stream, 5 % of them poisoned.

Poison: wrong sign, two atoms swapped, ten times the force, an SCF stopped after 3 to 5 cycles, B3LYP instead of PBE,
1 meV/Angstrom of noise. Unconverged and B3LYP labels are computed (`quality_poison.py`). Published forces were freed of
their net force and torque, which no labeler's are, so every good label gets white noise of `--grid-noise`: 0.5
meV/Angstrom is what PySCF (grid level 3, density fitting) differs by from them. Predictions come from NequIP committees
fitted to the accepted labels as the stream goes, at `--fits` labels, with whatever poison slipped through in them;
after each fit all accepted labels are reviewed. A second label is the published one with noise of 1.2
meV/Angstrom, as density fitting makes.

Prints one JSON object. Per kind: how many there were, how many failed when they came, how many were found by a
later review, how many the relabelling confirmed (caught). Intervals are Wilson's, 95 %, over all draws.

    python benchmarks/quality_poison.py --data rmd17_ethanol_train.xyz --out poison.jsonl
    python benchmarks/quality.py --data rmd17_ethanol_train.xyz --atoms rmd17_isolated_atoms.xyz --poison poison.jsonl
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from fitted import Labelled, config_of, snapshot_of
from orchestration import machine
from quality_poison import load

from alsys.config.labeling import QualityConfig
from alsys.frames import Frame
from alsys.interop.extxyz_files import read_labelled
from alsys.labeling.gate.checks import LabelChecks
from alsys.labeling.gate.findings import Verdict, settle
from alsys.labeling.gate.xtb_check import gfn2_forces
from alsys.labels import Label, LevelOfTheory, Prediction
from alsys.potentials.base import Committee, CommitteeState, FrameBatch
from alsys.potentials.calibration import ForceCalibration
from alsys.potentials.factory import build_committee
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.trainer import NequIPTrainer

LEVEL = LevelOfTheory({"engine": "benchmark"})
TIGHT = LevelOfTheory({"engine": "benchmark", "tight": True})
GROSS = ("sign", "swap", "tenfold")
SUBTLE = ("unconverged", "functional")
KINDS = (*GROSS, *SUBTLE, "noise")
CYCLES = ("3", "4", "5")
NOISE = 1e-3
TIGHT_NOISE = 1.2e-3
EARLY = 50
"""Labels before the first committee."""
MODEL = {"members": 3, "num_layers": 2, "l_max": 1, "num_features": 16}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A label as it comes: kind is empty for a good one; `second` is its relabelling."""

    frame: Frame
    label: Label
    second: Label
    kind: str
    detail: str


class Stream:
    """1,000 labels in random order, 5 % of them poisoned."""

    def __init__(self, published: Labelled, pool: dict[int, dict[str, Any]], seed: int, share: float, noise: float):
        rng = np.random.default_rng([seed, 15])
        n = round(share * len(published))
        kinds = [KINDS[i % len(KINDS)] for i in range(n)]
        from_pool = [int(i) for i in rng.permutation(sorted(pool))]
        others = [int(i) for i in rng.permutation(len(published)) if int(i) not in pool]
        rows = [from_pool.pop() if kind in SUBTLE else others.pop() for kind in kinds]
        poison = dict(zip(rows, kinds, strict=True))
        self.arrivals = []
        for row in rng.permutation(len(published)):
            frame, energy, forces = published[row]
            kind = poison.get(int(row), "")
            good = Label(frame.frame_id, LEVEL.level_id, energy, forces + noise * rng.normal(size=forces.shape))
            second = forces + TIGHT_NOISE * rng.normal(size=forces.shape)
            label, detail = (good, "") if not kind else poisoned(good, kind, pool.get(int(row)), rng)
            tight = Label(frame.frame_id, TIGHT.level_id, energy, second)
            self.arrivals.append(Arrival(frame, label, tight, kind, detail))


def poisoned(good: Label, kind: str, computed: dict[str, Any] | None, rng: np.random.Generator) -> tuple[Label, str]:
    """A label gone wrong, and in which way."""
    if kind == "sign":
        return replace(good, forces=-good.forces), ""
    if kind == "tenfold":
        return replace(good, forces=10.0 * good.forces), ""
    if kind == "noise":
        shift = NOISE * float(rng.normal())
        return replace(good, energy=good.energy + shift, forces=good.forces + NOISE * rng.normal(size=(9, 3))), ""
    if kind == "swap":
        i, j = (int(a) for a in rng.choice(len(good.forces), 2, replace=False))
        forces = good.forces.copy()
        forces[[i, j]] = forces[[j, i]]
        return replace(good, forces=forces), f"{i},{j}"
    assert computed is not None
    detail = str(rng.choice(CYCLES)) if kind == "unconverged" else "b3lyp"
    wrong = computed["cycles"][detail] if kind == "unconverged" else computed["b3lyp"]
    forces = good.forces + np.array(wrong["forces"]) - np.array(computed["pbe"]["forces"])
    energy = good.energy + wrong["energy"] - computed["pbe"]["energy"]
    return replace(good, energy=energy, forces=forces), detail


class Models:
    """Committees fitted to what was accepted."""

    def __init__(self, atoms: Labelled, budget_s: float, seed: int) -> None:
        config = config_of("CCO", model=MODEL, budget_s=budget_s)
        self._trainer = NequIPTrainer(config)
        self._atoms, self._seed = atoms, seed
        self._state: CommitteeState | None = None
        self.version = 0

    def fit(self, accepted: Labelled) -> Committee:
        """The next committee, warm-started."""
        self.version += 1
        snapshot = snapshot_of(accepted, self._atoms)
        trained = self._trainer.run(TrainingOrder(self.version, snapshot, self._state, None, self._seed))
        if not isinstance(trained, TrainedCommittee):
            raise SystemExit(f"the fit failed: {trained.message}")
        self._state = trained.state
        return build_committee(trained.state, threads=1)


def predictions(committee: Committee, frames: list[Frame], version: int) -> list[Prediction]:
    """Of all frames, in batches."""
    out = []
    for start in range(0, len(frames), 100):
        chunk = frames[start : start + 100]
        batch = FrameBatch.of(chunk)
        result = committee.evaluate(batch)
        ends = np.cumsum(batch.n_atoms)
        for i, (end, n) in enumerate(zip(ends, batch.n_atoms, strict=True)):
            atoms = slice(end - n, end)
            energy = float(result.energy[i])
            out.append(Prediction(energy, result.forces[atoms], result.force_deviation[atoms], version))
    return out


def errors_of(forecast: list[Prediction], arrivals: list[Arrival]) -> dict[str, float]:
    """Errors of a committee on good labels still to come: meV and meV/Angstrom."""
    pairs = [(p, a) for p, a in zip(forecast, arrivals, strict=True) if not a.kind]
    force = np.concatenate([(p.forces - a.label.forces).ravel() for p, a in pairs])
    energy = np.array([p.energy - a.label.energy for p, a in pairs])
    return {
        "force_mae": round(1e3 * float(np.abs(force).mean()), 2),
        "force_rmse": round(1e3 * math.sqrt(float(np.square(force).mean())), 2),
        "energy_mae": round(1e3 * float(np.abs(energy).mean()), 2),
    }


def run_stream(stream: Stream, models: Models | None, fits: list[int], reviews: bool) -> dict[str, Any]:
    """One stream through one gate."""
    config = QualityConfig()
    gate = LabelChecks(config, gfn2_forces)
    calibration = ForceCalibration(0.9)
    arrivals = stream.arrivals
    forecast: list[Prediction | None] = [None] * len(arrivals)
    accepted: list[int] = []
    at_arrival: dict[int, str] = {}
    found_later: dict[int, str] = {}
    dropped: set[int] = set()
    committees = []
    left = list(fits) if models is not None else []
    for i, arrival in enumerate(arrivals):
        prediction = forecast[i]
        band = calibration.band if calibration.is_fitted else None
        findings = gate.examine(arrival.frame, arrival.label, prediction, band)
        if findings:
            at_arrival[i] = "+".join(f.check for f in findings)
            verdict = settle(config, arrival.frame, arrival.label, findings, arrival.second)
            if verdict is Verdict.DROP:
                dropped.add(i)
                continue
            gate.clear(arrival.label.label_id)
        accepted.append(i)
        gate.observe(arrival.frame, arrival.label, prediction)
        if prediction is not None:
            error = np.sqrt(np.square(arrival.label.forces - prediction.forces).sum(axis=1))
            calibration.observe([(prediction.deviations, error)])
        if not left or len(accepted) < left[0] or models is None:
            continue
        left.pop(0)
        committee = models.fit([(a.frame, a.label.energy, a.label.forces) for a in (arrivals[j] for j in accepted)])
        everything = predictions(committee, [a.frame for a in arrivals], models.version)
        forecast[i + 1 :] = everything[i + 1 :]
        calibration.replace()
        slipped = [arrivals[j].kind for j in accepted if arrivals[j].kind]
        flagged = []
        if reviews:
            chosen = [arrivals[j] for j in accepted]
            seen = [everything[j] for j in accepted]
            flagged = gate.review([a.frame for a in chosen], [a.label for a in chosen], seen)
        for row, why in flagged:
            j = accepted[row]
            found_later[j] = "+".join(f.check for f in why)
            if settle(config, arrivals[j].frame, arrivals[j].label, why, arrivals[j].second) is Verdict.DROP:
                dropped.add(j)
                gate.forget(arrivals[j].label.label_id)
            else:
                gate.clear(arrivals[j].label.label_id)
        accepted = [j for j in accepted if j not in dropped]
        committees.append(
            {
                "n_train": len(accepted) + sum(j in dropped for j in found_later),
                "poison_in_it": dict(Counter(slipped)),
                "errors_mev": errors_of(everything[i + 1 :], arrivals[i + 1 :]),
                "review_flagged": len(flagged),
                "review_good": sum(not arrivals[accepted_row].kind for accepted_row in found_later),
            }
        )
    rows = [
        {
            "at": i,
            "kind": a.kind,
            "detail": a.detail,
            "had_model": forecast[i] is not None,
            "failed_gate": at_arrival.get(i, ""),
            "reviewed": found_later.get(i, ""),
            "dropped": i in dropped,
        }
        for i, a in enumerate(arrivals)
        if a.kind or i in at_arrival or i in found_later
    ]
    n_good = sum(not a.kind for a in arrivals)
    return {"rows": rows, "n_good": n_good, "n": len(arrivals), "committees": committees}


def wilson(k: int, n: int) -> list[float]:
    """95 % interval of a share."""
    if n == 0:
        return [0.0, 1.0]
    z, p = 1.96, k / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [round((centre - half) / (1 + z * z / n), 5), round((centre + half) / (1 + z * z / n), 5)]


def share(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many of some poisoned labels were found, and when."""
    caught = sum(row["dropped"] for row in rows)
    return {
        "n": len(rows),
        "failed_gate_on_arrival": sum(bool(row["failed_gate"]) for row in rows),
        "found_by_review": sum(bool(row["reviewed"]) for row in rows),
        "caught": caught,
        "caught_share": round(caught / len(rows), 4) if rows else None,
        "caught_95": wilson(caught, len(rows)),
        "checks": dict(Counter(row["failed_gate"] or row["reviewed"] or "none" for row in rows)),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Pooled over draws."""
    rows = [row for run in runs for row in run["rows"]]
    bad, good = [r for r in rows if r["kind"]], [r for r in rows if not r["kind"]]
    n_good = sum(run["n_good"] for run in runs)
    n_dropped, n_failed_gate = sum(r["dropped"] for r in good), sum(bool(r["failed_gate"]) for r in good)
    n_review = sum(bool(r["reviewed"]) and not r["failed_gate"] for r in good)
    return {
        "by_kind": {kind: share([r for r in bad if r["kind"] == kind]) for kind in KINDS},
        "gross": share([r for r in bad if r["kind"] in GROSS]),
        "subtle": share([r for r in bad if r["kind"] in SUBTLE]),
        "unconverged_by_cycles": {c: share([r for r in bad if r["detail"] == c]) for c in CYCLES},
        "before_the_first_model": {
            name: share([r for r in bad if not r["had_model"] and r["kind"] in kinds])
            for name, kinds in (("gross", GROSS), ("subtle", SUBTLE))
        },
        "good": {
            "n": n_good,
            "rejected": n_dropped,
            "rejected_95": wilson(n_dropped, n_good),
            "failed_gate_on_arrival": n_failed_gate,
            "failed_gate_on_arrival_95": wilson(n_failed_gate, n_good),
            "flagged_by_review_only": n_review,
            "checks": dict(Counter(r["failed_gate"] or r["reviewed"] for r in good)),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--atoms", type=Path, required=True)
    parser.add_argument("--poison", type=Path, required=True, help="what quality_poison.py wrote")
    parser.add_argument("--skip-poison", type=int, default=0, help="leave out so many of the first computed frames")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--first-draw", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--grid-noise", type=float, default=5e-4, help="eV/Angstrom")
    parser.add_argument("--fits", type=int, nargs="*", default=[50, 100, 200, 400], help="accepted labels")
    parser.add_argument("--budget-s", type=float, default=60.0, help="of a fit")
    parser.add_argument("--no-model", action="store_true", help="the gate without a committee")
    parser.add_argument("--rows", action="store_true", help="print each label that is poisoned or failed the gate, too")
    args = parser.parse_args()
    published = read_labelled(args.data)
    atoms: Labelled = [
        (Frame.molecule(a.numbers, np.zeros((1, 3)), multiplicity=multiplicity(a.numbers[0])), energy, np.zeros((1, 3)))
        for a in ase.io.read(args.atoms, ":")
        if (energy := a.get_potential_energy()) is not None and a.numbers[0] in (1, 6, 8)
    ]
    pool = dict(list(load(args.poison).items())[args.skip_poison :])
    runs = []
    for seed in range(args.first_draw, args.first_draw + args.draws):
        started = time.perf_counter()
        stream = Stream(published, pool, seed, args.share, args.grid_noise)
        models = None if args.no_model else Models(atoms, args.budget_s, seed)
        runs.append(run_stream(stream, models, args.fits, reviews=True))
        wall_s = time.perf_counter() - started
        print(f"draw {seed}: {wall_s:.0f} s", json.dumps(summary(runs)), file=sys.stderr, flush=True)
    report: dict[str, Any] = {
        "machine": machine(),
        "settings": {
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(args).items()
            if name not in ("data", "atoms", "poison")
        },
        "model": MODEL,
        **summary(runs),
        "committees": [run["committees"] for run in runs],
    }
    if args.rows:
        report["rows"] = [run["rows"] for run in runs]
    print(json.dumps(report, indent=1))


def multiplicity(number: int) -> int:
    """Of a free atom's ground state."""
    return {1: 2, 6: 3, 8: 3}[int(number)]


if __name__ == "__main__":
    main()
