"""What the coordinator keeps in memory to judge labels: the gate, what committees predicted, labels under suspicion.

Predictions come with candidates and go when the frame has been judged; both memories are bounded. Nothing here is
needed after a restart: the gate learns again from the labels in the store, a suspect is labelled afresh, and a frame
whose prediction was lost is judged without one.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping

import numpy as np

from alsys.config.labeling import QualityConfig
from alsys.control.state.audits import Canary
from alsys.frames import Frame
from alsys.labeling.canaries import judge_canary
from alsys.labeling.quality import Finding, QualityGate, Verdict, agree, settle, slope_finding
from alsys.labeling.witness import Witness
from alsys.labels import Label, LevelOfTheory, Prediction
from alsys.potentials.calibration import Band

MAX_PREDICTIONS = 8192


class Inspector:
    """Examines labels before they become data.

    Args:
        config: Limits of the quality gate.
        canary: What labelers are checked with; None where they are not.
        level: The campaign's level of theory.
        witness: Forces by another method, for the first labels.
    """

    def __init__(
        self, config: QualityConfig, canary: Frame | None, level: LevelOfTheory, witness: Witness | None = None
    ) -> None:
        self.canary = canary
        self._config = config
        self._gate = QualityGate(config, witness)
        self._level = level
        self._predictions: OrderedDict[str, Prediction] = OrderedDict()
        self._suspects: dict[str, tuple[Label, tuple[Finding, ...]]] = {}

    @property
    def n_learned(self) -> int:
        """Labels that matter after a restart: the accepted ones with the smallest identities."""
        return self._gate.max_records

    def learn(self, labelled: Iterable[tuple[Frame, Label]]) -> None:
        """Labels that were data before a restart."""
        for frame, label in labelled:
            self._gate.observe(frame, label, None)

    def expect(self, predictions: Mapping[str, Prediction]) -> None:
        """What a committee predicts for frames that wait for their label; the newest prediction counts."""
        for frame_id, prediction in predictions.items():
            self._predictions[frame_id] = prediction
            self._predictions.move_to_end(frame_id)
        while len(self._predictions) > MAX_PREDICTIONS:
            self._predictions.popitem(last=False)

    def forget(self, frame_id: str) -> None:
        """A frame will not be labelled."""
        self._predictions.pop(frame_id, None)
        self._suspects.pop(frame_id, None)

    def retract(self, label_id: str) -> None:
        """A label is no longer data: nothing is expected because of it."""
        self._gate.forget(label_id)

    def examine(self, frame: Frame, label: Label, band: Band | None) -> tuple[Finding, ...]:
        """What is wrong with a label; empty where nothing is."""
        prediction = self._predictions.get(frame.frame_id)
        bound = None if prediction is None or band is None else band.error(prediction.deviations)
        return self._gate.examine(frame, label, prediction, bound)

    def accept(self, frame: Frame, label: Label) -> None:
        """A label is data."""
        self._gate.observe(frame, label, self._predictions.pop(frame.frame_id, None))
        self._suspects.pop(frame.frame_id, None)

    def suspect(self, label: Label, findings: tuple[Finding, ...]) -> None:
        """Keeps a label until its frame was labelled at tighter settings."""
        self._suspects[label.frame_id] = (label, findings)

    def verify(self, frame: Frame, tight: Label) -> tuple[Label | None, tuple[Finding, ...], float]:
        """Judges a suspect by its frame's label at tighter settings.

        Returns:
            The label that is data, or None; what speaks against any label of the frame, one that repeats the first
            included; and the largest difference of force
            components, eV/Angstrom (NaN where the first label is not known any more).
        """
        first, findings = self._suspects.pop(frame.frame_id, (None, ()))
        lasting = tuple(f for f in self._gate.examine(frame, tight, None, None) if f.is_fatal or f.stands)
        if first is None:
            return None, lasting, float("nan")
        difference = largest_difference(first, tight)
        if lasting:
            return None, lasting, difference
        if settle(self._config, frame, first, findings, tight) is not Verdict.KEEP:
            return None, (), difference
        against = self._gate.against_repetition(frame, tight, self._predictions.get(frame.frame_id))
        if against:
            return None, against, difference
        self._gate.clear(first.label_id)
        return first, (), difference

    def audit(self, frame: Frame, label: Label, tight: Label) -> tuple[str, float, float]:
        """What speaks against a label that was made again at tighter settings, empty for nothing.

        Returns:
            That, and the largest and mean difference of force components, eV/Angstrom.
        """
        difference = np.abs(label.forces - tight.forces)
        largest, mean = float(difference.max()), float(difference.mean())
        if not agree(label, tight, self._config.agreement):
            return f"forces differ by {largest:.3f} eV/Angstrom", largest, mean
        against = None if math.isnan(tight.slope) else self._gate.against_repetition(frame, tight, None)
        if against:
            return "; ".join(finding.message for finding in against), largest, mean
        self._gate.clear(label.label_id)
        return "", largest, mean

    def judge_canary(self, reference: Canary | None, label: Label) -> Finding | None:
        """What is wrong with a labeler's canary; None where nothing is."""
        assert self.canary is not None
        if reference is None:  # limits are for data, and the canary is none: only a broken label speaks against it
            findings = self._gate.examine(self.canary, label, None, None)
            return next((finding for finding in findings if finding.is_fatal), None) or slope_finding(label)
        forces = np.array(reference.forces).reshape(-1, 3)
        known = Label(self.canary.frame_id, self._level.level_id, reference.energy, forces)
        return judge_canary(known, label)

    def review(self, labelled: Iterable[tuple[Frame, Label, Prediction]]) -> dict[str, tuple[Finding, ...]]:
        """Labels that are data and look wrong to a newer committee, by frame."""
        rows = list(labelled)
        suspects = self._gate.review([f for f, _, _ in rows], [x for _, x, _ in rows], [p for _, _, p in rows])
        return {rows[i][0].frame_id: findings for i, findings in suspects}


def largest_difference(first: Label, second: Label) -> float:
    """Of force components, eV/Angstrom."""
    return float(np.abs(first.forces - second.forces).max())
