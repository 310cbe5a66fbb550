"""The quality gate: what is examined before a label becomes data.

`LabelChecks.examine` names what is odd about a label; the caller computes such a frame again at tighter settings and
`settle` says what becomes of it, so an honest surprise costs one label and is never thrown away. Expectations come from
the labels observed so far, all of one level of theory. The state is a function of the set of observed labels (the ones
with the smallest identities, where there are too many), so that a restart which observes them again, in any order,
gives the same verdicts. What slipped through before there was a model is found by `review`. Source and measurements:
docs/design/015-quality-gate.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from alsys.config.labeling import QualityConfig
from alsys.frames import FloatArray, Frame
from alsys.labeling.gate.expectations import BINDING, expected_energy, free_atom_sum, is_surely_expected
from alsys.labeling.gate.figures import FORCE_FLOOR, Figures, Judged, Residual, figures_of
from alsys.labeling.gate.findings import Finding, Flagged, finding, root_mean_square, slope_finding
from alsys.labeling.gate.gross_errors import best_scale, swapped_atoms
from alsys.labeling.gate.pair_check import PairForces
from alsys.labeling.gate.seen_labels import Record, Residuals, SeenLabels
from alsys.labeling.gate.sorted_numbers import SortedNumbers
from alsys.labeling.gate.xtb_check import XTBCheck
from alsys.labels import Label, Prediction
from alsys.potentials.calibration import Band

MAX_RECORDS = 2000
MIN_RESIDUALS = 12
"""Residuals of predictions before they are judged by their scale."""
LEARNED_SCALES = 4.0
"""Robust standard deviations of rigid shifts and turns above which one is odd, whatever the limit in the config."""
LEARNED_FLOOR = 1e-3
"""Forces of rigid shifts and turns that are always allowed, eV/Angstrom: numerical noise."""
ENERGY_FLOOR = 1e-3
"""Residual per atom that is always allowed, eV."""


class LabelChecks:
    """Examines labels of one level of theory and learns from the good ones.

    Args:
        config: Limits.
        xtb_check: Forces of a frame by another method, while labels are too few to tell gross errors by themselves.
        max_records: Labels whose figures are remembered.
    """

    def __init__(
        self, config: QualityConfig, xtb_check: XTBCheck | None = None, *, max_records: int = MAX_RECORDS
    ) -> None:
        self._config = config
        self._xtb_check = xtb_check
        self._max_records = max_records
        self._seen = SeenLabels()
        self._cleared: set[str] = set()
        self._pair_check = PairForces()

    @property
    def max_records(self) -> int:
        """Labels that it keeps: those with the smallest identities. Others need not be observed after a restart."""
        return self._max_records

    @property
    def n_observed(self) -> int:
        """Labels that expectations rest on."""
        return len(self._seen.ids)

    def observe(self, frame: Frame, label: Label, prediction: Prediction | None) -> None:
        """Learns from an accepted label; a later prediction of the same label by a newer committee replaces the first.

        A prediction must not come from a committee that was trained on this label: pass None then.
        """
        self._learn(figures_of([(frame, label, prediction)])[0])

    def clear(self, label_id: str) -> None:
        """A second label agreed with this one: `review` does not flag it again."""
        self._cleared.add(label_id)

    def forget(self, label_id: str) -> None:
        """Unlearns a label that turned out wrong."""
        self._seen.discard(label_id)
        self._pair_check.forget(label_id)
        self._cleared.discard(label_id)

    def judge(self, rows: Sequence[Judged], band: Band | None) -> list[tuple[Finding, ...]]:
        """Examines labels one after another and learns from each that is not odd before the next is looked at.

        Args:
            rows: Frames, labels, and what one committee expects, None where none has said so.
            band: Calibrated band of that committee.
        """
        found = []
        figures = figures_of(rows)
        self._pair_check.prepare([(f.frame, f.label_id) for f in figures if f.residual is None and f.broken is None])
        for own in figures:
            findings = self._examine(own, band)
            found.append(findings)
            if not findings:
                self._learn(own)
        return found

    def examine(
        self, frame: Frame, label: Label, prediction: Prediction | None = None, band: Band | None = None
    ) -> tuple[Finding, ...]:
        """What is odd about a label that is not data yet.

        Args:
            frame: What was labelled.
            label: Its label.
            prediction: What the committee expects, which was not trained on this label; None before there is one.
            band: Calibrated band of that committee; None where there is none.

        Returns:
            Findings, the most telling first; empty for a label that is data.
        """
        return self._examine(figures_of([(frame, label, prediction)])[0], band)

    def against_repetition(self, frame: Frame, second: Label, prediction: Prediction | None) -> tuple[Finding, ...]:
        """What speaks against a label that a second one repeats; empty where it is confirmed.

        An engine that errs in the same way every time repeats its errors. So the second label is held against what
        does not come from its forces: the slope of the energy along them, and another method. Where there is no
        slope, also against the committee, or a pair potential.

        Args:
            frame: What was labelled.
            second: The label at tighter settings.
            prediction: What the committee expects; None where that is not known.
        """
        slope = slope_finding(second)
        if slope is not None:
            return (slope,)
        seen = None if self._xtb_check is None or frame.environment is not None else self._xtb_check(frame)
        if seen is not None and (found := _gross_errors_of(frame, second, seen)):
            return tuple(found)
        if not math.isnan(second.slope):
            return ()
        if prediction is not None and _fits(frame, prediction):
            return tuple(_gross_errors_of(frame, second, prediction.forces))
        pairs = self._pair_check.predict(frame, second.label_id)
        return () if pairs is None else tuple(_gross_errors_of(frame, second, pairs.forces))

    def review(
        self, frames: Sequence[Frame], labels: Sequence[Label], predictions: Sequence[Prediction | None]
    ) -> list[Flagged]:
        """What is odd among labels that are data already, seen with a new committee.

        It may have been trained on them, so residuals are judged against each other and not against those observed.
        Labels that were `clear`ed are passed over.

        Args:
            frames: All labelled frames.
            labels: Their labels.
            predictions: Of one committee; None where a frame was left out.
        """
        rows = figures_of(list(zip(frames, labels, predictions, strict=True)))
        is_judged = [own.residual is not None and own.frame.n_atoms > 1 for own in rows]
        seen = Residuals(_record(own) for own, is_one in zip(rows, is_judged, strict=True) if is_one)
        flagged: list[Flagged] = []
        for i, own in enumerate(rows):
            if own.label_id in self._cleared:
                continue
            if own.broken is not None:
                flagged.append((i, (own.broken,)))
                continue
            findings = self._intrinsic(own)
            if own.residual is not None and is_judged[i]:
                findings += _gross_errors(own.frame, own.label, own.residual)
                if len(seen) >= MIN_RESIDUALS:
                    findings += self._against(own, own.residual, None, seen)
            else:
                findings += self._against_pairs(own) + self._composition(own)
            if findings:
                flagged.append((i, tuple(findings)))
        return flagged

    def _examine(self, own: Figures, band: Band | None) -> tuple[Finding, ...]:
        if own.broken is not None:
            return (own.broken,)
        findings = self._intrinsic(own)
        if own.residual is not None:
            findings += _gross_errors(own.frame, own.label, own.residual)
            if len(seen := self._seen.residuals) >= MIN_RESIDUALS:
                findings += self._against(own, own.residual, band, seen)
                return tuple(findings)
        else:
            findings += self._against_pairs(own)
        findings += self._composition(own)
        return tuple(findings)

    def _learn(self, own: Figures) -> None:
        """Remembers the figures of a label that is data."""
        key, seen = own.label_id, self._seen
        known = seen.get(key)
        if own.broken is not None or (known is not None and _version(own) <= known.version):
            return
        if known is None and len(seen.ids) >= self._max_records:
            last = seen.ids[-1]
            if key >= last:
                return
            seen.discard(last)
            self._pair_check.forget(last)
        seen.discard(key)
        seen.add(key, _record(own))
        self._pair_check.observe(own.frame, own.label)

    def _intrinsic(self, own: Figures) -> list[Finding]:
        """What a label says of itself: limits of the config, and net forces and torques unlike those of its kind."""
        config, label, n, seen = self._config, own.label, own.frame.n_atoms, self._seen
        found = []
        for check, value, limit, unit in (
            ("net-force", own.net_force, config.net_force, "eV/Angstrom"),
            ("torque", own.torque, config.net_torque, "eV"),
            ("largest-force", own.largest_force, config.largest_force, "eV/Angstrom"),
            ("spin", label.diagnostics.spin_excess, config.spin_excess, ""),
        ):
            if value > limit:
                found.append(finding(check, value, limit, f"above the limit, {unit}".rstrip(", "), stands=True))
        if config.gap > 0 and label.diagnostics.gap < config.gap:
            found.append(finding("gap", label.diagnostics.gap, config.gap, "orbital gap below the limit, eV", True))
        for check, value, others in (
            ("net-force", own.net_force / math.sqrt(n), seen.net_forces),
            ("torque", own.turning, seen.turnings),
        ):
            if n > 1 and len(others) >= MIN_RESIDUALS and check not in {f.check for f in found}:
                limit = max(others.upper_limit(LEARNED_SCALES), LEARNED_FLOOR)
                if value > limit:
                    found.append(finding(check, value, limit, "eV/Angstrom of rigid motion, far above other labels"))
        return found

    def _composition(self, own: Figures, seen: Residuals | None = None) -> list[Finding]:
        """Energy against those of the same elements, unless a committee with these residuals is the sharper test."""
        frame, label, composition = own.frame, own.label, own.composition
        seen_before, scales = self._seen.energies, self._config.energy_residual
        is_expected = is_surely_expected(composition, label.energy, seen_before, scales)
        expected = None if is_expected else expected_energy(composition, seen_before, scales)
        rival = math.inf if expected is None or seen is None else self._energy_limit(seen) * frame.n_atoms
        if expected is not None and expected.below < rival:
            difference = label.energy - expected.energy
            limit = expected.above if difference > 0 else expected.below
            if abs(difference) > limit:
                return [finding("energy", difference, limit, "eV from the energy expected of this composition")]
        if frame.n_atoms > 1 and (free := free_atom_sum(composition, self._seen.atoms)) is not None:
            binding = (label.energy - free) / frame.n_atoms
            if not BINDING[0] < binding < BINDING[1]:
                limit = BINDING[0] if binding < 0 else BINDING[1]
                return [finding("energy", binding, limit, "eV per atom from free atoms")]
        return []

    def _against_pairs(self, own: Figures) -> list[Finding]:
        """Forces against a pair potential fitted to the labels so far, or a xtb_check: enough for gross errors."""
        frame, label = own.frame, own.label
        pairs = self._pair_check.predict(frame, own.label_id)
        if pairs is None:
            seen = None if self._xtb_check is None or frame.environment is not None else self._xtb_check(frame)
            return [] if seen is None else _gross_errors_of(frame, label, seen)
        found = _gross_errors_of(frame, label, pairs.forces)
        error = root_mean_square(label.forces - pairs.forces)
        limit = SortedNumbers(pairs.past_errors).upper_limit(self._config.force_residual)
        if error > limit:
            found.append(finding("pair-force", error, limit, "eV/Angstrom from a pair potential fitted to others"))
        return found

    def _energy_limit(self, seen: Residuals) -> float:
        """Of energies per atom against the committee's, eV."""
        return max(seen.energies.distance_limit(self._config.energy_residual), ENERGY_FLOOR)

    def _against(self, own: Figures, residual: Residual, band: Band | None, seen: Residuals) -> list[Finding]:
        """Residuals against past ones, and against what the committee itself says of its error: both must be off."""
        config, found, n, prediction = self._config, [], own.frame.n_atoms, residual.prediction
        value, scales = abs(residual.energy - seen.energies.median), config.energy_residual
        is_off = value > ENERGY_FLOOR and seen.energies.is_beyond(value, scales)
        if is_off and residual.ratio > seen.ratios.upper_limit(scales):
            limit = self._energy_limit(seen)
            found.append(finding("residual-energy", value * n, limit * n, "eV from the committee's energy"))
        else:
            found += self._composition(own, seen)
        limit = max(seen.forces.upper_limit(config.force_residual), FORCE_FLOOR)
        if residual.force <= limit:
            return found
        errors = np.sqrt(np.square(own.label.forces - prediction.forces).sum(axis=1))
        bound = prediction.deviations if band is None else band.error(prediction.deviations)
        beyond = errors > np.maximum(limit, config.bound_factor * np.nan_to_num(bound, nan=0.0, posinf=np.inf))
        if beyond.any():
            atom = int(np.argmax(np.where(beyond, errors, 0.0)))
            message = f"eV/Angstrom from the committee's force at atom {atom}"
            found.append(finding("residual-force", float(errors[atom]), limit, message))
        return found


