"""Where PySCF computes: on the CPU, or on a GPU through gpu4pyscf (X. Wu et al., arXiv:2407.09700).

The level of theory does not depend on it. A labeler uses a GPU where it was given one (`labeling.gpus`) and `device` is
not `cpu`. With `auto`, whatever goes wrong on the GPU, the frame is labelled again on the CPU: of lack of memory all
later frames of that size or larger too, of what gpu4pyscf cannot do, and of `MAX_ERRORS` other errors in a row, all
frames. With `gpu` a label fails there as it failed. Every label says in `LabelCost.host` where it was made.
`Accelerator` is the seam: all that touches CUDA is in `GPU4PySCF`.
"""

from __future__ import annotations

import gc
import importlib
import logging
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np

from alsys.errors import AlsysError, FailureKind
from alsys.frames import FloatArray, Frame
from alsys.labeling.converged_scf import ConvergedSCF
from alsys.labeling.gradients import gradient
from alsys.labeling.stability import SADDLE, is_unrestricted, lowest_eigenvalue
from alsys.labels import Label, LabelFailure

logger = logging.getLogger(__name__)

DeviceMode = Literal["auto", "cpu", "gpu"]
POOL_SHARE = 0.9
"""Share of a labeler's part of the GPU's memory that arrays may take; the rest is for CUDA and its libraries."""
CUDA_BYTES = 500 * 2**20
"""What CUDA and its libraries take of a GPU in each process, at least."""
LEAST_BYTES = 256 * 2**20
"""With less than that for arrays no molecule is labelled."""
MAX_ERRORS = 3
"""Errors in a row, other than lack of memory, after which a GPU is given up with `auto`."""


OrbitalHessian = tuple[Callable[[FloatArray], FloatArray], FloatArray]
"""Arguments of `lowest_eigenvalue`: product and diagonal, on the host."""


class Accelerator(Protocol):
    """Moves mean-field objects and arrays to a GPU, and arrays back."""

    def move(self, field: Any) -> Any:
        """The same calculation on the GPU; orbitals go along."""
        ...

    def to_gpu(self, array: FloatArray) -> Any:
        """A copy on the GPU."""
        ...

    def to_host(self, array: Any) -> FloatArray:
        """A copy of an array of the GPU on the host."""
        ...

    def orbital_hessian(self, field: Any) -> OrbitalHessian:
        """Of a converged unrestricted object on the GPU."""
        ...

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error says that GPU memory does not suffice."""
        ...

    def release(self) -> None:
        """Gives back memory that no array holds."""
        ...


class GPU4PySCF:
    """gpu4pyscf, with a limit on what its arrays take, of which it knows.

    gpu4pyscf works on all GPUs that the process sees; the limit holds on each of them.

    Args:
        share: Share of the GPU this process was given, at most 1.
        memory_mb: Limit; None for that share of the GPU's memory.

    Raises:
        ImportError: gpu4pyscf or cupy is missing.
        RuntimeError: There is no CUDA device, or its share leaves no memory.
    """

    def __init__(self, share: float, memory_mb: int | None) -> None:
        import cupy

        importlib.import_module("gpu4pyscf")  # sets limit and allocator, which are set again below
        self._cupy = cupy
        self._pool = cupy.get_default_memory_pool()
        total = int(cupy.cuda.runtime.memGetInfo()[1])
        self.limit_bytes = memory_mb * 2**20 if memory_mb else for_arrays(share, total)
        self._on_each_device(lambda: self._pool.set_limit(size=self.limit_bytes))
        cupy.cuda.set_allocator(self._allocate)  # gpu4pyscf sends arrays of over 100 MB past the pool and its limit
        runtime = cupy.cuda.runtime
        measure = getattr(runtime.memGetInfo, "measure", runtime.memGetInfo)
        runtime.memGetInfo = _FreeMemory(measure, self._pool, self.limit_bytes)

    def move(self, field: Any) -> Any:
        """`to_gpu()` of PySCF."""
        return field.to_gpu()

    def to_gpu(self, array: FloatArray) -> Any:
        """A CuPy array."""
        return self._cupy.asarray(array)

    def to_host(self, array: Any) -> FloatArray:
        """A NumPy array."""
        return np.asarray(self._cupy.asnumpy(array))

    def orbital_hessian(self, field: Any) -> OrbitalHessian:
        """gpu4pyscf's second-order solver's; vectors of rotations travel, matrices do not."""
        from gpu4pyscf.scf.soscf import gen_g_hop_uhf

        _, product, diagonal = gen_g_hop_uhf(field, field.mo_coeff, field.mo_occ)
        return lambda vector: self.to_host(product(self.to_gpu(vector))), self.to_host(diagonal)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """CuPy's own error, one of CUDA's, Python's, or gpu4pyscf's: it asserts that a block of arrays fits."""
        if isinstance(error, MemoryError):  # CuPy's is one
            return True
        text = str(error).lower()
        if "cudaerrormemoryallocation" in text or "out of memory" in text:
            return True
        return isinstance(error, AssertionError) and _is_of_block(error)

    def release(self) -> None:
        """Frees all blocks of the pools; mean-field objects hold themselves in cycles, so those are collected first."""
        gc.collect()
        self._on_each_device(self._pool.free_all_blocks)
        self._cupy.get_default_pinned_memory_pool().free_all_blocks()

    def _allocate(self, n_bytes: int) -> Any:
        """Memory of the pool, whose limit counts blocks that no array holds."""
        try:
            return self._pool.malloc(n_bytes)
        except MemoryError:
            self._pool.free_all_blocks()
            return self._pool.malloc(n_bytes)

    def _on_each_device(self, act: Callable[[], object]) -> None:
        for number in range(int(self._cupy.cuda.runtime.getDeviceCount())):
            with self._cupy.cuda.Device(number):  # of the pool's methods that act on the current device only
                act()


class _FreeMemory:
    """Stands for CUDA's `memGetInfo`: free is what this process may still take.

    gpu4pyscf sizes its buffers by the free memory of the GPU, which other labelers are about to use.

    Args:
        measure: CUDA's.
        pool: Of CuPy.
        limit_bytes: What its arrays may take.
    """

    def __init__(self, measure: Callable[[], tuple[int, int]], pool: Any, limit_bytes: int) -> None:
        self.measure = measure
        self._pool = pool
        self._limit_bytes = limit_bytes

    def __call__(self) -> tuple[int, int]:
        """Bytes that are free, and all of the GPU's; where few are, blocks that no array holds are given back first."""
        if 2 * self._left() < self._limit_bytes:
            self._pool.free_all_blocks()
        free, total = self.measure()
        return max(0, min(int(free), self._left())), int(total)

    def _left(self) -> int:
        return self._limit_bytes - int(self._pool.total_bytes())


