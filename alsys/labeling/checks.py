"""What every labeler refuses, before it starts or before it computes."""

from __future__ import annotations

from ase.data import chemical_symbols, covalent_radii

from alsys.dynamics.geometry import nearest_pair
from alsys.errors import InputError
from alsys.frames import Frame

FUSED = 0.3
"""Share of the covalent sum below which two atoms stand on top of each other."""


def wrong_setting(settings: object, name: str, message: str, remedy: str | None = None) -> InputError:
    """The error of one field of the section `labeling`, which names its value."""
    return InputError(message, field=f"labeling.{name}", value=getattr(settings, name), remedy=remedy)


def check_restricted(reference: str, frame: Frame) -> None:
    """Refuses an open shell with a restricted reference.

    Raises:
        InputError: It is one.
    """
    if reference == "restricted" and frame.multiplicity != 1:
        raise InputError(
            "a restricted reference needs a singlet",
            field="labeling.reference",
            value=f"multiplicity {frame.multiplicity}",
            remedy="use `auto` or `unrestricted`",
        )


def check_electrons(frame: Frame) -> None:
    """Refuses a spin that the number of electrons does not allow.

    Raises:
        InputError: Wrong parity, too many unpaired electrons, or no electrons at all.
    """
    electrons = int(frame.numbers.sum()) - frame.charge
    unpaired = frame.multiplicity - 1
    if electrons < 1:
        raise InputError("leaves no electrons", field="charge", value=frame.charge)
    if (electrons - unpaired) % 2 or unpaired > electrons:
        parity = "odd" if electrons % 2 == 0 else "even"
        raise InputError(
            f"is impossible with {electrons} electrons",
            field="multiplicity",
            value=frame.multiplicity,
            remedy=f"use an {parity} multiplicity of at most {electrons + 1}, or change the charge",
        )


def check_alone(frame: Frame) -> None:
    """Refuses a frame in point charges, for a level that knows none and would leave them out.

    Raises:
        InputError: There are point charges around it.
    """
    if frame.environment is not None:
        raise InputError(
            "is in point charges, which this level of theory cannot treat",
            field="environment",
            value=f"{frame.environment.n_charges} charges",
            remedy="label with kind: pyscf and method: dft or hf, or leave exploration.carve.embedding out",
        )


def fused_atoms(frame: Frame) -> str | None:
    """Describes two atoms, or nearest images, that stand on top of each other; None where there are none."""
    i, j, ratio = nearest_pair(frame, FUSED)
    if ratio >= FUSED:
        return None
    first, second = (f"{k} ({chemical_symbols[frame.numbers[k]]})" for k in (i, j))
    distance = ratio * float(covalent_radii[frame.numbers[i]] + covalent_radii[frame.numbers[j]])
    return f"atoms {first} and {second} are {distance:.3f} Angstrom apart"
