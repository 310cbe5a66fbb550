"""The calculator is an ASE calculator, from a folder or a registry, and runs nothing that it downloads."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.optimize import BFGS

import alsys
from alsys.cli import main
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import Frame
from alsys.interop.calculator import AlsysCalculator, load_calculator
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.potentials.factory import build_committee
from alsys.states import SeenStates
from support.committees import HarmonicCommittee

N_BASIS = 8


def pair_state(version: int) -> CommitteeState:
    rng = np.random.default_rng(version)
    members = tuple({"coefficients": rng.normal(size=(3, N_BASIS)), "shifts": np.array([-1.0, -2.0])} for _ in range(3))
    return CommitteeState(version, "pair", {"elements": ["H", "O"], "r_max": 4.0, "n_basis": N_BASIS}, members)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "v0001", pair_state(1), {})


def test_results_are_those_of_the_committee(bundle: Path) -> None:
    atoms = molecule("H2O")
    atoms.calc = alsys.load_calculator(bundle)
    expected = build_committee(pair_state(1)).evaluate(FrameBatch.of([Frame.molecule(atoms.numbers, atoms.positions)]))
    assert atoms.get_potential_energy() == atoms.get_potential_energy(force_consistent=True) == expected.energy[0]
    np.testing.assert_array_equal(atoms.get_forces(), expected.forces)
    results = atoms.calc.results
    assert results["energy_std"] == expected.energy_std[0] > 0
    np.testing.assert_array_equal(results["forces_std"], expected.force_deviation)
    assert results["forces_std"].shape == (3,)
    assert results["max_force_deviation"] == expected.frame_deviation[0] == results["forces_std"].max()


def test_results_follow_the_atoms(bundle: Path) -> None:
    """ASE caches results; moving an atom must undo that."""
    atoms = molecule("H2O")
    atoms.calc = load_calculator(str(bundle))
    before = atoms.get_forces().copy()
    atoms.positions[0, 0] += 0.1
    assert np.abs(atoms.get_forces() - before).max() > 1e-6
    atoms.positions[0, 0] -= 0.1
    np.testing.assert_allclose(atoms.get_forces(), before, atol=1e-9)


def test_ase_optimises_with_it(bundle: Path) -> None:
    atoms = molecule("H2O")
    atoms.calc = load_calculator(bundle)
    start = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(fmax=0.5, steps=3)
    assert atoms.get_potential_energy() < start


def test_what_it_cannot_do_is_said(bundle: Path) -> None:
    calculator = load_calculator(bundle)
    with pytest.raises(InputError, match="does not know") as caught:
        Atoms("Au", calculator=calculator).get_potential_energy()
    assert "\n" not in str(caught.value)
    with pytest.raises(PropertyNotImplementedError, match="not periodic in three directions"):
        molecule("H2O", calculator=calculator).get_stress()
    broken = molecule("H2O", calculator=calculator)
    broken.positions[0, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        broken.get_forces()


class Stressed(HarmonicCommittee):
    """Claims one stress for all frames."""

    def __init__(self, stress: np.ndarray | None) -> None:
        super().__init__()
        self.stress = stress

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        prediction = super().evaluate(batch, members)
        return replace(prediction, stress=None if self.stress is None else np.array([self.stress] * batch.n_frames))


STRESS = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])


def test_a_stress_has_the_order_of_ase_and_the_spread_stays() -> None:
    atoms = Atoms("H", cell=[3.0, 3.0, 3.0], pbc=True, calculator=AlsysCalculator(Stressed(STRESS)))
    atoms.get_forces()
    names = {"energy", "free_energy", "forces", "stress", "energy_std", "forces_std", "max_force_deviation"}
    assert (
        set(atoms.calc.results)
        == set(AlsysCalculator.implemented_properties) - {"energies", "force_bound", "is_trusted"}
        == names
    )
    np.testing.assert_array_equal(atoms.get_stress(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])


@pytest.mark.parametrize(
    ("stress", "cell", "pbc", "reason"),
    [
        (STRESS, [0, 0, 0], False, "not periodic in three directions"),
        (STRESS, [3, 3, 9], [True, True, False], "not periodic in three directions"),
        (None, [3, 3, 3], True, "predicts none"),
        (np.full((3, 3), np.nan), [3, 3, 3], True, "baseline"),
    ],
)
def test_where_there_is_no_stress_ase_is_told_so_and_has_the_rest(
    stress: np.ndarray | None, cell: list[float], pbc: Any, reason: str
) -> None:
    atoms = Atoms("H", positions=[[0.1, 0, 0]], cell=cell, pbc=pbc, calculator=AlsysCalculator(Stressed(stress)))
    with pytest.raises(PropertyNotImplementedError, match=reason):
        atoms.get_stress()
    assert atoms.get_potential_energy() == pytest.approx(0.005)
    assert "stress" not in atoms.calc.results
    assert np.isfinite(atoms.calc.results["max_force_deviation"])


def test_a_stress_is_not_remembered_for_atoms_that_have_none() -> None:
    atoms = Atoms("H", cell=[3.0, 3.0, 3.0], pbc=True, calculator=AlsysCalculator(Stressed(STRESS)))
    assert atoms.get_stress()[0] == 1.0
    atoms.pbc = False
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_a_folder_that_is_not_there_is_said_with_what_can_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for name, message in (("campaigns/nowhere", "no such folder"), ("file", "is no folder")):
        with pytest.raises(InputError, match=f"{tmp_path}/{name}: {message}; give a campaign's folder, a bundle"):
            load_calculator(name)


def test_no_bundle_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a readable bundle") as caught:
        load_calculator(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_local_bundle_needs_no_mlflow(bundle: Path) -> None:
    code = f"import sys, alsys; alsys.load_calculator({str(bundle)!r}); print('mlflow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two versions of `water`, each a bundle beside a pickle; and `other`, which holds no bundle."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's and its dependencies', while it makes its tables
        import mlflow

        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.create_registered_model("water")
        for version in (1, 2):
            source = folder / f"model-{version}"
            write_bundle(source / "artifacts" / "bundle", pair_state(version), {})
            (source / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: os\n")
            (source / "python_model.pkl").write_bytes(pickle.dumps(Bomb(folder / "bomb")))
            client.create_model_version("water", source=str(source))
        client.set_registered_model_alias("water", "champion", "1")
        (folder / "other").mkdir()
        (folder / "other" / "MLmodel").write_text("flavors: {}\n")
        client.create_registered_model("other")
        client.create_model_version("other", source=str(folder / "other"))
    return uri


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # MLflow's imports


@pytest.mark.parametrize(("name", "version"), [("water@champion", 1), ("water/1", 1), ("water/2", 2)])
def test_a_registered_model_loads_by_alias_and_version(registry: str, name: str, version: int) -> None:
    calculator = load_calculator(f"models:/{name}", tracking_uri=registry)
    assert calculator.committee.version == version
    atoms = molecule("H2O", calculator=calculator)
    batch = FrameBatch.of([Frame.molecule(atoms.numbers, atoms.positions)])
    np.testing.assert_array_equal(atoms.get_forces(), build_committee(pair_state(version)).evaluate(batch).forces)
    assert not (Path(registry.removeprefix("sqlite:///")).parent / "bomb").exists(), "a pickle was loaded"


def test_a_registered_model_is_exported_as_its_bundle(
    registry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["models", "export", "models:/water@champion", str(tmp_path / "out"), "--uri", registry]
    assert main(command) == 0
    assert read_bundle(tmp_path / "out").version == 1
    assert main([*command[:2], "models:/nobody@champion", str(tmp_path / "other"), "--uri", registry]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "other").exists()


def test_the_server_is_found_in_the_environment_or_the_working_folder(
    registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry)
    assert load_calculator("models:/water@champion").committee.version == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(Path(registry.removeprefix("sqlite:///")).parent)
    assert load_calculator("models:/water@champion").committee.version == 1


def test_the_users_mlflow_settings_stay_what_they_were(registry: str, tmp_path: Path) -> None:
    import mlflow

    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    before = [os.environ.get(name) for name in names]
    load_calculator("models:/water@champion", tracking_uri=registry)
    assert [os.environ.get(name) for name in names] == before
    mine = f"sqlite:///{tmp_path / 'mine.db'}"
    mlflow.set_tracking_uri(mine)
    mlflow.set_registry_uri(mine)  # another test of this process may have left one
    try:
        load_calculator("models:/water@champion", tracking_uri=registry)
        assert mlflow.get_tracking_uri() == mlflow.get_registry_uri() == mine
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # MLflow's way to unset it
        mlflow.set_registry_uri(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["nobody@champion", "water@previous", "water/7", "other/1", "water"])
def test_models_that_are_not_there_are_one_line(registry: str, name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_calculator(f"models:/{name}", tracking_uri=registry)
    assert "\n" not in str(caught.value)


def test_a_missing_database_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such database"):
        load_calculator("models:/water@champion", tracking_uri=f"sqlite:///{tmp_path / 'none.db'}")
    assert not (tmp_path / "none.db").exists()


def test_a_dead_server_is_answered_in_seconds() -> None:
    started = time.monotonic()
    with pytest.raises(EnvironmentProblem, match=r"127\.0\.0\.1"):
        load_calculator("models:/water@champion", tracking_uri="http://127.0.0.1:9")
    assert time.monotonic() - started < 20


def learned(*states: tuple[int, int]) -> SeenStates:
    n = len(states)
    return SeenStates.of([3] * n, [8, 1, 1] * n, [c for c, _ in states], [m for _, m in states])


@pytest.mark.parametrize(
    "info",
    [{"charge": 1, "multiplicity": 2}, {"charge": -1}, {"multiplicity": 3}, {"charge": 1, "spin": 2}, {"spin": 2}],
)
def test_a_state_that_was_not_learned_is_refused(info: dict[str, int], tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "v0001", replace(pair_state(1), seen=learned((0, 1))), {})
    atoms = molecule("H2O")
    atoms.calc = load_calculator(path)
    energy = atoms.get_potential_energy()
    atoms.info.update(info)
    with pytest.raises(InputError, match="the model has learned H2O with charge 0, multiplicity 1 only"):
        atoms.get_potential_energy()
    atoms.info.clear()
    atoms.info["spin"] = 1  # 2S + 1, as some write it
    assert atoms.get_potential_energy() == energy


@pytest.mark.parametrize("kind", ["charges", "moments"])
def test_charges_and_moments_of_atoms_say_their_sum(kind: str, tmp_path: Path) -> None:
    atoms = molecule("H2O")
    atoms.calc = load_calculator(write_bundle(tmp_path / "v0001", replace(pair_state(1), seen=learned((0, 1))), {}))
    atoms.set_initial_charges([-0.8, 0.4, 0.4])
    atoms.get_potential_energy()
    if kind == "charges":
        atoms.set_initial_charges([0.2, 0.4, 0.4])
    else:
        atoms.set_initial_magnetic_moments([2.0, 0.0, 0.0])
    with pytest.raises(InputError, match="has learned H2O with charge 0, multiplicity 1 only"):
        atoms.get_potential_energy()
    atoms.info.update(charge=-1, multiplicity=1)
    with pytest.raises(InputError, match="not the sum of the initial charges" if kind == "charges" else "contradicts"):
        atoms.get_potential_energy()


def test_a_model_of_one_state_needs_not_be_told(tmp_path: Path) -> None:
    atoms = molecule("H2O")
    atoms.calc = load_calculator(write_bundle(tmp_path / "v0001", replace(pair_state(1), seen=learned((1, 2))), {}))
    energy = atoms.get_potential_energy()
    atoms.info["charge"] = 1
    assert atoms.get_potential_energy() == energy
    atoms.info["charge"] = 0
    with pytest.raises(InputError, match=r"charge \+1, multiplicity 2 only"):
        atoms.get_potential_energy()


def test_old_bundles_warn_of_what_nobody_recorded(bundle: Path) -> None:
    atoms = molecule("H2O")
    atoms.calc = load_calculator(bundle)
    atoms.get_potential_energy()
    atoms.info.update(charge=1, multiplicity=2)
    with pytest.warns(UserWarning, match=r"charge \+1, multiplicity 2: nobody has recorded"):
        atoms.get_potential_energy()


@pytest.mark.parametrize(("spin", "says"), [(0.3, "is no spin of 10 electrons"), ("up", "is no spin of 10 electrons")])
def test_a_spin_that_is_none_is_refused(spin: object, says: str, bundle: Path) -> None:
    atoms = molecule("H2O")
    atoms.calc = load_calculator(bundle)
    atoms.info["spin"] = spin
    with pytest.raises(InputError, match=says):
        atoms.get_potential_energy()


@pytest.mark.parametrize(
    "info",
    [
        {"total_charge": 1, "multiplicity": 2}, {"Charge": 1, "uhf": 1}, {"net_charge": 1, "Spin_Multiplicity": 2},
        {"nelectrons": 7, "UHF": 1}, {"charge": 1, "NUM_UNPAIRED_ELECTRONS": 1},
    ],
)  # fmt: skip
def test_other_words_for_charge_and_spin_count(info: dict[str, int], tmp_path: Path) -> None:
    atoms = molecule("H2O")
    atoms.calc = load_calculator(write_bundle(tmp_path / "v0001", replace(pair_state(1), seen=learned((0, 1))), {}))
    atoms.info.update(info)
    with pytest.raises(InputError, match=r"has learned H2O with charge 0, multiplicity 1 only") as caught:
        atoms.get_potential_energy()
    assert caught.value.value == (1, 2)
    atoms.info.update(charge=-1)
    with pytest.raises(InputError, match=r"contradict|has learned"):
        atoms.get_potential_energy()


def test_initial_charges_must_sum_to_a_whole_number(bundle: Path) -> None:
    atoms = molecule("H2O", calculator=load_calculator(bundle))
    atoms.set_initial_charges([-0.3, 0.4, 0.4])
    with pytest.raises(InputError, match="initial charges: do not sum to a whole number"):
        atoms.get_potential_energy()


def test_electrons_that_the_state_cannot_have_are_refused(tmp_path: Path) -> None:
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1.0]])
    atoms.calc = load_calculator(write_bundle(tmp_path / "v0001", replace(pair_state(1), seen=learned((0, 1))), {}))
    with pytest.raises(
        InputError, match=r"charge 0, multiplicity 1 is impossible with 9 electrons of HO.*set `charge`"
    ):
        atoms.get_potential_energy()


def test_a_model_without_a_record_is_asked_as_before(bundle: Path) -> None:
    """Nobody knows what it has learned, so fragments that no state fits are answered."""
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1.0]], calculator=load_calculator(bundle))
    assert np.isfinite(atoms.get_potential_energy())


def test_what_was_learned_without_electrons_is_not_counted(tmp_path: Path) -> None:
    """A made-up potential labels radicals as singlets."""
    seen = SeenStates.of([2], [8, 1], [0], [1])
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1.0]])
    atoms.calc = load_calculator(write_bundle(tmp_path / "v0001", replace(pair_state(1), seen=seen), {}))
    assert np.isfinite(atoms.get_potential_energy())
