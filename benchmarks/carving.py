"""How large a carved cluster must be: forces on a molecule in the middle of liquid water against the carved radius.

64 water molecules at the density of 300 K (0.997 g/cm3) are packed, relaxed and taken through 2.4 ps of Langevin
dynamics at 300 K with a flexible TIP3P (harmonic bonds and angles of SPC/Fw: Y. Wu, H. L. Tepper, G. A. Voth, J. Chem.
Phys. 124, 024503 (2006)). Clusters are carved around oxygen atoms with
`alsys.exploration.carving`, and the length of the error of the force on each atom of the central molecule is reported
for each radius:

* ``gfn1``: GFN1-xTB clusters against GFN1-xTB in the periodic box itself, which is what carving stands in for;
* ``gfn2``: GFN2-xTB clusters against the largest one;
* ``dft``: PBE/def2-SVP clusters (PySCF, density fitting) against the largest one that was computed.

The periodic box has no end, and no largest cluster has converged for good: the last two show how forces settle, only
the first shows what is missing. Run: ``python benchmarks/carving.py --json --parts gfn1 gfn2 dft``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import ase.io
import ase.units
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.tip3p import TIP3P
from orchestration import machine

from alsys.config.labeling import PySCFLabeling
from alsys.config.systems import BoxConfig
from alsys.dynamics.minima import EnergyForces
from alsys.exploration.carving import Carver, Convergence, converged_radius
from alsys.exploration.initial import relax, sample_md
from alsys.frames import FloatArray, Frame
from alsys.labels import LabelFailure
from alsys.systems.packing import pack, recipe
from alsys.units import BOHR, HARTREE_PER_BOHR

DENSITY = 0.997
SEED = 7
TOLERANCE = 0.05
"""eV/Angstrom."""
RADII = {
    "gfn1": (0.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 9.0),
    "gfn2": (0.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 9.0),
    "dft": (0.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5),
}
MAX_ATOMS = 700
N_SAMPLES = 120
"""Of 20 fs each."""


def flexible_water(frame: Frame) -> EnergyForces:
    """TIP3P between molecules (O, H, H one after another), harmonic bonds and angles inside; eV, eV/Angstrom."""
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=True)
    atoms.calc = TIP3P(rc=0.49 * float(frame.cell[0, 0]))
    kcal = ase.units.kcal / ase.units.mol
    stiffness, length, bend, angle = 1059.162 * kcal, 1.012, 75.90 * kcal, np.radians(113.24)

    def evaluate(positions: FloatArray) -> tuple[float, FloatArray]:
        atoms.positions = positions
        energy, forces = float(atoms.get_potential_energy()), np.array(atoms.get_forces())
        oxygen, first, second = positions[0::3], positions[1::3], positions[2::3]
        a, b = first - oxygen, second - oxygen
        ra, rb = (np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
        ua, ub = a / ra, b / rb
        cosine = (ua * ub).sum(axis=1, keepdims=True)
        theta = np.arccos(cosine)
        energy += float(0.5 * stiffness * (np.square(ra - length) + np.square(rb - length)).sum())
        energy += float(0.5 * bend * np.square(theta - angle).sum())
        torque = bend * (theta - angle) / np.sin(theta)
        on_a = -stiffness * (ra - length) * ua + torque * (ub - cosine * ua) / ra
        on_b = -stiffness * (rb - length) * ub + torque * (ua - cosine * ub) / rb
        forces[1::3] += on_a
        forces[2::3] += on_b
        forces[0::3] -= on_a + on_b
        return energy, forces

    return evaluate


def liquid(n_molecules: int = 64, seed: int = SEED) -> Frame:
    """A box of liquid water at 300 K."""
    water = molecule("H2O")
    config = BoxConfig.model_validate({"density": DENSITY, "components": [{"molecule": "H2O", "count": n_molecules}]})
    made = recipe(config, [float(water.get_masses().sum())])
    frame = pack(made, [water], is_periodic=True, seed=seed, charge=0, multiplicity=1)
    potential = flexible_water(frame)
    relaxed = relax(frame, potential, max_iterations=100)
    return sample_md(relaxed, potential, 300.0, N_SAMPLES, np.random.default_rng(seed))[-1]


def xtb_forces(method: str) -> Callable[[Frame], FloatArray]:
    """Forces of a frame with tblite, in its cell where it has one, eV/Angstrom."""
    from tblite.interface import Calculator

    def evaluate(frame: Frame) -> FloatArray:
        lattice = (frame.cell / BOHR, np.ones(3, dtype=bool)) if frame.pbc.all() else (None, None)
        calculator = Calculator(method, np.asarray(frame.numbers), frame.positions / BOHR, 0.0, 0, *lattice)
        calculator.set("verbosity", 0)
        calculator.set("accuracy", 0.1)
        return -np.asarray(calculator.singlepoint().get("gradient")) * HARTREE_PER_BOHR

    return evaluate


def dft_forces(threads: int) -> Callable[[Frame], FloatArray]:
    """Forces with the labeler that campaigns use: PBE/def2-SVP, density fitting."""
    from alsys.labeling.pyscf import PySCFLabeler

    config = PySCFLabeling(
        kind="pyscf",
        xc="pbe",
        basis="def2-svp",
        grid_level=2,
        conv_tol=1e-7,
        threads=threads,
        timeout_s=7200,
        memory_mb=12_000,
    )
    labeler = PySCFLabeler(config)

    def evaluate(frame: Frame) -> FloatArray:
        label = labeler.label(frame)
        if isinstance(label, LabelFailure):
            raise RuntimeError(f"{label.kind}: {label.message}")
        return label.forces

    return evaluate


def against_radius(
    frame: Frame,
    centres: Sequence[int],
    radii: Sequence[float],
    evaluate: Callable[[Frame], FloatArray],
    budget_s: float,
    truth: FloatArray | None = None,
) -> list[dict[str, object]]:
    """Force errors on the three atoms of each central molecule, against `truth` or the largest cluster, eV/Angstrom."""
    carver = Carver(frame, max_atoms=MAX_ATOMS)
    started = time.perf_counter()
    result = []
    for centre in centres:
        rows: list[dict[str, object]] = []
        forces: list[FloatArray] = []
        n_before = 0
        for radius in radii:
            carved = carver.carve(centre, radius)
            if carved.frame.n_atoms == n_before:
                continue
            if time.perf_counter() - started > budget_s:
                break
            n_before = carved.frame.n_atoms
            before = time.perf_counter()
            forces.append(evaluate(carved.frame)[carved.mask])
            atoms = carved.atoms[carved.mask]
            rows.append({"radius": radius, "n_molecules": n_before // 3, "wall_s": time.perf_counter() - before})
            sys.stderr.write(f"{centre} {radius} {n_before // 3} {time.perf_counter() - before:.1f} s\n")
        if len(rows) < 2:
            break
        reference = forces[-1] if truth is None else truth[atoms]
        for row, value in zip(rows, forces, strict=True):
            row["error"] = float(np.linalg.norm(value - reference, axis=1).max())
        for row, value, last in zip(rows[1:], forces[1:], forces, strict=False):
            row["change"] = float(np.linalg.norm(value - last, axis=1).max())
        result.append({"centre": centre, "force": float(np.linalg.norm(reference, axis=1).max()), "clusters": rows})
    return result


def summary(centres: Sequence[dict[str, object]], is_last_reference: bool) -> dict[str, object]:
    """Largest and root mean square error over centres at each radius, and where all stay below the tolerance."""
    by_radius: dict[float, list[float]] = {}
    for centre in centres:
        clusters = centre["clusters"]
        assert isinstance(clusters, list)
        for row in clusters[:-1] if is_last_reference else clusters:
            by_radius.setdefault(row["radius"], []).append(row["error"])
    rows = [
        {
            "radius": radius,
            "centres": len(values),
            "rms": float(np.sqrt(np.square(values).mean())),
            "largest": max(values),
        }
        for radius, values in sorted(by_radius.items())
    ]
    converged = None
    for row in reversed(rows):
        if row["largest"] > TOLERANCE:
            break
        converged = row["radius"]
    return {"by_radius": rows, "all_below_tolerance_from": converged}


def grown(frame: Frame, centres: Sequence[int], truth: FloatArray) -> list[dict[str, float]]:
    """What `converged_radius` decides with GFN1-xTB, beside the error against the box that it cannot see."""
    evaluate = xtb_forces("GFN1-xTB")
    rows = []
    for centre in centres:
        found: Convergence = converged_radius(frame, centre, evaluate, TOLERANCE, RADII["gfn1"][1:], max_atoms=400)
        carved = found.carved
        error = (evaluate(carved.frame) - truth[carved.atoms])[carved.mask]
        rows.append(
            {
                "centre": centre,
                "radius": found.radius,
                "n_molecules": carved.frame.n_atoms // 3,
                "last_change": found.changes[-1],
                "is_converged": found.is_converged,
                "error": float(np.linalg.norm(error, axis=1).max()),
            }
        )
    return rows


def box_of(path: Path | None) -> Frame:
    """The box in a file, or a new one, which is written there; None for one that is not kept."""
    if path is not None and path.is_file():
        atoms = ase.io.read(path)
        return Frame(atoms.numbers, atoms.positions, np.asarray(atoms.cell), np.asarray(atoms.pbc))
    frame = liquid()
    if path is not None:
        ase.io.write(path, Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=True))
    return frame


def main() -> None:
    """Runs the parts asked for and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--parts", nargs="+", choices=sorted(RADII), default=["gfn1", "gfn2"])
    parser.add_argument("--box", type=Path, help="extxyz file with the box; made and written where it does not exist")
    parser.add_argument("--centres", type=int, default=8, help="molecules looked at; two with dft")
    parser.add_argument("--dft-centres", type=int, default=2)
    parser.add_argument("--budget-s", type=float, default=7200.0, help="seconds for each part; no label begins later")
    parser.add_argument("--threads", type=int, default=1, help="of PySCF")
    parser.add_argument("--json", action="store_true", help="always the case; kept for uniformity")
    args = parser.parse_args()
    frame = box_of(args.box)
    oxygens = np.flatnonzero(frame.numbers == 8)
    centres = np.random.default_rng(SEED).permutation(oxygens)[: max(args.centres, args.dft_centres)].tolist()
    result: dict[str, object] = {
        "machine": machine(),
        "box": {"n_molecules": oxygens.size, "edge": float(frame.cell[0, 0]), "density": DENSITY},
        "tolerance": TOLERANCE,
    }
    for part in args.parts:
        truth = None
        if part == "dft":
            evaluate, chosen = dft_forces(args.threads), centres[: args.dft_centres]
        else:
            evaluate, chosen = xtb_forces(part.upper() + "-xTB"), centres[: args.centres]
        if part == "gfn1":
            truth = evaluate(frame)
            result["grown"] = grown(frame, chosen, truth)
        found = against_radius(frame, chosen, RADII[part], evaluate, args.budget_s, truth)
        result[part] = {"summary": summary(found, is_last_reference=truth is None), "centres": found}
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
