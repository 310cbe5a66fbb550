"""What names and values in files say beside atoms and labels: one table for structures and data sets.

Units, atoms that are held, calculations that failed, fields around the atoms. Names are taken apart at what is no
letter or digit, in any letter case. Charge and spin are in `alsys.states`; a name that has their words and is not
understood is refused by its value (`objection`), as one of a failure or of surroundings is.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, Final


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


UNIT_OF: Final = {
    word: what
    for what, words in {
        "energy": "energy energies e virial virials",
        "force": "force forces f gradient gradients grad",
        "length": (
            "length lengths pos position positions coord coords coordinate coordinates distance distances xyz geometry "
            "lattice cell box r x l"
        ),
        "stress": "stress",
        "": (
            "pressure dipole charge time mass velocity velocities temperature frequency angle magmom field density "
            "volume"
        ),
    }.items()
    for word in words.split()
}
"""Of what a unit is, by a word beside `unit` in its name; empty for quantities that no frame keeps."""
ANY: Final = "any"
"""A name such as `units`, of nothing in particular."""
_ANGSTROM: Final = frozenset({"angstrom", "angstroms", "ang", "a", "å", "\u212b", "angst", "ångström", "1e-10m"})
NO: Final = frozenset({"f", "false", "0", "0.0", "no", "none", "n", "off", ".false.", "", "null"})
"""Values that deny, in lower case."""
TELLING: Final = frozenset({"ref", "reference", "dft", "qm", "data"})
"""Words that say of whom a name is, and not what it means."""
_HOLDS = r"(?<!suf)(?<!pre)fix(?!tur)|froz|freez|constrain|restrain"
_FREES = r"move?_?mask|move?able|mobile|selective_?dyn|if_pos|is_free|^moves?$"
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
    {"failed", "failure", "fail", "crashed", "unconverged", "diverged", "aborted", "exitcode", "returncode",
     "exitstatus"}
)  # fmt: skip
_SUCCESS_ALONE: Final = frozenset({"conv", "ok", "valid", "finished"})
_FAILURE_ALONE: Final = frozenset(
    {"error", "errors", "exit", "bad", "invalid", "outlier", "discard", "discarded", "exclude", "excluded", "rejected"}
)
"""Words that judge a calculation only beside those of `_BESIDE`, or alone."""
_BESIDE: Final = _set(
    "scf is has was calc calculation run job dft qm label electronic elec n num flag message msg frame"
)
_OF_SHAPE: Final = frozenset(
    {
        "relax", "relaxed", "relaxation", "opt", "optimization", "optimisation", "geom", "geometry", "geometric",
        "ionic", "neb", "threshold", "thr", "tol", "tolerance", "criterion", "criteria", "limit", "max", "cell",
    }
)  # fmt: skip
_FAILED = re.compile(
    r"(?:scf|calculation|job|run|label|dft|qm)?[\s_-]*(?:has|is|did)?[\s_-]*"
    r"(?:failed|fail|failure|crash(?:ed)?|diverged|aborted|killed|un-?converged|not?[\s_-]*(?:yet[\s_-]*)?converge[dn]?"
    r"|timed?[\s_-]*out|incomplete|unfinished|error)(?:[\s_-]*(?:scf|calculation|job|run|label|dft|qm))?"
    r"(?:\s+(?:after|in|within|at|with|to|due|because)\b.*|\s*[:;(].*)?",
    re.IGNORECASE,
)
_SURROUNDINGS: Final = frozenset(
    {
        "efield", "bfield", "e_ext", "external_potential", "point_charges", "external_charges", "embedding_charges",
        "bias", "bias_potential", "background_charge", "mm_charges", "mm_point_charges", "external_force",
        "external_forces", "environment", "medium", "ghost", "ghosts", "is_ghost", "ghost_atoms", "bq", "scrf", "lsol",
    }
)  # fmt: skip
_PERMITTIVITIES: Final = frozenset(
    {"epsilon", "epsilon_r", "epsilon_solvent", "dielectric", "dielectric_constant", "permittivity",
     "relative_permittivity"}
)  # fmt: skip
"""Surroundings that are a vacuum where they are 1."""
_FIELD_OF: Final = _set("electric magnetic e b external x y z vector strength amplitude uniform homogeneous static")
"""Words beside `field` that leave it a field."""
_MODELS: Final = _set("solvent solvation alpb gbsa pcm cpcm iefpcm ddpcm smd cosmo ddcosmo efield bfield qmmm")
"""Words that say so within a longer name, but beside those of `_NO_MODEL`."""
_NO_MODEL: Final = _set("n num number count id index energy shell shells atoms molecules box radius mask smiles")
MORE_SPIN: Final = "more spin"
"""A doubt that a multiplicity beside it resolves, see `more_spin_in`."""
LEAST_S_SQUARED: Final = 1.9
"""hbar^2; that of a triplet is 2, with rounding; a contaminated doublet and a broken singlet have less."""
FAILED: Final = "its calculation failed or did not converge, or it is marked as bad: its label is none"
_NOTHING: Final = NO | _set("vacuum vac gas gas_phase isolated molecule cluster bulk crystal surface slab periodic")
_DOUBTS: Final = {
    word: what
    for what, words in {
        "charge": "charge chg chrg",
        "spin": "spin multiplicity mult magnetization magnetisation unpaired",
        "number of electrons": "electron electrons nelect nelec",
    }.items()
    for word in words.split()
}
_NO_DOUBT: Final = _set(
    "density densities transfer method scheme model mixing tol threshold cutoff cut grid max min iter step steps id "
    "index polarized polarised polarization orbit coupling contamination squared valence core type weight"
)
"""Words beside those of `_DOUBTS` that make a name a setting or a property."""
_S_NAMES: Final = frozenset({"S", "Sz", "S_z", "Ms", "M_s"})
_IONIC: Final = frozenset({"anion", "cation", "ion", "charged", "ionized", "ionised", "protonated", "deprotonated"})
_GROUND: Final = frozenset({"ground_state", "is_ground_state", "groundstate"})
_EXCITED: Final = frozenset({"electronic_state", "excited", "excited_state", "iroot", "root", "state"}) | _GROUND
_STATE = re.compile(r"(?P<letter>[sdtq])_?(?P<root>\d)|(?P<word>singlet|doublet|triplet|quartet)", re.IGNORECASE)
_NO_LABEL: Final = frozenset({"find_energy", "find_force", "atom_pref"})
"""DeePMD-kit's names that are 0 where a set has no such label, or an atom none."""
_WEIGHTS: Final = _set("weight weights w")
_WEIGHED: Final = _set("config sample frame data loss training train energy energies force forces gradient gradients")
_STRESS: Final = _set("stress stresses virial virials")
_MORE_SPIN = re.compile(r"(?<![a-z])(?:high|intermediate)[\s_-]*spin(?![a-z])", re.IGNORECASE)
_SAYS_MORE = re.compile(r"[+-]?\d{1,2}[\s,;/|]+[+-]?\d{1,2}|t|true|yes", re.IGNORECASE)
"""Charge and multiplicity, or that there is one."""
_SOLVENT_MODEL = re.compile(
    r"(?<![a-z])(?:c?pcm|iefpcm|ddpcm|smd|alpb|gbsa|cosmo|ddcosmo|scrf|efield)(?![a-z])", re.IGNORECASE
)
_S_SQUARED = re.compile(r"<?\s*(?:s|spin)[\s_]*(?:\^|\*\*)?[\s_]*(?:2|sq|squared?)\s*>?", re.IGNORECASE)


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
    judging = _judging(name)
    if judging & _OF_SHAPE:
        return False
    alone = _SUCCESS_ALONE | _FAILURE_ALONE
    return bool(judging & (_SUCCESS | _FAILURE)) or bool(judging & alone and set(words_of(name)) <= alone | _BESIDE)


