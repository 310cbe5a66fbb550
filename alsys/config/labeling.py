"""How frames are labelled: the section `labeling` of a campaign file, one class for each kind of engine.

Further kinds, and the union of all, are in `alsys.config.engines`.

Levels of theory are science: frozen once a campaign has started. Limits and workers are operational. Importable without
pyscf and tblite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from alsys.config import presets
from alsys.config.groups import Grouped, GroupName, LabelerGroup
from alsys.config.section import RAY_MEMORY, Resources, Section, operational

COARSE_GRID = 1
"""PySCF's grid level of the iterations where `two_grids` is on."""


class QualityConfig(Section):
    """What makes a label fail the gate (docs/design/015-quality-gate.md); it is then repeated at tighter settings."""

    enabled: bool = operational(True, description="Examine labels before they become data.")
    net_force: float = operational(0.1, gt=0, description="Largest net force, eV/Angstrom (SPICE2's filter).")
    net_torque: float = operational(0.3, gt=0, description="Largest net torque of a molecule, eV.")
    largest_force: float = operational(15.0, gt=0, description="Largest force, eV/Angstrom (SPICE2's filter).")
    spin_excess: float = operational(0.1, gt=0, description="Largest spin contamination, <S^2> - S(S + 1).")
    gap: float = operational(0.1, ge=0, description="Least orbital gap, eV; 0 turns the check off.")
    energy_residual: float = operational(
        6.0, gt=0, description="Energy against what is expected of it, in robust standard deviations."
    )
    force_residual: float = operational(
        6.0, gt=0, description="Largest force error of the committee, in robust standard deviations of past ones."
    )
    bound_factor: float = operational(
        2.0, ge=1, description="And how far beyond the committee's own calibrated bound, as a factor."
    )
    agreement: float = operational(
        0.005, gt=0, description="Root mean square force difference within which a relabelling agrees, eV/Angstrom."
    )
    audit_share: float = operational(0.01, ge=0, le=1, description="Share of good labels that are computed again.")
    reference_every: int = operational(
        100,
        ge=0,
        validation_alias=AliasChoices("reference_every", "canary_every"),
        description="Labels of a worker between two checks with a reference frame; 0 turns off.",
    )


class GFN2Baseline(Section):
    """GFN2-xTB with tblite: milliseconds per frame, also for walkers, so that `training.delta` may build on it."""

    kind: Literal["gfn2-xtb"]
    accuracy: float = Field(0.1, gt=0, le=100, description="tblite's accuracy factor; smaller is tighter.")


class GFN1Baseline(Section):
    """GFN1-xTB with tblite: as GFN2-xTB, and much faster than it in periodic boxes."""

    kind: Literal["gfn1-xtb"]
    accuracy: float = Field(0.1, gt=0, le=100, description="tblite's accuracy factor; smaller is tighter.")


class PySCFBaseline(Section):
    """Another functional or basis with PySCF: stored beside the labels, too slow for walkers and so not for `delta`."""

    kind: Literal["pyscf"]
    xc: str = Field(description="Functional, as of labels.")
    basis: str = Field(description="Basis set, as of labels.")
    reference: Literal["auto", "restricted", "unrestricted"] = "auto"
    density_fit: bool = True
    grid_level: int = Field(4, ge=0, le=9)
    dispersion: Literal["d3bj", "d3zero", "d4"] | None = None
    conv_tol: float = Field(1e-9, gt=0, le=1e-4, description="SCF convergence, Hartree.")
    max_cycles: int = Field(100, ge=1, le=1000)


BaselineConfig = Annotated[GFN2Baseline | GFN1Baseline | PySCFBaseline, Field(discriminator="kind")]


class LabelingBase(Grouped):
    """Limits that every labeler has."""

    baseline: BaselineConfig | None = Field(
        None,
        description="Cheaper method whose energies and forces are stored beside each label, at their own level. "
        "Default: none. `training.delta` says whether models learn the difference.",
    )

    hessians: int = operational(
        0,
        ge=0,
        le=100,
        description="Start structures of each system, from the first one on, whose minimum is found at the level of "
        "the labels and its Hessian computed, once: models learn it beside the labels, so that vibrations are right. "
        "For molecules and crystals; 0 for none.",
    )
    workers: int = operational(1, ge=1, le=10_000, description="Labels computed at the same time, at most.")
    min_workers: int | None = operational(
        None,
        ge=0,
        description="Labelers that are kept where nothing waits to be labelled; the others come while frames wait and "
        "go after `idle_s`, so that a cluster can grow and shrink. On Ray. Default: all are kept.",
    )
    idle_s: float = operational(60.0, ge=0, description="Seconds without a label after which a labeler goes.")
    groups: dict[GroupName, LabelerGroup] = operational(
        {},
        description="Further labelers with resources of their own, as `{big: {workers: 2, cpus: 16, threads: 16}}`; "
        "what a group leaves out is as here.",
    )
    timeout_s: float = operational(600.0, gt=0, description="Wall time after which a label is killed.")
    memory_mb: int = operational(4000, ge=64, description="Memory of one label, of all its processes together.")
    max_attempts: int = operational(3, ge=1, le=20, description="Attempts after lost computing, per frame.")
    batch_s: float = operational(
        0.02, ge=0, description="Labels faster than this are sent several to a call; 0 sends one at a time."
    )
    cpus: float = operational(1.0, gt=0, le=4096, description="Ray CPUs of one labeler.")
    gpus: float = operational(0.0, ge=0, le=16, description="Ray GPUs of one labeler; 0.5 lets two share one.")
    resources: Resources = operational({}, description="Custom Ray resources, for example `{labeler: 1}`.")
    ray_memory_mb: int | None = operational(None, ge=64, description=RAY_MEMORY)
    quality: QualityConfig = Field(default=QualityConfig(), description="Checks of a label before it becomes data.")


