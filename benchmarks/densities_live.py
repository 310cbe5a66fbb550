"""SCF iterations that first densities saved in a campaign that has run, at its own settings.

Every label's iterations are in the store. Each ``--every``-th label is computed once more with PySCF's own guess; the
saving is over those frames, and energies and forces of both are compared. Free atoms are left out.

    python benchmarks/densities_live.py campaigns/ethanol --every 5
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from orchestration import machine

from alsys.config import parse_config
from alsys.config.labeling import PySCFLabeling
from alsys.events import LabelAccepted
from alsys.labeling.pyscf import PySCFEngine
from alsys.labels import Label
from alsys.store.base import own_level
from alsys.store.zarr import open_reader
from alsys.units import HARTREE


def main() -> None:
    """Prints the saving as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", type=Path, help="folder of a campaign with PySCF labels")
    parser.add_argument("--every", type=int, default=5, help="labels of which one is computed again")
    args = parser.parse_args()
    config = parse_config(json.loads((args.campaign / "campaign.json").read_text(encoding="utf-8"))["config"])
    if not isinstance(config.labeling, PySCFLabeling):
        parser.error(f"{args.campaign}: labels are of kind {config.labeling.kind}, not pyscf")
    reader = open_reader(args.campaign / "store.zarr")
    level = own_level(reader.levels(), [])
    if level is None:
        parser.error(f"{args.campaign}: no labels")
    order = list(dict.fromkeys(event.frame_id for event in reader.events() if isinstance(event, LabelAccepted)))
    rows = zip(reader.candidates(order), reader.labels(order, level.level_id), strict=True)
    labelled = [(row.frame, label) for row, label in rows if label is not None and row.frame.n_atoms > 1]
    engine = PySCFEngine(config.labeling.model_copy(update={"initial_guess": "default"}))
    own, default, energy, force, cpu = [], [], [], [], []
    for k, (frame, label) in list(enumerate(labelled))[args.every - 1 :: args.every]:
        again = engine.label(frame)
        if not isinstance(again, Label):
            print(f"label {k}: {again.message}", file=sys.stderr)
            continue
        own.append(label.cost.scf_cycles)
        default.append(again.cost.scf_cycles)
        energy.append(abs(again.energy - label.energy) / HARTREE)
        force.append(float(np.abs(again.forces - label.forces).max()))
        cpu.append((label.cost.cpu_s, again.cost.cpu_s))
        print(f"label {k}: {own[-1]} iterations, {default[-1]} with PySCF's guess", file=sys.stderr, flush=True)
    cycles = np.array([label.cost.scf_cycles for _, label in labelled], dtype=float)
    draws = np.random.default_rng(0).integers(0, len(own), (2000, len(own)))
    a, b = np.array(own, dtype=float), np.array(default, dtype=float)
    saved = 100 * (1 - a[draws].sum(axis=1) / b[draws].sum(axis=1))
    result = {
        "labels": len(labelled),
        "mean_cycles": float(cycles.mean()),
        "cycles_by_labels": {str(i): float(cycles[i : i + 10].mean()) for i in range(0, len(cycles), 10)},
        "again": len(own),
        "default_mean_cycles": float(b.mean()),
        "cycles_saved_percent": float(100 * (1 - a.sum() / b.sum())),
        "interval_95": [float(x) for x in np.percentile(saved, (2.5, 97.5))],
        "max_energy_difference_hartree": max(energy),
        "max_force_difference_ev_per_ang": max(force),
        "level": level.spec,
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
