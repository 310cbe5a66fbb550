"""The quality gate: what is examined before a label becomes data.

`LabelChecks.examine` names what is odd about a label; the caller computes such a frame again at tighter settings and
`settle` says what becomes of it, so an honest surprise costs one label and is never thrown away. Expectations come from
the labels observed so far, all of one level of theory. The state is a function of the set of observed labels (the ones
with the smallest identities, where there are too many), so that a restart which observes them again, in any order,
gives the same verdicts. What slipped through before there was a model is found by `review`. Source and measurements:
docs/design/015-quality-gate.md.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alsys.config.labeling import QualityConfig
from alsys.frames import FloatArray, Frame
from alsys.labeling.gate.balance import net_torque, own_net_force, turning_force
from alsys.labeling.gate.expectations import BINDING, Composition, expected_energy, free_atom_sum, upper_limit
from alsys.labeling.gate.findings import Finding, Flagged, finding, root_mean_square, slope_finding
from alsys.labeling.gate.gross_errors import best_scale, swapped_atoms
from alsys.labeling.gate.pair_check import PairForces
from alsys.labeling.gate.xtb_check import XTBCheck
from alsys.labels import Label, Prediction

MAX_RECORDS = 2000
MIN_RESIDUALS = 12
"""Residuals of predictions before they are judged by their scale."""
RESIDUAL_RECORDS = 60
"""Residuals of the newest committees that are enough; older ones are then left out."""
LEARNED_SCALES = 4.0
"""Robust standard deviations of rigid shifts and turns above which one is odd, whatever the limit in the config."""
LEARNED_FLOOR = 1e-3
"""Forces of rigid shifts and turns that are always allowed, eV/Angstrom: numerical noise."""
ENERGY_FLOOR = 1e-3
FORCE_FLOOR = 5e-3
"""Residuals per atom (eV) and of an atom (eV/Angstrom) that are always allowed."""


@dataclass(frozen=True, slots=True)
class _Record:
    """Figures of an observed label: forces of rigid motion (-1: none), and residuals where there was a prediction."""

    composition: Composition
    energy: float
    net_force: float
    turning: float
    version: int
    energy_residual: float
    energy_ratio: float
    force_residual: float


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
        self._records: dict[str, _Record] = {}
        self._ids: list[str] = []
        self._cleared: set[str] = set()
        self._energies: dict[Composition, list[float]] | None = None
        self._pair_check = PairForces()

    @property
    def max_records(self) -> int:
        """Labels that it keeps: those with the smallest identities. Others need not be observed after a restart."""
        return self._max_records

    @property
    def n_observed(self) -> int:
        """Labels that expectations rest on."""
        return len(self._records)

    def observe(self, frame: Frame, label: Label, prediction: Prediction | None) -> None:
        """Learns from an accepted label; a later prediction of the same label by a newer committee replaces the first.

        A prediction must not come from a committee that was trained on this label: pass None then.
        """
        key = label.label_id
        known = self._records.get(key)
        if known is not None and (prediction is None or prediction.model_version <= known.version):
            return
        if not _is_usable(frame, label):
            return
        if known is None:
            if len(self._ids) >= self._max_records:
                if key >= self._ids[-1]:
                    return
                last = self._ids.pop()
                del self._records[last]
                self._pair_check.forget(last)
            bisect.insort(self._ids, key)
        self._records[key] = _record(frame, label, prediction)
        self._pair_check.observe(frame, label)
        self._energies = None

    def clear(self, label_id: str) -> None:
        """A second label agreed with this one: `review` does not flag it again."""
        self._cleared.add(label_id)

    def forget(self, label_id: str) -> None:
        """Unlearns a label that turned out wrong."""
        if self._records.pop(label_id, None) is not None:
            self._ids.remove(label_id)
            self._energies = None
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
        findings = self._intrinsic(frame, label)
        if prediction is not None and _fits(frame, prediction):
            findings += _gross_errors(frame, label, prediction.forces)
            energies, ratios, forces = self._residuals()
            if len(forces) >= MIN_RESIDUALS:
                findings += self._against(frame, label, prediction, force_bound, (energies, ratios, forces))
                return tuple(findings)
        else:
            findings += self._against_pairs(frame, label)
        findings += self._composition(frame, label)
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
        records = {i: _record(frames[i], labels[i], predictions[i]) for i in usable}
        scales = (
            [r.energy_residual for r in records.values()],
            [r.energy_ratio for r in records.values()],
            [r.force_residual for r in records.values()],
        )
        flagged = []
        for i, (frame, label, prediction) in enumerate(zip(frames, labels, predictions, strict=True)):
            if label.label_id in self._cleared:
                continue
            broken = _broken(frame, label)
            findings = [broken] if broken is not None else self._intrinsic(frame, label)
            if broken is None and prediction is not None and i in records:
                findings += _gross_errors(frame, label, prediction.forces)
                if len(records) >= MIN_RESIDUALS:
                    findings += self._against(frame, label, prediction, None, scales)
            elif broken is None:
                findings += self._against_pairs(frame, label) + self._composition(frame, label)
            if findings:
                flagged.append((i, tuple(findings)))
        return flagged

    def _intrinsic(self, frame: Frame, label: Label) -> list[Finding]:
        """What a label says of itself: limits of the config, and net forces and torques unlike those of its kind."""
        config, n = self._config, frame.n_atoms
        found = []
        net, torque = own_net_force(frame, label), net_torque(frame, label)
        largest = float(np.sqrt(np.square(label.forces).sum(axis=1)).max())
        for check, value, limit, unit in (
            ("net-force", net, config.net_force, "eV/Angstrom"),
            ("torque", torque, config.net_torque, "eV"),
            ("largest-force", largest, config.largest_force, "eV/Angstrom"),
            ("spin", label.diagnostics.spin_excess, config.spin_excess, ""),
        ):
            if value > limit:
                found.append(finding(check, value, limit, f"above the limit, {unit}".rstrip(", "), stands=True))
        if config.gap > 0 and label.diagnostics.gap < config.gap:
            found.append(finding("gap", label.diagnostics.gap, config.gap, "orbital gap below the limit, eV", True))
        for check, value, seen in (
            ("net-force", net / math.sqrt(n), [r.net_force for r in self._records.values() if r.net_force >= 0]),
            ("torque", turning_force(frame, label), [r.turning for r in self._records.values() if r.turning >= 0]),
        ):
            if n > 1 and len(seen) >= MIN_RESIDUALS and check not in {f.check for f in found}:
                limit = max(upper_limit(seen, LEARNED_SCALES), LEARNED_FLOOR)
                if value > limit:
                    found.append(finding(check, value, limit, "eV/Angstrom of rigid motion, far above other labels"))
        return found

    def _composition(self, frame: Frame, label: Label, rival: float = math.inf) -> list[Finding]:
        """Energy against those of the same elements, unless a test with the limit `rival` (eV) is sharper."""
        if self._energies is None:
            self._energies = {}
            for key in self._ids:
                record = self._records[key]
                self._energies.setdefault(record.composition, []).append(record.energy)
        composition = composition_of(frame)
        expected = expected_energy(composition, self._energies, self._config.energy_residual)
        if expected is not None and expected.below < rival:
            difference = label.energy - expected.energy
            limit = expected.above if difference > 0 else expected.below
            if abs(difference) > limit:
                return [finding("energy", difference, limit, "eV from the energy expected of this composition")]
        if frame.n_atoms > 1 and (free := free_atom_sum(composition, self._energies)) is not None:
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
        limit = upper_limit(pairs.past_errors, self._config.force_residual)
        if error > limit:
            found.append(finding("pair-force", error, limit, "eV/Angstrom from a pair potential fitted to others"))
        return found

    def _residuals(self) -> tuple[list[float], list[float], list[float]]:
        """Energy residuals, their ratios to the deviation, and force residuals, of the newest committees."""
        by_version: dict[int, list[_Record]] = {}
        for record in self._records.values():
            if record.version >= 0:
                by_version.setdefault(record.version, []).append(record)
        chosen: list[_Record] = []
        for version in sorted(by_version, reverse=True):
            if len(chosen) >= RESIDUAL_RECORDS:
                break
            chosen += by_version[version]
        return (
            [r.energy_residual for r in chosen],
            [r.energy_ratio for r in chosen],
            [r.force_residual for r in chosen],
        )

    def _against(
        self,
        frame: Frame,
        label: Label,
        prediction: Prediction,
        force_bound: FloatArray | None,
        seen: tuple[Sequence[float], Sequence[float], Sequence[float]],
    ) -> list[Finding]:
        """Residuals against past ones, and against what the committee itself says of its error: both must be off."""
        config, found, n = self._config, [], frame.n_atoms
        record = _record(frame, label, prediction)
        centre = float(np.median(seen[0]))
        value = abs(record.energy_residual - centre)
        limit = max(upper_limit(np.abs(np.array(seen[0]) - centre), config.energy_residual), ENERGY_FLOOR)
        ratio_limit = upper_limit(seen[1], config.energy_residual)
        if value > limit and record.energy_ratio > ratio_limit:
            found.append(finding("residual-energy", value * n, limit * n, "eV from the committee's energy"))
        else:
            found += self._composition(frame, label, rival=limit * n)
        errors = np.sqrt(np.square(label.forces - prediction.forces).sum(axis=1))
        limit = max(upper_limit(seen[2], config.force_residual), FORCE_FLOOR)
        bound = prediction.deviations if force_bound is None else force_bound
        beyond = errors > np.maximum(limit, config.bound_factor * np.nan_to_num(bound, nan=0.0, posinf=np.inf))
        if beyond.any():
            atom = int(np.argmax(np.where(beyond, errors, 0.0)))
            message = f"eV/Angstrom from the committee's force at atom {atom}"
            found.append(finding("residual-force", float(errors[atom]), limit, message))
        return found


def composition_of(frame: Frame) -> Composition:
    """Counts of the elements, charge and multiplicity."""
    numbers, counts = np.unique(frame.numbers, return_counts=True)
    pairs = tuple((int(number), int(count)) for number, count in zip(numbers, counts, strict=True))
    return pairs, frame.charge, frame.multiplicity


def _record(frame: Frame, label: Label, prediction: Prediction | None) -> _Record:
    n = frame.n_atoms
    net, turning = own_net_force(frame, label), turning_force(frame, label)
    shared = (
        composition_of(frame),
        label.energy,
        net / math.sqrt(n) if n > 1 and not math.isnan(net) else -1.0,
        turning if n > 1 and not math.isnan(turning) else -1.0,
    )
    if prediction is None or not _fits(frame, prediction):
        return _Record(*shared, -1, 0.0, 0.0, 0.0)
    residual = (label.energy - prediction.energy) / n
    deviation = max(float(prediction.deviations.mean()), FORCE_FLOOR)
    error = float(np.sqrt(np.square(label.forces - prediction.forces).sum(axis=1)).max())
    return _Record(*shared, prediction.model_version, residual, abs(residual) / deviation, error)


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
    values: Mapping[str, object] = {"energy": label.energy, "forces": label.forces, "stress": label.stress}
    for name, value in values.items():
        if value is not None and not np.isfinite(np.asarray(value, dtype=np.float64)).all():
            return Finding("not-finite", math.nan, math.inf, True, f"{name} is not finite")
    return None


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
