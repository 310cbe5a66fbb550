"""Labelled frames with Morse energies."""

from __future__ import annotations

import numpy as np
from ase.build import molecule

from alsys.config.labeling import AnalyticLabeling
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.labeling.analytic import AnalyticLabeler
from alsys.labels import Label
from alsys.store.base import Snapshot
from alsys.store.memory import open_writer


def make_snapshot(n: int = 20, n_random: int = 8, spread: float = 0.05, n_nitrogen: int = 0) -> Snapshot:
    """Free atoms, then `n` frames of methanol and water, two on each trajectory, then the random arm.

    `n_nitrogen` frames of the random arm are ammonia; then a free nitrogen atom is there too.
    """
    rng = np.random.default_rng(0)
    labeler = AnalyticLabeler(AnalyticLabeling(kind="analytic"))
    free = [(1, 2), (6, 3), (8, 3), *([(7, 4)] if n_nitrogen else [])]
    candidates = [
        Candidate(Frame.molecule([z], np.zeros((1, 3)), multiplicity=m), Source("m", Arm.ATOM, "free-atom"))
        for z, m in free
    ]
    for i in range(n + n_random):
        atoms = molecule("NH3" if i >= n + n_random - n_nitrogen else "CH3OH" if i % 4 else "H2O")
        frame = Frame.molecule(atoms.numbers, atoms.positions + rng.normal(0, spread, (len(atoms), 3)))
        arm = Arm.RANDOM if i >= n else Arm.INITIAL
        candidates.append(Candidate(frame, Source("m", arm, "rattle", trajectory=100 + i // 2)))
    labels = [label for c in candidates if isinstance(label := labeler.label(c.frame), Label)]
    assert len(labels) == len(candidates)
    store = open_writer()
    store.stage(candidates=candidates, labels=labels, levels=[labeler.level])
    store.commit()
    return store.snapshot(labeler.level.level_id)
