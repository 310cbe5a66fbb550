"""What counts as bonded, broken, too close or flown apart, in molecules and in crystals."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule

from alsys.dynamics.geometry import GeometryCheck, closest_molecules, is_sound, molecules_of, nearest_pair
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


def test_a_cluster_may_change_neighbours_but_lose_no_molecule() -> None:
    water = molecule("H2O")

    def cluster(*places: float) -> Frame:
        positions = [water.positions + np.array([x, 0, 0]) for x in places]
        return Frame.molecule(np.tile(water.numbers, len(places)), np.concatenate(positions))

    chain = cluster(0.0, 3.0, 6.0, 9.0)
    swapped = cluster(0.0, 12.0, 9.0, 3.0)  # the links 0-1 and 2-3 have grown by more than is allowed to a link
    assert is_sound(chain, swapped.positions, 0.6)
    assert not is_sound(chain, cluster(0.0, 3.0, 6.0, 20.0).positions, 0.6)
    torn = swapped.positions.copy()
    torn[1] += [0.0, 3.0, 0.0]
    assert not is_sound(chain, torn, 0.6)


def test_molecules_are_what_bonds_hold_together_across_the_boundary_too() -> None:
    water = molecule("H2O")
    positions = np.concatenate([water.positions, water.positions + 4.0])
    numbers = np.tile(water.numbers, 2)
    assert molecules_of(Frame.molecule(numbers, positions)).tolist() == [0, 0, 0, 1, 1, 1]
    wrapped = Frame(numbers, positions % 8.0, np.eye(3) * 8.0, np.ones(3, bool))
    assert np.abs(wrapped.positions - positions).max() > 7.0, "the first molecule is split"
    assert molecules_of(wrapped).tolist() == [0, 0, 0, 1, 1, 1]
    copper = bulk("Cu", "fcc", a=3.6, cubic=True)
    assert not molecules_of(Frame(copper.numbers, copper.positions, np.asarray(copper.cell), copper.pbc)).any()


def test_distances_between_molecules_include_images() -> None:
    helium = np.array([[0.0, 0, 0], [0.5, 0, 0], [7.0, 0, 0]])
    owner = np.array([0, 0, 1])
    cell = np.diag([8.0, 9.0, 9.0])
    assert closest_molecules(Frame([2, 2, 2], helium, cell, np.ones(3, bool)), owner, 3.0) == pytest.approx(1.0)
    assert closest_molecules(Frame([2, 2, 2], helium, cell, np.ones(3, bool)), owner, 0.9) == np.inf
    assert closest_molecules(Frame.molecule([2, 2, 2], helium), owner, 3.0) == pytest.approx(6.5)
    alone = Frame([2], [[0.0, 0, 0]], np.eye(3) * 2.5, np.ones(3, bool))
    assert closest_molecules(alone, np.array([0]), 3.0) == pytest.approx(2.5), "its own image"


def test_nearest_pair_sees_images() -> None:
    copper = bulk("Cu", "fcc", a=3.6)
    frame = Frame(copper.numbers, copper.positions, np.asarray(copper.cell), copper.pbc)
    i, j, ratio = nearest_pair(frame)
    assert (i, j) == (0, 0)
    assert ratio == pytest.approx(3.6 / np.sqrt(2) / (2 * 1.32), abs=1e-6)
    assert nearest_pair(Frame.molecule([18], [[0, 0, 0]]))[2] == np.inf
