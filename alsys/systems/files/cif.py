"""CIF: read by ASE; what it drops, as occupancies, charges and sum formulas, is read from the tags beside it."""

from __future__ import annotations

import io
import math
import re
import warnings
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.formula import Formula

from alsys.systems.files.ase_formats import taken, warned
from alsys.systems.files.cif_symmetry import with_symmetry
from alsys.systems.files.content import Concern, FileProblem, Statement, Structure, beyond, partly_occupied
from alsys.systems.files.elements import element, unknown
from alsys.systems.files.statements import charge_of_atoms, statements_of
from alsys.systems.files.text import read_lines


def read_cif(path: Path, index: int) -> Structure:
    """One data block of a CIF; the whole cell by its symmetry."""
    from ase.io.cif import CIFBlock, parse_cif

    lines = read_lines(path)
    if any(line.strip().lower().startswith("_atom_site.cartn_x") for line in lines):
        raise FileProblem("is an mmCIF file", "convert it to PDB")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parsed = [CIFBlock(b.name, _spelled(dict(b))) for b in parse_cif(io.StringIO("\n".join(lines)))]
    blocks = [block for block in parsed if block.has_structure()]
    said = warned(caught)
    if broken := [text for text in said if text.startswith("Wrong number")]:
        raise FileProblem(f"cannot be read: {broken[0]}", "give each row of a loop as many values as it has tags")
    if not blocks:
        raise FileProblem("cannot be read: it has no atom sites")
    if index >= len(blocks):
        raise beyond(path.name)
    _check_tags(lines)
    block = blocks[index]
    _check_cell(block)
    tags, unknown_group = with_symmetry(dict(block))
    block = CIFBlock(block.name, tags)
    if (extra := block.get("_cell_modulation_dimension", 0)) not in (0, "0", "?", "."):
        raise FileProblem(f"is modulated (_cell_modulation_dimension {extra})", "give an approximant of the structure")
    _check_coordinates(block)
    concerns = [*_sites(block), *unknown_group]
    for symbol in map(str, _listed(block.get("_atom_site_type_symbol"))):
        if (of_type := _TYPE.fullmatch(symbol)) is None:
            raise unknown(symbol)
        element(of_type[1])
    for label in block.get_symbols():
        element(label)
    if "_atom_site_occupancy" in tags:  # words among them are a concern by now
        shares = map(_number, _listed(tags["_atom_site_occupancy"]))
        tags["_atom_site_occupancy"] = [1.0 if share is None or math.isnan(share) else share for share in shares]
        block = CIFBlock(block.name, tags)
    structure = taken(lambda: block.get_atoms(fractional_occupancies=True))
    if block.get("_atom_site_moment_label"):
        structure = structure.adding(notes=["magnetic moments are not kept"])
    missing = _missing(block, structure.atoms)
    if missing:
        concerns.append(
            Concern("hydrogens", f"names {missing} in its sum formula and has no such site",
                    "give a file with all atoms", "the structure is taken without")
        )  # fmt: skip
    elif not concerns and (told := _units_of_formula(block, structure.atoms)):
        concerns.append(
            Concern("symmetry", told, "correct formula, Z or space group", "the atoms are taken as its sites give them")
        )
    structure = structure.adding(statements=[*_moieties(block), *_charges(block, structure.atoms)])
    notes = _oxidation(block, structure.atoms)
    if any(block.get(tag) is not None for tag in _MASKED):
        notes.append("its refinement took solvent out of the pores (SQUEEZE): the structure is without")
    if not any(tag.startswith(("_symmetry_", "_space_group")) for tag in tags):
        notes.append("says no symmetry: taken as P 1")
    notes += [f"data block {index % len(blocks)} of {len(blocks)} (index)"] if len(blocks) > 1 else []
    return structure.adding(concerns=concerns, notes=[*notes, *(f"ASE: {text}" for text in said)])


_TYPE = re.compile(r"([A-Za-z]{1,2}?)(?:\d{0,3}[+-]?|[+-]\d)")
"""An atom type of a CIF: a symbol, and a charge."""
_MASKED = ("_platon_squeeze_void_count_electrons", "_smtbx_masks_void_count_electrons")
_MOIETY = re.compile(r"(?P<before>\d+\.?\d*)?\s*\(?.*\s(?P<charge>\d*)(?P<sign>[+-])\s*\)?\s*(?P<after>\d+\.?\d*)?")
"""A charged moiety of a CIF: ``C6 H5 O 1-``, ``(Na 1+)2``, ``2(Na 1+)``."""
_ONCE = ("_atom_site_", "_cell_", "_symmetry_", "_space_group", "_chemical_formula")
_OF_ATOMS = ("_atom", "_chemical_conn", "_diffrn", "_refln")


