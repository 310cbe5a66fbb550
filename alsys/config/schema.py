"""The campaign file, field by field. Importable without torch, ray or pyscf.

Units are eV, Angstrom, fs and K unless the name says otherwise. Every field is either *science* (it decides what the
data and models mean; frozen once a campaign has started) or *operational* (workers, limits, stop criteria, addresses;
may change at a restart), marked below with `operational()`. No key names code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from alsys.config.carving import CarveConfig
from alsys.config.engines import LabelingConfig
from alsys.config.exploration_methods import ExplorationMethod, PluginMethod, UDDMethod
from alsys.config.labeling import PySCFBaseline, PySCFLabeling
from alsys.config.loss import LossSettings
from alsys.config.models import EquivariantModel as EquivariantModel
from alsys.config.models import ModelConfig as ModelConfig
from alsys.config.models import NequIPModel as NequIPModel
from alsys.config.models import NetworkModel as NetworkModel
from alsys.config.models import PairModel as PairModel
from alsys.config.models import PluginModel as PluginModel
from alsys.config.promotion import EXAM_SHARE, PromotionConfig
from alsys.config.section import Name, Resources, Section, as_plugin, operational
from alsys.config.start import StartConfig, TeacherStart
from alsys.config.systems import SystemConfig
from alsys.config.validation import ValidationConfig
from alsys.frames import Arm

PLACED = "placed"
"""Type of a problem whose context says field, value and remedy."""
IMPORTED_AS = f"{Arm.IMPORTED.value}/"
"""Before the name that frames were imported under, in `training.weights`."""


class TrainingConfig(LossSettings):
    """How the committee is refitted."""

    cpus: float = operational(1.0, gt=0, description="Ray CPUs of the trainer.")
    resources: Resources = operational({}, description="Custom Ray resources, for example `{labeler: 1}`.")
    first_at: int = Field(10, ge=2, description="Labels before the first fit.")
    refit_every: int = Field(10, ge=1, description="New training labels before the next fit.")
    refit_growth: float = Field(0.0, ge=0, le=2, description="Also wait for this share of the labels there are.")
    max_ahead: Annotated[int, Field(ge=1)] | Literal["auto"] | None = operational(
        "auto",
        description="Training labels that may come while a fit runs; further ones wait for the new model. `auto`: none "
        "where a batch of labels takes less than a tenth of a fit, else half of the next batch and one a labeler. "
        "`null`: any number, so that labels never wait.",
    )
    budget_s: float = operational(60.0, gt=0, description="Seconds for one fit of the whole committee.")
    max_epochs: int = Field(1000, ge=1)
    max_gradient_steps: int | None = operational(
        None, ge=1, description="Gradient steps of one member in one fit, at most."
    )
    batch_size: int = Field(5, ge=1)
    learning_rate: float = Field(0.005, gt=0, description="Of Adam, at the peak of the schedule.")
    decay_share: float = Field(
        0.5, gt=0, le=1, description="Share of a fit in which the learning rate falls; before, it stays at its peak."
    )
    new_share: float = Field(
        0.5, ge=0, le=1, description="Share of each batch of a refit for frames that the parent has not seen."
    )
    renew_every: int = Field(
        5, ge=0, description="Refits after which one member, in turn, begins anew, so that members differ; 0: never."
    )
    parallel: int = operational(
        1, ge=1, le=32, description="Members fitted at the same time; each takes `threads` cores, so set `cpus`."
    )
    compile: bool | Literal["auto"] = operational(
        "auto",
        description="Compile the training step, once for an architecture on a machine: 4 to 5 times faster steps for "
        "minutes of one core. True: a fit waits for it, beyond its budget. `auto`: beside fits that run eagerly, once "
        "one has taken a minute.",
    )
    train_on: int = operational(
        0,
        ge=0,
        le=1000,
        description="Fits in a row on unchanged data, while the trainer has nothing new to learn and at the end: each "
        "goes on from the last, until one gains less than a hundredth of the random arm's error or is rejected.",
    )
    ema: float = Field(0.99, ge=0, lt=1, description="Decay of the moving average of the weights; 0 turns it off.")
    bootstrap: float = Field(0.9, gt=0, le=1, description="Share of training frames each member sees.")
    validation_share: float = Field(0.1, ge=0, lt=1, description="Trajectories held out for validation.")
    threads: int = operational(1, ge=1, le=256)
    atomic_energies: Literal["isolated", "fitted"] = Field(
        "isolated",
        description="Energies of elements that a fresh model starts from: of free atoms at the same level of theory, "
        "or changed as little as makes sums over them fit the training set by least squares.",
    )
    delta: Literal["gfn2-xtb", "gfn1-xtb"] | None = Field(
        None,
        description="Learn label minus baseline, and add the baseline back wherever the model is used: the kind of "
        "`labeling.baseline`. Default: learn labels.",
    )
    start: StartConfig | None = Field(
        None,
        description="What the first fit starts from: a teacher's labels, imported labels of another level, or a model. "
        "Default: random weights.",
    )


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


class ExplorationConfig(Section):
    """Molecular dynamics of many walkers under the committee's mean force."""

    workers: int = operational(1, ge=1, le=4096, description="Explorers.")
    cpus: float = operational(1.0, gt=0, description="Ray CPUs of one explorer.")
    resources: Resources = operational({}, description="Custom Ray resources, for example `{labeler: 1}`.")
    threads: int = operational(1, ge=1, le=256)
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
        if self.uncertainty != "committee" and not isinstance(self.trust, CalibratedTrust):
            raise ValueError(f"uncertainty {self.uncertainty} has no unit, so trust.kind must be calibrated")
        return self

    @property
    def method_names(self) -> tuple[str, ...]:
        """Names of the methods: their kinds, or names of plug-ins, numbered where one is there more than once."""
        kinds = [m.name if isinstance(m, PluginMethod) else m.kind for m in self.methods] or ["plain"]
        return tuple(
            kind if kinds.count(kind) == 1 else f"{kind}-{kinds[: i + 1].count(kind)}" for i, kind in enumerate(kinds)
        )


