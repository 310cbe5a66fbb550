"""Skala: functionals in torch give what PySCF's own give; a model file runs only where it is the stated one."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from pydantic import ValidationError

from alsys.config.engines import SkalaLabeling
from alsys.config.labeling import PySCFLabeling
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import Frame
from alsys.labeling.base import Labeler
from alsys.labeling.factory import build_labeler
from alsys.labeling.skala import auxbasis_of
from alsys.labels import Label
from alsys.testing.labelers import LabelerContract

needs_skala = pytest.mark.skipif(importlib.util.find_spec("skala") is None, reason="skala is not installed")
WATER = Frame.molecule(
    molecule("H2O").numbers, molecule("H2O").positions + np.random.default_rng(3).normal(0, 0.05, (3, 3))
)


def config(**changes: Any) -> SkalaLabeling:
    return SkalaLabeling(**{"kind": "skala", "functional": "pbe", "basis": "sto-3g", "dispersion": False, **changes})


@needs_skala
@pytest.mark.dft
class TestSkala(LabelerContract):
    frame = WATER
    force_tolerance = 5e-3
    energy_tolerance = 1e-3

    def make(self) -> Labeler:
        return build_labeler(config())

    def make_other(self) -> Labeler:
        return build_labeler(config(functional="lda"))


@needs_skala
@pytest.mark.dft
def test_pbe_in_torch_is_pbe_of_pyscf() -> None:
    base = {"basis": "sto-3g", "density_fit": False, "grid_level": 3}
    ours = build_labeler(config(**base))
    theirs = build_labeler(PySCFLabeling(**{"kind": "pyscf", "xc": "pbe", **base}))
    one, other = ours.label(WATER), theirs.label(WATER)
    ours.close()
    theirs.close()
    assert isinstance(one, Label)
    assert isinstance(other, Label)
    assert one.energy == pytest.approx(other.energy, abs=1e-3)
    np.testing.assert_allclose(one.forces, other.forces, atol=2e-2)  # PySCF's are without grid response


@needs_skala
def test_a_correction_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="has no D3 parameters"):
        build_labeler(config(functional="lda", dispersion=True)).check(WATER)


@needs_skala
def test_a_model_file_is_opened_only_with_the_stated_digest(tmp_path: Path) -> None:
    path = tmp_path / "model.fun"
    path.write_bytes(b"not a model")
    wrong = config(functional=None, model_file=str(path), sha256="0" * 64)
    found = hashlib.sha256(b"not a model").hexdigest()
    with pytest.raises(InputError, match=f"labeling.sha256: the file has the digest {found}"):
        build_labeler(wrong).check(WATER)
    with pytest.raises(InputError, match=r"labeling\.model_file: cannot be read"):
        build_labeler(config(functional=None, model_file=str(tmp_path / "none"), sha256="0" * 64)).check(WATER)


@pytest.mark.skipif(importlib.util.find_spec("skala") is not None, reason="skala is installed")
def test_a_missing_package_is_a_problem_of_the_environment() -> None:
    with pytest.raises(EnvironmentProblem, match="extra `skala`"):
        build_labeler(config()).check(WATER)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"functional": None}, "exactly one of functional, sha256"),
        ({"sha256": "0" * 64}, "exactly one of functional, sha256"),
        ({"functional": None, "sha256": "0" * 64}, "belong together"),
        ({"functional": None, "sha256": "xyz", "model_file": "x"}, "sha256"),
    ],
)
def test_a_functional_is_named_or_given_with_its_digest(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_level_follows_the_digest_not_the_path() -> None:
    one = config(functional=None, model_file="a.fun", sha256="1" * 64)
    same = config(functional=None, model_file="b.fun", sha256="1" * 64)
    other = config(functional=None, model_file="a.fun", sha256="2" * 64)
    levels = [build_labeler(c).level for c in (one, same, other)]
    assert levels[0] == levels[1] != levels[2]
    assert auxbasis_of(config(basis="def2-svp")) == "def2-universal-jkfit"
    assert auxbasis_of(config(basis="def2-svp", density_fit=False)) is None


def test_cells_and_heavy_elements_are_refused() -> None:
    box = Frame(WATER.numbers, WATER.positions, 9 * np.eye(3), np.ones(3, dtype=np.bool_))
    with pytest.raises(InputError, match="for molecules"):
        build_labeler(config()).check(box)
    iodine = Frame.molecule([53, 1], [[0, 0, 0], [0, 0, 1.6]])
    with pytest.raises(InputError, match="end at krypton"):
        build_labeler(config(basis="def2-svp")).check(iodine)
