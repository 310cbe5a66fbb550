"""MOL and SD files, V2000 and V3000, read by RDKit; what its molecule does not keep is read from the text.

Hydrogens that the bond table implies are added. A drawing (flat, with implied hydrogens or marked as 2D) gets its
structure from RDKit, as a SMILES does. A file without charges says nothing about them; `M  CHG` says a total, zero too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from alsys.systems.conformers import embed_one, plain, quiet_rdkit
from alsys.systems.files.content import (
    FileProblem,
    Statement,
    Structure,
    beyond,
    isotope_note,
    twice,
)
from alsys.systems.files.elements import unknown
from alsys.systems.files.remarks import with_pairs, with_texts
from alsys.systems.files.text import read_lines

if TYPE_CHECKING:
    from rdkit.Chem import Mol


def read_molfile(path: Path, index: int) -> Structure:
    """One molecule of a MOL or SD file.

    Args:
        path: The file.
        index: Which molecule; -1 is the last.

    Raises:
        FileProblem: It cannot be read, or holds what is no atom.
    """
    records = _records(read_lines(path))
    if not records:
        raise FileProblem("cannot be read: it is empty")
    if index >= len(records):
        raise beyond(path.name)
    block, data = records[index]
    mol = _parsed(block, is_sanitised=False)
    structure = _structure(block, mol)
    notes = [f"molecule {index % len(records)} of {len(records)} (index)"] if len(records) > 1 else []
    texts = [line for k, line in enumerate(block) if k < 3 or line.startswith("V  ")]
    pairs = {name: value if "\n" not in value else "several lines" for name, value in data.items()}
    structure = with_texts(structure.adding(statements=_statements(block, mol)), texts)
    return with_pairs(structure.adding(notes=notes), pairs)


def _records(lines: list[str]) -> list[tuple[list[str], dict[str, str]]]:
    """Lines of each molecule, and its data fields."""
    records: list[tuple[list[str], dict[str, str]]] = []
    start = 0
    for k, line in enumerate([*lines, "$$$$"]):
        if not line.startswith("$$$$"):
            continue
        part = lines[start:k]
        start = k + 1
        end = next((i + 1 for i, row in enumerate(part) if row.startswith("M  END")), len(part))
        if any(row.strip() for row in part):
            records.append((part[:end], _data(part[end:])))
    return records


def _data(lines: list[str]) -> dict[str, str]:
    """Data fields; values of several lines are those of atoms or tables, and stay apart by line ends."""
    fields: list[tuple[str, list[str]]] = []
    is_open = False
    for line in lines:
        if line.startswith(">"):
            match = re.search(r"<([^<>]+)>", line)
            is_open = match is not None
            fields += [(match[1].strip(), [])] if match else []
        elif is_open and line.strip():
            fields[-1][1].append(line.strip())
        else:
            is_open = False
    data: dict[str, str] = {}
    for name, rows in fields:
        if rows and data.setdefault(name, "\n".join(rows)) != "\n".join(rows):
            raise twice(f"<{name}>")
    return data


def _parsed(block: list[str], *, is_sanitised: bool) -> Mol:
    from rdkit import Chem

    quiet_rdkit()
    if len(block) < 4 or not re.search(r"V[23]000\s*$", block[3]):
        raise FileProblem("cannot be read: line 4 of the molecule is not a counts line that ends with V2000 or V3000")
    try:
        mol = Chem.MolFromMolBlock("\n".join(block) + "\n", sanitize=is_sanitised, removeHs=False, strictParsing=True)
    except RuntimeError:  # invariants of RDKit
        mol = None
    if mol is None:
        raise FileProblem("cannot be read: its counts, atoms or bonds are not in their columns", "write it anew")
    if mol.GetNumAtoms() == 0:
        raise FileProblem("holds no atoms")
    for atom in mol.GetAtoms():
        if atom.GetAtomicNum() == 0 or atom.HasQuery():
            raise unknown(atom.GetSymbol())
    for k, line in enumerate(block[:-1]):
        if re.match(r"[AG]  [ \d]{3}", line):
            raise FileProblem(
                f"holds a group as an alias or abbreviation ({block[k + 1].strip()[:20]!r})", "give its atoms"
            )
    if any(re.match(r"M  STY.*\b(SRU|MON|MER|COP|MIX|FOR)\b", line) for line in block):
        raise FileProblem("holds a repeating unit of a polymer", "give all its atoms")
    return mol


def _structure(block: list[str], mol: Mol) -> Structure:
    from rdkit import Chem

    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    positions = np.array(mol.GetConformer().GetPositions())
    notes = isotope_note((atom.GetAtomicNum(), atom.GetIsotope()) for atom in mol.GetAtoms() if atom.GetIsotope())
    as_given = Structure(Atoms(numbers=numbers, positions=positions), notes=tuple(notes))
    if mol.GetNumBonds() == 0 and len(numbers) > 1:
        return as_given.adding(notes=["no bond table: hydrogens that may be missing are not looked for"])
    full = Chem.Mol(mol)
    try:
        Chem.SanitizeMol(full)
    except ValueError as error:  # RDKit's own errors are among them
        return as_given.adding(
            notes=[f"bond table without a Lewis structure ({plain(str(error), first=1)}): hydrogens are not looked for"]
        )
    n_implied = sum(atom.GetTotalNumHs() for atom in full.GetAtoms())
    dimension = block[1][20:22].upper()
    is_flat = not positions[:, 2].any()
    if len(numbers) > 1 and is_flat and (dimension == "2D" or (n_implied and dimension != "3D")):
        return _drawn(block, notes)
    if not n_implied:
        return as_given
    complete = Chem.AddHs(full, addCoords=True)
    atoms = Atoms(
        numbers=[atom.GetAtomicNum() for atom in complete.GetAtoms()], positions=complete.GetConformer().GetPositions()
    )
    return Structure(atoms, notes=(*notes, f"{n_implied} hydrogens added that its bond table implies"))


def _drawn(block: list[str], notes: list[str]) -> Structure:
    """A structure from a flat drawing."""
    from rdkit import Chem

    full = Chem.AddHs(_parsed(block, is_sanitised=True))
    full.RemoveAllConformers()
    if len(Chem.GetMolFrags(full)) > 1:
        raise FileProblem("is a drawing of several molecules", "give a file with coordinates in three dimensions")
    chosen = embed_one(full)
    if not chosen:
        raise FileProblem("is a drawing of which RDKit finds no 3D structure", "give coordinates in three dimensions")
    atoms = Atoms(
        numbers=[atom.GetAtomicNum() for atom in full.GetAtoms()],
        positions=full.GetConformer(chosen[0]).GetPositions(),
    )
    return Structure(atoms, notes=(*notes, "a drawing: structure and hydrogens from RDKit"))


def _statements(block: list[str], mol: Mol) -> list[Statement]:
    """Charge and multiplicity, where the molecule says them."""
    charges = [atom.GetFormalCharge() for atom in mol.GetAtoms()]
    text = re.sub(r"(?m)^(M  V30 .*)-\nM  V30 ", r"\1", "\n".join(line.rstrip() for line in block))
    while text != (joined := re.sub(r"(?m)^(M  V30 .*)-\nM  V30 ", r"\1", text)):  # continued more than once
        text = joined
    block = text.split("\n")
    found = []
    if any(charges) or re.search(r"^M  CHG|^M  V30 .*\bCHG=", text, re.MULTILINE):
        found.append(
            Statement("charge", frozenset({sum(charges)}), f"formal charges, which add up to {sum(charges):+d}")
        )
    radicals = _radicals(block)
    if len(radicals) == 1:
        found.append(Statement("multiplicity", frozenset(radicals), f"a radical centre of multiplicity {radicals[0]}"))
    elif radicals:
        unpaired = sum(radicals) - len(radicals)
        how = f"{len(radicals)} radical centres with {unpaired} unpaired electrons"
        found.append(Statement("multiplicity", frozenset(range(unpaired + 1, 0, -2)), how))
    return found


def _radicals(block: list[str]) -> list[int]:
    """Multiplicity of each radical centre: 1, 2 or 3."""
    found: list[int] = []
    is_superseded = any(line.startswith(("M  CHG", "M  RAD")) for line in block)
    n_atoms = int(block[3][:3]) if block[3][:3].strip().isdigit() else 0
    for k, line in enumerate(block):
        if line.startswith("M  RAD"):
            found += [int(word) for word in line[9:].split()[1::2] if word in "123"]
        elif line.startswith("M  V30") and (match := re.search(r"\bRAD=([123])", line)):
            found.append(int(match[1]))
        elif 4 <= k < 4 + n_atoms and not is_superseded and line[36:39].strip() == "4":
            found.append(2)
    return found
