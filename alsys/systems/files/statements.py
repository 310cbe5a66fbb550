"""Charge and spin in free text and in key-value pairs: comments of xyz files, remarks, data fields.

A number that follows the word is taken; words such as `charges=` or `mulliken_charge` are others. `spin` is read in all
three ways that programs mean it (multiplicity, 2S, S).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from alsys.states import ELECTRON_WORDS
from alsys.systems.files.content import FileProblem, Quantity, Statement

MAX_TEXT = 4096
"""Characters of a text that are looked at."""
_NUMBER = (
    r"[\"'\[(]?\s*(?P<value>[+-]?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+|nan|inf(?:inity)?))(?P<sign>[+-]?)(?![\w.])"
)


def _any_of(what: str) -> str:
    """Pattern of the words for a quantity, the longest first."""
    words = sorted(ELECTRON_WORDS[what], key=lambda word: (-len(word), word))
    return f"(?:{'|'.join(word.replace('_', '[ _-]?') for word in words)})"


_CHARGE = _any_of("charge")
_MULTIPLICITY = rf"{_any_of('multiplicity')}\.?"
_UNPAIRED = rf"(?:{_any_of('unpaired')}|(?:total[ _])?magmom)"
_SPIN = _any_of("spin")
_ELECTRONS = re.compile(
    rf"(?<![\w.\-]){_any_of('electrons')}[\"']?\s*(?:[=:]|\bis\b|\s)\s*[\"']?(?P<value>\d{{1,6}})(?![\w.])",
    re.IGNORECASE,
)
_ORCA = re.compile(r"\*\s*xyz(?:file)?\s+(?P<charge>[+-]?\d{1,2})\s+(?P<multiplicity>[1-9]\d?)(?![\w.])", re.IGNORECASE)
_MINUS = str.maketrans(dict.fromkeys("\u2212\u2013\u207b\ufe63\uff0d", "-"))
"""Signs that text programs put in the place of a minus."""
_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(rf"(?<![\w.\-])(?:{word}){separator}{_NUMBER}", re.IGNORECASE))
    for name, word, separator in (
        ("charge", _CHARGE, r"[\"']?\s*(?:[=:]\s*|(?:of|is)\s+|\s)\s*"),
        ("multiplicity", _MULTIPLICITY, r"[\"']?\s*(?:[=:]\s*|(?:of|is)\s+|\s)\s*"),
        ("charge", r"(?:total|net|overall|molecular)[ _]charge(?:\s+[a-z]+){1,6}?", r"\s+(?:is|=|:)\s*"),
        ("charge", r"--?chrg", r"[\s=]+"),
        ("multiplicity", r"2\s?s\s?\+\s?1", r"[\"']?\s*[=:]\s*"),
        ("q", "q", r"[\"']?\s*[=:]\s*"),
        ("unpaired", _UNPAIRED, r"[\"']?\s*[=:]\s*"),
        ("unpaired", r"--?uhf", r"[\s=]+"),
        ("sz", r"s_?z", r"[\"']?\s*[=:]\s*"),
        ("spin", _SPIN, r"[\"']?\s*[=:]\s*"),
    )
)
_NAMED = re.compile(
    r"(?<![\w.\-])(?P<name>singlet|doublet|triplet|quartet|quintet|sextet|septet)(?=\s+(?:ground\s+)?state|\s*$|\s*[,;)])",
    re.IGNORECASE,
)
_MULTIPLICITIES = ("singlet", "doublet", "triplet", "quartet", "quintet", "sextet", "septet")
_ALPHA_BETA = re.compile(
    r"(?<![\w.\-])n_?alpha[\"']?\s*[=:]\s*[\"']?(?P<alpha>\d{1,5})[\"']?[\s,;]+n_?beta[\"']?\s*[=:]\s*[\"']?(?P<beta>\d{1,5})",
    re.IGNORECASE,
)
_MOMENT = r"(?:\d+\s*\*\s*)?[+-]?\d+(?:\.\d*)?"
_MOMENTS = re.compile(rf"(?P<key>magmom\s*[=:]\s*)(?P<list>{_MOMENT}(?:[\s,]+{_MOMENT}(?![\w.=]))*)", re.IGNORECASE)
"""Moments of atoms, as VASP writes them: ``MAGMOM = 4*1.0 4*-1``."""
_PAIR = re.compile(r"\s*([+-]?\d{1,2})\s+(\d{1,2})\s*")
_UNITS = re.compile(
    r"(?:units?|coord\w*|positions?)\W{0,3}(?:in\s+|are\s+)?\W?(?:bohr|a\.?u\b|atomic)"
    r"|\b(?:in|\()\s*(?:bohr|atomic units)|^\W*bohr\W*$",
    re.IGNORECASE,
)

_METRIC = re.compile(
    r"(?:units?|coord\w*|positions?|lengths?)\W{0,3}(?:in\s+|are\s+)*\W?(?P<unit>nm|nano\w{5,6}|pm|pico\w{5,6})\b",
    re.IGNORECASE,
)


def statements_in(text: str) -> list[Statement]:
    """All that a line says about charge and spin.

    Raises:
        FileProblem: A charge or multiplicity that is none.
    """
    found: list[Statement] = []
    text = re.sub(r"([=:] ?[+-]) (?=\d)", r"\1", " ".join(text[:MAX_TEXT].translate(_MINUS).split()))
    text = _MOMENTS.sub(_summed, text)
    for match in _ORCA.finditer(text):
        found.append(Statement("charge", frozenset({int(match["charge"])}), match.group(0)))
        found.append(Statement("multiplicity", frozenset({int(match["multiplicity"])}), match.group(0)))
    for name, pattern in _WORDS:
        for match in pattern.finditer(text):
            value, what = _signed(match), " ".join(match.group(0).split())
            if statement := _statement(name, value, what, is_explicit=any(c in match.group(0) for c in "=:")):
                found.append(statement)
    for match in _NAMED.finditer(text):
        multiplicity = _MULTIPLICITIES.index(match["name"].lower()) + 1
        found.append(Statement("multiplicity", frozenset({multiplicity}), match["name"]))
    for match in _ALPHA_BETA.finditer(text):
        multiplicity = abs(int(match["alpha"]) - int(match["beta"])) + 1
        found.append(Statement("multiplicity", frozenset({multiplicity}), " ".join(match.group(0).split())))
    return found


def _summed(match: re.Match[str]) -> str:
    """Moments of atoms as one of all; a single number is one already."""
    words = re.sub(r"\s*\*\s*", "*", match["list"]).replace(",", " ").split()
    if len(words) == 1 and "*" not in words[0]:
        return match.group(0)
    total = 0.0
    for word in words:
        count, _, value = word.rpartition("*")
        total += int(count or 1) * float(value)
    return f"{match['key']}{abs(total):g}"


def pair_in(text: str, protons: int) -> list[Statement]:
    """Charge and multiplicity from a comment that is two whole numbers, as quantum chemistry programs write them.

    Args:
        text: The comment.
        protons: Sum of the atomic numbers; numbers that do not suit it mean something else.
    """
    pair = _PAIR.fullmatch(text)
    if pair is None:
        return []
    charge, multiplicity = int(pair[1]), int(pair[2])
    if not (abs(charge) < 10 and 1 <= multiplicity < 10) or (protons - charge - multiplicity + 1) % 2:
        return []
    how = f"`{text.strip()}` for charge and multiplicity"
    return [
        Statement("charge", frozenset({charge}), how),
        Statement("multiplicity", frozenset({multiplicity}), how),
    ]


def electrons_in(text: str, protons: int) -> list[Statement]:
    """The charge that a number of electrons leaves; none where it is too far off to be one, as of valence electrons.

    Args:
        text: A comment.
        protons: Sum of the atomic numbers.
    """
    found = []
    for match in _ELECTRONS.finditer(" ".join(text[:MAX_TEXT].split())):
        charge = protons - int(match["value"])
        if abs(charge) < 10:
            found.append(Statement("charge", frozenset({charge}), f"{match.group(0)}, a charge of {charge:+d}"))
    return found


def statements_of(info: Mapping[str, object]) -> list[Statement]:
    """All that key-value pairs say about charge and spin; values that are no numbers are no statements.

    Raises:
        FileProblem: A charge or multiplicity that is none.
    """
    found: list[Statement] = []
    for key, value in info.items():
        is_plain = isinstance(value, str | int | float) and not isinstance(value, bool)
        if is_plain or getattr(value, "shape", None) == ():
            found += statements_in(f"{key}={value}")
    return found


def unit_in(text: str) -> str:
    """The unit of length, other than Angstrom, that a comment says; empty where it says none."""
    text = text[:MAX_TEXT]
    if _UNITS.search(text):
        return "Bohr"
    match = _METRIC.search(text)
    return "" if match is None else "nm" if match["unit"].lower().startswith("n") else "pm"


def spin_values(value: float) -> frozenset[int]:
    """Multiplicities that a number called spin can mean: itself, 2S + 1 of 2S, and 2S + 1 of S."""
    values = {2 * value + 1, value + 1, value}
    return frozenset(int(v) for v in values if v >= 1 and v == int(v))


def _signed(match: re.Match[str]) -> float:
    value, sign = float(match["value"]), match["sign"]
    return -value if sign == "-" else value


def _statement(name: str, value: float, text: str, *, is_explicit: bool) -> Statement | None:
    if not math.isfinite(value):
        if name in ("charge", "multiplicity") and is_explicit:
            raise FileProblem(f"says {text}, which is not a number", "correct it")
        return None
    is_whole = value == int(value)
    if name == "q":  # a scattering vector in other files
        return Statement("charge", frozenset({int(value)}), text) if is_whole and abs(value) < 10 else None
    if name == "sz":
        return Statement("multiplicity", frozenset({int(2 * abs(value)) + 1}), text) if 2 * value % 1 == 0 else None
    if name == "spin":
        values = spin_values(value)
        return Statement("multiplicity", values, text) if values else None
    if name == "unpaired":
        nearest = round(abs(value))
        return Statement("multiplicity", frozenset({nearest + 1}), text) if abs(abs(value) - nearest) < 0.1 else None
    quantity: Quantity = "charge" if name == "charge" else "multiplicity"
    is_possible = is_whole and (quantity == "charge" or value >= 1)
    if is_possible:
        return Statement(quantity, frozenset({int(value)}), text)
    if is_explicit:
        kind = "a whole number" if quantity == "charge" else "a whole number above 0"
        raise FileProblem(f"says {text}, which is not {kind}", "correct it")
    return None
