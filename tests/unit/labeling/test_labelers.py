"""Labelers keep the contract; PySCF and xTB refuse what they cannot treat and repeat published energies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config.labeling import AnalyticLabeling, PySCFLabeling, XTBLabeling
from alsys.errors import FailureKind, InputError
from alsys.frames import Frame, PointCharges
from alsys.labeling.analytic import AnalyticLabeler
from alsys.labeling.atoms import free_atom_frames, ground_multiplicity
from alsys.labeling.base import Labeler
from alsys.labeling.certify import certify, evenly_spaced
from alsys.labeling.factory import build_labeler, check_labeling
from alsys.labeling.pyscf import PySCFEngine, PySCFLabeler
from alsys.labeling.rescue import Rung
from alsys.labels import Label, LabelFailure
from alsys.testing.labelers import LabelerContract
from alsys.units import BOHR, HARTREE


def distorted(name: str) -> Frame:
    atoms = molecule(name)
    return Frame.molecule(atoms.numbers, atoms.positions + np.random.default_rng(3).normal(0, 0.05, (len(atoms), 3)))


def water_box() -> Frame:
    water = distorted("H2O")
    cell = np.array([[4.6, 0.3, 0.0], [0.0, 4.4, 0.2], [0.4, 0.0, 4.8]])
    return Frame(water.numbers, water.positions, cell, np.ones(3, dtype=np.bool_))


class TestAnalytic(LabelerContract):
    frame = distorted("CH3OH")

    def make(self) -> AnalyticLabeler:
        return AnalyticLabeler(AnalyticLabeling(kind="analytic"))

    has_spin = False

    def make_other(self) -> AnalyticLabeler:
        return AnalyticLabeler(AnalyticLabeling(kind="analytic", width=2.0))


class TestXTB(LabelerContract):
    frame = distorted("CH3OH")

    def make(self) -> Labeler:
        return build_labeler(XTBLabeling(kind="xtb"))

    cell = water_box()

    def make_other(self) -> Labeler:
        return build_labeler(XTBLabeling(kind="xtb", method="GFN1-xTB"))


@pytest.mark.dft
class TestPySCF(LabelerContract):
    frame = distorted("H2O")
    force_tolerance = 5e-3  # without grid response; grid level 4
    energy_tolerance = 1e-3

    def make(self) -> PySCFLabeler:
        return PySCFLabeler(PySCFLabeling(kind="pyscf", xc="pbe", basis="def2-svp"))

    def make_other(self) -> PySCFLabeler:
        return PySCFLabeler(PySCFLabeling(kind="pyscf", xc="pbe", basis="def2-tzvp"))


@pytest.mark.dft
def test_hydrogen_atom_has_the_energy_that_rmd17_was_made_with() -> None:
    labeler = PySCFLabeler(PySCFLabeling(kind="pyscf", xc="pbe", basis="def2-svp"))
    label = labeler.label(free_atom_frames([1])[0])
    labeler.close()
    assert isinstance(label, Label)
    assert label.energy == pytest.approx(-13.568422, abs=1e-3)  # ORCA, PBE/def2-SVP, isolated atoms of rMD17
    np.testing.assert_array_equal(label.forces, np.zeros((1, 3)))


@pytest.mark.dft
def test_scf_that_does_not_converge_climbs_the_ladder_and_ends_as_a_value() -> None:
    labeler = PySCFLabeler(PySCFLabeling(kind="pyscf", xc="pbe", basis="sto-3g", max_cycles=1, conv_tol=1e-12))
    outcome = labeler.label(distorted("H2O"))
    labeler.close()
    assert isinstance(outcome, LabelFailure)
    assert outcome.kind is FailureKind.SCF_NOT_CONVERGED
    assert outcome.cost.rescue_rung == Rung.EXHAUSTED


@pytest.mark.dft
def test_charge_and_spin_reach_the_calculation() -> None:
    labeler = PySCFLabeler(PySCFLabeling(kind="pyscf", xc="pbe", basis="sto-3g"))
    water = distorted("H2O")
    cation = Frame.molecule(water.numbers, water.positions, charge=1, multiplicity=2)
    neutral, ion = labeler.label(water), labeler.label(cation)
    labeler.close()
    assert isinstance(neutral, Label)
    assert isinstance(ion, Label)
    assert 5.0 < ion.energy - neutral.energy < 20.0  # water's ionisation energy is 12.6 eV


AROUND = PointCharges([[0.3, 0.2, 2.6], [1.9, -2.1, 0.4], [0.0, 6.0, -3.0]], [0.417, -0.834, 0.417])


@pytest.mark.dft
@pytest.mark.parametrize("method", ["dft", "hf"])
def test_forces_in_point_charges_are_the_gradient_of_the_energy(method: str) -> None:
    xc = {"xc": "pbe", "grid_level": 5} if method == "dft" else {"xc": None}
    labeler = PySCFLabeler(PySCFLabeling(kind="pyscf", method=method, basis="6-31g", conv_tol=1e-11, **xc))
    frame = replace(distorted("H2O"), environment=AROUND)
    labeler.check(frame)
    label, alone = labeler.label(frame), labeler.label(distorted("H2O"))
    assert isinstance(label, Label)
    assert isinstance(alone, Label)
    assert label.frame_id == frame.frame_id
    assert np.abs(label.forces - alone.forces).max() > 0.1
    step = 2e-3
    for k in range(3):
        energies = []
        for sign in (1, -1):
            positions = np.array(frame.positions)
            positions[k, 2] += sign * step
            moved = labeler.label(frame.with_positions(positions))
            assert isinstance(moved, Label)
            energies.append(moved.energy)
        assert label.forces[k, 2] == pytest.approx((energies[1] - energies[0]) / (2 * step), abs=2e-3)
    labeler.close()


@pytest.mark.dft
def test_a_distant_charge_sees_the_dipole_of_water() -> None:
    """Energy ``k q mu cos(a) / r^2`` with the dipole of Hartree-Fock/6-31G water that PySCF gives itself."""
    from pyscf import gto, scf

    water = distorted("H2O")
    atoms = list(zip(water.numbers.tolist(), water.positions.tolist(), strict=True))
    dipole = scf.RHF(gto.M(atom=atoms, basis="6-31g", verbose=0)).run().dip_moment(unit="AU", verbose=0) * BOHR
    labeler = PySCFLabeler(PySCFLabeling(kind="pyscf", method="hf", xc=None, basis="6-31g", density_fit=False))
    far = np.array([[0.0, 0.0, 60.0]])
    energies = []
    for value in (1.0, -1.0):
        label = labeler.label(replace(water, environment=PointCharges(far, np.array([value]))))
        assert isinstance(label, Label)
        energies.append(label.energy)
    labeler.close()
    expected = HARTREE * BOHR * dipole[2] / (60.0 - water.positions[:, 2].mean()) ** 2
    assert 0.5 * (energies[0] - energies[1]) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    "config",
    [
        XTBLabeling(kind="xtb"),
        AnalyticLabeling(kind="analytic"),
        PySCFLabeling(kind="pyscf", method="mp2", xc=None, basis="sto-3g", density_fit=False),
        PySCFLabeling(kind="pyscf", xc="pbe", basis="sto-3g", solvent_model="cpcm", solvent="water"),
    ],
    ids=["xtb", "analytic", "mp2", "solvent"],
)
def test_point_charges_are_refused_where_they_would_be_left_out(config: Any) -> None:
    frame = replace(distorted("H2O"), environment=AROUND)
    labeler = build_labeler(config)
    with pytest.raises(InputError, match="point charges"):
        labeler.check(frame)
    outcome = labeler.label(frame)
    labeler.close()
    assert isinstance(outcome, LabelFailure)
    assert outcome.kind is FailureKind.UNSUPPORTED


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"xc": "pbee"}, "labeling.xc"),
        ({"basis": "def2-spv"}, "labeling.basis"),
        ({"basis": "sto-3g"}, "labeling.basis"),
    ],
)
def test_unknown_functional_and_basis_are_refused(change: dict[str, Any], field: str) -> None:
    config = PySCFLabeling(**{"kind": "pyscf", "xc": "pbe", "basis": "def2-svp", **change})
    frame = Frame.molecule([79 if change == {"basis": "sto-3g"} else 8, 1, 1], distorted("H2O").positions)
    with pytest.raises(InputError) as caught:
        check_labeling(config, {"m": frame})
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize("kind", ["xtb", "pyscf"])
def test_impossible_spin_is_refused(kind: str) -> None:
    config = XTBLabeling(kind="xtb") if kind == "xtb" else PySCFLabeling(kind="pyscf", xc="pbe", basis="sto-3g")
    water = distorted("H2O")
    with pytest.raises(InputError, match="impossible with 10 electrons"):
        check_labeling(config, {"w": Frame.molecule(water.numbers, water.positions, multiplicity=2)})


def test_level_holds_what_decides_values_and_nothing_else() -> None:
    base = {"kind": "pyscf", "xc": "pbe", "basis": "def2-svp"}
    level = build_labeler(PySCFLabeling(**base)).level
    assert build_labeler(PySCFLabeling(**base, workers=7, timeout_s=5, threads=2)).level == level
    assert build_labeler(PySCFLabeling(**{**base, "xc": "PBE"})).level == level
    assert build_labeler(PySCFLabeling(**base, grid_level=3)).level != level


def test_free_atoms_have_their_ground_state_spin() -> None:
    assert [ground_multiplicity(z) for z in (1, 6, 7, 8, 18)] == [2, 3, 4, 3, 1]


def test_certify_measures_what_was_put_in() -> None:
    labeler = AnalyticLabeler(AnalyticLabeling(kind="analytic"))
    published = []
    for k in range(20):
        frame = distorted("CH3OH").with_positions(molecule("CH3OH").positions + 0.01 * k)
        label = labeler.label(frame)
        assert isinstance(label, Label)
        published.append((frame, label.energy - 3.0 + 0.0005 * k, label.forces + 0.002))
    report = certify(labeler, published, 5).to_json()
    assert report["n_frames"] == 5
    assert report["force_mae_mev_per_ang"] == pytest.approx(2.0)
    assert report["energy_offset_mev"] == pytest.approx(3000, abs=10)
    assert report["energy_spread_mev"] == pytest.approx(0.5 * np.std([0, 4, 8, 12, 16]))
    assert evenly_spaced(1000, 4) == [0, 250, 500, 750]
    assert evenly_spaced(2, 10) == [0, 1]


def test_a_label_needs_no_folder_of_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """PySCF would write a checkpoint each cycle there: a full /tmp failed labels."""
    from pyscf import lib
    from pyscf.scf import hf

    monkeypatch.setattr(hf, "MUTE_CHKFILE", False)
    monkeypatch.setattr(lib.param, "TMPDIR", "/nowhere")
    config = PySCFLabeling(kind="pyscf", xc="lda,vwn", basis="sto-3g", grid_level=0)
    assert isinstance(PySCFEngine(config).label(distorted("H2O")), Label)