class InitialConfig(Section):
    """First frames, sampled before there is a model."""

    method: Literal["normal-modes", "xtb-md", "rattle"] = Field(
        "normal-modes",
        description="`normal-modes`: thermal displacements along GFN2-xTB normal modes, not for liquids; `xtb-md`: "
        "Langevin dynamics with GFN2-xTB; `rattle`: Gaussian displacements. Periodic systems use GFN1-xTB.",
    )
    frames: int = Field(16, ge=2, le=10_000, description="Frames over all systems.")
    temperature: float = Field(500.0, gt=0, le=20_000)
    stdev: float = Field(0.05, gt=0, le=1, description="For `rattle`: standard deviation.")


class SelectionConfig(Section):
    """Which frames are labelled."""

    strategy: Literal["uncertainty", "random"] = Field(
        "uncertainty", description="`random` labels frames at random: the control for active learning."
    )
    random_share: float = Field(0.2, ge=0, le=0.9, description="Share of labels in the random arm (the test set).")
    max_pending: int = operational(64, ge=1, le=1_000_000, description="Bound of the candidate set.")
    pool: float = operational(
        1.0,
        ge=1,
        le=1000,
        description="Explorers pause once so many times `max_pending` frames were found under one model; those beyond "
        "`max_pending` push out the least informative.",
    )
    max_candidates: int = operational(16, ge=1, description="Candidates one explorer may return per chunk.")
    diversity: Literal["lcmd", "farthest-point", "max-det", "stratified", "random", "none"] = Field(
        "lcmd",
        description="How every other frame is chosen, instead of by uncertainty: by latent features (`lcmd`, "
        "`farthest-point`, `max-det`), over bond topologies and temperatures, or at random. `none`: uncertainty only.",
    )
    near_duplicate: float = Field(
        0.1, ge=0, description="Distance of standardised latent features up to which two frames are one."
    )
    cost_aware: bool = Field(
        True, description="Rank frames by uncertainty per expected second of labelling, learned from past labels."
    )


