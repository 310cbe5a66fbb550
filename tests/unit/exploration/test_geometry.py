"""What counts as bonded, broken, too close or flown apart, in molecules and in crystals."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule

from alsys.exploration.geometry import GeometryCheck, nearest_pair
from alsys.frames import Frame

ATOMS = molecule("CH3OH")
METHANOL = Frame.molecule(ATOMS.numbers, ATOMS.positions)


def test_a_batch_finds_the_walkers_that_broke_and_why() -> None:
    stretched, squeezed = ATOMS.positions.copy(), ATOMS.positions.copy()
    i, o = (int(np.flatnonzero(ATOMS.numbers == z)[0]) for z in (6, 8))
    stretched[o] += 2.0 * (stretched[o] - stretched[i])
    squeezed[o] = squeezed[i] + 0.4 * (squeezed[o] - squeezed[i])
    check = GeometryCheck([METHANOL, Frame.molecule([18], [[0, 0, 0]]), METHANOL, METHANOL], 0.6)
    positions = np.concatenate([ATOMS.positions, [[5.0, 5.0, 5.0]], stretched, squeezed])
    assert check.problems(positions) == {2: "broken", 3: "too-close"}


def test_separate_molecules_may_move_but_not_fly_away() -> None:
    water = molecule("H2O")
    pair = Frame.molecule(
        np.tile(water.numbers, 2), np.concatenate([water.positions, water.positions + np.array([0, 0, 3.0])])
    )
    check = GeometryCheck([pair], 0.6)
    for shift, problems in ((0.0, {}), (3.0, {}), (9.0, {0: "broken"})):
        assert check.problems(pair.positions + np.repeat([[0, 0, 0], [0, 0, shift]], 3, axis=0)) == problems


def test_nearest_pair_sees_images() -> None:
    copper = bulk("Cu", "fcc", a=3.6)
    frame = Frame(copper.numbers, copper.positions, np.asarray(copper.cell), copper.pbc)
    i, j, ratio = nearest_pair(frame)
    assert (i, j) == (0, 0)
    assert ratio == pytest.approx(3.6 / np.sqrt(2) / (2 * 1.32), abs=1e-6)
    assert nearest_pair(Frame.molecule([18], [[0, 0, 0]]))[2] == np.inf
