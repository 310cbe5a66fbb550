"""From a config section to a labeler."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path

from alsys.config.engines import (
    ANILabeling,
    ASELabeling,
    LabelingConfig,
    PeriodicLabeling,
    PluginLabeling,
    SkalaLabeling,
)
from alsys.config.labeling import AnalyticLabeling, LabelingBase, PySCFLabeling, XTBLabeling
from alsys.errors import InputError
from alsys.frames import Frame
from alsys.labeling.base import Labeler
from alsys.labeling.tight import tightened
from alsys.labeling.worker import LabelingWorker
from alsys.plugins import LABELERS


def build_labeler(config: LabelingConfig, *, needs_baseline: bool = False, densities: Path | None = None) -> Labeler:
    """The labeler of a config, with its baseline where it has one; imports only what it needs.

    Args:
        config: The section `labeling`.
        needs_baseline: Whether a label without a baseline is worth nothing (`training.delta`).
        densities: Folder where labelers share converged densities; None to share none.

    Raises:
        InputError: The baseline is of the level of the labels; or an engine of another package that is not installed,
            or whose settings are wrong.
    """
    labeler = _build(config, densities)
    if config.baseline is None:
        return labeler
    from alsys.labeling.baseline import BaselineLabeler, baseline_labeling

    return BaselineLabeler(labeler, _build(baseline_labeling(config.baseline, config)), is_needed=needs_baseline)


def _build(config: LabelingConfig, densities: Path | None = None) -> Labeler:
    if isinstance(config, PySCFLabeling):
        from alsys.labeling.pyscf import PySCFLabeler

        return PySCFLabeler(config, densities)
    if isinstance(config, AnalyticLabeling):
        from alsys.labeling.analytic import AnalyticLabeler

        return AnalyticLabeler(config)
    from alsys.labeling.engine import EngineLabeler

    if isinstance(config, PluginLabeling):
        engine, settings = LABELERS.chosen(config)
        return EngineLabeler(engine, settings, config, config.threads)
    module, name = _ENGINES[type(config)].split(":")
    return EngineLabeler(getattr(import_module(module), name), config, config, getattr(config, "threads", 1))


_ENGINES: Mapping[type[LabelingBase], str] = {
    ANILabeling: "alsys.labeling.ani:ANIEngine",
    ASELabeling: "alsys.labeling.ase:ASEEngine",
    PeriodicLabeling: "alsys.labeling.periodic:PeriodicEngine",
    SkalaLabeling: "alsys.labeling.skala:SkalaEngine",
    XTBLabeling: "alsys.labeling.xtb:XTBEngine",
}


def build_worker(
    config: LabelingConfig, *, needs_baseline: bool = False, densities: Path | None = None
) -> LabelingWorker:
    """What a labeling worker runs: the labeler, and one at tighter settings for what must be verified.

    Converged densities are shared through the folder `densities`; the tighter labeler begins from nothing.
    """
    tight = tightened(config).model_copy(update={"baseline": None})
    return LabelingWorker(
        build_labeler(config, needs_baseline=needs_baseline, densities=densities), partial(build_labeler, tight)
    )


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
