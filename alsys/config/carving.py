"""What is labelled of frames that are too large: the section `exploration.carve` of a campaign file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alsys.config.section import Section


class GrowConfig(Section):
    """Clusters that grow until GFN2-xTB forces on trusted atoms settle."""

    tolerance: float = Field(
        0.05, gt=0, le=1, description="Largest change of such a force from one cluster to the next, eV/Angstrom."
    )
    start: float = Field(3.0, ge=0, le=50, description="Radius of the first cluster.")
    step: float = Field(0.5, gt=0, le=10, description="By how much the radius grows.")
    max_radius: float = Field(6.0, gt=0, le=50, description="Frames whose forces have not settled here are left out.")

    @model_validator(mode="after")
    def _grows(self) -> GrowConfig:
        if self.start + self.step > self.max_radius:
            raise ValueError("max_radius must be at least start + step, or there is nothing to compare")
        return self

    @property
    def radii(self) -> tuple[float, ...]:
        """All radii, rising, Angstrom."""
        count = int((self.max_radius - self.start) / self.step + 1e-9) + 1
        return tuple(self.start + k * self.step for k in range(count))


class EmbeddingConfig(Section):
    """What a cluster stands in: point charges in place of the molecules around it."""

    kind: Literal["charges"]
    charges: dict[str, dict[str, Annotated[float, Field(ge=-10, le=10)]]] = Field(
        min_length=1,
        description="Charge of each element of a molecule by formula in Hill order, e, as "
        "{H2O: {O: -0.834, H: 0.417}} (TIP3P); of every kind of molecule.",
    )
    reach: float = Field(
        16.0, gt=0, le=50, description="Whole molecules that come this close to the central molecule are charges."
    )


class CarveConfig(Section):
    """Labels the neighbourhood of one atom instead of a whole frame, where that is periodic or large."""

    radius: float | None = Field(
        None, gt=0, le=50, description="Everything this close to the central molecule comes along."
    )
    grow: GrowConfig | None = Field(None, description="Instead of a radius: clusters that grow until forces settle.")
    trusted: float = Field(
        0.0,
        ge=0,
        le=50,
        description="Forces are learned from in the central molecule, and on all atoms this close to the central atom.",
    )
    whole: int = Field(
        60, ge=1, le=10_000, description="Molecules of so many atoms are never cut; larger ones at single C-C bonds."
    )
    max_atoms: int = Field(
        300, ge=2, le=10_000, description="Of a cluster; molecules of more atoms are carved though not periodic."
    )
    charges: dict[str, Annotated[int, Field(ge=-10, le=10)]] = Field(
        {},
        description="Charge of molecules by formula in Hill order, as {Na: 1, HO: -1}; others are neutral, and an "
        "element on its own is an ion everywhere.",
    )

    embedding: EmbeddingConfig | None = Field(
        None, description="Charges around the cluster, for labels with PySCF (dft or hf); None leaves it in vacuum."
    )

    @model_validator(mode="after")
    def _one_radius(self) -> CarveConfig:
        if (self.radius is None) == (self.grow is None):
            raise ValueError("give exactly one of radius, grow")
        least = self.radius if self.radius is not None else self.grow.start if self.grow is not None else 0.0
        if self.trusted > least:
            raise ValueError("trusted must not be larger than the radius, or grow.start")
        if self.embedding is not None:
            most = self.radius if self.radius is not None else self.grow.max_radius if self.grow is not None else 0.0
            if self.embedding.reach <= most:
                raise ValueError("embedding.reach must be larger than the radius, or grow.max_radius")
        return self