def _spelled(tags: dict[str, Any]) -> dict[str, Any]:
    """Tags of newer dictionaries (``_cell.length_a``) as those of the old one."""
    return {tag.replace(".", "_"): value for tag, value in tags.items()}


def _check_tags(lines: list[str]) -> None:
    """Refuses a tag of cell, symmetry, formula or sites that stands twice in a data block: one replaces the other."""
    seen: set[str] = set()
    is_text = False
    for line in lines:
        is_text ^= line.startswith(";")
        tag = (line.split() or [""])[0].lower().replace(".", "_")
        if tag.startswith("data_"):
            seen = set()
        elif not is_text and tag.startswith(_ONCE):
            if tag in seen:
                raise FileProblem(f"says {tag} twice", "keep one of them")
            seen.add(tag)


def _check_cell(block: Any) -> None:
    """Refuses a length or an angle of the cell that is no number above 0."""
    for tag in (*(f"_cell_length_{k}" for k in "abc"), *(f"_cell_angle_{k}" for k in ("alpha", "beta", "gamma"))):
        if tag in block and not ((value := _number(block[tag])) and 0 < value < math.inf):
            raise FileProblem(f"says {tag} {block[tag]}, which is no number above 0", "give all six of them")


def _number(value: Any) -> float | None:
    """A value as a number, in quotes or as a fraction too; None where it is not given, nan where it is no number."""
    text = str(value).strip("'\" ")
    if value is None or text in ("?", ".", ""):
        return None
    try:
        number, _, divisor = text.partition("/")
        return float(number) / float(divisor or 1)
    except (ValueError, ZeroDivisionError):
        return math.nan


def _charges(block: Any, atoms: Atoms) -> list[Statement]:
    """Charges of sites that add up to one of the cell; that of the sum formula, and of the cell itself."""
    found: list[Statement] = []
    kinds = atoms.arrays.get("spacegroup_kinds", range(len(atoms)))
    for tag in ("_atom_site_charge", "_atom_site_formal_charge", "_atom_site_pdbx_formal_charge"):
        values = [_number(value) or 0.0 for value in _listed(block.get(tag))]
        if values and max(kinds) < len(values) and math.isfinite(total := sum(values[kind] for kind in kinds)):
            found += charge_of_atoms(total, tag)
    z = block.get("_cell_formula_units_z")
    if match := re.search(r"\s(\d*)([+-])['\"\s]*$", str(block.get("_chemical_formula_sum", ""))):
        charge = int(match[2] + (match[1] or "1")) * (z if isinstance(z, int) and z > 0 else 1)
        found.append(Statement("charge", frozenset({charge}), f"a sum formula of charge {charge:+d} a cell"))
    for tag, value in block.items():
        if tag.endswith(("_charge", "_multiplicity")) and not tag.startswith(_OF_ATOMS) and not isinstance(value, list):
            found += statements_of({tag.rpartition("_")[2]: str(value).strip("'\"")})
    return found


def _check_coordinates(block: Any) -> None:
    """Refuses a site without coordinates."""
    labels = _listed(block.get("_atom_site_label"))
    for k in "xyz":
        for i, value in enumerate(_listed(block.get(f"_atom_site_fract_{k}", block.get(f"_atom_site_cartn_{k}")))):
            if not isinstance(value, int | float):
                name = labels[i] if i < len(labels) else f"of site {i}"
                raise FileProblem(
                    f"gives no {k} for atom {name} ({str(value)[:20]!r})", "give its coordinates, or remove it"
                )


def _oxidation(block: Any, atoms: Atoms) -> list[str]:
    """The note on oxidation numbers that do not balance."""
    kinds = atoms.arrays.get("spacegroup_kinds")
    numbers = [_number(value) for value in _listed(block.get("_atom_site_oxidation_number"))]
    if kinds is not None and numbers and max(kinds) < len(numbers):
        total = sum(numbers[kind] or 0.0 for kind in kinds)
        return [f"oxidation numbers of its sites add up to {total:+g}: left out"] if total else []
    types = [str(label) for label in _listed(block.get("_atom_site_type_symbol"))]
    found = [re.search(r"(\d?)([+-])$", label) for label in types]
    symbols, stated = (_listed(block.get(f"_atom_type_{tag}")) for tag in ("symbol", "oxidation_number"))
    of_type = {str(s): n for s, n in zip(symbols, stated, strict=False) if isinstance(n, int | float)}
    if kinds is None or not (any(found) or of_type) or max(kinds) >= len(found):
        return []
    charges = [
        of_type.get(label, 0) if m is None else int(m[2] + (m[1] or "1")) for label, m in zip(types, found, strict=True)
    ]
    total = sum(charges[kind] for kind in kinds)
    return [f"oxidation numbers of its sites add up to {total:+g}: left out"] if total else []


