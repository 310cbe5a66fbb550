"""How a snapshot is split for a fit: free atoms, training, validation and the random arm.

Validation holds out whole trajectories, chosen by a digest of their identity, so that a frame never has a correlated
neighbour on the other side and a trajectory keeps its side for ever: a warm start has not seen it either. The random
arm is in neither. Atomic energies, virials and weights of frames are read off a snapshot here too.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from alsys.config.labeling import PySCFBaseline
from alsys.config.schema import IMPORTED_AS, CampaignConfig
from alsys.dynamics.surroundings import Surroundings
from alsys.frames import ARMS, TRAINING_ARMS, Arm, FloatArray
from alsys.potentials.xtb import XTBMethod
from alsys.states import SeenStates
from alsys.store.base import Snapshot

logger = logging.getLogger(__name__)


MOST_LOOKED_AT = 20_000
"""Frames whose bonds are looked at: some 0.2 ms each."""


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint parts of a snapshot."""

    atoms: Snapshot
    train: Snapshot
    validation: Snapshot
    random: Snapshot


def split(snapshot: Snapshot, validation_share: float) -> Split:
    """Splits a snapshot.

    The share of validation trajectories is reached on average; none is held out where nothing would be left for
    training. A frame whose atoms are all masked has nothing to say and is in no part.
    """
    says_something = snapshot.n_trusted > 0
    is_usable = snapshot.is_arm(*TRAINING_ARMS) & says_something
    chosen = [t for t in np.unique(snapshot.trajectory[is_usable]) if _share_of(int(t)) < validation_share]
    is_held_out = is_usable & np.isin(snapshot.trajectory, chosen)
    if is_held_out.sum() == is_usable.sum():
        is_held_out[:] = False
    return Split(
        atoms=snapshot.select(snapshot.is_arm(Arm.ATOM)),
        train=snapshot.select(is_usable & ~is_held_out),
        validation=snapshot.select(is_held_out),
        random=snapshot.select(snapshot.is_arm(Arm.RANDOM) & says_something),
    )


def seen_states(parts: Split, *, is_told_apart: bool = False) -> SeenStates:
    """States of charge and multiplicity that a fit sees: those of its training and validation frames.

    Args:
        parts: Of the snapshot.
        is_told_apart: The model is given them.
    """
    columns = [
        np.concatenate([getattr(part, name) for part in (parts.train, parts.validation)])
        for name in ("n_atoms", "numbers", "charge", "multiplicity")
    ]
    seen = SeenStates.of(*columns, is_told_apart=is_told_apart)
    if not is_told_apart:
        for formula, states in seen.by_formula.items():
            if len(states) > 1:
                logger.warning(
                    "labels of %s with %s contradict each other: the model sees elements and positions only",
                    formula, " and ".join(map(str, states)),
                )  # fmt: skip
    return seen


def seen_surroundings(parts: Split) -> frozenset[str]:
    """What atoms that a fit learns from are bonded to, of `MOST_LOOKED_AT` frames at most."""
    known: set[str] = set()
    for part in (parts.train, parts.validation):
        rows = np.arange(part.n_frames)
        if part.n_frames > MOST_LOOKED_AT:
            rows = np.linspace(0, part.n_frames - 1, MOST_LOOKED_AT).astype(np.int64)
        for row, frame in zip(rows.tolist(), part.frames(rows.tolist()), strict=True):
            is_learned = part.mask[part.offsets[row] : part.offsets[row + 1]]
            known.update(
                name for name, is_one in zip(Surroundings.of(frame).names(), is_learned, strict=True) if is_one
            )
    return frozenset(known)


def _share_of(trajectory: int) -> float:
    digest = hashlib.blake2b(str(trajectory).encode(), digest_size=8, person=b"alsys-holdout").digest()
    return int.from_bytes(digest, "big") / 2.0**64


def baseline_of(config: CampaignConfig) -> dict[str, object] | None:
    """The baseline that models of a campaign are a difference to, as their states name it; None where there is none."""
    baseline = config.labeling.baseline
    if config.training.delta is None or baseline is None or isinstance(baseline, PySCFBaseline):
        return None
    return XTBMethod.of(baseline).spec


