"""Bonds and contacts: whether a geometry still is what it started as.

Distances are measured as shares of the sum of two covalent radii (B. Cordero et al., Dalton Trans. 2008, 2832).
Molecules are checked for close contacts and for what holds them together, periodic frames for close contacts only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import covalent_radii
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from alsys.frames import FloatArray, Frame, IntArray
from alsys.potentials.arrays import HOST, Array, Arrays

if TYPE_CHECKING:
    from alsys.potentials.device_lists import DeviceContacts

BONDED = 1.3
"""Share of the covalent sum up to which two atoms count as bonded."""
BROKEN = 2.0
"""Share of the covalent sum beyond which a bond of the start structure counts as broken."""
FUSED_BELOW = 1.1
"""Share of the covalent sum below which two atoms that were not bonded count as fused."""
FLOWN = 5.0
"""Angstrom by which two separate molecules of one system may move apart."""
MIN_CONTACT = 0.6
"""Closest contact of a frame that makes sense, as a share of the covalent sum, where nobody has said otherwise."""
TOO_CLOSE = "too-close"
APART = "broken"
FUSED = "fused"


def pair_ratios(numbers: NDArray[np.int32], positions: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Distances of all pairs as shares of their covalent sums; periodic images are not looked at.

    Args:
        numbers: ``(n_atoms,)``.
        positions: ``(..., n_atoms, 3)``, Angstrom.

    Returns:
        ``(n_pairs,)`` first and second atoms, and ``(..., n_pairs)`` ratios.
    """
    i, j, sums = _pairs(np.asarray(numbers, dtype=np.int32).tobytes())
    vector = positions[..., i, :] - positions[..., j, :]
    return i, j, np.sqrt(np.square(vector).sum(axis=-1)) / sums


@lru_cache(maxsize=256)
def _pairs(numbers: bytes) -> tuple[IntArray, IntArray, FloatArray]:
    radii = covalent_radii[np.frombuffer(numbers, dtype=np.int32)]
    i, j = np.triu_indices(len(radii), k=1)
    return i, j, radii[i] + radii[j]


def close_pairs(frame: Frame, cutoff: float) -> tuple[IntArray, IntArray, FloatArray, IntArray]:
    """Pairs of atoms as of `pair_ratios`, periodic images included.

    Args:
        frame: The frame.
        cutoff: Ratio up to which a periodic frame is searched at least.

    Returns:
        ``(n_pairs,)`` first and second atoms and ratios, and ``(n_pairs, 3)`` cells by which the second ones are
        shifted. Of a periodic frame each pair comes both ways, of a molecule once.
    """
    if not frame.pbc.any():
        i, j, ratio = pair_ratios(frame.numbers, frame.positions)
        return i, j, ratio, np.zeros((i.size, 3), dtype=np.int64)
    radii = covalent_radii[frame.numbers]
    i, j, distance, shift = neighbour_list(
        "ijdS", positions=frame.positions, cell=frame.cell, pbc=frame.pbc, cutoff=float(2.0 * cutoff * radii.max())
    )
    return i, j, distance / (radii[i] + radii[j]), shift


