"""Where a registered model's data are, for MLflow: ``mlflow.data.get_source(run.inputs.dataset_inputs[0]).load()``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.data.dataset_source import DatasetSource

from alsys.errors import InputError
from alsys.interop.mlflow_settings import SOURCE_TYPE
from alsys.store.objects import is_url

if TYPE_CHECKING:
    from alsys.campaign.dataset import Dataset


class CampaignSource(DatasetSource):  # type: ignore[misc]
    """One version of the data of a campaign.

    Args:
        campaign: Its folder, or the URL of its mirror; empty where a model of an older alsys does not say it.
        version: Sequence number of a commit; None for the newest.
    """

    def __init__(self, campaign: str, version: int | None = None) -> None:
        self.campaign, self.version = campaign, version

    @staticmethod
    def _get_source_type() -> str:
        return SOURCE_TYPE

    def load(self) -> Dataset:
        """The live labels of that version with their frames, as of `alsys.open_dataset`.

        Raises:
            InputError: The campaign is not there, or not any more.
        """
        from alsys.campaign.dataset import open_dataset

        if not self.campaign:
            raise InputError(
                "does not say where its campaign is", field="source", value=self.to_dict(),
                remedy="alsys.open_dataset(FOLDER, version=...) with the folder that you know",
            )  # fmt: skip
        return open_dataset(self.campaign, self.version)

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        place = str(raw_source) if isinstance(raw_source, str | Path) else ""
        return is_url(place) or (bool(place) and (Path(place) / "campaign.json").is_file())

    @classmethod
    def _resolve(cls, raw_source: Any) -> CampaignSource:
        place = str(raw_source)
        return cls(place if is_url(place) else str(Path(place).resolve()))

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible."""
        return {"campaign": self.campaign, "version": self.version}

    @classmethod
    def from_dict(cls, source_dict: dict[str, Any]) -> CampaignSource:
        """As `to_dict` wrote it, or an older alsys (``seq``)."""
        version = source_dict.get("version", source_dict.get("seq"))
        return cls(str(source_dict.get("campaign") or ""), None if version is None else int(version))