def failure_in(text: str) -> str:
    """The objection to a text that says that a calculation failed, whatever its name is; empty for others."""
    return FAILED if _FAILED.fullmatch(text.strip()) else ""


def says_failure(name: str, value: Any) -> bool:
    """Whether a name of a verdict, or any text, says that a calculation failed."""
    if isinstance(value, str) and failure_in(value):
        return True
    if not is_verdict(name) or value is None:
        return False
    says_no = str(value).strip().lower() in NO
    if _judging(name) & (_FAILURE | _FAILURE_ALONE):
        number = number_of(value)
        return not says_no and (number is None or number == round(number))
    return says_no


def _judging(name: str) -> set[str]:
    words = words_of(name)
    return {*words, "".join(words)}


@lru_cache(maxsize=4096)
def is_surrounding(name: str) -> bool:
    """Whether a name is of what acts on the atoms from outside: a field, a solvent, charges."""
    words = tuple(word for word in words_of(name) if word not in TELLING)
    found, plain = set(words), "_".join(words)
    is_field = "field" in found and found - {"field"} <= _FIELD_OF
    return is_field or plain in _SURROUNDINGS | _PERMITTIVITIES or bool(found & _MODELS and not found & _NO_MODEL)


def surrounding_in(text: str) -> str:
    """The solvent model or field that an input of a quantum chemistry program asks for; empty for none."""
    found = _SOLVENT_MODEL.search(text)
    return "" if found is None else found.group(0)


