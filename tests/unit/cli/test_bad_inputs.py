"""Bad input: one line with file, field, value and remedy, exit code 2, nothing started."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from alsys.campaign.checks import make_plan
from alsys.campaign.folder import CampaignFolder
from alsys.cli import main
from alsys.config import parse_config
from alsys.config.load import config_hash
from alsys.errors import InputError
from alsys.events import CampaignOpened
from alsys.store.zarr import open_writer

BASE: dict[str, Any] = {
    "name": "bad",
    "systems": [{"name": "m", "molecule": "CH3OH"}],
    "labeling": {"kind": "pyscf", "xc": "pbe", "basis": "def2-svp"},
    "model": {"kind": "pair"},
}
XTB = {"labeling": {"kind": "xtb"}, "model": {"kind": "nequip"}}


def water(count: int, **size: float) -> dict[str, Any]:
    return {"name": "m", "box": {"components": [{"molecule": "H2O", "count": count}], **size}}


XYZ = "{n}\n\n{rows}\n"


def write(folder: Path, config: dict[str, Any]) -> Path:
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def refused(folder: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str], *words: str) -> str:
    path = write(folder, {"directory": str(folder / "campaign"), **config})
    assert main(["run", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert str(path) in error
    for word in words:
        assert word in error, f"{word!r} is not in {error!r}"
    return error


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labelling": {}}, ["labelling", "unknown key", "did you mean `labeling`"]),
        ({"labeling": {"kind": "pyscf", "xc": "pbee", "basis": "def2-svp"}}, ["labeling.xc", "pbee", "`pbe`"]),
        ({"labeling": {"kind": "pyscf", "xc": "pbe", "basis": "def2-spv"}}, ["labeling.basis", "def2-spv", "def2-svp"]),
        ({"labeling": {"kind": "pyscff", "xc": "pbe"}}, ["labeling.kind", "pyscff", "xtb"]),
        ({"exploration": {"temperatures": [-300]}}, ["exploration.temperatures[0]", "-300", "greater than 0"]),
        ({"systems": [{"name": "m", "molecule": "CH3OH", "multiplicity": 2}]}, ["multiplicity", "18 electrons", "odd"]),
        ({"systems": [{"name": "m", "molecule": "CH3OHH"}]}, ["systems[0].molecule", "CH3OHH", "did you mean"]),
        ({"systems": [{"name": "m", "smiles": "C(("}]}, ["systems[0].smiles", "C((", "not a valid SMILES"]),
        ({"systems": [{"name": "m", "smiles": "[NH4+]"}]}, ["systems[0].smiles", "set charge: 1"]),
        ({"systems": [{"name": "m", "file": "none.xyz"}]}, ["systems[0].file", "no such file"]),
        ({"systems": [water(8, edge=9.0)]}, ["systems[0].pbc", "PySCF labels are for molecules"]),
        ({"systems": [water(8, edge=9.0)], **XTB, "model": {"kind": "pair"}}, ["model.kind", "periodic", "nequip"]),
        ({"systems": [water(8, edge=9.0)], **XTB}, ["initial.method", "m, which holds 8 molecules", "xtb-md"]),
        ({"systems": [water(8, edge=3.0)], **XTB}, ["systems[0].box", "edge 3.00", "larger edge"]),
        ({"systems": [water(8, edge=9.0, density=1.0)], **XTB}, ["systems[0].box", "exactly one of edge, density"]),
        ({"systems": [{**water(8, edge=9.0), "charge": 1}], **XTB}, ["systems[0].charge", "got 1", "set charge: 0"]),
        ({"systems": [{**water(8, edge=9.0), "multiplicity": 2}], **XTB}, ["multiplicity", "80 electrons", "odd"]),
        ({"systems": [{"name": "m", "smiles": "CO", "conformers": 0}]}, ["systems[0].conformers", "got 0"]),
        ({"systems": [{"name": "m", "bulk": {"formula": "NaCl"}}], **XTB}, ["systems[0].bulk", "NaCl", "lattice"]),
        ({"model": {"kind": "nequip", "r_max": "far"}}, ["model.r_max", "far"]),
        ({"labeling": {"xc": "pbe"}}, ["labeling.kind", "is required"]),
        ({"tracking": {"uri": "nowhere"}}, ["tracking.uri", "nowhere", "sqlite:///mlflow.db"]),
        ({"name": "no spaces"}, ["name", "no spaces"]),
    ],
)  # fmt: skip
def test_config_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], words: list[str]
) -> None:
    refused(tmp_path, {**BASE, **change}, capsys, *words)
    assert not (tmp_path / "campaign").exists()


def test_a_missing_package_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "allegro", None)
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({**BASE, "directory": str(tmp_path / "campaign"), "model": {"kind": "allegro"}}))
    assert main(["run", str(path)]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "alsys[allegro]" in error
    assert not (tmp_path / "campaign").exists()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["H 0 0 0", "Xx 0 0 1"], ["systems[0].file", "element"]),
        (["H 0 0 nan", "H 0 0 1"], ["systems[0].file", "not a number"]),
        (["H 0 0 0", "H 0 0 0.05"], ["on top of each other", "0.050 Angstrom"]),
        (["H 0 0"], ["systems[0].file", "cannot be read"]),
    ],
)
def test_structure_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[str], words: list[str]) -> None:
    (tmp_path / "bad.xyz").write_text(XYZ.format(n=len(rows), rows="\n".join(rows)))
    refused(tmp_path, {**BASE, "systems": [{"name": "m", "file": "bad.xyz"}]}, capsys, *words)
    assert not (tmp_path / "campaign").exists()


def test_directory_of_another_campaign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = CampaignFolder(tmp_path / "campaign")
    other = {**BASE, "labeling": {"kind": "pyscf", "xc": "b3lyp", "basis": "def2-svp"}}
    directory.write_record(parse_config(other))
    before = directory.record.read_text()
    refused(tmp_path, BASE, capsys, "labeling.xc", "b3lyp", "another name or directory")
    assert directory.record.read_text() == before


def test_operational_fields_may_change(tmp_path: Path) -> None:
    directory = CampaignFolder(tmp_path / "campaign")
    directory.write_record(parse_config(BASE))
    directory.check_same(parse_config({**BASE, "stop": {"labels": 7}}), "x.yaml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"systems": [*BASE["systems"], {"name": "n", "molecule": "H2O"}]},
            ["systems: ", "holds a campaign with 1 of them", "got 2"],
        ),
        ({"labeling": {"kind": "xtb"}}, ["labeling.kind", "'pyscf'", "got 'xtb'"]),
        (
            {"labeling": {**BASE["labeling"], "baseline": {"kind": "gfn1-xtb"}}},
            ["labeling.baseline.kind", "None", "got 'gfn1-xtb'"],
        ),
    ],
)
def test_what_changed_is_named_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], words: list[str]
) -> None:
    CampaignFolder(tmp_path / "campaign").write_record(parse_config(BASE))
    refused(tmp_path, {**BASE, **change}, capsys, *words)


def test_without_its_record_a_campaign_still_knows_its_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = CampaignFolder(tmp_path / "campaign")
    mine = {**BASE, "labeling": {"kind": "xtb"}, "directory": str(directory.path)}
    writer = open_writer(directory.store)
    digest = config_hash(parse_config(mine))
    writer.stage(events=[CampaignOpened(t=1.0, epoch=1, config_hash=digest, version="test")])
    writer.commit()
    writer.close()
    other = {"kind": "xtb", "method": "GFN1-xTB"}
    refused(
        tmp_path, {**mine, "labeling": other}, capsys, "directory", "another configuration", "restore campaign.json"
    )
    assert not directory.record.exists()
    make_plan(parse_config(mine), str(write(tmp_path, mine)))
    directory.record.write_text('{"config": ')
    assert main(["run", str(write(tmp_path, mine))]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "campaign.json: cannot be read" in error
    assert "restore it, or remove it and run the file that the campaign was made with" in error


def test_store_that_another_process_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = open_writer(tmp_path / "campaign" / "store.zarr")
    path = write(tmp_path, {**BASE, "labeling": {"kind": "xtb"}, "directory": str(tmp_path / "campaign")})
    assert main(["run", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "this process is writing" in error
    writer.close()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [1", "a bracket is not closed"),
        ("- 1", "mapping"),
        ("", "mapping"),
        ("name: x", "is required"),
        ("stop: {labels: 100}\nname: x\nstop: {wall_s: 5}", "`stop` is given twice"),
        ("name: x\nseed: 2026-13-45", "month must be in 1..12"),
        ("name: x\nseed: " + "9" * 5000, "cannot be read"),
        ("name: " + "[" * 3000, "cannot be read"),
    ],
)
def test_files_that_are_no_campaign(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, words: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(content)
    assert main(["run", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert line.count(words) == (3 if words == "is required" else 1)
    assert main(["run", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err


def test_overrides_are_checked_like_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, BASE)
    for override, word in (
        ("stop.labels=-1", "stop.labels"), ("stop.label=5", "did you mean"), ("nonsense", "--set"),
        ("seed=2026-13-45", "seed: the value is not YAML"), ("stop.labels=true", "stop.labels: must not be true"),
        ("training.resources={x: -1}", "training.resources.x"),
    ):  # fmt: skip
        assert main(["run", str(path), "--set", override]) == 2
        error = capsys.readouterr().err
        assert word in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("command", [["status"], ["stop"], ["report"], ["data", "verify"], ["data", "info"]])
def test_folders_that_are_no_campaign(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert main([*command, str(tmp_path)]) == 2
    assert "is not a campaign directory" in capsys.readouterr().err


def test_what_the_file_system_refuses_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "afile").write_text("")
    path = write(tmp_path, {**BASE, "labeling": {"kind": "xtb"}, "directory": str(tmp_path / "afile" / "campaign")})
    assert main(["run", str(path)]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path / "afile") in error
    assert "Not a directory" in error
    with pytest.raises(NotADirectoryError):
        main(["run", str(path), "--debug"])


def test_a_switch_is_no_number_and_a_number_no_switch() -> None:
    assert parse_config({**BASE, "promotion": {"examine": False}}).promotion.examine is False
    assert parse_config({**XTB, **{k: BASE[k] for k in ("name", "systems")}, "training": {"compile": True}})
    for section, name in (("stop", "labels"), ("training", "learning_rate"), ("model", "members")):
        with pytest.raises(InputError, match=rf"{section}\.{name}: must not be true"):
            parse_config({**BASE, section: {**BASE.get(section, {}), name: True}})


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["data", "import", "a", "b", "--charge", "1.5"], "--charge: must be a whole number (got '1.5')"),
        (["status", "a", "--watch", "soon"], "--watch: must be a number (got 'soon')"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["run"], "the following arguments are required: config"),
        (["data"], "required: COMMAND"),
        (["run", "a", "--wrong"], "unrecognized arguments: --wrong"),
    ],
)
def test_commands_that_cannot_be_read_are_one_line(
    capsys: pytest.CaptureFixture[str], command: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("alsys: ")
    assert error.count("\n") == 1
    assert says in error


def test_a_structure_whose_own_label_fails_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """xTB counts no f electrons, so it has an even number where the multiplicity is even."""
    rows = ["4", "", "Ce 0 0 0", "Cl 2.6 0 0", "Cl -1.3 2.2516 0", "Cl -1.3 -2.2516 0"]
    (tmp_path / "salt.xyz").write_text("\n".join(rows) + "\n")
    salt = {"name": "salt", "file": "salt.xyz", "check": False, "multiplicity": 2}
    systems = [{"name": "water", "smiles": "O"}, salt]
    path = write(tmp_path, {**BASE, "systems": systems, "labeling": {"kind": "xtb"}})
    assert main(["run", str(path), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in (str(path), "systems[1]: salt: ", "cannot be labelled", "multiplicity 2", "systems[].check"):
        assert word in error
