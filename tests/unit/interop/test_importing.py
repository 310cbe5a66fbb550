"""An import is whole or nothing, once, under its own level; what contradicts itself is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import ase.db
import numpy as np
import pytest
from ase import Atoms

from alsys.errors import InputError
from alsys.events import DataImported, FrameProposed, LabelAccepted
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.interop.formats import find
from alsys.interop.import_reader import ImportOrder, named_level
from alsys.interop.importing import BLOCK, ImportReport, digest_of, import_frames
from alsys.interop.keys import KeyChoice
from alsys.interop.near_frames import CHUNK, Near, NearFrames
from alsys.labels import Label, LevelOfTheory
from alsys.store.digests import label_digest
from alsys.store.memory import MemoryDisk, open_reader, open_writer
from alsys.store.writer import ColumnWriter
from alsys.units import GIGAPASCAL, HARTREE
from support.labelled import GFN1, Labelled, boxed_water, shaken_methanol, snapshot_of

OWN = LevelOfTheory({"engine": "pyscf", "xc": "pbe"})


@pytest.fixture(scope="module")
def labelled() -> list[Labelled]:
    return shaken_methanol(50)


def write(path: Path, labelled: Sequence[Labelled], level: LevelOfTheory = GFN1) -> Path:
    find("extxyz").write(snapshot_of(labelled, level), path, level)
    return path


def take(
    store: ColumnWriter, path: Path, own: LevelOfTheory = OWN, name: str = "extxyz", **said: object
) -> ImportReport:
    return import_frames(store, ImportOrder(path, find(name), **said), own, 7.0)  # type: ignore[arg-type]


def refused(path: Path, *words: str, name: str = "extxyz", **said: object) -> str:
    """The one line; nothing may have been committed."""
    disk = MemoryDisk()
    store = open_writer(disk)
    with pytest.raises(InputError) as caught:
        take(store, path, name=name, **said)
    store.close()
    assert disk.read_head().seq == 0
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"
    return text


def test_frames_of_another_level_are_kept_apart(labelled: list[Labelled], tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", labelled)
    store = open_writer()
    report = take(store, path)
    assert (report.n_new, report.n_train, report.n_known, report.level) == (50, 0, 0, GFN1)
    snapshot = store.snapshot(GFN1.level_id)
    assert snapshot.frame_ids == tuple(frame.frame_id for frame, _, _ in labelled)
    assert snapshot.energy.tolist() == [energy for _, energy, _ in labelled]
    np.testing.assert_array_equal(snapshot.forces, np.concatenate([forces for _, _, forces in labelled]))
    assert snapshot.is_arm(Arm.IMPORTED).all()
    assert store.snapshot(OWN.level_id).n_frames == 0
    assert store.verify().problems == []
    (event,) = store.events()
    assert isinstance(event, DataImported)
    assert event == report.event
    assert (event.source, event.digest, event.format, event.is_training) == ("a.xyz", digest_of(path), "extxyz", False)
    assert (event.first_row, event.n_rows, event.n_labels, event.n_train, event.t) == (0, 50, 50, 0, 7.0)
    assert event.units == "ev, ev/angstrom, angstrom"
    assert "GFN2-xTB" in event.unit_check


def test_frames_of_the_campaigns_level_are_trained_on(labelled: list[Labelled], tmp_path: Path) -> None:
    report = take(open_writer(), write(tmp_path / "a.xyz", labelled), GFN1)
    assert report.n_train == 50
    assert report.event is not None
    assert report.event.is_training


def test_frames_keep_the_temperature_that_they_sample(labelled: list[Labelled], tmp_path: Path) -> None:
    store = open_writer()
    take(store, write(tmp_path / "a.xyz", labelled[:9]), GFN1, temperature=350.0)
    found = store.candidates([frame.frame_id for frame, _, _ in labelled[:9]])
    assert {candidate.source.temperature for candidate in found} == {350.0}


def test_the_same_file_again_adds_nothing(labelled: list[Labelled], tmp_path: Path) -> None:
    disk = MemoryDisk()
    store = open_writer(disk)
    take(store, write(tmp_path / "a.xyz", labelled[:30]))
    head = store.head
    again = take(store, tmp_path / "a.xyz")
    assert (again.event, again.n_new, again.n_known) == (None, 0, 30)
    assert store.head == head
    more = take(store, write(tmp_path / "b.xyz", labelled))
    assert (more.n_new, more.n_known) == (20, 30)
    assert more.event is not None
    assert (more.event.first_row, more.event.n_rows) == (30, 20)
    assert open_reader(disk).verify().problems == []
    other = take(store, tmp_path / "b.xyz", level=OWN)
    assert other.n_new == 50, "the same frames at another level are other labels"
    assert store.head.lengths["frames"] == 50
    assert store.verify().problems == []


def test_groups_stay_together_and_a_file_has_several(labelled: list[Labelled], tmp_path: Path) -> None:
    """Neighbours of a trajectory do not stand on both sides of a split, and a file is not on one side as a whole."""
    store = open_writer()
    take(store, write(tmp_path / "a.xyz", labelled))
    trajectory = store.snapshot(GFN1.level_id).trajectory
    blocks = [set(trajectory[i : i + BLOCK].tolist()) for i in range(0, 50, BLOCK)]
    assert [len(block) for block in blocks] == [1, 1, 1]
    assert len(set.union(*blocks)) == 3
    assert (trajectory >= 0).all()
    again = open_writer()
    take(again, write(tmp_path / "b.xyz", labelled))
    np.testing.assert_array_equal(again.snapshot(GFN1.level_id).trajectory, trajectory)


def test_level_of_a_name() -> None:
    assert named_level("PBE/def2-SVP") == find("rmd17").level
    assert named_level("wB97M-D3(BJ)/def2-TZVPPD") == find("spice").level
    assert named_level("wB97X/6-31G*") == find("ani1x").level
    assert named_level("wB97M-V / def2-TZVPD") == find("omol25").level
    assert named_level('{"engine": "x", "a": 1}') == LevelOfTheory({"a": 1, "engine": "x"})
    assert named_level("GFN2-xTB").spec == {"method": "gfn2-xtb"}
    for text in ("{", "", '["a"]'[:0]):
        with pytest.raises(InputError, match="level"):
            named_level(text)


def rewritten(path: Path, change: Callable[[str], str]) -> Path:
    path.write_text(change(path.read_text()))
    return path


def test_a_level_that_nobody_states(labelled: list[Labelled], tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", labelled[:5])
    lines = [line.partition(" level=")[0] for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    refused(path, "level of theory is not stated", "--level")
    assert take(open_writer(), path, level=OWN).n_new == 5


def test_levels_that_are_mixed(labelled: list[Labelled], tmp_path: Path) -> None:
    """As the frames state them, one of them at a time is taken; where only their energies do, none."""
    first, second = write(tmp_path / "a.xyz", labelled[:25]), write(tmp_path / "b.xyz", labelled[25:], OWN)
    mixed = tmp_path / "mixed.xyz"
    mixed.write_text(first.read_text() + second.read_text())
    text = refused(mixed, "levels of theory are mixed", "frame 0", "frame 25", "--take")
    refused(mixed, "levels of theory are mixed", level=OWN)
    assert OWN.canonical in text
    report = take(open_writer(), mixed, take=OWN.canonical)
    assert (report.n_new, report.level) == (25, OWN)
    refused(mixed, "no frame states that level", "HF", take="HF")
    shifted = [(f, e + 30.0 * (i % 2), x) for i, (f, e, x) in enumerate(labelled)]
    refused(write(tmp_path / "c.xyz", shifted), "levels of theory are mixed", "two groups")


def test_one_frame_with_two_energies(labelled: list[Labelled], tmp_path: Path) -> None:
    """In one file, and in the store: one of both is not of the level that is stated."""
    path = write(tmp_path / "a.xyz", labelled[:20])
    block = path.read_text().split("\n6\n")[-1]
    energy = repr(labelled[19][1])
    twice = tmp_path / "twice.xyz"
    twice.write_text(path.read_text() + "6\n" + block.replace(f"energy={energy}", f"energy={labelled[19][1] + 0.1!r}"))
    refused(twice, "frame 20", "levels of theory are mixed")
    store = open_writer()
    take(store, path)
    shifted = write(tmp_path / "b.xyz", [(f, e + 0.1, x) for f, e, x in labelled[:20]])
    with pytest.raises(InputError, match="in the store, at the same level"):
        take(store, shifted)
    store = open_writer()
    take(store, write(tmp_path / "own.xyz", labelled[:20], OWN))
    scaled = write(tmp_path / "c.xyz", [(f, e, 1.02 * x) for f, e, x in labelled[:20]], OWN)
    with pytest.raises(InputError, match="has other forces in the store"):
        take(store, scaled)


def rounded(labelled: Sequence[Labelled], digits: int, shift: float = 0.0) -> list[Labelled]:
    """As they come back from a program that writes so many decimals."""
    return [(replace(f, positions=f.positions.round(digits)), energy + shift, x) for f, energy, x in labelled]


@pytest.mark.parametrize("digits", [5, 8])
def test_frames_that_come_back_with_rounded_coordinates_are_known(
    digits: int, labelled: list[Labelled], tmp_path: Path
) -> None:
    """Else one of a test set would be learned, and one frame have two energies."""
    store = open_writer()
    take(store, write(tmp_path / "a.xyz", labelled[:40]), GFN1)
    again = take(store, write(tmp_path / "b.xyz", rounded(labelled, digits)), GFN1)
    assert (again.n_known, again.n_new) == (40, 10)
    assert store.snapshot(GFN1.level_id).n_frames == 50
    with pytest.raises(InputError, match="in the store, at the same level"):
        take(store, write(tmp_path / "c.xyz", rounded(labelled, digits, 1.0)), GFN1)


def test_frames_that_are_near_are_told_from_those_that_are_other(labelled: list[Labelled]) -> None:
    known = NearFrames([snapshot_of(labelled[:20])])
    first = labelled[0][0]
    shaken = [first.positions + step * np.eye(first.n_atoms, 3) for step in (0.0, 1e-8, 1e-3)]
    others = [
        replace(first, charge=1, multiplicity=2),
        replace(first, numbers=first.numbers[::-1].copy()),
        boxed_water(1)[0][0],
    ]
    found = known.find([*(replace(first, positions=p) for p in shaken), *others])
    same, ion = Near(same=first.frame_id), Near(twin=first.frame_id)
    assert found == [same, same, Near(), ion, Near(), Near()]
    boxes = [(frame, values.energy, values.forces) for frame, values in boxed_water(3)]
    cells = NearFrames([snapshot_of(boxes)])
    box = boxes[1][0]
    assert cells.find([replace(box, cell=box.cell + 1e-9), replace(box, cell=box.cell * 1.001)]) == [
        Near(same=box.frame_id), Near()
    ]  # fmt: skip
    assert NearFrames([]).find([first]) == [Near()]


def test_a_near_frame_is_found_among_many() -> None:
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 5, CHUNK + 100)
    frames = [Frame.molecule(rng.integers(1, 9, n), rng.normal(size=(n, 3))) for n in sizes]
    known = NearFrames([snapshot_of([(frame, 0.0, np.zeros((frame.n_atoms, 3))) for frame in frames])])
    for k in (0, CHUNK - 1, CHUNK, CHUNK + 99):
        frame = replace(frames[k], positions=frames[k].positions.round(6))
        assert known.find([frame])[0].same == frames[k].frame_id, k


def test_one_energy_at_two_charges(labelled: list[Labelled], tmp_path: Path) -> None:
    """Whose charge is wrong nobody knows; a model that tells states apart would learn that they are alike."""
    store = open_writer()
    take(store, write(tmp_path / "a.xyz", labelled[:10], OWN))
    ions = [(replace(f, charge=1, multiplicity=2), energy, x) for f, energy, x in labelled[:10]]
    with pytest.raises(InputError, match="have this energy in another state too"):
        take(store, write(tmp_path / "b.xyz", ions, OWN))


@pytest.mark.parametrize(("option", "value"), [("charge", 1), ("multiplicity", 3), ("multiplicity", 0)])
def test_a_charge_or_spin_of_the_users_that_all_frames_contradict(
    option: str, value: int, labelled: list[Labelled], tmp_path: Path
) -> None:
    path = rewritten(
        write(tmp_path / "a.xyz", labelled[:5]), lambda text: text.replace("energy=", "charge=0 multiplicity=1 energy=")
    )
    refused(path, f"{option}: is for frames that state none", **{option: value})
    assert take(open_writer(), path, **{option: {"charge": 0, "multiplicity": 1}[option]}).n_new == 5


def test_electrons_must_be_known(labelled: list[Labelled], tmp_path: Path) -> None:
    frame, energy, forces = labelled[0]
    radical = Frame.molecule([6, 1, 1, 1], frame.positions[:4], multiplicity=2)
    path = write(tmp_path / "a.xyz", [(radical, energy, forces[:4])])
    assert take(open_writer(), path, is_trusted=True).n_new == 1
    rewritten(path, lambda text: text.replace("multiplicity=2 ", ""))
    refused(path, "9 electrons cannot have multiplicity 1", "--charge", is_trusted=True)
    assert take(open_writer(), path, is_trusted=True, multiplicity=2).n_new == 1
    two = write(tmp_path / "b.xyz", labelled[:2])
    head, _, tail = two.read_text().partition(" charge=0")
    two.write_text(head + tail)
    refused(two, "frame 0 states no charge, frame 1 does", "--charge")
    find("spice").write(snapshot_of(labelled[:3]), tmp_path / "c.h5", GFN1)
    import h5py

    with h5py.File(tmp_path / "c.h5", "r+") as file:
        del next(iter(file.values()))["total_charge"]
    refused(tmp_path / "c.h5", "charge", "missing", "--charge", name="spice")
    report = take(open_writer(), tmp_path / "c.h5", name="spice", charge=0, is_trusted=True)
    assert (report.n_new, report.level) == (3, GFN1)


@pytest.mark.parametrize("silent", [0, 1])
def test_frames_that_state_no_charge_or_spin_beside_others_are_asked_about(
    labelled: list[Labelled], tmp_path: Path, silent: int
) -> None:
    frames = [(replace(f, charge=1, multiplicity=2), e, x) for f, e, x in labelled[:2]]
    for option, text in (("charge", " charge=1"), ("multiplicity", " multiplicity=2")):
        path = write(tmp_path / f"{option}.xyz", frames)
        blocks = path.read_text().split("\n6\n")
        blocks[silent] = blocks[silent].replace(text, "")
        path.write_text("\n6\n".join(blocks))
        refused(path, f"frame {silent} states no {option}, frame {1 - silent} does", f"--{option}")
        store, value = open_writer(), 1 if option == "charge" else 2
        said = {option: value}
        assert take(store, path, is_trusted=True, **said).n_new == 2
        snapshot = store.snapshot(GFN1.level_id)
        assert (snapshot.charge.tolist(), snapshot.multiplicity.tolist()) == ([1, 1], [2, 2])


@pytest.mark.parametrize("suffix", ["db", "json"])
def test_rows_of_ase_without_initial_charges_state_no_charge(
    labelled: list[Labelled], tmp_path: Path, suffix: str
) -> None:
    from ase.calculators.singlepoint import SinglePointCalculator

    path = tmp_path / f"a.{suffix}"
    with ase.db.connect(str(path)) as database:
        for frame, energy, forces in labelled[:2]:
            atoms = Atoms(frame.numbers, frame.positions)
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
            database.write(atoms)
    store = open_writer()
    take(store, path, name="ase-db", level=GFN1, charge=1, multiplicity=2, is_trusted=True)
    assert store.snapshot(GFN1.level_id).charge.tolist() == [1, 1]


def test_units_are_proven_before_anything_is_written(labelled: list[Labelled], tmp_path: Path) -> None:
    in_hartree = write(tmp_path / "a.xyz", [(f, e / HARTREE, x / HARTREE) for f, e, x in labelled])
    refused(in_hartree, "does not fit", "--force-unit=hartree/angstrom")
    units = (("energy", "hartree"), ("force", "hartree/angstrom"))
    store = open_writer()
    take(store, in_hartree, units=units)
    np.testing.assert_allclose(store.snapshot(GFN1.level_id).energy, [e for _, e, _ in labelled], rtol=1e-14)
    vouched = take(open_writer(), in_hartree, is_trusted=True)
    assert vouched.note.startswith("vouched for by the user")


def test_units_that_the_file_states_count(labelled: list[Labelled], tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", labelled[:10])
    rewritten(path, lambda text: text.replace(" charge=0", " energy_unit=kcal/mol charge=0"))
    refused(path, "says that it is in kcal/mol", "--energy-unit=kcal/mol")


@pytest.mark.parametrize(
    ("says", "unit"),
    [
        ("position_unit=bohr", "--length-unit=bohr"), ("pos_units=bohr", "--length-unit=bohr"),
        ("coordinates_unit=nm", "--length-unit=nm"), ("unit_length=a0", "--length-unit=bohr"),
        ("energy_units=Ha", "--energy-unit=hartree"), ("unit_energy=kcal", "--energy-unit=kcal/mol"),
        ("gradient_unit=hartree/bohr", "--force-unit=hartree/bohr"), ("unit_of_forces=kcal/mol/A", "kcal/mol/angstrom"),
        ("units=bohr", "--length-unit=bohr"), ("unit=a.u.", "--energy-unit=hartree"), ("UNITS=kcal/mol", "kcal/mol"),
        ("units=furlong", "units: is not known"), ("pos_unit=furlong", "length unit"),
        ("units=metal unit_pos=Angstrom force_unit=eV/A units_of=eV dipole_unit=debye unit_cell_volume=3", ""),
    ],
)  # fmt: skip
def test_a_stated_unit_is_used_or_refused(says: str, unit: str, labelled: list[Labelled], tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", labelled[:10])
    rewritten(path, lambda text: text.replace(" charge=0", f" {says} charge=0"))
    if unit:
        refused(path, unit)
    else:
        assert take(open_writer(), path).n_new == 10


@pytest.mark.parametrize(
    ("name", "named", "unit"),
    [
        ("energy=", "energy_hartree=", "--energy-unit=hartree"), ("energy=", '"energy (au)"=', "--energy-unit=hartree"),
        ("energy=", "energy_kcal=", "--energy-unit=kcal/mol"), ("forces:", "forces_au:", "--force-unit=hartree/bohr"),
        ("energy=", "energy_eV=", ""), ("forces:", "forces_eV_A:", ""),
    ],
)  # fmt: skip
def test_a_unit_in_the_name_of_a_label_counts(
    name: str, named: str, unit: str, labelled: list[Labelled], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.xyz", labelled[:10])
    rewritten(path, lambda text: text.replace(name, named))
    if unit:
        refused(path, unit, "frame 0")
    else:
        assert take(open_writer(), path).n_new == 10


@pytest.mark.parametrize(
    ("stated", "is_own"),
    [("GFN1-xTB", True), ("gfn1-xtb", True), ("GFN2-xTB", False), ("PBE/def2-SVP", False), ("xc=PBE", False)],
)
def test_a_level_that_frames_state_is_not_overruled(
    stated: str, is_own: bool, labelled: list[Labelled], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.xyz", labelled[:10])
    says = f"level={stated}" if "=" not in stated else f"functional={stated[3:]}"
    path.write_text("\n".join(
        line.partition(" level=")[0] + f" {says}" * line.startswith("Prop") for line in path.read_text().splitlines()
    ))  # fmt: skip
    own = {"level": GFN1, "known_levels": (GFN1,)}
    if is_own:
        assert take(open_writer(), path, GFN1, **own).n_train == 10
        return
    word = stated.removeprefix("xc=")
    refused(path, f"level: is not what frame 0 states: {word}", f"--take '{word}'", **own)
    assert take(open_writer(), path, GFN1, take=word, **own).n_train == 10
    foreign = take(open_writer(), path, GFN1, level=named_level("other"), is_trusted=True)
    assert f"the frames state {word}: --level counts" in foreign.account.text


def test_a_whole_level_that_is_not_the_campaigns_is_told_by_what_differs(
    labelled: list[Labelled], tmp_path: Path
) -> None:
    own = LevelOfTheory({"engine": "pyscf", "xc": "pbe", "basis": "def2-svp", "grid_level": 4})
    path = write(tmp_path / "a.xyz", labelled[:10], LevelOfTheory({**own.spec, "grid_level": 3}))
    said = refused(path, "frame 0 is of another level: grid_level 3 and not 4", level=own, known_levels=(own,))
    assert "--take" not in said
    assert "engine" not in said


def test_columns_of_elements_that_contradict_each_other(labelled: list[Labelled], tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", labelled[:10])
    text = path.read_text().replace("species:S:1:", "species:S:1:Z:I:1:")
    numbers = {"C": 6, "O": 8, "H": 1}
    lines = [re.sub(r"^([COH]) ", lambda m: f"{m[1]} {numbers[m[1]]} ", line) for line in text.splitlines()]
    path.write_text("\n".join(lines))
    assert take(open_writer(), path).n_new == 10
    path.write_text("\n".join(lines).replace("O 8", "O 7"))
    refused(path, "Z: contradicts its column of elements", "is O there", "got 7")


def test_units_that_change_within_a_file_are_found(labelled: list[Labelled], tmp_path: Path) -> None:
    """After the frames that are looked at first; what was appended by then is gone."""
    rng = np.random.default_rng(0)
    early = [  # moved as a whole
        (frame.with_positions(frame.positions + rng.normal(size=3)), energy, forces)
        for frame, energy, forces in labelled * 41
    ]
    late = [(f, e, x / 50.0) for f, e, x in labelled]
    refused(write(tmp_path / "a.xyz", [*early[:2048], *late]), "force unit", "does not fit")
    assert take(open_writer(), write(tmp_path / "b.xyz", [*early[:2048], *labelled])).n_new == 2098


def test_a_bad_frame_at_the_end_leaves_nothing(labelled: list[Labelled], tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", labelled)
    rewritten(path, lambda text: text.replace(f"energy={labelled[49][1]!r}", "energy=nan"))
    refused(path, "frame 49: energy", "NaN")


def test_frames_of_the_campaign_are_left_to_it(labelled: list[Labelled], tmp_path: Path) -> None:
    """Those of the random arm would be trained on else; so are free atoms, which its labelers make."""
    store = open_writer()
    own = [Candidate(labelled[i][0], Source("m", arm, "x")) for i, arm in enumerate((Arm.RANDOM, Arm.INITIAL))]
    ids = [(c.frame.frame_id, c.source.arm) for c in own]
    proposed = [FrameProposed(t=0.0, frame_id=i, arm=arm, system="m", deviation=0.0) for i, arm in ids]
    store.stage(proposed, own)
    store.commit()
    atom = (Frame.molecule([8], [[0, 0, 0]], multiplicity=3), -100.0, np.zeros((1, 3)))
    path = write(tmp_path / "a.xyz", [*labelled[:10], atom])
    report = take(store, path, GFN1)
    assert (report.n_new, report.n_train, report.n_own) == (8, 8, 3)
    third = LevelOfTheory({"method": "hf"})
    other = take(store, path, GFN1, level=third)
    assert (other.n_new, other.n_own) == (11, 0), "at another level they are no business of the campaign's labelers"
    snapshot = store.snapshot(third.level_id)
    assert [int(snapshot.is_arm(arm).sum()) for arm in Arm] == [1, 1, 0, 1, 8, 0]
    assert store.verify().problems == []


def test_a_baseline_beside_what_is_trained_on(labelled: list[Labelled], tmp_path: Path) -> None:
    baseline = LevelOfTheory({"engine": "baseline"})

    def beside(frame: Frame) -> Label | None:
        if frame == labelled[3][0]:
            return None
        return Label(frame.frame_id, baseline.level_id, 1.0, np.zeros((6, 3)))

    store = open_writer()
    path = write(tmp_path / "a.xyz", labelled)
    report = import_frames(store, ImportOrder(path, find("extxyz")), GFN1, 0.0, baseline=(baseline, beside))
    assert report.event is not None
    assert (report.event.n_labels, report.event.n_rows) == (50, 99)
    snapshot = store.snapshot(GFN1.level_id, None, baseline.level_id)
    assert snapshot.baseline_energy is not None
    assert np.isfinite(snapshot.baseline_energy).sum() == 49
    assert store.verify().problems == []


def test_verify_knows_an_import_from_labels_that_nobody_accepted(labelled: list[Labelled], tmp_path: Path) -> None:
    store = open_writer()
    take(store, write(tmp_path / "a.xyz", labelled[:5]))
    store.stage((), (), [Label(labelled[0][0].frame_id, OWN.level_id, 0.0, np.zeros((6, 3)))], [OWN])
    store.commit()
    assert any("1 labels differ" in problem for problem in store.verify().problems)
    (event,) = store.events()
    assert isinstance(event, DataImported)
    other = open_writer()
    take(other, tmp_path / "a.xyz")
    other.stage([DataImported(**{name: getattr(event, name) for name in event.__slots__} | {"t": 0.0, "first_row": 3})])
    other.commit()
    assert any("not its own" in problem for problem in other.verify().problems)


@pytest.mark.parametrize(
    ("column", "at"),
    [("labels/energy", 3), ("labels/forces", 77), ("labels/stress", 0), ("labels/wall_s", 11), ("atoms/mask", 61)],
)
def test_what_was_imported_has_a_digest_in_the_log(
    labelled: list[Labelled], tmp_path: Path, column: str, at: int
) -> None:
    """Of two imports one after the other; the second brings some frames of the first at another level."""
    disk = MemoryDisk()
    store = open_writer(disk)
    take(store, write(tmp_path / "a.xyz", labelled[:8]))
    take(store, write(tmp_path / "b.xyz", labelled[4:12]), level=OWN)
    first, second = store.events()
    assert isinstance(first, DataImported)
    assert isinstance(second, DataImported)
    assert (first.first_frame, first.n_frames, second.first_frame, second.n_frames) == (0, 8, 8, 4)
    report = store.verify()
    assert (report.problems, report.n_without_digest) == ([], 0)
    value = disk.read(column, at, at + 1)
    disk.write(column, at, np.zeros_like(value) if value.all() else value + 1)
    (problem,) = store.verify().problems
    assert ("'b.xyz'" if at in (11, 61, 77) else "'a.xyz'") in problem


def test_masks_of_imported_frames_are_in_the_digest(labelled: list[Labelled], tmp_path: Path) -> None:
    """A frame whose labels are partly masked comes back as it was."""
    frames = [frame for frame, _, _ in labelled[:6]]
    source = Source("m", Arm.INITIAL, "test")
    masks = [None, np.array([True] * 5 + [False])] * 3
    theirs = open_writer()
    labels = [Label(frame.frame_id, GFN1.level_id, energy, forces) for frame, energy, forces in labelled[:6]]
    candidates = [Candidate(frame, source, mask) for frame, mask in zip(frames, masks, strict=True)]
    theirs.stage((), candidates, labels, [GFN1])
    theirs.commit()
    find("extxyz").write(theirs.snapshot(GFN1.level_id), tmp_path / "a.xyz", GFN1)
    store = open_writer()
    take(store, tmp_path / "a.xyz", is_trusted=True)
    report = store.verify()
    assert (report.problems, report.n_without_digest) == ([], 0)


def test_labels_of_frames_that_an_import_brought_first_are_not_accused(
    labelled: list[Labelled], tmp_path: Path
) -> None:
    """The store keeps the mask, and the label at the baseline's level, that came first."""
    store = open_writer()
    take(store, write(tmp_path / "a.xyz", labelled[:5]))
    frame = labelled[2][0]
    mask = np.array([False] + [True] * 5)
    baseline = Label(frame.frame_id, GFN1.level_id, -1.0, np.zeros((6, 3)))
    label = Label(frame.frame_id, OWN.level_id, -2.0, np.ones((6, 3)), baseline=baseline)
    accepted = LabelAccepted(
        t=1.0,
        frame_id=frame.frame_id,
        label_id=label.label_id,
        worker="w",
        wall_s=1.0,
        digest=label_digest(label, mask),
    )
    candidate = Candidate(frame, Source("m", Arm.UNCERTAIN, "test"), mask)
    store.stage([accepted], [candidate], [label, baseline], [OWN])
    store.commit()
    report = store.verify()
    assert (report.problems, report.n_without_digest) == ([], 1)


