"""The rescue ladder: what to try, in which order, when an SCF does not converge.

Each rung is tried only after the one before has failed, and the rung that converged is recorded with the label. A rung
starts from the density that the one before left, except where that density is at fault: another guess and smearing
start anew. Smearing gives a guess only: the energy always belongs to an SCF with integer occupation. `stability` takes
over once there is a solution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

SMEARING = (0.03, 0.01)
"""Temperatures of the smeared SCFs, one after another, Hartree."""
DAMPING = 0.3
DAMPED_CYCLES = 4
"""Iterations that are damped: PySCF damps only those before DIIS begins."""
LEVEL_SHIFT = 0.3
"""Level shift of the damped rung, Hartree."""


class Rung(IntEnum):
    """Where on the ladder a label comes from; stored with it, so numbers keep their meaning."""

    DIIS = 0
    """Plain DIIS, from the given guess where there is one."""
    OTHER_GUESS = 1
    """DIIS from superposed atoms, after the given guess failed."""
    DAMPED = 2
    """Damping and level shift."""
    NEWTON = 3
    """Second-order Newton."""
    SMEARED = 4
    """Second-order Newton from a density with fractional occupation."""
    STABILISED = 5
    """A saddle was found by stability analysis and left for a lower solution."""
    UNSTABLE = 6
    """A restricted solution above a broken-symmetry one, kept because a restricted one was asked for."""
    EXHAUSTED = 7
    """Nothing helped: there is no label."""

    @property
    def title(self) -> str:
        """In words, for messages."""
        return _TITLES[self]


_TITLES = {
    Rung.DIIS: "DIIS",
    Rung.OTHER_GUESS: "another guess",
    Rung.DAMPED: "damping and level shift",
    Rung.NEWTON: "second-order Newton",
    Rung.SMEARED: "smeared guess",
    Rung.STABILISED: "stability analysis",
    Rung.UNSTABLE: "unstable restricted solution",
    Rung.EXHAUSTED: "nothing",
}
RUNGS = tuple(rung.title for rung in Rung if rung <= Rung.SMEARED)
"""The rungs of convergence, in words."""

Guess = Callable[[Any], Any]
"""From a fresh mean-field object to a density matrix in its basis (``(nao, nao)`` restricted, ``(2, nao, nao)``
unrestricted), or to None where there is none."""


@dataclass(frozen=True, slots=True)
class Host:
    """The CPU beside a GPU, for a step of the ladder that is made there.

    Attributes:
        build: Makes a fresh mean-field object on the CPU.
        to_gpu: Copies an array to the GPU.
    """

    build: Callable[[], Any]
    to_gpu: Callable[[Any], Any]


def converge(
    build: Callable[[], Any], max_cycles: int, guess: Guess | None = None, host: Host | None = None
) -> tuple[Any, int, int]:
    """Runs an SCF up the ladder.

    Args:
        build: Makes a fresh mean-field object.
        max_cycles: Iterations for each rung.
        guess: Density of the first SCF; a density that is not finite counts as none.
        host: Where `build` makes objects on a GPU: smearing is for the CPU.

    Returns:
        The mean-field object of the last rung, that rung (`Rung.EXHAUSTED` where none converged), and the SCF
        iterations of all rungs.
    """
    field = build()
    density = _finite(guess(field)) if guess is not None else None
    has_guess = density is not None
    cycles = 0
    for rung in (Rung.DIIS, Rung.OTHER_GUESS, Rung.DAMPED, Rung.NEWTON, Rung.SMEARED):
        if rung is Rung.OTHER_GUESS and not has_guess:
            continue
        if rung is not Rung.DIIS:
            field = build()
        if rung is Rung.OTHER_GUESS:
            density = None
        elif rung is Rung.DAMPED:
            field.damp, field.diis_start_cycle = DAMPING, DAMPED_CYCLES + 1
            field.level_shift = max(float(field.level_shift or 0.0), LEVEL_SHIFT)  # gpu4pyscf has None for none
        elif rung is Rung.SMEARED:
            density, used = smeared_density(build if host is None else host.build, max_cycles)
            density = density if host is None or density is None else host.to_gpu(density)
            cycles += used
        if rung in (Rung.NEWTON, Rung.SMEARED):
            field = field.newton()
        field.max_cycle = max_cycles
        is_converged = run_scf(field, density)
        cycles += cycles_of(field)
        if is_converged:
            return field, rung, cycles
        density = None if field.mo_occ is None else _finite(field.make_rdm1())
    return field, Rung.EXHAUSTED, cycles


def run_scf(field: Any, density: Any = None, orbitals: tuple[Any, Any] | None = None) -> bool:
    """Runs one SCF from a density, or, second-order, from orbitals and their occupation.

    Returns:
        Whether it converged to a finite energy. Linear algebra that breaks down on the way counts as no convergence.
    """
    is_second_order = hasattr(field, "undo_newton")
    if is_second_order:  # these count nothing themselves, and begin with the number of what they were made of
        field.cycles, field.callback = 0, lambda variables: _count(field, variables)
    try:
        if orbitals is not None:
            field.kernel(*orbitals)
        else:
            field.kernel(dm0=density)
    except (np.linalg.LinAlgError, RuntimeError) as error:
        if type(error).__name__ != "LinAlgError":  # gpu4pyscf's is a RuntimeError
            raise
        return False
    except ValueError as error:  # scipy's check before a diagonalisation
        if "infs or NaNs" not in str(error):
            raise
        return False
    finally:
        if is_second_order:
            field.callback = None
    return bool(field.converged) and bool(np.isfinite(field.e_tot))


def smeared_density(build: Callable[[], Any], max_cycles: int) -> tuple[Any, int]:
    """Density with Fermi occupation, cooled step by step; a guess, never a result.

    Returns:
        The density, or None where smearing does not apply (a spin channel without electrons), and the iterations.
    """
    from pyscf.scf.addons import smearing

    density: Any = None
    cycles = 0
    for sigma in SMEARING:
        field = build()
        if min(field.mol.nelec) == 0:
            return None, cycles
        field = smearing(field, sigma=sigma, method="fermi", fix_spin=True)
        field.conv_tol = 1e-6
        field.max_cycle = max_cycles
        run_scf(field, density)
        cycles += cycles_of(field)
        density = None if field.mo_occ is None else _finite(field.make_rdm1())
    return density, cycles


def cycles_of(field: Any) -> int:
    """Iterations of the last SCF of a mean-field object."""
    return int(getattr(field, "cycles", 0))


def _count(field: Any, variables: dict[str, Any]) -> None:
    """Called by second-order solvers, of PySCF and gpu4pyscf, with the variables of their loop."""
    field.cycles = int(variables["imacro"]) + 1


def _finite(density: Any) -> Any:
    return density if density is not None and np.isfinite(density).all() else None
