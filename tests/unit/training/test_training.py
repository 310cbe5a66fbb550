"""Trainers learn, hold out what they promise, and give committees that keep the contract and survive the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from alsys.config import parse_config
from alsys.config.schema import AnalyticLabeling
from alsys.errors import InputError
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.interop.calculator import load_calculator
from alsys.labeling.analytic import AnalyticLabeler
from alsys.labels import Label
from alsys.potentials.base import CommitteeState
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.potentials.factory import build_committee
from alsys.store.base import Snapshot
from alsys.store.memory import open_writer
from alsys.testing.committees import CommitteeContract
from alsys.training.base import TrainedCommittee, TrainingOrder
from alsys.training.dataset import atomic_energies, split
from alsys.training.evaluate import evaluate
from alsys.training.factory import build_trainer


def snapshot(n: int = 40, n_random: int = 8, spread: float = 0.05) -> Snapshot:
    """Methanol and water with Morse labels, free atoms included."""
    rng = np.random.default_rng(0)
    labeler = AnalyticLabeler(AnalyticLabeling(kind="analytic"))
    candidates = [
        Candidate(Frame.molecule([z], np.zeros((1, 3)), multiplicity=m), Source("m", Arm.ATOM, "free-atom"))
        for z, m in ((1, 2), (6, 3), (8, 3))
    ]
    for i in range(n + n_random):
        atoms = molecule("CH3OH" if i % 4 else "H2O")
        frame = Frame.molecule(atoms.numbers, atoms.positions + rng.normal(0, spread, (len(atoms), 3)))
        arm = Arm.RANDOM if i >= n else Arm.INITIAL
        candidates.append(Candidate(frame, Source("m", arm, "rattle", trajectory=100 + i // 2)))
    labels = [label for c in candidates if isinstance(label := labeler.label(c.frame), Label)]
    store = open_writer()
    store.stage(candidates=candidates, labels=labels, levels=[labeler.level])
    store.commit()
    return store.snapshot(labeler.level.level_id)


def config(model: dict[str, Any], **training: Any) -> Any:
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "m", "molecule": "CH3OH"}],
            "labeling": {"kind": "analytic"},
            "model": {"members": 2, **model},
            "training": {"budget_s": 100, "max_epochs": 40, **training},
        }
    )


def fit(
    model: dict[str, Any], parent: CommitteeState | None = None, version: int = 1, **training: Any
) -> TrainedCommittee:
    order = TrainingOrder(version, snapshot(), parent, parent, seed=version)
    result = build_trainer(config(model, **training)).fit(order)
    assert isinstance(result, TrainedCommittee), result
    return result


NEQUIP = {"kind": "nequip", "num_layers": 1, "num_features": 8, "r_max": 4.0}
PAIR = {"kind": "pair", "n_basis": 24}


@pytest.fixture(scope="module")
def nequip_fits() -> tuple[TrainedCommittee, TrainedCommittee]:
    first = fit(NEQUIP, learning_rate=0.02)
    return first, fit(NEQUIP, parent=first.state, version=2, learning_rate=0.02)


def two_frames() -> list[Frame]:
    rng = np.random.default_rng(5)
    frames = []
    for name in ("CH3OH", "H2O"):
        atoms = molecule(name)
        frames.append(Frame.molecule(atoms.numbers, atoms.positions + rng.normal(0, 0.03, (len(atoms), 3))))
    return frames


class TestNequIPCommittee(CommitteeContract):
    force_tolerance = 1e-2  # float32
    step = 5e-3
    batch_tolerance = 2e-5

    @pytest.fixture(autouse=True)
    def _fits(self, nequip_fits: tuple[TrainedCommittee, TrainedCommittee]) -> None:
        self.fits = nequip_fits

    def make(self) -> Any:
        return build_committee(self.fits[0].state), self.fits[0].state, self.fits[1].state

    def frames(self) -> list[Frame]:
        return two_frames()


class TestPairCommittee(CommitteeContract):
    def make(self) -> Any:
        first = fit(PAIR).state
        second = fit(PAIR, version=2, bootstrap=0.5).state
        return build_committee(first), first, second

    def frames(self) -> list[Frame]:
        return two_frames()


def test_nequip_learns_and_a_warm_start_goes_on(nequip_fits: tuple[TrainedCommittee, TrainedCommittee]) -> None:
    first, second = nequip_fits
    data = snapshot()
    zero = float(np.abs(data.forces[data.n_atoms.argmin() :]).mean())
    assert second.metrics["force_mae_random_arm"] < 0.6 * zero
    assert second.metrics["force_mae_train"] < first.metrics["force_mae_train"]
    low, high = second.metrics["difference_low"], second.metrics["difference_high"]
    assert low <= second.metrics["force_mae_random_arm"] - second.metrics["champion_force_mae_random_arm"] <= high
    assert first.metrics["n_random"] == 8
    assert len(first.calibration) == 8


def test_pair_models_learn_morse() -> None:
    trained = fit(PAIR)
    assert trained.metrics["force_mae_random_arm"] < 0.05
    assert trained.metrics["force_mae_random_arm_low"] <= trained.metrics["force_mae_random_arm"]


def test_nan_labels_give_a_failure_not_a_model() -> None:
    data = snapshot()
    data.forces[:] = np.nan
    result = build_trainer(config(NEQUIP)).fit(TrainingOrder(1, data, None, None, 0))
    assert not isinstance(result, TrainedCommittee)
    assert "finite" in result.message or "NaN" in result.message


def test_split_keeps_the_random_arm_out_and_trajectories_together() -> None:
    parts = split(snapshot(60), 0.3)
    assert parts.random.n_frames == 8
    assert parts.atoms.n_frames == 3
    assert parts.train.n_frames + parts.validation.n_frames == 60
    assert parts.validation.n_frames > 0
    assert not set(parts.train.trajectory) & set(parts.validation.trajectory)


def test_missing_free_atoms_come_from_least_squares() -> None:
    parts = split(snapshot(), 0.0)
    assert atomic_energies(parts.atoms, parts.train) == pytest.approx({1: 0.0, 6: 0.0, 8: 0.0})
    none = parts.atoms.select(np.zeros(3, dtype=bool))
    fitted = atomic_energies(none, parts.train)
    counts = 4 * fitted[1] + fitted[6] + fitted[8]
    methanol = parts.train.energy[parts.train.n_atoms == 6]
    assert counts == pytest.approx(methanol.mean(), abs=1.0)


def test_bundle_reloads_bit_for_bit_and_shows_damage(
    tmp_path: Path, nequip_fits: tuple[TrainedCommittee, TrainedCommittee]
) -> None:
    state = nequip_fits[0].state
    path = write_bundle(tmp_path / "v0001", state, {"metrics": {"a": 1.0}}, {"calibration.json": b"[]"})
    assert write_bundle(path, state, {"metrics": {"a": 1.0}}, {"calibration.json": b"[]"}) == path
    again = read_bundle(path)
    for mine, theirs in zip(state.members, again.members, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
    data = snapshot()
    a, b = (evaluate(build_committee(s), data).force_mae for s in (state, again))
    np.testing.assert_array_equal(a, b)
    with pytest.raises(FileExistsError):
        write_bundle(path, state, {"metrics": {"a": 2.0}})
    (path / "member_00.safetensors").write_bytes(b"damage")
    with pytest.raises(InputError, match="SHA256SUMS"):
        read_bundle(path)


def test_calculator_is_an_ase_calculator(
    tmp_path: Path, nequip_fits: tuple[TrainedCommittee, TrainedCommittee]
) -> None:
    path = write_bundle(tmp_path / "v0001", nequip_fits[0].state, {})
    atoms = molecule("CH3OH")
    atoms.calc = load_calculator(path)
    assert atoms.get_forces().shape == (6, 3)
    assert abs(atoms.get_forces().sum()) < 1e-4
    assert atoms.calc.results["max_force_deviation"] == atoms.calc.results["forces_std"].max() > 0
    assert np.isfinite(atoms.get_potential_energy())
    gold = Atoms("Au", calculator=atoms.calc)
    with pytest.raises(InputError, match="does not know"):
        gold.get_potential_energy()
    with pytest.raises(InputError, match="not a readable bundle"):
        load_calculator(tmp_path / "none")
