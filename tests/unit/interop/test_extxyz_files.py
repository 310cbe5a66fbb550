"""Labelled frames go to other codes and come from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import ase.io
import numpy as np
import pytest

from alsys.errors import InputError
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.interop.extxyz_files import export_extxyz, read_labelled
from alsys.labels import Label
from alsys.store.base import Snapshot
from alsys.store.memory import open_writer
from alsys.testing.fakes import FAKE_LEVEL

PUBLISHED = """3
Lattice="50.0 0.0 0.0 0.0 50.0 0.0 0.0 0.0 50.0" Properties=species:S:1:pos:R:3:forces:R:3 energy=-2078.5 pbc="F F F"
O 0.0 0.0 0.1 0.5 0.0 -1.25
H 0.0 0.7 -0.4 0.0 0.1 0.0
H 0.0 -0.7 -0.4 0.0 -0.1 0.0
"""


def make_snapshot() -> Snapshot:
    rng = np.random.default_rng(5)
    ion = Frame.molecule([8, 1], rng.normal(size=(2, 3)), charge=-1)
    radical = Frame.molecule([6, 1, 1, 1], rng.normal(size=(4, 3)), multiplicity=2)
    cell = np.diag([4.0, 5.0, 1 / 3]) + 0.1 * rng.normal(size=(3, 3))
    crystal = Frame(np.array([14, 14]), rng.normal(size=(2, 3)), cell, np.array([True, True, False]))
    sources = [
        Source('odd "name" \\ here', Arm.INITIAL, "normal-modes", trajectory=1),
        Source("plain", Arm.RANDOM, "langevin", trajectory=2**62, model_version=3, deviation=0.25),
        Source("plain", Arm.UNCERTAIN, "langevin", trajectory=7, model_version=4, deviation=0.125),
    ]
    candidates = [Candidate(f, s) for f, s in zip((ion, radical, crystal), sources, strict=True)]
    labels = [
        Label(c.frame.frame_id, FAKE_LEVEL.level_id, -1 / 7 * (i + 1), rng.normal(size=(c.frame.n_atoms, 3)))
        for i, c in enumerate(candidates)
    ]
    writer = open_writer()
    writer.stage(candidates=candidates, labels=labels, levels=[FAKE_LEVEL])
    writer.commit()
    return writer.snapshot(FAKE_LEVEL.level_id)


def test_frames_come_back_exactly(tmp_path: Path) -> None:
    snapshot = make_snapshot()
    assert export_extxyz(snapshot, tmp_path / "a.xyz") == 3
    back = read_labelled(tmp_path / "a.xyz")
    assert tuple(frame.frame_id for frame, _, _ in back) == snapshot.frame_ids
    assert [energy for _, energy, _ in back] == snapshot.energy.tolist()
    np.testing.assert_array_equal(np.concatenate([forces for _, _, forces in back]), snapshot.forces)


def test_ase_finds_energy_forces_and_provenance(tmp_path: Path) -> None:
    snapshot = make_snapshot()
    export_extxyz(snapshot, tmp_path / "a.xyz")
    ion, radical, crystal = ase.io.read(tmp_path / "a.xyz", index=":")
    assert ion.get_potential_energy() == snapshot.energy[0]
    np.testing.assert_array_equal(ion.get_forces(), snapshot.forces[:2])
    assert (ion.info["charge"], ion.info["multiplicity"]) == (-1, 1)
    assert (radical.info["charge"], radical.info["multiplicity"]) == (0, 2)
    assert radical.info["arm"] == "random"
    assert radical.info["trajectory"] == 2**62
    assert radical.info["model_version"] == 3
    assert radical.info["deviation"] == 0.25
    assert "deviation" not in ion.info, "unknown is not a number"
    assert ion.info["system"] == 'odd "name" \\ here'
    assert ion.info["frame_id"] == f"id-{snapshot.frame_ids[0]}"
    assert not ion.cell.any()
    np.testing.assert_array_equal(crystal.cell[:], snapshot.cell[2])
    assert crystal.pbc.tolist() == [True, True, False]


def test_only_the_arms_asked_for(tmp_path: Path) -> None:
    snapshot = make_snapshot()
    assert export_extxyz(snapshot, tmp_path / "a.xyz", arms=[Arm.RANDOM, Arm.UNCERTAIN]) == 2
    assert [frame.frame_id for frame, _, _ in read_labelled(tmp_path / "a.xyz")] == list(snapshot.frame_ids[1:])
    assert export_extxyz(snapshot, tmp_path / "b.xyz", arms=[Arm.ATOM]) == 0


def test_export_replaces_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a.xyz"
    target.write_text("precious")
    snapshot = make_snapshot()
    broken = snapshot.select(np.array([0, 1, 2]))
    broken.numbers[-1] = 10_000
    with pytest.raises(IndexError):
        export_extxyz(broken, target)
    assert target.read_text() == "precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.xyz"]
    export_extxyz(snapshot, target)
    assert len(read_labelled(target)) == 3


def test_export_to_nowhere_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing.a\.xyz: cannot be written: No such file"):
        export_extxyz(make_snapshot(), tmp_path / "missing" / "a.xyz")


def test_published_frame_loses_its_dummy_lattice(tmp_path: Path) -> None:
    (tmp_path / "p.xyz").write_text(PUBLISHED)
    ((frame, energy, forces),) = read_labelled(tmp_path / "p.xyz")
    assert energy == -2078.5
    assert forces[0].tolist() == [0.5, 0.0, -1.25]
    assert frame == Frame.molecule([8, 1, 1], [[0, 0, 0.1], [0, 0.7, -0.4], [0, -0.7, -0.4]])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (" energy=-2078.5", "", "frame 1: energy: is missing"),
        (":forces:R:3", ":push:R:3", "species, pos, push; --forces-key says"),
        ("-2078.5", "nan", "frame 1: energy: holds NaN or infinity"),
        ("-1.25", "nan", "frame 1: forces: holds NaN or infinity"),
        ("0.7", "inf", "frame 1: positions: holds NaN or infinity"),
        ("energy", "charge=0.5 energy", "frame 1: charge: must be a whole number"),
        ("energy", "multiplicity=0 energy", "frame 1: multiplicity: multiplicity is 2S"),
        ("O 0.0", "Qq 0.0", "frame 1: species: is no element"),
        ("H 0.0 -0.7 -0.4 0.0 -0.1 0.0\n", "", "frame 1: is cut off"),
    ],
)
def test_bad_frame_is_named_in_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "bad.xyz"
    assert old in PUBLISHED
    file.write_text(PUBLISHED + PUBLISHED.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        read_labelled(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x93NUMPY\xff\xfe", b"3\n\n"])
def test_what_is_no_extxyz_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "no.xyz").write_bytes(content)
    with pytest.raises(InputError, match=r"no\.xyz: "):
        read_labelled(tmp_path / "no.xyz")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.xyz: .*no such file"):
        read_labelled(tmp_path / "none.xyz")


def test_masked_atoms_are_marked(tmp_path: Path) -> None:
    snapshot = make_snapshot()
    mask = np.array(snapshot.mask)
    mask[3] = False
    export_extxyz(dataclasses.replace(snapshot, mask=mask), tmp_path / "all.xyz")
    ion, radical, crystal = ase.io.read(tmp_path / "all.xyz", index=":")
    assert radical.arrays["mask"].tolist() == [True, False, True, True]
    assert "mask" not in ion.arrays
    assert "mask" not in crystal.arrays


def test_frames_in_point_charges_are_marked_and_not_taken_for_frames_in_vacuum(tmp_path: Path) -> None:
    snapshot = make_snapshot()
    counts = np.zeros(snapshot.n_frames, dtype=np.int64)
    counts[1] = 2
    embedded = dataclasses.replace(
        snapshot, n_charges=counts, charge_positions=np.full((2, 3), 5.0), charge_values=np.array([0.4, -0.4])
    )
    export_extxyz(embedded, tmp_path / "all.xyz")
    ion, radical, _ = ase.io.read(tmp_path / "all.xyz", index=":")
    assert radical.info["n_charges"] == 2
    assert "n_charges" not in ion.info
    with pytest.raises(InputError, match=r"frame 1: n_charges: .*point charges"):
        read_labelled(tmp_path / "all.xyz")


@pytest.mark.parametrize(("energy", "forces"), [("REF_energy", "REF_forces"), ("dft_energy", "dft_forces")])
def test_labels_under_other_names_are_found(tmp_path: Path, energy: str, forces: str) -> None:
    renamed = PUBLISHED.replace("energy=", f"{energy}=").replace(":forces:", f":{forces}:")
    (tmp_path / "p.xyz").write_text(renamed)
    ((_, value, found),) = read_labelled(tmp_path / "p.xyz")
    assert value == -2078.5
    assert found[0].tolist() == [0.5, 0.0, -1.25]


def test_two_energies_that_differ_are_refused(tmp_path: Path) -> None:
    doubled = PUBLISHED.replace(" energy=-2078.5", " REF_energy=-2078.5 dft_energy=-2000.0")
    (tmp_path / "p.xyz").write_text(doubled)
    with pytest.raises(InputError, match="frame 0: energy: REF_energy and dft_energy differ"):
        read_labelled(tmp_path / "p.xyz")


@pytest.mark.parametrize(("said", "is_fine"), [("eV", True), ("Hartree", False)])
def test_a_file_that_names_other_units_is_refused(tmp_path: Path, said: str, is_fine: bool) -> None:
    (tmp_path / "p.xyz").write_text(PUBLISHED.replace(" energy=", f" energy_unit={said} energy="))
    if is_fine:
        assert len(read_labelled(tmp_path / "p.xyz")) == 1
    else:
        with pytest.raises(InputError, match="frame 0: energy unit: must be ev"):
            read_labelled(tmp_path / "p.xyz")
