"""One machine, three stores: a local disk, memory, and object storage in memory (on S3 in `tests/services`)."""

from __future__ import annotations

from alsys.store.objects import Objects
from support.store_machine import SETTINGS, LocalPlace, MemoryPlace, ObjectsPlace, Place, StoreMachine


class OnDisk(StoreMachine):
    def make_place(self) -> Place:
        return LocalPlace()


class InMemory(StoreMachine):
    def make_place(self) -> Place:
        return MemoryPlace()


class InObjects(StoreMachine):
    def make_place(self) -> Place:
        return ObjectsPlace(Objects.at("memory:///"))


OnDisk.TestCase.settings = InMemory.TestCase.settings = InObjects.TestCase.settings = SETTINGS
TestStoreOnDisk = OnDisk.TestCase
TestStoreInMemory = InMemory.TestCase
TestStoreInObjects = InObjects.TestCase
