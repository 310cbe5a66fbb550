"""What stands in for the rest of a liquid around a carved cluster: vacuum, a continuum, or point charges.

The box of `benchmarks/carving.py` (64 waters, 300 K), the forces on the atoms of central molecules, several centres:

* ``gfn1``: GFN1-xTB clusters against GFN1-xTB in the periodic box, and the box against one that is twice as long;
* ``gfn2``: GFN2-xTB clusters against the largest one in point charges, since GFN2-xTB has no trusted periodic limit;
  ``difference`` is the error of GFN2-xTB minus GFN1-xTB of the same cluster in vacuum, which is what a campaign with
  ``training.delta: gfn1-xtb`` learns from clusters;
* ``dft``: a functional with PySCF, by the labeler that campaigns use, against the largest cluster in point charges, and
  its ``difference`` to GFN1-xTB of the same cluster.

Errors are lengths of force errors on an atom, eV/Angstrom. xTB in point charges needs the package ``xtb`` (22.1),
which alsys itself does not use; its GFN1-xTB agrees with tblite's to 1e-6 eV/Angstrom. Run:
``python benchmarks/embedding.py --parts gfn1 gfn2 --box box.extxyz``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from carving import SEED, box_of, xtb_forces
from orchestration import machine

from alsys.config.labeling import PySCFLabeling
from alsys.exploration.carving import Carved, Carver, Embedding
from alsys.frames import FloatArray, Frame
from alsys.labels import LabelFailure
from alsys.units import BOHR, HARTREE_PER_BOHR

TIP3P = {"H2O": {"O": -0.834, "H": 0.417}}
"""W. L. Jorgensen et al., J. Chem. Phys. 79, 926 (1983)."""
WEAK = {"H2O": {"O": -0.70, "H": 0.35}}
"""The mean Mulliken charges of GFN1-xTB in the box."""
MAX_ATOMS = 20_000

Forces = Callable[[Frame], FloatArray]


def embedded_xtb(method: str) -> Forces:
    """Forces of a molecule in the point charges that it carries, with the package xtb, eV/Angstrom.

    Charges have the chemical hardness of the atoms that they stand for: oxygen where negative, hydrogen elsewhere.
    """
    from xtb.interface import Calculator, Param
    from xtb.libxtb import VERBOSITY_MUTED

    parameters = {"GFN1-xTB": Param.GFN1xTB, "GFN2-xTB": Param.GFN2xTB}[method]

    def evaluate(frame: Frame) -> FloatArray:
        calculator = Calculator(parameters, np.asarray(frame.numbers), frame.positions / BOHR, float(frame.charge), 0)
        calculator.set_verbosity(VERBOSITY_MUTED)
        calculator.set_accuracy(0.01)
        around = frame.environment
        if around is not None:
            hardness = np.where(around.values < 0, 8, 1)
            calculator.set_external_charges(hardness, around.values, around.positions / BOHR)
        return -np.asarray(calculator.singlepoint().get_gradient()) * HARTREE_PER_BOHR

    return evaluate


def in_continuum(method: str) -> Forces:
    """Forces in implicit water (ALPB) with tblite, eV/Angstrom."""
    from tblite.interface import Calculator

    def evaluate(frame: Frame) -> FloatArray:
        calculator = Calculator(method, np.asarray(frame.numbers), frame.positions / BOHR, 0.0, 0)
        calculator.set("verbosity", 0)
        calculator.set("accuracy", 0.1)
        calculator.add("alpb-solvation", "water")
        return -np.asarray(calculator.singlepoint().get("gradient")) * HARTREE_PER_BOHR

    return evaluate


def labelled(xc: str, basis: str, grid_level: int, conv_tol: float, threads: int, memory_mb: int) -> Forces:
    """Forces with the labeler of campaigns, eV/Angstrom."""
    from alsys.labeling.pyscf import PySCFEngine

    config = PySCFLabeling(
        kind="pyscf",
        xc=xc,
        basis=basis,
        grid_level=grid_level,
        conv_tol=conv_tol,
        threads=threads,
        memory_mb=memory_mb,
        stability="never",
        initial_guess="default",
    )
    engine = PySCFEngine(config)

    def evaluate(frame: Frame) -> FloatArray:
        label = engine.label(frame)
        if isinstance(label, LabelFailure):
            raise RuntimeError(f"{label.kind}: {label.message}")
        sys.stderr.write(f"  gap {label.diagnostics.gap:.2f} eV, {label.cost.scf_cycles} cycles\n")
        return label.forces

    return evaluate


def remembered(evaluate: Forces, level: dict[str, object], folder: Path | None) -> Forces:
    """The same forces, kept in a folder by cluster and level, so that a benchmark of hours can be taken up again."""
    if folder is None:
        return evaluate
    folder.mkdir(parents=True, exist_ok=True)

    def recall(frame: Frame) -> FloatArray:
        around = frame.environment
        parts = [frame.numbers, frame.positions, *(() if around is None else (around.values, around.positions))]
        digest = hashlib.sha256(json.dumps(level, sort_keys=True).encode())
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
        path = folder / f"{digest.hexdigest()[:16]}.npy"
        if not path.is_file():
            forces = evaluate(frame)
            partial = path.with_suffix(".part.npy")
            np.save(partial, forces)
            partial.replace(path)
        return np.asarray(np.load(path), dtype=np.float64)

    return recall


class Variant:
    """One way to treat what is around a cluster.

    Args:
        carver: Carves clusters with it.
        evaluate: Forces of a cluster.
    """

    def __init__(self, carver: Carver, evaluate: Forces) -> None:
        self._carver, self._evaluate = carver, evaluate

    def forces(self, centre: int, radius: float) -> tuple[Carved, FloatArray]:
        """A cluster, and the forces on its central molecule."""
        carved = self._carver.carve(centre, radius)
        return carved, self._evaluate(carved.frame)[carved.mask]


def figures(rows: Sequence[tuple[float, int, FloatArray]]) -> list[dict[str, object]]:
    """Mean, root mean square and largest errors by radius, over centres and atoms, with a bootstrap over centres."""
    result = []
    for radius in sorted({row[0] for row in rows}):
        errors = [row[2] for row in rows if row[0] == radius]
        lengths = np.array([np.linalg.norm(error, axis=1) for error in errors])
        rng = np.random.default_rng(0)
        drawn = rng.integers(len(lengths), size=(1000, len(lengths)))
        spread = np.sqrt(np.square(lengths)[drawn].mean(axis=(1, 2)))
        result.append(
            {
                "radius": radius,
                "centres": len(errors),
                "n_molecules": [row[1] for row in rows if row[0] == radius],
                "mean_component": float(np.abs(errors).mean()),
                "largest_component": float(np.abs(errors).max()),
                "rms": float(np.sqrt(np.square(lengths).mean())),
                "rms_95": np.percentile(spread, [2.5, 97.5]).tolist(),
                "largest": float(lengths.max()),
                "largest_by_centre": lengths.max(axis=1).tolist(),
            }
        )
    return result


def compare(
    variants: dict[str, Variant], truth: Callable[[int], FloatArray], centres: Sequence[int], radii: Sequence[float]
) -> dict[str, object]:
    """Errors of each variant at each radius."""
    rows: dict[str, list[tuple[float, int, FloatArray]]] = {name: [] for name in variants}
    for centre in centres:
        reference = truth(centre)
        for radius in radii:
            for name, variant in variants.items():
                before = time.perf_counter()
                carved, forces = variant.forces(centre, radius)
                rows[name].append((radius, carved.frame.n_atoms // 3, forces - reference))
                error = float(np.linalg.norm(forces - reference, axis=1).max())
                wall_s = time.perf_counter() - before
                sys.stderr.write(
                    f"{centre} {radius} {name} {carved.frame.n_atoms // 3} {error:.3f} eV/A {wall_s:.1f} s\n"
                )
    return {name: figures(found) for name, found in rows.items()}


def carvers(frame: Frame, reach: float) -> dict[str, Carver]:
    """Clusters in vacuum and in two sets of charges."""
    known = {"vacuum": None, "tip3p": TIP3P, "weak": WEAK}
    return {
        name: Carver(frame, max_atoms=MAX_ATOMS, embedding=None if values is None else Embedding(values, reach))
        for name, values in known.items()
    }


def gfn1(
    frame: Frame, centres: Sequence[int], radii: Sequence[float], reach: float, wanted: Sequence[str]
) -> dict[str, object]:
    """GFN1-xTB against the periodic box."""
    method = "GFN1-xTB"
    periodic = xtb_forces(method)
    truth = periodic(frame)
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=True).repeat((2, 1, 1))
    longer = periodic(Frame(atoms.numbers, atoms.positions, np.asarray(atoms.cell), np.asarray(atoms.pbc)))
    away = np.linalg.norm(longer[: frame.n_atoms] - truth, axis=1)
    evaluate = embedded_xtb(method)
    made = carvers(frame, reach)
    variants = {name: Variant(carver, evaluate) for name, carver in made.items()}
    variants["alpb"] = Variant(made["vacuum"], in_continuum(method))
    variants = {name: variants[name] for name in wanted}
    oxygen = {centre: made["vacuum"].carve(centre, 0.0) for centre in centres}
    result = compare(variants, lambda centre: truth[oxygen[centre].atoms[oxygen[centre].mask]], centres, radii)
    return {"box_against_2x1x1": {"largest": float(away.max()), "rms": float(np.sqrt((away**2).mean()))}, **result}


def gfn2(
    frame: Frame, centres: Sequence[int], radii: Sequence[float], reach: float, largest: float
) -> dict[str, object]:
    """GFN2-xTB, and what remains of it after GFN1-xTB of the same cluster, against a large embedded cluster."""
    made = carvers(frame, max(reach, largest + 6.0))
    high, low = embedded_xtb("GFN2-xTB"), embedded_xtb("GFN1-xTB")

    def difference(cluster: Frame) -> FloatArray:
        return high(cluster) - low(cluster)

    reference = Variant(made["tip3p"], high)
    result = compare(
        {"vacuum": Variant(made["vacuum"], high), "tip3p": reference},
        lambda centre: reference.forces(centre, largest)[1],
        centres,
        radii,
    )
    apart = Variant(made["tip3p"], difference)
    plain = compare(
        {"difference": Variant(made["vacuum"], difference), "difference-tip3p": apart},
        lambda centre: apart.forces(centre, largest)[1],
        centres,
        radii,
    )
    return {"reference_radius": largest, **result, **plain}


def dft(
    frame: Frame,
    centres: Sequence[int],
    radii: Sequence[float],
    reach: float,
    largest: float,
    wanted: Sequence[str],
    evaluate: Forces,
) -> dict[str, object]:
    """A functional, and what remains of it after GFN1-xTB of the same cluster, against a larger embedded cluster.

    Without the package xtb there is no GFN1-xTB in charges: the remainder is then given for clusters in vacuum, and
    its reference takes GFN1-xTB from the periodic box.
    """
    made = carvers(frame, reach)
    low = xtb_forces("GFN1-xTB")
    apart = embedded_xtb("GFN1-xTB") if importlib.util.find_spec("xtb") is not None else None
    reference = Variant(made["tip3p"], evaluate)
    cheap = low(frame)
    rows: dict[str, list[tuple[float, int, FloatArray]]] = {}
    for centre in centres:
        for radius, name in itertools.product(radii, wanted):  # the small ones first, so that there is something to see
            before = time.perf_counter()
            cluster, _ = Variant(made[name], evaluate).forces(centre, radius)
            seconds = time.perf_counter() - before
            sys.stderr.write(f"{centre} {radius} {name} {cluster.frame.n_atoms // 3} {seconds:.0f} s\n")
        carved, truth = reference.forces(centre, largest)
        beneath = cheap[carved.atoms[carved.mask]] if apart is None else apart(carved.frame)[carved.mask]
        sys.stderr.write(f"{centre} reference {carved.frame.n_atoms // 3}\n")
        for radius, name in itertools.product(radii, wanted):
            cluster, forces = Variant(made[name], evaluate).forces(centre, radius)
            found = {name: forces - truth}
            if name == "vacuum":
                found["difference"] = forces - low(cluster.frame)[cluster.mask] - (truth - beneath)
            elif apart is not None:
                found[f"difference-{name}"] = forces - apart(cluster.frame)[cluster.mask] - (truth - beneath)
            for what, error in found.items():
                rows.setdefault(what, []).append((radius, cluster.frame.n_atoms // 3, error))
                largest_error = float(np.linalg.norm(error, axis=1).max())
                sys.stderr.write(f"{centre} {radius} {what} {cluster.frame.n_atoms // 3} {largest_error:.3f} eV/A\n")
    return {"reference_radius": largest, **{name: figures(found) for name, found in rows.items()}}


def main() -> None:
    """Runs the parts asked for and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--parts", nargs="+", choices=("gfn1", "gfn2", "dft"), default=["gfn1"])
    parser.add_argument("--box", type=Path, help="extxyz file with the box; made and written where it does not exist")
    parser.add_argument("--centres", type=int, default=6)
    parser.add_argument("--radii", type=float, nargs="+", default=[2.5, 3.5, 4.5, 5.5, 6.5, 7.5])
    known = ("vacuum", "tip3p", "weak", "alpb")
    parser.add_argument(
        "--variants", nargs="+", choices=known, default=list(known), help="of gfn1 and dft; dft knows no alpb"
    )
    parser.add_argument("--reach", type=float, default=16.0, help="of point charges, Angstrom")
    parser.add_argument("--largest", type=float, default=8.0, help="radius of the reference of gfn2 and dft")
    parser.add_argument("--xc", default="pbe")
    parser.add_argument("--basis", default="6-31g")
    parser.add_argument("--grid-level", type=int, default=1)
    parser.add_argument("--conv-tol", type=float, default=1e-6)
    parser.add_argument("--threads", type=int, default=1, help="of PySCF")
    parser.add_argument("--memory-mb", type=int, default=12_000, help="of PySCF")
    parser.add_argument(
        "--keep", type=Path, help="folder for the forces of dft; a run that was stopped goes on from it"
    )
    parser.add_argument("--json", action="store_true", help="always the case; kept for uniformity")
    args = parser.parse_args()
    frame = box_of(args.box)
    oxygens = np.flatnonzero(frame.numbers == 8)
    centres = np.random.default_rng(SEED).permutation(oxygens)[: args.centres].tolist()
    result: dict[str, object] = {
        "machine": machine(),
        "box": {"n_molecules": oxygens.size, "edge": float(frame.cell[0, 0])},
        "reach": args.reach,
    }
    if "gfn1" in args.parts:
        result["gfn1"] = gfn1(frame, centres, args.radii, args.reach, args.variants)
    if "gfn2" in args.parts:
        result["gfn2"] = gfn2(frame, centres, args.radii, args.reach, args.largest)
    if "dft" in args.parts:
        level = {name: getattr(args, name) for name in ("xc", "basis", "grid_level", "conv_tol")}
        evaluate = remembered(labelled(**level, threads=args.threads, memory_mb=args.memory_mb), level, args.keep)
        wanted = [name for name in args.variants if name != "alpb"]
        result["dft"] = {**level, **dft(frame, centres, args.radii, args.reach, args.largest, wanted, evaluate)}
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
