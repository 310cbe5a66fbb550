"""The label gate: every judgement on labels, in one place.

It keeps what labels teach about labels and nothing else, so one thread can own it and no event loop waits for xTB or a
regression. Nothing here is needed after a restart: it learns again from the labels in the store.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from alsys.config.labeling import QualityConfig
from alsys.frames import Frame
from alsys.labeling.gate.checks import LabelChecks
from alsys.labeling.gate.figures import Judged
from alsys.labeling.gate.findings import Finding, Verdict, agree, settle, slope_finding
from alsys.labeling.gate.reference_frames import compare_reference
from alsys.labeling.gate.xtb_check import XTBCheck
from alsys.labels import Label, Prediction
from alsys.potentials.calibration import Band


class LabelGate:
    """Examines labels before they become data. See `alsys.control.ports.LabelGate`.

    Args:
        config: Limits.
        reference_frame: What labelers are checked with; None where they are not.
        xtb_check: Forces by another method, for the first labels.
    """

    def __init__(self, config: QualityConfig, reference_frame: Frame | None, xtb_check: XTBCheck | None = None) -> None:
        self.reference_frame = reference_frame
        self._config = config
        self._checks = LabelChecks(config, xtb_check)

    @property
    def n_learned(self) -> int:
        """Labels that matter after a restart: the accepted ones with the smallest identities."""
        return self._checks.max_records

    def learn(self, frame: Frame, label: Label, prediction: Prediction | None = None) -> None:
        """A label is data."""
        self._checks.observe(frame, label, prediction)

    def forget(self, label_id: str) -> None:
        """A label is no longer data: nothing is expected because of it."""
        self._checks.forget(label_id)

    def judge(self, labelled: Sequence[Judged], band: Band | None) -> list[tuple[Finding, ...]]:
        """What is odd about each of the labels of a call; where nothing is, it is data and learned from.

        Args:
            labelled: Frames, labels, and what a committee expects, None where none has said so.
            band: Calibrated band of that committee.
        """
        return self._checks.judge(labelled, band)

    def verify(
        self,
        frame: Frame,
        tight: Label,
        first: Label | None,
        findings: Sequence[Finding],
        prediction: Prediction | None,
    ) -> tuple[Label | None, tuple[Finding, ...], float]:
        """Judges a label that failed the gate by its frame's label at tighter settings; one that is data is learned.

        Args:
            frame: What was labelled.
            tight: Its label at tighter settings.
            first: The label that failed; None where it is not known any more.
            findings: What was odd about it.
            prediction: What a committee expects of it.

        Returns:
            The label that is data, or None; what speaks against any label of the frame, one that repeats the first
            included; and the largest difference of force components, eV/Angstrom (NaN where there is no first label).
        """
        lasting = tuple(f for f in self._checks.examine(frame, tight) if f.is_fatal or f.stands)
        if first is None:
            return None, lasting, float("nan")
        difference = float(np.abs(first.forces - tight.forces).max())
        if lasting:
            return None, lasting, difference
        if settle(self._config, frame, first, findings, tight) is not Verdict.KEEP:
            return None, (), difference
        against = self._checks.against_repetition(frame, tight, prediction)
        if against:
            return None, against, difference
        self._checks.clear(first.label_id)
        self.learn(frame, first, prediction)
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
        against = None if math.isnan(tight.slope) else self._checks.against_repetition(frame, tight, None)
        if against:
            return "; ".join(finding.message for finding in against), largest, mean
        self._checks.clear(label.label_id)
        return "", largest, mean

    def judge_reference(self, reference: Label | None, label: Label) -> str:
        """What is wrong with a labeler's label of the reference frame, in one line; empty where nothing is.

        Args:
            reference: The first sound one of the campaign; None for that one itself.
            label: The labeler's.
        """
        if reference is not None:
            found = compare_reference(reference, label)
        else:  # limits are for data, and this is none: only a broken label speaks against it
            assert self.reference_frame is not None
            findings = self._checks.examine(self.reference_frame, label)
            found = next((finding for finding in findings if finding.is_fatal), None) or slope_finding(label)
        return "" if found is None else found.message

    def review(self, labelled: Iterable[tuple[Frame, Label, Prediction]]) -> dict[str, tuple[Finding, ...]]:
        """Labels that are data and look wrong to a newer committee, by frame."""
        rows = list(labelled)
        flagged = self._checks.review([f for f, _, _ in rows], [x for _, x, _ in rows], [p for _, _, p in rows])
        return {rows[i][0].frame_id: findings for i, findings in flagged}
