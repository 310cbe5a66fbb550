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
from collections import Counter
from collections.abc import Sequence

import numpy as np

from alsys.config.labeling import QualityConfig
from alsys.frames import FloatArray, Frame
from alsys.labeling.gate.balance import own_net_force, torque_and_turning_force
from alsys.labeling.gate.expectations import BINDING, Composition, expected_energy, free_atom_sum
from alsys.labeling.gate.findings import Finding, Flagged, finding, root_mean_square, slope_finding
from alsys.labeling.gate.gross_errors import best_scale, swapped_atoms
from alsys.labeling.gate.pair_check import PairForces
from alsys.labeling.gate.seen_labels import Record, Residuals, SeenLabels
from alsys.labeling.gate.sorted_numbers import SortedNumbers
from alsys.labeling.gate.xtb_check import XTBCheck
from alsys.labels import Label, Prediction

MAX_RECORDS = 2000
MIN_RESIDUALS = 12
"""Residuals of predictions before they are judged by their scale."""
LEARNED_SCALES = 4.0
"""Robust standard deviations of rigid shifts and turns above which one is odd, whatever the limit in the config."""
LEARNED_FLOOR = 1e-3
"""Forces of rigid shifts and turns that are always allowed, eV/Angstrom: numerical noise."""
ENERGY_FLOOR = 1e-3
FORCE_FLOOR = 5e-3
"""Residuals per atom (eV) and of an atom (eV/Angstrom) that are always allowed."""


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
        self._latest: _Figures | None = None
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
        key, seen = label.label_id, self._seen
        known = seen.get(key)
        if known is not None and (prediction is None or prediction.model_version <= known.version):
            return
        is_full = known is None and len(seen.ids) >= self._max_records
        if is_full and key >= seen.ids[-1]:
            return
        is_examined = self._latest is not None and self._latest.label is label and self._latest.frame is frame
        if not is_examined and not _is_usable(frame, label):
            return
        if is_full:
            last = seen.ids[-1]
            seen.discard(last)
            self._pair_check.forget(last)
        seen.discard(key)
        seen.add(key, self._figures_of(frame, label).record(prediction))
        self._pair_check.observe(frame, label)

    def clear(self, label_id: str) -> None:
        """A second label agreed with this one: `review` does not flag it again."""
        self._cleared.add(label_id)

    def forget(self, label_id: str) -> None:
        """Unlearns a label that turned out wrong."""
        self._seen.discard(label_id)
        self._pair_check.forget(label_id)
        self._cleared.discard(label_id)

    def examine(
        self, frame: Frame, label: Label, prediction: Prediction | None, force_bound: FloatArray | None
    ) -> tuple[Finding, ...]:
        """What is odd about a label that is not data yet.

        Args:
            frame: What was labelled.
            label: Its label.
            prediction: What the committee expects, which was not trained on this label; None before there is one.
            force_bound: ``(n_atoms,)`` force error that the online calibration gives for each atom, eV/Angstrom; None
                where there is none.

        Returns:
            Findings, the most telling first; empty for a label that is data.
        """
        broken = _broken(frame, label)
        if broken is not None:
            return (broken,)
        figures = self._figures_of(frame, label)
        findings = self._intrinsic(figures)
        if prediction is not None and _fits(frame, prediction):
            findings += _gross_errors(frame, label, prediction.forces)
            if len(seen := self._seen.residuals) >= MIN_RESIDUALS:
                findings += self._against(figures, prediction, force_bound, seen)
                return tuple(findings)
        else:
            findings += self._against_pairs(frame, label)
        findings += self._composition(figures)
        return tuple(findings)

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
        if seen is not None and (found := _gross_errors(frame, second, seen)):
            return tuple(found)
        if not math.isnan(second.slope):
            return ()
        if prediction is not None and _fits(frame, prediction):
            return tuple(_gross_errors(frame, second, prediction.forces))
        pairs = self._pair_check.predict(frame, second.label_id)
        return () if pairs is None else tuple(_gross_errors(frame, second, pairs.forces))

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
        usable = [i for i, (f, r, p) in enumerate(zip(frames, labels, predictions, strict=True)) if _usable(f, r, p)]
        figures = {i: _Figures(frames[i], labels[i]) for i in usable}
        seen = Residuals(own.record(predictions[i]) for i, own in figures.items())
        flagged: list[Flagged] = []
        for i, (frame, label, prediction) in enumerate(zip(frames, labels, predictions, strict=True)):
            if label.label_id in self._cleared:
                continue
            broken = _broken(frame, label)
            if broken is not None:
                flagged.append((i, (broken,)))
                continue
            own = figures.get(i) or _Figures(frame, label)
            findings = self._intrinsic(own)
            if prediction is not None and i in figures:
                findings += _gross_errors(frame, label, prediction.forces)
                if len(seen) >= MIN_RESIDUALS:
                    findings += self._against(own, prediction, None, seen)
            else:
                findings += self._against_pairs(frame, label) + self._composition(own)
            if findings:
                flagged.append((i, tuple(findings)))
        return flagged

    def _figures_of(self, frame: Frame, label: Label) -> _Figures:
        """Figures of a label, which is examined and, mostly, observed next."""
        if self._latest is None or self._latest.label is not label or self._latest.frame is not frame:
            self._latest = _Figures(frame, label)
        return self._latest

    def _intrinsic(self, own: _Figures) -> list[Finding]:
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

    def _composition(self, own: _Figures, rival: float = math.inf) -> list[Finding]:
        """Energy against those of the same elements, unless a test with the limit `rival` (eV) is sharper."""
        frame, label, composition = own.frame, own.label, own.composition
        expected = expected_energy(composition, self._seen.energies, self._config.energy_residual)
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

    def _against_pairs(self, frame: Frame, label: Label) -> list[Finding]:
        """Forces against a pair potential fitted to the labels so far, or a xtb_check: enough for gross errors."""
        pairs = self._pair_check.predict(frame, label.label_id)
        if pairs is None:
            seen = None if self._xtb_check is None or frame.environment is not None else self._xtb_check(frame)
            return [] if seen is None else _gross_errors(frame, label, seen)
        found = _gross_errors(frame, label, pairs.forces)
        error = root_mean_square(label.forces - pairs.forces)
        limit = SortedNumbers(pairs.past_errors).upper_limit(self._config.force_residual)
        if error > limit:
            found.append(finding("pair-force", error, limit, "eV/Angstrom from a pair potential fitted to others"))
        return found

    def _against(
        self, own: _Figures, prediction: Prediction, force_bound: FloatArray | None, seen: Residuals
    ) -> list[Finding]:
        """Residuals against past ones, and against what the committee itself says of its error: both must be off."""
        config, found, n = self._config, [], own.frame.n_atoms
        record = own.record(prediction)
        value = abs(record.energy_residual - seen.energies.median)
        limit = max(seen.energies.distance_limit(config.energy_residual), ENERGY_FLOOR)
        if value > limit and record.energy_ratio > seen.ratios.upper_limit(config.energy_residual):
            found.append(finding("residual-energy", value * n, limit * n, "eV from the committee's energy"))
        else:
            found += self._composition(own, rival=limit * n)
        limit = max(seen.forces.upper_limit(config.force_residual), FORCE_FLOOR)
        if record.force_residual <= limit:
            return found
        errors = np.sqrt(np.square(own.label.forces - prediction.forces).sum(axis=1))
        bound = prediction.deviations if force_bound is None else force_bound
        beyond = errors > np.maximum(limit, config.bound_factor * np.nan_to_num(bound, nan=0.0, posinf=np.inf))
        if beyond.any():
            atom = int(np.argmax(np.where(beyond, errors, 0.0)))
            message = f"eV/Angstrom from the committee's force at atom {atom}"
            found.append(finding("residual-force", float(errors[atom]), limit, message))
        return found


