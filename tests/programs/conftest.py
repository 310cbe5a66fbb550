"""A small committee, exported to each program; the programs are installed by `make test-programs`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from alsys.cli import main
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import write_bundle

SPEC: dict[str, Any] = {
    "elements": ["H", "C", "O"], "r_max": 4.0, "num_layers": 1, "l_max": 1, "num_features": 4, "parity": True,
    "dtype": "float64", "avg_num_neighbors": 5.0,
}  # fmt: skip
BOUND = {
    "force_bound_factor": 2.0, "force_bound_exponent": 1.0, "force_bound_probability": 0.9,
    "force_bound_deviation": 99.0, "force_mae_random_arm": 0.05, "n_random": 9.0,
}  # fmt: skip


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two members that know methanol's elements, with a bound."""
    from alsys.potentials.nequip import build_model, weights_of

    members = [weights_of(build_model(SPEC, seed=seed)) for seed in range(2)]
    for k, member in enumerate(members):
        member["model.func.per_type_energy_scale_shift.shifts"] = np.array([[-13.0], [-1000.0], [-2000.0 - k]])
    state = CommitteeState(3, "nequip", SPEC, tuple(members), surroundings=frozenset({"C:HHHO", "H:C", "H:O", "O:CH"}))
    return write_bundle(tmp_path_factory.mktemp("models") / "b", state, {"metrics": BOUND})


@pytest.fixture(scope="session")
def exported(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The folder in which an export of a kind has a name; each is made once."""
    made: dict[str, Path] = {}

    def export(kind: str, name: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            assert main(["models", "export", str(bundle), str(made[kind] / name), "--to", kind]) == 0
        return made[kind]

    return export


@pytest.fixture
def atoms() -> Atoms:
    """Methanol out of its minimum, in the middle of a box that is not periodic."""
    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=3)
    atoms.center(vacuum=4.0)
    return atoms
