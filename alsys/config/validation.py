"""Section `validation` of the campaign file: which physics a model is held against, and how far that may go.

All of it is operational: it decides what is measured, never what the data or the models mean. Reference calculations
made for it are kept apart from the campaign's labels.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from alsys.config.section import Section, operational

Check = Literal[
    "parity", "learning", "calibration", "minima", "torsions", "bonds", "frequencies", "stability", "distances"
]
CHECKS: tuple[Check, ...] = get_args(Check)
"""All checks, in the order in which they are made: the cheap ones and those that are worth most come first."""


class ValidationConfig(Section):
    """What `alsys validate` measures."""

    checks: tuple[Check, ...] = operational(CHECKS, description="Checks to make.")
    at_end: bool = operational(
        False, description="Validate the champion when a campaign has finished; `alsys validate` does it at any time."
    )
    max_systems: int = operational(4, ge=1, description="Systems that are scanned and run: the first ones.")
    labels: int = operational(
        500, ge=0, description="New reference calculations of one run for minima, scans and frequencies."
    )
    workers: int = operational(1, ge=1, le=256, description="Reference calculations at the same time.")
    relax_force: float = operational(0.01, gt=0, description="Largest force at a minimum, eV/Angstrom.")
    relax_steps: int = operational(100, ge=1, description="Steps of a relaxation at most, a gradient each.")
    bond_range: tuple[float, float] = operational(
        (-0.15, 0.3), description="By how much bonds are compressed and stretched, Angstrom."
    )
    bond_points: int = operational(10, ge=3, le=200, description="Points of one bond scan.")
    torsion_points: int = operational(18, ge=6, le=360, description="Points of one full turn.")
    displacement: float = operational(0.01, gt=0, le=0.1, description="Finite difference of Hessians, Angstrom.")
    temperatures: tuple[Annotated[float, Field(gt=0, le=20_000)], ...] | None = operational(
        None, description="Temperatures of dynamics; default the lowest and the highest of `exploration.temperatures`."
    )
    walkers: int = operational(16, ge=2, le=100_000, description="Walkers of one run of dynamics.")
    time: float = operational(5000.0, gt=0, description="Length of dynamics, fs.")
    wall_s: float = operational(
        600.0, gt=0, description="Seconds for the dynamics of one system at one temperature; walkers then end alive."
    )
    bond_tolerance: float = operational(
        0.5, gt=0, description="Deviation of a bond from the start structure that ends a walk, Angstrom."
    )
    cheap_s: float = operational(
        0.05,
        ge=0,
        description="Labels faster than this are cheap enough for reference dynamics; 0 runs none. The model's own "
        "distances are measured in any case.",
    )
    reference_labels: int = operational(
        4000, ge=0, description="Calculations of one run of reference dynamics, where labels are cheap."
    )
    reference_walkers: int = operational(4, ge=2, description="Walkers of reference dynamics.")

    @field_validator("bond_range")
    @classmethod
    def _holds_zero(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not (-0.5 <= value[0] < 0.0 < value[1] <= 2.0):
            raise ValueError("must go from a compression (-0.5 or more) to a stretch (2 or less), in Angstrom")
        return value
