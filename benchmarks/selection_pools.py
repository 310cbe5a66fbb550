"""Pools for the study of selection: frames of GFN2-xTB dynamics of two isomers, C2H6O, with energies and forces.

`rare`: ethanol at 300 K with 5 % rare frames, half of them ethanol at 1200 K and half dimethyl ether, the isomer that
ethanol would react to. `balanced`: ethanol and dimethyl ether at 300, 600 and 900 K in equal shares. Test frames come
from trajectories of their own, with as many rare as common ones; errors are weighted back to the pool's makeup.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.build import molecule
from ase.data import atomic_masses
from numpy.typing import NDArray

from alsys.dynamics.integrators import Langevin
from alsys.exploration.initial import relax
from alsys.exploration.reference import xtb_potential
from alsys.frames import FloatArray, Frame, IntArray

TIMESTEP = 0.5
FRICTION = 0.02
SPACING = 20
WARM_UP = 400
RARE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Part:
    """Frames of one molecule at one temperature.

    Attributes:
        molecule: ASE's name.
        temperature: K.
        n_pool: Frames in the pool.
        n_test: Frames in the test set.
        is_rare: Whether its error is the tail error.
    """

    molecule: str
    temperature: float
    n_pool: int
    n_test: int
    is_rare: bool


@dataclass(frozen=True, slots=True)
class Pool:
    """Labelled frames of one composition; the label is read only once a frame is chosen.

    Attributes:
        numbers: ``(n_atoms,)`` of every frame: both isomers list C, O and H in the same order.
        positions: ``(n_frames, n_atoms, 3)``, Angstrom.
        energy: ``(n_frames,)``, eV.
        forces: ``(n_frames, n_atoms, 3)``, eV/Angstrom.
        part: ``(n_frames,)`` index of the part each frame comes from.
        is_test: ``(n_frames,)``.
        parts: What the pool is made of.
    """

    numbers: NDArray[np.int32]
    positions: FloatArray
    energy: FloatArray
    forces: FloatArray
    part: IntArray
    is_test: NDArray[np.bool_]
    parts: tuple[Part, ...]


def parts_of(name: str, n_pool: int) -> tuple[Part, ...]:
    """Makeup of a pool."""
    n_test = n_pool // 5
    if name == "rare":
        n_rare = round(RARE_SHARE * n_pool / 2)
        return (
            Part("CH3CH2OH", 300.0, n_pool - 2 * n_rare, n_test, False),
            Part("CH3CH2OH", 1200.0, n_rare, n_test // 2, True),
            Part("CH3OCH3", 300.0, n_rare, n_test // 2, True),
        )
    share, test_share = n_pool // 6, n_test // 6
    kinds = ("CH3CH2OH", "CH3OCH3")
    return tuple(Part(kind, t, share, test_share, False) for kind in kinds for t in (300.0, 600.0, 900.0))


def load_pool(name: str, n_pool: int, folder: Path) -> Pool:
    """A pool from the folder, or made and put there (ten minutes for 2,000 frames)."""
    path = folder / f"selection_{name}_{n_pool}.npz"
    parts = parts_of(name, n_pool)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = [_make(part, seed) for seed, part in enumerate(parts)]
        arrays = {key: np.concatenate([m[key] for m in made]) for key in made[0]}
        arrays["part"] = np.repeat(np.arange(len(parts)), [p.n_pool + p.n_test for p in parts])
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, allow_pickle=False, numbers=start_of(parts[0].molecule).numbers, **arrays)
        partial.replace(path)
    with np.load(path) as file:
        return Pool(**{key: file[key] for key in file.files}, parts=parts)


def start_of(name: str) -> Frame:
    """The molecule with its atoms in the order C, O, H."""
    atoms = molecule(name)
    order = np.argsort([(6, 8, 1).index(z) for z in atoms.numbers], kind="stable")
    return Frame.molecule(atoms.numbers[order], atoms.positions[order])


def _make(part: Part, seed: int) -> dict[str, NDArray[np.generic]]:
    """Pool and test frames of one part, each trajectory wholly on one side."""
    positions: list[NDArray[np.float64]] = []
    energies: list[NDArray[np.float64]] = []
    forces: list[NDArray[np.float64]] = []
    is_test: list[NDArray[np.bool_]] = []
    rng = np.random.default_rng([seed, int(part.temperature)])
    start = start_of(part.molecule)
    relaxed = relax(start, xtb_potential(start))
    for count, test in ((part.n_pool, False), (part.n_test, True)):
        n_trajectories = max(1, min(8, count // 10))
        for k in range(n_trajectories):
            n = count // n_trajectories + (k < count % n_trajectories)
            frames = _trajectory(_conformer(relaxed, k), part.temperature, n, rng)
            for values, value in zip((positions, energies, forces), frames, strict=True):
                values.append(value)
            is_test.append(np.full(n, test))
    return {
        "positions": np.concatenate(positions),
        "energy": np.concatenate(energies),
        "forces": np.concatenate(forces),
        "is_test": np.concatenate(is_test),
    }


def _conformer(frame: Frame, k: int) -> Frame:
    """Ethanol with its hydroxyl group turned by 120 degrees times `k`; dimethyl ether as it is."""
    carbons, oxygen = frame.positions[:2], frame.positions[2]
    hydrogens = frame.positions[3:]
    distance = np.linalg.norm(hydrogens - oxygen, axis=1)
    if distance.min() > 1.2:
        return frame
    h = 3 + int(np.argmin(distance))
    carbon = carbons[np.argmin(np.linalg.norm(carbons - oxygen, axis=1))]
    axis = (oxygen - carbon) / np.linalg.norm(oxygen - carbon)
    angle, arm = 2.0 * np.pi * k / 3.0, frame.positions[h] - oxygen
    turned = arm * np.cos(angle) + np.cross(axis, arm) * np.sin(angle) + axis * (axis @ arm) * (1.0 - np.cos(angle))
    positions = frame.positions.copy()
    positions[h] = oxygen + turned
    return frame.with_positions(positions)


def _trajectory(
    start: Frame, temperature: float, n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    potential = xtb_potential(start)
    masses = atomic_masses[start.numbers]
    dynamics = Langevin(masses, np.full(start.n_atoms, temperature), TIMESTEP, FRICTION, [start.n_atoms])
    x, v = start.positions, dynamics.maxwell(rng)
    energy, forces = potential(x)
    xs, es, fs = [], [], []
    for step in range(1, WARM_UP + n * SPACING + 1):
        x, v = dynamics.first_half(x, v, forces, rng)
        energy, forces = potential(x)
        v = dynamics.second_half(v, forces)
        if step > WARM_UP and (step - WARM_UP) % SPACING == 0:
            xs.append(x)
            es.append(energy)
            fs.append(forces)
    return np.array(xs), np.array(es), np.array(fs)
