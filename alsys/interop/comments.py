"""What the comment line of a frame says: key-value pairs, and free text by the words of structure files.

A charge or multiplicity that free text can mean in one way only is taken where no key states one. Else the text must
agree with what is stated or what the user gave: `cation` is refused of a neutral frame. Names, labels, formulas and
SMILES in keys state nothing, and must agree likewise.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from ase.data import ground_state_magnetic_moments
from ase.formula import Formula
from numpy.typing import ArrayLike, NDArray

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.said import doubt_of, failure_in, surrounding_in, words_of
from alsys.states import formula_of
from alsys.systems.conformers import quiet_rdkit
from alsys.systems.files.content import FileProblem, Statement
from alsys.systems.files.statements import electrons_in, formula_in, pair_in, statements_in, unit_in

MAX_TEXT = 20_000
"""Characters of free text."""
REMEDY = "state `charge=` and `multiplicity=`, and remove the text where it says something else"
# A name begins where another word ends and has 300 characters at most: else each letter of a long word begins one.
_PAIR = re.compile(
    r"""("[^"]*"|'[^']*'|(?<![^\s=,;"'{}\]])[^\s=,;"'{}]{1,300}+)\s*=\s*
        ("(?:[^"\\]|\\.)*"|'[^']*'|\{(?:[^{}]|\{[^{}]*\})*\}|\[(?:[^\[\]]|\[[^\[\]]*\])*\]|\S+)""",
    re.VERBOSE,
)
_ATOM = re.compile(r"\[[^\]]*?(\++|-+|[+-]\d+)?(?::\d+)?\]")
"""Of SMILES."""
_TERM_NAMES = frozenset({"term", "state", "symmetry", "irrep"})
"""Words of names whose value may be a symbol such as ``3A1``, which is a plain name elsewhere."""
_JOINED = re.compile(r"_|(?<=[^\W\d_])-(?=(?:cation|anion|doublet|triplet|quartet)$)", re.IGNORECASE)
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
    said = (*pair_in(text, int(z.sum())), *_understood(text, z, field))
    charges, multiplicities = _of_both(said)
    _check_doubt(text, charges or charge, multiplicities or multiplicity or account.multiplicity, field)
    unit = unit_in(text)
    if not (said or unit) and any(letter.isalnum() for letter in text):
        account.skip_text(text, place)
    return (
        _agreeing(charges, charge, account.charge, field),
        _agreeing(multiplicities, multiplicity, account.multiplicity or _lowest(z), field),
        (("length", unit),) if unit else (),
    )


def check_described(
    name: str,
    text: str,
    z: NDArray[Any],
    charge: int | None,
    multiplicity: int | None,
    account: FileAccount,
    field: str,
) -> None:
    """Refuses a frame whose name, formula or the like says another charge or spin than is stated or assumed.

    Args:
        name: Of the key.
        text: What stands under it.
        z: ``(n_atoms,)`` atomic numbers.
        charge: That the frame states; None for none.
        multiplicity: Likewise.
        account: Of the file.
        field: Frame and name.

    Raises:
        InputError: The text contradicts them, or may speak of them in a way that is not understood.
    """
    words, text = set(words_of(name)), text[:MAX_TEXT].strip()
    if {"calculator", "parameters"} <= words and (model := surrounding_in(text)):
        raise InputError(
            f"asks for {model}: what surrounds the atoms is part of the label, and a frame has no place for it",
            field=field, value=text[:60], remedy="leave such frames out (--skip)",
        )  # fmt: skip
    if "smiles" in words or "inchi" in words:
        check_bonds(text, z, field)
        total = formal_charge(text) if "smiles" in words else charge_of_inchi(text)
        said: tuple[Statement, ...] = (Statement("charge", frozenset({total}), text),)
    elif text[:1].isdigit() and " " not in text and not words & _TERM_NAMES:
        return
    else:
        text = _JOINED.sub(" ", text)
        said = _understood(text, z, field)
    charges, multiplicities = _of_both(said)
    if not words & {"smiles", "inchi"}:
        _check_doubt(text, charges or charge, multiplicities or multiplicity or account.multiplicity, field)
    known = account.charge if charge is None else charge, multiplicity or account.multiplicity or _lowest(z)
    _agreeing(charges, known[0], known[0], field)
    _agreeing(multiplicities, known[1], known[1], field)


