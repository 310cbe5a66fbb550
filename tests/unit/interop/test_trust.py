"""A calculator says how wrong it may be, refuses what it cannot know, and its results survive files."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io.trajectory import Trajectory

import alsys
from alsys.dynamics.surroundings import Surroundings
from alsys.errors import InputError
from alsys.frames import Frame
from alsys.interop.calculator import AlsysCalculator
from alsys.interop.trust import UntrustedFrame, check_apart
from alsys.metrics import Metrics
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import bundle_digest, write_bundle
from alsys.potentials.calibration import Band
from alsys.potentials.force_bound import ForceBound

N_BASIS = 8
WATER = frozenset({"O:HH", "H:O"})


def state(spread: float = 0.1, n_members: int = 3) -> CommitteeState:
    rng = np.random.default_rng(1)
    common = rng.normal(size=(3, N_BASIS))
    members = tuple(
        {"coefficients": common + spread * rng.normal(size=(3, N_BASIS)), "shifts": np.array([-1.0, -2.0])}
        for _ in range(n_members)
    )
    return CommitteeState(
        7, "pair", {"elements": ["H", "O"], "r_max": 4.0, "n_basis": N_BASIS}, members, surroundings=WATER
    )


def bundle(folder: Path, bound: ForceBound | None, of: CommitteeState | None = None) -> Path:
    metrics = {} if bound is None else dict(bound.metrics().items())
    return write_bundle(folder / "model", of or state(), {"metrics": metrics})


def deviation_of(path: Path, atoms: Atoms) -> float:
    copy = atoms.copy()
    copy.calc = alsys.load_calculator(path)
    copy.get_forces()
    return float(copy.calc.results["max_force_deviation"])


@pytest.fixture
def water() -> Atoms:
    return molecule("H2O")


@pytest.fixture
def known(tmp_path: Path, water: Atoms) -> Path:
    """A model that was measured on deviations up to a little more than those of water."""
    largest = 1.1 * deviation_of(bundle(tmp_path / "bare", None), water)
    return bundle(tmp_path, ForceBound(Band(1.5, 0.8), 0.9, largest))


def rattled(path: Path, atoms: Atoms) -> Atoms:
    """The same, where the members deviate more."""
    wanted = 1.2 * deviation_of(path, atoms)
    for seed in range(200):
        far = atoms.copy()
        far.rattle(0.12, seed=seed)
        if deviation_of(path, far) > wanted:
            return far
    raise AssertionError("none of 200")


def test_results_have_a_bound_for_each_atom(known: Path, water: Atoms) -> None:
    water.calc = alsys.load_calculator(known)
    water.get_forces()
    results = water.calc.results
    np.testing.assert_allclose(results["force_bound"], 1.5 * results["forces_std"] ** 0.8)
    assert results["is_trusted"] is True
    assert water.calc.get_property("is_trusted") is True


def test_what_is_beyond_the_bound_is_said_as_asked(known: Path, water: Atoms) -> None:
    far = rattled(known, water)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        far.calc = alsys.load_calculator(known)
        forces = far.get_forces()
    assert far.calc.results["is_trusted"] is False
    far.calc = alsys.load_calculator(known, on_distrust="warn")
    with pytest.warns(UserWarning, match="nobody knows how wrong"):
        far.get_forces()
    far.calc = alsys.load_calculator(known, on_distrust="raise")
    with pytest.raises(UntrustedFrame, match=r"atom \d \([HO]\)"):
        far.get_forces()
    np.testing.assert_array_equal(far.calc.results["forces"], forces)


def test_a_model_without_a_bound_says_none_and_cannot_be_asked_to_judge(tmp_path: Path, water: Atoms) -> None:
    path = bundle(tmp_path, None)
    water.calc = alsys.load_calculator(path)
    water.get_forces()
    assert "force_bound" not in water.calc.results
    with pytest.raises(InputError, match="nobody has measured its errors"):
        alsys.load_calculator(path, on_distrust="warn")


def test_some_of_the_members(known: Path, water: Atoms) -> None:
    water.calc = alsys.load_calculator(known, members=2)
    water.get_forces()
    assert water.calc.results["energy_std"] > 0
    assert "force_bound" not in water.calc.results, "it is that of all members"
    with pytest.raises(InputError, match="of all its members"):
        alsys.load_calculator(known, members=1, on_distrust="raise")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"members": 4}, "members"), ({"members": 0}, "members"), ({"members": "some"}, "members"),
        ({"members": True}, "members"), ({"on_distrust": "stop"}, "on_distrust"), ({"compile": "yes"}, "compile"),
        ({"dtype": "float16"}, "dtype"), ({"device": "cuda:77"}, None),
    ],
)  # fmt: skip
def test_options_that_are_none(known: Path, options: dict[str, Any], field: str | None) -> None:
    if field is None:
        alsys.load_calculator(known, **options)  # pairs are evaluated on the CPU whatever it is
        return
    with pytest.raises(InputError) as caught:
        alsys.load_calculator(known, **options)
    assert caught.value.field == field
    assert caught.value.remedy


def test_atoms_on_top_of_each_other_are_refused(known: Path, water: Atoms) -> None:
    fused = water + Atoms("H", [water.positions[1] + 1e-3])
    fused.calc = alsys.load_calculator(known)
    with pytest.raises(InputError, match=r"atoms 1 \(H\) and 3 \(H\) are 0\.00\d Angstrom apart"):
        fused.get_forces()
    crystal = Atoms("OH", [[0, 0, 0.05], [0, 0, 4.95]], cell=[5, 5, 5], pbc=True)
    with pytest.raises(InputError, match="apart"):
        check_apart(Surroundings.of(Frame(crystal.numbers, crystal.positions, crystal.cell.array, crystal.pbc)))
    check_apart(Surroundings.of(Frame.molecule(np.array([1]), np.zeros((1, 3)))))
    check_apart(Surroundings.of(Frame.molecule(molecule("N2").numbers, molecule("N2").positions)))


def test_another_molecule_is_not_trusted_although_members_agree(tmp_path: Path) -> None:
    path = bundle(tmp_path, ForceBound(Band(1.5, 0.8), 0.9, 1e9))
    peroxide = molecule("H2O2")
    peroxide.calc = alsys.load_calculator(path, on_distrust="warn")
    with pytest.warns(UserWarning, match=r"\(O\) is bonded to HO, which no atom was"):
        peroxide.get_forces()
    assert peroxide.calc.results["is_trusted"] is False
    water = molecule("H2O")
    water.calc = alsys.load_calculator(path, on_distrust="raise")
    water.get_forces()
    assert water.calc.results["is_trusted"] is True


def test_surroundings_are_those_of_bonds() -> None:
    assert sorted(set(names(molecule("CH3OH")))) == ["C:HHHO", "H:C", "H:O", "O:CH"]
    assert set(names(molecule("C6H6"))) == {"C:CCH", "H:C"}
    assert names(Atoms("He")) == ["He:"]
    assert set(names(bulk("Cu", cubic=True))) == {"Cu:Cu+"}
    cut = molecule("CH3OH")
    cut.set_cell([8.0, 8.0, 8.0])
    cut.pbc = True
    cut.wrap()
    assert sorted(names(cut)) == sorted(names(molecule("CH3OH")))


def names(atoms: Atoms) -> list[str]:
    cell = atoms.cell.array if atoms.pbc.any() else np.zeros((3, 3))
    return Surroundings.of(Frame(atoms.numbers, atoms.positions, cell, atoms.pbc)).names()


def test_all_results_survive_files(known: Path, water: Atoms, tmp_path: Path) -> None:
    calculator = alsys.load_calculator(known)
    whole = calculator.annotated(water)
    assert water.info == {}, "a copy"
    ase.io.write(tmp_path / "w.xyz", whole)
    with Trajectory(tmp_path / "w.traj", "w") as trajectory:
        trajectory.write(calculator.annotated(water, has_arrays=False))
    for name in ("w.xyz", "w.traj"):
        again = ase.io.read(tmp_path / name)
        assert isinstance(again, Atoms)
        np.testing.assert_allclose(again.get_forces(), calculator.results["forces"], atol=1e-7)
        np.testing.assert_allclose(
            (again.arrays | again.info)["force_bound"], calculator.results["force_bound"], atol=1e-7
        )
        assert bool(again.info["is_trusted"]) is True
        assert again.info["alsys_version"] == 7
        assert again.info["alsys_digest"] == bundle_digest(known)


def test_a_database_knows_which_model_it_was(known: Path, water: Atoms, tmp_path: Path) -> None:
    water.calc = alsys.load_calculator(known)
    water.get_forces()
    with ase.db.connect(tmp_path / "a.db") as database:
        database.write(water)
        row = database.get(1)
    assert row.calculator == "alsys"
    assert row.calculator_parameters == {
        "model": str(known), "version": 7, "digest": bundle_digest(known), "n_members": 3,
    }  # fmt: skip
    assert AlsysCalculator(water.calc.committee).todict() == {}


def test_the_bound_covers_what_it_says_and_goes_through_metrics() -> None:
    rng = np.random.default_rng(0)
    deviations = [rng.lognormal(-3.0, 0.7, size=20) for _ in range(60)]
    errors = [np.abs(rng.normal(size=20)) * 2.0 * d for d in deviations]
    bound = ForceBound.measured(deviations[:40], errors[:40], 0.9)
    assert bound is not None
    covered = np.mean([(e <= bound.band.error(d)).mean() for d, e in zip(deviations[40:], errors[40:], strict=True)])
    assert 0.85 < covered < 0.96
    assert ForceBound.of(Metrics.read(dict(bound.metrics().items()))) == bound
    assert ForceBound.of(Metrics()) is None
    assert not bound.trusts(np.array([bound.largest_deviation * 1.01]))
    assert not bound.trusts(np.array([np.nan]))
    assert ForceBound.measured(deviations[:7], errors[:7]) is None, "too few frames"
    alone = [np.zeros(20)] * 20
    assert ForceBound.measured(alone, errors[:20]) is None, "one model has no deviations"


def test_double_precision_is_that_of_the_weights(known: Path) -> None:
    from alsys.potentials.factory import chosen

    network = CommitteeState(1, "nequip", {"dtype": "float32"}, ({"w": np.ones(2, np.float32), "n": np.arange(2)},))
    cast = chosen(network, dtype="float64")
    assert cast.spec["dtype"] == "float64"
    assert cast.members[0]["w"].dtype == np.float64
    assert cast.members[0]["n"].dtype == network.members[0]["n"].dtype
    assert chosen(replace(network, spec={}), dtype="float64").members[0]["w"].dtype == np.float32