def superpositions(moving: FloatArray, fixed: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Proper rotations ``R`` that bring points closest to others: ``moving @ R``; no mirror images.

    W. Kabsch, Acta Cryst. A 32, 922 (1976).

    Args:
        moving: ``(n, n_atoms, 3)``, relative to their centre.
        fixed: ``(n, n_atoms, 3)`` or ``(n_atoms, 3)``, relative to theirs.
        weights: ``(n_atoms,)``; None for equal ones.

    Returns:
        ``(n, 3, 3)``.
    """
    weighted = moving if weights is None else weights[:, None] * moving
    u, _, vt = np.linalg.svd(np.swapaxes(weighted, -1, -2) @ fixed)
    u[..., 2] *= np.sign(np.linalg.det(u) * np.linalg.det(vt))[..., None]
    return np.asarray(u @ vt)


def nearest_pair(frame: Frame, cutoff: float = 1.0) -> tuple[int, int, float]:
    """The two atoms that are closest for their size, periodic images included.

    Args:
        frame: The frame.
        cutoff: Ratio up to which a periodic frame is searched.

    Returns:
        Both atoms (equal for an atom and its own image) and the ratio; infinity where there is no such pair.
    """
    i, j, ratio, _ = close_pairs(frame, cutoff)
    if ratio.size == 0:
        return 0, 0, float("inf")
    k = int(np.argmin(ratio))
    return int(i[k]), int(j[k]), float(ratio[k])


def molecules_of(frame: Frame) -> IntArray:
    """``(n_atoms,)`` molecule of each atom, from 0: what bonds hold together, across periodic boundaries too."""
    i, j, ratio, _ = close_pairs(frame, BONDED)
    is_bond = ratio < BONDED
    bonds = coo_array((np.ones(int(is_bond.sum())), (i[is_bond], j[is_bond])), shape=(frame.n_atoms, frame.n_atoms))
    return np.asarray(connected_components(bonds, directed=False)[1], dtype=np.int64)


def closest_molecules(frame: Frame, molecules: IntArray, cutoff: float) -> float:
    """Smallest distance between atoms of different molecules, or of a molecule and its own image, Angstrom.

    Args:
        frame: No molecule of it may be split by the boundary.
        molecules: ``(n_atoms,)`` molecule of each atom.
        cutoff: Angstrom up to which a periodic frame is searched; infinity where nothing is closer.
    """
    if frame.pbc.any():
        i, j, distance, shift = neighbour_list(
            "ijdS", positions=frame.positions, cell=frame.cell, pbc=frame.pbc, cutoff=cutoff
        )
        is_other = (molecules[i] != molecules[j]) | shift.any(axis=1)
    else:
        i, j = np.triu_indices(frame.n_atoms, k=1)
        distance = np.linalg.norm(frame.positions[i] - frame.positions[j], axis=1)
        is_other = molecules[i] != molecules[j]
    return float(distance[is_other].min(initial=np.inf))


def closest_contact(numbers: NDArray[np.int32], positions: FloatArray) -> float:
    """Smallest ratio of a distance to its covalent sum in a molecule; infinite for a single atom."""
    return nearest_pair(Frame.molecule(numbers, positions))[2]


@dataclass(frozen=True, slots=True)
class Flags:
    """Walkers that must stop for one reason.

    Attributes:
        reason: Its name.
        is_set: ``(n_rows,)`` whether one must.
        walkers: ``(n_rows,)`` which walkers they are; None for all in order.
        is_meant: Asked for each walker that is flagged, on the host; None where the flag is the last word.
    """

    reason: str
    is_set: Array
    walkers: IntArray | None = None
    is_meant: Callable[[int], bool] | None = None


def named(arrays: Arrays, flags: Sequence[Flags]) -> dict[int, str]:
    """Walkers that must stop, and the last reason of each; of a device one copy."""
    return told(arrays, flags, ())[0]


def told(arrays: Arrays, flags: Sequence[Flags], others: Sequence[Array]) -> tuple[dict[int, str], list[NDArray[Any]]]:
    """As `named`, and other arrays in the same copy."""
    values = arrays.read([*(flag.is_set for flag in flags), *others])
    problems: dict[int, str] = {}
    for flag, is_set in zip(flags, values, strict=False):
        (rows,) = is_set.nonzero()
        if rows.size:
            walkers = (rows if flag.walkers is None else flag.walkers[rows]).tolist()
            problems.update((k, flag.reason) for k in walkers if flag.is_meant is None or flag.is_meant(k))
    return problems, values[len(flags) :]


class _OnHost:
    """Positions and cells that may be asked for on the host: of a device in one copy, once."""

    def __init__(self, arrays: Arrays, positions: Array, cell: Array | None) -> None:
        self._arrays, self._there = arrays, [positions, *([] if cell is None else [cell])]

    @property
    def positions(self) -> FloatArray:
        return self._read[0]

    @property
    def cell(self) -> FloatArray | None:
        return self._read[1] if len(self._read) > 1 else None

    @cached_property
    def _read(self) -> list[FloatArray]:
        return self._arrays.read(self._there)


class GeometryCheck:
    """Whether walkers still have the geometry of their start structures, all of them at once.

    A molecule must keep every bond of its start structure within `BROKEN` covalent sums. Where the start structure
    holds several molecules, they must hang together: by links as long as the longest one of the start structure that
    was needed for that, and `FLOWN` Angstrom more. Which molecules are next to each other may change. Atoms that were
    not bonded must not come closer than `FUSED_BELOW` covalent sums.

    Args:
        starts: Start structure of each walker.
        min_distance: Closest contact allowed, as a share of the covalent sum.
        is_reactive: Bonds may break and form; only parts that fly away are stopped.
    """

    def __init__(self, starts: Sequence[Frame], min_distance: float, is_reactive: bool = False) -> None:
        self._starts = list(starts)
        self._min_distance, self._is_reactive = min_distance, is_reactive
        self._offsets = np.concatenate([[0], np.cumsum([frame.n_atoms for frame in starts])])
        firsts, seconds, sums, limits, fused, walkers, counts = [], [], [], [], [], [], []
        for k, frame in enumerate(starts):
            if frame.n_atoms < 2 or frame.pbc.any():
                continue
            i, j, total = _pairs(frame.numbers.tobytes())
            firsts.append(i + self._offsets[k])
            seconds.append(j + self._offsets[k])
            sums.append(total)
            limit, ratio = _limits(frame), pair_ratios(frame.numbers, frame.positions)[2]
            limits.append(np.where(ratio < BONDED, limit + FLOWN / total, limit) if is_reactive else limit)
            fused.append(np.where(ratio < BONDED, 0.0, FUSED_BELOW))
            walkers.append(k)
            counts.append(i.size)
        self._periodic = np.array([k for k, frame in enumerate(starts) if frame.pbc.any()], dtype=np.int64)
        self._walkers = np.array(walkers, dtype=np.int64)
        self._counts = np.array(counts, dtype=np.int64)
        self._of_pairs: tuple[NDArray[Any], ...] = ()
        if walkers:
            columns = (firsts, seconds, sums, limits, fused)
            self._of_pairs = tuple(np.concatenate(column) for column in columns)
        self.to(HOST)

    def to(self, arrays: Arrays) -> None:
        """Goes on with walkers that are elsewhere."""
        self._arrays = arrays
        self._all, self._at = arrays.of([np.ones(self._periodic.size, dtype=np.bool_), self._periodic])
        self._contacts = None if arrays.is_on_host or not self._periodic.size else self._contacts_on(arrays)
        if self._of_pairs:
            self._first, self._second, self._sums, self._limits, self._fused = arrays.of(self._of_pairs)
            self._pairs = arrays.segments(self._counts)

    def flags(self, positions: Array, cell: Array | None = None) -> list[Flags]:
        """Walkers that make no sense any more: ``fused``, ``broken`` and ``too-close``.

        Args:
            positions: ``(n_total, 3)`` finite positions of all walkers, Angstrom.
            cell: ``(n_walkers, 3, 3)`` cells of the moment, Angstrom; None for those of the start structures.
        """
        flags: list[Flags] = []
        here = _OnHost(self._arrays, positions, cell)
        if self._walkers.size:
            xp, pairs = self._arrays.xp, self._pairs
            vector = positions[self._first] - positions[self._second]
            ratio = xp.sqrt(xp.einsum("px,px->p", vector, vector)) / self._sums
            if not self._is_reactive:
                flags.append(Flags(FUSED, pairs.any(ratio < self._fused), self._walkers))
            apart = pairs.any(ratio > self._limits)
            flags.append(Flags(APART, apart, self._walkers, lambda k: self._is_apart(k, here)))
            flags.append(Flags(TOO_CLOSE, pairs.min(ratio) < self._min_distance, self._walkers))
        if self._periodic.size:
            may_be = self._all if self._contacts is None else self._contacts.flags(positions, cell)[self._at]
            flags.append(Flags(TOO_CLOSE, may_be, self._periodic, lambda k: self._is_crowded(k, here)))
        return flags

    def problems(self, positions: Array, cell: Array | None = None) -> dict[int, str]:
        """Walkers that make no sense any more, and why: ``too-close``, ``broken`` or ``fused``; args as of `flags`."""
        return named(self._arrays, self.flags(positions, cell))

    def _is_apart(self, k: int, here: _OnHost) -> bool:
        return self._is_reactive or not self._hangs_together(k, here.positions)

    def _contacts_on(self, arrays: Arrays) -> DeviceContacts:
        """What leaves most periodic walkers on a device without a look on the host."""
        from alsys.potentials.device_lists import Atoms, DeviceContacts

        atoms = Atoms(np.diff(self._offsets), np.stack([frame.pbc for frame in self._starts]))
        radii = covalent_radii[np.concatenate([frame.numbers for frame in self._starts])]
        return DeviceContacts(atoms, radii, self._min_distance, arrays)

    def _is_crowded(self, k: int, here: _OnHost) -> bool:
        if self._contacts is not None:
            self._contacts.renew()
        start, part = self._starts[k], here.positions[self._offsets[k] : self._offsets[k + 1]]
        frame = Frame(start.numbers, part, start.cell if here.cell is None else here.cell[k], start.pbc)
        return nearest_pair(frame, self._min_distance)[2] < self._min_distance

    def _hangs_together(self, k: int, positions: FloatArray) -> bool:
        """Whether a walker that has lost a link of its start structure has all its bonds and no molecule lost."""
        start = self._starts[k]
        molecules, is_bonded, reach = _links(start)
        if molecules.max() == 0:
            return False
        i, j, ratio = pair_ratios(start.numbers, positions[self._offsets[k] : self._offsets[k + 1]])
        if (ratio[is_bonded] > BROKEN).any():
            return False
        is_link = ratio * _pairs(start.numbers.tobytes())[2] <= reach
        shape = (int(molecules.max()) + 1,) * 2
        links = coo_array((np.ones(int(is_link.sum())), (molecules[i[is_link]], molecules[j[is_link]])), shape=shape)
        return bool(connected_components(links, directed=False)[0] == 1)


class Bonds:
    """Bonds of a structure with their lengths, across periodic boundaries too.

    Args:
        start: The structure.
        tolerance: Angstrom by which a length may change.
    """

    def __init__(self, start: Frame, tolerance: float) -> None:
        self._n_atoms, self._tolerance = start.n_atoms, tolerance
        i, j, ratio, shift = close_pairs(start, BONDED)
        is_bond = (ratio < BONDED) & (i < j)
        self._shift: FloatArray = shift[is_bond] @ start.cell
        self._i, self._j = i[is_bond], j[is_bond]
        self._lengths = self._lengths_of(start.positions)

    def are_off(self, positions: FloatArray) -> NDArray[np.bool_]:
        """``(n_walkers,)`` whether a bond has changed beyond the tolerance, of ``(n_total, 3)`` positions, Angstrom."""
        lengths = self._lengths_of(positions.reshape(-1, self._n_atoms, 3))
        largest: FloatArray = np.abs(lengths - self._lengths).max(axis=-1, initial=0.0)
        return largest > self._tolerance

    def _lengths_of(self, positions: FloatArray) -> FloatArray:
        vector = positions[..., self._j, :] + self._shift - positions[..., self._i, :]
        lengths: FloatArray = np.sqrt(np.einsum("...px,...px->...p", vector, vector))
        return lengths


def is_sound(start: Frame, frame: Frame | FloatArray, min_distance: float, is_reactive: bool = False) -> bool:
    """Whether a frame of a system, or its ``(n_atoms, 3)`` positions, still makes sense; see `GeometryCheck`."""
    check = GeometryCheck([start], min_distance, is_reactive)
    if isinstance(frame, Frame):
        return not check.problems(frame.positions, frame.cell[None])
    return not check.problems(frame)


def _limits(start: Frame) -> FloatArray:
    """``(n_pairs,)`` ratio at which each pair of a molecule has come apart; infinite where nothing holds it."""
    i, j, ratio = pair_ratios(start.numbers, start.positions)
    sums = _pairs(start.numbers.tobytes())[2]
    limits = np.where(ratio < BONDED, BROKEN, np.inf)
    graph = np.zeros((start.n_atoms, start.n_atoms))
    graph[i, j] = np.maximum(ratio, 1e-9)  # zero would mean no edge
    tree = minimum_spanning_tree(graph).toarray()
    is_link = (tree[i, j] > 0) & (ratio >= BONDED)
    limits[is_link] = np.maximum(BROKEN, (ratio + FLOWN / sums)[is_link])
    return limits


@lru_cache(maxsize=256)
def _links(start: Frame) -> tuple[IntArray, NDArray[np.bool_], float]:
    """Molecule of each atom, ``(n_pairs,)`` pairs that are bonded, and how far two molecules may be apart, Angstrom."""
    is_bonded = pair_ratios(start.numbers, start.positions)[2] < BONDED
    limits = _limits(start) * _pairs(start.numbers.tobytes())[2]
    return molecules_of(start), is_bonded, float(limits[~is_bonded & np.isfinite(limits)].max(initial=0.0))
