"""Labelled frames with Morse energies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from alsys.store.base import Snapshot
from support import snapshots

MakeSnapshot = Callable[..., Snapshot]


@pytest.fixture(scope="session")
def make_snapshot() -> MakeSnapshot:
    return snapshots.make_snapshot
