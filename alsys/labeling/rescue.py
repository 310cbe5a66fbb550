"""The rescue ladder: what to try, in which order, when an SCF does not converge.

Each rung starts from the density that the one before left. The rung that converged is recorded with the label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

RUNGS = ("diis", "damping and level shift", "second-order Newton")


def converge(build: Callable[[], Any], max_cycles: int) -> tuple[Any, int, int]:
    """Runs an SCF up the ladder.

    Args:
        build: Makes a fresh mean-field object.
        max_cycles: Iterations for each rung.

    Returns:
        The mean-field object of the last rung, that rung, and the SCF iterations of all rungs.
    """
    cycles = 0
    density: Any = None
    field: Any = None
    for rung in range(len(RUNGS)):
        field = build()
        field.max_cycle = max_cycles
        if rung == 1:
            field.damp = 0.3
            field.level_shift = 0.3
        elif rung == 2:
            field = field.newton()
            field.max_cycle = max_cycles
        field.kernel(dm0=density)
        cycles += int(getattr(field, "cycles", 0))
        if field.converged:
            return field, rung, cycles
        density = field.make_rdm1()
    return field, len(RUNGS), cycles
