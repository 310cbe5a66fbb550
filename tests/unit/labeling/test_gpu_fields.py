"""What a label on a GPU makes and copies, counted on a stand-in with the signatures and rules of gpu4pyscf 1.9."""

from __future__ import annotations

import gc
import sys
import types
import warnings
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config.labeling import PySCFLabeling
from alsys.errors import InputError
from alsys.frames import Frame
from alsys.labeling import gpu_limits
from alsys.labeling.densities import DensityMemory
from alsys.labeling.device import Device, GPU4PySCF
from alsys.labeling.pyscf import DensitySource, PySCFEngine, PySCFLabeler, level_of
from alsys.labeling.rescue import DAMPED_CYCLES, Rung, run_scf
from alsys.labels import Label, LabelFailure
from tests.support.gpu_fields import Card, GPUArray, MeanField

WATER = Frame.molecule(molecule("H2O").numbers, molecule("H2O").positions)
RADICAL = Frame.molecule(molecule("OH").numbers, molecule("OH").positions, 0, 2)
N_ORBITALS = 7
"""Of water in STO-3G."""


def settings(xc: str = "b3lyp", **changes: Any) -> PySCFLabeling:
    base = {"kind": "pyscf", "xc": xc, "basis": "sto-3g", "grid_level": 1, "gpus": 1, "device": "gpu"}
    return PySCFLabeling(**{**base, **changes})


def label_on(card: Card, config: PySCFLabeling, frame: Frame = WATER, memory: DensitySource | None = None) -> Label:
    engine = PySCFEngine(config, memory, Device("gpu", 1.0, None, lambda *_: card))
    return as_label(engine.label(frame))


def label_on_cpu(config: PySCFLabeling, frame: Frame = WATER) -> Label:
    return as_label(PySCFEngine(config, None, Device("cpu", 0.0)).label(frame))


def as_label(outcome: Label | LabelFailure) -> Label:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    assert isinstance(outcome, Label), outcome
    return outcome


def assert_equal(one: Label, other: Label) -> None:
    assert one.energy == pytest.approx(other.energy, abs=1e-6)
    np.testing.assert_allclose(one.forces, other.forces, atol=1e-4)


@pytest.mark.dft
@pytest.mark.parametrize(
    ("xc", "n_integrals"), [("pbe", 0), ("b3lyp", 1), ("camb3lyp", 2)], ids=["pure", "hybrid", "range-separated"]
)
def test_integrals_are_made_once_and_the_object_stays_until_the_gradient(xc: str, n_integrals: int) -> None:
    card = Card()
    label = label_on(card, settings(xc))
    assert_equal(label, label_on_cpu(settings(xc)))
    assert card.n_integrals == n_integrals
    assert len(card.moved) == 1
    assert card.n_released == 1


@pytest.mark.dft
def test_of_a_closed_shell_only_orbital_energies_and_occupation_come_to_the_host() -> None:
    card = Card()
    label = label_on(card, settings())
    assert card.to_hosts == [(N_ORBITALS,), (N_ORBITALS,)]
    assert card.to_card == []
    assert label.diagnostics.gap == pytest.approx(label_on_cpu(settings()).diagnostics.gap, abs=1e-6)


@pytest.mark.dft
def test_an_open_shell_is_analysed_on_the_card_and_its_orbitals_stay_there() -> None:
    card = Card()
    label, on_cpu = label_on(card, settings(), RADICAL), label_on_cpu(settings(), RADICAL)
    assert card.to_hosts == [(2, 6), (2, 6)]
    assert (card.n_hessians, len(card.moved)) == (1, 1)
    assert_equal(label, on_cpu)
    assert label.diagnostics.spin_excess == pytest.approx(on_cpu.diagnostics.spin_excess, abs=1e-6)
    assert label.cost.rescue_rung == on_cpu.cost.rescue_rung == Rung.DIIS


@pytest.mark.dft
def test_where_nothing_can_turn_nothing_is_analysed() -> None:
    card = Card()
    atom = label_on(card, settings(), Frame.molecule([1], [[0, 0, 0]], 0, 2))
    assert card.n_hessians == 0
    assert atom.energy == pytest.approx(label_on_cpu(settings(), Frame.molecule([1], [[0, 0, 0]], 0, 2)).energy)


