"""Whole campaigns against each other: labels to a target error on test sets that no campaign sees.

Base: `configs/xtb.yaml`. Arms differ in what `ARMS` says and in nothing else; seeds, first frames, architecture, passes
through the data at each fit (`training.max_epochs`, so that a busy machine changes nothing) and labels are the same.
Labels wait for the fit (`training.max_ahead`), since GFN2-xTB answers in milliseconds. `--pool` is how far explorers go
on when the candidate set is full, in such sets, the same for all arms.

- `everything`: calibrated trust, all exploration methods, selection as by default. No thermostat is hotter than in the
  other arms.
- `plain`: molecular dynamics, a fixed trust band, the most uncertain frames.
- `random`: molecular dynamics; frames are labelled at random.
- `everything_hot` (only where `--arms` names it): as `everything` with the methods' own default temperatures, which
  reach that of the hot test set.

Test sets: GFN2-xTB dynamics at the highest temperature of the exploration (`cold`) and at twice that (`hot`). Each
published version is evaluated on both, against its number of training labels. Campaigns run one after another, each in
its own folder; those that are finished are not run again, one that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from campaign_curves import METRICS, drawing, summary
from fitted import label, sample, start_of
from orchestration import machine

from alsys.config import parse_config
from alsys.frames import FloatArray
from alsys.potentials.base import FrameBatch
from alsys.potentials.bundle import read_bundle
from alsys.potentials.factory import build_committee

BASE = Path(__file__).parents[1] / "configs" / "xtb.yaml"
TEMPERATURES = (300.0, 500.0)
HOTTEST = max(TEMPERATURES)
TEST_SETS = {"cold": (HOTTEST, 71), "hot": (2.0 * HOTTEST, 72)}
"""Temperature (K) and seed of each."""
POOL = 4.0
"""Frames that may be found under one model before explorers pause, in candidate sets, unless `--pool` says another."""
METHODS: list[dict[str, Any]] = [
    {"kind": "plain"},
    {"kind": "udd"},
    {"kind": "torsion-scan"},
    {"kind": "metadynamics"},
    {"kind": "replica-exchange"},
    {"kind": "normal-modes"},
    {"kind": "ramp"},
]
CAPPED: dict[str, dict[str, Any]] = {
    "replica-exchange": {"lowest": min(TEMPERATURES), "highest": HOTTEST, "rungs": 4},
    "normal-modes": {"displacement_temperature": HOTTEST},
    "ramp": {"points": [[0.0, min(TEMPERATURES)], [2000.0, HOTTEST]]},
}
"""Settings that keep methods at the temperatures of the exploration."""
CALIBRATED = {"kind": "calibrated", "tolerated_error": 0.15, "failed_error": 1.0, "probability": 0.9}
FIXED = {"kind": "fixed", "accurate_below": 0.05, "failed_above": 0.8}
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "everything": {
        "exploration": {"trust": CALIBRATED, "methods": [{**m, **CAPPED.get(m["kind"], {})} for m in METHODS]},
        "selection": {"strategy": "uncertainty"},
    },
    "plain": {
        "exploration": {"trust": FIXED, "methods": []},
        "selection": {"strategy": "uncertainty", "diversity": "none"},
    },
    "random": {"exploration": {"trust": FIXED, "methods": []}, "selection": {"strategy": "random"}},
    "everything_hot": {
        "exploration": {"trust": CALIBRATED, "methods": METHODS},
        "selection": {"strategy": "uncertainty"},
    },
}
"""What each arm sets in the sections of the config, over `COMMON`."""
COMMON: dict[str, dict[str, Any]] = {
    "model": {"members": 3, "num_layers": 2, "l_max": 1, "num_features": 16},
    "training": {
        "first_at": 12,
        "refit_every": 6,
        "refit_growth": 0.5,
        "max_ahead": 1,
        "budget_s": 3600,
        "max_epochs": 150,
        "batch_size": 10,
        "learning_rate": 0.02,
    },
    "exploration": {"walkers": 14, "temperatures": list(TEMPERATURES), "chunk_steps": 50, "spacing_steps": 50},
    "initial": {"frames": 16, "temperature": 300},
    "selection": {"max_pending": 48},
    "stop": {"wall_s": None},
    "runtime": {"kind": "in-process"},
    "tracking": {"enabled": False},
}


@dataclass(frozen=True, slots=True)
class TestSet:
    """Frames of one molecule with GFN2-xTB forces.

    Attributes:
        batch: The frames.
        forces: ``(n_total, 3)``, eV/Angstrom.
    """

    __test__ = False  # pytest: not a test class

    batch: FrameBatch
    forces: FloatArray

    def errors(self, forces: FloatArray) -> dict[str, float]:
        """Mean absolute error of components and 95th percentile of atoms' error vectors, meV/Angstrom."""
        error = 1e3 * (forces - self.forces)
        return {
            "mae": float(np.abs(error).mean()),
            "p95": float(np.quantile(np.linalg.norm(error, axis=1), 0.95)),
        }