def test_a_baseline_that_the_store_has_is_not_imported_again(labelled: list[Labelled], tmp_path: Path) -> None:
    """Its frames came with it from another file."""
    baseline = LevelOfTheory({"engine": "baseline"})
    store = open_writer()
    take(store, write(tmp_path / "a.xyz", labelled[:3], baseline), is_trusted=True)
    order = ImportOrder(write(tmp_path / "b.xyz", labelled[:6]), find("extxyz"), is_trusted=True)
    beside = [Label(frame.frame_id, baseline.level_id, 1.0, np.zeros((6, 3))) for frame, _, _ in labelled]
    known = {label.frame_id: label for label in beside}
    report = import_frames(store, order, GFN1, 0.0, baseline=(baseline, lambda frame: known[frame.frame_id]))
    assert report.event is not None
    assert (report.event.n_labels, report.event.n_rows, report.event.n_frames) == (6, 9, 3)
    found = store.verify()
    assert (found.problems, found.n_without_digest) == ([], 0)


def test_refused_frames_are_counted_and_left_out_on_request(labelled: list[Labelled], tmp_path: Path) -> None:
    """All or nothing by default, with the count; `--skip` leaves out those of the reader, of physics, and doubles."""
    path = write(tmp_path / "a.xyz", labelled)
    block = path.read_text().split("\n6\n")[-1]
    energy = repr(labelled[49][1])
    atom = "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-10.0 level={level} multiplicity=3\nO 0 0 0 1.0 0 0\n"
    twice = "6\n" + block.replace(f"energy={energy}", f"energy={labelled[49][1] + 0.5!r}")
    rewritten(
        path,
        lambda text: (
            text.replace(f"energy={labelled[3][1]!r}", "energy=nan").replace(
                f"energy={labelled[7][1]!r} charge=0", f"energy={labelled[7][1]!r} charge=1"
            )
            + twice
        ),
    )
    text = refused(path, "3 of 51 frames are refused", "--skip")
    assert "frame 3" in text
    store = open_writer()
    report = take(store, path, is_skipping=True)
    assert (report.n_frames, report.n_new, report.account.n_refused) == (51, 48, 3)
    assert {one.place for one in report.account.refused} == {"frame 3", "frame 7", "frame 50"}
    assert report.event is not None
    assert (report.event.n_skipped, report.event.labels_from) == (3, "energy: energy, forces: forces")
    assert store.verify().problems == []
    alone = tmp_path / "atom.xyz"
    level = '"' + GFN1.canonical.replace('"', '\\"') + '"'
    alone.write_text(atom.replace("{level}", level))
    refused(alone, "force on a single atom is zero", "the only frame", is_skipping=True)
    alone.write_text(atom.replace("{level}", level).replace("1.0 0 0", "0 0 0"))
    assert take(open_writer(), alone, is_trusted=True).n_new == 1


