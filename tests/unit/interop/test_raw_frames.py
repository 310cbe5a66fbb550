"""Rows of a file that are alike are checked together: order, content and names stay those of the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alsys.errors import InputError
from alsys.interop.raw_frames import MAX_GATHERED, MAX_GATHERED_ATOMS, RawRow, gathered

WATER = np.array([8, 1, 1])


def row(number: int, numbers: np.ndarray = WATER, **changes: object) -> RawRow:
    rng = np.random.default_rng(number)
    n = len(numbers)
    plain = RawRow(number, numbers, rng.normal(size=(n, 3)), float(number), rng.normal(size=(n, 3)), charge=0)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_every_row_comes_once_and_in_order() -> None:
    """Wherever something changes, a new batch begins: atoms, charge, level, a gap in the numbers, a mask."""
    cell = np.eye(3)
    rows = [
        row(1), row(2), row(3, WATER[::-1]), row(4, charge=-1), row(5, charge=None), row(6, level="pbe"),
        row(7, level="pbe", units=(("energy", "eV"),)), row(9), row(10), row(11, mask=np.array([True, False, True])),
        row(12, mask=np.array([True, True, False])), row(13, multiplicity=3), row(14, cell=cell, pbc=(True,) * 3),
        row(15, cell=2 * cell, pbc=(True,) * 3), row(16, cell=cell, pbc=(True,) * 3, stress=cell), row(17),
    ]  # fmt: skip
    batches = list(gathered(iter(rows), "row"))
    assert [raw.n_frames for raw in batches] == [2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1]
    found = [(raw, i) for raw in batches for i in range(raw.n_frames)]
    for (raw, i), first in zip(found, rows, strict=True):
        assert raw.place_of(i) == f"row {first.number}"
        np.testing.assert_array_equal(raw.numbers, first.numbers)
        np.testing.assert_array_equal(raw.positions[i], first.positions)
        np.testing.assert_array_equal(raw.forces[i], first.forces)
        assert raw.energy[i] == first.energy
        assert (raw.charge, raw.multiplicity, raw.level, raw.units, raw.pbc) == (
            first.charge, first.multiplicity, first.level, first.units, first.pbc
        )  # fmt: skip
        for mine, theirs in ((raw.cell, first.cell), (raw.stress, first.stress)):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                np.testing.assert_array_equal(mine[i], theirs)
        assert (raw.mask is None) == (first.mask is None)
        if raw.mask is not None:
            np.testing.assert_array_equal(raw.mask, first.mask)


def test_batches_are_bounded_and_lazy() -> None:
    """Memory is a bounded number of rows and of atoms, whatever the file holds."""
    n_read = 0

    def rows(numbers: np.ndarray, n: int):  # type: ignore[no-untyped-def]
        nonlocal n_read
        for i in range(n):
            n_read += 1
            yield row(i, numbers)

    sizes = []
    for raw in gathered(rows(WATER, 2 * MAX_GATHERED + 5), "row"):
        sizes.append(raw.n_frames)
        assert n_read <= sum(sizes) + 1, "one row ahead"
    assert sizes == [MAX_GATHERED, MAX_GATHERED, 5]
    large = np.ones(MAX_GATHERED_ATOMS // 2 - 1, dtype=int)
    assert [raw.n_frames for raw in gathered(rows(large, 5), "row")] == [2, 2, 1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"energy": float("nan")}, "row 7: energy"),
        ({"energy": None}, "row 7: energy"),
        ({"energy": "x"}, "row 7: energy"),
        ({"forces": np.full((3, 3), np.inf)}, "row 7: forces"),
        ({"forces": None}, "row 7: forces"),
        ({"forces": np.ones((2, 3))}, "row 7: forces"),
        ({"forces": np.array([["a"] * 3] * 3)}, "row 7: forces"),
        ({"positions": None}, "row 7: positions"),
        ({"numbers": np.array([8.0, 1.0, 1.0])}, "row 7: atomic numbers"),
        ({"numbers": np.array([8, 1, 0])}, "row 7: atomic numbers"),
        ({"numbers": None}, "row 7: atomic numbers"),
        ({"cell": np.eye(2), "pbc": (True, True, True)}, "row 7: cell"),
        ({"stress": np.full((3, 3), np.nan)}, "row 7: stress"),
    ],
)
def test_the_row_that_is_wrong_is_named(changes: dict[str, object], words: str) -> None:
    rows = [row(i) for i in range(5, 10)]
    rows[2] = replace(rows[2], **changes)  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        list(gathered(iter(rows), "row"))
    assert words in str(caught.value)
