"""SPICE HDF5 (P. Eastman et al., Sci. Data 10, 11 (2023)): Hartree, gradients in Hartree/Bohr, Bohr.

One group for each molecule: ``atomic_numbers``, ``conformations``, ``dft_total_energy``, ``dft_total_gradient`` and
``smiles``, whose formal charges give the total charge; singlets. Files of ours hold ``total_charge`` instead of SMILES.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alsys.errors import InputError
from alsys.interop.file_units import UnitSet
from alsys.interop.formats.base import Format, alike, appearing, refuse_beyond, require
from alsys.interop.formats.hdf5 import dataset, groups, holds, n_conformations, opened, slices
from alsys.interop.raw import RawFrames, checked, integer
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot

UNITS = UnitSet("hartree", "-hartree/bohr", "bohr")
_FIELDS = {"dft_total_energy": "energy", "dft_total_gradient": "force", "conformations": "length"}
_ATOM = re.compile(r"\[[^\]]*?(\++|-+|[+-]\d+)?(?::\d+)?\]")


def read(path: Path) -> Iterator[RawFrames]:
    """Conformations of one molecule after another."""
    with opened(path) as file:
        found = False
        for name, group in groups(file, "atomic_numbers"):
            found = True
            yield from _molecule(name, group)
        if not found:
            raise InputError("holds no group with `atomic_numbers`", source=str(path))


def _molecule(name: str, group: Any) -> Iterator[RawFrames]:
    numbers = dataset(group, "atomic_numbers", name)[...].reshape(-1)
    positions, energy, gradient = (
        dataset(group, key, name) for key in ("conformations", "dft_total_energy", "dft_total_gradient")
    )
    n = n_conformations(positions, {"dft_total_energy": energy, "dft_total_gradient": gradient}, name)
    charge, units = _charge(name, group), tuple(_units(group))
    for part in slices(n):
        yield checked(
            numbers,
            positions[part],
            energy[part],
            gradient[part],
            place=f"{name} conformation",
            first=part.start,
            group=name,
            charge=charge,
            multiplicity=integer(group["multiplicity"][()], f"{name}: multiplicity") if "multiplicity" in group else 1,
            units=units,
        )


def _units(group: Any) -> Iterator[tuple[str, str]]:
    for key, what in _FIELDS.items():
        said = group[key].attrs.get("units")
        if said is not None:
            text = said.decode() if isinstance(said, bytes) else str(said)
            yield what, f"-{text}" if what == "force" else text


def _charge(name: str, group: Any) -> int | None:
    if "total_charge" in group:
        return integer(np.asarray(group["total_charge"][()]).reshape(-1)[0], f"{name}: total_charge")
    if "smiles" not in group:
        return None
    text = np.asarray(group["smiles"][()]).reshape(-1)[0]
    return formal_charge(text.decode() if isinstance(text, bytes) else str(text))


def formal_charge(smiles: str) -> int:
    """Sum of the formal charges of a SMILES string."""
    total = 0
    for sign in _ATOM.findall(smiles):
        if sign:
            total += int(sign) if sign[-1].isdigit() else (len(sign) if sign[0] == "+" else -len(sign))
    return total


def write(snapshot: Snapshot, path: Path, level: LevelOfTheory) -> int:
    """A group for each sequence of atoms and charge."""
    h5py = require("h5py")
    refuse_beyond(snapshot, "spice", electrons=True)
    with appearing(path) as temporary, h5py.File(temporary, "w", track_order=True) as file:
        file.attrs["level_of_theory"] = level.canonical
        for i, part in enumerate(alike(snapshot)):
            group = file.create_group(f"{part.name}-{i}")
            group["subset"] = np.array([b"alsys"])
            group["atomic_numbers"] = part.numbers
            group["total_charge"] = part.charge
            group["multiplicity"] = part.multiplicity
            for key, values, unit in (
                ("conformations", snapshot.positions[part.atoms] / UNITS.length_factor, "bohr"),
                ("dft_total_energy", snapshot.energy[part.rows] / UNITS.energy_factor, "hartree"),
                ("dft_total_gradient", snapshot.forces[part.atoms] / UNITS.force_factor, "hartree/bohr"),
            ):
                group[key] = values
                group[key].attrs["units"] = unit
    return snapshot.n_frames


FORMAT = Format(
    name="spice",
    units=UNITS,
    level=LevelOfTheory({"method": "wb97m-d3bj", "basis": "def2-tzvppd"}),
    electrons="required",
    recognises=lambda path: holds(path, "conformations", "dft_total_energy"),
    read=read,
    write=write,
)
