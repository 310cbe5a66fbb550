"""What ANI-1x treats; importable without torch."""

from __future__ import annotations

from typing import Final

from ase.data import chemical_symbols

from alsys.errors import InputError
from alsys.frames import Frame

ELEMENTS: Final = (1, 6, 7, 8)
"""Atomic numbers: H, C, N, O."""


def check_frame(frame: Frame) -> None:
    """Refuses all but neutral singlets, and free atoms, of H, C, N and O without a cell.

    Raises:
        InputError: Names the field of the frame.
    """
    if unknown := sorted({int(z) for z in frame.numbers} - set(ELEMENTS)):
        raise InputError("ANI-1x knows H, C, N and O only", field="element", value=chemical_symbols[unknown[0]])
    if frame.pbc.any():
        raise InputError("ANI-1x is for molecules", field="pbc", value=frame.pbc.tolist())
    if frame.charge:
        raise InputError("ANI-1x knows neutral molecules only", field="charge", value=frame.charge)
    if frame.multiplicity != 1 and frame.n_atoms > 1:
        raise InputError("ANI-1x knows singlets only", field="multiplicity", value=frame.multiplicity)
