"""Labels with a baseline beside them: two levels of theory of one frame, computed by one worker.

The baseline's values are stored at their own level, so that a trainer can learn the difference. Where models are
trained on it (`training.delta`), a label without a baseline is of no use: the baseline comes first, and a frame on
which it fails costs no expensive label. Otherwise a failed baseline is flagged by its absence, and the label is kept.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from alsys.config.engines import LabelingConfig
from alsys.config.labeling import BaselineConfig, PySCFBaseline, PySCFLabeling, XTBLabeling
from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.labeling.base import HessianLabeler, Labeler
from alsys.labels import Label, LabelFailure, LevelOfTheory
from alsys.potentials.xtb import XTBMethod

logger = logging.getLogger(__name__)


class BaselineLabeler:
    """Labels at one level and computes a baseline at another.

    Args:
        labeler: Makes the labels.
        baseline: Computes the baseline.
        is_needed: Whether a label without a baseline is worth nothing.

    Raises:
        InputError: Both are of one level.
    """

    def __init__(self, labeler: Labeler, baseline: Labeler, *, is_needed: bool) -> None:
        if labeler.level.level_id == baseline.level.level_id:
            raise InputError(
                "is the level of the labels themselves",
                field="labeling.baseline",
                value=dict(baseline.level.spec),
                remedy="name a cheaper method, or leave it out",
            )
        self._labeler = labeler
        self._baseline = baseline
        self._is_needed = is_needed

    @property
    def level(self) -> LevelOfTheory:
        """The level of the labels."""
        return self._labeler.level

    @property
    def baseline_level(self) -> LevelOfTheory:
        """The level of the baseline."""
        return self._baseline.level

    def check(self, frame: Frame) -> None:
        """Refuses what either level cannot treat."""
        self._labeler.check(frame)
        self._baseline.check(frame)

    def label(self, frame: Frame) -> Label | LabelFailure:
        """A label that carries its baseline; the time that the baseline took is in the baseline's own cost."""
        if self._is_needed:
            baseline = self._baseline.label(frame)
            if isinstance(baseline, LabelFailure):
                return replace(baseline, message=f"baseline: {baseline.message}")
            label = self._labeler.label(frame)
            return replace(label, baseline=baseline) if isinstance(label, Label) else label
        label = self._labeler.label(frame)
        if isinstance(label, LabelFailure):
            return label
        baseline = self._baseline.label(frame)
        if isinstance(baseline, LabelFailure):
            logger.warning("frame %s has no baseline: %s: %s", frame.frame_id[:8], baseline.kind, baseline.message)
            return label
        return replace(label, baseline=baseline)

    def hessian(self, frame: Frame) -> FloatArray | LabelFailure | None:
        """Second derivatives at the level of the labels, where their labeler has its own."""
        return self._labeler.hessian(frame) if isinstance(self._labeler, HessianLabeler) else None

    def close(self) -> None:
        """Ends both."""
        self._labeler.close()
        self._baseline.close()


def baseline_labeling(baseline: BaselineConfig, labeling: LabelingConfig) -> LabelingConfig:
    """The labeling section that computes a baseline, within the limits of the labels'."""
    limits = {"timeout_s": labeling.timeout_s, "memory_mb": labeling.memory_mb}
    if isinstance(baseline, PySCFBaseline):
        threads = getattr(labeling, "threads", 1)
        return PySCFLabeling.model_validate({**baseline.model_dump(), **limits, "threads": threads})
    method = XTBMethod.of(baseline)
    settings = {"method": method.name, "accuracy": method.accuracy, "max_cycles": method.max_cycles}
    return XTBLabeling.model_validate({"kind": "xtb", **settings, **limits})


def baseline_level(labeler: Labeler) -> LevelOfTheory | None:
    """The level of a labeler's baseline; None where it has none."""
    level = getattr(labeler, "baseline_level", None)
    return level if isinstance(level, LevelOfTheory) else None
