"""A Morse potential as a committee and as a labeler, whose values are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from ase.build import molecule

from alsys.errors import FailureKind
from alsys.frames import Frame
from alsys.labeling.analytic import morse
from alsys.labels import Label, LabelCost, LabelFailure, LevelOfTheory
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch, chosen_members, committee_prediction

LEVEL = LevelOfTheory({"engine": "morse", "depth": 4.0, "width": 1.9})


class MorseCommittee:
    """Members are the same Morse potential times a factor each."""

    def __init__(self, factors: Sequence[float] = (1.0, 1.0)) -> None:
        self.factors = np.array(factors)
        self.version = 1

    def load(self, state: CommitteeState) -> None:
        self.version = state.version

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        factors = self.factors[chosen_members(members, len(self.factors))]
        made = [morse(frame.numbers, frame.positions, 4.0, 1.9) for frame in batch.frames()]
        energies = np.array([energy for energy, _ in made])
        forces = np.concatenate([f for _, f in made])
        return committee_prediction(
            batch, factors[:, None] * energies, factors[:, None, None] * forces, n_members=len(self.factors)
        )


class MorseLabeler:
    """Labels with the Morse potential, and counts how often; `fails` says which frames fail and how."""

    def __init__(self, fails: Callable[[Frame], FailureKind | None] = lambda frame: None) -> None:
        self.level, self.fails, self.n_calls, self.is_closed = LEVEL, fails, 0, False

    def check(self, frame: Frame) -> None:
        """Takes all."""

    def label(self, frame: Frame) -> Label | LabelFailure:
        self.n_calls += 1
        kind = self.fails(frame)
        if kind is not None:
            return LabelFailure(frame.frame_id, kind, "on purpose")
        energy, forces = morse(frame.numbers, frame.positions, 4.0, 1.9)
        return Label(frame.frame_id, LEVEL.level_id, energy, forces, LabelCost(wall_s=0.001))

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def morse_committee() -> type[MorseCommittee]:
    return MorseCommittee


@pytest.fixture
def morse_labeler() -> type[MorseLabeler]:
    return MorseLabeler


@pytest.fixture
def molecule_frame() -> Callable[[str], Frame]:
    """A molecule of ASE's g2 collection."""

    def make(name: str) -> Frame:
        atoms = molecule(name)
        return Frame.molecule(atoms.numbers, atoms.positions)

    return make
