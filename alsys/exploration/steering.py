"""Which walkers follow which exploration method: groups of neighbouring rows of a batch, one method each.

A group holds walkers of one system, so that its positions stack. Methods see forces of the committee and answer with
temperatures, forces to add and swaps; nothing here integrates. Of walkers on a device, methods that say so
(``takes_tensors`` in their own class) see tensors; the others see copies on the host, and what they add is placed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from alsys.exploration.methods.base import Group, Method
from alsys.exploration.methods.plain import Plain
from alsys.frames import FloatArray, Frame, IntArray
from alsys.potentials.arrays import HOST, Array, Arrays
from alsys.potentials.base import CommitteePrediction


@dataclass(frozen=True, slots=True)
class GroupOfWalkers:
    """Walkers of one method on one system.

    Attributes:
        name: The method's name in this campaign.
        method: Steers them.
        n_walkers: How many they are.
        n_atoms: Atoms of each.
    """

    name: str
    method: Method
    n_walkers: int
    n_atoms: int


class Steering:
    """All groups of a batch, in the order of its rows.

    Attributes:
        names: Method of each walker.
    """

    def __init__(self, groups: Sequence[GroupOfWalkers]) -> None:
        self._groups = list(groups)
        self._rows = _slices([group.n_walkers for group in groups])
        self._atoms = _slices([group.n_walkers * group.n_atoms for group in groups])
        self.names = [group.name for group in groups for _ in range(group.n_walkers)]
        self._group_of = np.repeat(np.arange(len(groups)), [group.n_walkers for group in groups])
        self._active = [g for g, group in enumerate(groups) if type(group.method) is not Plain]

    @property
    def groups(self) -> tuple[GroupOfWalkers, ...]:
        """All groups."""
        return tuple(self._groups)

    def start(self, k: int, trusted: Sequence[Frame], rng: np.random.Generator) -> Frame:
        """Where walker `k` of the batch begins anew."""
        g = int(self._group_of[k])
        return self._groups[g].method.start(k - self._rows[g].start, trusted, rng)

    def temperatures(self, step: IntArray) -> FloatArray:
        """``(n_walkers,)`` targets for the next step, K."""
        parts = zip(self._groups, self._rows, strict=True)
        return np.concatenate([group.method.temperatures(step[rows]) for group, rows in parts])

    def bias(
        self,
        positions: Array,
        prediction: CommitteePrediction,
        temperatures: FloatArray,
        step: IntArray,
        arrays: Arrays = HOST,
    ) -> Array | None:
        """``(n_total, 3)`` forces that methods add, eV/Angstrom; None where none does.

        Args:
            positions: ``(n_total, 3)``, Angstrom.
            prediction: Of the committee there.
            temperatures: ``(n_walkers,)`` thermostats in force, K.
            step: ``(n_walkers,)``.
            arrays: Where positions and prediction are.
        """
        total: Array | None = None
        for g in self._active:
            method, group = self._groups[g].method, self._view(g, positions, prediction, temperatures, step, arrays)
            is_there = arrays.is_on_host or takes_tensors(method)
            forces = method.bias(group if is_there else _on_host(group, arrays))
            if forces is not None:
                if total is None:
                    total = arrays.xp.zeros_like(positions)
                added = forces if is_there else arrays.of([forces])[0]
                total[self._atoms[g]] = added.reshape(-1, 3)
        return total

    def exchange(
        self,
        positions: Array,
        prediction: CommitteePrediction,
        temperatures: FloatArray,
        step: IntArray,
        rng: np.random.Generator,
        arrays: Arrays = HOST,
    ) -> list[tuple[int, int]]:
        """Pairs of walkers of the batch that swapped their temperatures; energies of the prediction are on the host."""
        swapped: list[tuple[int, int]] = []
        for g in self._active:
            method = self._groups[g].method
            if getattr(type(method), "exchange", None) is Plain.exchange:
                continue
            group = self._view(g, positions, prediction, temperatures, step, arrays)
            pairs = method.exchange(group if takes_tensors(method) else _on_host(group, arrays), rng)
            first = self._rows[g].start
            swapped += [(first + i, first + j) for i, j in pairs]
        return swapped

    def _view(
        self,
        g: int,
        positions: Array,
        prediction: CommitteePrediction,
        temperatures: FloatArray,
        step: IntArray,
        arrays: Arrays,
    ) -> Group:
        rows, atoms = self._rows[g], self._atoms[g]
        shape = (self._groups[g].n_walkers, self._groups[g].n_atoms, 3)
        forces = prediction.forces[atoms].reshape(shape)
        energies, member_forces = prediction.member_energies, prediction.member_forces
        return Group(
            positions=positions[atoms].reshape(shape),
            energy=prediction.energy[rows],
            forces=forces,
            member_energies=prediction.energy[None, rows] if energies is None else energies[:, rows],
            member_forces=forces[None] if member_forces is None else member_forces[:, atoms].reshape(-1, *shape),
            temperatures=temperatures[rows],
            step=step[rows],
            arrays=arrays,
        )


def takes_tensors(method: Method) -> bool:
    """Whether a method takes walkers on a device; a class that inherits from one that does must say so itself."""
    return bool(vars(type(method)).get("takes_tensors", False))


def _on_host(group: Group, arrays: Arrays) -> Group:
    """The group as arrays of numpy, of a device in one copy."""
    names = ("positions", "energy", "forces", "member_energies", "member_forces")
    there = {name: value for name in names if not isinstance(value := getattr(group, name), np.ndarray)}
    return replace(group, arrays=HOST, **dict(zip(there, arrays.read(list(there.values())), strict=True)))


def _slices(counts: Sequence[int]) -> list[slice]:
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
