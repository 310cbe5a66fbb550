"""Calculators of ASE and ANI-1x keep the labelers' contract; a campaign file names neither code, files nor commands."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule
from pydantic import ValidationError

from alsys.config.ase_calculators import CALCULATORS
from alsys.config.engines import ANILabeling, ASELabeling
from alsys.errors import EnvironmentProblem, FailureKind, InputError
from alsys.frames import Frame
from alsys.labeling.atoms import free_atom_frames
from alsys.labeling.base import Labeler
from alsys.labeling.checks import fused_atoms
from alsys.labeling.engine import Computed, Failed, label_of
from alsys.labeling.factory import build_labeler
from alsys.labels import Label, LabelFailure
from alsys.potentials.ase_single_points import make_calculator
from alsys.testing.labelers import LabelerContract
from alsys.units import HARTREE

needs_torchani = pytest.mark.skipif(importlib.util.find_spec("torchani") is None, reason="torchani is not installed")


def distorted(name: str) -> Frame:
    atoms = molecule(name)
    return Frame.molecule(atoms.numbers, atoms.positions + np.random.default_rng(3).normal(0, 0.05, (len(atoms), 3)))


def copper() -> Frame:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.rattle(0.05, seed=1)
    cell = atoms.cell.array + np.random.default_rng(2).normal(0, 0.05, (3, 3))
    return Frame(atoms.numbers, atoms.positions, cell, np.ones(3, dtype=np.bool_))


def ase_labeler(calculator: str, **parameters: Any) -> Labeler:
    return build_labeler(ASELabeling(kind="ase", calculator=calculator, parameters=parameters))


class TestEMT(LabelerContract):
    frame = copper()
    cell = copper()
    has_spin = False

    def make(self) -> Labeler:
        return ase_labeler("emt")

    def make_other(self) -> Labeler:
        return ase_labeler("emt", asap_cutoff=True)


class TestTBLiteOfASE(LabelerContract):
    frame = distorted("H2O")

    def make(self) -> Labeler:
        return ase_labeler("tblite", accuracy=0.1)

    def make_other(self) -> Labeler:
        return ase_labeler("tblite", method="GFN1-xTB")


@needs_torchani
class TestANI(LabelerContract):
    frame = distorted("CH3OH")

    def make(self) -> Labeler:
        return build_labeler(ANILabeling(kind="ani"))

    def make_other(self) -> Labeler:
        return ase_labeler("emt")


def test_charge_and_spin_reach_a_calculator_of_ase() -> None:
    water = distorted("H2O")
    cation = Frame.molecule(water.numbers, water.positions, charge=1, multiplicity=2)
    labeler = ase_labeler("tblite")
    neutral, ion = labeler.label(water), labeler.label(cation)
    labeler.close()
    assert isinstance(neutral, Label)
    assert isinstance(ion, Label)
    assert 5.0 < ion.energy - neutral.energy < 20.0  # water's ionisation energy is 12.6 eV; GFN2 is near it


@pytest.mark.parametrize(
    ("calculator", "parameters", "message"),
    [
        ("vasp", {}, "no such calculator"),
        ("os:system", {}, "no such calculator"),
        ("emt", {"directory": "/"}, "parameters.directory is not allowed for emt"),
        ("lj", {"sigma": "3"}, "parameters.sigma must be a number"),
        ("lj", {"sigma": True}, "parameters.sigma must be a number"),
        ("orca", {}, "parameters.orcasimpleinput is required"),
        ("orca", {"orcasimpleinput": 'B3LYP\n%moinp "x"'}, "one line of letters"),
        ("orca", {"orcasimpleinput": "B3LYP ExtOpt"}, "one line of letters"),
        ("orca", {"orcasimpleinput": "B3LYP", "orcablocks": "%pal end"}, "orcablocks is not allowed"),
        ("orca", {"orcasimpleinput": "B3LYP", "profile": "x"}, "profile is not allowed"),
        ("nwchem", {"theory": "shell", "basis": "6-31g"}, "one of scf, dft, mp2"),
        ("nwchem", {"theory": "dft", "basis": "../../x"}, "one word"),
        ("dftb", {"command": "sh"}, "command is not allowed"),
        ("mopac", {"method": "EXTERNAL=x"}, "one of PM7"),
    ],
)
def test_a_campaign_file_names_no_code_files_or_commands(
    calculator: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        ASELabeling(kind="ase", calculator=calculator, parameters=parameters)
    assert message in str(caught.value)


def test_every_calculator_that_can_be_imported_here_takes_its_parameters(tmp_path: Any) -> None:
    atoms = molecule("H2O")
    made = make_calculator("nwchem", {"theory": "dft", "basis": "6-31g*", "charge": 1, "dft.mult": 2}, str(tmp_path))
    made.write_input(atoms, ["energy", "forces"], [])
    text = next(tmp_path.glob("*.nwi")).read_text()
    assert "charge 1" in text
    assert "mult 2" in text
    made = make_calculator("gamess_us", {"contrl.icharg": 1, "contrl.mult": 2}, str(tmp_path))
    made.write_input(atoms, ["energy", "forces"], [])
    text = next(tmp_path.glob("*.inp")).read_text()
    assert "ICHARG=1" in text
    assert "MULT=2" in text
    assert all(set(calculator.required) <= set(calculator.parameters) for calculator in CALCULATORS.values())


def test_elements_charges_and_missing_programs_are_refused_in_one_line() -> None:
    emt = ase_labeler("emt")
    with pytest.raises(InputError, match=r"emt does not know this element"):
        emt.check(distorted("SiH4"))
    with pytest.raises(InputError, match=r"charge: emt treats neutral frames only"):
        emt.check(Frame.molecule([6], np.zeros((1, 3)), charge=1))
    dftb = ase_labeler("dftb")
    with pytest.raises(InputError, match=r"multiplicity"):
        dftb.check(Frame.molecule([8, 8], [[0, 0, 0], [0, 0, 1.2]], multiplicity=3))
    with pytest.raises(EnvironmentProblem, match=r"dftb cannot run here: no program"):
        dftb.check(distorted("H2O"))


def test_a_calculation_that_ase_refuses_is_a_value() -> None:
    labeler = ase_labeler("emt")
    outcome = labeler.label(distorted("SiH4"))
    labeler.close()
    assert isinstance(outcome, LabelFailure)
    assert outcome.kind is FailureKind.UNSUPPORTED


@needs_torchani
@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (distorted("SH2"), r"H, C, N and O only \(got 'S'\)"),
        (Frame.molecule([8, 8], [[0, 0, 0], [0, 0, 1.2]], multiplicity=3), "singlets only"),
        (Frame.molecule([8, 1], [[0, 0, 0], [0, 0, 1.0]], charge=-1), "neutral molecules only"),
        (Frame([8, 1, 1], distorted("H2O").positions, 9 * np.eye(3), [True] * 3), "for molecules"),  # type: ignore[arg-type]
    ],
)
def test_ani_refuses_what_it_was_not_trained_on(frame: Frame, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_labeler(ANILabeling(kind="ani")).check(frame)


@needs_torchani
def test_ani_labels_of_free_atoms_are_its_zero_of_energy() -> None:
    labeler = build_labeler(ANILabeling(kind="ani"))
    oxygen, hydrogen = free_atom_frames([8, 1])
    labeler.check(oxygen)
    labels = [labeler.label(frame) for frame in (oxygen, hydrogen, distorted("H2O"))]
    labeler.close()
    energies = [label.energy for label in labels if isinstance(label, Label)]
    assert abs(energies[0] + 2 * energies[1] - energies[2]) < 2.0  # a linear fit to molecules, not real atoms (10 eV)
    assert energies[1] == pytest.approx(-0.600952980000 * HARTREE, abs=0.01)


class Wrong:
    """An engine with a bug."""

    def __init__(self, outcome: Computed | Failed) -> None:
        self._outcome = outcome

    def compute(self, frame: Frame) -> Computed | Failed:
        return self._outcome


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Computed(1.0, np.zeros((2, 3))), FailureKind.INTERNAL),
        (Computed(1.0, np.zeros((3, 3)), np.zeros(6)), FailureKind.INTERNAL),
        (Computed(float("nan"), np.zeros((3, 3))), FailureKind.UNPHYSICAL_FRAME),
        (Computed(1.0, np.full((3, 3), np.inf)), FailureKind.UNPHYSICAL_FRAME),
        (Computed(1.0, np.zeros((3, 3)), np.full((3, 3), np.nan)), FailureKind.UNPHYSICAL_FRAME),
        (Failed(FailureKind.SCF_NOT_CONVERGED, "two\nlines"), FailureKind.SCF_NOT_CONVERGED),
    ],
)
def test_a_wrong_result_of_an_engine_never_becomes_a_label(outcome: Computed | Failed, kind: FailureKind) -> None:
    result = label_of(Wrong(outcome), distorted("H2O"), "00" * 16)  # type: ignore[arg-type]
    assert isinstance(result, LabelFailure)
    assert result.kind is kind
    assert "\n" not in result.message


def test_atoms_on_top_of_images_are_seen() -> None:
    positions = np.array([[0.05, 1.0, 1.0], [3.95, 1.0, 1.0]])
    box = Frame(np.array([8, 8], dtype=np.int32), positions, 4 * np.eye(3), np.ones(3, dtype=np.bool_))
    assert fused_atoms(Frame.molecule(box.numbers, positions)) is None
    assert "0.100 Angstrom apart" in str(fused_atoms(box))
