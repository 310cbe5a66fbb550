"""The shelf of a campaign: bundles in `models/v0001`, `models/v0002`, ... ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from alsys.errors import AlsysError
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.training.base import TrainedCommittee


def bundle_name(version: int) -> str:
    """Folder name of a version."""
    return f"v{version:04d}"


class BundleShelf:
    """Bundles on a file system.

    Args:
        directory: The campaign's `models` folder.
        is_published: Whether a version is in the campaign's log. A bundle that is not was cut off before its event
            was written; it is replaced.
    """

    def __init__(self, directory: Path, is_published: Callable[[int], bool]) -> None:
        self._directory = directory
        self._is_published = is_published

    def path(self, version: int) -> Path:
        """Where a version's bundle is."""
        return self._directory / bundle_name(version)

    def write(self, trained: TrainedCommittee, card: Mapping[str, object]) -> None:
        """Writes a bundle atomically, with the card and the calibration of the random arm."""
        version = trained.state.version
        path = self.path(version)
        if path.exists() and not self._is_published(version):
            shutil.rmtree(path)
        calibration = json.dumps([[float(d), float(e)] for d, e in trained.calibration])
        write_bundle(path, trained.state, card, {"calibration.json": calibration.encode()})

    def has(self, version: int) -> bool:
        """Whether a version's bundle is there and sound."""
        try:
            self.read(version)
        except (AlsysError, OSError):
            return False
        return True

    def read(self, version: int) -> CommitteeState:
        """Reads a bundle, checking its digests."""
        return read_bundle(self.path(version))
