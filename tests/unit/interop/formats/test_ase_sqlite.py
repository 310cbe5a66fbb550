"""ASE databases in SQLite, against ASE: its columns when we write, its rows when we read, and what it cannot refuse."""

from __future__ import annotations

import hashlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from alsys.errors import InputError
from alsys.frames import Frame
from alsys.interop.account import FileAccount
from alsys.interop.formats import ase_sqlite, find
from support.labelled import GFN1, shaken_methanol, snapshot_of

pytestmark = pytest.mark.thorough


def water(seed: int, **results: Any) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = Atoms("OHH", positions=rng.normal(size=(3, 3)))
    atoms.calc = SinglePointCalculator(atoms, energy=-float(seed), forces=rng.normal(size=(3, 3)), **results)
    return atoms


def columns(path: Path) -> list[dict[str, Any]]:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    found = [dict(row) for row in connection.execute("SELECT * FROM systems ORDER BY id")]
    connection.close()
    return found


def test_every_column_is_what_ase_would_have_written(tmp_path: Path) -> None:
    """Rows that we wrote, written again by ASE: but for names and times, nothing differs; ASE's searches find them."""
    cell = np.array([[4.0, 0.1, 0.0], [0.0, 5.0, 0.2], [0.3, 0.0, 6.0]])
    frame = Frame(np.array([14, 8, 8]), np.eye(3) * 1.5, cell, np.array([True, False, True]), -1, 2)
    stress = np.array([[0.1, 0.02, 0.03], [0.02, -0.2, -0.01], [0.03, -0.01, 0.15]])
    labelled = [*shaken_methanol(2), (frame, -1.5, np.arange(9.0).reshape(3, 3))]
    snapshot = snapshot_of(labelled, stresses=[None, None, stress])
    find("ase-db").write(snapshot, tmp_path / "ours.db", GFN1)
    with ase.db.connect(tmp_path / "ours.db") as ours, ase.db.connect(tmp_path / "theirs.db") as theirs:
        for row in ours.select():
            theirs.write(row.toatoms(), row.key_value_pairs, data=row.data)
        assert [row.id for row in ours.select("Si=1")] == [3]
        assert [row.id for row in ours.select("energy<0,natoms=6")] == [1, 2]
    own = {"unique_id", "ctime", "mtime", "username"}
    for mine, ase_row in zip(columns(tmp_path / "ours.db"), columns(tmp_path / "theirs.db"), strict=True):
        for name in sorted(ase_row.keys() - own):
            if isinstance(mine[name], float):
                assert mine[name] == pytest.approx(ase_row[name], rel=1e-14), name
            else:
                assert mine[name] == ase_row[name], name
    with sqlite3.connect(tmp_path / "ours.db") as a, sqlite3.connect(tmp_path / "theirs.db") as b:
        query = "SELECT * FROM species ORDER BY id, Z"
        assert a.execute(query).fetchall() == b.execute(query).fetchall()


def test_what_ase_wrote_is_read(tmp_path: Path) -> None:
    """Facts as key-value pairs and as data, initial charges, external tables, deleted rows, full cells."""
    path = tmp_path / "a.db"
    with ase.db.connect(path) as database:
        database.write(water(1), data={"charge": 0, "multiplicity": 3, "vector": np.arange(3.0)})
        database.write(water(2), data={"charge": 0, "multiplicity": 3, "vector": np.arange(3.0)})
        database.write(water(3), total_charge=1, multiplicity=2)
        database.write(water(4), total_charge=-1, data={"charge": -1, "level": "pbe"})
        charged = water(5)
        charged.set_initial_charges([-1.0, 0.5, 1.5])
        charged.calc = SinglePointCalculator(charged, **charged.calc.results)
        database.write(charged)
        database.write(water(6), external_tables={"more": {"a": 1.0}})
        solid = water(7, stress=np.array([1.0, 2, 3, 4, 5, 6]))
        solid.cell, solid.pbc = np.diag([3.0, 4, 5]), True
        solid.calc = SinglePointCalculator(solid, **solid.calc.results)
        database.write(solid)
        database.write(water(8), functional="PBE", basis="def2-SVP")
        del database[2]
    found = [(raw, i) for raw in find("ase-db").read(path) for i in range(raw.n_frames)]
    with ase.db.connect(path) as database:
        for (raw, i), row in zip(found, database.select(), strict=True):
            assert raw.place_of(i) == f"row {row.id}"
            np.testing.assert_array_equal(raw.positions[i], row.positions)
            np.testing.assert_array_equal(raw.forces[i], row.forces)
            assert raw.energy[i] == row.energy
    facts = [(raw.charge, raw.multiplicity, raw.level) for raw, _ in found]
    assert facts == [
        (0, 3, ""), (1, 2, ""), (-1, None, "pbe"), (1, None, ""), (None, None, ""), (None, None, ""),
        (None, None, "PBE/def2-SVP"),
    ]  # fmt: skip
    solid_raw = found[5][0]
    assert solid_raw.pbc == (True, True, True)
    assert solid_raw.stress is not None
    assert solid_raw.stress[0].tolist() == [[1, 6, 5], [6, 2, 4], [5, 4, 3]]


