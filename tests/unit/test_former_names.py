"""Scripts that were written for former names of modules still run."""

from __future__ import annotations

from importlib import import_module

import pytest

FORMER = {
    "alsys.exploration.builders": ("alsys.systems.builders", ["build_frame", "build_starts"]),
    "alsys.interop.extxyz": ("alsys.interop.extxyz_files", ["read_labelled", "export_extxyz"]),
    "alsys.interop.proof": ("alsys.interop.unit_check", ["Sample", "examine", "judge"]),
}


@pytest.mark.parametrize("name", FORMER)
def test_a_former_name_gives_the_same(name: str) -> None:
    today, members = FORMER[name]
    for member in members:
        assert getattr(import_module(name), member) is getattr(import_module(today), member)