def config_of_campaign(
    arm: str, seed: int, smiles: str, n_labels: int, max_epochs: int, pool: float = POOL
) -> dict[str, Any]:
    """The campaign file of an arm and seed."""
    config = yaml.safe_load(BASE.read_text(encoding="utf-8"))
    for section, values in COMMON.items():
        config[section] = {**config.get(section, {}), **values}
    for section, values in ARMS[arm].items():
        config[section] = {**config[section], **values}
    config["name"] = f"{arm.replace('_', '-')}-{seed}"
    config["seed"] = seed
    config["systems"] = [{"name": "molecule", "smiles": smiles}]
    config["training"]["max_epochs"] = max_epochs
    config["stop"]["labels"] = n_labels
    config["selection"]["pool"] = pool
    return dict(config)


def test_sets(folder: Path, smiles: str, n_frames: int) -> dict[str, TestSet]:
    """Both test sets, from `folder` where they are there."""
    config = config_of_campaign("random", 0, smiles, 100, 1)
    start = start_of(parse_config(config))
    sets = {}
    for name, (temperature, seed) in TEST_SETS.items():
        path = folder / f"test-{name}.npz"
        if not path.is_file():
            labelled = label(sample(start, temperature, n_frames, seed))
            temporary = path.with_suffix(".tmp.npz")
            positions = np.array([frame.positions for frame, _, _ in labelled])
            forces = np.array([forces for _, _, forces in labelled])
            np.savez(temporary, positions=positions, forces=forces, smiles=smiles, temperature=temperature)
            temporary.rename(path)
        with np.load(path) as stored:
            if str(stored["smiles"]) != smiles:
                raise SystemExit(f"{path} is of {stored['smiles']}; give another folder")
            frames = [start.with_positions(positions) for positions in stored["positions"]]
            sets[name] = TestSet(FrameBatch.of(frames), np.concatenate(stored["forces"]))
    return sets


