"""Poisoned labels for `benchmarks/quality.py`: real unconverged and other-functional labels, computed once and kept.

For each chosen rMD17 ethanol frame PySCF gives PBE/def2-SVP converged, PBE stopped after 3 to 5 SCF cycles (what PySCF
returns when `max_cycle` is reached), and B3LYP. The published label plus the difference to converged PBE is the poison,
so that the constant between codes does not betray it. Results go to a JSON-lines file; a run goes on where it ended.

    python benchmarks/quality_poison.py --data rmd17_ethanol_train.xyz --out poison.jsonl --n 40
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from alsys.frames import FloatArray, Frame
from alsys.interop.extxyz_files import read_labelled
from alsys.units import HARTREE, HARTREE_PER_BOHR

CYCLES = (3, 4, 5)
GRID_LEVEL = 2


def chosen_frames(n_available: int, n: int) -> list[int]:
    """Rows of the file that have computed poison: always the same, and a smaller `n` is a prefix."""
    return [int(i) for i in np.random.default_rng(4).permutation(n_available)[:n]]


def compute(frame: Frame) -> dict[str, Any]:
    """Energies (eV) and forces (eV/Angstrom) of one frame under all kinds of computed poison."""
    converged, steps = _single_point(frame, "pbe", CYCLES)
    return {"pbe": converged, "cycles": steps, "b3lyp": _single_point(frame, "b3lyp", ())[0]}


def load(path: Path) -> dict[int, dict[str, Any]]:
    """Row of the file to its poison."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["frame"]: row for row in rows}


def _single_point(frame: Frame, xc: str, cycles: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    from pyscf import dft, gto

    atoms = [(chemical_symbols[z], tuple(p)) for z, p in zip(frame.numbers, frame.positions, strict=True)]
    molecule = gto.M(atom=atoms, unit="Angstrom", basis="def2-svp", verbose=0)
    field = dft.RKS(molecule, xc=xc).density_fit()
    field.grids.level = GRID_LEVEL
    field.conv_tol = 1e-9
    kept: dict[int, tuple[float, Any, Any, Any]] = {}

    def keep(envs: dict[str, Any]) -> None:
        cycle = int(envs["cycle"]) + 1
        if cycle in cycles:
            energies, coefficients, occupations = (np.array(envs[k]) for k in ("mo_energy", "mo_coeff", "mo_occ"))
            kept[cycle] = (float(envs["e_tot"]), energies, coefficients, occupations)

    field.callback = keep
    field.kernel()
    if not field.converged:
        raise SystemExit("the reference did not converge")
    gradient = field.nuc_grad_method()
    converged = _result(float(field.e_tot), gradient.kernel(), int(field.cycles))
    return converged, {
        str(cycle): _result(energy, gradient.kernel(*orbitals), cycle) for cycle, (energy, *orbitals) in kept.items()
    }


def _result(energy: float, gradient: FloatArray, cycles: int) -> dict[str, Any]:
    forces = -np.asarray(gradient) * HARTREE_PER_BOHR
    return {"energy": energy * HARTREE, "forces": forces.tolist(), "cycles": cycles}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=40)
    args = parser.parse_args()
    published = read_labelled(args.data)
    done = load(args.out)
    for row in chosen_frames(len(published), args.n):
        if row not in done:
            result = compute(published[row][0])
            with args.out.open("a") as file:
                file.write(json.dumps({"frame": row, **result}) + "\n")


if __name__ == "__main__":
    main()