def composition_of(frame: Frame) -> Composition:
    """Counts of the elements, charge and multiplicity."""
    return tuple(sorted(Counter(frame.numbers.tolist()).items())), frame.charge, frame.multiplicity


class _Figures:
    """What is worked out once of a label that is no broken one; units as in `Record`.

    Args:
        frame: What was labelled.
        label: Its label.
    """

    def __init__(self, frame: Frame, label: Label) -> None:
        self.frame, self.label = frame, label
        self.composition = composition_of(frame)
        self.net_force = own_net_force(frame, label)
        self.torque, self.turning = torque_and_turning_force(frame, label)
        self.largest_force = float(np.sqrt(np.square(label.forces).sum(axis=1)).max())
        self._record: tuple[Prediction | None, Record] | None = None

    def record(self, prediction: Prediction | None) -> Record:
        """The record of it, with residuals where there is a prediction that can be compared with."""
        if self._record is None or self._record[0] is not prediction:
            self._record = (prediction, self._against(prediction))
        return self._record[1]

    def _against(self, prediction: Prediction | None) -> Record:
        frame, label, n = self.frame, self.label, self.frame.n_atoms
        shared = (
            self.composition,
            label.energy,
            self.net_force / math.sqrt(n) if n > 1 and not math.isnan(self.net_force) else -1.0,
            self.turning if n > 1 and not math.isnan(self.turning) else -1.0,
        )
        if prediction is None or not _fits(frame, prediction):
            return Record(*shared, -1, 0.0, 0.0, 0.0)
        residual = (label.energy - prediction.energy) / n
        deviation = float(prediction.deviations.mean())
        ratio = abs(residual) / max(deviation, FORCE_FLOOR) if math.isfinite(deviation) else 0.0
        error = float(np.sqrt(np.square(label.forces - prediction.forces).sum(axis=1)).max())
        return Record(*shared, prediction.model_version, residual, ratio, error)


def _gross_errors(frame: Frame, label: Label, predicted: FloatArray) -> list[Finding]:
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


def _broken(frame: Frame, label: Label) -> Finding | None:
    """What makes a label no label at all."""
    if label.frame_id != frame.frame_id or label.forces.shape != (frame.n_atoms, 3):
        message = f"forces {label.forces.shape} for {frame.n_atoms} atoms, or the label of another frame"
        return Finding("shape", float(len(label.forces)), float(frame.n_atoms), True, message)
    broken = {
        "energy": not math.isfinite(label.energy),
        "forces": not np.isfinite(label.forces).all(),
        "stress": label.stress is not None and not np.isfinite(label.stress).all(),
    }
    name = next((name for name, is_broken in broken.items() if is_broken), None)
    return None if name is None else Finding("not-finite", math.nan, math.inf, True, f"{name} is not finite")


def _is_usable(frame: Frame, label: Label) -> bool:
    return _broken(frame, label) is None


def _usable(frame: Frame, label: Label, prediction: Prediction | None) -> bool:
    return prediction is not None and _fits(frame, prediction) and _is_usable(frame, label) and frame.n_atoms > 1


def _fits(frame: Frame, prediction: Prediction) -> bool:
    """Whether a prediction can be compared with: a committee may itself predict NaN."""
    return (
        prediction.forces.shape == (frame.n_atoms, 3)
        and math.isfinite(prediction.energy)
        and bool(np.isfinite(prediction.forces).all())
    )