def test_a_file_of_which_nothing_is_left(labelled: list[Labelled], tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", labelled[:5])
    rewritten(path, lambda text: text.replace("energy=", "time="))
    refused(path, "frame 0: energy: is missing", "all 5 frames")
    refused(path, "frame 0: energy: is missing", "all 5 frames", is_skipping=True)


@pytest.mark.parametrize("column", [0, 2])
def test_forces_of_a_constraint_without_a_word(column: int, labelled: list[Labelled], tmp_path: Path) -> None:
    """Zeros in the forces of one atom, and a net force that says what they were."""
    frame, energy, forces = labelled[0]
    held = forces.copy()
    held[3, column:] = 0.0
    path = write(tmp_path / "a.xyz", [(frame, energy, held)])
    refused(path, "frame 0: forces", "exactly zero along", "constraint", is_trusted=True)
    flat = np.array([[0.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]])
    pulls = np.array([[-1.0, -2, 0], [1.0, 1, 0], [0, 1, 0]])
    planar = [(Frame.molecule([8, 1, 1], flat), -100.0, pulls)]
    assert take(open_writer(), write(tmp_path / "b.xyz", planar), is_trusted=True).n_new == 1, "zero by symmetry"


def test_levels_are_one_in_any_case(labelled: list[Labelled], tmp_path: Path) -> None:
    """Of a file's frames among themselves, of `--take`, and of a name against the campaign's own level."""
    path = write(tmp_path / "a.xyz", labelled[:10])
    lines = [line.partition(" level=")[0] for line in path.read_text().splitlines()]
    for k, i in enumerate([i for i, line in enumerate(lines) if line.startswith("Prop")]):
        lines[i] += " level=PBE/def2-SVP" if k % 2 else ' level="pbe / DEF2-svp"'
    path.write_text("\n".join(lines) + "\n")
    assert take(open_writer(), path).level == named_level("pbe/def2-svp")
    assert take(open_writer(), path, take="pBe/Def2-sVp").n_new == 10
    own = LevelOfTheory({"engine": "tblite", "method": "GFN1-xTB", "accuracy": 1.0})
    said = named_level('{"engine": "tblite", "method": "gfn1-xtb", "accuracy": 1.0}')
    path.write_text("\n".join(line.partition(" level=")[0] for line in lines) + "\n")
    report = take(open_writer(), path, own, level=said, known_levels=(own,))
    assert (report.level, report.n_train) == (own, 10)


def test_stress_is_proven_or_left_out(tmp_path: Path) -> None:
    """Water in strained cells, stress in GPa: found, named, taken as such, and left out on request."""
    samples = boxed_water(24)
    level = LevelOfTheory({"method": "gfn1-xtb"})
    values = [(f, v.energy, v.forces) for f, v in samples]
    path = tmp_path / "a.xyz"
    stresses = [v.stress / GIGAPASCAL for _, v in samples if v.stress is not None]
    find("extxyz").write(snapshot_of(values, level, stresses), path, level)
    refused(path, "stress unit", "--stress-unit=gpa", "--stress-key=none")
    store = open_writer()
    take(store, path, units=(("stress", "gpa"),))
    stored = store.snapshot(level.level_id).stress
    np.testing.assert_allclose(stored, [v.stress for _, v in samples], rtol=1e-9, atol=1e-12)
    store = open_writer()
    take(store, path, choice=KeyChoice(stress="none"))
    assert np.isnan(store.snapshot(level.level_id).stress).all()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_text_is_read_in_the_encoding_of_its_byte_order_mark(
    labelled: list[Labelled], tmp_path: Path, encoding: str
) -> None:
    path = write(tmp_path / "a.xyz", labelled[:3])
    path.write_text(path.read_text(), encoding=encoding)
    assert take(open_writer(), path, is_trusted=True).n_new == 3
    path.write_bytes(path.read_text(encoding=encoding).encode("utf-16-le"))
    refused(path, "is no text", "UTF-8", is_trusted=True)


def test_frames_that_stand_out_are_named(labelled: list[Labelled], tmp_path: Path) -> None:
    frame, energy, forces = labelled[11]
    path = write(tmp_path / "a.xyz", [*labelled[:11], (frame, energy + 30.0, forces), *labelled[12:]])
    report = take(open_writer(), path, is_trusted=True)
    assert report.n_new == len(labelled)
    assert [place for place, _ in report.outliers] == ["frame 11"]
    assert not take(open_writer(), write(tmp_path / "b.xyz", labelled)).outliers


def test_labels_that_are_not_of_the_level_that_they_state(labelled: list[Labelled], tmp_path: Path) -> None:
    """GFN1-xTB's, with its energies and forces confirmed, under the name of GFN2-xTB."""
    path = write(tmp_path / "a.xyz", labelled, LevelOfTheory({**GFN1.spec, "method": "GFN2-xTB"}))
    refused(path, "level: are not those of GFN2-xTB", "--level")
