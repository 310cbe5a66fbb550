"""Labels on a real GPU are the labels of the CPU; memory that does not suffice sends a label back; limits hold."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config.labeling import PySCFLabeling
from alsys.errors import FailureKind
from alsys.frames import FloatArray, Frame
from alsys.labeling import rescue
from alsys.labeling.device import Device, GPU4PySCF, gpu_problem
from alsys.labeling.pyscf import PySCFEngine, PySCFLabeler, _mean_field, _molecule
from alsys.labeling.stability import lowest_curvature, lowest_eigenvalue
from alsys.labels import Label, LabelFailure
from alsys.units import HARTREE, HARTREE_PER_BOHR
from tests.support import gpu_fields

_PROBLEM = gpu_problem()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(_PROBLEM is not None, reason=f"no gpu4pyscf: {_PROBLEM}")]

LEVELS: tuple[dict[str, Any], ...] = (
    {"xc": "pbe", "basis": "def2-svp"},
    {"xc": "b3lyp", "basis": "def2-svp", "dispersion": "d3bj"},
    {"xc": "r2scan", "basis": "def2-tzvp"},
    {"xc": "wb97x-d3bj", "basis": "def2-tzvp"},
    {"xc": "wb97m-d3bj", "basis": "def2-tzvppd"},
    {"xc": "wb97m-v", "basis": "def2-tzvpd"},
    {"xc": "wb97m-v", "basis": "def2-svp", "nlc_grid_level": 2},
    {"xc": "pbe", "basis": "def2-svp", "dispersion": "d4"},
    {"xc": "pbe", "basis": "def2-svp", "solvent_model": "cpcm", "solvent": "water"},
    {"xc": "b3lyp", "basis": "def2-svp", "solvent_model": "smd", "solvent": "water"},
    {"method": "hf", "xc": None, "basis": "def2-svp"},
    {"method": "mp2", "xc": None, "basis": "def2-svp"},
    {"xc": "b3lyp", "basis": "def2-svp", "level_shift": 0.2},
)


class Counting(GPU4PySCF):
    """Counts arrays that go from the host to the card and back."""

    def __init__(self, share: float, memory_mb: int | None) -> None:
        super().__init__(share, memory_mb)
        self.n_to_gpu = self.n_to_host = self.n_moved = 0

    def move(self, field: Any) -> Any:
        self.n_moved += 1
        return super().move(field)

    def to_gpu(self, array: FloatArray) -> Any:
        self.n_to_gpu += 1
        return super().to_gpu(array)

    def to_host(self, array: Any) -> FloatArray:
        self.n_to_host += 1
        return super().to_host(array)


def counted(settings: PySCFLabeling, what: Frame) -> tuple[Label, Counting]:
    gpu = Counting(1.0, None)
    outcome = PySCFEngine(settings, device=Device("gpu", 1.0, None, lambda *_: gpu)).label(what)
    assert isinstance(outcome, Label), outcome
    return outcome, gpu


@pytest.fixture
def integrals(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """Three-centre integrals that gpu4pyscf makes, by the range of their Coulomb operator."""
    from gpu4pyscf.df import df

    made: list[float | None] = []
    original = df._cholesky_eri

    def counts(*args: Any, **kwargs: Any) -> Any:
        made.append(kwargs.get("omega"))
        return original(*args, **kwargs)

    monkeypatch.setattr(df, "_cholesky_eri", counts)
    return made


def frame(name: str, charge: int = 0, multiplicity: int = 1) -> Frame:
    atoms = molecule(name)
    positions = atoms.positions + np.random.default_rng(1).normal(0, 0.03, (len(atoms), 3))
    return Frame.molecule(atoms.numbers, positions, charge, multiplicity)


def config(**changes: Any) -> PySCFLabeling:
    base = {"kind": "pyscf", "xc": "pbe", "basis": "def2-svp", "gpus": 1.0, "memory_mb": 32000, "timeout_s": 3600}
    return PySCFLabeling(**{name: value for name, value in {**base, **changes}.items() if value is not None})


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
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: "-".join(map(str, level.values())))
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


def test_core_potentials_are_those_of_the_cpu() -> None:
    iodide = Frame.molecule([53, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.65]])
    assert_equal(label(config(device="gpu"), iodide), label(config(device="cpu"), iodide))


@pytest.mark.parametrize(
    ("xc", "n_integrals"), [("pbe", 0), ("b3lyp", 1), ("wb97x-d3bj", 2)], ids=["pure", "hybrid", "range-separated"]
)
def test_integrals_are_made_once_and_little_comes_to_the_host(
    xc: str, n_integrals: int, integrals: list[float | None]
) -> None:
    settings = config(xc=xc)
    made, gpu = counted(settings, frame("CH3CH2OH"))
    assert len(integrals) == n_integrals
    assert (gpu.n_moved, gpu.n_to_gpu, gpu.n_to_host) == (1, 0, 2)
    assert_equal(made, label(config(xc=xc, device="cpu"), frame("CH3CH2OH")))


@pytest.mark.parametrize("n_failures", [1, 2, 3])
def test_rungs_of_the_ladder_share_integrals_and_end_in_the_label_of_the_cpu(
    n_failures: int, integrals: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpu4pyscf.scf.hf import SCF

    left = [n_failures]
    original = rescue.run_scf

    def fails_first(field: Any, *args: Any, **kwargs: Any) -> bool:
        converged = original(field, *args, **kwargs)
        if isinstance(field, SCF) and left[0] > 0:
            left[0] -= 1
            return False
        return converged

    monkeypatch.setattr(rescue, "run_scf", fails_first)
    made, _ = counted(config(xc="b3lyp"), frame("H2O"))
    assert made.cost.rescue_rung == (rescue.Rung.DAMPED, rescue.Rung.NEWTON, rescue.Rung.SMEARED)[n_failures - 1]
    assert len(integrals) == 1
    assert_equal(made, label(config(xc="b3lyp", device="cpu"), frame("H2O")))


def test_without_a_level_shift_no_fock_matrix_is_made_for_one() -> None:
    field = GPU4PySCF(1.0, None).move(_mean_field(_molecule(frame("H2O"), config()), config()))
    assert field.level_shift is None


@pytest.mark.parametrize("xc", ["b3lyp", "r2scan"])
def test_the_orbital_hessian_is_that_of_the_cpu(xc: str) -> None:
    settings, cation = config(xc=xc, stability="always"), frame("H2O", charge=1, multiplicity=2)
    on_cpu = _mean_field(_molecule(cation, settings), settings)
    gpu = GPU4PySCF(1.0, None)
    on_gpu = gpu.move(on_cpu)
    assert rescue.run_scf(on_cpu)
    assert rescue.run_scf(on_gpu)
    expected, found = lowest_curvature(on_cpu)[0], lowest_eigenvalue(*gpu.orbital_hessian(on_gpu))[0]
    assert found == pytest.approx(expected, abs=1e-4)
    assert on_gpu.spin_square()[0] == pytest.approx(on_cpu.spin_square()[0], abs=1e-5)


def test_nothing_of_a_label_stays_on_the_card() -> None:
    import cupy

    _, gpu = counted(config(xc="b3lyp"), frame("CH3CH2OH"))
    gpu.release()
    first = cupy.get_default_memory_pool().total_bytes()
    counted(config(xc="b3lyp"), frame("CH3CH2OH"))
    gpu.release()
    assert cupy.get_default_memory_pool().total_bytes() == first


def test_gpu4pyscf_sees_its_share_as_the_memory_there_is() -> None:
    from gpu4pyscf.lib.cupy_helper import get_avail_mem

    gpu = GPU4PySCF(0.25, 1024)
    gpu.release()
    assert get_avail_mem(exclude_memory_pool=True) <= 2**30
    assert get_avail_mem() <= 2**30


def test_the_stand_in_has_the_signatures_of_gpu4pyscf() -> None:
    from gpu4pyscf.df import df
    from gpu4pyscf.grad import rhf
    from gpu4pyscf.scf import hf, soscf

    pairs = (
        (gpu_fields.MeanField.kernel, hf.SCF.kernel),
        (gpu_fields.MeanField.make_rdm1, hf.SCF.make_rdm1),
        (gpu_fields.MeanField.newton, hf.RHF.newton),
        (gpu_fields.NewtonField.kernel, soscf._CIAH_SOSCF.kernel),
        (gpu_fields.NewtonField.undo_newton, soscf._CIAH_SOSCF.undo_newton),
        (gpu_fields.Gradients.kernel, rhf.GradientsBase.kernel),
        (gpu_fields.DensityFitting.reset, df.DF.reset),
    )
    for ours, theirs in pairs:
        assert parameters(ours) == parameters(theirs), ours.__qualname__
    assert (hf.SCF.damp, hf.SCF.level_shift) == (gpu_fields.MeanField.damp, gpu_fields.MeanField.level_shift)


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Names and defaults, without that of the object."""
    found = list(inspect.signature(function).parameters.values())[1:]
    return [(parameter.name, parameter.default) for parameter in found]


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
