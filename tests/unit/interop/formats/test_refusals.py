"""What a file must not hold is refused in one line that names place and field; nothing is ever unpickled."""

from __future__ import annotations

import json
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import pytest

from alsys.errors import InputError
from alsys.interop.comments import formal_charge
from alsys.interop.formats import find, guess
from alsys.interop.formats.base import require
from support.labelled import GFN1, shaken_methanol, snapshot_of

XYZ = """2
Properties=species:S:1:pos:R:3:forces:R:3 energy={energy} {more}
O 0.0 0.0 0.0 0.1 0.2 {force}
{symbol} 0.0 0.0 0.97 -0.1 -0.2 -0.3
"""


class Bomb:
    """Leaves a file where it is unpickled."""

    path = ""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (self.path, "w")


def refused(path: Path, name: str, *words: str) -> InputError:
    with pytest.raises(InputError) as caught:
        list(find(name).read(path))
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"
    return caught.value


def xyz(path: Path, energy: str = "-1.0", force: str = "0.3", symbol: str = "H", more: str = "charge=-1") -> Path:
    path.write_text(XYZ.format(energy=energy, force=force, symbol=symbol, more=more))
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ({"energy": "nan"}, ["frame 0: energy", "NaN"]),
        ({"force": "inf"}, ["frame 0: forces", "NaN or infinity"]),
        ({"force": "x"}, ["frame 0", "no number", "'x'"]),
        ({"force": ""}, ["frame 0", "columns"]),
        ({"symbol": "Xx"}, ["frame 0: species", "no element", "Xx"]),
        ({"more": "charge=0.5"}, ["charge", "whole number", "0.5"]),
        ({"more": "REF_energy=-2.0"}, ["energy and REF_energy differ"]),
        ({"more": 'pbc="T T T"'}, ["without a Lattice"]),
        ({"more": "n_charges=12"}, ["frame 0: n_charges", "point charges"]),
    ],
)
def test_extxyz(text: dict[str, str], words: list[str], tmp_path: Path) -> None:
    refused(xyz(tmp_path / "a.xyz", **text), "extxyz", *words)


def test_extxyz_that_is_cut_off_or_none(tmp_path: Path) -> None:
    path = xyz(tmp_path / "a.xyz")
    whole = path.read_text()
    path.write_text(whole * 3 + "\n".join(whole.splitlines()[:-1]))
    refused(path, "extxyz", "frame 3", "cut off")
    path.write_text("hello\n")
    refused(path, "extxyz", "number of atoms", "hello")
    path.write_bytes(b"2\n\xff\xfe\n")
    refused(path, "extxyz", "no text")
    path.write_text("\n")
    refused(path, "extxyz", "holds no frames")
    path.write_text(whole.replace("energy=-1.0", ""))
    refused(path, "extxyz", "energy", "missing")
    path.write_text(whole.replace("forces:R:3", "other:R:3"))
    refused(path, "extxyz", "forces", "missing")


def lmdb_file(path: Path, value: bytes, key: bytes = b"1") -> Path:
    with lmdb.open(str(path), subdir=False, lock=False) as environment, environment.begin(write=True) as transaction:
        transaction.put(key, value)
    return path


def arrays(**changes: Any) -> dict[str, Any]:
    return {
        "nuclear_charges": np.array([8, 1]), "coords": np.ones((3, 2, 3)), "energies": np.ones(3),
        "forces": np.ones((3, 2, 3)), **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"energies": np.array([1.0, np.nan, 1.0])}, ["frame 1: energy", "NaN"]),
        ({"forces": np.ones((3, 3, 3))}, ["frame 0: forces", "(3, 2, 3)", "(3, 3, 3)"]),
        ({"energies": np.ones(4)}, ["energies", "3 frames", "(4,)"]),
        ({"nuclear_charges": np.array([8, 0])}, ["atomic numbers", "1 to 118"]),
        ({"nuclear_charges": np.array(["O", "H"])}, ["atomic numbers"]),
        ({"forces": np.array(["a"] * 3)}, ["forces", "numbers", "<U1"]),
    ],
)
def test_rmd17(changes: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(**changes))
    refused(tmp_path / "a.npz", "rmd17", *words)


def test_rmd17_that_is_something_else(tmp_path: Path) -> None:
    error = refused(xyz(tmp_path / "a.xyz"), "rmd17", "a.xyz", "neither an npy nor an npz file", "'2\\nProp'")
    assert "pickle" not in str(error)
    np.save(tmp_path / "a.npy", np.ones(3))
    refused(tmp_path / "a.npy", "rmd17", "no npz archive")
    np.savez(tmp_path / "md17.npz", z=np.ones(2), R=np.ones((1, 2, 3)), E=np.ones(1), F=np.ones((1, 2, 3)))
    refused(tmp_path / "md17.npz", "rmd17", "has no coords, energies, forces, nuclear_charges", "save it with")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in ("nuclear_charges", "coords", "energies", "forces"):
            archive.writestr(name, "text")
    refused(tmp_path / "a.npz", "rmd17", "nuclear_charges", "is no array")


