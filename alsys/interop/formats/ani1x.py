"""ANI-1x HDF5 (J. S. Smith et al., Sci. Data 7, 134 (2020)): Hartree, Hartree/Angstrom, Angstrom; neutral singlets.

One group for each formula: ``atomic_numbers``, ``coordinates``, ``wb97x_dz.energy`` and ``wb97x_dz.forces``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.interop.file_units import UnitSet
from alsys.interop.formats.base import Format, alike, appearing, refuse_beyond, require
from alsys.interop.formats.facts import alike_frames
from alsys.interop.formats.hdf5 import dataset, holds, molecules, n_conformations, tell
from alsys.interop.raw_frames import RawFrames, checked_each
from alsys.interop.terms import KEY
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot

UNITS = UnitSet("hartree", "hartree/angstrom", "angstrom")
LEVEL, LEVEL_TEXT = LevelOfTheory({"method": "wb97x", "basis": "6-31g*"}), "wb97x/6-31g*"
ENERGY, FORCES = "wb97x_dz.energy", "wb97x_dz.forces"


def read(path: Path, account: FileAccount | None = None) -> Iterator[RawFrames]:
    """Conformations of one formula after another.

    The account's choice may name the energy and the forces of another method, such as ``wb97x_tz.energy``: its name is
    the level then.
    """
    account = FileAccount() if account is None else account
    energy_name, forces_name = account.choice.energy or ENERGY, account.choice.forces or FORCES
    level = "" if (energy_name, forces_name) == (ENERGY, FORCES) else energy_name.rpartition(".")[0] or energy_name
    for what, name in (("energy", energy_name), ("forces", forces_name)):
        account.label_from(what, name)
    for name, group, numbers in molecules(path):
        positions, energy, forces = (dataset(group, key, name) for key in ("coordinates", energy_name, forces_name))
        n = n_conformations(positions, {energy_name: energy, forces_name: forces}, name)
        facts = tell(group, account, ("atomic_numbers", "coordinates", energy_name, forces_name), n)
        place = f"{name} conformation"
        for part, said in alike_frames(account, facts, numbers, n, place, level=level):
            arrays = numbers, positions[part], energy[part], forces[part]
            yield from checked_each(account, *arrays, place=place, first=part.start, group=name, **said)


def _is_alike(level: LevelOfTheory) -> bool:
    """Whether a level, with whatever other settings, is that of the format."""
    values = {str(value).lower() for value in level.spec.values()}
    name = "/".join(str(level.spec[key]) for key in ("xc", "method", "basis") if level.spec.get(key)).lower()
    return name == LEVEL_TEXT or {str(value) for value in LEVEL.spec.values()} <= values


def write(snapshot: Snapshot, path: Path, level: LevelOfTheory, terms: str = "") -> int:
    """A group for each sequence of atoms; a formula's second one gets a number."""
    h5py = require("h5py")
    refuse_beyond(snapshot, "ani1x")
    if not _is_alike(level):
        raise InputError(
            f"holds labels of {LEVEL_TEXT} only: its arrays are named after it", field="format ani1x",
            value=level.canonical, remedy="choose spice, which states its level, extxyz or ase-db",
        )  # fmt: skip
    with appearing(path) as temporary, h5py.File(temporary, "w", track_order=True) as file:
        file.attrs["level_of_theory"] = level.canonical
        if terms:
            file.attrs[KEY] = terms
        for i, part in enumerate(alike(snapshot)):
            group = file.create_group(part.name if part.name not in file else f"{part.name}-{i}")
            group["atomic_numbers"] = part.numbers
            group["coordinates"] = snapshot.positions[part.atoms]
            group[ENERGY] = snapshot.energy[part.rows] / UNITS.energy_factor
            group[FORCES] = snapshot.forces[part.atoms] / UNITS.force_factor
    return snapshot.n_frames


FORMAT = Format(
    name="ani1x",
    units=UNITS,
    level=LEVEL,
    is_of_one_level=True,
    electrons="neutral",
    recognises=lambda path: holds(path, "coordinates", ENERGY),
    read=read,
    write=write,
    holds_electrons=False,
)
