"""What the comment line of a frame says: key-value pairs, and free text by the words of structure files.

A charge or multiplicity that free text can mean in one way only is taken where no key states one. Else the text must
agree with what is stated or what the user gave: `cation` is refused of a neutral frame.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from ase.data import ground_state_magnetic_moments
from ase.formula import Formula
from numpy.typing import ArrayLike

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.said import doubt_of, failure_in
from alsys.states import formula_of
from alsys.systems.files.content import FileProblem, Statement
from alsys.systems.files.statements import electrons_in, formula_in, pair_in, statements_in, unit_in

MAX_TEXT = 20_000
"""Characters of free text."""
REMEDY = "state `charge=` and `multiplicity=`, and remove the text where it says something else"
_PAIR = re.compile(
    r"""("[^"]*"|'[^']*'|[^\s=,;"'{}]+)\s*=\s*
        ("(?:[^"\\]|\\.)*"|'[^']*'|\{(?:[^{}]|\{[^{}]*\})*\}|\[(?:[^\[\]]|\[[^\[\]]*\])*\]|\S+)""",
    re.VERBOSE,
)
_ESCAPED = re.compile(r"\\(.)")


def pairs_in(comment: str, place: str) -> tuple[dict[str, str], str]:
    """What a comment line says, by the names that it uses, and its text that is in no pair.

    Args:
        comment: The line.
        place: What the frame is called.

    Raises:
        InputError: A name with two values.
    """
    info: dict[str, str] = {}
    between, end = "", 0
    for match in _PAIR.finditer(comment):
        between, end = f"{between}{comment[end : match.start()]} ", match.end()
        name, text = match[1].strip("\"'"), _text(match[2])
        if info.setdefault(name, text) != text:
            raise InputError(
                "stands twice, with two values", field=f"{place}: {name}", value=f"{info[name]} and {text}"
            )
    return info, " ".join(f"{between}{comment[end:]}".split())


def free_text_in(
    text: str, numbers: ArrayLike, charge: int | None, multiplicity: int | None, account: FileAccount, place: str
) -> tuple[int | None, int | None, tuple[tuple[str, str], ...]]:
    """Charge, multiplicity and units with what free text says of them; the account is told a text that says nothing.

    Args:
        text: What of a comment is in no key-value pair.
        numbers: ``(n_atoms,)`` atomic numbers.
        charge: That the frame states elsewhere; None for none.
        multiplicity: Likewise.
        account: Of the file.
        place: What the frame is called.

    Raises:
        InputError: The text contradicts them, may speak of them in a way that is not understood, is too long, or says
            that the calculation failed.
    """
    z, field, shown = np.asarray(numbers), f"{place}: comment", text[:60]
    if len(text) > MAX_TEXT:
        raise InputError(f"has a text of {len(text)} characters", field=field, value=shown, remedy="shorten it")
    if why := failure_in(text):
        raise InputError(why, field=field, value=shown, remedy="leave such frames out (--skip)")
    try:
        said = _statements(text, int(z.sum()), formula_of(z))
    except FileProblem as error:
        raise InputError(str(error), field=field, value=shown, remedy=error.remedy) from None
    charges, multiplicities = ([one for one in said if one.quantity == what] for what in ("charge", "multiplicity"))
    doubt = doubt_of(text)
    known = {
        "charge": charges or charge,
        "number of electrons": charges or charge,
        "spin": multiplicities or multiplicity or account.multiplicity,
    }
    if doubt in known and known[doubt] in (None, []):
        raise InputError(
            f"may state the {doubt}, in a way that is not understood", field=field, value=shown, remedy=REMEDY
        )
    unit = unit_in(text)
    if not (said or unit) and any(letter.isalnum() for letter in text):
        account.skip_text(text, place)
    lowest = round(float(ground_state_magnetic_moments[z[0]])) + 1 if z.size == 1 else 1
    return (
        _agreeing(charges, charge, account.charge, field),
        _agreeing(multiplicities, multiplicity, account.multiplicity or lowest, field),
        (("length", unit),) if unit else (),
    )


@lru_cache(maxsize=64)
def _statements(text: str, protons: int, formula: str) -> tuple[Statement, ...]:
    return (
        *statements_in(text),
        *pair_in(text, protons),
        *electrons_in(text, protons),
        *formula_in(text, Formula(formula)),
    )


def _agreeing(said: list[Statement], stated: int | None, assumed: int, field: str) -> int | None:
    """The value that is stated; else the one that a text means."""
    for one in said:
        if stated is None and len(one.values) == 1:
            (stated,) = one.values
        if (assumed if stated is None else stated) not in one.values:
            raise InputError(
                f"its {one.quantity} is {assumed if stated is None else stated} elsewhere, or is not stated",
                field=field, value=one.text, remedy=REMEDY,
            )  # fmt: skip
    return stated


def _text(value: str) -> str:
    if value[0] == '"':
        return _unescaped(value[1:-1]) if "\\" in value else value[1:-1]
    return value[1:-1] if value[0] in "'{[" else value


@lru_cache(maxsize=64)
def _unescaped(text: str) -> str:
    """A text that frames of a file share, such as their level."""
    return _ESCAPED.sub(r"\1", text)
