"""NequIP packages come out equal, on trust only, and what is no NequIP model is refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ase.build import molecule

import alsys
from alsys.cli import main
from alsys.errors import InputError
from alsys.interop.nequip_package import read_package
from alsys.potentials.base import FrameBatch
from alsys.potentials.bundle import read_bundle
from alsys.potentials.nequip import build_model, input_of, type_lookup
from alsys.potentials.tracing import evaluating

SPEC: dict[str, Any] = {
    "elements": ["O", "H", "C"], "r_max": 4.0, "num_layers": 2, "l_max": 2, "num_features": [8, 6, 4], "parity": True,
    "dtype": "float32", "avg_num_neighbors": 5.3, "num_bessels": 7, "polynomial_cutoff_p": 5, "radial_mlp_depth": 2,
    "radial_mlp_width": 16, "type_embed_num_features": 5, "cutoffs": {"O-H": 3.0},
}  # fmt: skip


def package(path: Path, model: torch.nn.Module, elements: list[str], loader: Any = None) -> Path:
    """As `nequip-package build` writes one (nequip 0.19, package version 2)."""
    from nequip.scripts._package_utils import _EXTERNAL_MODULES, _INTERNAL_MODULES, _MOCK_MODULES

    metadata = {"package_version_id": 2, "available_models": ["eager"], "atom_types": dict(enumerate(elements))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.package.PackageExporter(path, importer=(torch.package.importer.sys_importer,)) as exporter:
            exporter.mock([f"{name}.**" for name in _MOCK_MODULES])
            exporter.extern([f"{name}.**" for name in (*_EXTERNAL_MODULES, "pathlib")])
            exporter.intern([f"{name}.**" for name in _INTERNAL_MODULES])
            exporter.save_text("model", "package_metadata.txt", yaml.dump(metadata))
            exporter.save_pickle("model", "eager_model.pkl", model if loader is None else loader)
    return path


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    built = build_model(SPEC, seed=3)
    state = built.state_dict()
    state["model.func.per_type_energy_scale_shift.shifts"].copy_(torch.tensor([[-2041.0], [-13.5], [-1030.0]]))
    state["model.func.per_type_energy_scale_shift.scales"].fill_(1.7)
    return built.eval()


@pytest.fixture(scope="module")
def file(model: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(
        tmp_path_factory.mktemp("p") / "m.nequip.zip", torch.nn.ModuleDict({"sole_model": model}), SPEC["elements"]
    )


def test_a_package_becomes_a_bundle_with_its_energies_and_forces(
    model: torch.nn.Module, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["models", "import", str(file), str(tmp_path / "bundle"), "--trust-code", "--members", "2"]
    assert main(command) == 0
    assert "equal to the package" in capsys.readouterr().out
    state = read_bundle(tmp_path / "bundle")
    assert state.spec == SPEC
    assert state.n_members == 2
    atoms = molecule("CH3CH2OH")
    atoms.calc = alsys.load_calculator(tmp_path / "bundle")
    batch = FrameBatch.of([alsys.frames.Frame.molecule(atoms.numbers, atoms.positions)])
    with evaluating():
        out = model(input_of(batch, type_lookup(SPEC["elements"]), 4.0))
    assert atoms.get_potential_energy() == pytest.approx(float(out["total_energy"].detach()), abs=1e-5)
    np.testing.assert_allclose(atoms.get_forces(), out["forces"].detach().numpy(), atol=1e-5)
    assert json.loads((tmp_path / "bundle" / "card.json").read_text())["imported"]["from"] == "m.nequip.zip"


class Marker:
    """Writes a file when it is loaded, as code in a package can."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.write_text, (self.path, "ran"))


def test_nothing_of_a_package_runs_without_trust(
    model: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "marker"
    path = package(tmp_path / "bad.nequip.zip", model, SPEC["elements"], Marker(marker))
    assert main(["models", "import", str(path), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "executes its author's code when it is opened" in error
    assert "--trust-code" in error
    assert error.count("\n") == 1
    assert not marker.exists()
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="cannot be converted"):
        read_package(path, is_trusted=True)
    assert marker.exists()  # trust is trust: the sandbox is against accidents


def test_what_is_no_nequip_model_is_refused(model: torch.nn.Module, tmp_path: Path) -> None:
    other = package(tmp_path / "linear.nequip.zip", torch.nn.Linear(2, 2), ["H"])
    with pytest.raises(InputError, match="it is no NequIPGNNModel"):
        read_package(other, is_trusted=True)
    (tmp_path / "text.nequip.zip").write_text("no archive")
    with pytest.raises(InputError, match="is no NequIP package"):
        read_package(tmp_path / "text.nequip.zip", is_trusted=True)
    with pytest.raises(InputError, match="is not a file that ends in"):
        read_package(tmp_path / "model.zip", is_trusted=True)
    with pytest.raises(InputError, match="has types that are no elements"):
        read_package(package(tmp_path / "t.nequip.zip", torch.nn.Linear(2, 2), ["water"]), is_trusted=True)


def test_a_model_that_does_not_come_out_equal_is_refused(tmp_path: Path) -> None:
    changed = build_model({**SPEC, "num_layers": 1}).eval()
    changed.get_submodule("model.func.bessel_encode").cutoff.p = 9.5  # what no field of a specification says
    path = package(tmp_path / "c.nequip.zip", changed, SPEC["elements"])
    with pytest.raises(InputError, match="comes out different"):
        read_package(path, is_trusted=True)