def formal_charge(smiles: str) -> int:
    """Sum of the formal charges of a SMILES string."""
    total = 0
    for sign in _ATOM.findall(smiles):
        if sign:
            total += int(sign) if sign[-1].isdigit() else (len(sign) if sign[0] == "+" else -len(sign))
    return total


def check_bonds(text: str, z: NDArray[Any], field: str, *, is_whole: bool = False) -> None:
    """Refuses a SMILES string or an InChI with atoms that a frame has not.

    Args:
        text: The string; one that RDKit does not read says nothing.
        z: ``(n_atoms,)`` atomic numbers.
        field: Where it stands.
        is_whole: It is of all atoms of the frame; else it may be of some, such as what is dissolved.

    Raises:
        InputError: Its atoms are not those of the frame.
    """
    of_text, of_frame = _atoms_of(text), Counter(z.tolist())
    if of_text and (not of_text <= of_frame or (is_whole and of_text != of_frame)):
        symbols = formula_of([number for number, count in sorted(of_text.items()) for _ in range(count)])
        raise InputError(
            f"is of {symbols}, the frame of {formula_of(z)}", field=field, value=text[:60],
            remedy="leave such frames out (--skip), or correct it",
        )  # fmt: skip


@lru_cache(maxsize=1024)
def _atoms_of(text: str) -> Counter[int]:
    """Atomic numbers, with those of implied hydrogens; none of what RDKit does not read."""
    from rdkit import Chem

    quiet_rdkit()
    read: Callable[[str], Any] = Chem.MolFromInchi if text.startswith("InChI=") else Chem.MolFromSmiles
    molecule = read(text)
    if molecule is None or any(atom.GetAtomicNum() == 0 for atom in molecule.GetAtoms()):
        return Counter()
    return Counter(atom.GetAtomicNum() for atom in Chem.AddHs(molecule).GetAtoms())


def charge_of_inchi(text: str) -> int:
    """Sum of the charges and of the protons that an InChI adds, its layers ``/q`` and ``/p``."""
    found = re.findall(r"(?:/[qp]|;)(?:(\d+)\*)?([+-]\d+)(?=[;/]|$)", text)
    return sum(int(times or 1) * int(value) for times, value in found)


def _understood(text: str, z: NDArray[Any], field: str) -> tuple[Statement, ...]:
    try:
        return _statements(text, int(z.sum()), formula_of(z))
    except FileProblem as error:
        raise InputError(str(error), field=field, value=text[:60], remedy=error.remedy) from None


@lru_cache(maxsize=1024)
def _statements(text: str, protons: int, formula: str) -> tuple[Statement, ...]:
    return (*statements_in(text), *electrons_in(text, protons), *formula_in(text, Formula(formula)))


def _of_both(said: tuple[Statement, ...]) -> tuple[list[Statement], list[Statement]]:
    """Statements of charge, and of multiplicity."""
    return [one for one in said if one.quantity == "charge"], [one for one in said if one.quantity == "multiplicity"]


def _check_doubt(text: str, charge: object, multiplicity: object, field: str) -> None:
    """Refuses a text that has a word for something of which nothing is known, be it stated or understood."""
    doubt = doubt_of(text)
    known = {"charge": charge, "number of electrons": charge, "spin": multiplicity}
    if doubt in known and known[doubt] in (None, []):
        raise InputError(
            f"may state the {doubt}, in a way that is not understood", field=field, value=text[:60], remedy=REMEDY
        )


def _lowest(z: NDArray[Any]) -> int:
    """The multiplicity that is assumed of a frame that states none."""
    return round(float(ground_state_magnetic_moments[z[0]])) + 1 if z.size == 1 else 1


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
