"""From a config section to a labeler."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from alsys.config.labeling import AnalyticLabeling, LabelingConfig, PySCFLabeling
from alsys.errors import InputError
from alsys.frames import Frame
from alsys.labeling.base import Labeler
from alsys.labeling.station import LabelStation
from alsys.labeling.tight import tightened


def build_labeler(config: LabelingConfig) -> Labeler:
    """The labeler of a config; imports only what it needs."""
    if isinstance(config, PySCFLabeling):
        from alsys.labeling.pyscf import PySCFLabeler

        return PySCFLabeler(config)
    if isinstance(config, AnalyticLabeling):
        from alsys.labeling.analytic import AnalyticLabeler

        return AnalyticLabeler(config)
    from alsys.labeling.xtb import XTBLabeler

    return XTBLabeler(config)


def build_station(config: LabelingConfig) -> LabelStation:
    """What a labeling worker runs: the labeler, and one at tighter settings for what must be verified."""
    return LabelStation(build_labeler(config), partial(build_labeler, tightened(config)))


def check_labeling(config: LabelingConfig, systems: Mapping[str, Frame]) -> None:
    """Refuses systems that the labeler cannot treat.

    Raises:
        InputError: Names the system or the field of the labeling section.
    """
    labeler = build_labeler(config)
    try:
        for i, frame in enumerate(systems.values()):
            try:
                labeler.check(frame)
            except InputError as error:
                prefix = "" if error.field and error.field.startswith("labeling.") else f"systems[{i}]."
                raise InputError(
                    error.message, field=f"{prefix}{error.field}", value=error.value, remedy=error.remedy
                ) from None
    finally:
        labeler.close()
