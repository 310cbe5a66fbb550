"""Labels on a GPU, up to the edge of CUDA: what goes where, what happens when memory ends, what a label says of it."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.actors.placement import worker_specs
from alsys.config import parse_config
from alsys.config.labeling import PySCFLabeling
from alsys.errors import FailureKind, InputError
from alsys.frames import FloatArray, Frame
from alsys.labeling.child import ChildProcess
from alsys.labeling.device import CUDA_BYTES, MAX_ERRORS, Accelerator, Device, DeviceMode, OrbitalHessian, for_arrays
from alsys.labeling.pyscf import PySCFEngine, PySCFLabeler, level_of
from alsys.labeling.rescue import Host, converge
from alsys.labels import Label, LabelCost, LabelFailure

WATER, METHANE = (Frame.molecule(molecule(n).numbers, molecule(n).positions) for n in ("H2O", "CH4"))


class OutOfGPUMemory(Exception):
    """What a GPU says."""


class FakeGPU:
    """Counts what is moved; runs out of memory for molecules with more than `capacity` electrons."""

    def __init__(self, capacity: int = 100, error: Exception | None = None) -> None:
        self.capacity = capacity
        self.error = error or OutOfGPUMemory("no more")
        self.moved = self.copied = self.released = 0

    def move(self, field: Any) -> Any:
        self.moved += 1
        if field.mol.nelectron > self.capacity:
            raise self.error
        return field

    def to_gpu(self, array: FloatArray) -> FloatArray:
        return array

    def to_host(self, array: FloatArray) -> FloatArray:
        self.copied += 1
        return array

    def orbital_hessian(self, field: Any) -> OrbitalHessian:
        raise NotImplementedError("closed shells only")

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, OutOfGPUMemory)

    def release(self) -> None:
        self.released += 1


def device(gpu: Accelerator, mode: DeviceMode = "auto", gpus: float = 1.0) -> Device:
    return Device(mode, gpus, None, lambda share, limit: gpu)


def label_on(where: Device, frame: Frame) -> Label | LabelFailure:
    engine = PySCFEngine(PySCFLabeling(kind="pyscf", xc="lda,vwn", basis="sto-3g", grid_level=1), device=where)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # PySCF leaves its checkpoint file to the garbage collector
        outcome = engine.label(frame)
        gc.collect()
    return outcome


@pytest.mark.dft
def test_scf_and_gradient_go_to_the_gpu_and_the_label_is_the_same() -> None:
    gpu = FakeGPU()
    on_gpu, on_cpu = label_on(device(gpu), WATER), label_on(Device("cpu", 0), WATER)
    assert isinstance(on_gpu, Label)
    assert isinstance(on_cpu, Label)
    assert (gpu.moved, gpu.copied, gpu.released) == (1, 2, 1)
    assert on_gpu.cost.host == "gpu"
    assert on_cpu.cost.host == ""
    assert on_gpu.level_id == on_cpu.level_id
    assert on_gpu.energy == pytest.approx(on_cpu.energy, abs=1e-8)
    np.testing.assert_allclose(on_gpu.forces, on_cpu.forces, atol=1e-6)


@pytest.mark.dft
def test_a_frame_that_does_not_fit_is_labelled_on_the_cpu_and_larger_ones_do_not_try() -> None:
    gpu = FakeGPU(capacity=9)  # water and methane have ten electrons
    where = device(gpu)
    first, second = label_on(where, WATER), label_on(where, METHANE)
    assert isinstance(first, Label)
    assert isinstance(second, Label)
    assert gpu.moved == 1
    assert gpu.released == 1
    assert {first.cost.host, second.cost.host} == {"cpu"}
    hydrogen = Frame.molecule([1, 1], [[0, 0, 0], [0, 0, 0.75]])
    small = label_on(where, hydrogen)
    assert small.cost.host == "gpu"


@pytest.mark.dft
def test_what_gpu4pyscf_cannot_do_goes_to_the_cpu_for_good() -> None:
    gpu = FakeGPU(capacity=0, error=NotImplementedError("solvent"))
    where = device(gpu)
    assert label_on(where, WATER).cost.host == "cpu"
    assert isinstance(label_on(where, METHANE), Label)
    assert gpu.moved == 1


def test_device_gpu_never_falls_back() -> None:
    outcome = label_on(device(FakeGPU(capacity=0), "gpu"), WATER)
    assert isinstance(outcome, LabelFailure)
    assert outcome.kind is FailureKind.OUT_OF_MEMORY

    def missing(share: float, limit: int | None) -> Accelerator:
        raise ImportError("no cupy")

    outcome = label_on(Device("gpu", 1.0, None, missing), WATER)
    assert isinstance(outcome, LabelFailure)
    assert "no GPU: ImportError: no cupy" in outcome.message


def test_a_bug_on_the_gpu_is_not_hidden_where_only_a_gpu_may_be_used() -> None:
    with pytest.raises(ZeroDivisionError):
        label_on(device(FakeGPU(capacity=0, error=ZeroDivisionError()), "gpu"), WATER)


@pytest.mark.dft
def test_with_auto_any_error_on_the_gpu_means_the_cpu_and_three_in_a_row_the_end_of_trying(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gpu = FakeGPU(capacity=0, error=RuntimeError("cusolver: internal error"))
    where = device(gpu)
    outcomes = [label_on(where, frame) for frame in (WATER, METHANE, WATER, METHANE)]
    assert [outcome.cost.host for outcome in outcomes[:3]] == ["cpu"] * 3
    assert all(isinstance(outcome, Label) for outcome in outcomes)
    assert gpu.moved == MAX_ERRORS
    assert gpu.released == MAX_ERRORS
    assert "goes to the CPU: RuntimeError: cusolver: internal error" in caplog.text


@pytest.mark.dft
def test_a_label_that_succeeds_forgets_errors_before() -> None:
    gpu = FakeGPU(capacity=0, error=RuntimeError("once"))
    where = device(gpu)
    for _ in range(MAX_ERRORS):
        label_on(where, WATER)
        gpu.capacity, kept = 100, gpu.capacity
        assert label_on(where, WATER).cost.host == "gpu"
        gpu.capacity = kept


def test_a_solvent_that_gpu4pyscf_lacks_is_refused_or_computed_on_the_cpu() -> None:
    base = {"kind": "pyscf", "xc": "pbe", "basis": "sto-3g", "solvent_model": "ddcosmo", "solvent": "water", "gpus": 1}
    with pytest.raises(InputError, match=r"solvent_model.*device: auto"):
        PySCFLabeler(PySCFLabeling(**base, device="gpu")).check(WATER)
    gpu = FakeGPU()
    outcome = PySCFEngine(PySCFLabeling(**base), device=device(gpu)).label(WATER)
    assert isinstance(outcome, Label)
    assert gpu.moved == 0


@pytest.mark.dft
def test_a_gpu_that_cannot_even_release_memory_costs_no_label() -> None:
    """After some errors of CUDA every further call fails."""

    class Broken(FakeGPU):
        def release(self) -> None:
            raise RuntimeError("cudaErrorIllegalAddress")

    where = device(Broken(capacity=0, error=RuntimeError("cudaErrorIllegalAddress")))
    assert not where.is_spent
    assert label_on(where, WATER).cost.host == "cpu"
    assert where.is_spent


def test_smearing_is_for_the_cpu() -> None:
    """The ladder's smeared guess is made of objects that never were on the GPU."""
    built: list[str] = []

    class Stops(Exception):
        """Ends the ladder at the rung that is looked at."""

    class Field:
        mo_occ = None
        level_shift = 0.0
        converged = False
        cycles = 1

        def newton(self) -> Field:
            return self

        def kernel(self, **_: object) -> None:
            return None

    def on_gpu() -> Field:
        built.append("gpu")
        return Field()

    def on_host() -> Field:
        built.append("cpu")
        raise Stops

    with pytest.raises(Stops):
        converge(on_gpu, 3, None, Host(on_host, lambda array: array))
    assert built == ["gpu", "gpu", "gpu", "gpu", "cpu"]


