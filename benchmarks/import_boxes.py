"""Unit check of periodic boxes: CPU seconds and verdicts, for boxes of water at one density and at several.

    python benchmarks/import_boxes.py --frames 400 --side 4

Frames are independent of each other, as in published sets: molecules turned at random on a shaken lattice, so that no
two of them are near. Labels are those of a flexible water model (harmonic bonds and angles, Lennard-Jones and damped,
shifted Coulomb forces), which the unit check does not know; energies have the offset of a pseudopotential calculation.
It prints JSON: what is confirmed and what speaks for it; with `--wrong` also what becomes of stresses in GPa, of VASP's
sign, and of energies in Hartree.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from orchestration import machine
from scipy.spatial.transform import Rotation
from scipy.special import erfc

from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.interop.file_units import UnitSet
from alsys.interop.ratio_check import Sample
from alsys.interop.unit_check import examine, judge
from alsys.units import GIGAPASCAL, HARTREE

BOND, BOND_STIFFNESS = 0.968, 45.0
ANGLE, ANGLE_STIFFNESS = np.deg2rad(105.0), 3.3
DEPTH, DIAMETER = 0.00674, 3.166
CHARGES = np.array([-0.82, 0.41, 0.41])
COULOMB = 14.3996
DAMPING, CUTOFF = 0.3, 4.6
SPACING = 3.107
OFFSET = -468.0
"""eV a molecule, about that of a pseudopotential calculation."""


def box(side: int, scale: float, rng: np.random.Generator) -> Frame:
    """``side``^3 molecules in a cube, at a density of 1 g/cm3 over ``scale``^3."""
    half = 0.5 * ANGLE
    molecule = BOND * np.array([[0.0, 0.0, 0.0], [np.sin(half), 0.0, np.cos(half)], [-np.sin(half), 0.0, np.cos(half)]])
    places = SPACING * scale * np.array(list(np.ndindex(side, side, side)))
    turned = Rotation.random(len(places), random_state=rng).as_matrix() @ molecule.T
    positions = np.swapaxes(turned, 1, 2) + places[:, None] + rng.normal(0.0, 0.15, (len(places), 1, 3))
    positions = positions.reshape(-1, 3) + rng.normal(0.0, 0.035, (3 * len(places), 3))
    cell = SPACING * scale * side * np.eye(3)
    return Frame(np.tile([8, 1, 1], len(places)), positions, cell, np.ones(3, dtype=bool))


def label(frame: Frame) -> tuple[float, FloatArray, FloatArray]:
    """Energy, forces and stress of the water model."""
    x, forces, virial = frame.positions, np.zeros((frame.n_atoms, 3)), np.zeros((3, 3))
    oxygen = np.arange(0, frame.n_atoms, 3)
    arms = [x[oxygen + k] - x[oxygen] for k in (1, 2)]
    lengths = [np.linalg.norm(arm, axis=1) for arm in arms]
    cosine = (arms[0] * arms[1]).sum(axis=1) / (lengths[0] * lengths[1])
    bend = np.arccos(cosine) - ANGLE
    energy = sum(0.5 * BOND_STIFFNESS * float(np.square(r - BOND).sum()) for r in lengths)
    energy += 0.5 * ANGLE_STIFFNESS * float(np.square(bend).sum()) + OFFSET * len(oxygen)
    twist = -ANGLE_STIFFNESS * bend / np.sqrt(1.0 - cosine**2)
    for k in (0, 1):
        one, other, r, s = arms[k], arms[1 - k], lengths[k], lengths[1 - k]
        slope = (BOND_STIFFNESS * (r - BOND) / r)[:, None] * one
        slope = slope + twist[:, None] * (other / (r * s)[:, None] - (cosine / r**2)[:, None] * one)
        forces[oxygen + k + 1] -= slope
        forces[oxygen] += slope
        virial += slope.T @ one
    first, second = np.triu_indices(frame.n_atoms, 1)
    apart = first // 3 != second // 3
    first, second = first[apart], second[apart]
    vector, length = x[first] - x[second], float(frame.cell[0, 0])
    vector = vector - length * np.round(vector / length)
    r = np.linalg.norm(vector, axis=1)
    near = r < CUTOFF
    first, second, vector, r = first[near], second[near], vector[near], r[near]
    q = COULOMB * CHARGES[first % 3] * CHARGES[second % 3]
    gauss = 2.0 * DAMPING / np.sqrt(np.pi)
    at_cut = erfc(DAMPING * CUTOFF) / CUTOFF**2 + gauss * np.exp(-((DAMPING * CUTOFF) ** 2)) / CUTOFF
    energy += float((q * (erfc(DAMPING * r) / r - erfc(DAMPING * CUTOFF) / CUTOFF + at_cut * (r - CUTOFF))).sum())
    pull = q * (erfc(DAMPING * r) / r**2 + gauss * np.exp(-np.square(DAMPING * r)) / r - at_cut)
    sixth = np.where((first % 3 == 0) & (second % 3 == 0), (DIAMETER / r) ** 6, 0.0)
    rest = np.where(sixth > 0.0, (DIAMETER / CUTOFF) ** 6, 0.0)
    energy += float((4.0 * DEPTH * (sixth**2 - sixth - rest**2 + rest)).sum())
    pull = pull + 24.0 * DEPTH * (2.0 * sixth**2 - sixth) / r
    push = (pull / r)[:, None] * vector
    np.add.at(forces, first, push)
    np.add.at(forces, second, -push)
    virial -= push.T @ vector
    return energy, forces, virial / length**3


def labelled(n: int, side: int, spread: float) -> list[Sample]:
    """Frames with labels; lengths differ by up to `spread`."""
    rng = np.random.default_rng(3)
    found = []
    for i in range(n):
        frame = box(side, 1.0 + spread * rng.uniform(-1.0, 1.0), rng)
        energy, forces, stress = label(frame)
        found.append(Sample(frame, energy, forces, f"frame {i}", stress))
    return found


def verdict(samples: Sequence[Sample]) -> dict[str, object]:
    """What the unit check says of them, and what it takes."""
    started = time.process_time()
    findings = examine(samples)
    try:
        judge(findings, UnitSet())
        refusal = ""
    except InputError as error:
        refusal = str(error)
    seconds = round(time.process_time() - started, 1)
    return {"cpu_s": seconds, "confirmed": sorted(findings.confirmed), "by": findings.text, "refusal": refusal}


def _as_if(samples: Sequence[Sample], energy: float, stress: float) -> list[Sample]:
    """The frames with energies and stresses in another unit."""
    scaled = [(s, None if s.stress is None else stress * s.stress) for s in samples]
    return [replace(s, energy=energy * s.energy, stress=other) for s, other in scaled]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--side", type=int, default=4, help="molecules along an edge of the box")
    parser.add_argument("--wrong", action="store_true", help="also units that are wrong")
    parser.add_argument("--json", action="store_true", help="accepted; output is JSON anyway")
    args = parser.parse_args()
    result: dict[str, object] = {"machine": machine(), "frames": args.frames, "atoms": 3 * args.side**3}
    for name, spread in (("one_density", 0.0), ("several_densities", 0.03)):
        samples = labelled(args.frames, args.side, spread)
        result[name] = verdict(samples)
    if args.wrong:
        wrong = {"gpa": (1.0, 1.0 / GIGAPASCAL), "sign": (1.0, -1.0), "hartree": (1.0 / HARTREE, 1.0)}
        result["wrong"] = {name: verdict(_as_if(samples, *factors)) for name, factors in wrong.items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
