"""Fake workers whose labels pass the gate: ethanol with a spring between all pairs of atoms.

Forces of springs have no net force and no torque, as those of a converged gradient; predictions are off by a tenth of
the deviation that they state. Everything else is as in `alsys.testing.fakes`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alsys.exploration.base import ExplorationOrder
from alsys.frames import Arm, Candidate, FloatArray, Frame, Source
from alsys.labels import Label, LabelCost, LabelFailure, Prediction
from alsys.testing.fakes import FAKE_LEVEL, FakeExplorer, FakeLabeler, FakeTrainer
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder

NUMBERS = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
POSITIONS = np.array(
    [
        [1.17, -0.40, 0.0], [0.0, 0.56, 0.0], [-1.19, -0.22, 0.0], [-1.94, 0.39, 0.0], [2.11, 0.15, 0.0],
        [1.13, -1.04, 0.89], [1.13, -1.04, -0.89], [0.05, 1.20, 0.88], [0.05, 1.20, -0.88],
    ]
)  # fmt: skip
STIFFNESS = 5.0
"""Of a spring, eV/Angstrom^2."""
N_STRATA = 8
_PAIRS = np.triu_indices(len(NUMBERS), 1)
_LENGTHS = np.linalg.norm(POSITIONS[_PAIRS[0]] - POSITIONS[_PAIRS[1]], axis=1)
REFERENCE = Frame.molecule(NUMBERS, POSITIONS + 0.02 * np.random.default_rng(2).normal(size=POSITIONS.shape))


def spring_forces(positions: FloatArray) -> tuple[float, FloatArray]:
    """Energy, eV, and forces ``(n_atoms, 3)``, eV/Angstrom."""
    i, j = _PAIRS
    vectors = positions[i] - positions[j]
    lengths = np.linalg.norm(vectors, axis=1)
    pulls = (STIFFNESS * (lengths - _LENGTHS) / lengths)[:, None] * vectors
    forces = np.zeros_like(positions)
    np.subtract.at(forces, i, pulls)
    np.add.at(forces, j, pulls)
    return 0.5 * STIFFNESS * float(np.square(lengths - _LENGTHS).sum()), forces


def spring_frame(rng: np.random.Generator) -> Frame:
    """Ethanol, each atom moved by some 0.05 Angstrom."""
    return Frame.molecule(NUMBERS, POSITIONS + 0.05 * rng.normal(size=POSITIONS.shape))


def spring_candidates(n: int) -> list[Candidate]:
    """Initial frames."""
    rng = np.random.default_rng(0)
    return [Candidate(spring_frame(rng), Source("fake", Arm.INITIAL, "fake", trajectory=i)) for i in range(n)]


class SpringLabeler(FakeLabeler):
    """Labels frames by springs."""

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Energy and forces of the springs; the time that it takes is stated, and not taken."""
        energy, forces = spring_forces(frame.positions)
        wall_s = self._duration_s(frame) if callable(self._duration_s) else self._duration_s
        return Label(frame.frame_id, FAKE_LEVEL.level_id, energy, forces, LabelCost(wall_s=wall_s))


class SpringExplorer(FakeExplorer):
    """Finds ethanol."""

    def _predict(self, frame: Frame, scale: float) -> Prediction:
        energy, forces = spring_forces(frame.positions)
        noise = 0.1 * scale * self._rng.normal(size=forces.shape)
        deviations = np.full(frame.n_atoms, scale)
        return Prediction(energy + 0.01 * scale * self._rng.normal(), forces + noise, deviations, self._version or 0)

    def _candidate(self, arm: Arm, order: ExplorationOrder, scale: float) -> Candidate:
        found = super()._candidate(arm, order, scale)
        source = replace(found.source, stratum=f"s{int(self._rng.integers(N_STRATA))}")
        return Candidate(spring_frame(self._rng), source)


class SpringTrainer(FakeTrainer):
    """Predicts springs, for the review of labels."""

    def run(self, order: TrainingOrder) -> TrainedCommittee | TrainingFailure:
        """As its parent, which predicts another potential."""
        trained = super().run(replace(order, n_review=0))
        if isinstance(trained, TrainingFailure) or not order.n_review:
            return trained
        rng = np.random.default_rng(order.version)
        molecules = order.snapshot.select(~order.snapshot.is_arm(Arm.ATOM, Arm.IMPORTED))
        rows = range(max(0, molecules.n_frames - order.n_review), molecules.n_frames)
        predictions = {}
        for frame in (molecules.frame(i) for i in rows):
            energy, forces = spring_forces(frame.positions)
            noise = 0.02 * rng.normal(size=forces.shape)
            deviations = np.full(frame.n_atoms, 0.1)
            predictions[frame.frame_id] = Prediction(energy, forces + noise, deviations, order.version)
        return replace(trained, predictions=predictions)
