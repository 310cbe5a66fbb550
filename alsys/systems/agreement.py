"""What a structure file or a SMILES says, held against the config: it agrees, or it is refused in one line.

What the user has named in `ignore` is left out and noted; everything that was taken or left out is a note for the plan.
"""

from __future__ import annotations

from collections.abc import Sequence

from alsys.errors import InputError
from alsys.systems.files.content import Statement, Structure


def settle(
    structure: Structure, *, field: str, value: str, charge: int, multiplicity: int | None, ignore: Sequence[str]
) -> list[str]:
    """Notes on what was taken from a file and what was left out.

    Args:
        structure: What the file says.
        field: ``file`` or ``smiles``.
        value: Its name, for errors.
        charge: Of the config.
        multiplicity: Of the config; None where it has none, as for a component.
        ignore: What the user leaves out.

    Raises:
        InputError: The file says something else than the config, or something that cannot be kept.
    """
    notes = list(structure.notes)
    given = {"charge": charge, "multiplicity": multiplicity or 1}
    protons = int(structure.atoms.numbers.sum())
    for statement in _unique(structure.statements):
        if statement.quantity == "multiplicity" and multiplicity is None:
            notes.append(f"{statement.text}: left out, a component has no multiplicity of its own")
            continue
        configured = given[statement.quantity]
        if configured in statement.values:
            notes.append(f"{statement.quantity} {_signed(statement.quantity, configured)}: {statement.text}")
        elif statement.quantity in ignore:
            notes.append(f"{statement.text}: ignored")
        else:
            raise _contradiction(statement, configured, protons - charge, field, value)
    for concern in structure.concerns:
        if concern.kind not in ignore:
            raise InputError(
                concern.message, field=field, value=value,
                remedy=f"{concern.remedy}, or set ignore: [{concern.kind}] ({concern.consequence})",
            )  # fmt: skip
        notes.append(f"{concern.message}: ignored, {concern.consequence}")
    return notes


def _unique(statements: Sequence[Statement]) -> list[Statement]:
    """Each statement once; one charge that is said in two ways is two."""
    seen: dict[tuple[str, frozenset[int]], Statement] = {}
    for statement in statements:
        seen.setdefault((statement.quantity, statement.values), statement)
    return list(seen.values())


def _contradiction(statement: Statement, configured: int, electrons: int, field: str, value: str) -> InputError:
    """The refusal of a charge or multiplicity that the config does not have."""
    possible = sorted(statement.values)
    if statement.quantity == "multiplicity":
        fitting = [m for m in possible if (electrons - m + 1) % 2 == 0]
        possible = fitting or possible
    choices = " or ".join(str(v) for v in possible)
    return InputError(
        f"says {statement.text}, `{statement.quantity}` is {_signed(statement.quantity, configured)}",
        field=field,
        value=value,
        remedy=f"set {statement.quantity}: {choices}, or ignore: [{statement.quantity}] where the {field} is wrong",
    )


def _signed(quantity: str, number: int) -> str:
    return f"{number:+d}" if quantity == "charge" else str(number)