def run_campaign(folder: Path, config: dict[str, Any]) -> float:
    """Runs or goes on with a campaign in its own process; returns seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "campaign.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "alsys.cli", "run", str(file), "--quiet"]
    command += ["--set", f"directory={folder / 'campaign'}"]
    started = time.perf_counter()
    with (folder / "output.log").open("a", encoding="utf-8") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise SystemExit(f"{config['name']} ended with {done.returncode}; see {folder / 'output.log'}")
    return time.perf_counter() - started


def curve_of(campaign: Path, sets: dict[str, TestSet]) -> list[dict[str, float]]:
    """Errors of each published version on the test sets."""
    rows = []
    for path in sorted((campaign / "models").glob("v[0-9]*")):
        card = json.loads((path / "card.json").read_text(encoding="utf-8"))
        committee = build_committee(read_bundle(path))
        row: dict[str, float] = {
            "version": card["version"],
            "train_labels": card["metrics"]["n_labels_train"],
            "all_labels": card["n_labels"],
            "train_mae": 1e3 * card["metrics"]["force_mae_train"],
            "fit_s": card["metrics"]["wall_s"],
        }
        for name, test in sets.items():
            errors = test.errors(committee.evaluate(test.batch).forces)
            row |= {f"{name}_{key}": value for key, value in errors.items()}
        rows.append(row)
    return rows


def run_one(folder: Path, arm: str, seed: int, config: dict[str, Any], sets: dict[str, TestSet]) -> dict[str, Any]:
    """The result of one campaign, from its folder where it is finished."""
    place = folder / f"{arm}-{seed}"
    result_file = place / "result.json"
    if result_file.is_file():
        result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
        if result["config"] != config:
            raise SystemExit(f"{place} holds a campaign with other settings; give another folder")
        return result
    wall_s = run_campaign(place, config)
    status = subprocess.run(
        [sys.executable, "-m", "alsys.cli", "status", str(place / "campaign"), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    known = json.loads(status.stdout)
    result = {
        "arm": arm,
        "seed": seed,
        "wall_s": wall_s,
        "labels": known["labels"],
        "rejected": sum(model["promoted"] is False for model in known["models"]),
        "curve": curve_of(place / "campaign", sets),
        "config": config,
    }
    temporary = result_file.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    temporary.rename(result_file)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="the summary on one line")
    parser.add_argument("--out", type=Path, required=True, help="folder of campaigns, test sets, plot and summary")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labels", type=int, default=100, help="labels of a campaign, random arm included")
    parser.add_argument("--molecule", default="CO", help="SMILES")
    parser.add_argument("--epochs", type=int, default=COMMON["training"]["max_epochs"], help="passes of one fit")
    parser.add_argument("--frames", type=int, default=150, help="of a test set")
    parser.add_argument("--arms", default="everything,plain,random", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--pool", type=float, default=POOL, help="selection.pool of all arms; at least 1")
    parser.add_argument("--quick", action="store_true", help="some minutes: two seeds, 30 labels, 20 passes")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.labels, args.epochs, args.frames = 2, 30, 20, 40
    arms = args.arms.split(",")
    if unknown := set(arms) - set(ARMS):
        parser.error(f"no such arm: {', '.join(sorted(unknown))}")
    if "random" not in arms:
        parser.error("the arm random is what the others are compared with")
    args.out.mkdir(parents=True, exist_ok=True)
    sets = test_sets(args.out, args.molecule, args.frames)
    results: list[dict[str, Any]] = []
    for seed in range(1, args.seeds + 1):
        for arm in arms:
            config = config_of_campaign(arm, seed, args.molecule, args.labels, args.epochs, args.pool)
            results.append(run_one(args.out, arm, seed, config, sets))
            last = results[-1]["curve"][-1]
            errors = ", ".join(f"{name} {last[name]:.0f}" for name in METRICS)
            progress = f"{arm} {seed}: {last['train_labels']:.0f} training labels, {errors}"
            print(f"{progress}, {results[-1]['wall_s']:.0f} s", file=sys.stderr, flush=True)
    curves = {arm: [r["curve"] for r in results if r["arm"] == arm] for arm in arms}
    result = {
        "molecule": args.molecule,
        "labels": args.labels,
        "seeds": args.seeds,
        "epochs": args.epochs,
        "pool": args.pool,
        "test_frames": {name: test.batch.n_frames for name, test in sets.items()},
        "summary": summary(curves),
        "runs": [{key: value for key, value in r.items() if key != "config"} for r in results],
        "arms": {arm: ARMS[arm] for arm in arms},
        "common": COMMON,
        "machine": machine(),
    }
    (args.out / "summary.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (args.out / "curves.svg").write_text(drawing(curves, result["summary"]), encoding="utf-8")
    print(json.dumps(result) if args.json else json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
