"""Where PySCF computes: on the CPU, or on a GPU through gpu4pyscf (X. Wu et al., arXiv:2407.09700).

The level of theory does not depend on it. A labeler uses a GPU where it was given one (`labeling.gpus`) and `device` is
not `cpu`. With `auto`, whatever goes wrong on the GPU, the frame is labelled again on the CPU: of lack of memory all
later frames of that size or larger too, of what gpu4pyscf cannot do, and of `MAX_ERRORS` other errors in a row, all
frames. With `gpu` a label fails there as it failed. Every label says in `LabelCost.host` where it was made.
`Accelerator` is the seam: all that touches CUDA is in `GPU4PySCF`.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np

from alsys.errors import AlsysError, FailureKind
from alsys.frames import FloatArray, Frame
from alsys.labeling.gradients import gradient
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


class Accelerator(Protocol):
    """Moves mean-field objects of PySCF to a GPU and back."""

    def move(self, field: Any) -> Any:
        """The same calculation on the GPU; orbitals go along."""
        ...

    def fetch(self, field: Any) -> Any:
        """The same calculation on the CPU, with its orbitals."""
        ...

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error says that GPU memory does not suffice."""
        ...

    def release(self) -> None:
        """Gives back memory that no array holds."""
        ...


class GPU4PySCF:
    """gpu4pyscf, with a limit on what its arrays take.

    Args:
        share: Share of the GPU this process was given, at most 1.
        memory_mb: Limit; None for that share of the GPU's memory.

    Raises:
        ImportError: gpu4pyscf or cupy is missing.
        RuntimeError: There is no CUDA device, or its share leaves no memory.
    """

    def __init__(self, share: float, memory_mb: int | None) -> None:
        import cupy
        import gpu4pyscf  # noqa: F401  its import sets limit and allocator, which are set again below

        self._cupy = cupy
        self._pool = cupy.get_default_memory_pool()
        total = int(cupy.cuda.runtime.memGetInfo()[1])
        self.limit_bytes = memory_mb * 2**20 if memory_mb else for_arrays(share, total)
        self._pool.set_limit(size=self.limit_bytes)
        cupy.cuda.set_allocator(self._pool.malloc)  # gpu4pyscf sends arrays of over 100 MB past the pool and its limit

    def move(self, field: Any) -> Any:
        """`to_gpu()` of PySCF."""
        return field.to_gpu()

    def fetch(self, field: Any) -> Any:
        """`to_cpu()` of gpu4pyscf."""
        return field.to_cpu()

    def is_out_of_memory(self, error: BaseException) -> bool:
        """CuPy's own error, or one of CUDA's."""
        if isinstance(error, self._cupy.cuda.memory.OutOfMemoryError):
            return True
        text = str(error).lower()
        return "cudaerrormemoryallocation" in text or "out of memory" in text

    def release(self) -> None:
        """Frees all blocks of the pools; mean-field objects hold themselves in cycles, so those are collected first."""
        gc.collect()
        self._pool.free_all_blocks()
        self._cupy.get_default_pinned_memory_pool().free_all_blocks()


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
        self._is_active = False

    def run(self, frame: Frame, label: Callable[[Frame], Label | LabelFailure]) -> Label | LabelFailure:
        """Labels a frame, on the GPU where that is possible.

        Args:
            frame: The frame.
            label: Makes the label; sends its mean-field objects through `move`, `fetch` and `gradient`.
        """
        if not self._prepare():
            if self._mode == "gpu":
                return LabelFailure(frame.frame_id, FailureKind.INTERNAL, f"no GPU: {self._problem}")
            return _made_on(label(frame), "")
        accelerator, size = self._accelerator, int(frame.numbers.sum())
        assert accelerator is not None
        if self._mode == "auto" and self._too_large is not None and size >= self._too_large:
            return _made_on(label(frame), "cpu")
        self._is_active = True
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
            self._is_active = False
            with contextlib.suppress(Exception) if self._mode == "auto" else contextlib.nullcontext():
                accelerator.release()  # after some errors of CUDA every further call fails
        if self._mode == "gpu":
            return LabelFailure(frame.frame_id, kind, reason)
        logger.warning("frame %s of %d atoms goes to the CPU: %s", frame.frame_id, frame.n_atoms, reason)
        return _made_on(label(frame), "cpu")

    @property
    def is_gpu(self) -> bool:
        """Whether the label at hand is computed on a GPU."""
        return self._is_active

    def move(self, field: Any) -> Any:
        """A mean-field object where this label is computed."""
        return self._accelerator.move(field) if self._is_active and self._accelerator is not None else field

    def fetch(self, field: Any) -> Any:
        """A mean-field object on the CPU."""
        return self._accelerator.fetch(field) if self._is_active and self._accelerator is not None else field

    def gradient(self, field: Any) -> FloatArray:
        """``(n_atoms, 3)`` Hartree/Bohr, of a converged object on the CPU, computed where this label is."""
        if self._is_active:
            return np.asarray(self.move(field).nuc_grad_method().kernel())
        return gradient(field)

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
        import gpu4pyscf  # noqa: F401
    except Exception as error:  # a missing package, driver or device shows in many ways
        return f"{type(error).__name__}: {error}"
    return None


def _made_on(outcome: Label | LabelFailure, device: str) -> Label | LabelFailure:
    return replace(outcome, cost=replace(outcome.cost, host=device))
