"""Servers, each for one module."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest

from services.s3 import s3_server

HAS_MOTO = "MOTO_SERVER_PYTHON" in os.environ or importlib.util.find_spec("moto") is not None


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An S3 server; its URL."""
    if not HAS_MOTO:
        pytest.skip("moto is not installed: `make test-services` installs it")
    with s3_server() as url:
        yield url
