"""Extended XYZ: labelled frames out for other codes, published frames in for certification."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from alsys.errors import InputError
from alsys.frames import ARMS, Arm, FloatArray, Frame
from alsys.store.base import Snapshot


def export_extxyz(snapshot: Snapshot, path: Path, *, arms: Sequence[Arm] | None = None) -> int:
    """Writes labelled frames, one after another, and returns how many; the file appears only when it is complete.

    Energies (eV) and forces (eV/Angstrom) are where ASE looks for them; charge, multiplicity, arm, system, trajectory,
    model_version, deviation (eV/Angstrom) and frame_id are in the comment line.
    """
    keep = np.ones(snapshot.n_frames, dtype=np.bool_) if arms is None else snapshot.is_arm(*arms)
    offsets = snapshot.offsets
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for i in np.flatnonzero(keep):
                part = slice(int(offsets[i]), int(offsets[i + 1]))
                atoms = Atoms(
                    numbers=snapshot.numbers[part],
                    positions=snapshot.positions[part],
                    cell=snapshot.cell[i],
                    pbc=snapshot.pbc[i],
                )
                atoms.info = {
                    "charge": int(snapshot.charge[i]),
                    "multiplicity": int(snapshot.multiplicity[i]),
                    "arm": str(ARMS[snapshot.arm[i]]),
                    "system": snapshot.systems[snapshot.system[i]],
                    "trajectory": int(snapshot.trajectory[i]),
                    "model_version": int(snapshot.model_version[i]),
                    "frame_id": f"id-{snapshot.frame_ids[i]}",
                }
                if np.isfinite(snapshot.deviation[i]):
                    atoms.info["deviation"] = float(snapshot.deviation[i])
                atoms.calc = SinglePointCalculator(
                    atoms, energy=float(snapshot.energy[i]), forces=snapshot.forces[part]
                )
                ase.io.write(file, atoms, format="extxyz")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"cannot be written: {error.strerror}", source=str(path)) from error
    return int(keep.sum())


def read_labelled(path: str | Path) -> list[tuple[Frame, float, FloatArray]]:
    """Reads frames with energies and forces; a frame that is not periodic loses its lattice.

    Raises:
        InputError: The file cannot be read, or a frame lacks energy or forces.
    """
    source = str(path)
    try:
        images = ase.io.read(source, index=":", format="extxyz")
    except (OSError, ValueError, KeyError, IndexError, AssertionError) as error:
        raise InputError(f"cannot be read as extxyz: {error}", source=source) from error
    result = []
    for i, atoms in enumerate(images):
        results = {} if atoms.calc is None else atoms.calc.results
        energy = results.get("energy", atoms.info.get("energy"))
        forces = results.get("forces", atoms.arrays.get("forces"))
        for name, value in (("energy", energy), ("forces", forces)):
            if value is None:
                raise InputError("is missing", source=source, field=f"frame {i}: {name}", remedy="label the frame")
        pbc = np.asarray(atoms.pbc)
        try:
            frame = Frame(
                numbers=atoms.numbers,
                positions=atoms.positions,
                cell=np.asarray(atoms.cell) if pbc.any() else np.zeros((3, 3)),
                pbc=pbc,
                charge=int(atoms.info.get("charge", 0)),
                multiplicity=int(atoms.info.get("multiplicity", 1)),
            )
        except InputError as error:
            raise error.located(source=source, field=f"frame {i}") from None
        result.append((frame, float(energy), np.asarray(forces, dtype=np.float64)))
    if not result:
        raise InputError("holds no frames", source=source)
    return result
