"""Labelled frames for tests of imports: methanol shaken at random, with energies and forces of GFN1-xTB.

A method that differs from the one that units are checked with, and cheap: 2 ms a frame. Also snapshots of any frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alsys.frames import Arm, Candidate, FloatArray, Frame, Source
from alsys.labels import Label, LevelOfTheory
from alsys.potentials.xtb import XTBMethod, XTBValues, single_point
from alsys.store.base import Snapshot
from alsys.store.memory import open_writer

METHANOL = np.array([6, 8, 1, 1, 1, 1])
POSITIONS = np.array(
    [
        [-0.047, 0.664, 0.0],
        [-0.047, -0.758, 0.0],
        [-1.092, 0.983, 0.0],
        [0.437, 1.072, 0.892],
        [0.437, 1.072, -0.892],
        [0.874, -1.046, 0.0],
    ]
)
"""Angstrom, near the minimum."""
GFN1 = LevelOfTheory({"engine": "tblite", "method": "GFN1-xTB", "accuracy": 1.0})

Labelled = tuple[Frame, float, FloatArray]


def shaken_methanol(n: int, seed: int = 0, amplitude: float = 0.05) -> list[Labelled]:
    """Frames with energies (eV) and ``(6, 3)`` forces (eV/Angstrom).

    Args:
        n: How many.
        seed: Of the shaking.
        amplitude: Standard deviation of a coordinate, Angstrom.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        frame = Frame.molecule(METHANOL, POSITIONS + rng.normal(0.0, amplitude, POSITIONS.shape))
        values = single_point(frame, XTBMethod("GFN1-xTB", accuracy=1.0))
        found.append((frame, values.energy, values.forces))
    return found


def boxed_water(n: int, seed: int = 0) -> list[tuple[Frame, XTBValues]]:
    """One molecule of water in small periodic cells of several shapes, with energies, forces and stresses of GFN1-xTB.

    Args:
        n: How many.
        seed: Of the shaking.
    """
    rng = np.random.default_rng(seed)
    water = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]])
    found = []
    for _ in range(n):
        cell = 3.3 * (np.eye(3) + np.diag(rng.normal(0.0, 0.03, 3)) + np.triu(rng.normal(0.0, 0.02, (3, 3)), 1))
        positions = water + rng.normal(0.0, 0.04, (3, 3))
        frame = Frame(np.array([8, 1, 1]), positions, cell, np.ones(3, dtype=bool))
        found.append((frame, single_point(frame, XTBMethod("GFN1-xTB", accuracy=1.0))))
    return found


def snapshot_of(
    labelled: Sequence[Labelled], level: LevelOfTheory = GFN1, stresses: Sequence[FloatArray | None] | None = None
) -> Snapshot:
    """Labelled frames as a snapshot, repeated ones once."""
    store = open_writer()
    sources = [Source("test", Arm.INITIAL, "test", trajectory=i) for i in range(len(labelled))]
    candidates = [Candidate(frame, source) for (frame, _, _), source in zip(labelled, sources, strict=True)]
    labels = [
        Label(f.frame_id, level.level_id, e, x, stress=None if stresses is None else stresses[i])
        for i, (f, e, x) in enumerate(labelled)
    ]
    store.stage((), candidates, labels, [level])
    store.commit()
    return store.snapshot(level.level_id)
