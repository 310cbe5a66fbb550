"""rMD17 npz (A. S. Christensen, O. A. von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020)).

``nuclear_charges``, ``coords``, ``energies``, ``forces``: kcal/mol, kcal/mol/Angstrom, Angstrom; neutral singlets.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.interop.file_units import UnitSet
from alsys.interop.formats.arrays import load, member
from alsys.interop.formats.base import Format, alike, appearing, refuse_beyond
from alsys.interop.formats.facts import alike_frames, label_of
from alsys.interop.keys import needs_value
from alsys.interop.raw_frames import RawFrames, checked_each
from alsys.interop.terms import KEY
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot

USED = ("nuclear_charges", "coords", "energies", "forces")
UNITS = UnitSet("kcal/mol", "kcal/mol/angstrom", "angstrom")


def read(path: Path, account: FileAccount | None = None) -> Iterator[RawFrames]:
    """Frames in order, in chunks."""
    account = FileAccount() if account is None else account
    archive = load(path)
    if not hasattr(archive, "files"):
        raise InputError("is an array and no npz archive of several", source=str(path))
    facts = {}
    chosen = (account.choice.energy, account.choice.forces)
    with archive:
        names = list(archive.files)
        if missing := set(USED) - set(names):
            raise InputError(
                f"has no {', '.join(sorted(missing))}", source=str(path), value=names[:8],
                remedy=f"save it with {', '.join(USED)} and level_of_theory (of MD17 and MD22: z, R, E, F, theory)",
            )  # fmt: skip
        numbers = member(archive, "nuclear_charges")
        positions, energy, forces = (member(archive, name) for name in ("coords", "energies", "forces"))
        for name in names:
            if name not in USED and (name in chosen or not name.startswith("old_")):
                try:
                    facts[name] = member(archive, name)
                except InputError:  # of objects, as names without a meaning may be
                    if needs_value(name):
                        raise
                    account.ignore(name)
    n = int(positions.shape[0]) if positions.ndim else 0
    for name, values in (("energies", energy), ("forces", forces)):
        if not values.ndim or values.shape[0] != n:
            raise InputError(f"must hold {n} frames", field=name, value=values.shape)
    if not n:
        raise InputError("holds no frames", source=str(path))
    energy = label_of(account, "energy", "energies", energy, facts, "frame 0", n)
    forces = label_of(account, "forces", "forces", forces, facts, "frame 0", n)
    for name in names:
        if name in ("nuclear_charges", "coords"):
            account.use(name, n)
        elif name.startswith("old_") and name not in chosen:
            account.leave_out(name, "of MD17, another calculation", n)
    for part, said in alike_frames(account, facts, numbers, n, "frame"):
        yield from checked_each(
            account, numbers, positions[part], energy[part], forces[part], place="frame", first=part.start, **said
        )


def write(snapshot: Snapshot, path: Path, level: LevelOfTheory, terms: str = "") -> int:
    """One archive; all frames must have the same atoms in the same order."""
    refuse_beyond(snapshot, "rmd17")
    parts = alike(snapshot)
    if len(parts) != 1:
        raise InputError("holds frames of one molecule only", field="format rmd17", value=len(parts))
    (part,) = parts
    with appearing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            nuclear_charges=part.numbers.astype(np.uint8),
            coords=snapshot.positions[part.atoms],
            energies=snapshot.energy[part.rows] / UNITS.energy_factor,
            forces=snapshot.forces[part.atoms] / UNITS.force_factor,
            level_of_theory=np.array(level.canonical),
            **({KEY: np.array(terms)} if terms else {}),  # type: ignore[arg-type]
        )
    return snapshot.n_frames


def _recognises(path: Path) -> bool:
    if path.suffix != ".npz" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {"nuclear_charges.npy", "coords.npy"} <= set(archive.namelist())


FORMAT = Format(
    name="rmd17",
    units=UNITS,
    level=LevelOfTheory({"method": "pbe", "basis": "def2-svp"}),
    electrons="neutral",
    recognises=_recognises,
    read=read,
    write=write,
    holds_electrons=False,
)
