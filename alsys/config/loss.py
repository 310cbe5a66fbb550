"""What a fit minimises: weights of energies, forces and stresses, how errors count, and whose labels count less.

Importable without torch. Weights may move from one value to another while a fit runs; they move along a straight line
in their logarithm, so both ends must be positive where an end is given.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alsys.config.section import Section


class LossSettings(Section):
    """The loss of a fit; part of the section ``training``."""

    energy_weight: float = Field(1.0, ge=0, description="Weight of the squared error of the energy per atom.")
    force_weight: float = Field(1.0, ge=0, description="Weight of the squared error of force components.")
    stress_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of the squared error of the components of stress times volume per atom, eV, of periodic "
        "labels that have a stress. 1 is a good start.",
    )
    energy_weight_final: float | None = Field(None, gt=0, description="Energy weight at the end of a fit.")
    force_weight_final: float | None = Field(None, gt=0, description="Force weight at the end of a fit.")
    stress_weight_final: float | None = Field(None, gt=0, description="Stress weight at the end of a fit.")
    loss: Literal["mse", "huber", "l1"] = Field(
        "mse", description="How an error counts: squared, squared up to `huber_delta` and linear beyond, or linear."
    )
    huber_delta: float = Field(
        0.01, gt=0, description="For `huber`: where squared turns linear, eV per atom and eV/Angstrom."
    )
    weights: dict[str, Annotated[float, Field(ge=0, le=1e6)]] = Field(
        {},
        description="Weight of a frame's errors by its arm, its system or what it was imported as, as "
        "`{initial: 0.2, imported/spice: 0.1}`; they multiply, and are 1 where not named.",
    )

    @model_validator(mode="after")
    def _positive_ends(self) -> LossSettings:
        for name in ("energy_weight", "force_weight", "stress_weight"):
            if getattr(self, f"{name}_final") is not None and getattr(self, name) == 0:
                raise ValueError(f"{name} must be positive where {name}_final is given: 0.01 is next to nothing")
        if self.energy_weight == self.force_weight == self.stress_weight == 0:
            raise ValueError("energy_weight, force_weight and stress_weight must not all be 0")
        return self

    @property
    def needs_network(self) -> str | None:
        """The first setting that a linear model's least squares cannot honour; None where there is none."""
        for name in ("stress_weight", "energy_weight_final", "force_weight_final", "loss", "huber_delta", "weights"):
            if getattr(self, name) != type(self).model_fields[name].default:
                return name
        return None
