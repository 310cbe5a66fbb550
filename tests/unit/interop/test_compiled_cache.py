"""Where a calculator keeps compiled networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.errors import InputError
from alsys.interop.calculator import load_calculator
from alsys.potentials.bundle import write_bundle
from alsys.potentials.compile_cache import default_folder, machine_tag
from support.networks import random_state


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "v0001", random_state(num_layers=1, num_features=4), {})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_packages_go_where_they_are_asked_to(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    water = molecule("H2O")

    def forces(**options: Any) -> np.ndarray:
        water.calc = load_calculator(bundle, **options)
        found: np.ndarray = water.get_forces()
        return found

    plain = forces(compile=False)
    np.testing.assert_allclose(forces(compile=True, cache=False), plain, atol=1e-9)
    assert not default_folder().exists()
    kept = tmp_path / "packages" / machine_tag()
    np.testing.assert_allclose(forces(compile=True, cache=tmp_path / "packages"), plain, atol=1e-9)
    (package,) = kept.glob("*.pt2")
    before = package.stat().st_mtime_ns
    np.testing.assert_allclose(forces(cache=str(tmp_path / "packages")), plain, atol=1e-9)
    assert package.stat().st_mtime_ns == before, "used, and not made again"
    assert not default_folder().exists()


def test_nothing_is_compiled_and_kept_without_being_asked(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    water = molecule("H2O")
    water.calc = load_calculator(bundle, cache=False)
    water.get_forces()
    assert not (tmp_path / "user").exists()


@pytest.mark.parametrize("cache", [3, None, b"x"])
def test_what_is_no_place_is_refused(bundle: Path, cache: Any) -> None:
    with pytest.raises(InputError, match="cache"):
        load_calculator(bundle, cache=cache)


def test_a_folder_that_cannot_be_made_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cache: cannot be made"):
        load_calculator(bundle, cache=tmp_path / "file")
