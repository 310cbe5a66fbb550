"""Sections of the engines beside PySCF for molecules and xTB, and the union of all kinds of `labeling`.

Importable without any engine. A campaign file names no code: calculators are chosen by names of an allow-list
(`alsys.config.ase_calculators`), engines of other packages by the names under which they were installed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alsys.config.ase_calculators import ASECalculator
from alsys.config.labeling import AnalyticLabeling, LabelingBase, PySCFLabeling, XTBLabeling
from alsys.config.section import PluginSection, operational, plugin_named
from alsys.plugins import LABELERS

Divisions = Annotated[int, Field(ge=1, le=64)]


class PeriodicLabeling(LabelingBase):
    """Periodic density-functional theory with `pyscf.pbc`: crystals, liquids, surfaces with vacuum."""

    kind: Literal["pyscf-periodic"]
    xc: str = Field(description="LDA or GGA by any name PySCF knows, for example `pbe`.")
    basis: str = Field(description="Basis set, for example `gth-dzvp-molopt-sr`, or an all-electron one.")
    pseudo: str | None = Field(description="GTH pseudopotential, for example `gth-pbe`; null for all electrons.")
    kpts: tuple[Divisions, Divisions, Divisions] = Field(
        (1, 1, 1), description="Monkhorst-Pack divisions, Gamma included."
    )
    coulomb: Literal["auto", "multigrid", "fft", "gdf"] = Field(
        "auto", description="`auto`: multigrid at Gamma, plain FFT with k points. PySCF has no forces with `gdf`."
    )
    reference: Literal["auto", "restricted", "unrestricted"] = Field(
        "auto", description="`auto`: restricted for singlets, unrestricted otherwise."
    )
    dispersion: Literal["d3bj", "d3zero"] | None = Field(None, description="Dispersion correction.")
    stress: bool = Field(True, description="Also the stress; a good part of the cost of a label.")
    precision: float = Field(1e-8, gt=0, le=1e-4, description="PySCF's precision of integrals; decides the mesh.")
    conv_tol: float = Field(1e-8, gt=0, le=1e-4, description="SCF convergence, Hartree.")
    max_cycles: int = Field(60, ge=1, le=1000, description="SCF iterations per rung.")
    threads: int = operational(1, ge=1, le=256, description="Threads of one label.")

    @property
    def method(self) -> str:
        """How Coulomb integrals are done, `auto` resolved."""
        if self.coulomb != "auto":
            return self.coulomb
        return "multigrid" if self.kpts == (1, 1, 1) else "fft"

    @model_validator(mode="after")
    def _has_forces(self) -> PeriodicLabeling:
        if self.coulomb == "gdf":
            raise ValueError("coulomb gdf: PySCF has no forces with Gaussian density fitting; use fft or multigrid")
        if self.method == "multigrid" and self.kpts != (1, 1, 1):
            raise ValueError(f"coulomb multigrid: PySCF has it at Gamma only (kpts {list(self.kpts)}); use fft")
        if self.method == "fft" and self.pseudo is None:
            raise ValueError("pseudo null: PySCF's forces with k points need a pseudopotential; use gth-pbe or Gamma")
        return self


class ASELabeling(ASECalculator, LabelingBase):
    """Any calculator of ASE from an allow-list; commands of programs come from ASE's own configuration."""

    threads: int = operational(1, ge=1, le=256, description="Threads of one label.")


class ANILabeling(LabelingBase):
    """ANI-1x, a frozen machine-learned force field as teacher: neutral singlets of H, C, N and O."""

    kind: Literal["ani"]
    model: Literal["ani-1x"] = "ani-1x"
    threads: int = operational(1, ge=1, le=256, description="Threads of one label.")


class SkalaLabeling(LabelingBase):
    """Skala, a neural functional, with PySCF; or one of the functionals in torch that come with it."""

    kind: Literal["skala"]
    functional: Literal["lda", "spw92", "pbe", "tpss", "scan", "rscan", "r2scan"] | None = Field(
        None, description="A functional that comes with the package; for plumbing."
    )
    model_file: str | None = operational(None, description="Local file of a Skala model (`.fun`). Never downloaded.")
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Digest of that file: it holds a program, so only the stated one runs.",
    )
    basis: str = Field(description="Basis set, for example `def2-tzvp`.")
    density_fit: bool = Field(True, description="Density fitting.")
    auxbasis: str | None = Field(
        None, description="Fitting basis; default `def2-universal-jkfit` for the def2 family, PySCF's own otherwise."
    )
    grid_level: int = Field(3, ge=0, le=9, description="PySCF's DFT grid level.")
    dispersion: bool = Field(True, description="The D3 correction that the functional was made with, where it has one.")
    conv_tol: float = Field(1e-9, gt=0, le=1e-4, description="SCF convergence, Hartree.")
    max_cycles: int = Field(100, ge=1, le=1000, description="SCF iterations per rung.")
    threads: int = operational(1, ge=1, le=256, description="Threads of one label.")

    @model_validator(mode="after")
    def _one_functional(self) -> SkalaLabeling:
        if (self.functional is None) == (self.sha256 is None):
            raise ValueError("give exactly one of functional, sha256 (with model_file)")
        if (self.model_file is None) != (self.sha256 is None):
            raise ValueError("model_file and sha256 belong together")
        return self


class PluginLabeling(PluginSection, LabelingBase):
    """An engine of another package, installed under a name (entry points `alsys.labelers`)."""

    threads: int = operational(1, ge=1, le=256, description="Threads of one label.")


_Labeling = (
    PySCFLabeling
    | PeriodicLabeling
    | XTBLabeling
    | ASELabeling
    | ANILabeling
    | SkalaLabeling
    | PluginLabeling
    | AnalyticLabeling
)
LabelingConfig = Annotated[_Labeling, Field(discriminator="kind"), plugin_named(LABELERS, _Labeling)]
