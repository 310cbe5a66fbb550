"""Strata: what bonds tell apart, and what they must not."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.collections import g2

from alsys.errors import InputError
from alsys.frames import Frame
from alsys.selection.strata import bonds, stratum, topology


def frame_of(name: str) -> Frame:
    atoms = molecule(name)
    return Frame.molecule(atoms.numbers, atoms.positions)


def hash_of(frame: Frame) -> str:
    return topology(frame, bonds(frame))


ETHANOL = frame_of("CH3CH2OH")


def test_isomers_have_strata_of_their_own() -> None:
    names = ["CH3CH2OH", "CH3OCH3", "isobutane", "trans-butane", "CH2NHCH2", "butadiene", "2-butyne", "cyclobutene"]
    hashes = {name: hash_of(frame_of(name)) for name in names if name in g2.names}
    assert len(hashes) >= 6
    assert len(set(hashes.values())) == len(hashes)


def test_the_order_of_atoms_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    for name in ("CH3CH2OH", "C6H6", "bicyclobutane"):
        frame = frame_of(name)
        order = rng.permutation(frame.n_atoms)
        shuffled = Frame.molecule(frame.numbers[order], frame.positions[order])
        assert hash_of(shuffled) == hash_of(frame)
        assert stratum(shuffled, shuffled) == stratum(frame, frame)


def test_two_rings_of_three_are_not_one_of_six() -> None:
    def ring(n: int, x: float) -> np.ndarray:
        angle = 2 * np.pi * np.arange(n) / n
        radius = 1.5 / (2 * np.sin(np.pi / n))
        return np.column_stack([x + radius * np.cos(angle), radius * np.sin(angle), np.zeros(n)])

    six = Frame.molecule([6] * 6, ring(6, 0.0))
    three = Frame.molecule([6] * 6, np.concatenate([ring(3, 0.0), ring(3, 20.0)]))
    assert len(bonds(six)) == len(bonds(three)) == 6
    assert hash_of(six) != hash_of(three)


def test_vibrations_stay_in_their_stratum_and_reactions_leave_it() -> None:
    rng = np.random.default_rng(1)
    name = stratum(ETHANOL, ETHANOL, "300K")
    assert name.startswith("C2H6O:")
    assert name.endswith(":300K")
    for _ in range(20):
        hot = ETHANOL.with_positions(ETHANOL.positions + rng.normal(0, 0.08, (9, 3)))
        assert stratum(hot, ETHANOL, "300K") == name
    assert stratum(ETHANOL, ETHANOL, "900K") != name
    i, j = bonds(ETHANOL)[0]
    stretched = ETHANOL.positions.copy()
    stretched[j] += 0.4 * (stretched[j] - stretched[i])
    held = ETHANOL.with_positions(stretched)
    assert [i, j] in bonds(held, ETHANOL).tolist()
    assert [i, j] not in bonds(held).tolist()
    h = int(np.flatnonzero(ETHANOL.numbers == 1)[0])
    lost = ETHANOL.positions.copy()
    lost[h] += 10.0
    assert stratum(ETHANOL.with_positions(lost), ETHANOL, "300K") != name


def test_periodic_frames_and_lone_atoms_have_a_stratum_too() -> None:
    atoms = bulk("Cu", cubic=True)
    copper = Frame(atoms.numbers, atoms.positions, np.asarray(atoms.cell), np.ones(3, dtype=bool))
    assert stratum(copper, copper) == "Cu4:periodic"
    argon = Frame.molecule([18], [[0.0, 0.0, 0.0]])
    assert stratum(argon, argon).startswith("Ar:")


def test_other_atoms_than_the_start_are_refused() -> None:
    with pytest.raises(InputError, match="other atoms"):
        stratum(ETHANOL, frame_of("CH3OCH3"))
    with pytest.raises(InputError, match="other atoms"):
        stratum(ETHANOL, frame_of("H2O"))
