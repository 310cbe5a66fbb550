"""What all tests share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

HEAVY = re.compile(r"torch|nequip|pyscf|mlflow|import ray|skala|tblite|alsys\.cli|mark\.thorough", re.IGNORECASE)
"""What a file names that `make test-fast` leaves out."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make test-fast` does not even import what it leaves out."""
    if config.option.markexpr == "fast" and collection_path.suffix == ".py":
        return not is_fast(collection_path) or None
    return None


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes, those of a file share one, and so do all that start Ray; these begin."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
        if is_fast(item.path) and not any(item.get_closest_marker(name) for name in ("ray", "dft", "gpu", "slow")):
            item.add_marker(pytest.mark.fast)


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