def _is_of_block(error: BaseException) -> bool:
    """Whether the line that failed speaks of the size of a block or batch."""
    lines = traceback.extract_tb(error.__traceback__)
    return bool(lines) and any(name in str(lines[-1].line) for name in ("blksize", "batch_size"))


def for_arrays(share: float, total_bytes: int) -> int:
    """Bytes of a GPU that arrays of one labeler may take.

    Args:
        share: Of the GPU.
        total_bytes: Its memory.

    Raises:
        RuntimeError: Too little is left: too many labelers share it.
    """
    own = int(min(share, 1.0) * total_bytes)
    left = own - max(int((1.0 - POOL_SHARE) * own), CUDA_BYTES)
    if left < LEAST_BYTES:
        raise RuntimeError(
            f"{share:g} of a GPU of {total_bytes >> 20} MB leaves no memory for labels; raise labeling.gpus"
        )
    return left


class Device:
    """Where one engine computes.

    Args:
        mode: As in the config.
        gpus: GPUs the labeler was given; 0 for none.
        memory_mb: Limit on GPU memory; None for the share of it that was given.
        open_accelerator: Makes the accelerator from share and limit; called once, at the first label.

    Attributes:
        is_spent: Whether every further call of CUDA fails in this process, as after some of its errors.
    """

    def __init__(
        self,
        mode: DeviceMode,
        gpus: float,
        memory_mb: int | None = None,
        open_accelerator: Callable[[float, int | None], Accelerator] = GPU4PySCF,
    ) -> None:
        self._mode = mode
        self._gpus = gpus
        self._memory_mb = memory_mb
        self._open = open_accelerator
        self._accelerator: Accelerator | None = None
        self._problem: str | None = None if mode != "cpu" and gpus > 0 else "not asked for"
        self._too_large: int | None = None
        self._n_errors = 0
        self._active: Accelerator | None = None
        self.is_spent = False

    def run(self, frame: Frame, label: Callable[[Frame], Label | LabelFailure]) -> Label | LabelFailure:
        """Labels a frame, on the GPU where that is possible.

        Args:
            frame: The frame.
            label: Makes the label; sends its mean-field objects through `move`, `converged` and `gradient`.
        """
        if not self._prepare():
            if self._mode == "gpu":
                return LabelFailure(frame.frame_id, FailureKind.INTERNAL, f"no GPU: {self._problem}")
            return _made_on(label(frame), "")
        accelerator, size = self._accelerator, int(frame.numbers.sum())
        assert accelerator is not None
        if self._mode == "auto" and self._too_large is not None and size >= self._too_large:
            return _made_on(label(frame), "cpu")
        self._active = accelerator
        try:
            outcome = _made_on(label(frame), "gpu")
            self._n_errors = 0
            return outcome
        except AlsysError:  # of the frame, wherever it is computed
            raise
        except Exception as error:
            if accelerator.is_out_of_memory(error):
                kind, reason = FailureKind.OUT_OF_MEMORY, "GPU memory does not suffice"
                self._too_large = size if self._too_large is None else min(size, self._too_large)
            elif isinstance(error, NotImplementedError):
                kind, reason = FailureKind.UNSUPPORTED, f"gpu4pyscf cannot: {error}"
                self._problem = reason
            elif self._mode == "gpu":
                raise
            else:  # of which CuPy and gpu4pyscf have many kinds; a bug of ours fails on the CPU too
                kind, reason = FailureKind.INTERNAL, f"{type(error).__name__}: {error}"
                self._n_errors += 1
                if self._n_errors >= MAX_ERRORS:
                    self._problem = f"{self._n_errors} errors in a row, the last {reason}"
        finally:
            self._active = None
            self._release(accelerator)
        if self._mode == "gpu":
            return LabelFailure(frame.frame_id, kind, reason)
        logger.warning("frame %s of %d atoms goes to the CPU: %s", frame.frame_id, frame.n_atoms, reason)
        return _made_on(label(frame), "cpu")

    @property
    def is_gpu(self) -> bool:
        """Whether the label at hand is computed on a GPU."""
        return self._active is not None

    def move(self, field: Any) -> Any:
        """A mean-field object where this label is computed."""
        return field if self._active is None else self._active.move(field)

    def to_gpu(self, array: FloatArray) -> Any:
        """An array where this label is computed."""
        return array if self._active is None else self._active.to_gpu(array)

    def converged(self, field: Any, build: Callable[[], Any]) -> ConvergedSCF:
        """A converged mean-field object, to be looked at on the host.

        Args:
            field: Where this label is computed, without second-order solver.
            build: Makes a fresh object of the same calculation on the CPU.
        """
        return ConvergedSCF(field) if self._active is None else ConvergedSCF(field, build(), self._active.to_host)

    def is_minimum(self, scf: ConvergedSCF) -> bool:
        """Whether a solution was found to be a minimum on the GPU; False too where nobody looked.

        Looked at are unrestricted solutions; a restricted one is analysed as an unrestricted one, on the host.
        """
        if self._active is None or scf.is_on_host or not is_unrestricted(scf.levels):
            return False
        occupation = scf.levels.mo_occ
        if not any((n == 0).any() and (n > 0).any() for n in occupation):
            return True
        return lowest_eigenvalue(*self._active.orbital_hessian(scf.field))[0] > SADDLE

    def gradient(self, scf: ConvergedSCF) -> FloatArray:
        """``(n_atoms, 3)`` Hartree/Bohr, computed where this label is, from what is already there."""
        if self._active is None:
            return gradient(scf.field)
        field = self._active.move(scf.field) if scf.is_on_host else scf.field
        return np.asarray(field.nuc_grad_method().kernel())

    def _release(self, accelerator: Accelerator) -> None:
        try:
            accelerator.release()
        except Exception:
            self.is_spent = True
            if self._mode == "gpu":
                raise

    def _prepare(self) -> bool:
        """Whether there is an accelerator; opens it at the first call."""
        if self._problem is None and self._accelerator is None:
            try:
                self._accelerator = self._open(self._gpus, self._memory_mb)
            except Exception as error:  # a missing package, driver or device shows in many ways
                self._problem = f"{type(error).__name__}: {error}"
                logger.warning("no GPU for labels: %s", self._problem)
        return self._problem is None


def gpu_problem() -> str | None:
    """Why gpu4pyscf cannot run here; None where it can."""
    try:
        import cupy

        if int(cupy.cuda.runtime.getDeviceCount()) < 1:
            return "no CUDA device"
        importlib.import_module("gpu4pyscf")
    except Exception as error:  # a missing package, driver or device shows in many ways
        return f"{type(error).__name__}: {error}"
    return None


def _made_on(outcome: Label | LabelFailure, device: str) -> Label | LabelFailure:
    return replace(outcome, cost=replace(outcome.cost, host=device))