def _preset_may_fill(schema: dict[str, Any]) -> None:
    """Functional and basis are required only where no preset gives them."""
    schema["required"] = ["kind"]


class PySCFLabeling(LabelingBase):
    """Molecules with PySCF: density-functional theory, Hartree-Fock, MP2, CCSD and CCSD(T), with analytic gradients.

    A preset fills method, functional, basis, dispersion and frozen core; see `alsys.config.presets`.
    """

    model_config = ConfigDict(json_schema_extra=_preset_may_fill)

    kind: Literal["pyscf"]
    preset: str | None = Field(
        None, examples=list(presets.PRESETS), description="Level of theory by name, for example `wb97m-v-def2-tzvpd`."
    )
    method: Literal["dft", "hf", "mp2", "ccsd", "ccsd(t)"] = Field("dft", description="What is computed.")
    xc: str | None = Field(
        examples=list(presets.FUNCTIONALS),
        description="Functional, any name PySCF knows, for example `pbe`; for `method: dft` only.",
    )
    basis: str = Field(description="Basis set, any name PySCF knows, for example `def2-svp`.")
    reference: Literal["auto", "restricted", "unrestricted"] = Field(
        "auto", description="`auto`: restricted for singlets while that is stable, unrestricted otherwise."
    )
    stability: Literal["auto", "always", "never"] = Field(
        "auto", description="Stability analysis; `auto`: of unrestricted solutions and of small gaps."
    )
    density_fit: bool = Field(True, description="Density fitting (RI-J/K); false by default for mp2, ccsd, ccsd(t).")
    auxbasis: str | None = Field(None, description="Basis of density fitting; PySCF's choice where left out.")
    grid_level: int = Field(4, ge=0, le=9, description="PySCF's DFT grid level.")
    nlc_grid_level: int | None = Field(None, ge=0, le=9, description="Grid level of VV10; PySCF's 3 where left out.")
    dispersion: Literal["d3bj", "d3zero", "d4"] | None = Field(None, description="Dispersion correction.")
    frozen_core: bool = Field(False, description="No correlation of core electrons; mp2, ccsd, ccsd(t).")
    solvent_model: Literal["cpcm", "iefpcm", "cosmo", "ss(v)pe", "ddcosmo", "smd"] | None = Field(
        None, description="Implicit solvent."
    )
    solvent: str | None = Field(None, description="Solvent by name, for example `water` (the list of SMD).")
    dielectric: float | None = Field(None, gt=1, description="Dielectric constant instead of a name; not for SMD.")
    conv_tol: float = Field(1e-9, gt=0, le=1e-4, description="SCF convergence, Hartree.")
    level_shift: float = Field(0.0, ge=0, le=10, description="Level shift of every SCF, Hartree.")
    max_cycles: int = Field(100, ge=1, le=1000, description="SCF iterations per rung.")
    threads: int = operational(1, ge=1, le=256, description="Threads of one label.")
    device: Literal["auto", "cpu", "gpu"] = operational(
        "auto", description="`auto`: a GPU where `gpus` gives one, the CPU where anything fails there."
    )
    gpu_memory_mb: int | None = operational(
        None, ge=256, description="GPU memory of one labeler; its share of the GPU where left out."
    )
    initial_guess: Literal["auto", "default", "nearest", "learned"] = operational(
        "auto", description="First density of an SCF: learned from earlier labels (`auto`), or PySCF's own (`default`)."
    )
    two_grids: bool = operational(
        True,
        description="SCF iterations on a coarse grid, corrected to the solution of `grid_level`, at half the time; "
        "for DFT with density fitting on the CPU.",
    )

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, data: Any) -> Any:
        return presets.filled(data) if isinstance(data, Mapping) else data

    @field_validator("preset")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        if name is not None and name not in presets.PRESETS:
            raise ValueError(presets.unknown(name))
        return name

    @field_validator(*presets.DECIDED)
    @classmethod
    def _agrees_with_preset(cls, value: Any, info: ValidationInfo) -> Any:
        preset = info.data.get("preset")
        problem = presets.contradiction(preset, str(info.field_name), value) if preset else None
        if problem is not None:
            raise ValueError(problem)
        return value


class XTBLabeling(LabelingBase):
    """GFN2-xTB with tblite: milliseconds per label."""

    kind: Literal["xtb"]
    method: Literal["GFN2-xTB", "GFN1-xTB"] = "GFN2-xTB"
    accuracy: float = Field(0.1, gt=0, le=100, description="tblite's accuracy factor; smaller is tighter.")
    max_cycles: int = Field(250, ge=1, le=5000)


class AnalyticLabeling(LabelingBase):
    """Pair Morse potential: for tests and for trying alsys out."""

    kind: Literal["analytic"]
    well_depth: float = Field(4.0, gt=0, description="Depth of bonded wells, eV.")
    width: float = Field(1.9, gt=0, description="Morse exponent, 1/Angstrom.")
    delay_s: float = Field(0.0, ge=0, description="Seconds each label pretends to take.")
    failure_rate: float = Field(0.0, ge=0, le=1, description="Share of attempts that fail on purpose.")
