"""What all tests share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from alsys.interop.mlflow_settings import servers_kept

HEAVY = re.compile(r"torch|nequip|pyscf|mlflow|import ray|skala|tblite|alsys\.cli|mark\.thorough", re.IGNORECASE)
"""What a file names that `make test-fast` leaves out."""
RAY = "ray"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make test-fast` does not even import what it leaves out."""
    if config.option.markexpr == "fast" and collection_path.suffix == ".py":
        return not is_fast(collection_path) or None
    return None


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes, those of a file share one, and so do all that start Ray.

    These begin; then files with a test that may take long, so that none is left for one process at the end.
    """
    long = {group_of(item) for item in items if item.get_closest_marker("timeout")}
    items.sort(key=lambda item: (group_of(item) != RAY, group_of(item) not in long))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
        if is_fast(item.path) and not any(item.get_closest_marker(name) for name in ("ray", "dft", "gpu", "slow")):
            item.add_marker(pytest.mark.fast)


def group_of(item: pytest.Item) -> str:
    """Tests of one group run in one process."""
    return RAY if item.get_closest_marker("ray") else str(item.path)


@lru_cache
def is_fast(path: Path) -> bool:
    """Whether a file holds unit tests that name nothing heavy and are not thorough."""
    return "unit" in path.parts and HEAVY.search(path.read_text()) is None


@pytest.fixture(scope="session", autouse=True)
def _state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Campaigns of tests are not remembered in the user's own state folder."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module", autouse=True)
def _mlflow_servers() -> Iterator[None]:
    """What a module's tests point MLflow at is not where the next module's campaigns have their models."""
    with servers_kept():
        yield
