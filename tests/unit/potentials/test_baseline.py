"""A committee that learned a difference adds its baseline back, flags failures, and refuses to go without."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from tblite.ase import TBLite

from alsys.config.labeling import GFN1Baseline, GFN2Baseline
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import Frame
from alsys.potentials.base import Committee, CommitteePrediction, CommitteeState, FrameBatch
from alsys.potentials.baseline import Baseline, DeltaCommittee
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import build_model, weights_of
from alsys.potentials.pair import PairCommittee
from alsys.potentials.xtb import XTBMethod
from alsys.testing.potentials import CommitteeContract
from support.committees import HarmonicCommittee

SPEC = {"elements": ["H", "C", "O"], "r_max": 5.0, "n_basis": 8}
GFN2 = XTBMethod.of(GFN2Baseline(kind="gfn2-xtb")).spec
GFN1 = XTBMethod.of(GFN1Baseline(kind="gfn1-xtb")).spec


def state(version: int = 1, baseline: dict[str, object] | None = GFN2) -> CommitteeState:
    rng = np.random.default_rng(version)
    members = tuple(
        {"coefficients": 0.1 * rng.normal(size=6 * 8), "shifts": np.array([-1.0, -2.0, -3.0])} for _ in range(3)
    )
    return CommitteeState(version, "pair", SPEC, members, baseline=baseline)


def distorted(name: str, seed: int = 0) -> Frame:
    atoms = molecule(name)
    rng = np.random.default_rng(seed)
    return Frame.molecule(atoms.numbers, atoms.positions + rng.normal(0, 0.05, (len(atoms), 3)))


def tblite(frame: Frame, method: str = "GFN2-xTB") -> tuple[float, np.ndarray, np.ndarray | None]:
    """From ASE's interface to tblite, which is not ours."""
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    atoms.calc = TBLite(method=method, accuracy=0.1, verbosity=0, charge=frame.charge, multiplicity=frame.multiplicity)
    stress = atoms.get_stress(voigt=False) if frame.pbc.all() else None
    return atoms.get_potential_energy(), atoms.get_forces(), stress


class TestDelta(CommitteeContract):
    tolerance = 1e-6
    gradient_tolerance = 1e-3

    def build(self, state: CommitteeState) -> Committee:
        return build_committee(state)

    def states(self) -> tuple[CommitteeState, CommitteeState]:
        return state(1), state(2)

    def frames(self) -> list[Frame]:
        return [distorted("CH3OH"), distorted("H2O")]

    def unknown_frame(self) -> Frame:
        return distorted("NH3")


def test_the_sum_is_tblite_plus_the_model_and_the_spread_is_the_models() -> None:
    frames = [distorted("CH3OH"), distorted("H2O", seed=1)]
    batch = FrameBatch.of(frames)
    committee = build_committee(state())
    assert isinstance(committee, DeltaCommittee)
    total, model = committee.evaluate(batch), PairCommittee(state()).evaluate(batch)
    others = [tblite(frame) for frame in frames]
    np.testing.assert_allclose(total.energy - model.energy, [energy for energy, _, _ in others], atol=1e-6)
    np.testing.assert_allclose(total.forces - model.forces, np.concatenate([f for _, f, _ in others]), atol=1e-5)
    for name in ("energy_std", "force_deviation", "frame_deviation", "features"):
        np.testing.assert_array_equal(getattr(total, name), getattr(model, name))
    assert total.member_forces is not None
    assert total.member_energies is not None
    np.testing.assert_allclose(total.member_forces.mean(axis=0), total.forces, atol=1e-12)
    np.testing.assert_allclose(total.member_energies.mean(axis=0), total.energy, atol=1e-9)
    assert total.is_failed is None
    alone = committee.evaluate(batch, [0])
    assert alone.member_forces is not None
    np.testing.assert_allclose(alone.member_forces[0], total.member_forces[0], atol=1e-9)
    assert np.isnan(alone.frame_deviation).all()


def test_charge_and_spin_reach_the_baseline() -> None:
    water = distorted("H2O")
    cation = Frame.molecule(water.numbers, water.positions, charge=1, multiplicity=2)
    triplet = Frame.molecule(water.numbers, water.positions, multiplicity=3)
    frames = [water, cation, triplet]
    values = Baseline(GFN2).evaluate(FrameBatch.of(frames))
    np.testing.assert_allclose(values.energy, [tblite(frame)[0] for frame in frames], atol=1e-6)
    assert len(set(values.energy.round(2))) == 3


def test_periodic_frames_get_the_stress_of_the_baseline() -> None:
    rng = np.random.default_rng(0)
    cell = np.diag([3.6, 3.7, 3.8]) + np.array([[0, 0, 0], [0.2, 0, 0], [0.1, -0.2, 0]])
    box = Frame(np.array([8, 1, 1]), molecule("H2O").positions + rng.normal(0, 0.03, (3, 3)), cell, np.ones(3, bool))
    values = Baseline(GFN1).evaluate(FrameBatch.of([box, distorted("H2O")]))
    energy, forces, stress = tblite(box, "GFN1-xTB")
    assert values.energy[0] == pytest.approx(energy, abs=1e-5)  # units of another CODATA year
    np.testing.assert_allclose(values.forces[:3], forces, atol=1e-5)
    assert values.stress is not None
    np.testing.assert_allclose(values.stress[0], stress, atol=1e-7)
    assert np.isnan(values.stress[1]).all()


