"""Boxes and clusters of molecules, packed at random with packmol.

packmol (L. Martinez et al., J. Comput. Chem. 30, 2157 (2009)) runs as a program in a temporary folder, with a seed and
a time limit. Its result is believed only after `closest_molecules` has found no two molecules, images included, closer
than `APART`. All that a user can get wrong is an `InputError` that names field, value and remedy.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from alsys.config.systems import BoxConfig, ClusterConfig
from alsys.dynamics.geometry import closest_molecules
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import FloatArray, Frame
from alsys.units import AMU_PER_CUBIC_ANGSTROM, PER_CUBIC_ANGSTROM

APART = 2.0
"""Angstrom between atoms of different molecules, at least."""
TOLERANCE = 2.01
"""Asked of packmol, which keeps it up to its precision."""
LOOPS = 20
"""packmol's tries for each kind of molecule and for all; what fits is found in the first few."""
TIMEOUT_S = 120.0
"""Wall time of one packing."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is packed into which volume.

    Attributes:
        counts: Molecules of each component.
        volume: Angstrom^3.
    """

    counts: tuple[int, ...]
    volume: float

    @property
    def edge(self) -> float:
        """Edge of a cube of this volume, Angstrom."""
        return float(self.volume ** (1.0 / 3.0))

    @property
    def radius(self) -> float:
        """Radius of a sphere of this volume, Angstrom."""
        return float((0.75 * self.volume / np.pi) ** (1.0 / 3.0))


def recipe(config: BoxConfig | ClusterConfig, masses: Sequence[float]) -> Recipe:
    """Counts and volume from counts, concentrations, density and size, whichever are given.

    Args:
        config: The box or cluster.
        masses: Mass of one molecule of each component, amu.

    Raises:
        InputError: A density that nothing can have, or a volume too small for a single molecule.
    """
    density = None if config.density is None else config.density * AMU_PER_CUBIC_ANGSTROM
    known = sum(m * (c.count or 0) for m, c in zip(masses, config.components, strict=True))
    dissolved = sum(m * (c.concentration or 0.0) for m, c in zip(masses, config.components, strict=True))
    size = config.edge if isinstance(config, BoxConfig) else config.radius
    if size is not None:
        volume = size**3 if isinstance(config, BoxConfig) else 4.0 / 3.0 * np.pi * size**3
    else:
        assert density is not None  # the config has one of the two
        rest = density - dissolved * PER_CUBIC_ANGSTROM
        if rest <= 0.0:
            raise InputError(
                "is less than what is dissolved weighs alone", field="density", value=config.density,
                remedy=f"use more than {dissolved * PER_CUBIC_ANGSTROM / AMU_PER_CUBIC_ANGSTROM:.2f} g/cm3",
            )  # fmt: skip
        volume = known / rest
    counts = [
        round(component.concentration * PER_CUBIC_ANGSTROM * volume)
        if component.concentration is not None
        else component.count
        for component in config.components
    ]
    if None in counts:  # the one that fills up
        assert density is not None
        k = counts.index(None)
        others = sum(m * (n or 0) for m, n in zip(masses, counts, strict=True))
        counts[k] = max(round((density * volume - others) / masses[k]), 0)
    for k, n in enumerate(counts):
        if not n:
            raise InputError(
                f"gets no molecule in {volume:.0f} cubic Angstrom",
                field=f"components[{k}]",
                value=config.components[k].origin,
                remedy="use a larger volume, a higher density or concentration, or give a count",
            )
    return Recipe(tuple(n or 0 for n in counts), float(volume))


