"""Bundles of a campaign, in `models/v0001`, `models/v0002`, ... ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from alsys.control.state.records import ModelRecord
from alsys.errors import AlsysError
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import bundle_digest, check_bundle, read_bundle, write_bundle
from alsys.training.base import TrainedCommittee


def bundle_name(version: int) -> str:
    """Folder name of a version."""
    return f"v{version:04d}"


class BundleFolder:
    """Bundles on a file system.

    Args:
        directory: The campaign's `models` folder.
        models: Versions in the campaign's log, with the digests of their bundles. A bundle that is not there was cut
            off before its event was written; it is replaced.
    """

    def __init__(self, directory: Path, models: Mapping[int, ModelRecord]) -> None:
        self._directory = directory
        self._models = models

    def path(self, version: int) -> Path:
        """Where a version's bundle is."""
        return self._directory / bundle_name(version)

    def write(self, trained: TrainedCommittee, card: Mapping[str, object]) -> str:
        """Writes a bundle atomically, with the card and the calibration of the random arm; returns its digest."""
        version = trained.state.version
        path = self.path(version)
        if path.exists() and version not in self._models:
            shutil.rmtree(path)
        calibration = json.dumps([[float(d), float(e)] for d, e in trained.calibration])
        write_bundle(path, trained.state, card, {"calibration.json": calibration.encode()})
        return bundle_digest(path)

    def has(self, version: int) -> bool:
        """Whether a version's bundle is there, sound, and the one that the log names."""
        try:
            self.read(version)
        except (AlsysError, OSError):
            return False
        return True

    def read(self, version: int) -> CommitteeState:
        """Reads a bundle, checking its digests."""
        path, record = self.path(version), self._models.get(version)
        check_bundle(path, version, record.digest if record is not None else "")
        return read_bundle(path)
