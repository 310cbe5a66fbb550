"""Proof of the units of labelled frames: nothing is believed that can be checked.

`examine` looks at a sample of frames, already in eV and Angstrom as their file's units have it, in seven ways:

- *lengths*: distances of nearest neighbours against sums of covalent radii;
- *forces*: against forces of the same frames by GFN2-xTB (C. Bannwarth et al., J. Chem. Theory Comput. 15, 1652
  (2019)), in large boxes GFN1-xTB (S. Grimme et al., ibid. 13, 1989 (2017)): the ratio of their root mean squares tells
  1 from 1.89, 27.2 or 51.4, their cosine the sign and the order of atoms; frames that are too large for xTB are
  represented by a molecule among its neighbours (`clusters`);
- *differences*: of energies of near frames of the same atoms, superposed, against the trapezoid of ``-F dx``, which
  needs no other method and no reference (exact to third order in dx);
- *integrals*: of energies of any frames against a pair potential that was fitted to their forces (`pair_fit`);
- *totals*: against all-electron energies of free atoms after Schwinger, E = -0.768745 Z^(7/3) + Z^2/2 - 0.2699 Z^(5/3)
  Hartree (B.-G. Englert, J. Schwinger, Phys. Rev. A 32, 47 (1985)), good to 1 % for molecules of light elements;
- *spreads*: of energies of the same atoms against those of xTB;
- *stresses*, where there are any (`stress_check`).

A check says that a unit fits, that another one would, or nothing. `judge` puts them together: a contradiction is
refused with the unit that would fit, and what no check speaks for is refused as unproven. What is computed is counted
in evaluations and atoms, never in seconds, so a file has one verdict on all machines. Tolerances and their measurement:
docs/design/020-import.md.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from ase.data import covalent_radii
from ase.geometry import find_mic
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.frames import FloatArray, Frame, IntArray
from alsys.interop.check import NOTHING, TOLERANCE, Check, Sample, compared, groups_of, rated, spaced
from alsys.interop.clusters import cluster_of
from alsys.interop.file_units import ENERGIES, FORCES, LENGTHS, STRESSES, UnitSet, fitting
from alsys.interop.pair_fit import STRESS_TOLERANCE, check_energies, check_stresses, fit_pairs
from alsys.interop.raw import formula
from alsys.interop.stress_check import check_strains, check_xtb, together
from alsys.labels import LevelOfTheory
from alsys.potentials.xtb import MAX_NUMBER, XTBFailure, XTBMethod, XTBValues, single_point
from alsys.units import HARTREE

SPREAD_CLEAR: Final = 3.0
"""The same for spreads of energies, in which methods differ more."""
MIN_COSINE: Final = 0.5
"""Of forces and GFN2-xTB forces."""
MIN_PAIR_COSINE: Final = 0.8
"""Of energy differences and trapezoids."""
PAIR_RMSD: Final = 0.25
"""Angstrom; superposed frames that are nearer than this are compared."""
N_PAIRS: Final = 30
MIN_PAIRS: Final = 4
MAX_DISTANCES: Final = 1_000_000
"""Pairs of frames times atoms, and pairs of atoms, that are looked at."""
N_XTB: Final = 12
"""Evaluations by xTB, where frames are small."""
XTB_WORK: Final = 80_000
"""Squared atoms of all evaluations in boxes: two frames of 64 waters, or twelve of 27."""
XTB_ATOMS: Final = 150
GFN2_PERIODIC_ATOMS: Final = 24
"""Boxes of more atoms are for GFN1-xTB, which is ten times as fast in them."""
GFN1_PERIODIC_ATOMS: Final = 240
MAX_GROUP: Final = 150
"""Frames of one composition whose pairs are looked at."""
ALL_ELECTRON: Final = 36
"""Beyond krypton effective core potentials are usual."""
VANISHING: Final = 1e-4
"""eV/Angstrom; forces that are smaller have no unit."""
LEAVE_OUT_STRESS: Final = "--stress-key=none leaves them out"
NO_STRESSES: Final = "no strained cells, no forces that a pair potential can be fitted to, and nothing for GFN-xTB"
JUMP: Final = 1.0
"""eV; gap between energies of one composition from which they may be of two levels."""
TOTALS: Final = (0.9, 1.12)
"""Ratio of totals to those of free atoms; 1.00 to 1.02 for most molecules, 1.09 for hydrogen."""
ACCUSING: Final = (0.975, 1.035)
"""The same in another unit, where that is to speak against the one that was stated: GFN1-xTB's valence energies
happen to be 1.06 in Rydberg."""
NOBLE: Final = (2, 10, 18, 36, 54, 86)
_XTB_NAMES: Final = {f"gfn{n}{dash}xtb": f"GFN{n}-xTB" for n in (1, 2) for dash in ("", "-")}
N_OWN: Final = 6
"""Evaluations by the very method that labels are said to be of."""
OWN_COSINE: Final = 0.999
OWN_RATIO: Final = 1.02
MIN_FORCE: Final = 0.05
"""eV/Angstrom; smaller ones depend on how tightly a method is converged."""
BOND_WINDOW: Final = (0.75, 1.35)


@dataclass(frozen=True, slots=True)
class Findings:
    """All checks of a sample."""

    lengths: Check = NOTHING
    forces: Check = NOTHING
    differences: Check = NOTHING
    integrals: Check = NOTHING
    totals: Check = NOTHING
    spreads: Check = NOTHING
    stresses: Check = NOTHING
    strains: Check = NOTHING
    xtb_stresses: Check = NOTHING
    has_stress: bool = False
    mixed: str = ""

    @property
    def proven(self) -> frozenset[str]:
        """Which of ``lengths``, ``forces``, ``energies`` and ``stresses`` are proven."""
        totals, spreads = bool(self.totals.fits), bool(self.spreads.fits)
        differences = bool(self.relation.fits)
        found = {"lengths"} if self.lengths.fits else set()
        if self.forces.fits or (differences and (totals or spreads)):
            found.add("forces")
        by_stress = bool(self.strains.fits) and bool(self.xtb_stresses.fits)
        if totals or spreads or by_stress or (differences and "forces" in found):
            found.add("energies")
        if self.stresses.fits:
            found.add("stresses")
        return frozenset(found)

    @property
    def relation(self) -> Check:
        """Of energies to forces: that of near frames, else the fitted one."""
        return self.differences if self.differences.fits is not None else self.integrals

    @property
    def checks(self) -> tuple[Check, ...]:
        """All of them."""
        return (
            self.lengths,
            self.forces,
            self.differences,
            self.integrals,
            self.totals,
            self.spreads,
            self.stresses,
        )

    @property
    def text(self) -> str:
        """What speaks for the units, in one line."""
        return "; ".join(check.text for check in self.checks if check.fits)


@dataclass(slots=True)
class _Reference:
    """GFN-xTB of some samples, of those in `clusters` only the forces on the atoms that are named there."""

    rows: list[int] = field(default_factory=list)
    values: list[XTBValues] = field(default_factory=list)
    clusters: dict[int, IntArray] = field(default_factory=dict)


def examine(samples: Sequence[Sample]) -> Findings:
    """All checks on a sample of frames, of which those of one atom say nothing but a total."""
    several = [s for s in samples if s.frame.n_atoms > 1]
    lengths = _lengths(several)
    totals = _totals(samples)
    if lengths.fits is False:
        return Findings(lengths=lengths, totals=totals)
    reference, fit = _reference(several), fit_pairs(several)
    compared_rows = [several[i] for i in reference.rows]
    strains = check_strains(several)
    xtb_stresses = check_xtb(compared_rows, [values.stress for values in reference.values])
    return Findings(
        lengths=lengths,
        forces=_forces(several, reference),
        differences=_differences(several),
        integrals=check_energies(several, fit),
        totals=totals,
        spreads=_spreads(several, reference),
        stresses=together(strains, [xtb_stresses, check_stresses(several, fit)]),
        strains=strains,
        xtb_stresses=xtb_stresses,
        has_stress=any(s.stress is not None for s in samples),
        mixed=_mixed(several),
    )


def judge(findings: Findings, units: UnitSet) -> None:
    """Refuses units that do not fit, and units that nothing speaks for.

    Raises:
        InputError: Names the units that would fit, or what is not proven.
    """
    if findings.lengths.fits is False:
        wanted = units.length_factor * findings.lengths.factor
        raise _refusal("length unit", units.length, findings.lengths, {"length": fitting(wanted, LENGTHS, 1.4)})
    energy, force = _corrections(findings)
    remedies: dict[str, list[str]] = {}
    if force is not None:
        named = fitting(units.force_factor * force.factor, FORCES, TOLERANCE)
        sign = "-" if units.force_factor * force.factor < 0 else ""
        remedies["force"] = [sign + name for name in named]
    if energy is not None:
        remedies["energy"] = fitting(units.energy_factor * energy.factor, ENERGIES, TOLERANCE)
    if force is not None:
        raise _refusal("force unit", units.force, force, remedies)
    if findings.mixed:  # before energies: two levels may look like another unit
        raise InputError(findings.mixed, field="level", remedy="import each level by itself, with its own --level")
    if energy is not None:
        raise _refusal("energy unit", units.energy, energy, remedies)
    if findings.stresses.fits is False:
        check = findings.stresses
        wanted = units.stress_factor * check.factor
        named = [("-" if wanted < 0 else "") + name for name in fitting(wanted, STRESSES, STRESS_TOLERANCE)]
        raise _refusal("stress unit", units.stress or "ev/angstrom^3", check, {"stress": named}, LEAVE_OUT_STRESS)
    missing = [name for name in ("lengths", "energies", "forces") if name not in findings.proven]
    if missing:
        unclear = [check.text for check in findings.checks if check.fits is None and check.text]
        why = "; ".join(unclear) or (
            "no near frames of one molecule, no totals with all electrons, and nothing that GFN2-xTB can treat"
        )
        raise InputError(
            f"nothing proves the unit of the {' and the '.join(missing)}: {why}",
            field="units",
            value=str(units),
            remedy="make sure of them and of the order of atoms, then give --trust-units",
        )
    if findings.has_stress and "stresses" not in findings.proven:
        raise InputError(
            f"nothing proves unit, sign and volume of the stresses: {findings.stresses.text or NO_STRESSES}",
            field="stress unit",
            value=units.stress or "ev/angstrom^3",
            remedy=f"{LEAVE_OUT_STRESS}, or make sure of all units and give --trust-units",
        )


def check_own_level(samples: Sequence[Sample], level: LevelOfTheory) -> None:
    """Refuses labels that are said to be those of GFN-xTB where GFN-xTB says something else.

    Args:
        samples: In proven units.
        level: What they are said to be of; others than plain GFN1-xTB and GFN2-xTB are not checked.

    Raises:
        InputError: Forces are not those of the method.
    """
    name = _XTB_NAMES.get(str(level.spec.get("method", "")).lower())
    if name is None or not set(level.spec) <= {"method", "engine", "accuracy"}:
        return
    usable = [s for s in samples if s.frame.n_atoms > 1 and _is_for_xtb(s.frame)]
    mine, theirs = [], []
    for i in spaced(len(usable), N_OWN):
        with contextlib.suppress(XTBFailure):
            theirs.append(single_point(usable[i].frame, XTBMethod(name, accuracy=1.0)).forces.ravel())
            mine.append(usable[i].forces.ravel())
        if _work(usable[i].frame) * len(theirs) > XTB_WORK:
            break
    if not mine or max(float(np.abs(part).max()) for part in theirs) < MIN_FORCE:
        return
    cosine, ratio = compared(np.concatenate(mine), np.concatenate(theirs))
    if cosine < OWN_COSINE or abs(math.log(ratio)) > math.log(OWN_RATIO):
        raise InputError(
            f"are not those of {name}, whose forces of {len(mine)} frames are {ratio:.3g} times as large (cosine "
            f"{cosine:+.2f}): they are of another level, or charge or multiplicity is wrong",
            field="level",
            value=level.canonical,
            remedy="give the --level that they are of, or --charge and --multiplicity",
        )


def _corrections(findings: Findings) -> tuple[Check | None, Check | None]:
    """What is wrong with energies and with forces; None for nothing."""
    forces, pairs, totals, spreads = findings.forces, findings.relation, findings.totals, findings.spreads
    wrong_forces = forces if forces.fits is False else None
    wrong_energies: Check | None = None
    if totals.fits is False and not spreads.fits and not (pairs.fits and not wrong_forces):
        wrong_energies = totals
    elif pairs.fits is False and forces.fits:
        wrong_energies = Check(False, 1.0 / pairs.factor, pairs.text)
    elif pairs.fits is False and (totals.fits or spreads.fits) and wrong_forces is None:
        wrong_forces = pairs
    elif pairs.fits is False and wrong_forces is not None and not totals.fits:
        if _is_off(forces.factor / pairs.factor):
            wrong_energies = Check(False, abs(forces.factor / pairs.factor), pairs.text)
    elif pairs.fits is None and spreads.fits is False and not totals.fits:
        wrong_energies = spreads
    elif pairs.fits and wrong_forces is not None:  # both off by the same factor
        wrong_energies = Check(False, forces.factor, forces.text)
    if wrong_energies is None and wrong_forces is None and pairs.fits is False:
        wrong_energies = Check(False, 1.0 / pairs.factor, pairs.text)
    return wrong_energies, wrong_forces


def _is_off(factor: float) -> bool:
    return abs(math.log(abs(factor))) > math.log(TOLERANCE)


def _refusal(what: str, said: str, check: Check, remedies: Mapping[str, list[str]], otherwise: str = "") -> InputError:
    options = [f"--{name}-unit={names[0]}" for name, names in remedies.items() if names]
    others = [name for names in remedies.values() for name in names[1:2]]
    remedy = f"it would fit as {' '.join(options)}" if options else "no unit that is known would fit"
    if others and options:
        remedy += f" (or {', '.join(others)})"
    if otherwise:
        remedy += f"; {otherwise}"
    return InputError(f"does not fit: {check.text}", field=what, value=said, remedy=remedy)


def _lengths(samples: Sequence[Sample]) -> Check:
    size = max((s.frame.n_atoms for s in samples), default=1)
    n_looked_at = max(2, min(200, MAX_DISTANCES // size**2))
    ratios = [_bond_ratios(samples[i].frame) for i in spaced(len(samples), n_looked_at)]
    known = np.concatenate(ratios) if ratios else np.zeros(0)
    if not known.size:
        return Check()
    median = float(np.median(known))
    text = f"nearest neighbours stand at {median:.2f} of the sum of their covalent radii"
    if BOND_WINDOW[0] <= median <= BOND_WINDOW[1]:
        return Check(True, 1.0, text)
    return Check(False, 1.0 / median, text)


def _bond_ratios(frame: Frame) -> FloatArray:
    """Distance of each atom's nearest neighbour over the sum of both covalent radii, noble gases left out."""
    radii = covalent_radii[frame.numbers]
    difference = frame.positions[:, None] - frame.positions[None]
    if frame.pbc.any():
        difference = find_mic(difference.reshape(-1, 3), frame.cell, frame.pbc)[0].reshape(difference.shape)
    ratio: FloatArray = np.sqrt(np.square(difference).sum(axis=2)) / (radii[:, None] + radii[None])
    images = [float(np.linalg.norm(frame.cell[k])) for k in range(3) if frame.pbc[k]]
    ratio[np.diag_indices_from(ratio)] = min(images, default=np.inf) / (2.0 * radii)
    nearest = ratio.min(axis=1)
    kept: FloatArray = nearest[~np.isin(frame.numbers, NOBLE) & (nearest > 0)]
    return kept


