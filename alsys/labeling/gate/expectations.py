"""What a label's energy may be, from labels seen before: robust scales and a model of the composition.

Energies of one composition scatter with temperature, far above the median and little below it; those of different
compositions are nearly linear in the numbers of atoms. Both are fitted so that one label in five may be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from alsys.labeling.gate.sorted_numbers import MAD, SortedNumbers

Composition = tuple[tuple[tuple[int, int], ...], int, int]
"""Pairs of atomic number and count, charge, multiplicity."""
MIN_SAME = 6
"""Labels of one composition before their median is believed."""
BELOW_FLOOR = 0.05
ABOVE_FLOOR = 0.15
"""Energy per atom below and above the median that is always allowed, eV."""
ABOVE_SCALES = 2.0
"""How much further above the median than below it an energy may be."""
ADDITIVE_FLOOR = 0.5
"""Error per atom of an energy that is taken to be linear in the composition, eV."""
BINDING = (-12.0, 5.0)
"""Energy of a bound atom against a free one, eV; diamond's is -7.7, and a hot gas may be above zero."""


@dataclass(frozen=True, slots=True)
class Expected:
    """An energy and how far from it is normal, eV."""

    energy: float
    below: float
    above: float


def expected_energy(
    composition: Composition, seen: Mapping[Composition, SortedNumbers], scales: float
) -> Expected | None:
    """Expected energy of a composition; None where what was seen says nothing about it.

    Args:
        composition: Of the label that is judged.
        seen: Energies of labels seen before, by composition, eV.
        scales: Robust standard deviations below the median that are normal.
    """
    n_atoms = sum(count for _, count in composition[0])
    same = seen.get(composition)
    if same is not None and len(same) >= MIN_SAME:
        spread = same.scatter * (1.0 + 4.0 / len(same))
        below = max(scales * spread, BELOW_FLOOR * n_atoms)
        return Expected(same.median, below, max(ABOVE_SCALES * scales * spread, ABOVE_FLOOR * n_atoms))
    return _additive(composition, seen, n_atoms, scales)


def is_surely_expected(
    composition: Composition, energy: float, seen: Mapping[Composition, SortedNumbers], scales: float
) -> bool:
    """Whether an energy, eV, is within both limits of `expected_energy`, seen without working them out."""
    same, n_atoms = seen.get(composition), sum(count for _, count in composition[0])
    if same is None or len(same) < MIN_SAME:
        return False
    difference = energy - same.median
    if -BELOW_FLOOR * n_atoms <= difference <= ABOVE_FLOOR * n_atoms:
        return True
    return same.is_distance_below(abs(difference) / (scales * MAD * (1.0 + 4.0 / len(same))), 0.5)


def is_free_atom(composition: Composition) -> bool:
    """Whether it is one neutral atom."""
    counts, charge, _ = composition
    return len(counts) == 1 and counts[0][1] == 1 and charge == 0


def free_atom_sum(composition: Composition, atoms: Mapping[Composition, SortedNumbers]) -> float | None:
    """Sum of free-atom energies, eV; None where an element's is not known.

    Args:
        composition: Of the label that is judged.
        atoms: Energies of free atoms, eV.
    """
    free = {counts[0][0]: energies.median for (counts, _, _), energies in atoms.items()}
    if any(number not in free for number, _ in composition[0]):
        return None
    return sum(free[number] * count for number, count in composition[0])


def _additive(
    composition: Composition, seen: Mapping[Composition, SortedNumbers], n_atoms: int, scales: float
) -> Expected | None:
    """Huber's regression of median energies on element counts, molecules only, where they span the composition."""
    others = [key for key in seen if sum(count for _, count in key[0]) > 1]
    numbers = sorted({number for key in (*others, composition) for number, _ in key[0]})
    if len(others) < 2 * len(numbers) + 1:
        return None
    rows = np.array([[dict(key[0]).get(number, 0) for number in numbers] for key in others], dtype=np.float64)
    target = np.array([seen[key].median for key in others])
    asked = np.array([dict(composition[0]).get(number, 0) for number in numbers], dtype=np.float64)
    if np.linalg.matrix_rank(np.vstack([rows, asked])) > np.linalg.matrix_rank(rows):
        return None
    weights = np.ones(len(target))
    for _ in range(20):
        root = np.sqrt(weights)
        solution = np.linalg.lstsq(rows * root[:, None], target * root, rcond=None)[0]
        residual = np.abs(target - rows @ solution)
        scale = max(MAD * float(np.median(residual)), 1e-6)
        weights = np.minimum(1.0, 1.345 * scale / np.maximum(residual, 1e-12))
    width = max(scales * scale, ADDITIVE_FLOOR * n_atoms)
    return Expected(float(asked @ solution), width, width)