@pytest.mark.dft
def test_a_saddle_seen_on_the_card_is_left_on_the_host() -> None:
    stretched = Frame.molecule([1, 1], [[0, 0, 0], [0, 0, 2.5]])
    closed = settings(reference="unrestricted", initial_guess="default")
    card = Card()
    card.breaks_symmetry = False
    label = label_on(card, closed, stretched)
    assert label.cost.rescue_rung == Rung.STABILISED
    assert (card.n_hessians, len(card.moved)) == (1, 2)
    assert card.to_hosts == [(2, 2), (2, 2), (2, 2, 2)]
    assert_equal(label, label_on_cpu(closed, stretched))


@pytest.mark.dft
def test_a_remembered_density_goes_to_the_card_once_and_diis_begins_with_it() -> None:
    config = settings()
    memory = DensityMemory(level_of(config).level_id)
    first, second = Card(), Card()
    label_on(first, config, memory=memory)
    assert first.to_hosts == [(N_ORBITALS,), (N_ORBITALS,), (N_ORBITALS, N_ORBITALS)]
    moved = Frame.molecule(WATER.numbers, WATER.positions + np.random.default_rng(0).normal(0, 0.01, (3, 3)))
    label = label_on(second, config, moved, memory)
    assert second.to_card == [(N_ORBITALS, N_ORBITALS)]
    assert second.ran[0].diis_start_cycle == 0
    assert_equal(label, label_on_cpu(config, moved))


@pytest.mark.dft
def test_without_a_level_shift_no_fock_matrix_is_made_for_one() -> None:
    card = Card()
    label = label_on(card, settings())
    assert card.ran[0].level_shift is None
    assert card.n_focks == label.cost.scf_cycles
    shifted = Card()
    label_on(shifted, settings(level_shift=0.1))
    assert shifted.ran[0].level_shift == pytest.approx(0.1)


@pytest.mark.dft
@pytest.mark.parametrize(("n_failures", "rung"), [(1, Rung.DAMPED), (2, Rung.NEWTON), (3, Rung.SMEARED)])
def test_all_rungs_share_the_integrals_and_their_densities_stay_on_the_card(n_failures: int, rung: Rung) -> None:
    card = Card(n_failures)
    label = label_on(card, settings())
    assert label.cost.rescue_rung == rung
    assert card.n_integrals == 1
    assert card.to_hosts == [(N_ORBITALS,), (N_ORBITALS,)]
    assert len(card.to_card) == (rung is Rung.SMEARED)
    assert label.cost.scf_cycles > n_failures  # one iteration each, and those of the last
    assert_equal(label, label_on_cpu(settings()))


@pytest.mark.dft
def test_an_unrestricted_singlet_begins_with_broken_symmetry_on_both() -> None:
    card = Card()
    label_on(card, settings(reference="unrestricted"))
    assert card.ran[0].init_guess_breaksym == 1


@pytest.mark.dft
def test_a_lower_solution_found_on_the_host_goes_to_the_card_for_its_gradient() -> None:
    stretched = Frame.molecule([1, 1], [[0, 0, 0], [0, 0, 2.5]])
    card = Card()
    label = label_on(card, settings(stability="always"), stretched)
    assert label.cost.rescue_rung == Rung.STABILISED
    assert len(card.moved) == 2
    assert_equal(label, label_on_cpu(settings(stability="always"), stretched))


BEYOND: dict[str, dict[str, Any]] = {
    "basis": {"basis": "cc-pv5z"},
    "auxbasis": {"auxbasis": "cc-pv5z-jkfit"},
    "solvent_model": {"solvent_model": "ddcosmo", "solvent": "water"},
}