def xtb_rows(samples: Sequence[Sample]) -> list[int]:
    """Frames that are compared with GFN-xTB: pairs of neighbours spread over the sample, as many as the work allows."""
    usable = [i for i, s in enumerate(samples) if _is_for_xtb(s.frame)]
    rows: list[int] = []
    for n in range(N_XTB, 1, -1):
        if n > 4:
            rows = sorted({min(k + j, len(usable) - 1) for k in spaced(len(usable), n // 2) for j in (0, 1)})
        else:
            rows = spaced(len(usable), n)
        if sum(_work(samples[usable[row]].frame) for row in rows) <= XTB_WORK:
            break
    return [usable[row] for row in rows]


def _reference(samples: Sequence[Sample]) -> _Reference:
    """GFN-xTB of some frames."""
    found = _Reference()
    for row in xtb_rows(samples):
        values = _xtb(samples[row].frame)
        if values is not None:
            found.values.append(values)
            found.rows.append(row)
    if not found.rows:
        for row in spaced(len(samples), N_XTB):
            _add_cluster(found, row, samples[row].frame)
    return found


def _add_cluster(found: _Reference, row: int, frame: Frame) -> None:
    """Forces on a molecule among its neighbours, of a periodic frame that is not for xTB as a whole."""
    if not frame.pbc.any() or int(frame.numbers.max()) > MAX_NUMBER:
        return
    taken = cluster_of(frame)
    values = None if taken is None else _xtb(taken[0])
    if taken is not None and values is not None:
        found.rows.append(row)
        found.clusters[row] = taken[1]
        found.values.append(XTBValues(math.nan, values.forces[: len(taken[1])], None))


def _xtb(frame: Frame) -> XTBValues | None:
    """GFN2-xTB, or GFN1-xTB for boxes that are large for it; None where it fails."""
    is_large = frame.pbc.any() and frame.n_atoms > GFN2_PERIODIC_ATOMS
    try:
        return single_point(frame, XTBMethod("GFN1-xTB" if is_large else "GFN2-xTB", accuracy=1.0))
    except XTBFailure:
        return None


def _work(frame: Frame) -> int:
    return frame.n_atoms**2 if frame.pbc.any() else 0


def _is_for_xtb(frame: Frame) -> bool:
    if int(frame.numbers.max()) > MAX_NUMBER or (frame.pbc.any() and not frame.pbc.all()):
        return False
    return frame.n_atoms <= (GFN1_PERIODIC_ATOMS if frame.pbc.any() else XTB_ATOMS)


def _forces(samples: Sequence[Sample], reference: _Reference) -> Check:
    if not reference.rows:
        return Check()
    everything = slice(None)
    mine = np.concatenate([samples[i].forces[reference.clusters.get(i, everything)].ravel() for i in reference.rows])
    theirs = np.concatenate([values.forces.ravel() for values in reference.values])
    n = len(reference.rows)
    if float(np.abs(mine).max()) < VANISHING:
        is_so = float(np.abs(theirs).max()) < 100.0 * VANISHING
        return Check(True if is_so else None, 1.0, f"forces of {n} frames vanish, as those of GFN-xTB" if is_so else "")
    cosine, ratio = compared(mine, theirs)
    if not math.isfinite(cosine):
        return Check()
    names = {"GFN2-xTB" if i in reference.clusters else _method_name(samples[i].frame) for i in reference.rows}
    text = f"{'/'.join(sorted(names))} forces of {n} frame{'s' * (n > 1)} are {ratio:.3g} times as large "
    return rated(ratio, abs(cosine) >= MIN_COSINE, f"{text}(cosine {cosine:+.2f})", math.copysign(1.0, cosine))


def _method_name(frame: Frame) -> str:
    return "GFN1-xTB" if frame.pbc.any() and frame.n_atoms > GFN2_PERIODIC_ATOMS else "GFN2-xTB"


def _differences(samples: Sequence[Sample]) -> Check:
    work, rise = _pairs(samples)
    norm, other = float(np.linalg.norm(rise)), float(np.linalg.norm(work))
    if work.size < MIN_PAIRS or not norm or not other or not math.isfinite(norm * other):
        return Check()
    cosine = float(work @ rise) / (other * norm)
    ratio = norm / other
    text = (
        f"energies of {work.size} pairs of near frames differ by {ratio:.3g} times what their forces say "
        f"(cosine {cosine:+.2f})"
    )
    return rated(ratio, abs(cosine) >= MIN_PAIR_COSINE, text, math.copysign(1.0, cosine))


def _pairs(samples: Sequence[Sample]) -> tuple[FloatArray, FloatArray]:
    """``-F dx`` and energy difference of the nearest pairs of frames of the same atoms, eV."""
    distances, works, rises = [], [], []
    for rows in groups_of(samples):
        n = max(2, min(MAX_GROUP, math.isqrt(2 * MAX_DISTANCES // samples[rows[0]].frame.n_atoms)))
        part = [samples[i] for i in rows[:: max(1, len(rows) // n)][:n]]
        first, second = np.triu_indices(len(part), 1)
        positions, forces = np.stack([s.frame.positions for s in part]), np.stack([s.forces for s in part])
        energies = np.array([s.energy for s in part])
        moved, turned = positions[second], forces[second]
        start = positions[first]
        if part[0].frame.pbc.any():
            step = _near_image(moved - start, part[0].frame)
        else:
            start = start - start.mean(axis=1, keepdims=True)
            moved = moved - moved.mean(axis=1, keepdims=True)
            rotation = _rotations(moved, start)
            step = np.einsum("pai,pij->paj", moved, rotation) - start
            turned = np.einsum("pai,pij->paj", turned, rotation)
        distances.append(np.sqrt(np.square(step).sum(axis=(1, 2)) / positions.shape[1]))
        works.append(-0.5 * ((forces[first] + turned) * step).sum(axis=(1, 2)))
        rises.append(energies[second] - energies[first])
    if not distances:
        return np.zeros(0), np.zeros(0)
    distance, work, rise = np.concatenate(distances), np.concatenate(works), np.concatenate(rises)
    nearest = np.argsort(distance)[:N_PAIRS]
    nearest = nearest[(distance[nearest] < PAIR_RMSD) & (distance[nearest] > 0)]
    return work[nearest], rise[nearest]


def _near_image(step: FloatArray, frame: Frame) -> FloatArray:
    """Displacements by less than half a cell in each periodic direction, which is all that near frames have."""
    cell = frame.cell + np.diag(np.where(frame.cell.any(axis=1), 0.0, 1.0))
    if abs(float(np.linalg.det(cell))) < 1e-9:
        return step
    fractional = step @ np.linalg.inv(cell)
    nearest: FloatArray = (fractional - np.where(frame.pbc, np.round(fractional), 0.0)) @ cell
    return nearest


def _rotations(moved: FloatArray, fixed: FloatArray) -> FloatArray:
    """Proper rotations ``(n, 3, 3)`` that superpose rows of `moved` on `fixed` (W. Kabsch, Acta Cryst. A 32, 922)."""
    u, _, vt = np.linalg.svd(np.einsum("pai,paj->pij", moved, fixed))
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    rotation: FloatArray = u @ vt
    return rotation


def _totals(samples: Sequence[Sample]) -> Check:
    light = [s for s in samples if int(s.frame.numbers.max()) <= ALL_ELECTRON]
    if not light:
        return Check()
    ratio = float(np.median([s.energy / float(free_atom_energy(s.frame.numbers).sum()) for s in light]))
    text = f"total energies are {ratio:.3g} times those of free atoms with all electrons"
    if TOTALS[0] <= ratio <= TOTALS[1]:
        return Check(True, 1.0, text)
    if ratio <= 0:
        return Check()
    # without all electrons, or as a difference to atoms, energies are of any size: only a unit that fits well says more
    if any(ACCUSING[0] <= ratio * factor <= ACCUSING[1] for factor in _ratios_of_units()):
        return Check(False, 1.0 / ratio, text)
    return Check()


def free_atom_energy(numbers: NDArray[np.int32]) -> FloatArray:
    """All-electron energies of neutral atoms, eV, to about 1 % (2 % for carbon, 8 % for hydrogen)."""
    z = np.asarray(numbers, dtype=np.float64)
    energy: FloatArray = HARTREE * (-0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.2699 * z ** (5 / 3))
    return energy


def _ratios_of_units() -> list[float]:
    """Ratios of two energy units that are not the same."""
    return [a / b for a in ENERGIES.values() for b in ENERGIES.values() if a != b]


def _spreads(samples: Sequence[Sample], reference: _Reference) -> Check:
    if reference.clusters:  # which have no energy of the frame
        return Check()
    mine, theirs = [], []
    for rows in groups_of([samples[i] for i in reference.rows], by_cell=False):
        a = np.array([samples[reference.rows[k]].energy for k in rows])
        b = np.array([reference.values[k].energy for k in rows])
        mine.append(a - a.mean())
        theirs.append(b - b.mean())
    if sum(len(part) - 1 for part in mine) < 4:
        return Check()
    x, y = np.concatenate(mine), np.concatenate(theirs)
    cosine, ratio = compared(x, y)
    if not math.isfinite(cosine) or float(np.linalg.norm(y)) < 0.02:
        return Check()
    text = f"energies of the same atoms spread {ratio:.3g} times as far with GFN-xTB (cosine {cosine:+.2f})"
    return rated(ratio, cosine >= 0.7, text, clear=SPREAD_CLEAR)


def _mixed(samples: Sequence[Sample]) -> str:
    """Energies of one composition that fall into two groups which GFN2-xTB does not see; empty where there are none."""
    for rows in groups_of(samples, by_cell=False):
        if len(rows) < 6:
            continue
        order = sorted(rows, key=lambda i: samples[i].energy)
        energies = np.array([samples[i].energy for i in order])
        gaps = np.diff(energies)[1:-1]  # at least two frames on either side
        cut = int(np.argmax(gaps)) + 2
        gap, low, high = float(gaps.max()), order[:cut], order[cut:]
        width = max(float(np.ptp(energies[:cut])), float(np.ptp(energies[cut:])))
        if gap < JUMP or gap < 1.5 * width or not _is_for_xtb(samples[low[0]].frame):
            continue
        n = 1 if _work(samples[low[0]].frame) * 6 > XTB_WORK else 3
        sides = [[_xtb(samples[i].frame) for i in side[:n]] for side in (low, high)]
        known = [[values.energy for values in side if values is not None] for side in sides]
        if not all(known):
            continue
        means = [float(np.mean(side)) for side in known]
        seen = float(means[1] - means[0])
        if seen < 0.5 * gap:
            name = formula(samples[low[0]].frame.numbers.astype("<i4").tobytes())
            return (
                f"levels of theory are mixed: energies of {name} fall into two groups {gap:.3g} eV apart, where "
                f"GFN-xTB sees {seen:.2g} eV ({samples[low[0]].place} and {samples[high[0]].place})"
            )
    return ""
