"""What a new committee must show before explorers and users get it: the section `promotion` of a campaign file.

All of it is operational: limits may change at a restart, and then hold for versions published from there on. What was
decided stays decided, since decisions are in the log.
"""

from __future__ import annotations

from alsys.config.section import Section, operational

MODEL_TESTS_SHARE = 0.1
"""Most of the time for a fit that goes into its model tests."""


class PromotionConfig(Section):
    """How a new committee is examined, and what it must not fall short of to become champion."""

    examine: bool = operational(
        True, description="Compare per system, check coverage and run dynamics with each new committee."
    )
    budget_s: float = operational(
        10.0,
        gt=0,
        description="Seconds for the dynamics, part of those of a fit and at most a tenth of them.",
    )
    walkers: int = operational(
        8, ge=1, le=1000, description="Walkers at constant energy, and as many hot ones; at least one of each system."
    )
    max_atoms: int = operational(600, ge=2, le=100_000, description="Most atoms of all these walkers together.")
    length: float = operational(250.0, gt=0, le=1e6, description="Length of these runs, fs, if the budget allows it.")
    hot_factor: float = operational(
        1.25, ge=1, le=10, description="Temperature of hot walkers, as a factor on the highest of exploration."
    )
    survival: float = operational(
        0.9,
        ge=0,
        le=1,
        description="Share of walkers that must reach the end with their bonds, in bounds and finite.",
    )
    drift: float = operational(
        0.02, gt=0, description="Largest drift of the total energy at constant energy, eV per atom and ps."
    )
    coverage_tolerance: float = operational(
        0.1,
        ge=0,
        le=1,
        description="How much less than exploration.trust.probability the calibrated band may cover.",
    )
    tolerated_loss: float = operational(
        0.05, ge=0, le=1, description="By how much the error of one system may grow, as a share of the champion's."
    )
    least_skill: float = operational(
        0.1, ge=0, lt=1, description="Share of the variance of unseen forces that any version must explain."
    )