@pytest.mark.parametrize("name", BEYOND)
def test_what_gpu4pyscf_lacks_is_refused_where_only_a_gpu_may_be_used(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernels end at g functions of orbitals and i functions of fitting bases."""
    monkeypatch.setattr(gpu_limits, "MAX_FITTING_MOMENTUM", 5)  # that of oxygen ends at i
    PySCFLabeler(settings()).check(WATER)
    with pytest.raises(InputError, match=rf"labeling\.{name}.*device: auto"):
        PySCFLabeler(settings(**BEYOND[name])).check(WATER)
    PySCFLabeler(settings(**{**BEYOND[name], "device": "auto"})).check(WATER)


@pytest.mark.dft
def test_a_label_beyond_gpu4pyscf_is_made_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_limits, "MAX_MOMENTUM", 0)
    card = Card()
    engine = PySCFEngine(settings(device="auto"), None, Device("auto", 1.0, None, lambda *_: card))
    hydrogen = Frame.molecule([1, 1], [[0, 0, 0], [0, 0, 0.75]])
    assert_equal(as_label(engine.label(WATER)), label_on_cpu(settings()))
    assert card.moved == []
    as_label(engine.label(hydrogen))
    assert len(card.moved) == 1


@pytest.mark.dft
def test_the_damped_rung_damps(monkeypatch: pytest.MonkeyPatch) -> None:
    """PySCF damps only before DIIS begins, by default never."""
    from pyscf.scf import hf

    damped: list[float] = []
    original = hf.damping
    monkeypatch.setattr(hf, "damping", lambda f, last, factor: damped.append(factor) or original(f, last, factor))
    config = settings(device="cpu", max_cycles=DAMPED_CYCLES + 1, xc="pbe", two_grids=False, conv_tol=1e-12)
    wide = Frame.molecule(WATER.numbers, 1.6 * WATER.positions)
    label = as_label(PySCFEngine(config, None, Device("cpu", 0.0)).label(wide))
    assert label.cost.rescue_rung > Rung.DIIS
    assert len(damped) == DAMPED_CYCLES - 1  # there is no Fock matrix before the first


def test_the_hessian_of_gpu4pyscf_is_given_arrays_of_the_card_and_gives_them(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cupy

    def gen_g_hop_uhf(
        mf: Any, mo_coeff: Any, mo_occ: Any, fock_ao: Any = None, h1e: Any = None, with_nlc: bool = False
    ) -> tuple[GPUArray, Any, GPUArray]:
        def h_op(x: Any) -> GPUArray:
            return GPUArray(3.0 * x.get())

        return GPUArray(np.zeros(2)), h_op, GPUArray(np.array([1.0, 2.0]))

    soscf = types.ModuleType("gpu4pyscf.scf.soscf")
    monkeypatch.setattr(soscf, "gen_g_hop_uhf", gen_g_hop_uhf, raising=False)
    monkeypatch.setitem(sys.modules, "gpu4pyscf.scf", types.ModuleType("gpu4pyscf.scf"))
    monkeypatch.setitem(sys.modules, "gpu4pyscf.scf.soscf", soscf)
    monkeypatch.setattr(cupy, "asarray", GPUArray, raising=False)
    monkeypatch.setattr(cupy, "asnumpy", lambda array: array.get(), raising=False)
    field = types.SimpleNamespace(mo_coeff=GPUArray(np.zeros((2, 2, 2))), mo_occ=GPUArray(np.zeros((2, 2))))
    product, diagonal = GPU4PySCF(1.0, None).orbital_hessian(field)
    np.testing.assert_array_equal(diagonal, [1.0, 2.0])
    np.testing.assert_array_equal(product(np.array([1.0, -1.0])), [3.0, -3.0])


@pytest.mark.dft
@pytest.mark.parametrize("is_warm", [False, True], ids=["from nothing", "after a first-order SCF"])
def test_iterations_of_second_order_are_counted_and_no_others(is_warm: bool) -> None:
    """PySCF counts none: what is there is the number of the object that the solver was made of."""
    from pyscf import gto, scf

    field = scf.RHF(gto.M(atom="O 0 0 0; H 0 0 1.6; H 0 1.5 -0.5", basis="sto-3g", verbose=0))
    field.chkfile = None
    if is_warm:
        field.kernel()
    newton = field.newton()
    newton.max_cycle = 50
    counted: list[float] = []
    original = newton.rotate_mo
    newton.rotate_mo = lambda *args, **kwargs: counted.append(1) or original(*args, **kwargs)
    assert run_scf(newton, field.make_rdm1() if is_warm else None)
    assert newton.callback is None
    assert 1 <= newton.cycles <= len(counted)
    assert newton.cycles < field.cycles or not is_warm


class LinAlgError(RuntimeError):
    """gpu4pyscf.lib.cusolver.LinAlgError."""


@pytest.mark.parametrize("error", [LinAlgError("eigh failed to converge"), np.linalg.LinAlgError()])
def test_linear_algebra_that_breaks_down_on_a_gpu_is_no_convergence(error: Exception) -> None:
    class Breaks:
        def kernel(self, dm0: Any = None, **kwargs: Any) -> float:
            raise error

    assert run_scf(Breaks()) is False


def test_other_errors_of_a_gpu_are_not_taken_for_it() -> None:
    class Breaks:
        def kernel(self, dm0: Any = None, **kwargs: Any) -> float:
            raise RuntimeError("CUDA Error")

    with pytest.raises(RuntimeError, match="CUDA Error"):
        run_scf(Breaks())


class Pool:
    """CuPy's memory pool."""

    def __init__(self, device: list[int]) -> None:
        self.limits: dict[int, int] = {}
        self.freed: list[int] = []
        self.taken = self.idle = 0
        self.allocator: Any = None
        self._device = device

    def malloc(self, size: int) -> str:
        if self.total_bytes() + size > self.limits[self._device[0]]:  # as CuPy 13 does, idle blocks or not
            raise MemoryError("Out of memory allocating")
        return f"{size} bytes"

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        assert size is not None
        self.limits[self._device[0]] = size

    def total_bytes(self) -> int:
        return self.taken + self.idle

    def free_all_blocks(self) -> None:
        self.freed.append(self._device[0])
        self.idle = 0


GB = 2**30


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Stands for CuPy on a machine with two cards of 80 GB, of which 60 are free."""
    current = [0]
    pool = Pool(current)

    class DeviceContext:
        def __init__(self, number: int) -> None:
            self._number = number

        def __enter__(self) -> None:
            current[0] = self._number

        def __exit__(self, *_: object) -> None:
            current[0] = 0

    cupy: Any = types.ModuleType("cupy")
    runtime = types.SimpleNamespace(memGetInfo=lambda: (60 * GB, 80 * GB), getDeviceCount=lambda: 2)

    def set_allocator(allocator: Any = None) -> None:
        pool.allocator = allocator

    cupy.cuda = types.SimpleNamespace(runtime=runtime, Device=DeviceContext, set_allocator=set_allocator)
    cupy.get_default_memory_pool = cupy.get_default_pinned_memory_pool = lambda: pool
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "gpu4pyscf", types.ModuleType("gpu4pyscf"))
    return pool


def test_the_limit_holds_on_each_card_that_gpu4pyscf_works_on(pool: Pool) -> None:
    gpu = GPU4PySCF(0.25, None)
    assert pool.limits == {0: gpu.limit_bytes, 1: gpu.limit_bytes}
    gpu.release()
    assert pool.freed == [0, 1, 0]  # the last is the host's


def test_gpu4pyscf_is_told_of_its_share_and_sizes_its_buffers_by_it(pool: Pool) -> None:
    import cupy

    for limit_mb in (8192, 4096):  # of a second accelerator of the same process too
        GPU4PySCF(0.25, limit_mb)
        pool.taken = 0
        assert cupy.cuda.runtime.memGetInfo() == (limit_mb * 2**20, 80 * GB)
        pool.taken = 3 * GB
        assert cupy.cuda.runtime.memGetInfo() == (limit_mb * 2**20 - 3 * GB, 80 * GB)
    GPU4PySCF(1.0, 70 * 1024)
    pool.taken = 0
    assert cupy.cuda.runtime.memGetInfo() == (60 * GB, 80 * GB)


def test_blocks_that_no_array_holds_are_given_back_before_memory_ends(pool: Pool) -> None:
    import cupy

    GPU4PySCF(0.25, 4096)
    pool.taken, pool.idle = GB, 2 * GB
    assert pool.allocator(GB // 2) == f"{GB // 2} bytes"
    assert pool.freed == []
    assert pool.allocator(2 * GB) == f"{2 * GB} bytes"
    assert pool.freed == [0]
    with pytest.raises(MemoryError):
        pool.allocator(4 * GB)
    pool.idle = GB // 2
    assert cupy.cuda.runtime.memGetInfo()[0] == 4 * GB - GB - GB // 2
    pool.idle = 2 * GB
    assert cupy.cuda.runtime.memGetInfo()[0] == 3 * GB


def test_lack_of_memory_is_known_in_all_its_forms(pool: Pool) -> None:
    gpu = GPU4PySCF(0.25, None)

    def block() -> None:
        blksize = 0
        assert blksize > 0

    def other() -> None:
        n_atoms = 0
        assert n_atoms > 0

    assert gpu.is_out_of_memory(MemoryError("Not enough GPU memory. cderi size = 3.00 GB"))
    assert gpu.is_out_of_memory(RuntimeError("cudaErrorMemoryAllocation"))
    assert not gpu.is_out_of_memory(RuntimeError("cusolver: internal error"))
    for fails, is_memory in ((block, True), (other, False)):
        with pytest.raises(AssertionError) as caught:
            fails()
        assert gpu.is_out_of_memory(caught.value) is is_memory


def test_the_stand_in_refuses_what_cupy_refuses() -> None:
    array = GPUArray(np.ones(3))
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(array)
    with pytest.raises(TypeError, match="Unsupported type"):
        np.add(array, np.ones(3))
    assert bool(np.isfinite(array).all())
    assert MeanField.level_shift is None