class Stressed(HarmonicCommittee):
    """Claims a stress, of molecules too."""

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        return replace(super().evaluate(batch, members), stress=np.ones((batch.n_frames, 3, 3)))


def test_a_stress_without_that_of_the_baseline_is_none() -> None:
    prediction = DeltaCommittee(Stressed(), state()).evaluate(FrameBatch.of([distorted("H2O")]))
    assert prediction.stress is not None
    assert np.isnan(prediction.stress).all()


def test_a_frame_on_which_it_fails_is_flagged_and_costs_no_other_frame() -> None:
    water = distorted("H2O")
    fused = water.with_positions([[0, 0, 0], [0, 0, 0.01], [0, 0, 1]])
    torn = Frame.molecule([6, 8], [[0, 0, 0], [0, 0, 1e4]])  # the SCF of GFN2-xTB does not converge
    prediction = build_committee(state()).evaluate(FrameBatch.of([fused, water, torn]))
    assert prediction.is_failed is not None
    assert prediction.is_failed.tolist() == [True, False, True]
    assert np.isnan(prediction.energy[[0, 2]]).all()
    assert np.isnan(prediction.forces[[0, 1, 2, 6, 7]]).all()
    np.testing.assert_array_equal(
        prediction.forces[3:6], build_committee(state()).evaluate(FrameBatch.of([water])).forces
    )
    assert np.isfinite(prediction.frame_deviation).all()


def test_what_it_cannot_treat_is_refused_in_one_line() -> None:
    committee = build_committee(state())
    water = distorted("H2O")
    radical = Frame.molecule([8, 1], [[0, 0, 0], [0, 0, 1]])
    wire = Frame(water.numbers, water.positions, 9 * np.eye(3), np.array([True, False, False]))
    for frame, words in ((radical, "impossible with 9 electrons"), (wire, "periodic")):
        with pytest.raises(InputError, match=words):
            Baseline(GFN2).evaluate(FrameBatch.of([frame]))
    with pytest.raises(InputError, match="impossible"):
        committee.evaluate(FrameBatch.of([radical]))
    for other in ({"engine": "pyscf", "xc": "pbe"}, {"engine": "tblite", "method": "IPEA1-xTB", "accuracy": 1.0}):
        with pytest.raises(InputError, match="GFN2-xTB and GFN1-xTB"):
            build_committee(state(baseline=other))
    with pytest.raises(InputError, match="names no baseline"):
        committee.load(state(baseline=None))


def test_without_tblite_a_delta_model_does_not_run_and_another_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tblite", None)
    with pytest.raises(EnvironmentProblem, match=r"difference to GFN2-xTB and is nothing without it: .*tblite"):
        build_committee(state())
    assert isinstance(build_committee(state(baseline=None)), PairCommittee)


def test_another_baseline_takes_effect_with_its_weights() -> None:
    batch = FrameBatch.of([distorted("H2O")])
    committee = build_committee(state())
    committee.load(state(2, GFN1))
    np.testing.assert_array_equal(
        committee.evaluate(batch).forces, build_committee(state(2, GFN1)).evaluate(batch).forces
    )


def test_nequip_models_add_it_too() -> None:
    spec = {"elements": ["H", "O"], "r_max": 4.0, "num_layers": 1, "l_max": 1, "num_features": 4, "parity": False,
            "dtype": "float64", "avg_num_neighbors": 2.0}  # fmt: skip
    members = tuple(weights_of(build_model(spec, seed=seed)) for seed in (1, 2))
    one = CommitteeState(1, "nequip", spec, members, baseline=GFN2)
    batch = FrameBatch.of([distorted("H2O")])
    bare = build_committee(replace(one, baseline=None)).evaluate(batch)
    np.testing.assert_allclose(
        build_committee(one).evaluate(batch).forces - bare.forces, tblite(distorted("H2O"))[1], atol=1e-5
    )


def test_a_bundle_keeps_its_baseline_and_older_readers_refuse_it(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "v0001", state(), {})
    assert read_bundle(path).baseline == GFN2
    assert isinstance(build_committee(read_bundle(path)), DeltaCommittee)
    assert json.loads((path / "model.json").read_text())["format"] == 2, "format 1 would be read without its baseline"
    assert "GFN2-xTB" in (path / "README.md").read_text()
    plain = write_bundle(tmp_path / "v0002", state(2, None), {})
    assert read_bundle(plain).baseline is None
    assert json.loads((plain / "model.json").read_text())["format"] == 1


def test_a_committee_that_knows_no_stress_stays_without_one() -> None:
    cell = 4.0 * np.eye(3)
    box = Frame(np.array([8, 1, 1]), molecule("H2O").positions, cell, np.ones(3, bool))
    prediction = DeltaCommittee(HarmonicCommittee(), state(baseline=GFN1)).evaluate(FrameBatch.of([box]))
    assert prediction.stress is None
    assert np.isfinite(prediction.forces).all()
