"""Settings that do nothing because of another one: `labeling.two_grids` without density fitting.

Only what somebody has set is looked at, and only where it would switch something on. The plan names it, with what it
needs; it is not refused, since one file serves for several campaigns (`--set selection.strategy=random`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from alsys.config.exploration import CalibratedTrust
from alsys.config.exploration_methods import MetadynamicsMethod
from alsys.config.labeling import COARSE_GRID, AnalyticLabeling, PySCFLabeling, XTBLabeling
from alsys.config.models import EquivariantModel, PairModel
from alsys.config.schema import CampaignConfig

OFF: Final[tuple[object, ...]] = (None, False, 0, "auto", "none", (), {})
"""Values that switch nothing on."""
GRADIENT_DESCENT: Final = (
    "max_epochs", "max_gradient_steps", "batch_size", "learning_rate", "decay_share", "new_share", "renew_every",
    "compile", "ema",
)  # fmt: skip
"""Fields of `training` that a fit by least squares has no use for."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What fields of a section need.

    Attributes:
        section: Its dotted path.
        fields: Their names; none for all.
        is_met: Whether they have an effect.
        needs: What is missing.
        is_switch: The section as a whole is switched off; its defaults may be written out.
    """

    section: str
    fields: tuple[str, ...]
    is_met: bool
    needs: str
    is_switch: bool = False


@dataclass(frozen=True, slots=True)
class Unused:
    """A setting without effect.

    Attributes:
        field: Its dotted path.
        value: Its value.
        needs: What is missing for it.
    """

    field: str
    value: Any
    needs: str


def unused(config: CampaignConfig) -> Iterator[Unused]:
    """All settings without effect."""
    for condition in _conditions(config):
        section = _at(config, condition.section)
        if condition.is_met or not isinstance(section, BaseModel):
            continue
        for name, info in type(section).model_fields.items():
            value = getattr(section, name)
            is_asked = name in section.model_fields_set and name in (condition.fields or (name,))
            if is_asked and value not in OFF and not (condition.is_switch and value == info.default):
                yield Unused(f"{condition.section}.{name}", value, condition.needs)


def _at(config: CampaignConfig, path: str) -> Any:
    """What stands at a dotted path; None where there is nothing."""
    node: Any = config
    for name, number in re.findall(r"([a-z_][a-z0-9_]*)|\[(\d+)\]", path):
        if name:
            node = node.get(name) if isinstance(node, Mapping) else getattr(node, name, None)
        else:
            node = node[int(number)] if isinstance(node, tuple) and int(number) < len(node) else None
    return node


def _conditions(config: CampaignConfig) -> Iterator[Condition]:
    yield from _of_labels(config)
    yield from _of_training(config)
    yield from _of_exploration(config)
    initial, selection, stop = config.initial, config.selection, config.stop
    is_rattled = initial.method == "rattle" or isinstance(config.labeling, AnalyticLabeling)
    others = "normal-modes or xtb-md" + ("" if initial.method == "rattle" else ", and labels that are not analytic")
    yield Condition("initial", ("temperature",), not is_rattled, f"initial.method: {others}")
    yield Condition("initial", ("stdev",), is_rattled, "initial.method: rattle")
    is_uncertain = selection.strategy == "uncertainty"
    yield Condition("selection", ("diversity", "cost_aware"), is_uncertain, "selection.strategy: uncertainty")
    yield Condition(
        "selection",
        ("near_duplicate",),
        is_uncertain and selection.diversity != "none",
        "selection.strategy: uncertainty and a selection.diversity",
    )
    has_target = stop.target_force_mae is not None or stop.target_blind_spots is not None
    yield Condition(
        "stop", ("versions_in_a_row", "min_random"), has_target, "stop.target_force_mae or stop.target_blind_spots"
    )
    is_elastic = any(part.min_workers not in (None, part.workers) for _, part in config.labeling.parts())
    yield Condition("labeling", ("idle_s",), is_elastic, "labeling.min_workers below labeling.workers")
    own = ("num_cpus", "metrics_port")
    yield Condition("runtime", own, config.runtime.address is None, "a Ray of its own: no runtime.address")
    yield Condition(
        "runtime",
        ("ship_code", "allow_unauthenticated"),
        config.runtime.address is not None,
        "a cluster: runtime.address",
    )
    yield from _of_switches(config)


def _of_labels(config: CampaignConfig) -> Iterator[Condition]:
    labeling = config.labeling
    uses_gpus = not isinstance(labeling, (XTBLabeling, AnalyticLabeling))
    for section in ("labeling", *(f"labeling.groups.{name}" for name in labeling.groups)):
        yield Condition(section, ("gpus",), uses_gpus, "a labeling.kind that computes on GPUs, as pyscf does")
    if isinstance(labeling, PySCFLabeling):
        is_dft = labeling.method == "dft"
        yield Condition("labeling", ("grid_level",), is_dft, "labeling.method: dft")
        yield Condition(
            "labeling",
            ("two_grids",),
            is_dft and labeling.density_fit and labeling.grid_level > COARSE_GRID and labeling.device != "gpu",
            f"labeling.method: dft with density_fit, a grid_level above {COARSE_GRID}, and a CPU",
        )
        yield Condition(
            "labeling",
            ("gpu_memory_mb",),
            labeling.gpus > 0 and labeling.device != "cpu",
            "labeling.gpus and a labeling.device other than cpu",
        )


def _of_training(config: CampaignConfig) -> Iterator[Condition]:
    training = config.training
    yield Condition("training", GRADIENT_DESCENT, not isinstance(config.model, PairModel), "model.kind: nequip")
    if hasattr(config.labeling, "hessians"):
        yield Condition(
            "labeling", ("hessians",), not isinstance(config.model, PairModel), "model.kind: nequip, to learn"
        )
    yield Condition("training", ("huber_delta",), training.loss == "huber", "training.loss: huber")
    yield Condition("training", ("max_ahead", "train_on"), config.mode == "async", "mode: async")
    yield Condition(
        "promotion",
        ("coverage_tolerance",),
        isinstance(config.exploration.trust, CalibratedTrust),
        "exploration.trust.kind: calibrated",
    )


def _of_exploration(config: CampaignConfig) -> Iterator[Condition]:
    exploration = config.exploration
    is_equivariant = isinstance(config.model, EquivariantModel)
    yield Condition("exploration", ("compile",), is_equivariant, "model.kind: nequip or allegro")
    for section, part in (("exploration", exploration), ("training", config.training)):
        has_kernels = part.accelerate not in ("none", "auto")
        yield Condition(section, ("compile",), not has_kernels, f"{section}.accelerate: none; kernels take its place")
    for section in ("exploration", "training"):
        yield Condition(section, ("device", "gpus", "accelerate"), is_equivariant, "model.kind: nequip or allegro")
    yield Condition(
        "exploration", ("relaxation",), exploration.thermostat == "nose-hoover", "exploration.thermostat: nose-hoover"
    )
    yield Condition(
        "exploration",
        ("pressure_relaxation", "compressibility"),
        exploration.pressure is not None,
        "exploration.pressure",
    )
    yield Condition("exploration", ("method_floor",), len(exploration.methods) > 1, "several exploration.methods")
    for i, method in enumerate(exploration.methods):
        if isinstance(method, MetadynamicsMethod):
            place = f"exploration.methods[{i}]"
            yield Condition(place, ("torsion_width",), method.torsions != (), f"{place}.torsions")
            yield Condition(place, ("distance_width", "max_distance"), bool(method.distances), f"{place}.distances")


def _of_switches(config: CampaignConfig) -> Iterator[Condition]:
    for section, is_on, needs in (
        ("tracking", config.tracking.enabled, "tracking.enabled"),
        ("promotion", config.promotion.examine, "promotion.examine"),
        ("labeling.quality", config.labeling.quality.enabled, "labeling.quality.enabled"),
    ):
        yield Condition(section, (), is_on, needs, is_switch=True)
    on_ray = config.runtime.kind == "ray"
    for section in ("labeling", "exploration", "training"):
        gpus = () if section == "labeling" else ("gpus",)  # a labeler in this process computes on one where it is set
        elastic = ("min_workers", "idle_s") if section == "labeling" else ()
        asked = ("cpus", "resources", "ray_memory_mb", *gpus, *elastic)
        groups = getattr(getattr(config, section), "groups", {})
        for place in (section, *(f"{section}.groups.{group}" for group in groups)):
            yield Condition(place, asked, on_ray, "runtime.kind: ray", is_switch=True)
    fields = (
        "address",
        "metrics_port",
        "num_cpus",
        "ray_start_timeout_s",
        "ray_timeout_s",
        "worker_start_timeout_s",
        "stopped_timeout_s",
    )
    yield Condition("runtime", fields, on_ray, "runtime.kind: ray", is_switch=True)