@pytest.mark.dft
def test_share_and_limit_reach_the_accelerator_once_and_only_where_asked_for() -> None:
    opened: list[tuple[float, int | None]] = []

    def opens(share: float, limit: int | None) -> Accelerator:
        opened.append((share, limit))
        return FakeGPU()

    where = Device("auto", 0.5, 3000, opens)
    label_on(where, WATER)
    label_on(where, WATER)
    label_on(Device("auto", 0.0, None, opens), WATER)
    label_on(Device("cpu", 1.0, None, opens), WATER)
    assert opened == [(0.5, 3000)]


def test_device_is_operational_and_gpu_needs_one() -> None:
    base = {"kind": "pyscf", "xc": "pbe", "basis": "sto-3g"}
    assert level_of(PySCFLabeling(**base, device="gpu", gpus=1)) == level_of(PySCFLabeling(**base))
    with pytest.raises(InputError, match=r"labeling\.gpus"):
        PySCFLabeler(PySCFLabeling(**base, device="gpu")).check(WATER)


def test_ray_gives_each_worker_its_gpus_and_places_one_of_each_role_first() -> None:
    config = parse_config(
        {
            "name": "g",
            "systems": [{"name": "w", "molecule": "H2O"}],
            "labeling": {"kind": "pyscf", "xc": "pbe", "basis": "sto-3g", "workers": 2, "gpus": 0.5},
            "model": {"kind": "nequip"},
            "exploration": {"gpus": 0.25, "workers": 2},
            "training": {"gpus": 1},
        }
    )
    specs = worker_specs(config, {"w": [WATER]})
    assert [(name, spec.gpus) for name, spec in specs.items()] == [
        ("trainer-0", 1), ("explorer-0", 0.25), ("labeler-0", 0.5), ("explorer-1", 0.25), ("labeler-1", 0.5),
    ]  # fmt: skip


