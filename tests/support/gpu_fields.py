"""A stand-in of gpu4pyscf 1.9: its signatures, its rules of what is kept, and arrays that stay where they are.

PySCF computes underneath. `Card` counts what a real one would do: three-centre integrals, Fock matrices, copies. Its
rules, each read in gpu4pyscf 1.9.2: integrals belong to `with_df`, a functional without exact exchange has none, a
gradient drops them (df/grad/rhf.py); of a level shift that is not None one more Fock matrix is made (scf/hf.py); the
second-order solver takes no NumPy density (df/df_jk.py).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from alsys.frames import FloatArray


class GPUArray:
    """An array of a GPU: like CuPy's it refuses to become a NumPy array, or to be mixed with one."""

    def __init__(self, values: Any) -> None:
        self._values = np.asarray(values)

    def __array__(self, *_: object, **__: object) -> FloatArray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> GPUArray:
        if any(isinstance(x, np.ndarray) for x in inputs):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        values = [x._values if isinstance(x, GPUArray) else x for x in inputs]
        return GPUArray(getattr(ufunc, method)(*values, **kwargs))

    def all(self) -> GPUArray:
        return GPUArray(self._values.all())

    def __bool__(self) -> bool:
        return bool(self._values)

    def get(self) -> FloatArray:
        return self._values.copy()

    @property
    def ndim(self) -> int:
        return self._values.ndim


class Card:
    """An `Accelerator`; counts.

    Args:
        n_failures: SCFs that do not converge, the first ones.

    Attributes:
        breaks_symmetry: Whether a first density may; without, unrestricted singlets end in saddles.
    """

    def __init__(self, n_failures: int = 0) -> None:
        self.n_failures = n_failures
        self.n_integrals = self.n_focks = self.n_released = self.n_hessians = 0
        self.breaks_symmetry = True
        self.moved: list[Field] = []
        self.to_card: list[tuple[int, ...]] = []
        self.to_hosts: list[tuple[int, ...]] = []
        self.ran: list[Field] = []

    def move(self, field: Any) -> MeanField:
        made = MeanField(self, field)
        self.moved.append(made)
        return made

    def to_gpu(self, array: FloatArray) -> GPUArray:
        self.to_card.append(array.shape)
        return GPUArray(array)

    def to_host(self, array: GPUArray) -> FloatArray:
        assert isinstance(array, GPUArray)
        self.to_hosts.append(array.get().shape)
        return array.get()

    def orbital_hessian(self, field: Field) -> tuple[Callable[[FloatArray], FloatArray], FloatArray]:
        from pyscf.soscf import newton_ah

        self.n_hessians += 1
        cpu = field._cpu
        _, product, diagonal = newton_ah.gen_g_hop_uhf(cpu, cpu.mo_coeff, cpu.mo_occ, with_symmetry=False)
        return product, diagonal

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError)

    def release(self) -> None:
        self.n_released += 1


class DensityFitting:
    """gpu4pyscf.df.df.DF."""

    def __init__(self, card: Card, auxmol: Any) -> None:
        self._card = card
        self.auxmol = auxmol
        self._kinds: set[float] = set()

    def need(self, field: Any) -> None:
        """Integrals of an SCF: of the full Coulomb operator and, range-separated, of the long-ranged one."""
        self.auxmol = "built"
        omega, alpha, hyb = (
            field._numint.rsh_and_hybrid_coeff(field.xc, spin=field.mol.spin) if hasattr(field, "xc") else (0, 1, 1)
        )
        kinds = set() if omega == alpha == hyb == 0 else {0.0} | ({omega} if omega else set())
        self._card.n_integrals += len(kinds - self._kinds)
        self._kinds |= kinds

    def reset(self, mol: Any = None) -> DensityFitting:
        self._kinds = set()
        return self


