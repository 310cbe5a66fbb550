"""Where tests run in several processes, those of a file share one, and with it their fixtures."""

from __future__ import annotations

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="the tests run in one process")
def test_tests_are_grouped_by_file(request: pytest.FixtureRequest) -> None:
    """The group is at the end of a test's identity, by which it is given out."""
    assert request.node.nodeid.endswith(f"@{request.node.path}")
