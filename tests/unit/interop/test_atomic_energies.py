"""Energies of atoms: they add up, are local, and are there where a model has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError

from alsys.errors import InputError
from alsys.interop.calculator import load_calculator
from alsys.potentials.atomic_energies import AtomicEnergies
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import write_bundle
from support.networks import random_state


def pairs() -> CommitteeState:
    rng = np.random.default_rng(1)
    shifts = np.array([-1.0, -5.0, -2.0])
    members = tuple({"coefficients": rng.normal(size=(6, 8)), "shifts": shifts} for _ in range(3))
    return CommitteeState(4, "pair", {"elements": ["H", "C", "O"], "r_max": 4.0, "n_basis": 8}, members)


@pytest.mark.parametrize("kind", ["pair", "nequip"])
def test_they_add_up_and_atoms_out_of_reach_change_nothing(tmp_path: Path, kind: str) -> None:
    bundle = write_bundle(tmp_path / "v0004", pairs() if kind == "pair" else random_state(), {})
    calculator = load_calculator(bundle)
    found = []
    for atoms in (methanol := molecule("CH3OH"), water := molecule("H2O"), methanol + shifted(water, 40.0)):
        atoms.calc = calculator
        energies = atoms.get_potential_energies()
        assert energies.shape == (len(atoms),)
        assert energies.sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        found.append(energies)
    np.testing.assert_allclose(found[2], np.concatenate(found[:2]), atol=1e-9)
    assert np.ptp(found[0][methanol.numbers == 1]) > 1e-6, "not the energy divided by the number of atoms"


def shifted(atoms: Atoms, by: float) -> Atoms:
    copy = atoms.copy()
    copy.positions += by
    return copy


def test_energies_of_states_are_shared(tmp_path: Path) -> None:
    """They are no atom's own, and the sum is the energy all the same."""
    state = random_state(states=[[0, 1], [1, 2]])
    members = tuple({**member, "state_energies": np.array([0.0, 3.0])} for member in state.members)
    bundle = write_bundle(tmp_path / "v0001", replace(state, members=members), {})
    water = molecule("H2O")
    water.info |= {"charge": 1, "multiplicity": 2}
    water.calc = load_calculator(bundle)
    with pytest.warns(UserWarning, match="nobody has recorded"):
        assert water.get_potential_energies().sum() == pytest.approx(water.get_potential_energy(), abs=1e-9)


def test_a_difference_has_none(tmp_path: Path) -> None:
    baseline = {"engine": "tblite", "method": "GFN1-xTB", "accuracy": 1.0}
    state = replace(random_state(), baseline=baseline)
    water = molecule("H2O")
    water.calc = load_calculator(write_bundle(tmp_path / "v0001", state, {}))
    with pytest.raises(PropertyNotImplementedError, match="baseline"):
        water.get_potential_energies()
    assert np.isfinite(water.get_potential_energy())
    with pytest.raises(InputError, match="baseline"):
        AtomicEnergies(state)
