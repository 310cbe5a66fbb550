"""Small campaigns with models to deliver, without a driver."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alsys.config import CampaignConfig, parse_config
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import write_bundle
from alsys.tracking.mlflow import list_models
from alsys.tracking.outbox import Outbox


@dataclass(frozen=True)
class Campaign:
    """A campaign folder with bundles and an outbox."""

    directory: Path
    config: CampaignConfig

    @property
    def outbox(self) -> Outbox:
        return Outbox.of(self.directory)

    @property
    def uri(self) -> str:
        assert self.config.tracking.uri is not None
        return self.config.tracking.uri

    def make_bundle(self, version: int, seed: int | None = None) -> None:
        rng = np.random.default_rng(version if seed is None else seed)
        n_basis = 8
        members = tuple(
            {"coefficients": rng.normal(size=(3, n_basis)), "shifts": np.array([-1.0, -2.0])} for _ in range(3)
        )
        spec = {"elements": ["H", "O"], "r_max": 4.0, "n_basis": n_basis}
        card = {
            "version": version,
            "parent": version - 1,
            "head_seq": 7 * version,
            "n_labels": 10 * version,
            "dataset_digest": f"{version:032x}",
            "level_of_theory": {"engine": "analytic"},
            "metrics": {"force_mae_random_arm": 0.5 / version, "n_random": 4.0},
        }
        write_bundle(
            self.directory / "models" / f"v{version:04d}", CommitteeState(version, "pair", spec, members), card
        )

    def publish(self, version: int) -> None:
        self.make_bundle(version)
        self.outbox.put_publish(version, {"version": version})


def make_campaign(folder: Path, name: str, uri: str) -> Campaign:
    config = parse_config(
        {
            "name": name,
            "systems": [{"name": "water", "molecule": "H2O"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "pair"},
            "tracking": {"uri": uri, "experiment": "tests"},
        }
    )
    folder.mkdir(parents=True)
    (folder / "campaign.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    return Campaign(folder, config)


def aliases_of(name: str, uri: str) -> dict[str, int]:
    return {alias: version.version for version in list_models(name, uri=uri) for alias in version.aliases}