def test_reading_leaves_the_file_alone(tmp_path: Path) -> None:
    """A database that is not ASE's gets no tables of ASE's."""
    path = tmp_path / "a.db"
    find("ase-db").write(snapshot_of(shaken_methanol(2)), path, GFN1)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE things (a)")
    before = [hashlib.blake2b(p.read_bytes()).digest() for p in (path, other)]
    assert sum(raw.n_frames for raw in find("ase-db").read(path)) == 2
    with pytest.raises(InputError, match="version"):
        list(find("ase-db").read(other))
    assert [hashlib.blake2b(p.read_bytes()).digest() for p in (path, other)] == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db", "other.db"]


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE information SET value = '10' WHERE name = 'version'", "version"),
        ("UPDATE information SET value = '4' WHERE name = 'version'", "convert"),
        ("UPDATE systems SET positions = x'00' WHERE id = 2", "cannot be read"),
        ("UPDATE systems SET positions = 'text' WHERE id = 2", "cannot be read"),
        ("UPDATE systems SET numbers = NULL WHERE id = 2", "cannot be read"),
        ("UPDATE systems SET data = '{' WHERE id = 2", "cannot be read"),
        ("UPDATE systems SET data = x'8004952e' WHERE id = 2", "cannot be read"),
        ("UPDATE systems SET forces = NULL WHERE id = 2", "row 2: forces"),
        ("UPDATE systems SET energy = NULL WHERE id = 2", "row 2: energy"),
        ("UPDATE systems SET energy = 'x' WHERE id = 2", "row 2: energy"),
        (f"UPDATE systems SET numbers = zeroblob({ase_sqlite.MAX_ROW_BYTES + 1}) WHERE id = 2", "cannot be read"),
        ("ALTER TABLE systems RENAME TO others", "cannot be read"),
        ("DELETE FROM systems", "no rows"),
    ],
)
def test_damage_is_refused_in_one_line(statement: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    find("ase-db").write(snapshot_of(shaken_methanol(3)), path, GFN1)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(InputError, match=words) as caught:
        list(find("ase-db").read(path))
    assert "\n" not in str(caught.value)


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    """Memory is some rows: what comes after the first batches is not looked at before they are taken."""
    path = tmp_path / "a.db"
    with ase.db.connect(path) as database:
        for i in range(600):
            database.write(water(i))
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE systems SET positions = x'00' WHERE id = 600")
    connection.close()
    stream = find("ase-db").read(path)
    assert [next(stream).n_frames for _ in range(2)] == [256, 256]
    with pytest.raises(InputError, match="cannot be read"):
        list(stream)


def test_rows_that_nobody_reads_to_the_end_may_be_forgotten_by_another_thread(tmp_path: Path) -> None:
    with ase.db.connect(tmp_path / "a.db") as database:
        for seed in (1, 2):
            database.write(water(seed))
    rows = ase_sqlite.rows(tmp_path / "a.db", FileAccount())
    next(rows)
    with ThreadPoolExecutor(1) as other:
        other.submit(rows.close).result()
