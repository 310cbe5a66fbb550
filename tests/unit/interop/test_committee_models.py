"""A committee as one NequIP model is the mean of its members, with their spread."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.cli import main
from alsys.frames import Frame
from alsys.interop.committee_models import ModelCommittee, mean_model, spread_model
from alsys.interop.nequip_export import periodic
from alsys.potentials.architectures import build_model
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.bundle import write_bundle
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import weights_of

SPEC: dict[str, Any] = {
    "elements": ["H", "O"], "r_max": 3.5, "num_layers": 1, "l_max": 1, "num_features": 4, "parity": True,
    "dtype": "float64", "avg_num_neighbors": 5.0,
}  # fmt: skip
SHIFTS = "model.func.per_type_energy_scale_shift.shifts"


@pytest.fixture(scope="module")
def state() -> CommitteeState:
    members = [weights_of(build_model(SPEC, seed=seed)) for seed in range(3)]
    for k, member in enumerate(members):
        member[SHIFTS] = np.array([[-13.0 - k], [-2000.0]])
    return CommitteeState(3, "nequip", SPEC, tuple(members))


def batch() -> FrameBatch:
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=1)
    frame = Frame.molecule(atoms.numbers, atoms.positions)
    return FrameBatch.of([frame, periodic(frame)])


@pytest.mark.parametrize("is_batched", [False, True])
def test_mean_spread_and_stress_are_those_of_the_committee(state: CommitteeState, is_batched: bool) -> None:
    expected = build_committee(state).evaluate(batch())
    found = ModelCommittee(spread_model(state), state, is_batched=is_batched).evaluate(batch())
    for name in ("energy", "energy_std", "forces", "force_deviation", "frame_deviation", "stress"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-9, err_msg=name)
    assert found.energy_std.min() > 0.1
    mean = ModelCommittee(mean_model(state), state, is_batched=is_batched).evaluate(batch())
    np.testing.assert_allclose(mean.forces, expected.forces, atol=1e-9)
    np.testing.assert_allclose(mean.stress, expected.stress, atol=1e-9)
    assert np.isnan(mean.force_deviation).all()


def test_a_package_of_the_mean_runs_without_alsys(state: CommitteeState, tmp_path: Path) -> None:
    import subprocess
    import sys

    write_bundle(tmp_path / "b", state, {})
    assert main(["models", "export", str(tmp_path / "b"), str(tmp_path / "m.nequip.zip")]) == 0
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); sys.modules['alsys'] = None\n"
        "from ase.build import molecule; from nequip.integrations.ase import NequIPCalculator as C\n"
        "a = molecule('H2O'); a.rattle(0.05, seed=1)\n"
        f"a.calc = C._from_saved_model({str(tmp_path / 'm.nequip.zip')!r}, chemical_species_to_atom_type_map=True)\n"
        "print(float(a.get_potential_energy()), *a.get_forces().ravel())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    numbers = np.array(done.stdout.splitlines()[-1].split(), dtype=float)
    expected = build_committee(state).evaluate(batch())
    assert numbers[0] == pytest.approx(expected.energy[0], abs=1e-8)
    np.testing.assert_allclose(numbers[1:].reshape(-1, 3), expected.forces[:3], atol=1e-8)


def test_allegro_makes_a_mean_too() -> None:
    pytest.importorskip("allegro")
    spec = {
        "architecture": "allegro", "elements": ["H", "O"], "r_max": 4.0, "num_layers": 1, "l_max": 1, "parity": True,
        "num_scalar_features": 4, "num_tensor_features": 2, "embedding_mlp_depth": 1, "embedding_mlp_width": 4,
        "layer_mlp_depth": 1, "layer_mlp_width": 4, "readout_mlp_depth": 1, "readout_mlp_width": 4,
        "tp_path_channel_coupling": True, "dtype": "float64", "avg_num_neighbors": 5.0,
    }  # fmt: skip
    state = CommitteeState(1, "allegro", spec, tuple(weights_of(build_model(spec, seed=k)) for k in range(2)))
    expected = build_committee(state).evaluate(batch())
    found = ModelCommittee(spread_model(state), state).evaluate(batch())
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-9)
    one = dataclasses.replace(state, members=state.members[:1])
    found = ModelCommittee(mean_model(one), one).evaluate(batch())
    np.testing.assert_allclose(found.forces, build_committee(one).evaluate(batch()).forces, atol=1e-9)
