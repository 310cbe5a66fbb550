"""A molecule with its neighbours, taken out of a periodic frame: what xTB can treat where the frame is too large.

Forces on the molecule in the middle are nearly those in the box: most of them comes from its own bonds, the rest from
neighbours that are there. Only frames of small molecules can be taken apart; a crystal is one molecule without an end.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from ase.data import covalent_radii
from ase.neighborlist import primitive_neighbor_list

from alsys.frames import Frame, IntArray

BOND: Final = 1.25
"""Of the sum of covalent radii."""
SHELL: Final = 4.0
"""Angstrom from an atom of the molecule to one of a neighbour."""
MAX_MOLECULE: Final = 30
MAX_CLUSTER: Final = 150


def cluster_of(frame: Frame) -> tuple[Frame, IntArray] | None:
    """A molecule and its neighbours without the rest, the molecule first, and which atoms of the frame it is.

    Args:
        frame: A periodic one.

    Returns:
        None where the frame is charged, or no molecules of at most `MAX_MOLECULE` atoms, or they are radicals.
    """
    if frame.charge or frame.multiplicity != 1:
        return None
    longest = 2.0 * BOND * float(covalent_radii[frame.numbers].max())
    first, second, shift, distance = primitive_neighbor_list(
        "ijSd", frame.pbc, frame.cell, frame.positions, max(SHELL, longest)
    )
    radii = covalent_radii[frame.numbers]
    is_bond = distance < BOND * (radii[first] + radii[second])
    bonds: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
    for a, b, s in zip(first[is_bond].tolist(), second[is_bond].tolist(), shift[is_bond].tolist(), strict=True):
        bonds.setdefault(a, []).append((b, tuple(s)))
    middle = _molecule(0, (0, 0, 0), bonds)
    if middle is None:
        return None
    atoms = dict.fromkeys(middle)
    near = np.flatnonzero((distance < SHELL) & np.isin(first, [a for a, _ in middle]))
    offsets = dict(middle)
    for k in near.tolist():
        start = offsets[int(first[k])]
        image = tuple(int(x) + y for x, y in zip(shift[k].tolist(), start, strict=True))
        if (int(second[k]), image) in atoms:
            continue
        neighbour = _molecule(int(second[k]), image, bonds)
        if neighbour is None or len(atoms) > MAX_CLUSTER:
            return None
        atoms.update(dict.fromkeys(neighbour))
    rows = np.array([a for a, _ in atoms], dtype=np.int64)
    images = np.array([image for _, image in atoms], dtype=np.float64)
    if int(frame.numbers[rows].sum()) % 2:
        return None
    cluster = Frame.molecule(frame.numbers[rows], frame.positions[rows] + images @ frame.cell)
    return cluster, rows[: len(middle)]


def _molecule(
    start: int, image: tuple[int, ...], bonds: dict[int, list[tuple[int, tuple[int, ...]]]]
) -> list[tuple[int, tuple[int, ...]]] | None:
    """Atoms, each with its image, that bonds connect with one; None for too many, or where they have no end."""
    found = {start: image}
    waiting = [start]
    while waiting:
        atom = waiting.pop()
        for other, shift in bonds.get(atom, []):
            place = tuple(x + y for x, y in zip(found[atom], shift, strict=True))
            if other not in found:
                found[other] = place
                waiting.append(other)
            elif found[other] != place:
                return None
            if len(found) > MAX_MOLECULE:
                return None
    return list(found.items())
