"""Groups of walkers, and committees of analytic potentials with known answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from alsys.exploration.methods.base import Group
from alsys.frames import FloatArray

MakeGroup = Callable[..., Group]


def _make_group(
    positions: FloatArray,
    energy: ArrayLike = 0.0,
    forces: ArrayLike = 0.0,
    temperatures: ArrayLike = 300.0,
    step: ArrayLike = 0,
    **members: Any,
) -> Group:
    """Walkers at `positions`; whatever is not given is the same for all of them, and members agree."""
    n_walkers = len(positions)
    energies = np.broadcast_to(np.asarray(energy, dtype=np.float64), n_walkers)
    full = np.array(np.broadcast_to(np.asarray(forces, dtype=np.float64), positions.shape))
    return Group(
        positions=positions,
        energy=energies,
        forces=full,
        member_energies=members.get("member_energies", np.stack([energies] * 2)),
        member_forces=members.get("member_forces", np.stack([full] * 2)),
        temperatures=np.broadcast_to(np.asarray(temperatures, dtype=np.float64), n_walkers),
        step=np.broadcast_to(np.asarray(step, dtype=np.int64), n_walkers),
    )


class PairCommittee:
    """Members with harmonic pairs of different stiffness and rest length.

    Args:
        spread: How much members differ, as a share.
    """

    def __init__(self, n_atoms: int, n_members: int, spread: float) -> None:
        rng = np.random.default_rng(7)
        self._first, self._second = np.triu_indices(n_atoms, k=1)
        shape = (n_members, 1, self._first.size)
        self._stiffness = 3.0 * (1.0 + spread * rng.normal(size=shape))
        self._rest = 1.5 * (1.0 + spread * rng.normal(size=shape))

    def group(self, positions: FloatArray, step: ArrayLike = 0) -> Group:
        """What the members say of ``(n_walkers, n_atoms, 3)`` positions."""
        vector = positions[:, self._first] - positions[:, self._second]
        distance = np.linalg.norm(vector, axis=2)
        off = distance - self._rest
        energies = 0.5 * (self._stiffness * off**2).sum(axis=2)
        pull = -(self._stiffness * off / distance)[..., None] * vector
        forces = np.zeros((len(energies), *positions.shape))
        for pair, (i, j) in enumerate(zip(self._first, self._second, strict=True)):
            forces[:, :, i] += pull[:, :, pair]
            forces[:, :, j] -= pull[:, :, pair]
        return _make_group(
            positions,
            energies.mean(axis=0),
            forces.mean(axis=0),
            step=step,
            member_energies=energies,
            member_forces=forces,
        )


@pytest.fixture
def make_group() -> MakeGroup:
    return _make_group


@pytest.fixture
def pair_committee() -> type[PairCommittee]:
    return PairCommittee
