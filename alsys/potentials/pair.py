"""Committees of linear pair potentials: fitted in milliseconds, for tests and for trying alsys out.

``E = sum_i e_z(i) + sum_{i<j} sum_k c_{z(i) z(j), k} phi_k(r_ij)`` with Gaussians
``phi_k(r) = exp(-(r - r_k)^2 / 2 w^2) f(r)`` and the cosine cutoff ``f(r) = (1 + cos(pi r / r_max)) / 2``. Linear in
``c``, so a ridge regression on energies and forces is exact. Features of an atom are half its sums of ``phi_k``
for each kind of pair: what ``c`` is multiplied with. Molecules only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.frames import FloatArray, IntArray
from alsys.potentials.base import (
    CommitteePrediction,
    CommitteeState,
    FrameBatch,
    chosen_members,
    committee_prediction,
)

R_MIN = 0.4
"""Centre of the first Gaussian, Angstrom."""


@dataclass(frozen=True, slots=True)
class PairTable:
    """All pairs of a batch within the cutoff.

    Attributes:
        i, j: ``(n_pairs,)`` atoms.
        frame: ``(n_pairs,)`` frame of each pair.
        kind: ``(n_pairs,)`` index of the unordered pair of elements.
        unit: ``(n_pairs, 3)`` from j to i.
        basis: ``(n_pairs, n_basis)`` radial functions.
        slope: ``(n_pairs, n_basis)`` their derivatives, 1/Angstrom.
    """

    i: IntArray
    j: IntArray
    frame: IntArray
    kind: IntArray
    unit: FloatArray
    basis: FloatArray
    slope: FloatArray


class PairModelSpec:
    """Elements, cutoff and number of radial functions of a specification."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.elements = [atomic_numbers[str(symbol)] for symbol in spec["elements"]]
        self.r_max = float(spec["r_max"])
        self.n_basis = int(spec["n_basis"])
        n = len(self.elements)
        self.n_kinds = n * (n + 1) // 2
        self._type = np.full(119, -1, dtype=np.int64)
        self._type[self.elements] = np.arange(n)
        self._kind = np.zeros((n, n), dtype=np.int64)
        self._kind[np.triu_indices(n)] = np.arange(self.n_kinds)
        self._kind = np.maximum(self._kind, self._kind.T)

    def types(self, numbers: NDArray[np.int32]) -> IntArray:
        """``(n_total,)`` index of each atom's element.

        Raises:
            InputError: An element that the model does not know.
        """
        types = self._type[numbers]
        if types.min() < 0:
            unknown = sorted({int(z) for z in numbers[types < 0]})
            raise InputError("the model does not know these elements", field="numbers", value=unknown)
        return types

    def table(self, batch: FrameBatch) -> PairTable:
        """Pairs and their radial functions.

        Raises:
            InputError: A periodic frame.
        """
        if batch.pbc.any():
            raise InputError("pair models take molecules only", field="pbc", value=True)
        types = self.types(batch.numbers)
        offsets = np.concatenate([[0], np.cumsum(batch.n_atoms)[:-1]])
        firsts, seconds, frames = [], [], []
        for size in np.unique(batch.n_atoms):
            rows = np.flatnonzero(batch.n_atoms == size)
            i, j = np.triu_indices(int(size), k=1)
            firsts.append((offsets[rows][:, None] + i).ravel())
            seconds.append((offsets[rows][:, None] + j).ravel())
            frames.append(np.repeat(rows, i.size))
        first, second, frame = np.concatenate(firsts), np.concatenate(seconds), np.concatenate(frames)
        vector = batch.positions[first] - batch.positions[second]
        distance = np.sqrt(np.einsum("px,px->p", vector, vector))
        near = distance < self.r_max
        first, second, frame, vector, distance = (a[near] for a in (first, second, frame, vector, distance))
        r = np.maximum(distance, 1e-6)[:, None]
        centres = np.linspace(R_MIN, self.r_max, self.n_basis)
        width = centres[1] - centres[0]
        gauss = np.exp(-np.square(r - centres) / (2.0 * width * width))
        cutoff = 0.5 * (1.0 + np.cos(np.pi * r / self.r_max))
        cutoff_slope = -0.5 * np.pi / self.r_max * np.sin(np.pi * r / self.r_max)
        return PairTable(
            i=first,
            j=second,
            frame=frame,
            kind=self._kind[types[first], types[second]],
            unit=vector / r,
            basis=gauss * cutoff,
            slope=gauss * (cutoff_slope - cutoff * (r - centres) / (width * width)),
        )

    def features(self, table: PairTable, n_total: int) -> FloatArray:
        """``(n_total, n_coefficients)`` half of each atom's radial sums, by kind of pair."""
        n_coefficients = self.n_kinds * self.n_basis
        columns = table.kind[:, None] * self.n_basis + np.arange(self.n_basis)
        places = np.concatenate([(atoms[:, None] * n_coefficients + columns).ravel() for atoms in (table.i, table.j)])
        halves = np.tile(0.5 * table.basis.ravel(), 2)
        sums: FloatArray = np.bincount(places, halves, n_total * n_coefficients).astype(np.float64)
        return sums.reshape(n_total, n_coefficients)

    def design(self, batch: FrameBatch) -> tuple[FloatArray, FloatArray]:
        """Derivatives of energies and forces by the coefficients.

        Returns:
            ``(n_frames, n_coefficients)`` and ``(3 n_total, n_coefficients)``.
        """
        table = self.table(batch)
        n_coefficients = self.n_kinds * self.n_basis
        columns = table.kind[:, None] * self.n_basis + np.arange(self.n_basis)
        energy = np.zeros((batch.n_frames, n_coefficients))
        np.add.at(energy, (table.frame[:, None], columns), table.basis)
        forces = np.zeros((batch.numbers.size, 3, n_coefficients))
        pull = -table.slope[:, None, :] * table.unit[:, :, None]
        xyz = np.arange(3)[None, :, None]
        np.add.at(forces, (table.i[:, None, None], xyz, columns[:, None, :]), pull)
        np.add.at(forces, (table.j[:, None, None], xyz, columns[:, None, :]), -pull)
        return energy, forces.reshape(-1, n_coefficients)


