"""Reference frames: a frame with a known label that every worker computes at its start and every so many labels.

A worker whose hardware, libraries or memory have gone wrong tells the wrong forces of a molecule that never changes.
Its first label in a campaign is what later ones are compared with, so it is of the campaign's own level.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alsys.frames import Frame
from alsys.labeling.gate.findings import Finding
from alsys.labels import Label

FORCE_TOLERANCE = 2e-3
"""eV/Angstrom: one level on another machine differs by the SCF tolerance and the order of sums, far below."""
ENERGY_TOLERANCE = 1e-3
"""Energy per atom, eV."""

WATER = Frame.molecule([8, 1, 1], [[0.0, 0.0, 0.1193], [0.0, 0.7832, -0.4770], [0.0, -0.7432, -0.4770]])
"""Near its equilibrium; one bond is stretched, so that forces tell the hydrogens apart."""
METHANOL = Frame.molecule(
    [6, 8, 1, 1, 1, 1],
    [
        [-0.0468, 0.6640, 0.0],
        [-0.0468, -0.7780, 0.0],
        [-1.0928, 0.9694, 0.0],
        [0.8781, -1.0463, 0.0],
        [0.4377, 1.0715, 0.9289],
        [0.4377, 1.0715, -0.8489],
    ],
)  # fmt: skip


def reference_frames(start: Sequence[Frame]) -> tuple[Frame, ...]:
    """Reference frames of a campaign: water and methanol where all systems hold carbon, hydrogen or oxygen and no cell.

    Other engines may lack these elements, so theirs is the smallest of the systems' own start geometries.

    Args:
        start: Start geometries of the systems.
    """
    known = {1, 6, 8}
    if not start or all(known & {int(z) for z in frame.numbers} and not frame.pbc.any() for frame in start):
        return (WATER, METHANOL)
    return (min(start, key=lambda frame: (frame.n_atoms, frame.frame_id)),)


def compare_reference(reference: Label, label: Label) -> Finding | None:
    """Compares a label of the reference frame with the first one; None where it is as it should be.

    Args:
        reference: The first label.
        label: The same frame at the same level, now.
    """
    if reference.label_id != label.label_id or reference.forces.shape != label.forces.shape:
        return Finding("reference", float("nan"), 0.0, True, "reference frame: the label of another frame or level")
    n = len(label.forces)
    force = float(np.sqrt(np.square(label.forces - reference.forces).sum(axis=1)).max())
    energy = abs(label.energy - reference.energy) / n
    if not force <= FORCE_TOLERANCE:
        message = f"reference frame {force:.4g} (limit {FORCE_TOLERANCE:.4g}): eV/Angstrom from its first label"
        return Finding("reference", force, FORCE_TOLERANCE, True, message)
    if not energy <= ENERGY_TOLERANCE:
        message = f"reference frame {energy:.4g} (limit {ENERGY_TOLERANCE:.4g}): eV per atom from its first label"
        return Finding("reference", energy, ENERGY_TOLERANCE, True, message)
    return None
