"""Labelled frames for others: parts, names, terms, cards and differences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ase.db
import ase.io
import h5py
import lmdb
import numpy as np
import pyarrow.parquet
import pytest

from alsys import open_dataset
from alsys.campaign import Campaign
from alsys.cli import main
from alsys.interop.formats import FORMATS
from alsys.training.dataset import split

TOY = Path(__file__).parents[3] / "configs" / "toy.yaml"
TERMS = "campaign toy: licence: CC-BY-4.0; source: https://example.org/toy; citation: A. Nobody, J. Cation 1, 2 (2026)"


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("done") / "campaign"
    settings = {
        "directory": place,
        "runtime.kind": "in-process",
        "tracking.enabled": False,
        "labeling.delay_s": 0,
        "stop.labels": 40,
        "training.validation_share": 0.3,
        "data_terms.licence": "CC-BY-4.0",
        "data_terms.source": "https://example.org/toy",
        "data_terms.citation": "A. Nobody, J. Cation 1, 2 (2026)",
    }
    Campaign.open(TOY, overrides=settings).run()
    return place


def exported(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    code = main(["data", "export", *map(str, argv)])
    said = capsys.readouterr()
    assert (code, said.err) == (0, "")
    return said.out


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    code = main(["data", *map(str, argv)])
    said = capsys.readouterr().err
    assert code == 2
    assert said.count("\n") == 1
    return said


def frame_ids(path: Path) -> set[str]:
    return {atoms.info["frame_id"].removeprefix("id-") for atoms in ase.io.read(path, ":")}


def test_a_split_is_that_of_the_campaign_and_the_random_arm_is_apart(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = exported(capsys, campaign, tmp_path / "out", "--split")
    assert "test is the random arm" in said
    own = split(open_dataset(campaign).snapshot, 0.3)
    for name, part in (
        ("train", own.train),
        ("validation", own.validation),
        ("test", own.random),
        ("atoms", own.atoms),
    ):
        assert frame_ids(tmp_path / "out" / f"{name}.xyz") == set(part.frame_ids), name
        assert part.n_frames
    random = set(open_dataset(campaign).select("random").snapshot.frame_ids)
    assert frame_ids(tmp_path / "out" / "test.xyz") == random
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["parts"] == {
        "train": own.train.n_frames, "validation": own.validation.n_frames, "test": own.random.n_frames,
        "atoms": own.atoms.n_frames,
    }  # fmt: skip
    assert "A. Nobody" in (tmp_path / "out" / "card.md").read_text()
    exported(capsys, campaign, tmp_path / "other", "--split", "--validation", 0)
    assert frame_ids(tmp_path / "other" / "train.xyz") == {*own.train.frame_ids, *own.validation.frame_ids}
    assert not (tmp_path / "other" / "validation.xyz").exists()


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "ani1x"])
def test_every_format_has_parts(name: str, campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported(capsys, campaign, tmp_path / "out", "--split", "--format", name)
    own = split(open_dataset(campaign).snapshot, 0.3)
    parts = {"train": own.train, "validation": own.validation, "test": own.random}
    if FORMATS[name].holds_electrons:
        parts["atoms"] = own.atoms
    there = {path.stem: path for path in (tmp_path / "out").iterdir() if path.name not in ("card.md", "card.json")}
    assert there.keys() == parts.keys()
    for part, path in there.items():
        units = FORMATS[name].units
        energies = np.concatenate([raw.energy for raw in FORMATS[name].read(path)]) * units.energy_factor
        np.testing.assert_allclose(np.sort(energies), np.sort(parts[part].energy), rtol=1e-14, atol=1e-12)


def test_names_of_mace(campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = exported(capsys, campaign, tmp_path / "out", "--split", "--keys", "mace")
    assert "--E0s=IsolatedAtom" in said
    train = ase.io.read(tmp_path / "out" / "train.xyz", ":")
    free = [atoms for atoms in train if atoms.info.get("config_type") == "IsolatedAtom"]
    assert sorted(atoms.get_chemical_formula() for atoms in free) == ["C", "H", "O"]
    assert not (tmp_path / "out" / "atoms.xyz").exists()
    for atoms in train:
        assert atoms.calc is None
        assert {"REF_energy"} <= atoms.info.keys()
        assert atoms.arrays["REF_forces"].shape == (len(atoms), 3)
        assert atoms.info["arm"] != "random"
    assert all("config_type" not in atoms.info for atoms in train if len(atoms) > 1)


def terms_in(path: Path, name: str) -> str:
    """The terms that a file holds."""
    if name == "extxyz":
        return str(ase.io.read(path, 0).info["data_terms"])
    if name == "ase-db":
        return str(ase.db.connect(path).metadata["data_terms"])
    if name == "spice":
        with h5py.File(path) as file:
            return str(file.attrs["data_terms"])
    if name == "omol25":
        import zlib

        with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as environment, environment.begin() as begun:
            return str(json.loads(zlib.decompress(begun.get(b"metadata")))["data_terms"])
    if name == "deepmd":
        return (path / "data_terms.txt").read_text().strip()
    if name == "rmd17":
        return str(np.load(path)["data_terms"])
    if name == "parquet":
        return str(pyarrow.parquet.read_schema(path).metadata[b"data_terms"].decode())
    return str(json.loads(path.read_text().splitlines()[0])["extras"]["data_terms"])


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "ani1x"])
def test_terms_go_along_and_disturb_no_import(
    name: str, campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A `cation` in a citation states no charge."""
    suffix = {"extxyz": ".xyz", "ase-db": ".db", "qcschema": ".jsonl", "parquet": ".parquet"}.get(name, "")
    output = tmp_path / f"out{suffix}"
    exported(capsys, campaign, output, "--format", name, "--arm", "initial")
    n = len(open_dataset(campaign).select("initial"))
    assert terms_in(output, name) == f"{n} frames of {TERMS}"
    copy = tmp_path / "copy"
    shutil.copytree(campaign, copy)
    code = main(["data", "import", str(copy), str(output), "--format", name, "--level", "campaign", "--trust-units"])
    said = capsys.readouterr()
    assert (code, said.err) == (0, "")
    assert f"{n} known already" in said.out or name in ("spice", "qcschema")
    assert "data_terms" not in said.out.partition("not read")[2]


