"""Periodic labels: forces and stress are derivatives of the energy; what PySCF cannot do is refused in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from alsys.config.engines import PeriodicLabeling
from alsys.errors import InputError
from alsys.frames import Frame
from alsys.labeling import periodic
from alsys.labeling.atoms import free_atom_frames
from alsys.labeling.base import Labeler
from alsys.labeling.factory import build_labeler, check_labeling
from alsys.labeling.rescue import DAMPED_CYCLES
from alsys.labels import Label
from alsys.testing.labelers import LabelerContract

CELL = np.array([[2.5, 0.1, 0.0], [0.0, 2.4, 0.1], [0.1, 0.0, 2.6]])
BASE: dict[str, Any] = {
    "kind": "pyscf-periodic", "xc": "pbe", "basis": "gth-szv", "pseudo": "gth-pbe", "precision": 1e-6,
}  # fmt: skip


def hydrogen(multiplicity: int = 1, charge: int = 0, pbc: tuple[bool, bool, bool] = (True, True, True)) -> Frame:
    positions = np.array([[0.1, 0.2, 0.3], [0.5, 0.5, 0.9]])
    return Frame(np.array([1, 1], dtype=np.int32), positions, CELL, np.array(pbc), charge, multiplicity)


def config(**changes: Any) -> PeriodicLabeling:
    return PeriodicLabeling(**{**BASE, **changes})


class PeriodicContract(LabelerContract):
    frame = hydrogen()
    cell = hydrogen()
    force_tolerance = 5e-3
    stress_tolerance = 5e-4
    energy_tolerance = 1e-3
    changes: dict[str, Any] = {}  # noqa: RUF012

    def make(self) -> Labeler:
        return build_labeler(config(stress=False, **self.changes))

    def make_other(self) -> Labeler:
        return build_labeler(config(conv_tol=1e-6, **self.changes))

    def make_for_stress(self) -> Labeler:
        return build_labeler(config(dispersion="d3bj", **self.changes))


@pytest.mark.dft
@pytest.mark.slow
class TestGamma(PeriodicContract):
    pass


@pytest.mark.dft
@pytest.mark.slow
@pytest.mark.timeout(1200)
class TestKPoints(PeriodicContract):
    changes = {"kpts": (2, 1, 1)}  # noqa: RUF012


@pytest.mark.dft
@pytest.mark.slow
class TestTriplet(PeriodicContract):
    frame = hydrogen(multiplicity=3)
    cell = hydrogen(multiplicity=3)


@pytest.mark.dft
def test_the_second_attempt_damps(monkeypatch: pytest.MonkeyPatch) -> None:
    """PySCF damps only before DIIS begins, by default never."""
    from pyscf import dft, gto
    from pyscf.scf import hf

    damped: list[float] = []
    original = hf.damping
    monkeypatch.setattr(hf, "damping", lambda f, last, factor: damped.append(factor) or original(f, last, factor))
    water = gto.M(atom="O 0 0 0; H 0 0 1.6; H 0 1.5 -0.5", basis="sto-3g", verbose=0)

    def build() -> Any:
        field = dft.RKS(water, xc="lda,vwn")
        field.grids.level, field.conv_tol = 0, 1e-12
        return field

    periodic._converge(build, DAMPED_CYCLES + 1)
    assert damped == [0.5] * (DAMPED_CYCLES - 1)  # there is no Fock matrix before the first


@pytest.mark.dft
def test_a_free_atom_is_labelled_without_a_cell() -> None:
    labeler = build_labeler(config(basis="gth-tzv2p"))
    (frame,) = free_atom_frames([1])
    labeler.check(frame)
    label = labeler.label(frame)
    labeler.close()
    assert isinstance(label, Label)
    assert label.energy == pytest.approx(-13.60, abs=0.1)  # PBE: -13.60 eV
    assert label.stress is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coulomb": "gdf"}, "no forces with Gaussian density fitting"),
        ({"coulomb": "multigrid", "kpts": (2, 1, 1)}, "at Gamma only"),
        ({"pseudo": None, "kpts": (2, 1, 1)}, "need a pseudopotential"),
        ({"pseudo": None, "coulomb": "fft"}, "need a pseudopotential"),
    ],
)
def test_methods_without_forces_are_refused_when_the_file_is_read(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    ("changes", "frame", "message"),
    [
        ({"xc": "r2scan"}, hydrogen(), r"labeling.xc: PySCF has no periodic forces for this kind \(got 'r2scan'\)"),
        ({"xc": "pbe0"}, hydrogen(), r"labeling.xc: PySCF has no periodic stress for hybrids"),
        ({"xc": "pbee"}, hydrogen(), r"labeling.xc: unknown functional"),
        ({"basis": "gth-szvv"}, hydrogen(), r"labeling.basis: is unknown, or has nothing for H"),
        ({"pseudo": "gth-pbee"}, hydrogen(), r"labeling.pseudo: is unknown, or has nothing for H"),
        ({}, hydrogen(charge=-2), r"systems\[0\].charge: the energy of a charged cell"),
        ({}, hydrogen(multiplicity=2), r"systems\[0\].multiplicity: is impossible with 2 electrons"),
        ({}, hydrogen(pbc=(True, True, False)), r"systems\[0\].pbc: periodic labels need three periodic directions"),
        ({"reference": "restricted"}, hydrogen(multiplicity=3), r"labeling.reference: a restricted reference"),
        ({"pseudo": None, "basis": "cc-pvdz", "memory_mb": 64}, hydrogen(), r"labeling.memory_mb: the FFT grid of"),
    ],
)
def test_what_cannot_be_labelled_is_refused_in_one_line(changes: dict[str, Any], frame: Frame, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_labeling(config(**changes), {"h": frame})
    assert "\n" not in str(caught.value)


def test_level_holds_what_decides_values_and_nothing_else() -> None:
    level = build_labeler(config()).level
    assert build_labeler(config(coulomb="multigrid", stress=False, threads=2, max_cycles=9)).level == level
    assert build_labeler(config(kpts=(1, 1, 2))).level != level
    assert build_labeler(config(coulomb="fft")).level != level