def is_there(value: Any) -> bool:
    """Whether a value is more than zeros and words for nothing."""
    words = str(value.tolist() if hasattr(value, "tolist") else value).lower()
    if words.strip().replace("-", "_").replace(" ", "_") in _NOTHING:
        return False
    return any(word not in NO and number_of(word) != 0 for word in re.split(r"[\s,\[\](){}'\"]+", words) if word)


def number_of(value: Any) -> float | None:
    """A text or a scalar as a finite number; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


@lru_cache(maxsize=4096)
def weight_of(name: str) -> str:
    """What does not count where a weight of this name is 0: ``label`` or ``stress``; empty for other names."""
    words = set(words_of(name))
    weighed = words - _WEIGHTS - _WEIGHED
    if not words & _WEIGHTS or words == {"w"} or weighed - _STRESS:
        return ""
    return "stress" if weighed else "label"


def more_spin_in(name: str, value: Any) -> bool:
    """Whether a fact says that the spin is not the lowest, and not which: "high spin", <S^2> from 1.9 on."""
    if _S_SQUARED.fullmatch(name):
        return (number_of(value) or 0.0) >= LEAST_S_SQUARED
    if _MORE_SPIN.search(name):
        return is_there(value)
    is_short = isinstance(value, str) and value.strip().lower() == "hs" and doubt_of(name) == "spin"
    return is_short or (isinstance(value, str) and has_more_spin(value))


def has_more_spin(text: str) -> bool:
    """Whether a text speaks of high or intermediate spin."""
    return _MORE_SPIN.search(text) is not None


@lru_cache(maxsize=4096)
def doubt_of(name: str) -> str:
    """What a name may state of the electrons in a way that is not understood; empty for nothing."""
    words = words_of(name)
    if name in _S_NAMES:
        return "spin"
    if "_".join(word for word in words if word != "is") in _IONIC:
        return "charge"
    if "_".join(words) in _EXCITED:
        return "state"
    if "_".join(words) in _NO_LABEL or weight_of(name) == "label":
        return "label"
    if _MORE_SPIN.search(name) or _S_SQUARED.fullmatch(name):
        return MORE_SPIN
    if set(words) & _NO_DOUBT:
        return ""
    return next((_DOUBTS[word] for word in words if word in _DOUBTS), "")


def multiplicity_of(value: Any) -> int | None:
    """2S + 1 of the lowest state that a text such as ``T1`` or ``triplet`` names; None where it names none."""
    match = _STATE.fullmatch(str(value).strip())
    if match is None or (match["letter"] and int(match["root"]) > (match["letter"] in "tT")):
        return None
    return "sdtq".index((match["letter"] or match["word"][0]).lower()) + 1


def objection(name: str, value: Any) -> str:
    """Why a frame with this fact cannot be taken; empty where it can.

    Args:
        name: As the file has it. Charge and spin that `alsys.states` understands are not asked for here.
        value: Text, number or array.
    """
    if says_failure(name, value):
        return FAILED
    if is_surrounding(name):
        is_vacuum = "_".join(words_of(name)) in _PERMITTIVITIES and number_of(value) == 1.0
        return "is part of its label, and a frame has no place for it" if is_there(value) and not is_vacuum else ""
    doubt, number = doubt_of(name), number_of(value)
    if not doubt or doubt == MORE_SPIN:
        return ""
    if doubt == "label":
        values = value.tolist() if hasattr(value, "tolist") else value
        is_zero = any(number_of(word) == 0 for word in re.split(r"[\s,\[\](){}'\"]+", str(values)) if word)
        return "is 0 where there is no label" if is_zero else ""
    if doubt == "state":
        if "_".join(words_of(name)) in _GROUND:
            is_excited = str(value).strip().lower() in NO or str(value).lower().startswith("excited")
        elif number is None:
            match = _STATE.fullmatch(str(value).strip())
            is_excited = "excited" in str(value).lower() or bool(match and multiplicity_of(value) is None)
            is_excited |= "excited" in name.lower() and is_there(value)
        else:
            is_excited = number != 0 and "_".join(words_of(name)) != "state"
        return "is of an excited state, and labels are those of the lowest one" if is_excited else ""
    if isinstance(value, str) and _SAYS_MORE.fullmatch(value.strip()):
        return f"may state the {doubt}, in a way that is not understood"
    if number is None or not number or abs(number) > (20 if doubt != "number of electrons" else math.inf):
        return ""
    steps = 2 * number if doubt == "spin" else number
    return f"may state the {doubt}, in a way that is not understood" if steps == round(steps) else ""