def test_pickles_are_refused_and_not_read(tmp_path: Path) -> None:
    """In npz and npy files, in LMDB values plain and compressed: the object's code never runs."""
    Bomb.path = str(tmp_path / "fired")
    bomb = np.array([Bomb(), Bomb(), Bomb()], dtype=object)
    np.savez(tmp_path / "a.npz", **arrays(energies=bomb), allow_pickle=True)
    refused(tmp_path / "a.npz", "rmd17", "energies", "pickle", "array of objects")
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Bomb()))
    refused(tmp_path / "b.npz", "rmd17", "pickle")
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Bomb(), protocol=0))
    refused(tmp_path / "b.npz", "rmd17", "neither an npy nor an npz file")
    find("deepmd").write(snapshot_of(shaken_methanol(2)), tmp_path / "d", GFN1)
    energy = next((tmp_path / "d").rglob("energy.npy"))
    np.save(energy, bomb, allow_pickle=True)
    refused(tmp_path / "d", "deepmd", "energy.npy", "pickle")
    for i, value in enumerate((pickle.dumps(Bomb(), protocol=-1), zlib.compress(pickle.dumps(Bomb(), protocol=-1)))):
        path = tmp_path / f"{i}.aselmdb"
        with (
            lmdb.open(str(path), subdir=False, lock=False) as environment,
            environment.begin(write=True) as transaction,
        ):
            transaction.put(b"1", value)
        refused(path, "omol25", "row 1", "pickle", "runs code")
    assert not (tmp_path / "fired").exists()


def hdf5(path: Path, **changes: Any) -> Path:
    """A file of the SPICE layout; None leaves a dataset out."""
    found: dict[str, Any] = {
        "atomic_numbers": np.array([8, 1, 1]), "smiles": np.array([b"O"], dtype=object),
        "conformations": np.ones((2, 3, 3)), "dft_total_energy": np.ones(2), "dft_total_gradient": np.ones((2, 3, 3)),
        **changes,
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        for key, value in found.items():
            if value is not None:
                file[f"water/{key}"] = value
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dft_total_gradient": None}, ["water: dft_total_gradient", "missing"]),
        ({"dft_total_energy": np.array([1.0, np.inf])}, ["water conformation 1: energy", "NaN or infinity"]),
        ({"dft_total_energy": np.ones(3)}, ["water: dft_total_energy", "2 conformations"]),
        ({"conformations": np.ones((2, 4, 3))}, ["water conformation 0: positions", "(2, 3, 3)"]),
        ({"dft_total_energy": np.array([b"a", b"b"], dtype=object)}, ["dft_total_energy", "numbers"]),
    ],
)
def test_hdf5(changes: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    refused(hdf5(tmp_path / "a.h5", **changes), "spice", *words)


def test_hdf5_without_smiles_has_no_charge(tmp_path: Path) -> None:
    (raw,) = find("spice").read(hdf5(tmp_path / "a.h5", smiles=None))
    assert raw.charge is None
    (tmp_path / "b.h5").write_text("no")
    refused(tmp_path / "b.h5", "ani1x", "no HDF5 file")


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [
        ("O", 0), ("[H:2][O:1][H:3]", 0), ("[NH4+]", 1), ("[O-:1][C:2](=[O:3])[H:4]", -1), ("[Ca+2:1]", 2),
        ("[Ca++]", 2), ("[Cl-:1].[Na+:2]", 0), ("[S--]", -2), ("C[N+](C)(C)CC(=O)[O-]", 0), ("[13CH3-:7]", -1),
        ("[H]-[C:1]#[C-:2]", -1),
    ],
)  # fmt: skip
def test_formal_charges_of_smiles(smiles: str, charge: int) -> None:
    assert formal_charge(smiles) == charge


