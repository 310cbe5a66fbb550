"""Rigid scans of bonds and torsions: a model's energy profile beside the reference's, at the same geometries.

A bond is scanned by moving the two halves of the molecule apart along it; atoms belong to the half whose end they are
nearer to in bonds, and those as near to both (in rings) stay. A torsion is scanned by turning one side rigidly. Nothing
is relaxed on the way, so the geometries depend on the start structure only and their labels serve every model; rigid
barriers are higher than relaxed ones, for model and reference alike. Points with atoms too close or newly fused are
left out. Of bonds that the topology makes equal one is scanned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path

from alsys.dynamics.geometry import BONDED, MIN_CONTACT, is_sound, pair_ratios
from alsys.exploration.methods.torsions import Rotors, torsion, wrapped
from alsys.frames import FloatArray, Frame
from alsys.labels import Label
from alsys.potentials.base import Committee, FrameBatch
from alsys.validation.reference import Outcome

MIN_POINTS = 3
"""Points with a label below which there is no profile."""
BAND = 2.0
"""Standard deviations of the members within which the reference counts as covered."""
BATCH_ATOMS = 2000
DECIMALS = 9
"""Of positions, Angstrom: what another machine rounds otherwise must not cost new labels."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Geometries along one coordinate.

    Attributes:
        name: Elements and indices of its atoms, as ``C0-O2``.
        kind: ``bond`` or ``torsion``.
        coordinates: ``(n_points,)`` bond length, Angstrom, or torsion angle, degrees; rising.
        frames: One for each.
    """

    name: str
    kind: str
    coordinates: FloatArray
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """A model's profile beside the reference's; energies are relative to where the reference is lowest.

    Attributes:
        name: Of the scan.
        coordinates: ``(n_points,)`` those that have a label.
        reference: ``(n_points,)``, eV.
        model: ``(n_points,)``, eV.
        band: ``(n_points,)`` standard deviation of the members' relative energies, eV; NaN where members are unknown.
        n_missing: Points without a label.
    """

    name: str
    coordinates: FloatArray
    reference: FloatArray
    model: FloatArray
    band: FloatArray
    n_missing: int

    @property
    def _others(self) -> NDArray[np.bool_]:
        is_other: NDArray[np.bool_] = np.arange(self.reference.size) != int(np.argmin(self.reference))
        return is_other

    @property
    def error_mean(self) -> float:
        """Mean absolute error over all points but the lowest, eV."""
        return float(np.abs(self.model - self.reference)[self._others].mean())

    @property
    def error_max(self) -> float:
        """Largest absolute error, eV."""
        return float(np.abs(self.model - self.reference).max())

    @property
    def height(self) -> float:
        """Difference between the reference's highest and lowest point, eV."""
        return float(np.ptp(self.reference))

    @property
    def height_error(self) -> float:
        """Error of the model's height, eV: for a torsion the error of its highest barrier."""
        return abs(float(np.ptp(self.model)) - self.height)

    @property
    def covered(self) -> float:
        """Share of points, the lowest left out, whose error is within `BAND` standard deviations of the members."""
        is_within = np.abs(self.model - self.reference) <= BAND * self.band
        return float("nan") if np.isnan(self.band).any() else float(is_within[self._others].mean())


def bond_scans(frame: Frame, offsets: FloatArray) -> list[Scan]:
    """A scan of each kind of bond of a molecule; none for a periodic frame or one without bonds.

    Args:
        frame: Where bonds have their lengths.
        offsets: ``(n_points,)`` rising changes of the length, Angstrom.
    """
    if frame.pbc.any() or frame.n_atoms < 2:
        return []
    graph = bond_graph(frame)
    kinds = topological_classes(frame, graph)
    distance = shortest_path(graph, unweighted=True)
    scans: list[Scan] = []
    seen: set[tuple[int, int]] = set()
    for i, j in zip(*np.nonzero(np.triu(graph)), strict=True):
        kind = (min(kinds[i], kinds[j]), max(kinds[i], kinds[j]))
        if kind in seen:
            continue
        seen.add(kind)
        cut = shortest_path(_without(graph, int(i), int(j)), unweighted=True)
        side = np.sign(cut[i] - cut[j], where=np.isfinite(cut[i]) | np.isfinite(cut[j]), out=np.zeros(frame.n_atoms))
        side[~np.isfinite(distance[i])] = 0.0  # other molecules stay
        vector = frame.positions[j] - frame.positions[i]
        length = float(np.linalg.norm(vector))
        points = [(length + d, frame.positions + 0.5 * d * side[:, None] * vector / length) for d in offsets.tolist()]
        scans.append(_scan(f"{_atom(frame, int(i))}-{_atom(frame, int(j))}", "bond", frame, points))
    return scans