def test_terms_of_imported_frames_are_their_own(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = ase.io.read(_own(capsys, campaign, tmp_path), ":")
    for atoms in frames:
        atoms.positions[0, 0] += 0.01
        del atoms.info["frame_id"], atoms.info["arm"]
    ase.io.write(tmp_path / "theirs.xyz", frames)
    copy = tmp_path / "copy"
    shutil.copytree(campaign, copy)
    argv = ["data", "import", str(copy), str(tmp_path / "theirs.xyz"), "--level", "campaign", "--trust-units"]
    assert main([*argv, "--licence", "CC0-1.0", "--citation", "B. Else (2020)"]) == 0
    capsys.readouterr()
    assert main(["data", "card", str(copy), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert [(t["of"], t["licence"]) for t in card["terms"]] == [
        ("campaign toy", "CC-BY-4.0"), ("file theirs.xyz", "CC0-1.0")
    ]  # fmt: skip
    assert sum(t["frames"] for t in card["terms"]) == card["frames"] + card["free_atoms"]
    exported(capsys, copy, tmp_path / "both.xyz")
    said = terms_in(tmp_path / "both.xyz", "extxyz")
    assert "B. Else (2020)" in said
    assert "A. Nobody" in said
    exported(capsys, copy, tmp_path / "only.xyz", "--arm", "imported")
    assert "A. Nobody" not in terms_in(tmp_path / "only.xyz", "extxyz")


def _own(capsys: pytest.CaptureFixture[str], campaign: Path, folder: Path) -> Path:
    exported(capsys, campaign, folder / "own.xyz", "--arm", "initial")
    return folder / "own.xyz"


def test_rows_of_ase_are_selected_by_what_they_are(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = open_dataset(campaign)
    for suffix in (".db", ".json"):
        exported(capsys, campaign, tmp_path / f"out{suffix}")
        database = ase.db.connect(tmp_path / f"out{suffix}")
        assert database.count(arm="random") == len(data.select("random"))
        assert database.count("system=ethanol,multiplicity=1") == len(data.select("initial", "uncertain", "random"))
        row = next(database.select(arm="atom"))
        assert row.key_value_pairs["frame_id"].startswith("id-")
        assert row.total_charge == 0


def test_ani1x_refuses_other_levels(campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "export", campaign, tmp_path / "out.h5", "--format", "ani1x")
    assert "holds labels of wb97x/6-31g* only" in said
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("H2")
        group["atomic_numbers"], group["coordinates"] = [1, 1], [[[0.0, 0, 0], [0, 0, 0.75]]]
        group["wb97x_dz.energy"], group["wb97x_dz.forces"] = [-1.16], np.zeros((1, 2, 3))
    before = sorted(path.name for path in campaign.rglob("*"))
    for level in ("campaign", "pbe/def2-svp"):
        said = refused(capsys, "import", campaign, tmp_path / "a.h5", "--level", level, "--trust-units")
        assert "after which the arrays of ani1x are named" in said
    assert sorted(path.name for path in campaign.rglob("*")) == before


def test_differences(campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = open_dataset(campaign)
    assert main(["data", "diff", f"{campaign}@5", str(campaign), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["versions"], found["removed"], found["changed"]) == ([5, newest.version], [], [])
    assert len(found["added"]) == len(newest) - len(open_dataset(campaign, 5))
    copy = tmp_path / "copy"
    shutil.copytree(campaign, copy)
    gone = newest.select("initial").snapshot.frame_ids[0]
    Campaign.open(copy).retract("wrong", frames=[gone])
    assert main(["data", "diff", str(campaign), str(copy), "--list"]) == 0
    assert f"0 added, 1 removed, 0 with another label\n- {gone}\n" in capsys.readouterr().out
    assert "is no dataset version (got 'x')" in refused(capsys, "diff", f"{campaign}@x", campaign)
    assert "no such dataset version" in refused(capsys, "diff", f"{campaign}@100000", campaign)


def test_refusals_write_nothing(campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv, words in (
        (["out", "--split", "--arm", "random"], "--arm: goes without --split"),
        (["out", "--split", "--validation", "1.5"], "--validation: must be a share"),
        (["out.xyz", "--validation", "0.1"], "--validation: goes with --split"),
        (["out.db", "--keys", "mace"], "--keys: names labels of extxyz"),
        (["out", "--split", "--format", "ani1x"], "holds labels of wb97x/6-31g* only"),
    ):
        output, *options = argv
        assert words in refused(capsys, "export", campaign, tmp_path / output, *options)
    assert list(tmp_path.iterdir()) == []
    assert main(["data", "card", str(campaign), "--output", str(tmp_path / "card.md")]) == 0
    assert "# Data set toy" in (tmp_path / "card.md").read_text()
