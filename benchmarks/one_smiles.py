"""From one SMILES to a field: campaigns at PBE/def2-SVP that choose their labels, with and without a baseline.

Base: `configs/ethanol.yaml`, in one process, with a fixed number of gradient steps in each fit, so that a busy machine
changes nothing but the duration. Labels wait for the fit. Arms differ in what `ARMS` says and in nothing else:

- `delta`: learns the difference to GFN2-xTB; `delta-random`: so too, from frames taken at random.
- `plain`: learns labels as they are; `plain-random`: so too, from frames taken at random.

The champion (and each version before it) is measured on frames that no campaign sees: published ones
(``--published``, every tenth), and two sets made here, GFN2-xTB Langevin dynamics at 500 and 1,000 K with labels of the
same level. Labels and campaigns that are finished are not made again; what was cut off goes on.

    python benchmarks/one_smiles.py --out FOLDER --published rmd17_ethanol_train.xyz [--arms delta,plain] [--json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from campaigns import run_campaign
from fitted import Labelled, sample, start_of
from orchestration import machine

from alsys.config import CampaignConfig, parse_config
from alsys.interop.extxyz_files import read_labelled
from alsys.labeling.factory import build_labeler
from alsys.labels import Label
from alsys.potentials.base import Committee, FrameBatch
from alsys.potentials.bundle import read_bundle
from alsys.potentials.factory import build_committee

BASE = Path(__file__).parents[1] / "configs" / "ethanol.yaml"
TEST_SETS = {"500K": (500.0, 71), "1000K": (1000.0, 72)}
"""Temperature (K) and seed of the sets that are made here."""
DELTA: dict[str, dict[str, Any]] = {
    "labeling": {"baseline": {"kind": "gfn2-xtb"}},
    "training": {"delta": "gfn2-xtb"},
}
RANDOM: dict[str, dict[str, Any]] = {"selection": {"strategy": "random"}, "exploration": {"methods": []}}
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "delta": DELTA,
    "plain": {},
    "plain-random": RANDOM,
    "delta-random": {**DELTA, **RANDOM},
}
"""What each arm sets in the sections of the config, over `COMMON`."""
COMMON: dict[str, dict[str, Any]] = {
    "model": {"members": 3},
    "training": {
        "first_at": 12,
        "refit_every": 10,
        "max_ahead": 1,
        "budget_s": 36_000,
        "max_epochs": 1_000_000,
        "compile": True,
    },
    "exploration": {"walkers": 6, "temperatures": [300, 500, 700]},
    "initial": {"frames": 12},
    "selection": {"random_share": 0.1},
    "runtime": {"kind": "in-process"},
    "tracking": {"enabled": False},
}


def config_of_campaign(arm: str, seed: int, n_labels: int, steps: int) -> dict[str, Any]:
    """The campaign file of an arm and seed."""
    config = yaml.safe_load(BASE.read_text(encoding="utf-8"))
    for changes in (COMMON, ARMS[arm]):
        for section, values in changes.items():
            config[section] = {**config.get(section, {}), **values}
    config["name"], config["seed"] = f"{arm}-{seed}", seed
    config["training"]["max_gradient_steps"] = steps
    config["stop"] = {"labels": n_labels}
    return dict(config)


def test_set(path: Path, config: CampaignConfig, temperature: float, seed: int, n_frames: int) -> Labelled:
    """Labelled frames of dynamics, from `path` as far as they are there."""
    start = start_of(config)
    frames = sample(start, temperature, n_frames, seed)
    known = {frame.frame_id: (frame, energy, forces) for frame, energy, forces in _known(path)}
    labeler = build_labeler(config.labeling)
    labelled: Labelled = []
    try:
        for frame in frames:
            row = known.get(frame.frame_id)
            if row is None:
                label = labeler.label(frame)
                if not isinstance(label, Label):
                    print(f"{path.name}: a frame is left out: {label.message}", file=sys.stderr)
                    continue
                row = (frame, label.energy, label.forces)
                with path.open("ab") as log:  # as binary64: forces and positions come back bit by bit
                    np.save(log, np.concatenate([frame.positions, label.forces]))
                    np.save(log, np.array(label.energy))
            labelled.append(row)
    finally:
        labeler.close()
    atoms = []
    for frame, energy, forces in labelled:
        atoms.append(Atoms(frame.numbers, frame.positions))
        atoms[-1].calc = SinglePointCalculator(atoms[-1], energy=energy, forces=forces)
    ase.io.write(path.with_suffix(".xyz"), atoms, format="extxyz")
    return labelled


def _known(path: Path) -> Labelled:
    """Frames that were labelled before; one that was cut off while it was written ends the list."""
    rows: Labelled = []
    if not path.is_file():
        return rows
    start = start_of(parse_config(config_of_campaign("plain", 1, 10, 10)))
    good = 0
    with path.open("rb") as log:
        while True:
            try:
                both, energy = np.load(log, allow_pickle=False), np.load(log, allow_pickle=False)
            except (EOFError, ValueError):
                break
            good = log.tell()
            half = len(both) // 2
            rows.append((start.with_positions(both[:half]), float(energy), both[half:]))
    with path.open("r+b") as log:
        log.truncate(good)
    return rows


def errors(committee: Committee, labelled: Labelled) -> dict[str, float]:
    """Errors of forces, and of energies beside their mean (meV, meV/Angstrom)."""
    parts = [labelled[first : first + 50] for first in range(0, len(labelled), 50)]
    found = [committee.evaluate(FrameBatch.of([frame for frame, _, _ in part])) for part in parts]
    df = 1e3 * (np.concatenate([one.forces for one in found]) - np.concatenate([row[2] for row in labelled]))
    de = 1e3 * (np.concatenate([one.energy for one in found]) - np.array([row[1] for row in labelled]))
    frames = np.array([np.abs(one).mean() for one in np.split(df, len(labelled))])
    return {
        "force_mae": float(np.abs(df).mean()),
        "force_mae_interval": float(1.96 * frames.std(ddof=1) / np.sqrt(len(frames))),
        "force_rmse": float(np.sqrt(np.square(df).mean())),
        "force_p95": float(np.quantile(np.linalg.norm(df, axis=1), 0.95)),
        "energy_mae": float(np.abs(de - de.mean()).mean()),
    }


def run_one(place: Path, config: dict[str, Any], sets: dict[str, Labelled]) -> dict[str, Any]:
    """The result of one campaign, from its folder where it is finished."""
    done = place / "wall_s.json"
    if not done.is_file():
        wall_s = run_campaign(place, config)
        done.write_text(json.dumps(wall_s), encoding="utf-8")
    versions = []
    for path in sorted((place / "campaign" / "models").glob("v[0-9]*")):
        card = json.loads((path / "card.json").read_text(encoding="utf-8"))
        committee = build_committee(read_bundle(path))
        measured = {name: errors(committee, rows) for name, rows in sets.items()}
        versions.append(
            {
                "version": card["version"],
                "train_labels": card["metrics"]["n_labels_train"],
                "all_labels": card["n_labels"],
                **{f"{name}_{key}": value for name, found in measured.items() for key, value in found.items()},
            }
        )
    status = _status(place)
    return {
        "wall_s": json.loads(done.read_text(encoding="utf-8")),
        "champion": status["champion"],
        "labels": status["labels"],
        "versions": versions,
    }


def _status(place: Path) -> dict[str, Any]:
    """What `alsys status` says of the finished campaign."""
    command = [sys.executable, "-m", "alsys.cli", "status", str(place / "campaign"), "--json"]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def main() -> None:
    """Prints the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of campaigns and test sets")
    parser.add_argument("--published", type=Path, help="labelled frames of the same molecule and level, extxyz")
    parser.add_argument("--arms", default=",".join(ARMS), help=f"of {', '.join(ARMS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--labels", type=int, default=56, help="labels of a campaign, a tenth of them its test set")
    parser.add_argument("--steps", type=int, default=1500, help="gradient steps of a member in one fit")
    parser.add_argument("--frames", type=int, default=40, help="of a test set that is made here")
    parser.add_argument("--json", action="store_true", help="one line instead of indented JSON")
    args = parser.parse_args()
    arms = args.arms.split(",")
    if unknown := set(arms) - set(ARMS):
        parser.error(f"no such arm: {', '.join(sorted(unknown))}")
    args.out.mkdir(parents=True, exist_ok=True)
    plain = parse_config(config_of_campaign("plain", 1, args.labels, args.steps))
    sets = {
        name: test_set(args.out / f"test-{name}.bin", plain, temperature, seed, args.frames)
        for name, (temperature, seed) in TEST_SETS.items()
    }
    if args.published:
        sets["published"] = read_labelled(args.published)[::10]
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for seed in args.seeds:
        for arm in arms:
            config = config_of_campaign(arm, seed, args.labels, args.steps)
            result = run_one(args.out / f"{arm}-{seed}", config, sets)
            results[arm].append({"seed": seed, **result})
            champion = next(row for row in result["versions"] if row["version"] == result["champion"])
            shown = ", ".join(f"{name} {champion[f'{name}_force_mae']:.1f}" for name in sets)
            print(f"{arm} {seed}: {champion['train_labels']:.0f} training labels, {shown}", file=sys.stderr, flush=True)
    result = {
        "test_frames": {name: len(rows) for name, rows in sets.items()},
        "labels": args.labels,
        "steps": args.steps,
        "arms": results,
        "settings": {"common": COMMON, "arms": {arm: ARMS[arm] for arm in arms}},
        "machine": machine(),
    }
    print(json.dumps(result) if args.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
