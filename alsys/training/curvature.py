"""Curvature as training data: what the Hessian of a labelled frame says of the frames around it.

To second order in a displacement ``d``, forces are ``F - H d`` and the energy is ``E - F d + d H d / 2``. Each normal
mode gives two such frames, one forward and one backward, so close that the third order does not matter; the difference
of a model's forces on both is the product of its Hessian with the mode. Rows like these are derived anew for each fit
and never stored: they are no labels, and nothing is measured on them. A model of any architecture learns them as it
learns labels, with a weight that makes up for how small their forces are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
from ase.data import atomic_masses

from alsys.dynamics.vibrations import vibrations
from alsys.frames import Arm, FloatArray, Frame, IntArray
from alsys.labels import Hessian
from alsys.store.base import Snapshot
from alsys.training.dataset import less_baseline
from alsys.training.pretraining import beside_baseline
from alsys.training.snapshots import joined, snapshot_of

DISPLACEMENT: Final = 0.01
"""Of the atom that a mode moves most, Angstrom."""
LENGTH: Final = 0.1
"""Displacement at which an error of second derivatives counts as an error of forces does, Angstrom."""
NO_WEIGHTS: Final[Mapping[str, float]] = MappingProxyType({})


def with_curvature(
    train: Snapshot, labels: Snapshot, hessians: Sequence[Hessian], baseline: Mapping[str, object] | None
) -> Snapshot:
    """Training frames, and before them what Hessians say of the frames around theirs.

    Args:
        train: Frames to train on, less the baseline where there is one.
        labels: Labels as they are, among which the frames of the Hessians are; others say nothing.
        hessians: Second derivatives of the labels' energies.
        baseline: What models are a difference to.
    """
    row_of = {frame_id: row for row, frame_id in enumerate(labels.frame_ids)}
    for hessian in hessians:
        row = row_of.get(hessian.frame_id)
        if row is not None:
            derived = beside_baseline(_around(labels.select(np.array([row])), hessian.matrix), baseline)
            train = joined(derived if baseline is None else less_baseline(derived), train)
    return train


def _around(label: Snapshot, matrix: FloatArray) -> Snapshot:
    """The frames around one, with energies and forces to second order."""
    frame, energy, forces = label.frame(0), float(label.energy[0]), label.forces.ravel()
    moves = list(displacements(frame, matrix))
    found = snapshot_of(
        [frame.with_positions(frame.positions + move.reshape(-1, 3)) for move in moves],
        np.array([energy - forces @ move + 0.5 * move @ matrix @ move for move in moves]),
        np.stack([forces - matrix @ move for move in moves]),
        system=label.systems[int(label.system[0])],
        trajectories=[int(label.trajectory[0])] * len(moves),
        arms=[Arm.CURVATURE] * len(moves),
    )
    return found


def pairs_among(train: Snapshot, weights: Mapping[str, float] = NO_WEIGHTS) -> tuple[IntArray, FloatArray]:
    """Which frames of a training set lie on both sides of a minimum along one mode.

    Args:
        train: The frames; those that are derived from Hessians stand in pairs, as `with_curvature` put them.
        weights: Of frames by arm.

    Returns:
        ``(n_frames,)`` the frame on the other side for the first of each pair, -1 for all others; and ``(n_frames,)``
        what the square of the difference of their force errors is multiplied by, 0 for all others: with it a pair
        counts as a frame at a distance of `LENGTH` from the minimum does whose forces are wrong by its Hessian alone.
    """
    derived = np.flatnonzero(train.is_arm(Arm.CURVATURE))
    other = np.full(train.n_frames, -1, dtype=np.int64)
    bend = np.zeros(train.n_frames)
    other[derived[::2]] = derived[1::2]
    bend[derived[::2]] = weights.get(Arm.CURVATURE.value, 1.0) * (LENGTH / (2.0 * DISPLACEMENT)) ** 2
    return other, bend


def displacements(frame: Frame, matrix: FloatArray) -> Iterator[FloatArray]:
    """``(3 n_atoms,)``, Angstrom: along each normal mode, forward and backward."""
    roots = np.sqrt(np.repeat(atomic_masses[frame.numbers], 3))
    for mode in vibrations(frame, matrix).modes:
        move = mode / roots
        move *= DISPLACEMENT / np.linalg.norm(move.reshape(-1, 3), axis=1).max()
        yield from (move, -move)
