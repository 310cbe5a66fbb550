"""Checks of lengths, forces and energies on a sample of labelled frames, for `alsys.interop.unit_check`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from ase.data import covalent_radii
from ase.geometry import find_mic
from numpy.typing import NDArray

from alsys.dynamics.geometry import superpositions
from alsys.frames import FloatArray, Frame, IntArray
from alsys.interop.clusters import cluster_of
from alsys.interop.file_units import ENERGIES
from alsys.interop.ratio_check import Check, Sample, compared, groups_of, held_against, rated, spaced
from alsys.interop.raw_frames import formula
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
JUMP: Final = 1.0
"""eV; gap between energies of one composition from which they may be of two levels."""
TOTALS: Final = (0.9, 1.12)
"""Ratio of totals to those of free atoms; 1.00 to 1.02 for most molecules, 1.09 for hydrogen."""
ACCUSING: Final = (0.975, 1.035)
"""The same in another unit, where that is to speak against the one that was stated: GFN1-xTB's valence energies
happen to be 1.06 in Rydberg."""
NOBLE: Final = (2, 10, 18, 36, 54, 86)
BOND_WINDOW: Final = (0.75, 1.35)


@dataclass(slots=True)
class Reference:
    """GFN-xTB of some samples, of those in `clusters` only the forces on the atoms that are named there."""

    rows: list[int] = field(default_factory=list)
    values: list[XTBValues] = field(default_factory=list)
    clusters: dict[int, IntArray] = field(default_factory=dict)


def check_lengths(samples: Sequence[Sample]) -> Check:
    """Distances of nearest neighbours against sums of covalent radii."""
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
    usable = [i for i, s in enumerate(samples) if is_for_xtb(s.frame)]
    rows: list[int] = []
    for n in range(N_XTB, 1, -1):
        if n > 4:
            rows = sorted({min(k + j, len(usable) - 1) for k in spaced(len(usable), n // 2) for j in (0, 1)})
        else:
            rows = spaced(len(usable), n)
        if sum(work_of(samples[usable[row]].frame) for row in rows) <= XTB_WORK:
            break
    return [usable[row] for row in rows]


def reference_of(samples: Sequence[Sample]) -> Reference:
    """GFN-xTB of some frames."""
    found = Reference()
    for row in xtb_rows(samples):
        values = _xtb(samples[row].frame)
        if values is not None:
            found.values.append(values)
            found.rows.append(row)
    if not found.rows:
        for row in spaced(len(samples), N_XTB):
            _add_cluster(found, row, samples[row].frame)
    return found


def _add_cluster(found: Reference, row: int, frame: Frame) -> None:
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


def work_of(frame: Frame) -> int:
    """What one evaluation of a box costs, squared atoms; nothing for a molecule."""
    return frame.n_atoms**2 if frame.pbc.any() else 0


def is_for_xtb(frame: Frame) -> bool:
    """Whether xTB has all elements of a frame, and it is small enough."""
    if int(frame.numbers.max()) > MAX_NUMBER or (frame.pbc.any() and not frame.pbc.all()):
        return False
    return frame.n_atoms <= (GFN1_PERIODIC_ATOMS if frame.pbc.any() else XTB_ATOMS)


def check_forces(samples: Sequence[Sample], reference: Reference) -> Check:
    """Against those of GFN-xTB."""
    if not reference.rows:
        return Check()
    everything = slice(None)
    mine = np.concatenate([samples[i].forces[reference.clusters.get(i, everything)].ravel() for i in reference.rows])
    theirs = np.concatenate([values.forces.ravel() for values in reference.values])
    n = len(reference.rows)
    if float(np.abs(mine).max()) < VANISHING:
        is_so = float(np.abs(theirs).max()) < 100.0 * VANISHING
        return Check(True if is_so else None, 1.0, f"forces of {n} frames vanish, as those of GFN-xTB" if is_so else "")
    names = {"GFN2-xTB" if i in reference.clusters else _method_name(samples[i].frame) for i in reference.rows}
    what = f"{'/'.join(sorted(names))} forces of {n} frame{'s' * (n > 1)} are {{ratio}} times as large"
    return held_against(mine, theirs, what, MIN_COSINE)


def _method_name(frame: Frame) -> str:
    return "GFN1-xTB" if frame.pbc.any() and frame.n_atoms > GFN2_PERIODIC_ATOMS else "GFN2-xTB"


def check_differences(samples: Sequence[Sample]) -> Check:
    """Of energies of near frames, against the trapezoid of their forces."""
    work, rise = _pairs(samples)
    if work.size < MIN_PAIRS:
        return Check()
    what = f"energies of {work.size} pairs of near frames differ by {{ratio}} times what their forces say"
    return held_against(work, rise, what, MIN_PAIR_COSINE)


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
            rotation = superpositions(moved, start)
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


def check_totals(samples: Sequence[Sample]) -> Check:
    """Against all-electron energies of free atoms."""
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


def check_spreads(samples: Sequence[Sample], reference: Reference) -> Check:
    """Of energies of the same atoms, against those of GFN-xTB."""
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


def mixed_levels(samples: Sequence[Sample]) -> str:
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
        if gap < JUMP or gap < 1.5 * width or not is_for_xtb(samples[low[0]].frame):
            continue
        n = 1 if work_of(samples[low[0]].frame) * 6 > XTB_WORK else 3
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
