"""A pair Morse potential: exact, smooth and free, for tests and for trying alsys out.

``E = sum_ij D_ij [(1 - exp(-a (r - r_ij)))^2 - 1]`` over all pairs (P. M. Morse, Phys. Rev. 34, 57 (1929)), with
``r_ij`` the sum of covalent radii. ``D_ij`` is the well depth for heavy pairs, 0.8 of it for a heavy atom and a
hydrogen and 0.05 of it for two hydrogens, so that hydrogens stay where they are bonded.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from alsys.config.labeling import AnalyticLabeling
from alsys.errors import FailureKind, InputError
from alsys.frames import FloatArray, Frame
from alsys.labeling.checks import check_alone, fused_atoms
from alsys.labels import Label, LabelCost, LabelFailure, LevelOfTheory

HYDROGEN_SHARE = {0: 1.0, 1: 0.8, 2: 0.05}
"""Share of the well depth for pairs with so many hydrogens."""


def morse(numbers: NDArray[np.int32], positions: FloatArray, depth: float, width: float) -> tuple[float, FloatArray]:
    """Energy (eV) and forces ``(n_atoms, 3)`` (eV/Angstrom) of the pair Morse potential.

    Args:
        numbers: ``(n_atoms,)`` atomic numbers.
        positions: ``(n_atoms, 3)``, Angstrom.
        depth: eV.
        width: 1/Angstrom.
    """
    i, j = np.triu_indices(len(numbers), k=1)
    shares = np.array([HYDROGEN_SHARE[n] for n in range(3)])
    wells = depth * shares[(numbers[i] == 1).astype(int) + (numbers[j] == 1).astype(int)]
    rest = covalent_radii[numbers[i]] + covalent_radii[numbers[j]]
    vector = positions[i] - positions[j]
    distance = np.sqrt(np.square(vector).sum(axis=1))
    decay = np.exp(-width * (distance - rest))
    energy = float((wells * (np.square(1.0 - decay) - 1.0)).sum())
    slope = 2.0 * wells * width * decay * (1.0 - decay)
    pair_force = -(slope / distance)[:, None] * vector
    forces: NDArray[Any] = np.zeros_like(positions)
    np.add.at(forces, i, pair_force)
    np.add.at(forces, j, -pair_force)
    return energy, forces


class AnalyticLabeler:
    """Labels with the pair Morse potential, in this process."""

    def __init__(self, config: AnalyticLabeling) -> None:
        self._config = config
        self._attempts: dict[str, int] = {}
        self._level = LevelOfTheory({"engine": "morse", "depth": config.well_depth, "width": config.width})

    @property
    def level(self) -> LevelOfTheory:
        """Depth and width."""
        return self._level

    def check(self, frame: Frame) -> None:
        """Refuses periodic frames."""
        check_alone(frame)
        if frame.pbc.any():
            raise InputError("the analytic labeler takes molecules only", field="pbc", value=frame.pbc.tolist())

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Energy and forces, after the configured delay; some attempts fail on purpose."""
        started = time.perf_counter()
        config = self._config
        if config.delay_s > 0:
            time.sleep(config.delay_s)
        if frame.environment is not None:
            return LabelFailure(frame.frame_id, FailureKind.UNSUPPORTED, "knows no point charges")
        fused = fused_atoms(frame)
        if fused is not None:
            return LabelFailure(frame.frame_id, FailureKind.UNPHYSICAL_FRAME, fused)
        energy, forces = morse(frame.numbers, frame.positions, config.well_depth, config.width)
        cost = LabelCost(wall_s=time.perf_counter() - started, host=os.uname().nodename[:32])
        if self._fails(frame):
            return LabelFailure(frame.frame_id, FailureKind.INTERNAL, "failed on purpose (failure_rate)", cost)
        return Label(frame.frame_id, self._level.level_id, energy, forces, cost)

    def close(self) -> None:
        """Has nothing to end."""

    def _fails(self, frame: Frame) -> bool:
        """Decided by a digest of frame and attempt, so that a run can be repeated."""
        if self._config.failure_rate <= 0:
            return False
        attempt = self._attempts[frame.frame_id] = self._attempts.get(frame.frame_id, 0) + 1
        digest = hashlib.blake2b(f"{frame.frame_id}/{attempt}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64 < self._config.failure_rate
