"""What a format has written, it reads: bit by bit where it keeps our units."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import ase.db
import ase.io
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alsys.errors import InputError
from alsys.frames import Frame, PointCharges
from alsys.interop.formats import FORMATS, find, guess
from alsys.interop.formats.base import alike
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot
from support.labelled import GFN1, Labelled, snapshot_of

pytestmark = pytest.mark.thorough

SUFFIXES = {
    "extxyz": ".xyz", "ase-db": ".db", "spice": ".h5", "ani1x": ".h5", "omol25": ".aselmdb", "deepmd": "",
    "rmd17": ".npz", "parquet": ".parquet", "qcschema": ".jsonl",
}  # fmt: skip
IN_OUR_UNITS = ("extxyz", "ase-db", "omol25", "deepmd", "parquet")
WITH_ELECTRONS = ("extxyz", "ase-db", "omol25", "spice", "parquet", "qcschema")
WITH_CELLS = ("extxyz", "ase-db", "omol25", "deepmd", "parquet")

numbers = st.floats(-1e4, 1e4).filter(lambda x: x == 0.0 or abs(x) > 1e-300)  # smaller ones lose bits by units


@st.composite
def molecules(draw: st.DrawFn, name: str) -> list[Labelled]:
    """Frames that the format can hold: of one molecule for rMD17, ions and cells where it has them."""
    found: dict[str, Labelled] = {}
    n_kinds = 1 if name == "rmd17" else draw(st.integers(1, 3))
    for _ in range(n_kinds):
        z = draw(st.lists(st.integers(1, 92), min_size=2, max_size=4))
        charge = draw(st.integers(-3, 3)) if name in WITH_ELECTRONS else 0
        multiplicity = draw(st.integers(1, 4)) if name in WITH_ELECTRONS else 1
        is_periodic = name in WITH_CELLS and draw(st.booleans())
        for _ in range(draw(st.integers(1, 3))):
            seed = draw(st.integers(0, 2**32 - 1))
            rng = np.random.default_rng(seed)
            cell = np.diag([5.0, 1 / 3, 7.0]) + rng.normal(0, 0.1, (3, 3)) if is_periodic else np.zeros((3, 3))
            frame = Frame(
                np.array(z), rng.normal(0, 3, (len(z), 3)), cell, np.full(3, is_periodic), charge, multiplicity
            )
            found[frame.frame_id] = (frame, draw(numbers), rng.normal(0, 2, (len(z), 3)))
    return list(found.values())


def read_back(name: str, snapshot: Snapshot, level: LevelOfTheory = GFN1) -> list[Labelled]:
    """Everything that the format reads after it has written, in our units; tells itself from the other formats."""
    known = find(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{SUFFIXES[name]}"
        assert known.write(snapshot, path, (known.is_of_one_level and known.level) or level) == snapshot.n_frames
        assert guess(path) is known
        assert [p.name for p in Path(folder).iterdir()] == [path.name], "nothing temporary is left"
        found: list[Labelled] = []
        units = known.units
        for raw in known.read(path):
            for i in range(raw.n_frames):
                cell = np.zeros((3, 3)) if raw.cell is None else raw.cell[i]
                frame = Frame(
                    raw.numbers, raw.positions[i] * units.length_factor, cell, np.array(raw.pbc),
                    raw.charge or 0, raw.multiplicity or 1,
                )  # fmt: skip
                found.append((frame, float(raw.energy[i] * units.energy_factor), raw.forces[i] * units.force_factor))
    return found


def written(snapshot: Snapshot, name: str) -> list[Labelled]:
    """A snapshot's frames in the order in which the format holds them."""
    is_grouped = name in ("spice", "ani1x", "deepmd", "rmd17")
    rows = np.concatenate([part.rows for part in alike(snapshot)]) if is_grouped else np.arange(snapshot.n_frames)
    offsets = snapshot.offsets
    return [
        (snapshot.frame(i), float(snapshot.energy[i]), snapshot.forces[offsets[i] : offsets[i + 1]])
        for i in rows.tolist()
    ]


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_frames_come_back(name: str, data: st.DataObject) -> None:
    snapshot = snapshot_of(data.draw(molecules(name)))
    back, there = read_back(name, snapshot), written(snapshot, name)
    assert len(back) == len(there)
    for (frame, energy, forces), (first, first_energy, first_forces) in zip(back, there, strict=True):
        if name in IN_OUR_UNITS:
            assert frame == first, "the identity is of all bits of atoms, positions, cell, charge and spin"
            assert energy == first_energy
            np.testing.assert_array_equal(forces, first_forces)
            continue
        if name not in ("spice", "qcschema"):
            assert frame == first
        np.testing.assert_array_equal(frame.numbers, first.numbers)
        assert (frame.charge, frame.multiplicity) == (first.charge, first.multiplicity)
        np.testing.assert_array_max_ulp(frame.positions, first.positions, 2)
        np.testing.assert_array_max_ulp(np.array([energy]), np.array([first_energy]), 2)
        np.testing.assert_array_max_ulp(forces, first_forces, 2)


@pytest.mark.parametrize("name", WITH_CELLS)
def test_stress_comes_back(name: str) -> None:
    frame = Frame(np.array([14, 8]), np.array([[0.0, 0, 0], [1, 1, 1.5]]), np.diag([4.0, 5.0, 6.0]), np.ones(3, bool))
    stress = np.array([[0.1, 0.02, 0.03], [0.02, 0.2, -0.01], [0.03, -0.01, 0.3]])
    snapshot = snapshot_of([(frame, -1.5, np.ones((2, 3)))], stresses=[stress])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{SUFFIXES[name]}"
        find(name).write(snapshot, path, GFN1)
        (raw,) = find(name).read(path)
    assert raw.stress is not None
    np.testing.assert_allclose(raw.stress[0], stress, rtol=1e-15, atol=0)


