"""What free text and key-value pairs say in structure files of any format: charge, spin, units, atoms that are held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from alsys.said import NO, held_in_text, holds_atoms, is_angstrom, unit_of
from alsys.states import electron_word
from alsys.systems.files.content import Concern, Structure, constraints, in_unit, not_used
from alsys.systems.files.statements import (
    channels_in,
    check_understood,
    electrons_in,
    formula_in,
    statements_in,
    statements_of,
    unit_in,
)


def with_texts(
    structure: Structure, texts: Iterable[str], *, has_units: bool = True, has_all_electrons: bool = True
) -> Structure:
    """With what lines of free text say: comments, titles, remarks.

    Args:
        structure: Its atoms are those that the text is about.
        texts: The lines.
        has_units: Whether a unit of length in them is that of the coordinates.
        has_all_electrons: Whether a number of electrons in them counts those of cores.

    Raises:
        FileProblem: A charge or multiplicity that is none.
    """
    protons, formula = int(structure.atoms.numbers.sum()), structure.atoms.symbols.formula
    for text in texts:
        statements = [*statements_in(text), *formula_in(text, formula)]
        statements += electrons_in(text, protons) if has_all_electrons else []
        concerns: list[Concern] = []
        if (held := held_in_text(text)) and not _holds(structure):
            concerns.append(constraints(held))
        if has_units and (unit := unit_in(text)) and not any(one.kind == "units" for one in structure.concerns):
            concerns.append(in_unit(unit, text.strip()[:60]))
        structure = structure.adding(statements=statements, concerns=concerns)
    return structure


def with_pairs(structure: Structure, pairs: Mapping[str, str]) -> Structure:
    """With what values say by their names; names that say nothing are noted.

    Args:
        structure: Its atoms are those that the pairs are about.
        pairs: Values as text; those of the structure itself are not among them.

    Raises:
        FileProblem: A charge or multiplicity that is none, or that may be one in a way that is not understood.
    """
    protons, formula = int(structure.atoms.numbers.sum()), structure.atoms.symbols.formula
    spelled = " ".join(f"{key}={value}" for key, value in pairs.items())
    statements = [*statements_of(pairs), *electrons_in(spelled, protons)]
    statements += [*channels_in(spelled), *formula_in(spelled, formula)]
    held = [
        f"{key}={value[:40]}" for key, value in pairs.items() if holds_atoms(key) and value.lower() not in NO - {"0"}
    ]
    concerns = [constraints(held[0])] if held and not _holds(structure) else []
    lengths = {key: value for key, value in pairs.items() if unit_of(key) == "length"}
    others = [(unit, f"{key}={unit}") for key, unit in lengths.items() if not is_angstrom(unit)]
    others += [(unit, spelled[:60])] if (unit := unit_in(spelled)) else []
    concerns += [in_unit(*other) for other in others[:1]]
    unused = [
        key
        for key, value in pairs.items()
        if not (
            key in lengths
            or holds_atoms(key)
            or electron_word(key.lower()) in ("electrons", "channel")
            or statements_of({key: value})
        )
    ]
    check_understood({key: pairs[key] for key in unused}, {statement.quantity for statement in statements})
    return structure.adding(statements=statements, concerns=concerns, notes=not_used(unused))


def _holds(structure: Structure) -> bool:
    return any(one.kind == "fixed-atoms" for one in structure.concerns)
