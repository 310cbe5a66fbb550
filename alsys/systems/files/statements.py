"""Charge and spin in free text and in key-value pairs: comments of xyz files, remarks, data fields.

A number that follows the word is taken; words such as `charges=` or `mulliken_charge` are others. `spin` is read in all
three ways that programs mean it (multiplicity, 2S, S).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping

from ase.formula import Formula

from alsys.said import doubt_of, has_more_spin, objection
from alsys.states import ELECTRON_WORDS, electron_word
from alsys.systems.files.content import FileProblem, Quantity, Statement

_NUMBER = (
    r"[\"'\[(]?\s*(?P<value>[+-]?(?:\d+\s?/\s?[1-9]\d*|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+|nan|inf(?:inity)?))"
    r"(?P<sign>[+-]?)(?:\s?\|?e\|?)?(?![\w.])"
)


def _any_of(what: str) -> str:
    """Pattern of the words for a quantity, the longest first."""
    words = sorted(ELECTRON_WORDS[what], key=lambda word: (-len(word), word))
    return f"(?:{'|'.join(word.replace('_', '[ _-]?') for word in words)})"


_CHARGE = rf"(?:(?:ref|reference|dft|qm|info|i_m)_)?{_any_of('charge')}"
_MULTIPLICITY = rf"{_any_of('multiplicity')}\.?"
_UNPAIRED = rf"(?:{_any_of('unpaired')}|(?:tot(?:al)?[ _])?(?:magmom|mag|magneti[sz]ation))"
_SPIN = _any_of("spin")
_ELECTRONS = re.compile(
    rf"(?<![\w.\-])(?!(?<=[a-z]\s)electrons){_any_of('electrons')}[\"']?\s*(?:[=:]|\bis\b|\s)\s*[\"']?(?P<value>\d{{1,6}})(?:\.0*)?(?![\w.])",
    re.IGNORECASE,
)
_ORCA = re.compile(r"\*\s*xyz(?:file)?\s+(?P<charge>[+-]?\d{1,2})\s+(?P<multiplicity>[1-9]\d?)(?![\w.])", re.IGNORECASE)
_BOTH = re.compile(
    rf"(?<![\w.\-]){_any_of('charge')}[\s/,&|;]+(?:and\s+)?{_any_of('multiplicity')}\.?\s*[=:]?\s*"
    r"(?:(?P<charge>[+-]?\d{1,2})[\s/,;|]+(?P<multiplicity>[1-9]\d?)(?![\w.])|(?P<other>[+-]?\.?\d[^a-z]{0,12}))",
    re.IGNORECASE,
)
"""Both words and then both numbers, as in ``Charge/Mult: 1/2``, or a number that is no such pair."""
_BEFORE = re.compile(
    r"(?<![\w.])(?P<value>[+-]\d{1,2}|\d{1,2}[+-])e?\s+(?:total\s+|net\s+)?charge(?![\w\-]|\s*[=:\d])", re.IGNORECASE
)
_UNPAIRED_BEFORE = re.compile(
    r"(?<![\w.\-])(?P<value>\d{1,2})\s+unpaired(?:\s+electrons?)?(?!\w|\s*[=:]|\s+\d|\s+electrons?)", re.IGNORECASE
)
_ELECTRONS_BEFORE = re.compile(
    r"(?<![\w.\-])(?P<value>\d{1,6})\s+electrons(?!\s+(?:in|per|from|are|transfer|\d)|\s*[=:]|[\w\-])", re.IGNORECASE
)
_DOTS = "\u2022\u00b7\u2219\u22c5\u02d9"
"""Of an unpaired electron."""
_SIGNS = str.maketrans(
    {"\uff1d": "=", "\uff1a": ":", **dict.fromkeys("\u2212\u2013\u207b\ufe63\uff0d", "-"), "\u207a": "+"}
    | {chr(0x2080 + n): str(n) for n in range(10)}
    | {raised: f"^{n}" for n, raised in enumerate("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")}
)
"""Signs that text programs put in the place of a minus or a plus, lowered and raised digits."""
_SEPARATOR = (
    r"[\"']?(?:\s*[\[(]\s*[a-z| ]{1,16}[\])]|\s?/\s?\|?e\|?(?![a-z]))?\s*"
    r"(?:[=:]\s*|(?:of|is|was|equals|equal to)\s+|\s|(?=\(\s*[+-]?\d+[+-]?\s*\)))\s*"
)
"""Between a word and its number, which may be in brackets; a unit in brackets or behind a slash may stand there."""
_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(rf"(?<![\w.\-])(?:{word}){separator}{_NUMBER}", re.IGNORECASE))
    for name, word, separator in (
        ("charge", _CHARGE, _SEPARATOR),
        ("multiplicity", _MULTIPLICITY, _SEPARATOR),
        ("charge", r"(?:total|net|overall|molecular)[ _]charge(?:\s+[a-z]+){1,6}?", r"\s+(?:is|=|:)\s*"),
        ("charge", r"--?(?:chrg|charge)", r"[\s=]+"),
        ("multiplicity", r"2\s?s\s?\+\s?1", r"[\"']?\s*[=:]\s*"),
        ("q", "q", r"[\"']?\s*[=:]\s*"),
        ("unpaired", _UNPAIRED, r"[\"']?\s*[=:]\s*"),
        ("unpaired", r"--?uhf", r"[\s=]+"),
        ("unpaired", r"spin\.total", r"[\s=]+"),
        ("unpaired", r"(?-i:2\s?\*?\s?S)", r"\s*[=:]\s*"),
        ("square", r"<\s?S\s?(?:\^|\*\*)?\s?2\s?>|S\s?(?:\^|\*\*)\s?2", r"\s*[=:]\s*"),
        ("sz", r"s_?z", r"[\"']?\s*[=:]\s*"),
        ("sz", r"(?-i:S|M_?[sS])", r"\s*=\s*"),
        ("spin", _SPIN, r"[\"']?\s*[=:]\s*"),
    )
)
_NAMED = re.compile(
    r"(?<![\w.\-])(?P<name>singlet|doublet|triplet|quartet|quintet|sextet|septet)"
    r"(?=\s+(?:ground\s+)?state|\s*$|\s*[,;)]|\s+(?!gap|energ|split|excit|(?:and|or|to|of|with)\b|transition|state)[a-z])",
    re.IGNORECASE,
)
_TERM = re.compile(
    r"(?:^|\bX\s+)(?P<of>[1-9])(?:[AB][123]?|E|T[12]|Sigma|Pi|Delta)['\"]*[gu]?[+-]?(?=\s+(?:ground\s+)?state|\s*$)"
    r"|\b(?P<also>[1-9])(?:[AB][123]|Sigma|Pi|Delta)['\"]*[gu]?[+-]?\s+(?:ground\s+)?state"
    r"|\^\{?(?P<raised>[1-9])\}?(?:[AB](?:_?\{?[123]\}?)?|E|T_?[12]|Sigma|Pi|Delta)(?![A-Za-z0-9])"
    r"|\b(?P<letter>[SDTQ])\d\s+(?:ground\s+)?state|\bstate\s+(?P<last>[SDTQ])\d(?!\w)"
)
"""Symbols of states: ``X 2B1``, ``3B1 state``, ``^3B1``, ``T1 state``."""
_IONS = re.compile(
    r"(?<![\w.\-])(?:(?:(?P<n>mono|di|tri|tetra)-?)?(?P<ion>cation|anion)(?:ic)?|(?P<how>(?:de)?protonated|ioni[sz]ed)"
    r"|(?P<sign>positive|negative)(?:\s+ion|ly[\s-]charged))(?![\w\-])",
    re.IGNORECASE,
)
_TIMES_CHARGED = re.compile(r"(?<![\w.\-])(?P<n>singly|doubly|triply)[\s-]charged(?![\w\-])", re.IGNORECASE)
_RADICALS = re.compile(r"(?<![\w.\-])(?:(?P<n>bi|di|tri)-?)?radical(?![\w\-])", re.IGNORECASE)
_FORMULA = re.compile(
    r"(?<![\w.\-])\[?(?P<formula>[A-Z](?:[A-Za-z0-9]|\([A-Za-z0-9]+\)\d*)*)"
    r"(?P<charge>\]?\d?(?:\+{1,4}|-{1,4})|[\]^({]+\d?(?:\+{1,4}|-{1,4})\d?|[+-]\d(?=\])|\s\d[+-]|\s[+-]\d|\s[+-](?=\s*$))[)}\]]*(?![\w.+\-])"
)
MORE_SPIN = frozenset(range(3, 12))
"""Multiplicities of what is said to have a high or an intermediate spin."""
_MULTIPLICITIES = ("singlet", "doublet", "triplet", "quartet", "quintet", "sextet", "septet")
_CHANNELS = re.compile(
    rf"(?<![\w.\-]){_any_of('channel')}[\"']?\s*[=:\s]\s*[\"']?(?P<one>\d{{1,5}})[\"']?[\s,;]+{_any_of('channel')}[\"']?\s*[=:\s]"
    r"\s*[\"']?(?P<other>\d{1,5})(?![\w.])|(?P<before>\d{1,5})\s+(?:alpha|up)(?:\s+electrons?)?[\s,;]+(?:and\s+)?"
    r"(?P<last>\d{1,5})\s+(?:beta|down)\s+electrons?(?!\w)",
    re.IGNORECASE,
)
_MOMENT = r"(?:\d+\s*\*\s*)?[+-]?\d+(?:\.\d*)?"
_MOMENTS = re.compile(rf"(?P<key>magmom\s*[=:]\s*)(?P<list>{_MOMENT}(?:[\s,]+{_MOMENT}(?![\w.=]))*)", re.IGNORECASE)
"""Moments of atoms, as VASP writes them: ``MAGMOM = 4*1.0 4*-1``."""
_PAIR = re.compile(r"\s*([+-]?\d{1,2})(?:\s+|\s*[,;/|]\s*)(\d{1,2})\s*")
_LENGTHS = (
    r"(?:(?P<nm>nm|nano-?met(?:er|re)s?)|(?P<pm>pm|pico-?met(?:er|re)s?)|(?P<bohr>bohrs?|atomic[ _]units?|%s))(?![\w])"
)
_AU = r"(?-i:a\.u\.?|au|A\.U\.?)"
"""Not ``Au``, which is gold."""
_ALONE = re.compile(rf"^\W*(?:in\s+)?{_LENGTHS % _AU}\W*$", re.IGNORECASE)
_WHOSE = re.compile(
    r"(?<![a-z])(?:units?|coord\w*|positions?|lengths?)\W{0,3}(?:in\s+|are\s+)*\W?" + _LENGTHS % r"atomic|a\.?u\.?",
    re.IGNORECASE,
)
_BEHIND = re.compile(
    rf"(?P<of>[\w.=+\-]*)\s*(?:\bin\s+|[\[({{]\s*){_LENGTHS % _AU}(?!\W{{0,2}}\s*[=:]?\s*[-+.]?\d)", re.IGNORECASE
)
_OTHERS = re.compile(
    r".*[\d=]|e|energ\w*|forces?|grad\w*|dipole\w*|charges?|times?|wave\w*|lambda|freq\w*|field|volumes?|mass\w*",
    re.IGNORECASE,
)
"""Numbers and quantities that a unit behind them is of, and not of the coordinates."""


def statements_in(text: str) -> list[Statement]:
    """All that a line says about charge and spin.

    Raises:
        FileProblem: A charge or multiplicity that is none.
    """
    found: list[Statement] = []
    text = re.sub(r"(?<=[A-Za-z])(?=\u2212\d)", " ", text)
    if re.match(r"(?:.*\s)?g?xtb\d?(?:\s|$)", text):
        text = re.sub(r"(?<!\S)-c(?=\s+[+-]?\d)", "--chrg", re.sub(r"(?<!\S)-u(?=\s+\d)", "--uhf", text))
    text = re.sub(r"(?i)(?<=radical)-(?=(?:di)?-?(?:cat|an)ion)", " ", text)
    text = re.sub(r"([=:] ?[+-]) (?=\d)", r"\1", " ".join(text.translate(_SIGNS).split()))
    text = _MOMENTS.sub(_summed, text)
    for match in (*_ORCA.finditer(text), *_BOTH.finditer(text)):
        if match.groupdict().get("other"):
            raise FileProblem(f"says {match.group(0).strip()}, which is no charge and multiplicity", "correct it")
        found.append(Statement("charge", frozenset({int(match["charge"])}), match.group(0)))
        found.append(Statement("multiplicity", frozenset({int(match["multiplicity"])}), match.group(0)))
    text = _BOTH.sub(" ", text)
    for match in _BEFORE.finditer(text):
        value = match["value"]
        charge = int(value if value[0] in "+-" else value[-1] + value[:-1])
        found.append(Statement("charge", frozenset({charge}), match.group(0)))
    found += [
        Statement("multiplicity", frozenset({int(m["value"]) + 1}), m.group(0)) for m in _UNPAIRED_BEFORE.finditer(text)
    ]
    for name, pattern in _WORDS:
        for match in pattern.finditer(text):
            signed, what = _signed(match), " ".join(match.group(0).split())
            if statement := _statement(name, signed, what, is_explicit=any(c in match.group(0) for c in "=:")):
                found.append(statement)
    named = {_MULTIPLICITIES.index(match["name"].lower()) + 1: match["name"] for match in _NAMED.finditer(text)}
    for match in _TERM.finditer(text):
        letter = match["letter"] or match["last"]
        n = "SDTQ".index(letter) + 1 if letter else int(match["of"] or match["also"] or match["raised"])
        named.setdefault(n, match.group(0).strip())
    if len(named) == 1:  # of several states it is not said which one this is
        found += [Statement("multiplicity", frozenset({n}), word) for n, word in named.items()]
    found += channels_in(text)
    has_spin = any(statement.quantity == "multiplicity" for statement in found)
    if not has_spin and has_more_spin(text):
        found.append(Statement("multiplicity", MORE_SPIN, "more spin than the lowest"))
    return found + [said for said in _ions(text) if said.quantity == "charge" or not has_spin]


def channels_in(text: str) -> list[Statement]:
    """The multiplicity that numbers of electrons of both spins leave, one after the other."""
    found = []
    for match in _CHANNELS.finditer(text):
        multiplicity = abs(int(match["one"] or match["before"]) - int(match["other"] or match["last"])) + 1
        found.append(Statement("multiplicity", frozenset({multiplicity}), " ".join(match.group(0).split())))
    return found


def _ions(text: str) -> list[Statement]:
    """What words such as "radical cation" mean; a text of cations and anions says no total."""
    found = []
    ions = list(_IONS.finditer(text))
    if len(signs := {_sign_of(match) for match in ions}) == 1:
        sizes = ("mono", "di", "tri", "tetra")
        size = (ions[0]["n"] or "").lower()
        counts = [sizes.index(size) + 1] if size else range(1, 5)
        (sign,) = signs
        found.append(Statement("charge", frozenset(sign * n for n in counts), ions[0].group(0)))
    for match in _TIMES_CHARGED.finditer(text):
        n = ("singly", "doubly", "triply").index(match["n"].lower()) + 1
        found.append(Statement("charge", frozenset({n, -n}), match.group(0)))
    for match in _RADICALS.finditer(text):
        values = {"tri": {2, 4}, "": {2}}.get((match["n"] or "").lower(), {1, 3})
        found.append(Statement("multiplicity", frozenset(values), match.group(0)))
    return found


def _sign_of(ion: re.Match[str]) -> int:
    words = (ion["ion"] or ion["how"] or ion["sign"]).lower()
    return -1 if words.startswith(("anion", "de", "negative")) else 1


def formula_in(text: str, symbols: Formula) -> list[Statement]:
    """The charge at a sum formula, as in ``CH3OH-`` and ``[H2O]2+``.

    Args:
        text: A comment.
        symbols: Of the atoms; a formula of others says nothing.
    """
    text = " ".join(text.translate(_SIGNS).split())
    found = []
    for match in re.finditer(rf"([A-Z][A-Za-z0-9]*)\]?[{_DOTS}](?![A-Za-z0-9])", text):
        if _is_formula(match[1], symbols):
            found = [Statement("multiplicity", frozenset({2}), match[0])]
    text = re.sub(r"(?<=\][+-])\.", "", re.sub(f"[{_DOTS}]", "", text))
    for match in _FORMULA.finditer(text):
        name, said = match["formula"], match["charge"].strip("]^({ ")
        for formula, charge in ((name, said), (name[:-1], name[-1] + said)):
            if _is_formula(formula, symbols) and (digits := re.fullmatch(r"(\d?)([+]+|-+)(\d?)", charge)):
                value = int(digits[1] or digits[3] or len(digits[2])) * (1 if digits[2][0] == "+" else -1)
                return [Statement("charge", frozenset({value}), match.group(0).strip()), *found]
    return found


def _is_formula(text: str, symbols: Formula) -> bool:
    try:
        return bool(Formula(text).count() == symbols.count())
    except ValueError:
        return False


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


def electrons_in(text: str, protons: int, most: int = 9) -> list[Statement]:
    """The charge that a number of electrons leaves; none where it is too far off to be one, as of valence electrons.

    Args:
        text: A comment.
        protons: Sum of the atomic numbers.
        most: Largest charge that is one.
    """
    found = []
    text = " ".join(text.split())
    for match in (*_ELECTRONS.finditer(text), *_ELECTRONS_BEFORE.finditer(text)):
        charge = protons - int(match["value"])
        if abs(charge) <= most:
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


def check_understood(facts: Mapping[str, str], known: Collection[str]) -> None:
    """Refuses facts of which nothing was understood, and whose names have words of charge or spin.

    Args:
        facts: By name.
        known: What others state, ``charge`` and ``multiplicity``: beside it a name of the like is of a part.

    Raises:
        FileProblem: There is one.
    """
    for name in sorted(facts):
        value = facts[name][:40]
        if electron_word(name.lower()) in ("charge", "multiplicity"):
            raise FileProblem(f"says {name}={value}, which is no whole number", "correct it")
        doubt = doubt_of(name)
        is_of_part = {"charge": "charge", "spin": "multiplicity"}.get(doubt) in known
        if doubt in ("charge", "spin") and not is_of_part and (why := objection(name, value)):
            raise FileProblem(f"says {name}={value}, which {why}", "call it charge or multiplicity, or remove it")


def unit_in(text: str) -> str:
    """The unit of length, other than Angstrom, that a comment says; empty where it says none."""
    match = _ALONE.search(text) or _WHOSE.search(text)
    match = match or next((m for m in _BEHIND.finditer(text) if not _OTHERS.fullmatch(m["of"])), None)
    return "" if match is None else "nm" if match["nm"] else "pm" if match["pm"] else "Bohr"


def charge_of_atoms(total: float, name: str) -> list[Statement]:
    """The total charge that charges of atoms add up to, where that is a whole number other than zero.

    Args:
        total: Their sum, e.
        name: Of the column.

    Raises:
        FileProblem: The sum is no whole number.
    """
    nearest = round(total) if math.isfinite(total) else 0
    if not abs(total - nearest) <= 0.05:
        raise FileProblem(f"has {name} that add up to {total:.4g}, no whole number", "correct or remove them")
    if nearest == 0:
        return []
    return [Statement("charge", frozenset({nearest}), f"{name}, which add up to {nearest:+d}")]


def spin_of_moments(total: float, name: str) -> list[Statement]:
    """The multiplicity of magnetic moments of atoms, where they add up to a whole number other than zero.

    Args:
        total: Their sum, Bohr magnetons.
        name: Of the column.
    """
    nearest = round(abs(total)) if math.isfinite(total) else 0
    if nearest == 0 or abs(abs(total) - nearest) > 0.1:
        return []
    return [Statement("multiplicity", frozenset({nearest + 1}), f"{name}, which add up to {nearest}")]


def spin_values(value: float) -> frozenset[int]:
    """Multiplicities that a number called spin can mean: itself, 2S + 1 of 2S, and 2S + 1 of S."""
    values = {2 * value + 1, value + 1, value}
    return frozenset(int(v) for v in values if v >= 1 and v == int(v))


def _signed(match: re.Match[str]) -> float:
    number, _, divisor = match["value"].partition("/")
    value, sign = float(number) / float(divisor or 1), match["sign"]
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
    if name == "square":  # S (S + 1); one between two states is not of one of them
        multiplicity = math.sqrt(1.0 + 4.0 * max(value, 0.0))
        values = frozenset({math.floor(multiplicity + 0.1), math.ceil(multiplicity - 0.1)})
        return Statement("multiplicity", values, text)
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