def torsion_scans(frame: Frame, rotors: Rotors, n_points: int) -> list[Scan]:
    """A full turn about each rotor, with the angle that the frame has among its points.

    Args:
        frame: What is turned.
        rotors: As from `alsys.exploration.methods.torsions.find_rotors`.
        n_points: Points of a turn, evenly spaced.
    """
    scans: list[Scan] = []
    for k in range(len(rotors)):
        atoms = rotors.torsions[k]
        start = float(torsion(frame.positions[atoms]))
        points = [
            (
                float(np.degrees(wrapped(start + turn))),
                frame.positions if m == 0 else rotors.turned(frame.positions, k, turn),
            )
            for m, turn in enumerate((2.0 * np.pi * np.arange(n_points) / n_points).tolist())
        ]
        points.sort(key=lambda point: point[0])
        scans.append(_scan("-".join(_atom(frame, int(a)) for a in atoms), "torsion", frame, points))
    return scans


def profile_of(scan: Scan, committee: Committee, labels: Sequence[Outcome]) -> Profile | None:
    """A model's profile beside the reference's; None where fewer than `MIN_POINTS` have a label and a prediction.

    Args:
        scan: The geometries.
        committee: The model.
        labels: One outcome for each geometry.
    """
    known = [k for k, outcome in enumerate(labels) if isinstance(outcome, Label)]
    if len(known) < MIN_POINTS:
        return None
    energies, members = _energies(committee, [scan.frames[k] for k in known])
    is_finite = np.isfinite(energies)
    if is_finite.sum() < MIN_POINTS:
        return None
    reference = np.array([label.energy for label in labels if isinstance(label, Label)])[is_finite]
    energies = energies[is_finite]
    lowest = int(np.argmin(reference))
    band = np.full(energies.size, np.nan)
    if members is not None and len(members) > 1:
        members = members[:, is_finite]
        band = (members - members[:, [lowest]]).std(axis=0)
    return Profile(
        scan.name,
        scan.coordinates[known][is_finite],
        reference - reference[lowest],
        energies - energies[lowest],
        band,
        len(labels) - int(is_finite.sum()),
    )


def bond_graph(frame: Frame) -> FloatArray:
    """``(n_atoms, n_atoms)`` 1 where two atoms of a molecule are bonded, by covalent radii."""
    i, j, ratio = pair_ratios(frame.numbers, frame.positions)
    i, j = i[ratio < BONDED], j[ratio < BONDED]
    graph: FloatArray = coo_array((np.ones(i.size), (i, j)), shape=(frame.n_atoms,) * 2).toarray()
    return graph + graph.T


def topological_classes(frame: Frame, graph: FloatArray) -> list[int]:
    """A number for each atom, equal where elements and bonds make atoms equal (Weisfeiler-Leman refinement)."""
    classes = [int(number) for number in frame.numbers]
    for _ in range(frame.n_atoms):
        keys = [(classes[a], tuple(sorted(classes[b] for b in np.flatnonzero(graph[a])))) for a in range(frame.n_atoms)]
        order = {key: k for k, key in enumerate(sorted(set(keys)))}
        refined = [order[key] for key in keys]
        if len(set(refined)) == len(set(classes)):
            return refined
        classes = refined
    return classes


def _scan(name: str, kind: str, frame: Frame, points: Sequence[tuple[float, FloatArray]]) -> Scan:
    sound = [(value, positions) for value, positions in points if is_sound(frame, positions, MIN_CONTACT)]
    coordinates = np.array([value for value, _ in sound])
    places = [p if np.array_equal(p, frame.positions) else np.round(p, DECIMALS) for _, p in sound]
    return Scan(name, kind, coordinates, tuple(frame.with_positions(positions) for positions in places))


def _energies(committee: Committee, frames: Sequence[Frame]) -> tuple[FloatArray, FloatArray | None]:
    """``(n_frames,)`` energies and ``(n_members, n_frames)`` of members, in batches."""
    size = max(1, BATCH_ATOMS // frames[0].n_atoms)
    parts = [committee.evaluate(FrameBatch.of(frames[k : k + size])) for k in range(0, len(frames), size)]
    members = [part.member_energies for part in parts]
    known = [energies for energies in members if energies is not None]
    return (
        np.concatenate([part.energy for part in parts]),
        np.concatenate(known, axis=1) if len(known) == len(parts) else None,
    )


def _without(graph: FloatArray, i: int, j: int) -> FloatArray:
    cut = graph.copy()
    cut[i, j] = cut[j, i] = 0.0
    return cut


def _atom(frame: Frame, k: int) -> str:
    return f"{chemical_symbols[int(frame.numbers[k])]}{k}"
