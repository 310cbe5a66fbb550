"""Presets and settings: what a level is, and what is refused before anything is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config import parse_config
from alsys.config.labeling import PySCFLabeling
from alsys.config.presets import PRESETS
from alsys.errors import InputError
from alsys.frames import Frame
from alsys.labeling.correlated import needed_mb
from alsys.labeling.factory import check_labeling
from alsys.labeling.levels import check_level, core_potentials, level_of

WATER = Frame.molecule(molecule("H2O").numbers, molecule("H2O").positions)
PBE: dict[str, Any] = {"xc": "pbe", "basis": "def2-svp"}
HF: dict[str, Any] = {"method": "hf", "basis": "def2-svp"}
MP2: dict[str, Any] = {"method": "mp2", "basis": "def2-svp"}


def config(**fields: Any) -> PySCFLabeling:
    return PySCFLabeling(kind="pyscf", **fields)


def campaign(labeling: dict[str, Any]) -> Any:
    system = {"name": "m", "smiles": "CO"}
    return parse_config(
        {"name": "c", "systems": [system], "model": {"kind": "pair"}, "labeling": {"kind": "pyscf", **labeling}}
    )


def refusal(**fields: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        check_labeling(config(**fields), {"m": WATER})
    assert "\n" not in str(caught.value)
    return caught.value


# --- identity


def test_labels_of_older_campaigns_keep_their_level() -> None:
    """Digests of version 0.1; a change here makes strangers of all labels that users have."""
    assert level_of(config(**PBE)).level_id == "acbe8eb8ae8a23520d76470bf4e35094"
    assert (
        level_of(config(xc="B3LYP", basis="6-31G*", dispersion="d3bj", grid_level=3)).level_id
        == "11378127f81adc0843014ed8fb3d46a7"
    )


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_settings_spelt_out_and_survives_a_round_trip(name: str) -> None:
    labeling = campaign({"preset": name}).labeling
    assert level_of(labeling) == level_of(config(**PRESETS[name]))
    assert campaign(labeling.model_dump(mode="json")).labeling == labeling
    check_labeling(labeling, {"m": WATER})


def test_presets_are_different_levels() -> None:
    assert len({level_of(config(preset=name)).level_id for name in PRESETS}) == len(PRESETS)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "hf", "xc": None}, {"auxbasis": "def2-svp-jkfit"}, {"level_shift": 0.1}, {"stability": "never"},
        {"solvent_model": "cpcm", "solvent": "water"}, {"solvent_model": "cpcm", "dielectric": 10.0},
        {"solvent_model": "smd", "solvent": "water"}, {"reference": "unrestricted"},
    ],
)  # fmt: skip
def test_what_decides_the_value_decides_the_level(change: dict[str, Any]) -> None:
    assert level_of(config(**{**PBE, **change})) != level_of(config(**PBE))


def test_grids_belong_to_functionals_alone() -> None:
    assert level_of(config(**HF, grid_level=5)) == level_of(config(**HF))
    coarse, fine = (config(xc="wb97m-v", basis="def2-svp", nlc_grid_level=level) for level in (1, 3))
    assert level_of(coarse) != level_of(fine)


# --- refused when the file is read


@pytest.mark.parametrize(
    ("labeling", "start"),
    [
        ({"preset": "wb97m-v"}, "labeling.preset: unknown preset, did you mean `wb97m-v-def2-tzvpd`?"),
        ({"preset": "gold"}, "labeling.preset: unknown preset, one of pbe-def2-svp, "),
        ({"preset": "pbe-def2-svp", "basis": "def2-tzvp"}, "labeling.basis: contradicts the preset `pbe-def2-svp`"),
        ({"preset": "pbe-def2-svp", "dispersion": "d4"}, "labeling.dispersion: contradicts the preset"),
        ({"preset": "mp2-def2-tzvp", "frozen_core": False}, "labeling.frozen_core: contradicts the preset"),
        ({"preset": "mp2-def2-tzvp", "xc": "pbe"}, "labeling.xc: contradicts the preset"),
        ({"basis": "def2-svp"}, "labeling.xc: is required"),
        ({"xc": None, "basis": "def2-svp"}, "labeling.xc: is required"),
        ({"method": "mp3", "basis": "def2-svp"}, "labeling.method: should be 'dft', 'hf', 'mp2'"),
        ({**PBE, "dielectric": 0.5}, "labeling.dielectric: should be greater than 1"),
    ],
)
def test_a_contradiction_is_refused_when_the_file_is_read(labeling: dict[str, Any], start: str) -> None:
    with pytest.raises(InputError) as caught:
        campaign(labeling)
    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)


def test_a_preset_may_be_repeated_and_its_numerical_settings_changed() -> None:
    labeling = campaign({"preset": "pbe-def2-svp", "basis": "def2-SVP", "grid_level": 5}).labeling
    assert labeling.grid_level == 5
    assert level_of(labeling) == level_of(config(**PBE, grid_level=5))


def test_density_fitting_is_on_where_its_gradient_is_right() -> None:
    assert config(**PBE).density_fit
    assert config(**HF).density_fit
    assert not config(**MP2).density_fit


# --- refused at start


@pytest.mark.parametrize(
    "fields", [{"xc": "b97-d", "dispersion": "d3bj"}, {"xc": "svwn"}, {"xc": "b88,"}, {"xc": "lda,vwn"}]
)
def test_functionals_that_say_all_that_they_mean_are_taken(fields: dict[str, Any]) -> None:
    check_level(config(**fields, basis="def2-svp"), [1, 8])


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"xc": "wb97x-d", "basis": "def2-svp"}, "xc", "did you mean `wb97x-"),
        ({"xc": "wb97x-d3", "basis": "def2-svp"}, "xc", "`wb97x-d3bj`"),
        ({"xc": "b2plyp", "basis": "def2-svp"}, "xc", "unknown functional"),
        ({"xc": "pbe-d3", "basis": "def2-svp"}, "xc", "no dispersion correction `d3`"),
        ({"xc": "wb97x-2", "basis": "def2-svp"}, "xc", "a bare number counts as a functional"),
        ({"xc": "scanl", "basis": "def2-svp"}, "xc", "Laplacian"),
        ({"xc": "B97-D", "basis": "def2-svp"}, "xc", "set dispersion: d3bj beside it"),
        ({"xc": "b97-d3bj", "basis": "def2-svp"}, "xc", "set xc: b97-d and dispersion: d3bj"),
        ({"xc": "LDA", "basis": "def2-svp"}, "xc", "exchange without correlation"),
        ({"xc": "b88", "basis": "def2-svp"}, "xc", "`b88,` where that is meant"),
        ({"xc": "", "basis": "def2-svp"}, "xc", "not one functional"),
        ({"xc": "wb97x-3c", "basis": "def2-svp"}, "xc", "composite method"),
        ({"xc": "pbe", "basis": "gth-dzvp"}, "basis", "functions of the valence only for O"),
        ({"xc": "pbe", "basis": "ccecp-cc-pvdz"}, "basis", "functions of the valence only for O"),
        ({"xc": "pbe", "basis": "bfd-vdz"}, "basis", "functions of the valence only for O"),
        ({"xc": "b3lyp-d3bj", "basis": "def2-svp", "dispersion": "d3bj"}, "dispersion", "contains d3bj already"),
        ({"xc": "wb97m-d3bj", "basis": "def2-svp", "dispersion": "d4"}, "dispersion", "contains d3bj already"),
        ({"xc": "wb97m-v", "basis": "def2-svp", "dispersion": "d3bj"}, "dispersion", "contains VV10 already"),
        ({"xc": "m06-2x", "basis": "def2-svp", "dispersion": "d3bj"}, "dispersion", "is not to be had here"),
        ({**PBE, "nlc_grid_level": 2}, "nlc_grid_level", "belongs to VV10"),
        ({**PBE, "frozen_core": True}, "frozen_core", "belongs to mp2"),
        ({**HF, "frozen_core": True}, "frozen_core", "belongs to mp2"),
        ({**HF, "nlc_grid_level": 2}, "nlc_grid_level", "has no grid"),
        ({**PBE, "auxbasis": "def2-nothing"}, "auxbasis", "unknown basis"),
        ({**PBE, "auxbasis": "def2-svp-jkfit", "density_fit": False}, "auxbasis", "belongs to density fitting"),
        ({**MP2, "xc": "pbe"}, "xc", "`mp2` has no functional"),
        ({**MP2, "density_fit": True}, "density_fit", "no correct gradient of `mp2`"),
        ({**MP2, "method": "ccsd", "density_fit": True}, "density_fit", "no correct gradient of `ccsd`"),
        ({**MP2, "dispersion": "d3bj"}, "dispersion", "describes dispersion itself"),
        ({**MP2, "solvent_model": "cpcm", "solvent": "water"}, "solvent_model", "not to be had with `mp2`"),
        ({**PBE, "solvent": "water"}, "solvent", "needs a solvent_model"),
        ({**PBE, "dielectric": 5.0}, "dielectric", "needs a solvent_model"),
        ({**PBE, "solvent_model": "cpcm"}, "solvent_model", "exactly one of"),
        ({**PBE, "solvent_model": "cpcm", "solvent": "water", "dielectric": 5.0}, "solvent_model", "exactly one of"),
        ({**PBE, "solvent_model": "smd", "dielectric": 5.0}, "dielectric", "by name"),
        ({**PBE, "solvent_model": "smd", "solvent": "watre"}, "solvent", "did you mean `water`?"),
        ({"method": "ccsd(t)", "basis": "def2-tzvpp", "memory_mb": 300}, "memory_mb", "ccsd(t) with 59 basis"),
    ],
)  # fmt: skip
def test_what_pyscf_cannot_do_is_refused_at_start(fields: dict[str, Any], field: str, words: str) -> None:
    error = refusal(**fields)
    assert error.field == f"labeling.{field}"
    assert words in str(error)
    assert error.remedy or "exactly one" in error.message


def test_a_frozen_core_must_leave_something() -> None:
    ion = Frame.molecule([8, 1], [[0, 0, 0], [0, 0, 1]], charge=7)
    with pytest.raises(InputError, match="leaves no electron to correlate"):
        check_labeling(config(**MP2, frozen_core=True), {"ion": ion})


def test_an_open_shell_is_no_restricted_one() -> None:
    cation = Frame.molecule(WATER.numbers, WATER.positions, charge=1, multiplicity=2)
    with pytest.raises(InputError, match="a restricted reference needs a singlet"):
        check_labeling(config(**PBE, reference="restricted"), {"m": cation})


@pytest.mark.parametrize(
    "fields",
    [
        {**PBE, "solvent_model": "ddcosmo", "solvent": "Water"},
        {**PBE, "solvent_model": "ss(v)pe", "dielectric": 4.0},
        {**PBE, "auxbasis": "def2-svp-jkfit", "level_shift": 0.2, "stability": "always"},
        {"xc": "wb97x-d4", "basis": "def2-svp"},
        {"xc": "0.5*hf+0.5*pbe,pbe", "basis": "def2-svp"},
        {**HF, "dispersion": "d3bj"},
        {**MP2, "frozen_core": True},
        {"xc": "wb97m-v", "basis": "def2-svp", "nlc_grid_level": 1},
    ],
)
def test_what_pyscf_can_do_is_accepted(fields: dict[str, Any]) -> None:
    check_labeling(config(**fields), {"m": WATER})


def test_heavy_elements_get_the_core_potential_of_their_basis() -> None:
    """A valence basis without it would silently describe another element."""
    assert core_potentials("def2-svp", [1, 8, 26, 53]) == {"I": "def2-svp"}
    assert core_potentials("lanl2dz", [6, 26]) == {"Fe": "lanl2dz"}
    assert core_potentials("sto-3g", [26, 53]) == {}


def test_more_basis_functions_need_more_memory() -> None:
    sizes = [needed_mb(method, 100, 9, is_open=False) for method in ("mp2", "ccsd", "ccsd(t)")]
    assert sizes[0] < sizes[1] <= sizes[2]
    assert needed_mb("ccsd", 100, 9, is_open=True) > sizes[1]
    assert 10 < needed_mb("ccsd", 200, 9, is_open=False) / sizes[1] < 25
    assert np.isfinite(needed_mb("mp2", 5, 9, is_open=False))


@pytest.mark.parametrize("dispersion", ["d3bj", "d4"])
def test_dispersion_is_checked_in_silence(capsys: pytest.CaptureFixture[str], dispersion: str) -> None:
    """PySCF warned that no basis was found, of atoms that have one in every label."""
    check_level(config(**PBE, dispersion=dispersion), [1, 6, 8])
    assert capsys.readouterr() == ("", "")
