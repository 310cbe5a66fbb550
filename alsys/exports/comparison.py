"""An export beside its source, on frames of the random arm and on clusters made for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from alsys.errors import EnvironmentProblem
from alsys.exports.content import Content
from alsys.frames import Frame
from alsys.interop.nequip_export import periodic
from alsys.interop.nequip_package import TOLERANCE, probe_frames
from alsys.potentials.architectures import elements_of
from alsys.potentials.base import Committee, FrameBatch

MAX_FORCE = 1e-4
"""Largest difference of a force component on frames of the random arm, eV/Angstrom."""
OTHER_ROUNDING = 1e-6
"""Of forces on clusters, relative to the largest one, that another program may differ by in float64."""
MAX_ENERGY = 1e-4
"""Largest difference of energies, eV per atom."""


@dataclass(frozen=True, slots=True)
class Differences:
    """How an export differs from its source.

    Attributes:
        energy_difference: Largest, eV per atom.
        force_difference: Of a component, eV/Angstrom.
        stress_difference: eV/Angstrom^3; None where either has no stress.
        n_frames: Frames of the random arm that were compared; clusters come on top.
    """

    energy_difference: float
    force_difference: float
    stress_difference: float | None
    n_frames: int


def compare(exported: Committee, source: Committee, content: Content, *, is_periodic: bool = True) -> Differences:
    """Evaluates both.

    Args:
        exported: What was written, read back.
        source: What it was made of.
        content: Says the frames.
        is_periodic: The export takes periodic frames.

    Raises:
        EnvironmentProblem: They differ by more than rounding.
    """
    clusters = probe_frames(elements_of(content.state.spec))
    probes = [*clusters, periodic(clusters[0])] if is_periodic else clusters
    held_out = [frame for frame in content.frames() if is_periodic or not frame.pbc.any()]
    relative = max(TOLERANCE.get(str(content.state.spec.get("dtype")), TOLERANCE["float32"]), OTHER_ROUNDING)
    found = [_largest(exported, source, probes, relative, is_scaled=True)]
    if held_out:
        found.append(_largest(exported, source, held_out, MAX_FORCE, is_scaled=False))
    energies, forces, stresses = zip(*found, strict=True)
    stress = [one for one in stresses if one is not None]
    return Differences(max(energies), max(forces), max(stress) if stress else None, len(held_out))


def _largest(
    exported: Committee, source: Committee, frames: list[Frame], allowed: float, *, is_scaled: bool
) -> tuple[float, float, float | None]:
    batch = FrameBatch.of(frames)
    theirs, ours = exported.evaluate(batch), source.evaluate(batch)
    energy = np.abs(theirs.energy - ours.energy) / batch.n_atoms
    force = np.abs(theirs.forces - ours.forces)
    stress: Any = None
    if theirs.stress is not None and ours.stress is not None:
        stress = np.abs(theirs.stress - ours.stress)[~np.isnan(ours.stress)]
    scale = max(1.0, float(np.abs(ours.forces).max())) if is_scaled else 1.0
    limits = {
        "energies": (energy, MAX_ENERGY),
        "forces": (force, allowed * scale),
        "stresses": (stress, allowed * scale),
    }
    for name, (values, most) in limits.items():
        if values is not None and values.size and not float(values.max()) <= most:
            raise EnvironmentProblem(f"the export gives other {name} than its source, by {float(values.max()):.2g}")
    largest = float(stress.max()) if stress is not None and stress.size else None
    return float(energy.max()), float(force.max()), largest
