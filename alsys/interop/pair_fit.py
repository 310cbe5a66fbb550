"""A pair potential fitted to the forces of a few frames: what their energies and stresses must then be, roughly.

Forces alone decide it, by linear least squares over smooth bumps of each pair of elements, so its energies and
stresses are those that the forces integrate to. They need no method and no reference, cost a second, and hold in boxes
of any size where no two frames are near each other. What forces of one volume cannot say is taken out on both sides:
the mean stress, and energies as a function of volume and shape of the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from ase.neighborlist import primitive_neighbor_list

from alsys.frames import FloatArray, Frame
from alsys.interop.ratio_check import Check, Sample, groups_of, held_against, spaced

CUTOFF: Final = 5.0
SPACING: Final = 0.25
"""Angstrom between the bumps, and their width."""
FIRST: Final = 0.6
MAX_FRAMES: Final = 40
MAX_ATOMS: Final = 4000
"""Of all frames together."""
MIN_EXPLAINED: Final = 0.9
"""Share of the squared forces that the pair potential must explain before it says anything."""
MIN_COSINE: Final = 0.9
MIN_ENERGIES: Final = 4
"""Independent differences of energies."""
STRESS_TOLERANCE: Final = 2.0
STRESS_CLEAR: Final = 4.0
"""Units of stress are far apart: the nearest ones that are confused by a factor of 60."""


@dataclass(frozen=True, slots=True)
class PairFit:
    """What a fitted pair potential says of some frames.

    Attributes:
        rows: Which frames.
        energies: ``(n,)``, eV, up to a constant for each composition.
        stresses: ``(n, 3, 3)``, eV/Angstrom^3, tension positive; NaN for frames that are not periodic.
        explained: Share of the squared forces.
    """

    rows: list[int]
    energies: FloatArray
    stresses: FloatArray
    explained: float


def fit_pairs(samples: Sequence[Sample]) -> PairFit | None:
    """Fits the forces of frames spread over a sample; None where there are too few or too many kinds of pairs."""
    several = [i for i, s in enumerate(samples) if s.frame.n_atoms > 1 and s.frame.n_atoms <= MAX_ATOMS // 2]
    if not several:
        return None
    mean = float(np.mean([samples[i].frame.n_atoms for i in several]))
    rows = [several[k] for k in spaced(len(several), max(2, min(MAX_FRAMES, int(MAX_ATOMS / mean))))]
    elements = sorted({int(z) for i in rows for z in samples[i].frame.numbers})
    kinds = {(a, b): k for k, (a, b) in enumerate((a, b) for n, a in enumerate(elements) for b in elements[n:])}
    n_parameters = len(kinds) * _centres().size
    n_data = 3 * sum(samples[i].frame.n_atoms for i in rows)
    if len(rows) < 2 or n_data < 2 * n_parameters or n_parameters > 600:
        return None
    normal, projected = np.zeros((n_parameters, n_parameters)), np.zeros(n_parameters)
    energy_terms, virial_terms, total = [], [], 0.0
    for i in rows:
        energy, force, virial = _terms(samples[i].frame, kinds)
        target = samples[i].forces.ravel()
        normal += force.T @ force
        projected += force.T @ target
        total += float(target @ target)
        energy_terms.append(energy)
        virial_terms.append(virial)
    if total == 0.0:
        return None
    normal[np.diag_indices_from(normal)] += 1e-6 * np.trace(normal) / n_parameters
    weights = np.linalg.solve(normal, projected)
    left = total - 2.0 * float(weights @ projected) + float(weights @ normal @ weights)
    stresses = np.full((len(rows), 3, 3), np.nan)
    for k, i in enumerate(rows):
        frame = samples[i].frame
        if frame.pbc.all():
            stresses[k] = (weights @ virial_terms[k]).reshape(3, 3) / abs(float(np.linalg.det(frame.cell)))
    return PairFit(rows, np.array([terms @ weights for terms in energy_terms]), stresses, 1.0 - left / total)


def check_energies(samples: Sequence[Sample], fit: PairFit | None) -> Check:
    """Whether energies differ as the forces say, over frames that need not be near each other."""
    if fit is None or fit.explained < MIN_EXPLAINED:
        return Check()
    part = [samples[i] for i in fit.rows]
    mine: list[FloatArray] = []
    theirs: list[FloatArray] = []
    n_free = 0
    for rows in groups_of(part, by_cell=False):
        known = _shape_terms([part[k].frame for k in rows])
        if len(rows) <= known.shape[1]:
            continue
        for values, found in ((np.array([part[k].energy for k in rows]), mine), (fit.energies[rows], theirs)):
            centred = values - values.mean()
            found.append(centred - known @ np.linalg.lstsq(known, centred, rcond=None)[0])
        n_free += len(rows) - known.shape[1]
    if n_free < MIN_ENERGIES:
        return Check()
    said = "what a pair potential fitted to their forces says"
    what = f"energies of {len(fit.rows)} frames differ by {{ratio}} times {said}"
    return held_against(np.concatenate(theirs), np.concatenate(mine), what, MIN_COSINE)


def check_stresses(samples: Sequence[Sample], fit: PairFit | None) -> Check:
    """Whether stresses differ from frame to frame as the forces say, their mean and pressure left out."""
    if fit is None or fit.explained < MIN_EXPLAINED:
        return Check()
    rows = [k for k, i in enumerate(fit.rows) if samples[i].stress is not None and np.isfinite(fit.stresses[k]).all()]
    if len(rows) < 3:
        return Check()
    mine = np.array([samples[fit.rows[k]].stress for k in rows])
    theirs = fit.stresses[rows]
    trace = np.eye(3) / 3.0
    mine, theirs = (x - np.trace(x, axis1=1, axis2=2)[:, None, None] * trace for x in (mine, theirs))
    mine, theirs = mine - mine.mean(axis=0), theirs - theirs.mean(axis=0)
    what = f"a pair potential fitted to the forces of {len(rows)} frames has stresses {{ratio}} times as large"
    return held_against(mine, theirs, what, MIN_COSINE, STRESS_CLEAR, STRESS_TOLERANCE)


def _shape_terms(frames: Sequence[Frame]) -> FloatArray:
    """``(n, k)`` what energies may depend on that forces do not say: a constant, the volume, the shape of the cell."""
    constant = np.ones((len(frames), 1))
    if not frames[0].pbc.all():
        return constant
    cells = np.array([frame.cell for frame in frames])
    strain = np.linalg.solve(cells.mean(axis=0), cells) - np.eye(3)
    strain = 0.5 * (strain + np.swapaxes(strain, 1, 2))
    volume = np.trace(strain, axis1=1, axis2=2)[:, None]
    if float(np.abs(strain).max()) < 1e-6:
        return constant
    shape = strain - volume[:, :, None] / 3.0 * np.eye(3)
    if float(np.abs(shape).max()) < 1e-6:
        return np.hstack([constant, volume, volume**2])
    deviatoric = np.stack([shape[:, a, b] for a, b in ((0, 0), (1, 1), (0, 1), (0, 2), (1, 2))], axis=1)
    return np.hstack([constant, volume, volume**2, deviatoric])


def _centres() -> FloatArray:
    return np.arange(FIRST, CUTOFF, SPACING)


def _terms(frame: Frame, kinds: dict[tuple[int, int], int]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Energy ``(n,)``, forces ``(3 n_atoms, n)`` and derivative to strain ``(n, 9)`` of each term."""
    first, second, vector, distance = primitive_neighbor_list("ijDd", frame.pbc, frame.cell, frame.positions, CUTOFF)
    z, centres = frame.numbers, _centres()
    pairs = zip(z[first].tolist(), z[second].tolist(), strict=True)
    kind = np.array([kinds[(a, b) if a <= b else (b, a)] for a, b in pairs], dtype=np.int64)
    bump = np.exp(-0.5 * np.square((distance[:, None] - centres) / SPACING))
    slope = -(distance[:, None] - centres) / SPACING**2 * bump
    cut = 0.5 * (np.cos(np.pi * distance / CUTOFF) + 1.0)[:, None]
    cut_slope = (-0.5 * np.pi / CUTOFF * np.sin(np.pi * distance / CUTOFF))[:, None]
    value, derivative = bump * cut, slope * cut + bump * cut_slope
    direction = vector / distance[:, None]
    n_kinds, n_bumps = len(kinds), centres.size
    energy = np.zeros((n_kinds, n_bumps))
    force = np.zeros((n_kinds, frame.n_atoms, 3, n_bumps))
    virial = np.zeros((n_kinds, n_bumps, 9))
    for k in range(n_kinds):
        mine = kind == k
        if not mine.any():
            continue
        energy[k] = 0.5 * value[mine].sum(axis=0)
        np.add.at(force[k], first[mine], direction[mine][:, :, None] * derivative[mine][:, None, :])
        outer = (direction[mine][:, :, None] * vector[mine][:, None, :]).reshape(-1, 9)
        virial[k] = 0.5 * derivative[mine].T @ outer
    return (
        energy.reshape(-1),
        np.moveaxis(force, 0, 2).reshape(3 * frame.n_atoms, n_kinds * n_bumps),
        virial.reshape(-1, 9),
    )
