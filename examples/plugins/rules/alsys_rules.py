"""Three small parts for alsys: a method that pulls on two atoms, a selection rule, and a stop rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from alsys.control.stop_rules import CampaignView
from alsys.errors import InputError
from alsys.exploration.methods.base import Group, MethodOrder
from alsys.exploration.methods.plain import Plain
from alsys.frames import FloatArray


class Settings(BaseModel):
    """Base of settings: a misspelt one is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StretchSettings(Settings):
    """Of `Stretch`."""

    atoms: tuple[int, int] = Field((0, 1), description="Indices of the two atoms, from 0.")
    force: float = Field(0.3, gt=0, le=5, description="Largest force that pulls them apart, eV/Angstrom.")


class Stretch(Plain):
    """Molecular dynamics with a constant force between two atoms; each walker of a group has a force of its own."""

    name: ClassVar[str] = "stretch"
    settings_model = StretchSettings

    def __init__(self, temperatures: Sequence[float], n_walkers: int, atoms: tuple[int, int], force: float) -> None:
        super().__init__(temperatures, n_walkers)
        self._atoms = atoms
        self._forces: FloatArray = force * np.arange(1, n_walkers + 1) / n_walkers

    @staticmethod
    def build(settings: StretchSettings, order: MethodOrder) -> Stretch:
        """Refuses systems without these atoms."""
        if not 0 <= min(settings.atoms) < max(settings.atoms) < order.start.n_atoms:
            remedy = f"two different atoms from 0 to {order.start.n_atoms - 1}"
            raise InputError("are no pair of atoms", field="settings.atoms", value=settings.atoms, remedy=remedy)
        return Stretch(order.temperatures, order.n_walkers, settings.atoms, settings.force)

    def bias(self, group: Group) -> FloatArray:
        """Equal and opposite forces along the line between the two atoms."""
        i, j = self._atoms
        line = group.positions[:, j] - group.positions[:, i]
        pull = self._forces[:, None] * line / np.linalg.norm(line, axis=1, keepdims=True)
        forces = np.zeros_like(group.positions)
        forces[:, i], forces[:, j] = -pull, pull
        return forces


class FarSettings(Settings):
    """Of `FarAndUncertain`."""

    power: float = Field(1.0, ge=0, le=10, description="Of the uncertainty, beside the distance.")


class FarAndUncertain:
    """Each frame is the one with the largest distance to all labelled and chosen ones, times its uncertainty."""

    settings_model = FarSettings

    @staticmethod
    def select(
        settings: FarSettings, features: FloatArray, uncertainty: FloatArray, labelled: FloatArray, n: int, seed: int
    ) -> list[int]:
        """Pure, and without chance: the seed is not needed."""
        known = np.nanmax(uncertainty, initial=0.0)
        weight = np.where(np.isnan(uncertainty), known, uncertainty) ** settings.power
        distance = np.full(len(features), 1.0)
        if len(labelled):
            distance = np.linalg.norm(features[:, None] - labelled[None], axis=2).min(axis=1)
        chosen: list[int] = []
        for _ in range(n):
            score = weight * distance
            score[chosen] = -1.0
            chosen.append(int(np.argmax(score)))
            distance = np.minimum(distance, np.linalg.norm(features - features[chosen[-1]], axis=1))
        return chosen


class PlateauSettings(Settings):
    """Of `Plateau`."""

    patience: int = Field(3, ge=1, description="Versions without a gain after which the campaign may end.")
    gain: float = Field(0.05, ge=0, lt=1, description="Share of the best error that counts as a gain.")


class Plateau:
    """The campaign may end once versions in a row have not lowered the error on the random arm."""

    settings_model = PlateauSettings

    @staticmethod
    def why_stop(settings: PlateauSettings, view: CampaignView) -> str | None:
        """Versions without a random arm say nothing."""
        measured = [version.metrics.get("force_mae_random_arm") for version in view.versions]
        errors = [error for error in measured if error is not None]
        before, latest = errors[: -settings.patience], errors[-settings.patience :]
        if not before or min(latest) < (1.0 - settings.gain) * min(before):
            return None
        best = 1e3 * min(before)
        return f"no gain over {best:.1f} meV/Angstrom in {settings.patience} versions"