def _version(own: Figures) -> int:
    """Of the committee that predicted a label; -1 for none."""
    return -1 if own.residual is None else own.residual.prediction.model_version


def _record(own: Figures) -> Record:
    n = own.frame.n_atoms
    residual = (0.0, 0.0, 0.0) if (one := own.residual) is None else (one.energy, one.ratio, one.force)
    return Record(
        own.composition,
        own.label.energy,
        own.net_force / math.sqrt(n) if n > 1 and not math.isnan(own.net_force) else -1.0,
        own.turning if n > 1 and not math.isnan(own.turning) else -1.0,
        _version(own),
        *residual,
    )


def _gross_errors(frame: Frame, label: Label, residual: Residual) -> list[Finding]:
    """As below, where a look at all labels of the call could not rule them out."""
    if not (residual.may_be_scaled or residual.may_be_swapped):
        return []
    return _gross_errors_of(frame, label, residual.prediction.forces)


def _gross_errors_of(frame: Frame, label: Label, predicted: FloatArray) -> list[Finding]:
    if frame.n_atoms < 2:
        return []
    factor = best_scale(label.forces, predicted)
    if factor is not None:
        check = "sign" if factor < 0 else "scale"
        return [finding(check, factor, 1.0, "times the expected forces fit the label")]
    swaps = swapped_atoms(label.forces, predicted)
    if swaps:
        pairs = ", ".join(f"{i} and {j}" for i, j in swaps[:4])
        return [finding("permutation", float(len(swaps)), 0.0, f"exchanges fit better: atoms {pairs}")]
    return []


def _fits(frame: Frame, prediction: Prediction) -> bool:
    """Whether a prediction can be compared with: a committee may itself predict NaN."""
    return (
        prediction.forces.shape == (frame.n_atoms, 3)
        and math.isfinite(prediction.energy)
        and bool(np.isfinite(prediction.forces).all())
    )
