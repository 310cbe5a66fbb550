"""What names and values in files say beside atoms and labels: one table for structures and data sets.

Units, atoms that are held, calculations that failed, fields around the atoms. Names are taken apart at what is no
letter or digit, in any letter case. Charge and spin are in `alsys.states`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

UNIT_OF: Final = {
    word: what
    for what, words in {
        "energy": "energy energies virial virials",
        "force": "force forces gradient gradients grad",
        "length": (
            "length lengths pos position positions coord coords coordinate coordinates distance distances xyz geometry "
            "lattice cell box"
        ),
        "stress": "stress",
        "": "pressure dipole charge time mass velocity velocities temperature frequency angle magmom field",
    }.items()
    for word in words.split()
}
"""Of what a unit is, by a word beside `unit` in its name; empty for quantities that no frame keeps."""
ANY: Final = "any"
"""A name such as `units`, of nothing in particular."""
_ANGSTROM: Final = frozenset({"angstrom", "angstroms", "ang", "a", "å", "\u212b", "angst", "ångström", "1e-10m"})
NO: Final = frozenset({"f", "false", "0", "0.0", "no", "none", "n", "off", ".false.", "", "null"})
"""Values that deny, in lower case."""
_HOLDS = r"(?<!suf)(?<!pre)fix(?!tur)|froz|freez|constrain|restrain"
_FREES = r"move?_?mask|move?able|mobile|selective_?dyn|if_pos|is_free"
_HELD = re.compile(f"{_HOLDS}|{_FREES}", re.IGNORECASE)
_FREE = re.compile(_FREES, re.IGNORECASE)
_HELD_IN_TEXT = re.compile(
    rf"(?:^\s*\$(?:{_HOLDS})\w*|(?<![a-z])(?:{_HOLDS})\w*(?:[ _]?(?:atoms?|indices|list))?[\s=:(\[]*(?:ind\w+\W+)?\d)",
    re.IGNORECASE,
)
_SUCCESS: Final = frozenset(
    {"converged", "convergence", "success", "successful", "succeeded", "completed", "termination"}
)
_FAILURE: Final = frozenset(
    {"failed", "failure", "fail", "crashed", "unconverged", "diverged", "aborted", "exitcode", "returncode"}
)
_OF_SHAPE: Final = frozenset(
    {
        "relax", "relaxed", "relaxation", "opt", "optimization", "optimisation", "geom", "geometry", "geometric",
        "ionic", "neb", "threshold", "tol", "tolerance", "criterion", "criteria", "limit", "max", "cell",
    }
)  # fmt: skip
_FAILED = re.compile(
    r"(?:scf|calculation|job|run|label|dft|qm)?[\s_-]*(?:has|is|did)?[\s_-]*"
    r"(?:failed|fail|failure|crash(?:ed)?|diverged|aborted|killed|un-?converged|not?[\s_-]*(?:yet[\s_-]*)?converge[dn]?"
    r"|timed?[\s_-]*out|incomplete|unfinished|error)(?:[\s_-]*(?:scf|calculation|job|run|label|dft|qm))?",
    re.IGNORECASE,
)
_SURROUNDINGS: Final = frozenset(
    {
        "efield", "e_field", "field", "electric_field", "external_field", "external_electric_field", "magnetic_field",
        "bfield", "b_field", "e_ext", "external_potential", "point_charges", "external_charges", "embedding_charges",
        "bias", "bias_potential", "solvent", "solvation", "solvent_model", "implicit_solvent", "solvation_model",
        "epsilon_solvent", "background_charge",
    }
)  # fmt: skip
_NOTHING: Final = NO | {"vacuum", "gas", "gas_phase", "gas phase", "vac"}


def words_of(name: str) -> tuple[str, ...]:
    """A name in lower case, taken apart at what is no letter or digit."""
    return tuple(word for word in re.split(r"[^a-z0-9]+", name.lower()) if word)


@lru_cache(maxsize=4096)
def unit_of(name: str) -> str | None:
    """Of what a name states the unit, see `UNIT_OF` and `ANY`; None for names that state none."""
    words = words_of(name)
    others = [word for word in words if word not in ("unit", "units")]
    if len(others) == len(words) or words[:2] == ("unit", "cell") or "formula" in others:
        return None
    known = [UNIT_OF[word] for word in others if word in UNIT_OF]
    return known[0] if known else "" if others else ANY


def is_angstrom(unit: str) -> bool:
    """Whether a text names the unit of length that frames are in."""
    return unit.strip().lower() in _ANGSTROM


def holds_atoms(name: str) -> bool:
    """Whether a name is of atoms that are held, or of those that are free."""
    return _HELD.search(name) is not None


def is_of_free_atoms(name: str) -> bool:
    """Whether such a name is true for atoms that move."""
    return _FREE.search(name) is not None


def held_in_text(text: str) -> str:
    """What a line says of atoms that are held; empty for nothing. A word alone, as in "fixed cell", is nothing."""
    match = _HELD_IN_TEXT.search(text)
    return "" if match is None else " ".join(text[match.start() :].split())[:40]


@lru_cache(maxsize=4096)
def is_verdict(name: str) -> bool:
    """Whether a name says that a calculation converged or failed; that of a geometry does not count."""
    return bool(_judging(name) & (_SUCCESS | _FAILURE)) and not _judging(name) & _OF_SHAPE


def says_failure(name: str, value: Any) -> bool:
    """Whether a name of a verdict, or any text, says that a calculation failed."""
    if isinstance(value, str) and _FAILED.fullmatch(value.strip()):
        return True
    if not is_verdict(name) or isinstance(value, float) or value is None:
        return False
    return (str(value).strip().lower() in NO) != bool(_judging(name) & _FAILURE)


def _judging(name: str) -> set[str]:
    words = words_of(name)
    return {*words, "".join(words)}


def is_surrounding(name: str) -> bool:
    """Whether a name is of what acts on the atoms from outside: a field, a solvent, charges."""
    return "_".join(words_of(name)) in _SURROUNDINGS


def is_there(value: Any) -> bool:
    """Whether a value is more than zeros and words for nothing."""
    words = str(value.tolist() if hasattr(value, "tolist") else value).lower()
    if words.strip().replace("-", "_") in _NOTHING:
        return False
    try:
        return any(float(word) for word in re.split(r"[\s,\[\](){}]+", words) if word)
    except ValueError:
        return True
