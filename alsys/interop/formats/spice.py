"""SPICE HDF5 (P. Eastman et al., Sci. Data 10, 11 (2023)): Hartree, gradients in Hartree/Bohr, Bohr.

One group for each molecule: ``atomic_numbers``, ``conformations``, ``dft_total_energy``, ``dft_total_gradient`` and
``smiles``, whose formal charges give the total charge; singlets. Files of ours hold ``total_charge`` instead of SMILES.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.interop.comments import check_bonds, formal_charge
from alsys.interop.file_units import UnitSet
from alsys.interop.formats.base import Format, alike, appearing, refuse_beyond, require
from alsys.interop.formats.facts import alike_frames
from alsys.interop.formats.hdf5 import dataset, holds, molecules, n_conformations, tell, text_or_number
from alsys.interop.raw_frames import RawFrames, checked_each
from alsys.interop.terms import KEY
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot

UNITS = UnitSet("hartree", "-hartree/bohr", "bohr")
ENERGY, GRADIENT = "dft_total_energy", "dft_total_gradient"
USED = ("atomic_numbers", "conformations", ENERGY, GRADIENT, "smiles")
_FIELDS = {"dft_total_energy": "energy", "dft_total_gradient": "force", "conformations": "length"}


def read(path: Path, account: FileAccount | None = None) -> Iterator[RawFrames]:
    """Conformations of one molecule after another."""
    account = FileAccount() if account is None else account
    for what, name in (("energy", ENERGY), ("forces", GRADIENT)):
        account.label_from(what, name)
    for name, group, numbers in molecules(path):
        yield from _molecule(name, group, numbers, account)


def _molecule(name: str, group: Any, numbers: Any, account: FileAccount) -> Iterator[RawFrames]:
    positions, energy, gradient = (dataset(group, key, name) for key in ("conformations", ENERGY, GRADIENT))
    n = n_conformations(positions, {ENERGY: energy, GRADIENT: gradient}, name)
    facts = tell(group, account, USED, n)
    units = tuple(_units(group))
    try:
        smiles = text_or_number(group, "smiles", name)
        if smiles is not None:
            first = np.asarray(smiles).reshape(-1)[0]
            text = first.decode(errors="replace") if isinstance(first, bytes) else str(first)
            check_bonds(text, numbers, f"{name}: smiles", is_whole=True)
            facts["SMILES_charge"] = formal_charge(text)
    except InputError as error:
        account.refuse(f"{name} conformation 0", error, n)
        return
    for part, said in alike_frames(account, facts, numbers, n, f"{name} conformation"):
        said = {**said, "units": (*said["units"], *units)}
        if said["multiplicity"] is None:
            said["multiplicity"] = 1
        yield from checked_each(
            account,
            numbers,
            positions[part],
            energy[part],
            gradient[part],
            place=f"{name} conformation",
            first=part.start,
            group=name,
            **said,
        )


def _units(group: Any) -> Iterator[tuple[str, str]]:
    for key, what in _FIELDS.items():
        attributes = {name.lower(): value for name, value in group[key].attrs.items()}
        said = attributes.get("units", attributes.get("unit"))
        if said is not None:
            text = said.decode() if isinstance(said, bytes) else str(said)
            yield what, f"-{text}" if what == "force" else text


def write(snapshot: Snapshot, path: Path, level: LevelOfTheory, terms: str = "") -> int:
    """A group for each sequence of atoms and charge."""
    h5py = require("h5py")
    refuse_beyond(snapshot, "spice", electrons=True)
    with appearing(path) as temporary, h5py.File(temporary, "w", track_order=True) as file:
        file.attrs["level_of_theory"] = level.canonical
        if terms:
            file.attrs[KEY] = terms
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
