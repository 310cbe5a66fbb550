"""Settings of the exploration methods: a union by `kind`, one section for each plug-in of `exploration.methods`.

Times are fs and become steps of the campaign's time step; temperatures are K, angles radian, lengths Angstrom,
energies eV. Importable without torch, ray or RDKit.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import Field, model_validator

from alsys.config.section import PluginSection, Section, plugin_named
from alsys.plugins import METHODS

Temperature = Annotated[float, Field(gt=0, le=20_000)]
Time = Annotated[float, Field(ge=0, le=1e9)]
Atom = Annotated[int, Field(ge=0)]
Torsion = tuple[Atom, Atom, Atom, Atom]
Pair = tuple[Atom, Atom]


class Thermostatted(Section):
    """A method whose walkers keep the temperature that they are given."""

    temperatures: tuple[Temperature, ...] | None = Field(
        None, min_length=1, description="Thermostats, K; walkers are spread over them. Default: those of exploration."
    )


class PlainMethod(Thermostatted):
    """Molecular dynamics at given temperatures."""

    kind: Literal["plain"]


class RampMethod(Section):
    """Molecular dynamics whose temperature changes over each walk."""

    kind: Literal["ramp"]
    points: tuple[tuple[Time, Temperature], ...] = Field(
        ((0.0, 300.0), (2000.0, 1000.0)),
        min_length=2,
        description="Corners (time since the walk began, fs; temperature, K), joined by straight lines; the last one "
        "is kept.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> RampMethod:
        times = [time for time, _ in self.points]
        if times[0] != 0 or any(later <= earlier for earlier, later in itertools.pairwise(times)):
            raise ValueError("times must rise from 0")
        return self


class UDDMethod(Thermostatted):
    """Uncertainty-driven dynamics (Kulichenko et al., Nat. Comput. Sci. 3, 230 (2023)), tuned by the program."""

    kind: Literal["udd"]
    ratio: float = Field(
        0.36, gt=0, le=2, description="Wanted ratio of the RMS bias force to the RMS force of the committee, no unit."
    )
    max_amplitude: float = Field(2.0, gt=0, le=20, description="Bound of the amplitude, eV: no bias is deeper.")


class TorsionScanMethod(Thermostatted):
    """Rotors dragged through full turns by a moving restraint."""

    kind: Literal["torsion-scan"]
    period: float = Field(2000.0, gt=0, le=1e9, description="Time of one turn of 360 degrees, fs.")
    stiffness: float = Field(
        2.0, gt=0, le=100, description="Of the restraint, eV/rad^2; its torque stays below stiffness x 1 rad."
    )


class MetadynamicsMethod(Thermostatted):
    """Well-tempered metadynamics, one variable for each walker (Barducci et al., PRL 100, 020603 (2008))."""

    kind: Literal["metadynamics"]
    torsions: tuple[Torsion, ...] | None = Field(
        None, description="Torsions as four atom indices from 0; by default one for each rotor of the molecule."
    )
    distances: tuple[Pair, ...] = Field((), description="Distances as two atom indices from 0.")
    height: float = Field(0.02, gt=0, le=1, description="Of the first hill, eV.")
    torsion_width: float = Field(0.2, ge=0.05, le=0.5, description="Standard deviation of hills on torsions, rad.")
    distance_width: float = Field(0.1, gt=0, le=1, description="Standard deviation of hills on distances, Angstrom.")
    max_distance: float = Field(6.0, gt=0, le=50, description="Distances beyond are not biased, Angstrom.")
    bias_factor: float = Field(10.0, gt=1, le=1000, description="(T + Delta T) / T, no unit.")
    interval: float = Field(25.0, gt=0, le=1e6, description="Time between two hills of a walker, fs.")

    @model_validator(mode="after")
    def _sensible(self) -> MetadynamicsMethod:
        for atoms in (*(self.torsions or ()), *self.distances):
            if len(set(atoms)) != len(atoms):
                raise ValueError(f"{list(atoms)} names an atom twice")
        if self.torsions == () and not self.distances:
            raise ValueError("needs a torsion or a distance")
        if self.distance_width < self.max_distance / 180:
            raise ValueError("distance_width must be at least max_distance / 180, two nodes of the grid")
        return self


class ReplicaExchangeMethod(Section):
    """Replicas on a ladder of temperatures that swap them (Sugita, Okamoto, Chem. Phys. Lett. 314, 141 (1999))."""

    kind: Literal["replica-exchange"]
    lowest: Temperature = Field(300.0, description="Lowest temperature of the ladder, K.")
    highest: Temperature = Field(1000.0, description="Highest temperature of the ladder, K.")
    rungs: int = Field(8, ge=2, le=1000, description="Temperatures of one ladder; more walkers make further ladders.")
    interval: float = Field(50.0, gt=0, le=1e6, description="Time between two attempts to swap, fs.")

    @model_validator(mode="after")
    def _ordered(self) -> ReplicaExchangeMethod:
        if self.highest <= self.lowest:
            raise ValueError("highest must be larger than lowest")
        return self


class NormalModesMethod(Thermostatted):
    """Molecular dynamics from thermal displacements along normal modes."""

    kind: Literal["normal-modes"]
    displacement_temperature: Temperature = Field(
        1000.0, description="Temperature of the harmonic distribution that walkers start from, K."
    )


class PluginMethod(PluginSection, Thermostatted):
    """A method of another package, installed under a name (entry points `alsys.methods`)."""


_Method = (
    PlainMethod
    | RampMethod
    | UDDMethod
    | TorsionScanMethod
    | MetadynamicsMethod
    | ReplicaExchangeMethod
    | NormalModesMethod
    | PluginMethod
)
ExplorationMethod = Annotated[_Method, Field(discriminator="kind"), plugin_named(METHODS, _Method)]