def less_baseline(snapshot: Snapshot) -> Snapshot:
    """What is left to learn where a baseline is added back: labels minus baseline, of frames that have both.

    An error of the difference is an error of the sum: the baseline's values cancel, so metrics are those of the model
    as it is used.

    Raises:
        ValueError: The snapshot was read without a baseline.
    """
    if snapshot.baseline_energy is None or snapshot.baseline_forces is None:
        raise ValueError("the snapshot holds no baseline")
    known = replace(
        snapshot,
        energy=snapshot.energy - snapshot.baseline_energy,
        forces=snapshot.forces - snapshot.baseline_forces,
        stress=np.full_like(snapshot.stress, np.nan),  # baselines have none in the store
    )
    return known.select(np.isfinite(snapshot.baseline_energy))


def atomic_energies(
    atoms: Snapshot, train: Snapshot, source: Literal["isolated", "fitted"] = "isolated"
) -> dict[int, float]:
    """Energy of each element, eV: of its free atom, or where there is none, by least squares over the training set.

    Elements are all those of both snapshots, so that a model knows an element before the first molecule with it is
    labelled. Energies of frames with masked atoms do not enter: an element that only they hold, and no free atom, gets
    0.

    Args:
        atoms: Free atoms at the level of theory of the labels.
        train: The training set.
        source: ``fitted``: all energies are those whose sums fit the training set's by least squares. Where many do,
            as in a set of one composition, those closest to the free atoms'.
    """
    known = {int(atoms.numbers[i]): float(atoms.energy[i]) for i in range(atoms.n_frames)}
    elements = sorted({int(z) for z in train.numbers} | set(known))
    missing = [z for z in elements if z not in known]
    whole = train.select(train.is_whole)
    counts = np.zeros((whole.n_frames, len(elements)))
    frame_of_atom = np.repeat(np.arange(whole.n_frames), whole.n_atoms)
    np.add.at(counts, (frame_of_atom, np.searchsorted(elements, whole.numbers)), 1.0)
    for changed in [missing, elements] if source == "fitted" else [missing]:
        if changed:
            residual = whole.energy - counts @ np.array([known.get(z, 0.0) for z in elements])
            solution, *_ = np.linalg.lstsq(counts[:, [elements.index(z) for z in changed]], residual, rcond=None)
            known |= {z: known.get(z, 0.0) + float(e) for z, e in zip(changed, solution, strict=True)}
    return {z: known[z] for z in elements}


def frame_weights(frames: Snapshot, weights: Mapping[str, float]) -> FloatArray | None:
    """``(n_frames,)`` weight of each frame: that of its arm times that of its system or import, 1 where not named.

    Args:
        frames: Training frames.
        weights: By value of `alsys.frames.Arm`, by name of a system, or by ``imported/`` and a name.

    Returns:
        The weights; None where all are 1.
    """
    by_arm = np.array([weights.get(arm.value, 1.0) for arm in ARMS])
    by_system = np.array([weights.get(name, 1.0) for name in frames.systems] or [1.0])
    by_import = np.array([weights.get(f"{IMPORTED_AS}{name}", 1.0) for name in frames.systems] or [1.0])
    result: FloatArray = by_arm[frames.arm] * by_system[frames.system]
    result = np.where(frames.is_arm(Arm.IMPORTED), result * by_import[frames.system], result)
    return None if (result == 1.0).all() else result


def virials_of(frames: Snapshot) -> FloatArray | None:
    """``(n_frames, 3, 3)`` stress times volume, eV, NaN where a label may not be learned from; None where none may.

    A stress counts where the label has one, the cell spans a volume and no atom is masked.
    """
    volume = np.abs(np.linalg.det(frames.cell))
    has = np.isfinite(frames.stress).all(axis=(1, 2)) & frames.pbc.any(axis=1) & (volume > 0.0) & frames.is_whole
    if not has.any():
        return None
    virials: FloatArray = np.where(has[:, None, None], frames.stress * volume[:, None, None], np.nan)
    return virials
