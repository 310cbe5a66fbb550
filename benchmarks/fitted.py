"""Committees fitted to GFN2-xTB labels, for benchmarks that need sensible dynamics or true errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from alsys.config import CampaignConfig, parse_config
from alsys.config.labeling import XTBLabeling
from alsys.frames import ARMS, Arm, FloatArray, Frame
from alsys.labeling.factory import build_labeler
from alsys.labels import Label
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.store.base import Snapshot
from alsys.systems.builders import build_frame
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.factory import build_trainer

Labelled = list[tuple[Frame, float, FloatArray]]
"""Frame, energy (eV) and ``(n_atoms, 3)`` forces (eV/Angstrom)."""


def config_of(smiles: str, *, model: dict[str, Any], budget_s: float, **sections: Any) -> CampaignConfig:
    """A campaign on one molecule with GFN2-xTB labels."""
    return parse_config(
        {
            "name": "benchmark",
            "systems": [{"name": "molecule", "smiles": smiles}],
            "labeling": {"kind": "xtb"},
            "model": {"kind": "nequip", **model},
            "training": {"budget_s": budget_s, "learning_rate": 0.01, "validation_share": 0.0, "max_epochs": 100_000},
            "promotion": {"examine": False},
            **sections,
        }
    )


def start_of(config: CampaignConfig) -> Frame:
    """The start structure of its first system."""
    from pathlib import Path

    return build_frame(config.systems[0], Path())


def label(frames: Sequence[Frame]) -> Labelled:
    """GFN2-xTB labels; frames on which it fails are left out."""
    labeler = build_labeler(XTBLabeling(kind="xtb"))
    try:
        results = [(frame, labeler.label(frame)) for frame in frames]
    finally:
        labeler.close()
    return [(frame, result.energy, result.forces) for frame, result in results if isinstance(result, Label)]


def sample(start: Frame, temperature: float, n_frames: int, seed: int, spacing: int = 40) -> list[Frame]:
    """Frames of GFN2-xTB Langevin dynamics, 0.5 fs a step, `spacing` steps apart after 500 steps."""
    from ase import Atoms
    from tblite.ase import TBLite

    atoms = Atoms(start.numbers, start.positions)
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0, charge=start.charge, multiplicity=start.multiplicity)
    rng = np.random.default_rng(seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng)
    dynamics.run(500)
    frames = []
    for _ in range(n_frames):
        dynamics.run(spacing)
        frames.append(start.with_positions(atoms.positions))
    return frames


def snapshot_of(labelled: Labelled, atoms: Labelled) -> Snapshot:
    """Training frames and free atoms as a trainer wants them; each frame is a trajectory."""
    rows = [*atoms, *labelled]
    batch = FrameBatch.of([frame for frame, _, _ in rows])
    arms = [ARMS.index(Arm.ATOM)] * len(atoms) + [ARMS.index(Arm.INITIAL)] * len(labelled)
    n = len(rows)
    return Snapshot(
        seq=1,
        systems=("molecule",),
        frame_ids=tuple(frame.frame_id for frame, _, _ in rows),
        n_atoms=batch.n_atoms,
        numbers=batch.numbers,
        positions=batch.positions,
        cell=batch.cell,
        pbc=batch.pbc,
        charge=np.array([frame.charge for frame, _, _ in rows], dtype=np.int32),
        multiplicity=np.array([frame.multiplicity for frame, _, _ in rows], dtype=np.int32),
        energy=np.array([energy for _, energy, _ in rows]),
        forces=np.concatenate([forces for _, _, forces in rows]),
        stress=np.full((n, 3, 3), np.nan),
        mask=np.ones(len(batch.numbers), dtype=np.bool_),
        arm=np.array(arms, dtype=np.uint8),
        system=np.zeros(n, dtype=np.int32),
        trajectory=np.arange(n, dtype=np.int64),
        model_version=np.zeros(n, dtype=np.int32),
        deviation=np.full(n, np.nan, dtype=np.float32),
    )


def free_atoms(start: Frame) -> Labelled:
    """GFN2-xTB energies of the elements of a molecule."""
    ground = {1: 2, 6: 3, 7: 4, 8: 3}
    frames = [
        Frame.molecule(np.array([z]), np.zeros((1, 3)), multiplicity=ground[int(z)]) for z in np.unique(start.numbers)
    ]
    return label(frames)


def fit(
    config: CampaignConfig, labelled: Labelled, version: int = 1, parent: CommitteeState | None = None, seed: int = 0
) -> CommitteeState:
    """A committee fitted within ``training.budget_s``."""
    order = TrainingOrder(version, snapshot_of(labelled, free_atoms(labelled[0][0])), parent, None, seed)
    trained = build_trainer(config).run(order)
    if not isinstance(trained, TrainedCommittee):
        raise SystemExit(f"the fit failed: {trained.message}")
    return trained.state
