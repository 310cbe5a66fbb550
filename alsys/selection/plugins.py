"""Selection rules of other packages (entry points `alsys.selections`): which candidates of a chunk are proposed."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel

from alsys.frames import FloatArray, IntArray
from alsys.plugins import SELECTIONS, Chosen


class SelectionPlugin(Protocol):
    """What the class behind an entry point has; it is never instantiated."""

    settings_model: type[BaseModel]

    @staticmethod
    def select(
        settings: Any, features: FloatArray, uncertainty: FloatArray, labelled: FloatArray, n: int, seed: int
    ) -> ArrayLike:
        """Which frames are proposed for labelling; near-duplicates of others and of labelled ones are left out before.

        Args:
            settings: Checked by `settings_model`.
            features: ``(n_frames, d)``, one row a frame; each column has unit variance among frames of a composition.
            uncertainty: ``(n_frames,)`` largest deviation of an atom, eV/Angstrom, or without unit as
                `exploration.uncertainty` says; NaN where it is not known.
            labelled: ``(m, d)`` features of labelled frames.
            n: Frames wanted, at most `n_frames`.
            seed: Of all that is random.

        Returns:
            At most `n` distinct indices of frames, most urgent first.
        """


class SelectionRule:
    """A rule of another package with its settings.

    Args:
        section: Of the campaign file.

    Raises:
        InputError: No such rule is installed, or it refuses its settings.
        EnvironmentProblem: It is installed and broken.
    """

    def __init__(self, section: Chosen) -> None:
        self._part, self._settings = SELECTIONS.chosen(section)
        self._name = section.name

    def __call__(
        self, features: FloatArray, uncertainty: FloatArray, labelled: FloatArray, n: int, seed: int
    ) -> IntArray:
        """What `SelectionPlugin.select` says, once it was looked at.

        Raises:
            EnvironmentProblem: The rule raises, or what it says are no such indices.
        """
        with SELECTIONS.calling(self._name):
            said = np.asarray(self._part.select(self._settings, features, uncertainty, labelled, n, seed))
            is_valid = said.ndim == 1 and said.size <= n and (said.dtype.kind in "iu" or not said.size)
            chosen = said.astype(np.int64) if is_valid else np.full(1, -1)
            if len(set(chosen.tolist())) < chosen.size or not ((chosen >= 0) & (chosen < len(features))).all():
                raise ValueError(f"must give at most {n} different indices below {len(features)}, not {said.tolist()}")
        return chosen
