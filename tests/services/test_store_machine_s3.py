"""The machine of `tests/property` with its store on an S3 server."""

from __future__ import annotations

import itertools
from typing import ClassVar

import pytest
from hypothesis import settings

from services.s3 import objects_at
from support.store_machine import SETTINGS, ObjectsPlace, Place, StoreMachine

PREFIXES = itertools.count()


class OnS3(StoreMachine):
    endpoint: ClassVar[str]

    def make_place(self) -> Place:
        return ObjectsPlace(objects_at(self.endpoint, f"machine-{next(PREFIXES)}"))


@pytest.fixture(scope="module", autouse=True)
def _server(server: str) -> None:
    OnS3.endpoint = server


OnS3.TestCase.settings = settings(SETTINGS, max_examples=8)
TestStoreOnS3 = pytest.mark.timeout(900)(OnS3.TestCase)
