"""How configurations are explored, and what of the committee is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from alsys.config.accelerations import ACCELERATE, Accelerate
from alsys.config.carving import CarveConfig
from alsys.config.exploration_methods import ExplorationMethod, PluginMethod, UDDMethod
from alsys.config.groups import ExplorerGroup, Grouped, GroupName
from alsys.config.models import EquivariantModel as EquivariantModel
from alsys.config.models import ModelConfig as ModelConfig
from alsys.config.models import NequIPModel as NequIPModel
from alsys.config.models import NetworkModel as NetworkModel
from alsys.config.models import PairModel as PairModel
from alsys.config.models import PluginModel as PluginModel
from alsys.config.section import DEVICE, GPUS, RAY_MEMORY, Device, Resources, Section, operational


class CalibratedTrust(Section):
    """Trust by force error: which deviation belongs to the error that is tolerated is learned from labels."""

    kind: Literal["calibrated"]
    tolerated_error: float = Field(
        0.15, gt=0, description="Force error of an atom that is tolerated, eV/Angstrom; beyond it: a candidate."
    )
    failed_error: float = Field(1.0, gt=0, description="Force error of an atom that ends the walk, eV/Angstrom.")
    probability: float = Field(
        0.9, ge=0.5, le=0.99, description="Share of atoms whose error is to stay below what calibration says."
    )

    @model_validator(mode="after")
    def _ordered(self) -> CalibratedTrust:
        if self.failed_error <= self.tolerated_error:
            raise ValueError("failed_error must be larger than tolerated_error")
        return self


class FixedTrust(Section):
    """Trust by force deviation of the committee: below is known, between is a candidate, above ends the walk."""

    kind: Literal["fixed"]
    accurate_below: float = Field(0.10, gt=0, description="eV/Angstrom.")
    failed_above: float = Field(0.60, gt=0, description="eV/Angstrom.")

    @model_validator(mode="after")
    def _ordered(self) -> FixedTrust:
        if self.failed_above <= self.accurate_below:
            raise ValueError("failed_above must be larger than accurate_below")
        return self


TrustConfig = Annotated[CalibratedTrust | FixedTrust, Field(discriminator="kind")]


def _named_trust(value: object) -> object:
    """Campaigns from before calibration give edges and no kind."""
    if isinstance(value, Mapping) and "kind" not in value:
        is_calibrated = not value or set(value) & set(CalibratedTrust.model_fields)
        return {"kind": "calibrated" if is_calibrated else "fixed", **value}
    return value


class TargetEnsemble(Section):
    """What a model is for: the random arm is taken from long walks in this ensemble, so stated errors are of it.

    Training frames are of energies that it reaches, as long as there are any.
    """

    temperature: float = Field(gt=0, le=20_000, description="Of the thermostat.")
    decorrelation: float = Field(
        500.0,
        gt=0,
        description="Time that a walk must have gone on since it began at a labelled frame, and since the last frame "
        "that was taken of it, before one is taken.",
    )
    share: float = Field(0.34, gt=0, lt=1, description="Share of each system's walkers, at least one.")


class MultipleTimeStep(Section):
    """Dynamics on two time steps: a small network moves walkers, committee and baseline correct it every few steps.

    With each committee one NequIP model of the sizes named here, with the committee's cutoffs, learns whole labels;
    where the committee is of pairs, so is it.
    """

    outer_steps: int = operational(
        4, ge=2, le=16, description="Steps between two evaluations of committee and baseline: 2 fs in all are safe."
    )
    num_layers: int = operational(2, ge=1, le=8)
    l_max: int = operational(1, ge=0, le=6)
    num_features: int = operational(16, ge=1, le=512, description="Features of each order.")
    compile: bool = operational(
        True, description="Compile the small network, as `exploration.compile` does the committee."
    )
    share: float = operational(0.25, gt=0, lt=1, description="Part of a fit's CPU seconds for the small network.")


class ExplorationConfig(Grouped):
    """Molecular dynamics of many walkers under the committee's mean force."""

    workers: int = operational(1, ge=1, le=4096, description="Explorers.")
    groups: dict[GroupName, ExplorerGroup] = operational(
        {}, description="Further explorers with resources of their own, as `{gpu: {workers: 1, gpus: 1}}`."
    )
    cpus: float = operational(1.0, gt=0, le=4096, description="Ray CPUs of one explorer.")
    resources: Resources = operational({}, description="Custom Ray resources, for example `{labeler: 1}`.")
    ray_memory_mb: int | None = operational(None, ge=64, description=RAY_MEMORY)
    threads: int = operational(1, ge=1, le=256)
    device: Device = operational("auto", description=DEVICE)
    gpus: float = operational(0.0, ge=0, le=16, description=GPUS)
    accelerate: Accelerate = operational("none", description=ACCELERATE)
    compile: bool = operational(
        False,
        description="Compile NequIP once for an architecture (needs a C++ compiler; a minute, kept in the user's cache "
        "folder): two to eight times as many steps. For molecules; periodic systems stay eager.",
    )
    walkers: int = Field(8, ge=1, le=100_000, description="Walkers of one explorer.")
    temperatures: tuple[Annotated[float, Field(gt=0, le=20_000)], ...] = Field(
        (300.0,), min_length=1, description="Thermostats; walkers are spread over them."
    )
    timestep: float = Field(0.5, gt=0, le=20)
    multiple_time_step: MultipleTimeStep | None = operational(
        None,
        description="`{}`: a small network moves walkers at each step, committee and baseline correct it every fourth. "
        "Needs `training.delta`. Default: the committee at each step.",
    )
    hydrogen_mass: float | None = operational(
        None,
        gt=1.008,
        le=4,
        description="Mass of bonded hydrogen in dynamics, amu, taken from the atom it is bonded to; 3 allows twice the "
        "time step. What is visited does not change. Default: its own.",
    )
    methods: tuple[ExplorationMethod, ...] = Field(
        (), description="How configurations are explored; a bandit shares out the walkers. Default: plain dynamics."
    )
    method_floor: float = operational(
        0.3, ge=0, le=1, description="Least share of walkers of a method, as a fraction of an equal share."
    )
    thermostat: Literal["langevin", "nose-hoover", "none"] = Field(
        "langevin", description="`nose-hoover`: deterministic chains; `none`: constant energy."
    )
    friction: float = Field(0.01, gt=0, le=1, description="Langevin friction, 1/fs.")
    relaxation: float = Field(50.0, gt=0, description="Relaxation time of Nose-Hoover chains.")
    pressure: float | tuple[tuple[float, float], ...] | None = Field(
        None,
        description="Pressure of periodic systems, bar, or a ramp as pairs (ps, bar); default is constant volume. "
        "Needs a NequIP model.",
    )
    pressure_relaxation: float = Field(1000.0, gt=0, description="Relaxation time of the barostat.")
    compressibility: float = Field(4.6e-5, gt=0, description="Compressibility that the barostat assumes, 1/bar.")
    uncertainty: Literal["committee", "last-layer", "latent-distance"] = Field(
        "committee",
        description="What judges atoms: spread of the members, last-layer prediction rigidity (LLPR), or distance to "
        "what was trained on. The last two need trust.kind calibrated and a NequIP model.",
    )
    uncertainty_every: int = operational(
        1, ge=1, le=100, description="Look at all members every so many steps; between, the first member moves walkers."
    )
    reactive: bool = Field(False, description="Bonds may break and form; else a walk ends where one does.")
    carve: CarveConfig | None = Field(
        None, description="Label the neighbourhood of one atom instead of a periodic or large frame."
    )
    max_rewinds: int = operational(
        3, ge=0, description="How often a walk that failed goes on from its last trusted frame before it begins anew."
    )
    chunk_steps: int = operational(50, ge=1, le=1_000_000, description="Steps between reports.")
    max_steps: int = Field(20_000, ge=1, description="Steps before a quiet walker is restarted elsewhere.")
    spacing_steps: int = Field(20, ge=1, description="Least steps between two candidates of one walker.")
    trust: Annotated[TrustConfig, BeforeValidator(_named_trust)] = CalibratedTrust(kind="calibrated")
    min_distance: float = Field(0.6, gt=0, le=1, description="Closest contact allowed, as a share of the covalent sum.")
    max_temperature_ratio: float = Field(
        5.0, gt=1, description="Kinetic over thermostat temperature that ends a walk, unless chance does so much."
    )

    @model_validator(mode="after")
    def _sees_spread(self) -> ExplorationConfig:
        if self.uncertainty_every > 1 and any(isinstance(method, UDDMethod) for method in self.methods):
            raise ValueError("uncertainty_every must be 1 with the method udd, which needs all members at every step")
        if self.uncertainty_every > self.spacing_steps:
            raise ValueError("uncertainty_every must not be larger than spacing_steps")
        if self.pressure is not None and self.pressure_relaxation < 100.0 * self.timestep:
            raise ValueError("pressure_relaxation must be at least 100 time steps; 1000 fs are usual")
        if self.multiple_time_step is not None and self.uncertainty_every > 1:
            raise ValueError("uncertainty_every must be 1 with multiple_time_step, which looks at outer steps only")
        if self.multiple_time_step is not None and self.pressure is not None:
            raise ValueError("multiple_time_step is for constant volume: the barostat needs a stress at each step")
        if self.uncertainty != "committee" and not isinstance(self.trust, CalibratedTrust):
            raise ValueError(f"uncertainty {self.uncertainty} has no unit, so trust.kind must be calibrated")
        return self

    @property
    def steps_per_look(self) -> int:
        """Steps from one evaluation of the committee to the next."""
        return 1 if self.multiple_time_step is None else self.multiple_time_step.outer_steps

    @property
    def method_names(self) -> tuple[str, ...]:
        """Names of the methods: their kinds, or names of plug-ins, numbered where one is there more than once."""
        kinds = [m.name if isinstance(m, PluginMethod) else m.kind for m in self.methods] or ["plain"]
        return tuple(
            kind if kinds.count(kind) == 1 else f"{kind}-{kinds[: i + 1].count(kind)}" for i, kind in enumerate(kinds)
        )
