"""Distributions of distances in dynamics, for each pair of elements.

Of a molecule: the density of the distances of its pairs, whose integral over all distances is 1 (``h(r)`` of X. Fu et
al., Forces are not Enough, TMLR 2023). Of a periodic frame: the radial distribution function ``g(r)`` (M. P. Allen,
D. J. Tildesley, Computer Simulation of Liquids, 2nd ed., section 8.2). Two are compared by the integral of their
absolute difference, as in that paper: from 0 to 2 for densities, in Angstrom for ``g(r)``. A run of dynamics is kept in
blocks of time and halves of its walkers, so that it says how noisy it is itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from matscipy.neighbours import neighbour_list

from alsys.dynamics.geometry import pair_ratios
from alsys.frames import FloatArray, Frame, IntArray

ALL = "all"
"""Name of the distribution over pairs of any elements."""
WIDTH = 0.05
"""Width of a bin, Angstrom."""
LONGEST = 8.0
"""Longest distance looked at, Angstrom; half the smallest height of a smaller cell."""
N_BLOCKS = 50
"""Blocks of time that a run is kept in."""
SETTLING = 0.2
"""Share of a run of dynamics, at its beginning, that is left out."""


class DistanceHistogram:
    """Counts distances over frames of one system.

    Args:
        frame: Any frame of it: atoms, periodic directions, and the cell, which must stay.
        width: Of a bin, Angstrom.
        longest: Angstrom; in a cell at most half its smallest height.

    Attributes:
        edges: ``(n_bins + 1,)``, Angstrom.
        n_frames: Frames counted.
    """

    def __init__(self, frame: Frame, width: float = WIDTH, longest: float = LONGEST) -> None:
        self._frame = frame
        self._is_periodic = bool(frame.pbc.any())
        if self._is_periodic:
            longest = min(longest, _half_height(frame))
        self._width = width
        self.edges: FloatArray = width * np.arange(max(1, int(longest / width + 1e-9)) + 1, dtype=np.float64)
        self.n_frames = 0
        elements = sorted(set(frame.numbers.tolist()))
        self._pairs = [(a, b) for k, a in enumerate(elements) for b in elements[k:]]
        self._code = np.zeros((max(elements) + 1,) * 2, dtype=np.int64)
        for code, (a, b) in enumerate(self._pairs):
            self._code[a, b] = self._code[b, a] = code
        self._counts = np.zeros((len(self._pairs), self.edges.size - 1))

    def add(self, positions: FloatArray) -> None:
        """Counts ``(n_frames, n_atoms, 3)`` positions, Angstrom."""
        numbers, n_bins = self._frame.numbers, self.edges.size - 1
        for part in positions:
            if self._is_periodic:
                i, j, distance = neighbour_list(
                    "ijd", positions=part, cell=self._frame.cell, pbc=self._frame.pbc, cutoff=float(self.edges[-1])
                )
                weight = 0.5  # each pair is found from both sides
            else:
                i, j, _ = pair_ratios(numbers, part)
                distance, weight = np.linalg.norm(part[i] - part[j], axis=1), 1.0
            bins = (distance / self._width).astype(np.int64)
            near = bins < n_bins
            index = self._code[numbers[i[near]], numbers[j[near]]] * n_bins + bins[near]
            self._counts += weight * np.bincount(index, minlength=self._counts.size).reshape(self._counts.shape)
            self.n_frames += 1

    def sum_with(self, others: Sequence[DistanceHistogram]) -> DistanceHistogram:
        """A new one of all that these have counted; all of one frame, width and longest distance."""
        total = DistanceHistogram(self._frame, self._width, float(self.edges[-1]))
        for part in (self, *others):
            total._counts += part._counts
            total.n_frames += part.n_frames
        return total

    def distributions(self) -> dict[str, FloatArray]:
        """``(n_bins,)`` distribution of each pair of elements, as ``C-H``, and of `ALL`; empty without frames."""
        if self.n_frames == 0:
            return {}
        names = [f"{chemical_symbols[a]}-{chemical_symbols[b]}" for a, b in self._pairs]
        amounts = np.array([self._n_pairs(a, b) for a, b in self._pairs])
        parts = {
            name: self._normalised(counts, amount)
            for name, counts, amount in zip(names, self._counts, amounts, strict=True)
            if amount > 0
        }
        return {**parts, ALL: self._normalised(self._counts.sum(axis=0), float(amounts.sum()))}

    def _n_pairs(self, a: int, b: int) -> float:
        """Pairs of two elements; in a cell with as many partners as there are atoms, its own image included."""
        first, second = (int((self._frame.numbers == z).sum()) for z in (a, b))
        if a != b:
            return float(first * second)
        return 0.5 * first * (first if self._is_periodic else first - 1)

    def _normalised(self, counts: FloatArray, n_pairs: float) -> FloatArray:
        density: FloatArray = counts / (self.n_frames * n_pairs)
        if not self._is_periodic:
            return density / self._width
        shell = 4.0 / 3.0 * np.pi * np.diff(self.edges**3)
        return density * abs(float(np.linalg.det(self._frame.cell))) / shell


@dataclass(frozen=True, slots=True)
class Distances:
    """Distributions of many frames, and of two pairs of parts of them that say how noisy they are.

    Attributes:
        edges: ``(n_bins + 1,)``, Angstrom.
        whole: ``(n_bins,)`` by pair of elements, as `DistanceHistogram.distributions`.
        in_time: The first and the second half of the time.
        among_walkers: Walkers of even and of odd number; the same as `in_time` where there are no walkers.
        n_frames: Frames counted.
    """

    edges: FloatArray
    whole: Mapping[str, FloatArray]
    in_time: tuple[Mapping[str, FloatArray], Mapping[str, FloatArray]]
    among_walkers: tuple[Mapping[str, FloatArray], Mapping[str, FloatArray]]
    n_frames: int

    @property
    def drift(self) -> dict[str, float]:
        """Integrated difference of the first and the second half of the time, by pair of elements."""
        return differences(*self.in_time, self.edges)

    @property
    def spread(self) -> dict[str, float]:
        """Integrated difference of the two halves of the walkers, by pair of elements."""
        return differences(*self.among_walkers, self.edges)


class DistanceRecord:
    """Counts distances along a run of dynamics.

    Args:
        frame: Where its walkers begin.
        n_steps: Steps that it may have.
    """

    def __init__(self, frame: Frame, n_steps: int) -> None:
        self._n_steps = n_steps
        self._parts = [(DistanceHistogram(frame), DistanceHistogram(frame)) for _ in range(N_BLOCKS)]

    def observe(self, step: int, alive: IntArray, positions: FloatArray) -> None:
        """Counts ``(n_alive, n_atoms, 3)`` positions, Angstrom, of the walkers ``(n_alive,)`` at a step from 1 on."""
        block = self._parts[min((step - 1) * N_BLOCKS // self._n_steps, N_BLOCKS - 1)]
        for half, histogram in enumerate(block):
            histogram.add(positions[alive % 2 == half])

    def settled(self, n_reached: float) -> Distances:
        """What was seen after the first `SETTLING` of the steps that the run has reached."""
        last = math.ceil(n_reached * N_BLOCKS / self._n_steps - 1e-9)
        first = min(math.ceil(SETTLING * n_reached * N_BLOCKS / self._n_steps - 1e-9), N_BLOCKS - 1)
        even, odd = ([block[half] for block in self._parts[first:]] for half in (0, 1))
        half = max(1, (last - first) // 2)
        early, late = [*even[:half], *odd[:half]], [*even[half:], *odd[half:]]
        whole = _sum([*even, *odd])
        return Distances(
            whole.edges,
            whole.distributions(),
            (_sum(early).distributions(), _sum(late).distributions() if late else {}),
            (_sum(even).distributions(), _sum(odd).distributions()),
            whole.n_frames,
        )


def distances_of(frame: Frame, positions: FloatArray) -> Distances:
    """Distributions of frames that are there already, in the order of their time.

    Args:
        frame: One of them: atoms, periodic directions and the cell of all.
        positions: ``(n_frames, n_atoms, 3)``, Angstrom.
    """
    early, late = DistanceHistogram(frame), DistanceHistogram(frame)
    half = len(positions) // 2
    early.add(positions[:half])
    late.add(positions[half:])
    whole, halves = _sum([early, late]), (early.distributions(), late.distributions())
    return Distances(whole.edges, whole.distributions(), halves, halves, whole.n_frames)


def _sum(parts: Sequence[DistanceHistogram]) -> DistanceHistogram:
    return parts[0].sum_with(parts[1:])


def integrated_difference(first: FloatArray, second: FloatArray, edges: FloatArray) -> float:
    """``integral |a(r) - b(r)| dr`` of two distributions over the same bins."""
    return float((np.abs(first - second) * np.diff(edges)).sum())


def differences(
    first: Mapping[str, FloatArray], second: Mapping[str, FloatArray], edges: FloatArray
) -> dict[str, float]:
    """The same of each distribution that both have."""
    return {
        name: integrated_difference(first[name], second[name], edges) for name in sorted(first.keys() & second.keys())
    }


def _half_height(frame: Frame) -> float:
    """Half the smallest distance of two faces of the cell, among periodic directions, Angstrom."""
    heights = 1.0 / np.linalg.norm(np.linalg.inv(frame.cell), axis=0) if frame.pbc.all() else np.full(3, np.inf)
    if not frame.pbc.all():
        heights = np.where(frame.pbc, np.linalg.norm(frame.cell, axis=1), np.inf)
    return 0.5 * float(heights.min())