class PairCommittee:
    """Evaluates a committee of pair potentials."""

    def __init__(self, state: CommitteeState) -> None:
        self.load(state)

    @property
    def version(self) -> int:
        """Version of the weights in use."""
        return self._state.version

    def load(self, state: CommitteeState) -> None:
        """Takes new coefficients."""
        self._state = state
        self._spec = PairModelSpec(state.spec)
        self._coefficients = np.stack([m["coefficients"] for m in state.members]).astype(np.float64)
        self._shifts = np.stack([m["shifts"] for m in state.members]).astype(np.float64)

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        """Mean energies (eV) and forces (eV/Angstrom), their spread over members, and features.

        Args:
            batch: Frames.
            members: Which members to evaluate; None for all.

        Raises:
            InputError: An element that the model does not know, a periodic frame, or a member that is not there.
        """
        chosen = chosen_members(members, self._state.n_members)
        spec = self._spec
        table = spec.table(batch)
        coefficients = self._coefficients[chosen].reshape(len(chosen), spec.n_kinds, spec.n_basis)[:, table.kind]
        pair_energy = np.einsum("mpk,pk->mp", coefficients, table.basis)
        pair_pull = -np.einsum("mpk,pk->mp", coefficients, table.slope)
        types = spec.types(batch.numbers)
        energies = np.zeros((len(chosen), batch.n_frames))
        forces = np.zeros((len(chosen), batch.numbers.size, 3))
        for m, member in enumerate(chosen):
            energies[m] = np.bincount(batch.frame_of_atom, self._shifts[member][types], batch.n_frames)
            energies[m] += np.bincount(table.frame, pair_energy[m], batch.n_frames)
            for x in range(3):
                pull = pair_pull[m] * table.unit[:, x]
                forces[m, :, x] = np.bincount(table.i, pull, batch.numbers.size)
                forces[m, :, x] -= np.bincount(table.j, pull, batch.numbers.size)
        features = spec.features(table, batch.numbers.size) if 0 in chosen else None
        return committee_prediction(batch, energies, forces, features, n_members=self._state.n_members)


def fit_pair(
    spec: Mapping[str, Any],
    batch: FrameBatch,
    energy: FloatArray,
    forces: FloatArray,
    shifts: Sequence[float],
    ridge: float,
    *,
    rows: Sequence[IntArray] | None = None,
    energy_weight: float = 1.0,
    force_weight: float = 1.0,
    mask: NDArray[np.bool_] | None = None,
) -> FloatArray:
    """Ridge regressions of the coefficients on energies and forces, one for each choice of frames.

    Minimises ``w_E <(dE / n_atoms)^2> + w_F <dF^2>`` (means over the chosen frames and their force components) plus
    the penalty. Radial functions are computed once for all members.

    Args:
        spec: ``elements``, ``r_max``, ``n_basis``.
        batch: Frames.
        energy: ``(n_frames,)``, eV.
        forces: ``(n_total, 3)``, eV/Angstrom.
        shifts: Energy of each element's free atom, eV.
        ridge: Penalty relative to the mean diagonal of the normal matrix.
        rows: Indices of the frames that each member sees; None for one member that sees all.
        energy_weight: ``w_E``.
        force_weight: ``w_F``.
        mask: ``(n_total,)`` atoms whose forces count; the energy of a frame counts where all its atoms do. None: all.

    Returns:
        ``(n_members, n_coefficients)``, eV.

    Raises:
        numpy.linalg.LinAlgError: The labels are not finite, or do not determine the coefficients.
    """
    model = PairModelSpec(spec)
    by_energy, by_force = model.design(batch)
    free = np.bincount(batch.frame_of_atom, np.asarray(shifts)[model.types(batch.numbers)], batch.n_frames)
    by_energy /= batch.n_atoms[:, None]
    per_atom = (energy - free) / batch.n_atoms
    components = forces.ravel()
    frame_of_component = np.repeat(batch.frame_of_atom, 3)
    has_energy, has_force = np.ones(batch.n_frames, dtype=np.bool_), np.ones(components.size, dtype=np.bool_)
    if mask is not None:
        has_energy[batch.frame_of_atom[~mask]] = False
        has_force = np.repeat(mask, 3)
    members = []
    for chosen in [np.arange(batch.n_frames)] if rows is None else rows:
        is_chosen = np.zeros(batch.n_frames, dtype=np.bool_)
        is_chosen[chosen] = True
        is_component, is_energy = is_chosen[frame_of_component] & has_force, is_chosen & has_energy
        a, x = by_energy[is_energy], by_force[is_component]
        scale_a, scale_x = energy_weight / max(len(a), 1), force_weight / max(len(x), 1)
        normal = scale_a * (a.T @ a) + scale_x * (x.T @ x)
        target = scale_a * (a.T @ per_atom[is_energy]) + scale_x * (x.T @ components[is_component])
        normal[np.diag_indices_from(normal)] += ridge * max(float(np.trace(normal)) / len(normal), 1e-12)
        solution = np.linalg.solve(normal, target)
        if not np.isfinite(solution).all():
            raise np.linalg.LinAlgError("the labels are not finite")
        members.append(solution)
    return np.stack(members)
