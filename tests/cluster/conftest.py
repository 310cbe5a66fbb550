"""Clusters for tests; where none can be made, their tests are skipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.machines import Network, why_not
from cluster.rig import Cluster


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """Machines without Ray."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    network = Network(tmp_path)
    yield network
    network.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that has not been started."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with Cluster(tmp_path) as made:
        yield made