class Field:
    """What first- and second-order mean-field objects share."""

    damp: float | None = None
    level_shift: float | None = None
    diis_start_cycle = 1
    init_guess_breaksym = 0
    callback: Any = None

    def __init__(self, card: Card, field: Any) -> None:
        self._card, self._cpu, self.mol = card, field, field.mol
        for name in ("damp", "level_shift", "diis_start_cycle", "init_guess_breaksym"):
            if name in vars(field):  # to_gpu copies what an object has of its own, not what its class has
                setattr(self, name, getattr(field, name))
        self.max_cycle, self.conv_tol = field.max_cycle, field.conv_tol
        self.mo_energy, self.mo_coeff, self.mo_occ = (
            None if x is None else GPUArray(x) for x in (field.mo_energy, field.mo_coeff, field.mo_occ)
        )
        self.converged, self.e_tot, self.cycles = field.converged, field.e_tot, 0
        if hasattr(field, "with_df"):
            self.with_df = DensityFitting(card, field.with_df.auxmol)

    def make_rdm1(self, mo_coeff: Any = None, mo_occ: Any = None, **kwargs: Any) -> GPUArray:
        return GPUArray(self._cpu.make_rdm1())

    def spin_square(self, mo_coeff: Any = None, s: Any = None) -> tuple[float, float]:
        found: tuple[float, float] = self._cpu.spin_square()
        return found

    def _prepared(self) -> Any:
        self._card.ran.append(self)
        if hasattr(self, "with_df"):
            self.with_df.need(self._cpu)
        fails = self._card.n_failures > 0
        self._card.n_failures -= fails
        cpu = self._cpu
        cpu.damp, cpu.level_shift, cpu.diis_start_cycle = self.damp or 0, self.level_shift or 0, self.diis_start_cycle
        cpu.max_cycle = 1 if fails else self.max_cycle
        cpu.init_guess_breaksym = self.init_guess_breaksym if self._card.breaks_symmetry else 0
        return cpu

    def _finish(self, cpu: Any) -> float:
        self._cpu = cpu
        self.converged, self.e_tot, self.cycles = cpu.converged, cpu.e_tot, cpu.cycles
        self.mo_energy, self.mo_coeff, self.mo_occ = map(GPUArray, (cpu.mo_energy, cpu.mo_coeff, cpu.mo_occ))
        return float(cpu.e_tot)


class MeanField(Field):
    """gpu4pyscf.scf.hf.SCF, made by `to_gpu()` of a mean-field object of PySCF."""

    def kernel(self, dm0: Any = None, **kwargs: Any) -> float:
        density = dm0.get() if isinstance(dm0, GPUArray) else dm0
        cpu = self._prepared()
        cpu.kernel(dm0=density)
        self._card.n_focks += cpu.cycles + (self.level_shift is not None)
        return self._finish(cpu)

    def newton(self) -> NewtonField:
        return NewtonField(self)

    def nuc_grad_method(self) -> Gradients:
        return Gradients(self)


class NewtonField(Field):
    """gpu4pyscf.scf.soscf._CIAH_SOSCF."""

    def __init__(self, field: MeanField) -> None:
        self.__dict__.update(field.__dict__)
        self._scf = field

    def kernel(self, mo_coeff: Any = None, mo_occ: Any = None, dm0: Any = None) -> float:
        if isinstance(dm0, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        cpu = self._prepared().newton()
        cpu.max_cycle, cpu.callback = cpu._scf.max_cycle, self.callback
        cpu.kernel(dm0=None if dm0 is None else dm0.get())
        cycles = self.cycles  # which the solver leaves alone
        energy = self._finish(cpu.undo_newton())
        self.cycles = cycles
        return energy

    def undo_newton(self) -> MeanField:
        plain = copy.copy(self._scf)
        plain.__dict__.update({name: value for name, value in self.__dict__.items() if name != "_scf"})
        return plain


class Gradients:
    """gpu4pyscf.df.grad.rhf.Gradients."""

    def __init__(self, method: MeanField) -> None:
        self.base = method

    def kernel(self, mo_energy: Any = None, mo_coeff: Any = None, mo_occ: Any = None, atmlst: Any = None) -> FloatArray:
        if self.base.mo_energy is None:
            self.base.kernel()
        if hasattr(self.base, "with_df"):
            assert self.base.with_df.auxmol is not None
            self.base.with_df.reset()
        forces: FloatArray = np.asarray(self.base._cpu.nuc_grad_method().kernel())
        return forces
