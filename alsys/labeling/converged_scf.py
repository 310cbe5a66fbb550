"""A converged SCF where it was computed, and as much of it on the host as is asked for.

On a GPU the mean-field object stays there until the gradient is taken: orbitals, grid and screened pairs serve both. To
the host go orbital energies and occupation, and the orbitals where something on the host needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alsys.frames import FloatArray


class ConvergedSCF:
    """A converged mean-field object.

    Args:
        field: Where it was computed.
        host: A fresh object of the same calculation on the CPU, which is filled; None where `field` is one.
        copy: Copies an array of the GPU to the host.

    Attributes:
        field: As given.
        is_on_host: Whether it was computed on the CPU.
    """

    def __init__(self, field: Any, host: Any = None, copy: Callable[[Any], FloatArray] | None = None) -> None:
        self.field = field
        self._copy = copy
        self.is_on_host = host is None or copy is None
        if host is None or copy is None:
            self._host = field
            return
        self._host = host
        host.mo_energy, host.mo_occ = copy(field.mo_energy), copy(field.mo_occ)
        host.e_tot, host.converged, host.cycles = float(field.e_tot), bool(field.converged), int(field.cycles)

    @property
    def levels(self) -> Any:
        """On the CPU: energy, orbital energies and occupation; orbitals only where they were asked for."""
        return self._host

    @property
    def host(self) -> Any:
        """On the CPU with its orbitals, which are copied once."""
        if self._copy is not None and self._host.mo_coeff is None:
            self._host.mo_coeff = self._copy(self.field.mo_coeff)
        return self._host
