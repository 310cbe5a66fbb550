"""The campaign file, field by field. Importable without torch, ray or pyscf.

Units are eV, Angstrom, fs and K unless the name says otherwise. Every field is either *science* (it decides what the
data and models mean; frozen once a campaign has started) or *operational* (workers, limits, stop criteria, addresses;
may change at a restart), marked below with `operational()`. No key names code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from alsys.config.accelerations import KERNELS
from alsys.config.engines import LabelingConfig
from alsys.config.exploration import CalibratedTrust as CalibratedTrust
from alsys.config.exploration import ExplorationConfig as ExplorationConfig
from alsys.config.exploration import FixedTrust as FixedTrust
from alsys.config.exploration import TargetEnsemble as TargetEnsemble
from alsys.config.exploration import TrustConfig as TrustConfig
from alsys.config.groups import resource_problems
from alsys.config.labeling import PySCFBaseline, PySCFLabeling
from alsys.config.launch import LaunchConfig
from alsys.config.models import EquivariantModel as EquivariantModel
from alsys.config.models import ModelConfig as ModelConfig
from alsys.config.models import NequIPModel as NequIPModel
from alsys.config.models import NetworkModel as NetworkModel
from alsys.config.models import PairModel as PairModel
from alsys.config.models import PluginModel as PluginModel
from alsys.config.prices import ANY
from alsys.config.promotion import MODEL_TESTS_SHARE, PromotionConfig
from alsys.config.runtime import RuntimeConfig as RuntimeConfig
from alsys.config.section import Name, PluginSection, Problem, Section, as_plugin, operational, plugin_named, together
from alsys.config.start import TeacherStart
from alsys.config.systems import SystemConfig
from alsys.config.training import TrainingConfig as TrainingConfig
from alsys.config.validation import ValidationConfig
from alsys.frames import Arm
from alsys.plugins import SELECTIONS, STOP_RULES

IMPORTED_AS = f"{Arm.IMPORTED.value}/"
"""Before the name that frames were imported under, in `training.weights`."""


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


Diversity = Literal["lcmd", "farthest-point", "max-det", "stratified", "random", "none"]


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
    diversity: Annotated[Diversity | PluginSection, plugin_named(SELECTIONS, Diversity | PluginSection)] = Field(
        "lcmd",
        description="How every other frame is chosen, instead of by uncertainty: by latent features (`lcmd`, "
        "`farthest-point`, `max-det`), over bond topologies and temperatures, or at random. `none`: uncertainty only. "
        "A rule of another package chooses all frames.",
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
    node_hours: float | None = operational(
        None,
        gt=0,
        description="Machines times hours, over all restarts: all nodes of the Ray cluster that are alive while a "
        "driver runs, or the one machine.",
    )
    cost: float | None = operational(
        None, gt=0, description="Money for these machines, by `launch.prices`, in the currency of those."
    )
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
    final_fit_s: Annotated[float, Field(ge=0)] | Literal["auto"] = operational(
        "auto",
        description="CPU seconds, at most, of the last fit, once the campaign is done: of a larger network where they "
        "carry one, and ended earlier where errors on held-out frames fall no more. 0: it is a fit like others. "
        "`auto`: four times theirs where `training.budget_s` is `auto`, else 0.",
    )
    versions_in_a_row: int = operational(
        2, ge=1, le=100, description="Versions that must reach the targets one after another, the champion among them."
    )
    min_random: int = operational(20, ge=2, description="Random-arm frames before a target may be believed.")
    quiet_steps: int | None = operational(
        None, gt=0, description="Walker-steps without a frame above the trust band's lower edge, in one version."
    )
    rules: tuple[Annotated[PluginSection, plugin_named(STOP_RULES, PluginSection)], ...] = operational(
        (), description="Stop rules of other packages, asked once there is a champion."
    )


class TrackingConfig(Section):
    """MLflow."""

    enabled: bool = operational(True)
    uri: str | None = operational(
        None, description="Tracking server; default `sqlite:///mlflow.db` in the folder where the campaign is started."
    )
    experiment: str = operational("alsys")
    model: Name | None = operational(None, description="Registered name; default is the campaign's name.")
    flush_s: float = operational(60.0, ge=0, description="Longest wait for MLflow when a campaign ends.")


class DataTermsConfig(Section):
    """What others may do with the campaign's own labels, and what they cite."""

    licence: str = operational("", max_length=200, description="An SPDX identifier such as CC-BY-4.0, or a sentence.")
    source: str = operational("", max_length=1000, description="Where they can be had.")
    citation: str = operational("", max_length=2000, description="What to cite.")


