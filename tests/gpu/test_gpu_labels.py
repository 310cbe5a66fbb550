"""Labels on a real GPU are the labels of the CPU; memory that does not suffice sends a label back; limits hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config.labeling import PySCFLabeling
from alsys.errors import FailureKind
from alsys.frames import Frame
from alsys.labeling.device import Device, GPU4PySCF, gpu_problem
from alsys.labeling.pyscf import PySCFEngine, PySCFLabeler
from alsys.labels import Label, LabelFailure
from alsys.units import HARTREE, HARTREE_PER_BOHR

_PROBLEM = gpu_problem()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(_PROBLEM is not None, reason=f"no gpu4pyscf: {_PROBLEM}")]

LEVELS: tuple[dict[str, Any], ...] = (
    {"xc": "pbe", "basis": "def2-svp"},
    {"xc": "b3lyp", "basis": "def2-svp", "dispersion": "d3bj"},
    {"xc": "r2scan", "basis": "def2-tzvp"},
    {"xc": "wb97x-d3bj", "basis": "def2-tzvp"},
    {"xc": "wb97m-d3bj", "basis": "def2-tzvppd"},
    {"xc": "wb97m-v", "basis": "def2-tzvpd"},
)


def frame(name: str, charge: int = 0, multiplicity: int = 1) -> Frame:
    atoms = molecule(name)
    positions = atoms.positions + np.random.default_rng(1).normal(0, 0.03, (len(atoms), 3))
    return Frame.molecule(atoms.numbers, positions, charge, multiplicity)


def config(**changes: Any) -> PySCFLabeling:
    base = {"kind": "pyscf", "xc": "pbe", "basis": "def2-svp", "gpus": 1.0, "memory_mb": 32000, "timeout_s": 3600}
    return PySCFLabeling(**{**base, **changes})


def label(settings: PySCFLabeling, what: Frame) -> Label:
    labeler = PySCFLabeler(settings)
    outcome = labeler.label(what)
    labeler.close()
    assert isinstance(outcome, Label), outcome
    return outcome


def assert_equal(one: Label, other: Label) -> None:
    assert one.level_id == other.level_id
    assert abs(one.energy - other.energy) < 1e-6 * HARTREE
    np.testing.assert_allclose(one.forces, other.forces, atol=1e-5 * HARTREE_PER_BOHR)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["H2O", "CH3CH2OH"])
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: f"{level['xc']}/{level['basis']}")
def test_label_is_that_of_the_cpu(level: dict[str, Any], name: str) -> None:
    on_gpu, on_cpu = (
        label(config(**level, device="gpu"), frame(name)),
        label(config(**level, device="cpu"), frame(name)),
    )
    assert on_gpu.cost.host.endswith("/gpu")
    assert_equal(on_gpu, on_cpu)


def test_open_shells_are_those_of_the_cpu() -> None:
    cation = frame("H2O", charge=1, multiplicity=2)
    assert_equal(label(config(device="gpu"), cation), label(config(device="cpu"), cation))


def test_without_density_fitting_too() -> None:
    settings = {"density_fit": False}
    assert_equal(
        label(config(**settings, device="gpu"), frame("H2O")), label(config(**settings, device="cpu"), frame("H2O"))
    )


def test_a_label_that_does_not_fit_is_made_on_the_cpu() -> None:
    what = frame("CH3CH2OH")
    engine = PySCFEngine(config(basis="def2-tzvp"), device=Device("auto", 1.0, None, lambda s, _: GPU4PySCF(s, 1)))
    outcome = engine.label(what)
    assert isinstance(outcome, Label)
    assert outcome.cost.host == "cpu"
    strict = PySCFEngine(config(basis="def2-tzvp"), device=Device("gpu", 1.0, None, lambda s, _: GPU4PySCF(s, 1)))
    failure = strict.label(what)
    assert isinstance(failure, LabelFailure)
    assert failure.kind is FailureKind.OUT_OF_MEMORY


def test_the_limit_holds_for_large_arrays_too() -> None:
    import cupy

    gpu = GPU4PySCF(1.0, 512)
    assert gpu.limit_bytes == 512 * 2**20
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError) as caught:
        cupy.empty(2**30, dtype=cupy.uint8)  # gpu4pyscf alone would send it past the pool
    assert gpu.is_out_of_memory(caught.value)
    gpu.release()
    assert cupy.empty(2**20, dtype=cupy.uint8).size == 2**20


def test_a_share_of_the_gpu_is_a_share_of_its_memory() -> None:
    whole, half = GPU4PySCF(1.0, None).limit_bytes, GPU4PySCF(0.5, None).limit_bytes
    assert half == pytest.approx(whole / 2, rel=1e-3)


def test_a_killed_child_with_a_gpu_is_replaced() -> None:
    import os
    import signal

    labeler = PySCFLabeler(config(device="gpu"))
    first = labeler.label(frame("H2O"))
    assert labeler.pid is not None
    os.kill(labeler.pid, signal.SIGKILL)
    lost, again = labeler.label(frame("H2O")), labeler.label(frame("H2O"))
    labeler.close()
    assert isinstance(first, Label)
    assert isinstance(lost, LabelFailure)
    assert isinstance(again, Label)
    assert again.cost.host.endswith("/gpu")
