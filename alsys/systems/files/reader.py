"""A structure file by its ending: the formats of an allow list, none of which executes code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from alsys.errors import InputError
from alsys.outside.child import read_in_child
from alsys.outside.contents import check_regular
from alsys.outside.limits import STRUCTURE
from alsys.systems.files import ase_formats
from alsys.systems.files.cif import read_cif
from alsys.systems.files.content import FileProblem, Structure
from alsys.systems.files.molfile import read_molfile
from alsys.systems.files.pdb import read_pdb
from alsys.systems.files.shelx import read_res
from alsys.systems.files.turbomole import read_coord
from alsys.systems.files.xyz import read_xyz

READERS: dict[str, Callable[[Path, int], Structure]] = {
    "extxyz": read_xyz,
    "proteindatabank": read_pdb,
    "cif": read_cif,
    "sdf": read_molfile,
    "gen": ase_formats.read_gen,
    "vasp": ase_formats.read_poscar,
    "traj": ase_formats.read_traj,
    "xsf": ase_formats.read_xsf,
    "res": read_res,
    "turbomole": read_coord,
}
"""Readers by ASE's name of the format."""
FORMATS = {
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".pdb": "proteindatabank",
    ".cif": "cif",
    ".sdf": "sdf",
    ".mol": "sdf",
    ".gen": "gen",
    ".vasp": "vasp",
    ".poscar": "vasp",
    ".contcar": "vasp",
    ".traj": "traj",
    ".xsf": "xsf",
    ".res": "res",
    ".coord": "turbomole",
}
"""Formats by file ending, or by name for a file without one."""


NAMES = {
    "extxyz": "XYZ", "proteindatabank": "PDB", "cif": "CIF", "sdf": "SDF", "gen": "GEN", "vasp": "POSCAR",
    "traj": "ASE trajectory", "xsf": "XSF", "res": "SHELX RES", "turbomole": "Turbomole coord",
}  # fmt: skip
"""Formats as people call them."""
FARTHEST = 1e5
"""Largest coordinate, Angstrom; beyond, digits of a distance are lost."""
MAX_ATOMS = 10_000
"""Of a start structure: its pairs are looked at, and each frame is labelled as a whole or carved."""


def read_structure(path: Path, index: int) -> Structure:
    """One structure of a file, with all that the file says about it.

    Args:
        path: The file.
        index: Which of its frames; -1 is the last.

    Raises:
        InputError: It cannot be read, in one line.
    """
    ending = path.suffix.lower() or f".{path.name.lower()}"
    form = FORMATS.get(ending)
    if form is None:
        known = ", ".join(FORMATS)
        raise InputError("is of a format that is not read", field="file", value=str(path), remedy=f"use {known}")
    try:
        check_regular(path)
        return read_in_child(_parsed, STRUCTURE.for_(path), path, index, form)
    except InputError as error:
        if error.field is not None:
            raise
        raise InputError(error.message, field="file", value=str(path), remedy=error.remedy) from error


def _parsed(path: Path, index: int, form: str) -> Structure:
    """One structure of a file; runs in a process of its own."""
    try:
        structure = READERS[form](path, index)
        if len(structure.atoms) > MAX_ATOMS:
            raise FileProblem(f"holds {len(structure.atoms)} atoms, {MAX_ATOMS} at most are taken", "cut a part out")
        far = int(np.argmax(np.abs(structure.atoms.positions).max(axis=1)))
        if np.abs(structure.atoms.positions[far]).max() > FARTHEST:
            raise FileProblem(f"has atom {far} at {structure.atoms.positions[far].tolist()} Angstrom", "correct it")
        return structure
    except FileProblem as error:
        value: object = index if error.field == "index" else str(path)
        raise InputError(str(error), field=error.field, value=value, remedy=error.remedy) from error
    except InputError as error:
        message = f"{error.field} of {error.value} {error.message}"
        raise InputError(message, field="file", value=str(path), remedy=error.remedy) from None
    except MemoryError:
        raise
    except KeyError as error:  # ASE's tables of elements
        raise InputError(
            f"holds an unknown element {error}", field="file", value=str(path), remedy="use element symbols"
        ) from error
    except Exception as error:  # readers of ASE and RDKit raise whatever a broken file leads them to
        name = NAMES.get(form, form)
        raise InputError(
            f"cannot be read as {name}: {_plain(error)}",
            field="file",
            value=str(path),
            remedy=f"give a whole {name} file, as a program writes it, or another format ({', '.join(FORMATS)})",
        ) from error


def _plain(error: Exception) -> str:
    """What an error of a reader means for the file, without words of its code."""
    text = str(error)
    if match := re.search(
        r"could not convert string to float: (.+)|invalid literal for int\(\) with base 10: (.+)", text
    ):
        return f"{match[1] or match[2]} stands where a number belongs"[:200]
    if isinstance(error, IndexError | StopIteration | EOFError) or re.search(r"unpack|reshape|broadcast|shape", text):
        return "it ends too early, or numbers are missing in a line"
    return "its lines are not those of this format"