class NamesItsDevice:
    """An engine for a child, which says whether its data segment is limited."""

    def __init__(self, _: object) -> None:
        import resource

        self._is_limited = resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY

    def label(self, frame: Frame) -> Label | LabelFailure:
        energy = float(self._is_limited)
        return Label(frame.frame_id, "00" * 16, energy, np.zeros((frame.n_atoms, 3)), LabelCost(host="gpu"))


@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_child_with_a_gpu_may_map_memory_and_names_host_and_device(
    has_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{Path(__file__).parents[3]}")
    child = ChildProcess("test_device:NamesItsDevice", None, timeout_s=60, memory_mb=2000, has_gpu=has_gpu)
    outcome = child.label(WATER)
    child.close()
    assert isinstance(outcome, Label)
    assert outcome.energy == float(not has_gpu)
    assert outcome.cost.host.endswith("/gpu")
    assert len(outcome.cost.host) <= 32


class LosesItsGPU:
    """An engine for a child, whose GPU fails at the label of methane as its setting says."""

    def __init__(self, how: str) -> None:
        self._how = how
        self._is_spent = False

    def label(self, frame: Frame) -> Label | LabelFailure:
        if frame.n_atoms == 5 and self._how == "raises":
            raise RuntimeError("cudaErrorIllegalAddress")
        self._is_spent = frame.n_atoms == 5 and self._how == "spent"
        on_cpu = self._is_spent or self._how == "too large"
        host = "cpu" if on_cpu else "gpu"
        return Label(frame.frame_id, "00" * 16, 0.0, np.zeros((frame.n_atoms, 3)), LabelCost(host=host))

    def is_spent(self, _: None) -> bool:
        return self._is_spent


@pytest.mark.parametrize(
    ("how", "has_gpu", "is_replaced"),
    [("raises", True, True), ("spent", True, True), ("too large", True, False), ("raises", False, False)],
)
def test_a_child_whose_cuda_is_lost_is_replaced_and_the_frame_keeps_its_label(
    how: str, has_gpu: bool, is_replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some errors of CUDA every further call of the process fails."""
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{Path(__file__).parents[3]}")
    child = ChildProcess("test_device:LosesItsGPU", how, timeout_s=60, memory_mb=2000, has_gpu=has_gpu)
    assert isinstance(child.label(WATER), Label)
    first, outcome = child.pid, child.label(METHANE)
    assert isinstance(outcome, LabelFailure) is (how == "raises")
    assert isinstance(child.label(WATER), Label)
    assert (child.pid != first) is is_replaced
    child.close()


GB = 10**9


@pytest.mark.parametrize(
    ("share", "left"),
    [
        (1.0, 72 * GB),
        (2.0, 72 * GB),  # of two GPUs a labeler uses one
        (0.25, 18 * GB),
        (0.02, int(1.6 * GB) - CUDA_BYTES),  # CUDA takes more than a tenth of so small a share
    ],
)
def test_labelers_that_share_a_card_leave_cuda_its_memory(share: float, left: int) -> None:
    assert for_arrays(share, 80 * GB) == pytest.approx(left, rel=1e-6)


def test_a_share_that_leaves_no_memory_is_refused() -> None:
    with pytest.raises(
        RuntimeError, match=r"0\.005 of a GPU of 76293 MB leaves no memory for labels; raise labeling\.gpus"
    ):
        for_arrays(0.005, 80 * GB)
