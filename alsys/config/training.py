"""How the committee is refitted."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from alsys.config.accelerations import ACCELERATE, Accelerate
from alsys.config.loss import LossSettings
from alsys.config.models import EquivariantModel as EquivariantModel
from alsys.config.models import ModelConfig as ModelConfig
from alsys.config.models import NequIPModel as NequIPModel
from alsys.config.models import NetworkModel as NetworkModel
from alsys.config.models import PairModel as PairModel
from alsys.config.models import PluginModel as PluginModel
from alsys.config.section import DEVICE, GPUS, RAY_MEMORY, Device, Resources, operational
from alsys.config.start import StartConfig

LEAST_FIT_S: Final = 60.0
"""CPU seconds of a fit with ``budget_s: auto``, at least."""


class TrainingConfig(LossSettings):
    """How the committee is refitted."""

    workers: int = operational(
        1,
        ge=1,
        le=64,
        description="Trainers on Ray that share the members of each fit, each with its own `cpus` and `gpus`, on any "
        "nodes; `parallel` members of one trainer share its own.",
    )
    cpus: float = operational(1.0, gt=0, le=4096, description="Ray CPUs of a trainer.")
    resources: Resources = operational({}, description="Custom Ray resources, for example `{labeler: 1}`.")
    ray_memory_mb: int | None = operational(None, ge=64, description=RAY_MEMORY)
    first_at: int = Field(10, ge=2, description="Labels before the first fit.")
    refit_every: int = Field(10, ge=1, description="New training labels before the next fit.")
    refit_growth: float = Field(0.0, ge=0, le=2, description="Also wait for this share of the labels there are.")
    max_ahead: Annotated[int, Field(ge=1)] | Literal["auto"] | None = operational(
        "auto",
        description="Training labels that may come while a fit runs; further ones wait for the new model. `auto`: none "
        "where a batch of labels takes less than a tenth of a fit, else half of the next batch and one a labeler. "
        "`null`: any number, so that labels never wait.",
    )
    budget_s: Annotated[float, Field(gt=0)] | Literal["auto"] = operational(
        "auto",
        description="CPU seconds for one fit of the whole committee. `auto`: as many as the campaign's labels that it "
        "learns from took, at least 60.",
    )
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
        1,
        ge=1,
        le=32,
        description="Members fitted at the same time; each takes `threads` cores, so set `cpus`. Fits of half a minute "
        "and more get a process each (0.7 GB).",
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
    device: Device = operational("auto", description=DEVICE)
    gpus: float = operational(0.0, ge=0, le=16, description=GPUS)
    accelerate: Accelerate = operational("none", description=ACCELERATE)
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

    @property
    def least_fit_s(self) -> float:
        """CPU seconds of a fit to labels of which it is not known how long they took."""
        return LEAST_FIT_S if self.budget_s == "auto" else self.budget_s
