"""Strata of frames: which atoms are bonded to which, and how hot the walker was.

A molecule's topology is a hash of its bond graph that does not depend on the order of like atoms: colours of the atoms
are refined by those of their neighbours (B. Weisfeiler, A. Leman, 1968), one digest for each connected fragment. Bonds
are judged as in `alsys.dynamics.geometry`, by covalent radii. Bonds of the start structure may stretch further
before they count as broken than a new pair must come together before it counts as bonded, so that vibrations do not
make strata of their own. Periodic frames have no topology here: they are told apart by composition and temperature.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from alsys.dynamics.geometry import BONDED, pair_ratios
from alsys.errors import InputError
from alsys.frames import Frame, IntArray

HOLDS = 1.6
"""Share of the covalent sum up to which a bond of the start structure still counts."""
ROUNDS = 4
"""Bonds over which an atom sees the others."""


def stratum(frame: Frame, start: Frame, temperature_bin: str = "") -> str:
    """Composition, topology and temperature bin of a frame, for example ``C2H6O:5f0c41e2a9b7:300K``.

    Args:
        frame: The frame.
        start: The start structure of its system, atoms in the same order.
        temperature_bin: The caller's name for the temperature; left out where empty.

    Raises:
        InputError: The frame does not have the atoms of its start structure.
    """
    if frame.numbers.shape != start.numbers.shape or (frame.numbers != start.numbers).any():
        raise InputError("the frame has other atoms than its start structure", field="frame", value=frame.frame_id)
    shape = "periodic" if frame.pbc.any() else topology(frame, bonds(frame, start))
    return ":".join(part for part in (formula(frame.numbers), shape, temperature_bin) if part)


def bonds(frame: Frame, start: Frame | None = None) -> IntArray:
    """``(n_bonds, 2)`` bonded pairs of a molecule; those of `start` hold further than new ones form."""
    i, j, ratio = pair_ratios(frame.numbers, frame.positions)
    limit = np.full(ratio.shape, BONDED)
    if start is not None:
        limit[pair_ratios(start.numbers, start.positions)[2] < BONDED] = HOLDS
    is_bond = ratio < limit
    return np.stack([i[is_bond], j[is_bond]], axis=1)


def topology(frame: Frame, pairs: IntArray) -> str:
    """Hash of the bond graph of a molecule, 12 characters; the same for any order of its atoms.

    Args:
        frame: The molecule.
        pairs: ``(n_bonds, 2)`` bonded pairs.
    """
    return _topology(frame.numbers.tobytes(), np.asarray(pairs, dtype=np.int64).tobytes())


def formula(numbers: NDArray[np.int32]) -> str:
    """Sum formula in Hill order: carbon, hydrogen, then the others by name; without carbon all by name."""
    symbols = [chemical_symbols[z] for z in numbers]
    first = ["C", "H"] if "C" in symbols else []
    names = sorted(set(symbols), key=lambda s: (first.index(s) if s in first else len(first), s))
    return "".join(f"{s}{symbols.count(s) if symbols.count(s) > 1 else ''}" for s in names)


@lru_cache(maxsize=4096)
def _topology(elements: bytes, edges: bytes) -> str:
    numbers, pairs = np.frombuffer(elements, dtype=np.int32), np.frombuffer(edges, dtype=np.int64).reshape(-1, 2)
    n_atoms = len(numbers)
    neighbours: list[list[int]] = [[] for _ in range(n_atoms)]
    for a, b in pairs.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    colours = [_digest(str(z)) for z in numbers.tolist()]
    for _ in range(ROUNDS):
        colours = [_digest(colours[a] + "".join(sorted(colours[b] for b in neighbours[a]))) for a in range(n_atoms)]
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n_atoms, n_atoms))
    n_fragments, fragment = connected_components(graph, directed=False)
    # one digest a fragment, or two rings of three would look like one of six
    fragments = [
        _digest("".join(sorted(colours[a] for a in np.flatnonzero(fragment == k)))) for k in range(n_fragments)
    ]
    return _digest("".join(sorted(fragments)))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6, person=b"alsys-topology").hexdigest()
