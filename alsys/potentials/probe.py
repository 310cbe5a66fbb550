"""Frames on which two ways to evaluate a committee are compared before one of them is used, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from ase.data import atomic_numbers

from alsys.frames import FloatArray, Frame
from alsys.potentials.architectures import elements_of, states_of
from alsys.potentials.base import FrameBatch, has_volume
from alsys.states import NEUTRAL_SINGLET

TOLERANCE: Final[Mapping[str, float]] = {"float32": 1e-4, "float64": 1e-9}
"""Largest difference to the plain model, relative to its largest force or, if larger, 1 eV/Angstrom; by type."""


@dataclass(frozen=True, slots=True)
class MemberValues:
    """What some members say of a batch.

    Attributes:
        energies: ``(n_evaluated, n_frames)``, eV.
        forces: ``(n_evaluated, n_total, 3)``, eV/Angstrom.
        features: ``(n_total, n_features)`` of member 0; None where it was not evaluated.
        stresses: ``(n_evaluated, n_frames, 3, 3)``, eV/Angstrom^3, NaN in frames that have none; None where no frame
            has one.
    """

    energies: FloatArray
    forces: FloatArray
    features: FloatArray | None
    stresses: FloatArray | None

    @property
    def mean_stress(self) -> FloatArray | None:
        """``(n_frames, 3, 3)`` mean over members."""
        return None if self.stresses is None else self.stresses.mean(axis=0)


def first_odd(found: MemberValues, expected: MemberValues, batch: FrameBatch, dtype: str) -> tuple[int, float] | None:
    """The first member that differs by more than `TOLERANCE`, and by how much; None where none does.

    Args:
        found: What all members say in a way that is to be used.
        expected: What they say themselves.
        batch: The frames.
        dtype: Of the networks.
    """
    for k, difference in enumerate(differences(found, expected, batch).tolist()):
        if not difference <= TOLERANCE[dtype] * max(1.0, float(np.abs(expected.forces[k]).max())):
            return k, difference
    return None


def differences(found: MemberValues, expected: MemberValues, batch: FrameBatch) -> FloatArray:
    """``(n_members,)`` largest difference: forces, energies per atom, virials per atom, and features."""
    n_atoms = np.asarray(batch.n_atoms, dtype=np.float64)
    by_energy = np.abs(found.energies - expected.energies) / n_atoms
    largest: FloatArray = np.maximum(by_energy.max(axis=1), np.abs(found.forces - expected.forces).max(axis=(1, 2)))
    if found.stresses is not None and expected.stresses is not None:
        per_atom = np.abs(np.linalg.det(batch.cell)) / n_atoms
        by_virial = np.abs(found.stresses - expected.stresses) * per_atom[:, None, None]
        largest = np.maximum(largest, by_virial[:, has_volume(batch)].max(axis=(1, 2, 3)))
    if found.features is not None and expected.features is not None:
        largest[0] = max(largest[0], np.abs(found.features - expected.features).max())
    return largest


def probe_of(spec: Mapping[str, object], extra: Sequence[int]) -> FrameBatch:
    """Clusters that hold all elements twice, and some atoms of the first one more; the last is periodic.

    Of a model that tells states apart there is one in each state at least.
    """
    elements, states = elements_of(spec), states_of(spec) or (NEUTRAL_SINGLET,)
    extra = [*extra, *range(extra[-1] + 1, extra[-1] + 1 + max(0, len(states) - len(extra)))]
    rng = np.random.default_rng(7)
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    frames = []
    for k, n_more in enumerate(extra):
        numbers = [atomic_numbers[symbol] for symbol in elements * 2] + [atomic_numbers[elements[0]]] * n_more
        sites = np.tile(grid, (len(numbers) // len(grid) + 1, 1))[: len(numbers)]
        layers = np.arange(len(numbers)) // len(grid)
        positions = 1.3 * sites + 0.15 * rng.normal(size=sites.shape)
        positions[:, 0] += 6.5 * layers
        state = states[k % len(states)]
        frames.append(Frame.molecule(np.array(numbers), positions, state.charge, state.multiplicity))
    last = frames[-1]
    cell = np.diag(np.ptp(last.positions, axis=0) + 1.5) + np.array([[0, 0, 0], [0.3, 0, 0], [-0.2, 0.4, 0]])
    frames[-1] = replace(last, cell=cell, pbc=np.array([True, True, True]))
    return FrameBatch.of(frames)
