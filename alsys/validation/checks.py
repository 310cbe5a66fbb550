"""The checks, each from a model, a reference and settings to a `Finding`: numbers, curves and remarks.

Nothing here knows of campaigns, folders or versions. A check that lacks reference calculations is ``partial`` and gives
what it has; one that has no meaning for a system is ``skipped`` and says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alsys.config.validation import ValidationConfig
from alsys.dynamics.minima import Minimum, relaxed
from alsys.dynamics.vibrations import displaced, hessian_from, vibrations
from alsys.frames import Frame
from alsys.labels import Label
from alsys.potentials.base import Committee
from alsys.validation.accuracy import Comparison, learning_exponent, parity_metrics, parity_points
from alsys.validation.calibration import MIN_FRAMES, calibration_diagram
from alsys.validation.dynamics import DynamicsSettings, committee_forces, run_dynamics
from alsys.validation.minima import committee_potential, compare_minima, is_same_molecule
from alsys.validation.reference import Reference
from alsys.validation.results import DONE, PARTIAL, SKIPPED, finite, rounded
from alsys.validation.scans import Profile, Scan, profile_of
from alsys.validation.survival import kaplan_meier
from alsys.validation.vibrations import committee_hessian, compare_vibrations


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; see `alsys.validation.results.UnitResult`."""

    status: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def skipped(*notes: str) -> Finding:
    """A check that has no meaning here, and why."""
    return Finding(SKIPPED, notes=notes)


def check_parity(compared: Comparison) -> Finding:
    """Model against label on the random arm. Curves: ``forces`` and ``energies``, pairs (label, model)."""
    points = parity_points(compared)
    notes = (f"{compared.n_failed} frames have no forces",) if compared.n_failed else ()
    curves = {name: rounded(values) for name, values in points.items()}
    return Finding(DONE, parity_metrics(compared), curves, notes)


def check_learning(rows: Sequence[tuple[int, int, float, float, float]]) -> Finding:
    """Errors of all versions on the random arm of today, which none of them has seen.

    Args:
        rows: Version, labels it was made from, force MAE and its 95 % interval, eV/Angstrom.
    """
    exponent = learning_exponent([row[1] for row in rows], [row[2] for row in rows])
    metrics = finite({"exponent": exponent, "n_versions": float(len(rows))})
    return Finding(DONE, metrics, {"versions": [[int(r[0]), int(r[1]), *rounded(r[2:])] for r in rows]})


def check_calibration(compared: Comparison) -> Finding:
    """How often errors are within what was claimed. Curves: ``nominal``, ``calibrated`` with ``error``, ``raw``."""
    diagram = calibration_diagram(compared.atoms_of_frames(), compared.trajectory)
    if diagram is None:
        return skipped(f"needs {MIN_FRAMES} frames of the random arm on two trajectories or more")
    curves = {
        "nominal": rounded(diagram.nominal),
        "calibrated": rounded(diagram.calibrated),
        "error": rounded(diagram.calibrated_error),
        "raw": rounded(diagram.raw),
    }
    return Finding(DONE, finite(diagram.metrics), curves)


def check_minimum(committee: Committee, reference: Minimum, settings: ValidationConfig) -> Finding:
    """How far the model's minimum lies from the reference's. Raises `NoForces`."""
    potential = committee_potential(committee, reference.frame)
    own = relaxed(reference.frame, potential, settings.relax_force, settings.relax_steps)
    notes = _about(reference)
    if not is_same_molecule(reference.frame, own.frame):
        notes += ("the model relaxes into another structure",)
    elif not own.is_converged:
        notes += (f"the model's relaxation ended at {own.largest_force:.3f} eV/Angstrom",)
    compared = compare_minima(reference, own, potential(reference.frame.positions)[0])
    metrics = {
        "rmsd": compared.rmsd,
        "bond_mae": compared.bond_mean,
        "bond_max": compared.bond_max,
        "strain": compared.strain,
    }
    return Finding(DONE, finite(metrics), notes=notes)


def check_scans(committee: Committee, reference: Reference, minimum: Minimum, scans: Sequence[Scan]) -> Finding:
    """Energy profiles beside the reference's.

    Metrics, over scans: ``error_mean``, ``error_max``, ``barrier_error_mean``, ``barrier_error_max`` (error of the
    profile's height), eV; ``covered`` (share of points within two standard deviations of the members), ``n_scans``,
    ``n_missing``. Curves: ``scans``, each with ``name``, ``kind``, ``x``, ``reference``, ``model``, ``band``.
    """
    profiles: list[tuple[Scan, Profile]] = []
    n_missing, is_spent = 0, False
    for scan in scans:
        labels = reference.label(scan.frames)
        is_spent |= any(outcome is None for outcome in labels)
        profile = profile_of(scan, committee, labels)
        if profile is None:
            n_missing += len(labels)
            continue
        n_missing += profile.n_missing
        profiles.append((scan, profile))
    notes = _about(minimum)
    if n_missing:
        notes += (f"{n_missing} points have no label or no prediction",)
    if is_spent:
        notes += ("the budget of reference calculations is spent",)
    if not profiles:
        return Finding(PARTIAL if is_spent else SKIPPED, notes=notes or ("nothing to scan",))
    found = [profile for _, profile in profiles]
    metrics = {
        "error_mean": float(np.mean([p.error_mean for p in found])),
        "error_max": max(p.error_max for p in found),
        "barrier_error_mean": float(np.mean([p.height_error for p in found])),
        "barrier_error_max": max(p.height_error for p in found),
        "covered": float(np.mean([p.covered for p in found])),
        "n_scans": float(len(found)),
        "n_missing": float(n_missing),
    }
    curves = [
        {
            "name": profile.name,
            "kind": scan.kind,
            "x": rounded(profile.coordinates),
            "reference": rounded(profile.reference),
            "model": rounded(profile.model),
            "band": rounded(profile.band),
        }
        for scan, profile in profiles
    ]
    return Finding(PARTIAL if is_spent else DONE, finite(metrics), {"scans": curves}, notes)