def forced(n: int = 2) -> list[Labelled]:
    rng = np.random.default_rng(n)
    z = np.array([8, 1, 1])
    return [
        (Frame.molecule(z, rng.normal(size=(3, 3))), float(rng.normal()), rng.normal(size=(3, 3))) for _ in range(n)
    ]


def test_ase_reads_what_we_write_and_we_read_what_ase_writes(tmp_path: Path) -> None:
    """Against a reader and a writer that are not ours."""
    labelled = forced(3)
    snapshot = snapshot_of(labelled)
    find("ase-db").write(snapshot, tmp_path / "a.db", GFN1)
    find("extxyz").write(snapshot, tmp_path / "a.xyz", GFN1)
    images = ase.io.read(tmp_path / "a.xyz", ":")
    rows = list(ase.db.connect(tmp_path / "a.db").select())
    for (frame, energy, forces), row, atoms in zip(labelled, rows, images, strict=True):
        for found in (row.toatoms(), atoms):
            assert found.get_potential_energy() == energy
            np.testing.assert_array_equal(found.get_forces(), forces)
            np.testing.assert_array_equal(found.positions, frame.positions)
    ase.io.write(tmp_path / "b.xyz", [row.toatoms() for row in rows])
    with ase.db.connect(tmp_path / "b.json") as database:
        for row in rows:
            database.write(row.toatoms(), total_charge=0)
    for name in ("b.xyz", "b.json"):
        known = guess(tmp_path / name)
        energies = np.concatenate([raw.energy for raw in known.read(tmp_path / name)])
        np.testing.assert_allclose(energies, snapshot.energy, rtol=1e-7)


def test_published_layout_of_spice_is_read(tmp_path: Path) -> None:
    """Many molecules, SMILES with formal charges, units as attributes, 32-bit floats."""
    with h5py.File(tmp_path / "spice.hdf5", "w") as file:
        for name, smiles, z in (("water", b"[H:2][O:1][H:3]", [8, 1, 1]), ("hydroxide", b"[O-:1][H:2]", [8, 1])):
            group = file.create_group(name)
            group["atomic_numbers"] = np.array(z, dtype=np.int16)
            group["smiles"] = np.array([smiles], dtype=object)
            group["subset"] = np.array([b"test"], dtype=object)
            group["conformations"] = np.arange(2 * len(z) * 3, dtype=np.float32).reshape(2, -1, 3)
            group["conformations"].attrs["units"] = "bohr"
            group["dft_total_energy"] = np.array([-76.0, -75.5])
            group["dft_total_gradient"] = np.ones((2, len(z), 3), dtype=np.float32)
    known = guess(tmp_path / "spice.hdf5")
    assert known.name == "spice"
    by_name = {raw.group: raw for raw in known.read(tmp_path / "spice.hdf5")}
    assert {name: raw.charge for name, raw in by_name.items()} == {"water": 0, "hydroxide": -1}
    assert known.units.force_factor == pytest.approx(-51.42206747), "gradients, Hartree/Bohr (CODATA 2018)"
    assert by_name["water"].positions.dtype == np.float64


@pytest.mark.parametrize("name", ["spice", "ani1x", "deepmd", "rmd17"])
def test_what_a_format_cannot_hold_is_refused(name: str, tmp_path: Path) -> None:
    radical = Frame.molecule([8, 1], np.eye(3)[:2], multiplicity=2)
    ring = Frame(np.array([8, 1]), np.eye(3)[:2], np.eye(3) * 4, np.array([True, False, False]))
    for frame in (radical, ring):
        if name == "spice" and frame is radical:
            continue
        with pytest.raises(InputError, match=f"format {name}"):
            find(name).write(snapshot_of([(frame, 0.0, np.zeros((2, 3)))]), tmp_path / "x", GFN1)
    assert not list(tmp_path.iterdir())


def test_frames_in_point_charges_are_in_no_other_format(tmp_path: Path) -> None:
    charges = PointCharges(np.array([[9.0, 0.0, 0.0]]), np.array([0.4]))
    frame = replace(forced(1)[0][0], environment=charges)
    snapshot = snapshot_of([(frame, 0.0, np.zeros((3, 3)))])
    for name in FORMATS:
        if name != "extxyz":
            with pytest.raises(InputError, match="point charges"):
                find(name).write(snapshot, tmp_path / "x", GFN1)
    find("extxyz").write(snapshot, tmp_path / "x.xyz", GFN1)
    with pytest.raises(InputError, match="n_charges"):
        list(find("extxyz").read(tmp_path / "x.xyz"))


def test_masked_atoms_travel_in_extxyz(tmp_path: Path) -> None:
    snapshot = snapshot_of(forced(1))
    masked = replace(snapshot, mask=np.array([True, False, True]))
    find("extxyz").write(masked, tmp_path / "m.xyz", GFN1)
    (raw,) = find("extxyz").read(tmp_path / "m.xyz")
    assert raw.mask is not None
    assert raw.mask.tolist() == [True, False, True]
    with pytest.raises(InputError, match="masked"):
        find("omol25").write(masked, tmp_path / "m.aselmdb", GFN1)