class StopConfig(Section):
    """When the campaign is done: the first criterion that holds."""

    labels: int = operational(
        100, ge=1, le=100_000_000, description="Accepted labels, random arm included, free atoms not."
    )
    wall_s: float | None = operational(None, gt=0, description="Seconds of running, over all restarts.")
    target_force_mae: float | None = operational(
        None, gt=0, description="Upper end of the champion's 95 % interval on the random arm, eV/Angstrom."
    )
    target_blind_spots: float | None = operational(
        None,
        gt=0,
        lt=1,
        description="Upper end (95 %) of the share of random-arm frames that are trusted although an atom's error is "
        "beyond exploration.trust.tolerated_error.",
    )
    versions_in_a_row: int = operational(
        2, ge=1, le=100, description="Versions that must reach the targets one after another, the champion among them."
    )
    min_random: int = operational(20, ge=2, description="Random-arm frames before a target may be believed.")
    quiet_steps: int | None = operational(
        None, gt=0, description="Walker-steps without a frame above the trust band's lower edge, in one version."
    )


class RuntimeConfig(Section):
    """Where the work runs."""

    kind: Literal["ray", "in-process"] = operational(
        "ray", description="`in-process` does without Ray: one process, quickest for small campaigns."
    )
    address: str | None = operational(None, description="Ray cluster, for example `auto`; default starts one here.")
    num_cpus: int | None = operational(None, ge=1, description="CPUs of the cluster that is started here.")
    environments: dict[Literal["explorers", "labelers", "trainers"], str] = operational(
        {},
        description="Folders of Python environments in which workers of a role run, instead of this one, as "
        "`{trainers: /opt/mace, explorers: /opt/mace}`; alsys of the same version must be installed there.",
    )
    worker_retries: int = operational(
        20, ge=0, description="Restarts of one worker, without 20 results in a row, before it is given up."
    )
    ray_start_timeout_s: float = operational(
        300.0, gt=0, description="Seconds for Ray to come up here; it is tried again while they last."
    )
    ray_timeout_s: float = operational(
        60.0,
        ge=5,
        description="Seconds that Ray may not answer. Then a Ray that was started here is started anew; one at "
        "`address` ends the run.",
    )
    worker_start_timeout_s: float = operational(
        900.0, gt=0, description="Seconds for one worker to find its place and start; then it is tried again, twice."
    )
    stopped_timeout_s: float = operational(
        60.0, gt=0, description="Seconds that a worker on this machine may be stopped (SIGSTOP) before it is replaced."
    )
    chunk_timeout_s: float | None = operational(
        None,
        gt=0,
        description="Seconds for one chunk of exploration, then the explorer is replaced. Default: 30 times the "
        "longest of the last 50, at least 120; 1800 for the first.",
    )
    fit_timeout_s: float | None = operational(
        None,
        gt=0,
        description="Seconds for one fit, then the trainer is replaced. Default: four times its budget and half an "
        "hour.",
    )
    label_timeout_s: float | None = operational(
        None,
        gt=0,
        description="Seconds for one label, then the labeler is replaced. Default: `labeling.timeout_s` (twice with a "
        "baseline) and seven minutes for a call.",
    )

    @field_validator("environments")
    @classmethod
    def _absolute(cls, value: dict[str, str]) -> dict[str, str]:
        for role, folder in value.items():
            if not Path(folder).expanduser().is_absolute():
                raise PydanticCustomError(
                    PLACED,
                    "must be a path from / or ~: workers start in other folders",
                    {"field": f"runtime.environments.{role}", "value": folder, "remedy": "give the whole path"},
                )
        return value

    def python_of(self, role: Literal["explorers", "labelers", "trainers"]) -> str | None:
        """Interpreter of a role's environment; None for that of the driver."""
        folder = self.environments.get(role)
        return None if folder is None else str(Path(folder).expanduser() / "bin" / "python")