_CONTAINER: Final = r"(?:(?:s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]*|abfs://[A-Za-z0-9][A-Za-z0-9-]*(?:@[A-Za-z0-9.-]+)?)"
MIRROR_URL: Final = rf"^{_CONTAINER}(?:/[A-Za-z0-9_][A-Za-z0-9_.,+=@-]*)+/?$"
MirrorURL = Annotated[str, Field(pattern=MIRROR_URL)]
"""A prefix in a bucket, not the bucket itself."""


class CampaignConfig(Section):
    """A campaign."""

    name: Name = Field(description="Name of the campaign.")
    directory: str | None = operational(
        None, description="Default: `campaigns/NAME`; relative to the folder in which the campaign is started."
    )
    mirror: MirrorURL | None = operational(
        None, description="Object storage that gets all of the campaign too: `s3://BUCKET/PREFIX`, `gs://` or `az://`."
    )
    seed: int = Field(0, ge=0, lt=2**31)
    mode: Literal["async", "rounds"] = Field("async", description="`rounds` is the lock-step baseline.")
    systems: tuple[SystemConfig, ...] = Field(min_length=1)
    labeling: LabelingConfig
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    exploration: ExplorationConfig = ExplorationConfig()
    target: TargetEnsemble | None = Field(
        None, description="Default: the random arm is taken from all walkers, whatever moves them."
    )
    initial: InitialConfig = InitialConfig()
    selection: SelectionConfig = SelectionConfig()
    promotion: PromotionConfig = PromotionConfig()
    stop: StopConfig = StopConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    launch: LaunchConfig = operational(LaunchConfig(), description="What `alsys launch` asks machines for.")
    tracking: TrackingConfig = TrackingConfig()
    data_terms: DataTermsConfig = Field(
        DataTermsConfig(), description="Goes along with every export of labels; imported ones keep their own."
    )
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
    def _fits_together(self) -> CampaignConfig:
        checks = (
            self._names, self._baseline, self._loss, self._blind_spots, self._start, self._pressure, self._time_steps,
            self._charges, self._target, self._devices, self._groups, self._trainers,
            self._accelerations, self._cost,
        )  # fmt: skip
        together(problem for check in checks for problem in check())
        return self

    def _names(self) -> Iterator[Problem]:
        names = [system.name for system in self.systems]
        for i, name in enumerate(names):
            if (first := names.index(name)) != i:
                message = f"systems need different names; systems[{first}] has it too"
                yield Problem(message, f"systems[{i}].name", name, "give it another name")

    def _baseline(self) -> Iterator[Problem]:
        delta, baseline = self.training.delta, self.labeling.baseline
        if delta is not None and (baseline is None or baseline.kind != delta):
            yield Problem(f"training.delta {delta} needs labeling.baseline: {{kind: {delta}}}")

    def _loss(self) -> Iterator[Problem]:
        training = self.training
        if isinstance(self.model, PairModel) and training.needs_network is not None:
            yield Problem(f"training.{training.needs_network} needs model.kind nequip: pairs are fitted at once")
        if training.delta is not None and isinstance(self.model, EquivariantModel) and self.model.zbl:
            yield Problem("model.zbl needs labels without training.delta, whose baseline repels nuclei already")
        if training.parallel * training.threads > max(training.cpus, 1.0):
            cores = training.parallel * training.threads
            yield Problem(f"training.parallel times training.threads takes {cores} cores: set training.cpus to that")
        if training.delta is not None and training.stress_weight > 0:
            yield Problem("training.stress_weight needs labels without training.delta, whose baseline has no stress")
        arms = [arm.value for arm in Arm if arm not in (Arm.ATOM, Arm.RANDOM)]
        for name in sorted(training.weights.keys() - {*arms, *(system.name for system in self.systems)}):
            if name.startswith(IMPORTED_AS) and name != IMPORTED_AS:
                continue
            known = ", ".join(arms)
            yield Problem(
                f"training.weights names neither an arm that is learned from ({known}), nor a system, nor what was "
                f"imported ({IMPORTED_AS}NAME): {name}"
            )

    def _blind_spots(self) -> Iterator[Problem]:
        is_known = self.promotion.examine and isinstance(self.exploration.trust, CalibratedTrust)
        if self.stop.target_blind_spots is not None and not is_known:
            yield Problem("stop.target_blind_spots needs promotion.examine and exploration.trust.kind calibrated")

    def _start(self) -> Iterator[Problem]:
        start = self.training.start
        if start is not None and not isinstance(self.model, NetworkModel):
            yield Problem("training.start needs model.kind nequip or allegro: pairs are fitted at once")
        if isinstance(start, TeacherStart) and start.teacher == self.training.delta:
            yield Problem(f"training.start.teacher {start.teacher} is training.delta: their difference is zero")
        if "teachers" in self.runtime.environments and not self.has_ase_teacher:
            yield Problem("runtime.environments.teachers needs training.start.teacher: {kind: ase, calculator: NAME}")

    def _pressure(self) -> Iterator[Problem]:
        if self.exploration.pressure is not None and not isinstance(self.model, NetworkModel):
            yield Problem("exploration.pressure needs model.kind nequip or allegro, which have a stress")
        if self.exploration.uncertainty != "committee" and not isinstance(self.model, EquivariantModel):
            yield Problem(f"exploration.uncertainty {self.exploration.uncertainty} needs a network: nequip or allegro")
        if self.exploration.pressure is not None and self.exploration.thermostat == "none":
            yield Problem("exploration.pressure needs a thermostat")

    def _time_steps(self) -> Iterator[Problem]:
        if self.exploration.multiple_time_step is None:
            return
        if self.training.delta is None:
            yield Problem(
                "exploration.multiple_time_step needs training.delta: without a baseline the committee is no dearer at "
                "each step than every few; exploration.compile makes it faster"
            )
        if not isinstance(self.model, EquivariantModel | PairModel):
            yield Problem("exploration.multiple_time_step needs model.kind nequip, allegro or pair")

    def _charges(self) -> Iterator[Problem]:
        carve = self.exploration.carve
        packed = [p for system in self.systems for p in (system.box, system.cluster) if p is not None]
        is_charged = any(component.charge for p in packed for component in p.components)
        if carve is not None and is_charged and not carve.charges:
            yield Problem("exploration.carve.charges must give the charges of ions by formula, as {Na: 1, Cl: -1}")
        if carve is not None and carve.embedding is not None:
            labeling = self.labeling
            if not isinstance(labeling, PySCFLabeling) or labeling.method not in ("dft", "hf"):
                yield Problem("exploration.carve.embedding needs labeling.kind pyscf with method dft or hf")
            elif labeling.solvent_model is not None or labeling.device == "gpu":
                yield Problem("exploration.carve.embedding allows neither labeling.solvent_model nor device gpu")
            if labeling.baseline is not None and not isinstance(labeling.baseline, PySCFBaseline):
                yield Problem("exploration.carve.embedding: xTB knows no point charges; drop it, or the baseline")

    def _target(self) -> Iterator[Problem]:
        if self.target is None:
            return
        if self.exploration.thermostat == "none":
            yield Problem("target.temperature needs exploration.thermostat langevin or nose-hoover")
        if self.exploration.walkers < (least := 2 * len(self.systems)):
            yield Problem(
                f"target takes one walker of each system for its tests and leaves one to explore: {least} at least",
                "exploration.walkers", str(self.exploration.walkers),
            )  # fmt: skip
        if not self.selection.random_share:
            yield Problem("target needs a random arm", "selection.random_share", "0", "leave target out, or 0.15")

    def _groups(self) -> Iterator[Problem]:
        yield from self.labeling.group_problems("labeling")
        yield from self.exploration.group_problems("exploration")
        if self.runtime.kind != "ray":
            return
        sections: tuple[tuple[str, Section, Mapping[str, Section]], ...] = (
            ("training", self.training, {}),
            ("labeling", self.labeling, self.labeling.groups),
            ("exploration", self.exploration, self.exploration.groups),
        )
        for name, section, groups in sections:
            yield from resource_problems(section, name)
            for group, part in groups.items():
                yield from resource_problems(part, f"{name}.groups.{group}")
        given = self.runtime.num_cpus
        least = sum(section.cpus for section in (self.training, self.labeling, self.exploration))
        if given is not None and self.runtime.address is None and least > given:
            message = f"a trainer, an explorer and a labeler ask for {least:g} CPUs together"
            yield Problem(message, "runtime.num_cpus", str(given), "raise it, or lower their cpus")

    def _trainers(self) -> Iterator[Problem]:
        n, field = self.training.workers, "training.workers"
        if n == 1:
            return
        if not isinstance(self.model, NetworkModel):
            message = "trainers share the members of networks: pairs are fitted at once"
            yield Problem(message, field, str(n), "leave it out")
        elif n > self.model.members:
            remedy = f"ask for {self.model.members} at most, or raise model.members"
            yield Problem(
                f"of more trainers than the {self.model.members} members some never work", field, str(n), remedy
            )
        if self.runtime.kind != "ray":
            remedy = "set runtime.kind: ray, or training.parallel instead"
            yield Problem("needs Ray: one process has one trainer", field, str(n), remedy)
        if self.training.parallel > 1:
            remedy = f"leave it out; more members at a time take more of training.workers, of which there are {n}"
            yield Problem(
                "each trainer fits one member at a time", "training.parallel", str(self.training.parallel), remedy
            )

    def _devices(self) -> Iterator[Problem]:
        if self.runtime.kind != "ray":
            return
        for name, section in self._network_sections():
            if section.device.startswith("cuda") and not section.gpus:
                message = f"{name}.device {section.device} needs a share of a GPU: Ray shows a worker no other"
                yield Problem(message, f"{name}.gpus", "0", "set it to 1, or to 0.5 for two on one GPU")

    def _cost(self) -> Iterator[Problem]:
        if self.stop.cost is not None and ANY not in self.launch.prices:
            message = f"needs the price of an hour of any machine: launch.prices has no {ANY}"
            yield Problem(message, "stop.cost", f"{self.stop.cost:g}", f"add launch: {{prices: {{{ANY}: 0.5}}}}")

    def _network_sections(self) -> list[tuple[str, ExplorationConfig | TrainingConfig]]:
        """Sections of workers that evaluate networks, by their paths."""
        sections: list[tuple[str, ExplorationConfig | TrainingConfig]] = [("training", self.training)]
        for name, part in self.exploration.parts():
            sections.append((f"exploration.groups.{name[:-1]}" if name else "exploration", part))
        return sections

    def _accelerations(self) -> Iterator[Problem]:
        for name, section in self._network_sections():
            asked, place = section.accelerate, f"{name}.accelerate"
            if asked in ("none", "auto"):
                continue
            is_trained = isinstance(section, TrainingConfig)
            if lacks := KERNELS[asked].lacks(self.model.kind, is_trained=is_trained):
                yield Problem(lacks, place, asked, "leave it out, or auto")
            elif section.device == "cpu":
                yield Problem("these kernels are for GPUs", place, asked, f"leave {name}.device out")
            elif section.device not in ("auto", "cuda", "cuda:0"):
                message = "these kernels run on the first GPU that a worker sees only"
                yield Problem(message, f"{name}.device", section.device, "set it to auto")
            elif self.runtime.kind == "ray" and not section.gpus:
                message = f"{place} {asked} needs a share of a GPU: Ray shows a worker no other"
                yield Problem(message, f"{name}.gpus", "0", "set it to 1, or to 0.5 for two on one GPU")

    @property
    def test_frames(self) -> str:
        """Of what ensemble frames of the random arm are, in words."""
        if self.target is not None:
            return f"dynamics at {self.target.temperature:g} K, {self.target.decorrelation:g} fs apart"
        return f"exploration at {', '.join(f'{kelvin:g}' for kelvin in self.exploration.temperatures)} K"

    @property
    def model_name(self) -> str:
        """Name under which models are registered."""
        return self.tracking.model or self.name

    @property
    def has_ase_teacher(self) -> bool:
        """Whether the first fit starts from a calculator of ASE."""
        start = self.training.start
        return isinstance(start, TeacherStart) and not isinstance(start.teacher, str)

    @property
    def tells_states_apart(self) -> bool:
        """Whether the model can be given charges and multiplicities: one composition may then come in several.

        Not by default where clusters are carved out of what is explored: their total charges are the cuts'.
        """
        if not isinstance(self.model, EquivariantModel) or self.model.states is False:
            return False
        return self.model.states is True or self.exploration.carve is None

    def model_tests_s(self, fit_s: float) -> float:
        """Seconds of those that a fit is given which the dynamics of the model tests may take."""
        promotion = self.promotion
        return min(promotion.budget_s, MODEL_TESTS_SHARE * fit_s) if promotion.examine else 0.0