def row(**changes: Any) -> bytes:
    return zlib.compress(
        json.dumps(
            {
                "numbers": [8, 1], "positions": [[0, 0, 0], [0, 0, 1]], "energy": -1.0,
                "forces": [[0, 0, 1], [0, 0, -1]], "data": {"charge": -1, "spin": 1}, **changes,
            }
        ).encode()
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (row(energy=float("nan")), ["row 1: energy", "NaN"]),
        (row(forces=[[0, 0, 1]]), ["row 1: forces", "(1, 2, 3)"]),
        (row(forces=[[0, 0, 1], [0]]), ["differ in length"]),
        (row(forces=None), ["row 1: forces", "missing"]),
        (row(positions="x"), ["row 1: positions", "numbers"]),
        (row(data={"charge": 0.5, "spin": 1}), ["row 1: charge", "whole number"]),
        (row(key_value_pairs={"multiplicity": 3}), ["row 1", "multiplicity", "data.multiplicity"]),
        (zlib.compress(b"[1]"), ["row 1", "no compressed JSON"]),
        (b"\x78nonsense", ["row 1", "decompressed"]),
        (b"text", ["row 1", "no compressed JSON"]),
        (zlib.compress(b" " * 70_000_000), ["row 1", "too large"]),
    ],
)
def test_omol25(value: bytes, words: list[str], tmp_path: Path) -> None:
    path = lmdb_file(tmp_path / "a.aselmdb", value)
    refused(path, "omol25", *words)


def test_omol25_of_another_layout(tmp_path: Path) -> None:
    path = lmdb_file(tmp_path / "a.aselmdb", pickle.dumps(3), b"length")
    refused(path, "omol25", "ASE-LMDB", "length")
    path.write_text("x" * 9000)
    refused(path, "omol25", "LMDB")


def test_ase_arrays_in_json_rows(tmp_path: Path) -> None:
    """ASE's own encoding of arrays, which some writers keep."""
    encoded = {"__ndarray__": [[2, 3], "float64", [0.0, 0.0, 1.0, 0.0, 0.0, -1.0]]}
    path = lmdb_file(tmp_path / "a.aselmdb", row(forces=encoded))
    (raw,) = find("omol25").read(path)
    assert raw.forces[0].tolist() == [[0, 0, 1], [0, 0, -1]]


def deepmd(folder: Path) -> Path:
    find("deepmd").write(snapshot_of(shaken_methanol(2)), folder, GFN1)
    return folder


def deepmd_system(root: Path) -> Path:
    return next(path for path in deepmd(root).iterdir() if path.is_dir())


def test_deepmd(tmp_path: Path) -> None:
    root = deepmd(tmp_path / "d")
    system = next(root.rglob("type.raw")).parent
    (system / "nopbc").unlink()
    refused(root, "deepmd", "box.npy", "missing", "restore it, or make an empty file `nopbc`")
    (system / "nopbc").touch()
    np.save(system / "set.000" / "force.npy", np.ones((2, 17)))
    refused(root, "deepmd", "forces", "(2, 6, 3)", "(2, 17)")
    np.save(system / "set.000" / "force.npy", np.ones((1, 18)))
    refused(root, "deepmd", "force.npy", "2 frames")
    (system / "type.raw").write_text("0 1 7")
    refused(root, "deepmd", "type.raw")
    (system / "type_map.raw").unlink()
    refused(root, "deepmd", "type_map.raw", "no elements")
    (system / "type.raw").unlink()
    refused(root, "deepmd", "no type.raw")


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("type_map.raw", "C H", ["type_map.raw", "names 2 elements", "type 2"]),
        ("type_map.raw", "C D O", ["type_map.raw", "no element", "'D'", "symbol of its element"]),
        ("type_map.raw", "c H O", ["type_map.raw", "no element", "'c'"]),
        ("type_map.raw", "\xff", ["type_map.raw", "as text"]),
        ("type.raw", "0 1 1.5", ["type.raw", "no whole number", "'1.5'"]),
    ],
)
def test_types_of_deepmd(file: str, text: str, words: list[str], tmp_path: Path) -> None:
    system = deepmd_system(tmp_path / "d")
    (system / file).write_text(text, encoding="latin-1")
    refused(tmp_path / "d", "deepmd", *words)


def test_objects_in_arrays_of_deepmd(tmp_path: Path) -> None:
    system = deepmd_system(tmp_path / "d")
    np.save(system / "set.000" / "coord.npy", np.array([[1.0, None]] * 2, dtype=object), allow_pickle=True)
    refused(tmp_path / "d", "deepmd", "coord.npy", "pickle", "array of numbers")


def test_ase_db(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"SQLite format 3\0" + b"x" * 100)
    refused(tmp_path / "a.db", "ase-db", "cannot be read")
    find("ase-db").write(snapshot_of(shaken_methanol(1)), tmp_path / "b.json", GFN1)
    text = (tmp_path / "b.json").read_text()
    (tmp_path / "b.json").write_text(text.replace('"forces"', '"other"'))
    refused(tmp_path / "b.json", "ase-db", "row 1: forces", "missing")


def test_what_no_format_knows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(InputError, match="looks like no format"):
        guess(tmp_path / "a.txt")
    with pytest.raises(InputError, match="no such file"):
        guess(tmp_path / "b.txt")
    with pytest.raises(InputError, match="is no format"):
        find("xml")
    with pytest.raises(Exception, match="extra `data`"):
        require("no_such_package_at_all")