class TrackingConfig(Section):
    """MLflow."""

    enabled: bool = operational(True)
    uri: str | None = operational(
        None, description="Tracking server; default `sqlite:///mlflow.db` in the folder where the campaign is started."
    )
    experiment: str = operational("alsys")
    model: Name | None = operational(None, description="Registered name; default is the campaign's name.")
    flush_s: float = operational(60.0, ge=0, description="Longest wait for MLflow when a campaign ends.")


class CampaignConfig(Section):
    """A campaign."""

    name: Name = Field(description="Name of the campaign.")
    directory: str | None = operational(
        None, description="Default: `campaigns/NAME`; relative to the folder in which the campaign is started."
    )
    seed: int = Field(0, ge=0, lt=2**31)
    mode: Literal["async", "rounds"] = Field("async", description="`rounds` is the lock-step baseline.")
    systems: tuple[SystemConfig, ...] = Field(min_length=1)
    labeling: LabelingConfig
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    exploration: ExplorationConfig = ExplorationConfig()
    initial: InitialConfig = InitialConfig()
    selection: SelectionConfig = SelectionConfig()
    promotion: PromotionConfig = PromotionConfig()
    stop: StopConfig = StopConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    tracking: TrackingConfig = TrackingConfig()
    validation: ValidationConfig = ValidationConfig()
    insist: tuple[str, ...] = operational(
        (),
        description="Fields whose values are meant although they are far from usual, for example "
        "`[exploration.temperatures]`; docs/insist.md lists what is asked about.",
    )

    @model_validator(mode="before")
    @classmethod
    def _model_of_an_environment(cls, data: Any) -> Any:
        """Where trainers have an environment, any kind may be the name of a potential that is installed there."""
        if not isinstance(data, Mapping) or not isinstance(runtime := data.get("runtime"), Mapping):
            return data
        environments = runtime.get("environments")
        if not isinstance(environments, Mapping) or "trainers" not in environments:
            return data
        return {**data, "model": as_plugin(data.get("model"), ModelConfig)}

    @model_validator(mode="before")
    @classmethod
    def _named_systems(cls, data: Any) -> Any:
        """A system without a name has the campaign's, numbered where there are several."""
        if not isinstance(data, Mapping) or not isinstance(data.get("systems"), list | tuple):
            return data
        systems, name = data["systems"], data.get("name")
        if not isinstance(name, str) or all(not isinstance(s, Mapping) or "name" in s for s in systems):
            return data
        names = [name] if len(systems) == 1 else [f"{name}-{i + 1}" for i in range(len(systems))]
        named = [
            {"name": names[i], **system} if isinstance(system, Mapping) else system for i, system in enumerate(systems)
        ]
        return {**data, "systems": named}

    @model_validator(mode="after")
    def _unique_names(self) -> CampaignConfig:
        names = [system.name for system in self.systems]
        for i, name in enumerate(names):
            if (first := names.index(name)) != i:
                raise PydanticCustomError(
                    PLACED,
                    f"systems need different names; systems[{first}] has it too",
                    {"field": f"systems[{i}].name", "value": name, "remedy": "give it another name"},
                )
        return self

    @model_validator(mode="after")
    def _known_baseline(self) -> CampaignConfig:
        delta, baseline = self.training.delta, self.labeling.baseline
        if delta is not None and (baseline is None or baseline.kind != delta):
            raise ValueError(f"training.delta {delta} needs labeling.baseline: {{kind: {delta}}}")
        return self

    @model_validator(mode="after")
    def _known_loss(self) -> CampaignConfig:
        training = self.training
        if isinstance(self.model, PairModel) and training.needs_network is not None:
            raise ValueError(f"training.{training.needs_network} needs model.kind nequip: pairs are fitted at once")
        if training.delta is not None and isinstance(self.model, EquivariantModel) and self.model.zbl:
            raise ValueError("model.zbl needs labels without training.delta, whose baseline repels nuclei already")
        if training.parallel * training.threads > max(training.cpus, 1.0):
            cores = training.parallel * training.threads
            raise ValueError(f"training.parallel times training.threads takes {cores} cores: set training.cpus to that")
        if training.delta is not None and training.stress_weight > 0:
            raise ValueError("training.stress_weight needs labels without training.delta, whose baseline has no stress")
        arms = [arm.value for arm in Arm if arm not in (Arm.ATOM, Arm.RANDOM)]
        for name in training.weights.keys() - {*arms, *(system.name for system in self.systems)}:
            if name.startswith(IMPORTED_AS) and name != IMPORTED_AS:
                continue
            known = ", ".join(arms)
            raise ValueError(
                f"training.weights names neither an arm that is learned from ({known}), nor a system, nor what was "
                f"imported ({IMPORTED_AS}NAME): {name}"
            )
        return self

    @model_validator(mode="after")
    def _known_blind_spots(self) -> CampaignConfig:
        is_known = self.promotion.examine and isinstance(self.exploration.trust, CalibratedTrust)
        if self.stop.target_blind_spots is not None and not is_known:
            raise ValueError("stop.target_blind_spots needs promotion.examine and exploration.trust.kind calibrated")
        return self

    @model_validator(mode="after")
    def _known_start(self) -> CampaignConfig:
        start = self.training.start
        if start is not None and not isinstance(self.model, NetworkModel):
            raise ValueError("training.start needs model.kind nequip or allegro: pairs are fitted at once")
        if isinstance(start, TeacherStart) and start.teacher == self.training.delta:
            raise ValueError(f"training.start.teacher {start.teacher} is training.delta: their difference is zero")
        return self

    @model_validator(mode="after")
    def _known_pressure(self) -> CampaignConfig:
        if self.exploration.pressure is not None and not isinstance(self.model, NetworkModel):
            raise ValueError("exploration.pressure needs model.kind nequip or allegro, which have a stress")
        if self.exploration.uncertainty != "committee" and not isinstance(self.model, EquivariantModel):
            raise ValueError(
                f"exploration.uncertainty {self.exploration.uncertainty} needs a network: nequip or allegro"
            )
        if self.exploration.pressure is not None and self.exploration.thermostat == "none":
            raise ValueError("exploration.pressure needs a thermostat")
        return self

    @model_validator(mode="after")
    def _known_charges(self) -> CampaignConfig:
        carve = self.exploration.carve
        packed = [p for system in self.systems for p in (system.box, system.cluster) if p is not None]
        is_charged = any(component.charge for p in packed for component in p.components)
        if carve is not None and is_charged and not carve.charges:
            raise ValueError("exploration.carve.charges must give the charges of ions by formula, as {Na: 1, Cl: -1}")
        if carve is not None and carve.embedding is not None:
            labeling = self.labeling
            if not isinstance(labeling, PySCFLabeling) or labeling.method not in ("dft", "hf"):
                raise ValueError("exploration.carve.embedding needs labeling.kind pyscf with method dft or hf")
            if labeling.solvent_model is not None or labeling.device == "gpu":
                raise ValueError("exploration.carve.embedding allows neither labeling.solvent_model nor device gpu")
            if labeling.baseline is not None and not isinstance(labeling.baseline, PySCFBaseline):
                raise ValueError("exploration.carve.embedding: xTB knows no point charges; drop it, or the baseline")
        return self

    @property
    def model_name(self) -> str:
        """Name under which models are registered."""
        return self.tracking.model or self.name

    @property
    def tells_states_apart(self) -> bool:
        """Whether the model can be given charges and multiplicities: one composition may then come in several.

        Not by default where clusters are carved out of what is explored: their total charges are the cuts'.
        """
        if not isinstance(self.model, EquivariantModel) or self.model.states is False:
            return False
        return self.model.states is True or self.exploration.carve is None

    @property
    def exam_s(self) -> float:
        """Seconds of `training.budget_s` that the dynamics of the examination may take."""
        promotion = self.promotion
        return min(promotion.budget_s, EXAM_SHARE * self.training.budget_s) if promotion.examine else 0.0