def pack(
    made: Recipe, molecules: Sequence[Atoms], *, is_periodic: bool, seed: int, charge: int, multiplicity: int
) -> Frame:
    """One random packing, in a periodic cube or in a sphere.

    Args:
        made: Counts and volume.
        molecules: One molecule of each component.
        is_periodic: A cube with periodic boundaries; otherwise a sphere around the origin.
        seed: packmol's.
        charge: Of the whole, e.
        multiplicity: Of the whole.

    Returns:
        A frame with the molecules one after the other, none split by the boundary.

    Raises:
        InputError: They do not fit.
        EnvironmentProblem: packmol is not installed.
    """
    size = made.edge if is_periodic else made.radius
    field, value = ("box", f"edge {size:.2f}") if is_periodic else ("cluster", f"radius {size:.2f}")
    remedy = "use a larger edge or a lower density" if is_periodic else "use a larger radius or a lower density"
    lines = [
        "filetype xyz",
        "output packed.xyz",
        f"seed {seed}",
        f"tolerance {TOLERANCE}",
        "precision 0.001",
        f"nloop {LOOPS}",
    ]
    if is_periodic:
        lines.append(f"pbc 0.0 0.0 0.0 {size:.6f} {size:.6f} {size:.6f}")
    for k, count in enumerate(made.counts):
        lines += [f"structure component{k}.xyz", f"  number {count}"]
        if not is_periodic:
            lines.append(f"  inside sphere 0.0 0.0 0.0 {size:.6f}")
        lines.append("end structure")
    positions = _run("\n".join(lines) + "\n", molecules, field, value, remedy)
    copies = [molecules[k] for k, count in enumerate(made.counts) for _ in range(count)]
    frame = Frame(
        numbers=np.concatenate([atoms.numbers for atoms in copies]),
        positions=positions,
        cell=np.eye(3) * (size if is_periodic else 0.0),
        pbc=np.full(3, is_periodic),
        charge=charge,
        multiplicity=multiplicity,
    )
    distance = closest_molecules(frame, np.repeat(np.arange(len(copies)), [len(atoms) for atoms in copies]), APART)
    if distance < APART:
        raise InputError(
            f"holds molecules that are only {distance:.2f} Angstrom apart", field=field, value=value, remedy=remedy
        )
    return frame


def _run(script: str, molecules: Sequence[Atoms], field: str, value: str, remedy: str) -> FloatArray:
    """``(n_atoms, 3)`` positions that packmol found, Angstrom."""
    program = _program()
    with tempfile.TemporaryDirectory(prefix="alsys-packmol-") as name:
        folder = Path(name)
        (folder / "packmol.inp").write_text(script)
        for k, atoms in enumerate(molecules):
            rows = (
                f"{chemical_symbols[number]} {x:.8f} {y:.8f} {z:.8f}"
                for number, (x, y, z) in zip(atoms.numbers, atoms.positions, strict=True)
            )
            (folder / f"component{k}.xyz").write_text(f"{len(atoms)}\n\n" + "\n".join(rows) + "\n")
        try:
            with (folder / "packmol.inp").open() as stdin:  # it seeks in its input, so a pipe will not do
                done = subprocess.run(
                    [program], stdin=stdin, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
                )
        except subprocess.TimeoutExpired:
            raise InputError(
                f"is not packed after {TIMEOUT_S:.0f} s", field=field, value=value, remedy=remedy
            ) from None
        except OSError as error:
            raise EnvironmentProblem(f"cannot run packmol at {program}: {error.strerror}") from error
        packed = folder / "packed.xyz"
        if done.returncode != 0 or not packed.is_file():
            raise InputError("cannot be packed", field=field, value=value, remedy=remedy)
        return np.loadtxt(packed, skiprows=2, usecols=(1, 2, 3), ndmin=2)


def _program() -> str:
    """Path of packmol: the one of the PyPI package, or else one on the path."""
    spec = importlib.util.find_spec("packmol")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        program = Path(folder) / "binaries" / "packmol"
        if program.is_file():
            return str(program)
    found = shutil.which("packmol")
    if found is None:
        raise EnvironmentProblem("boxes and clusters need packmol, which is not installed; pip install 'alsys[boxes]'")
    return found