def _moieties(block: Any) -> list[Statement]:
    """The charge of the cell, where the charges of its moieties, as in ``(Na 1+)2, S O4 2-``, do not balance."""
    text, z = block.get("_chemical_formula_moiety"), block.get("_cell_formula_units_z")
    charged = [part.strip() for part in text.split(",") if "+" in part or "-" in part] if isinstance(text, str) else []
    found = [match for part in charged if (match := _MOIETY.fullmatch(part))]
    if len(found) < len(charged):
        return []
    total = sum(float(m["before"] or m["after"] or 1) * int(m["sign"] + (m["charge"] or "1")) for m in found)
    charge = round(total * (z if isinstance(z, int) and z > 0 else 1))
    return [Statement("charge", frozenset({charge}), f"moieties of charge {charge:+d} in all")] if charge else []


def _sites(block: Any) -> list[Concern]:
    """What a CIF says of its sites that a frame has no place for."""
    labels = [str(label) for label in _listed(block.get("_atom_site_label"))]
    concerns = []

    def named(k: int) -> str:
        return labels[k] if k < len(labels) else f"site {k}"

    partial = [
        f"{named(k)}, {value:g}"
        for k, value in enumerate(map(_number, _listed(block.get("_atom_site_occupancy"))))
        if value is not None and not abs(value - 1.0) <= 1e-3
    ]
    disordered = [
        f"{named(k)} in group {group}"
        for k, group in enumerate(_listed(block.get("_atom_site_disorder_group")))
        if str(group).strip() not in (".", "?", "0", "")
    ]
    if partial or disordered:
        concerns.append(partly_occupied(max(len(partial), len(disordered)), (partial or disordered)[0]))
    attached = [
        value for value in _listed(block.get("_atom_site_attached_hydrogens")) if isinstance(value, int) and value > 0
    ]
    if attached:
        concerns.append(
            Concern("hydrogens", f"has {sum(attached)} attached hydrogens without coordinates",
                    "give a file with all atoms", "the structure is taken without")
        )  # fmt: skip
    dummies = [named(k) for k, flag in enumerate(_listed(block.get("_atom_site_calc_flag"))) if flag == "dum"]
    if dummies:
        raise FileProblem(f"holds a dummy atom ({dummies[0]})", "remove it")
    return concerns


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _without_groups(text: str) -> str:
    """A sum formula such as AMCSD's ``Mg (O2 H2)``, with the elements of its groups counted."""
    if "(" not in text:
        return text
    try:
        return " ".join(f"{symbol}{n}" for symbol, n in Formula(re.sub(r"\s", "", text)).count().items())
    except ValueError:
        return text


def _units_of_formula(block: Any, atoms: Atoms) -> str:
    """What sum formula and formula units say of the cell, where the atoms are others; empty where they agree."""
    text, z = block.get("_chemical_formula_sum"), block.get("_cell_formula_units_z")
    has_z = isinstance(z, int) and z > 0
    pairs = re.findall(r"([A-Z][a-z]?)(\d*\.?\d*)(?=[\s,']|$)", _without_groups(text)) if isinstance(text, str) else []
    formula: dict[str, float] = {}
    for symbol, n in pairs:
        key = "H" if symbol in ("D", "T") else symbol
        formula[key] = formula.get(key, 0.0) + float(n or 1)
    if not formula:
        is_whole = not has_z or len(atoms) % z == 0
        return "" if is_whole else f"says {z} formula units a cell, and has {len(atoms)} atoms"
    units = z if has_z else len(atoms) / sum(formula.values())
    there = atoms.symbols.formula.count()
    if all(abs(units * n - there.get(symbol, 0)) < 0.1 for symbol, n in formula.items()):
        return ""
    said = f"{z} formula units of {' '.join(text.split())}" if has_z else " ".join(text.split())
    return f"says {said}, and its sites and symmetry give {atoms.symbols.formula:hill} a cell"


def _missing(block: Any, atoms: Atoms) -> str:
    """Elements of the sum formula that no site has."""
    formula = block.get("_chemical_formula_sum")
    if not isinstance(formula, str):
        return ""
    named = set(re.findall(r"([A-Z][a-z]?)(?:\d*\.?\d*)(?=\s|$|[A-Z(),'])", formula))
    there = set(atoms.symbols)
    named = {"H" if symbol in ("D", "T") else symbol for symbol in named}
    return " ".join(sorted(named - there))
