"""A fake committee."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from alsys.frames import FloatArray
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch, chosen_members


class HarmonicCommittee:
    """Atoms on springs to the origin, with a force deviation of one's own choice.

    It claims `n_members` members, all equal. Features are 1 and the squared distance.

    Args:
        stiffness: Spring constant, eV/Angstrom^2.
        deviation: ``(n_frames,)`` deviations from a batch, eV/Angstrom.
    """

    n_members = 2

    def __init__(
        self, stiffness: float = 1.0, deviation: Callable[[FrameBatch], FloatArray] | None = None, version: int = 1
    ) -> None:
        self._stiffness = stiffness
        self._deviation = deviation or (lambda batch: np.zeros(batch.n_frames))
        self._version = version

    @property
    def version(self) -> int:
        """Version of the weights in use."""
        return self._version

    def load(self, state: CommitteeState) -> None:
        """Takes the version."""
        self._version = state.version

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        """Half the squared distances, and the chosen deviation on every atom; NaN where one member is asked."""
        starts = np.concatenate([[0], np.cumsum(batch.n_atoms)[:-1]])
        squared = np.square(batch.positions).sum(axis=1)
        deviation = np.asarray(self._deviation(batch), dtype=np.float64)
        energy_std = np.zeros(batch.n_frames)
        chosen = chosen_members(members, self.n_members)
        if len(chosen) == 1:
            deviation, energy_std = np.full(batch.n_frames, np.nan), np.full(batch.n_frames, np.nan)
        energy = 0.5 * self._stiffness * np.add.reduceat(squared, starts)
        forces = -self._stiffness * batch.positions
        return CommitteePrediction(
            energy=energy,
            energy_std=energy_std,
            forces=forces,
            force_deviation=np.repeat(deviation, batch.n_atoms),
            frame_deviation=deviation,
            member_energies=np.repeat(energy[None], len(chosen), axis=0),
            member_forces=np.repeat(forces[None], len(chosen), axis=0),
            features=np.stack([np.ones(squared.size), squared], axis=1) if 0 in chosen else None,
        )
