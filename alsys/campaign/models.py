"""Versions of a campaign's model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alsys.arguments import checked
from alsys.campaign.folder import CampaignFolder, read_status
from alsys.errors import InputError

if TYPE_CHECKING:
    from alsys.interop.calculator import AlsysCalculator


@dataclass(frozen=True, slots=True)
class CampaignModel:
    """One version.

    Attributes:
        version: Its number.
        path: Folder of its bundle.
        n_labels: Labels that it was fitted to.
        is_champion: Whether it is the best by now.
        facts: All that the status says of it: verdict, reason, errors (eV/Angstrom).
    """

    version: int
    path: Path
    n_labels: int
    is_champion: bool
    facts: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """As its folder: ``v0004``."""
        return f"v{self.version:04d}"

    @checked
    def calculator(self, **options: Any) -> AlsysCalculator:
        """An ASE calculator.

        Args:
            options: Of `alsys.load_calculator`: threads, device, dtype, compile, members, on_distrust.

        Raises:
            InputError: The bundle is gone or damaged.
        """
        from alsys.interop.calculator import load_calculator

        return load_calculator(self.path, **options)


def version_number(said: object) -> int | None:
    """The version that ``"v0004"``, ``"v4"``, ``"4"`` or 4 means; None for anything else."""
    match = re.fullmatch(r"[vV]?(\d{1,9})", str(said)) if isinstance(said, str | int) else None
    return None if match is None else int(match[1])


class CampaignModels(Mapping[str, CampaignModel]):
    """Versions by name (``"v0004"``, ``"v4"``) or number, oldest first, as the log had them when this was made.

    Args:
        directory: The campaign.
    """

    def __init__(self, directory: CampaignFolder) -> None:
        status: Mapping[str, Any] = read_status(directory)
        self._place = directory.path
        self._champion = int(status["champion"] or 0)
        self._models = {
            f"v{facts['version']:04d}": CampaignModel(
                version=facts["version"],
                path=directory.models / f"v{facts['version']:04d}",
                n_labels=facts["n_labels"],
                is_champion=facts["version"] == self._champion,
                facts=facts,
            )
            for facts in status["models"]
            if not facts.get("is_lost")
        }

    def __getitem__(self, key: str | int) -> CampaignModel:
        try:
            return self._models[f"v{version_number(key) or 0:04d}"]
        except KeyError:
            remedy = f"there are {', '.join(list(self._models)[-5:])}" if self._models else "it has none yet"
            raise InputError(
                "no such version", source=str(self._place), field="models", value=key, remedy=remedy
            ) from None

    def get(self, key: str | int, default: Any = None) -> Any:
        """A version, or `default` where there is no such one."""
        return self._models.get(f"v{version_number(key) or 0:04d}", default)

    def __contains__(self, key: object) -> bool:
        return f"v{version_number(key) or 0:04d}" in self._models

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __repr__(self) -> str:
        return f"<CampaignModels {', '.join(self._models)}>"

    @property
    def champion(self) -> CampaignModel:
        """The best by now.

        Raises:
            InputError: There is none yet.
        """
        if not self._champion:
            raise InputError("has no champion yet", source=str(self._place), remedy="let it run until its first model")
        return self[self._champion]