def check_frequencies(
    committee: Committee, reference: Reference, minimum: Minimum, settings: ValidationConfig
) -> Finding:
    """Harmonic wavenumbers of the model at its minimum beside the reference's at its own. Raises `NoForces`.

    Metrics: ``mae_per_cm``, ``max_per_cm``, ``assigned_mae_per_cm``, ``zero_point_error`` (eV, signed),
    ``n_imaginary``, ``n_imaginary_reference``, ``n_modes``. Curves: ``reference`` and ``model``, 1/cm.
    """
    frames = displaced(minimum.frame, settings.displacement)
    n_unknown = reference.n_unknown(frames)
    if n_unknown > reference.remaining:
        note = f"needs {n_unknown} more reference calculations, {reference.remaining} are left"
        return Finding(PARTIAL, notes=(*_about(minimum), note))
    labels = [label for label in reference.label(frames) if isinstance(label, Label)]
    if len(labels) < len(frames):
        n_failed = len(frames) - len(labels)
        return Finding(SKIPPED, notes=(f"{n_failed} of {len(frames)} displaced frames could not be labelled",))
    true = vibrations(minimum.frame, hessian_from([label.forces for label in labels], settings.displacement))
    potential = committee_potential(committee, minimum.frame)
    own = relaxed(minimum.frame, potential, settings.relax_force, settings.relax_steps)
    notes = _about(minimum)
    if not own.is_converged:
        notes += (f"the model's relaxation ended at {own.largest_force:.3f} eV/Angstrom",)
    modelled = vibrations(own.frame, committee_hessian(committee, own.frame, settings.displacement))
    if len(modelled.wavenumbers) != len(true.wavenumbers):
        return skipped(*notes, "the model's minimum is linear and the reference's is not, or the other way round")
    compared = compare_vibrations(true, modelled, minimum.frame, own.frame)
    metrics = {
        "mae_per_cm": compared.mean,
        "max_per_cm": compared.largest,
        "assigned_mae_per_cm": compared.assigned_mean,
        "zero_point_error": compared.zero_point,
        "n_imaginary": float(modelled.n_imaginary),
        "n_imaginary_reference": float(true.n_imaginary),
        "n_modes": float(true.wavenumbers.size),
    }
    curves = {"reference": rounded(true.wavenumbers), "model": rounded(modelled.wavenumbers)}
    return Finding(DONE, finite(metrics), curves, notes)


def check_stability(
    committee: Committee, start: Frame, n_walkers: int, settings: DynamicsSettings, checkpoint: Path | None = None
) -> Finding:
    """How long the model's dynamics stays sound.

    Metrics: ``time_mean`` (mean time within the length of the run, fs) and ``time_mean_error``, ``share_alive`` with
    ``share_alive_low`` and ``share_alive_high``, ``n_walkers``, ``n_failed``, ``n_REASON``. Curves: ``times``,
    ``survival``, ``low``, ``high`` of the Kaplan-Meier estimate and its ``end``, fs.
    """
    result = run_dynamics([start] * n_walkers, committee_forces(committee), settings, checkpoint=checkpoint)
    curve = kaplan_meier(result.times, result.is_failure)
    (share, low, high), (mean, error) = curve.last, curve.mean
    reasons = Counter(reason for reason in result.reasons if reason)
    metrics = {
        "time_mean": mean,
        "time_mean_error": error,
        "share_alive": share,
        "share_alive_low": low,
        "share_alive_high": high,
        "n_walkers": float(n_walkers),
        "n_failed": float(result.is_failure.sum()),
        **{f"n_{reason.replace('-', '_')}": float(count) for reason, count in sorted(reasons.items())},
    }
    curves = {
        "times": rounded(curve.times),
        "survival": rounded(curve.survival),
        "low": rounded(curve.low),
        "high": rounded(curve.high),
        "end": rounded(curve.end),
    }
    wanted = settings.n_steps * settings.timestep
    is_cut = bool((result.times[~result.is_failure] < wanted - 1e-6).any())
    notes = (f"cut off after {settings.wall_s:.0f} s, at {curve.end:.0f} of {wanted:.0f} fs",) if is_cut else ()
    return Finding(DONE, finite(metrics), curves, notes)


def _about(minimum: Minimum) -> tuple[str, ...]:
    if minimum.is_converged:
        return ()
    return (f"the reference's relaxation ended at {minimum.largest_force:.3f} eV/Angstrom",)
