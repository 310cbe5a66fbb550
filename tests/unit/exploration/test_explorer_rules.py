"""The trust band step by step, what is kept from the random arm, restarts, and reproducibility."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from ase.data import atomic_masses

from alsys.config import parse_config
from alsys.dynamics.geometry import GeometryCheck
from alsys.errors import InputError
from alsys.exploration.base import ExplorationOrder, ExplorationReport
from alsys.exploration.explorer import WalkerExplorer
from alsys.exploration.factory import build_explorer
from alsys.frames import Arm, Candidate, FloatArray, Frame
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch
from alsys.potentials.baseline import DeltaCommittee
from alsys.potentials.pair import fit_pair
from alsys.potentials.xtb import XTBMethod
from alsys.units import ACCELERATION
from support.committees import HarmonicCommittee
from support.lennard_jones import LennardJonesCommittee

STATE = CommitteeState(1, "fake", {}, ())


def frame_of(name: str) -> Frame:
    atoms = molecule(name)
    return Frame.molecule(atoms.numbers, atoms.positions)


ETHANOL, WATER = frame_of("CH3CH2OH"), frame_of("H2O")
Deviation = Callable[[FrameBatch], FloatArray]


def explorer(
    deviation: Deviation | None = None,
    systems: dict[str, Frame] | None = None,
    strategy: str = "uncertainty",
    seed: int = 0,
    stiffness: float = 0.0,
    diversity: str = "none",
    **exploration: Any,
) -> WalkerExplorer:
    systems = systems or {"e": ETHANOL}
    settings = {"walkers": 1, "spacing_steps": 4, "trust": {"accurate_below": 0.1, "failed_above": 0.5}}
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": name, "smiles": "C"} for name in systems],
            "labeling": {"kind": "analytic", "quality": {"enabled": False}},  # which would evaluate candidates again
            "model": {"kind": "pair"},
            "exploration": {**settings, **exploration},
            "selection": {"strategy": strategy, "diversity": diversity},
        }
    )
    starts = {name: [frame] for name, frame in systems.items()}
    return WalkerExplorer(config, starts, seed, build=lambda _: HarmonicCommittee(stiffness, deviation))


def advance(walkers: WalkerExplorer, n_steps: int, **fields: Any) -> ExplorationReport:
    order = {"max_candidates": 1000, "state": STATE, "trajectory_base": 1000, **fields}
    return walkers.run(ExplorationOrder(n_steps=n_steps, **order))


def scripted(values: Sequence[float]) -> Deviation:
    """Deviation of the only walker at its steps 0, 1, 2, ...; the evaluation after a restart takes none."""
    left = list(values)

    def deviation(batch: FrameBatch) -> FloatArray:
        return np.array([left.pop(0) if left else 0.0])

    return deviation


def constant(value: float) -> Deviation:
    return lambda batch: np.full(batch.n_frames, value)


def test_first_crossing_is_proposed_then_one_every_spacing() -> None:
    band = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0] + [0.2] * 12
    report = advance(explorer(scripted(band)), 17)
    assert sorted(c.source.step for c in report.candidates) == [6, 10, 14]
    assert report.n_above == 12


def test_a_walk_that_leaves_the_band_upwards_gives_its_last_frame_in_the_band() -> None:
    walkers = explorer(scripted([0.0] * 5 + [0.2] * 5 + [0.9]))
    report = advance(walkers, 10)
    assert [(c.source.step, c.source.deviation) for c in sorted(report.candidates, key=lambda c: c.source.step)] == [
        (5, 0.2),
        (9, 0.2),
    ]
    walkers = explorer(scripted([0.0] * 5 + [0.2] * 4 + [0.9]))  # due just when it fails: the frame before is taken
    report = advance(walkers, 9)
    assert sorted(c.source.step for c in report.candidates) == [5, 8]
    assert all(c.source.deviation == 0.2 for c in report.candidates)
    assert report.stops == {"failed": 1}


def test_a_walk_that_jumps_over_the_band_gives_the_first_frame_above() -> None:
    report = advance(explorer(scripted([0.0] * 7 + [0.9])), 7)
    assert [(c.source.step, c.source.deviation) for c in report.candidates] == [(7, 0.9)]
    assert report.stops == {"failed": 1}


def test_a_walk_that_begins_above_the_band_must_move_before_it_gives_a_frame() -> None:
    report = advance(explorer(constant(0.9), spacing_steps=10), 10)
    assert [c.source.step for c in report.candidates] == [5]
    assert report.stops == {"failed": 1}
    assert np.abs(report.candidates[0].frame.positions - ETHANOL.positions).max() > 1e-3


def test_quiet_walkers_are_put_elsewhere() -> None:
    report = advance(explorer(constant(0.0), max_steps=5, walkers=2), 10)
    assert report.stops == {"max-steps": 4}
    assert report.walker_steps == 20


def test_random_strategy_counts_what_is_uncertain_and_ignores_it_in_its_choice() -> None:
    def rising(batch: FrameBatch) -> FloatArray:
        return np.linspace(0.0, 0.4, batch.n_frames)

    chosen: list[float] = []
    walkers = explorer(rising, strategy="random", walkers=8)
    by_uncertainty = explorer(rising, walkers=8)
    for k in range(40):
        report = advance(walkers, 10, max_candidates=2, trajectory_base=k << 20, state=STATE if k == 0 else None)
        assert report.n_above > 0  # or a campaign would end as quiet
        assert len(report.candidates) == 2
        assert all(c.source.arm is Arm.UNCERTAIN for c in report.candidates)
        chosen += [c.source.deviation for c in report.candidates]
    assert 0.14 < np.mean(chosen) < 0.26  # uniform over walkers: 0.2
    report = advance(by_uncertainty, 10, max_candidates=2)
    assert min(c.source.deviation for c in report.candidates) > 0.3


def test_no_training_frame_lies_beside_a_frame_of_the_random_arm() -> None:
    walkers = explorer(constant(0.2), walkers=4, temperatures=[50], max_steps=60)
    n_training = 0
    for k in range(20):
        report = advance(walkers, 20, n_random=6, trajectory_base=k << 20, state=STATE if k == 0 else None)
        by_arm: dict[Arm, list[Candidate]] = {Arm.RANDOM: [], Arm.UNCERTAIN: []}
        for candidate in report.candidates:
            by_arm[candidate.source.arm].append(candidate)
        assert len(by_arm[Arm.RANDOM]) == 6  # drawn without repetition
        assert len({c.frame.frame_id for c in report.candidates}) == len(report.candidates)
        n_training += len(by_arm[Arm.UNCERTAIN])
        for test in by_arm[Arm.RANDOM]:
            for train in by_arm[Arm.UNCERTAIN]:
                if train.source.trajectory == test.source.trajectory:
                    assert abs(train.source.step - test.source.step) >= 4
    assert n_training > 50


def test_a_frame_proposed_before_is_withdrawn_where_a_test_frame_follows_it() -> None:
    walkers = explorer(constant(0.2), walkers=2, temperatures=[50], max_steps=10**6, spacing_steps=10)
    proposed: dict[str, Candidate] = {}
    n_withdrawn = 0
    for k in range(30):
        report = advance(walkers, 4, n_random=1, trajectory_base=k << 20, state=STATE if k == 0 else None)
        gone = [proposed.pop(frame_id) for frame_id in report.withdrawn]
        n_withdrawn += len(gone)
        (test,) = [c for c in report.candidates if c.source.arm is Arm.RANDOM]
        assert all(candidate.is_beside(test, 10) for candidate in gone)
        proposed.update((c.frame.frame_id, c) for c in report.candidates if c.source.arm is Arm.UNCERTAIN)
    assert n_withdrawn > 3


def test_random_arm_is_uniform_over_steps() -> None:
    counts = np.zeros(10)
    walkers = explorer(constant(0.0), walkers=2, temperatures=[1], max_steps=10**6)
    for k in range(150):
        for c in advance(walkers, 10, n_random=4, trajectory_base=k << 20).candidates:
            counts[(c.source.step - 1) % 10] += 1
    assert counts.sum() == 600
    assert (np.square(counts - 60) / 60).sum() < 27.9  # chi square, 9 degrees of freedom, p = 0.001


def test_wrecks_count_neither_as_steps_nor_in_the_deviation() -> None:
    def huge(batch: FrameBatch) -> FloatArray:
        far = np.abs(batch.positions).reshape(batch.n_frames, -1).max(axis=1) > 2.4
        return np.where(far, 1e6, 0.01)

    report = advance(explorer(huge, stiffness=-5.0, walkers=4), 200)
    assert sum(report.stops.values()) > 0
    assert report.walker_steps == 200 * 4 - sum(report.stops.values())
    assert report.deviation_max < 1.0
    assert report.candidates == ()


def test_forces_that_are_not_numbers_stop_the_walker_and_not_its_neighbours() -> None:
    class Broken(HarmonicCommittee):
        calls = 0

        def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
            prediction = super().evaluate(batch, members)
            Broken.calls += 1
            if Broken.calls == 4:
                prediction.forces[0] = np.nan
            assert np.isfinite(batch.positions).all()
            return prediction

    config = explorer(walkers=3)
    config._build = lambda state: Broken(0.0, constant(0.0))
    report = advance(config, 10)
    assert report.stops == {"not-finite": 1}
    assert report.walker_steps == 29


def test_a_baseline_that_fails_stops_the_walker_and_not_its_neighbours() -> None:
    """The second of three water molecules meets a geometry on which the baseline gives nothing, twice."""

    class Failing(HarmonicCommittee):
        calls = 0

        def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
            prediction = super().evaluate(batch, members)
            assert np.isfinite(batch.positions).all()
            Failing.calls += batch.n_frames == 3  # not where one walker begins anew
            if batch.n_frames < 3 or Failing.calls % 4:
                return prediction
            is_failed = np.array([False, True, False])
            prediction.forces[3:6] = np.nan
            prediction.energy[1] = np.nan
            return dataclasses.replace(prediction, is_failed=is_failed)

    config = explorer(walkers=3, systems={"w": WATER})
    config._build = lambda state: Failing(0.0, constant(0.2))
    report = advance(config, 10)
    assert report.stops["baseline-failed"] == 2
    assert "not-finite" not in report.stops
    assert report.walker_steps == 28
    assert all(np.isfinite(c.frame.positions).all() for c in report.candidates)
    assert np.isfinite(config.walkers.positions).all()
    assert np.isfinite(config.walkers.velocities).all()


def test_walkers_move_on_the_sum_of_baseline_and_model() -> None:
    """At constant energy, that of GFN2-xTB plus a model is conserved; a walker's charge and spin reach the baseline."""
    cation = Frame.molecule(WATER.numbers, WATER.positions + 0.02 * np.eye(3), charge=1, multiplicity=2)
    baseline = XTBMethod("GFN2-xTB").spec
    state = CommitteeState(1, "fake", {}, (), baseline=baseline)
    config = explorer(systems={"w": cation}, thermostat="none", timestep=0.2)
    config._build = lambda state: DeltaCommittee(HarmonicCommittee(0.5, constant(0.0)), state)
    energies = []
    for _ in range(4):
        assert advance(config, 10, state=state).stops == {}
        walkers = config.walkers
        energy = DeltaCommittee(HarmonicCommittee(0.5), state).evaluate(FrameBatch.of([walkers.frame(0)])).energy[0]
        masses = atomic_masses[WATER.numbers][:, None]
        energies.append(energy + float((0.5 / ACCELERATION * masses * np.square(walkers.velocities)).sum()))
    assert walkers.frame(0).charge == 1
    assert np.ptp(energies) < 2e-3
    assert np.abs(walkers.velocities).max() > 1e-3


def test_walkers_begin_at_seeds_that_make_sense() -> None:
    shifted = ETHANOL.with_positions(ETHANOL.positions + 30.0)
    torn = ETHANOL.with_positions(ETHANOL.positions * 3.0)
    seeds = (("e", torn), ("e", shifted), ("e", WATER), ("unknown", WATER))
    report = advance(explorer(constant(0.2), walkers=4), 3, seeds=seeds)
    assert len(report.candidates) == 4
    assert all(c.frame.positions.min() > 20 for c in report.candidates)
    report = advance(explorer(constant(0.2), walkers=4), 3, seeds=(("e", torn),))
    assert all(np.abs(c.frame.positions - ETHANOL.positions).max() < 1 for c in report.candidates)


def test_walkers_go_on_across_model_versions() -> None:
    walkers = explorer(constant(0.2), walkers=2, spacing_steps=2)
    first = advance(walkers, 4)
    second = advance(walkers, 4, trajectory_base=2000, state=CommitteeState(7, "fake", {}, ()))
    assert {c.source.trajectory for c in second.candidates} == {c.source.trajectory for c in first.candidates}
    assert min(c.source.step for c in second.candidates) > max(c.source.step for c in first.candidates)
    assert second.model_version == 7
    assert {c.source.model_version for c in second.candidates} == {7}


def test_systems_and_temperatures_are_all_covered() -> None:
    walkers = explorer(constant(0.2), {"e": ETHANOL, "w": WATER}, walkers=4, temperatures=[100, 400], spacing_steps=2)
    report = advance(walkers, 6)
    assert {(c.source.system, c.source.temperature) for c in report.candidates} == {
        ("e", 100.0), ("e", 400.0), ("w", 100.0), ("w", 400.0),
    }  # fmt: skip
    for candidate in report.candidates:
        assert candidate.frame.n_atoms == {"e": 9, "w": 3}[candidate.source.system]
    rescored = advance(walkers, 1, rescore=(WATER, ETHANOL)).rescored
    assert rescored == {WATER.frame_id: 0.2, ETHANOL.frame_id: 0.2}


def test_positions_do_not_drift() -> None:
    walkers = explorer(constant(0.2), max_temperature_ratio=1e6, friction=0.1, temperatures=[50], max_steps=10**6)
    masses = molecule("CH3CH2OH").get_masses()
    centre = masses @ ETHANOL.positions
    for candidate in advance(walkers, 60).candidates:
        np.testing.assert_allclose(masses @ candidate.frame.positions, centre, atol=1e-9)


def test_reports_follow_from_seed_and_order() -> None:
    def ids(seed: int, base: int) -> list[str]:
        report = advance(explorer(constant(0.2), seed=seed, walkers=4), 10, trajectory_base=base, n_random=3)
        return [c.frame.frame_id for c in report.candidates]

    assert ids(0, 1000) == ids(0, 1000)
    assert not set(ids(0, 1000)) & set(ids(1, 1000))
    assert not set(ids(0, 1000)) & set(ids(0, 2000))  # a campaign that is resumed does not repeat itself


def test_periodic_walkers_stop_at_close_contacts_with_images() -> None:
    cell = np.eye(3) * 4.0
    argon = Frame(np.array([18]), np.zeros((1, 3)), cell, np.array([True, True, True]))
    assert advance(explorer(constant(0.0), {"a": argon}), 5).stops == {}
    dense = Frame(np.array([18]), np.zeros((1, 3)), cell / 4, np.array([True, True, True]))
    assert advance(explorer(constant(0.0), {"a": dense}), 5).stops == {"too-close": 5}


def test_factory_gives_an_explorer_that_reads_pair_models() -> None:
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": "w", "molecule": "H2O"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "pair"},
            "exploration": {"walkers": 2},
        }
    )
    spec = {"elements": ["H", "O"], "r_max": 5.0, "n_basis": 8}
    batch = FrameBatch.of([WATER])
    coefficients = fit_pair(spec, batch, np.zeros(1), np.zeros((3, 3)), [0.0, 0.0], 1e-3)[0]
    member = {"coefficients": coefficients, "shifts": np.zeros(2)}
    state = CommitteeState(3, "pair", spec, (member, member))
    walkers = build_explorer(config, {"w": [WATER]}, 0)
    report = walkers.run(ExplorationOrder(n_steps=3, state=state, n_random=2))
    assert report.model_version == 3
    assert len(report.candidates) == 2
    with pytest.raises(RuntimeError, match="weights"):
        build_explorer(config, {"w": [WATER]}, 0).run(ExplorationOrder(n_steps=3))


def test_walkers_follow_shares_and_begin_on_every_start_structure() -> None:
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": "w", "molecule": "H2O"}, {"name": "e", "smiles": "CCO", "share": 3}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "pair"},
            "exploration": {"walkers": 40, "temperatures": [300, 600], "timestep": 1e-3},
        }
    )
    other = ETHANOL.with_positions(ETHANOL.positions * 1.02)
    walkers = WalkerExplorer(config, {"w": [WATER], "e": [ETHANOL, other]}, 0, build=lambda _: HarmonicCommittee(0.0))
    frames = advance(walkers, 1, n_random=40).candidates
    assert [sum(c.source.system == name for c in frames) for name in ("w", "e")] == [10, 30]
    for name, n in (("w", 5), ("e", 15)):
        assert sum(c.source.system == name and c.source.temperature == 600 for c in frames) == n
    nearer = [
        np.abs(c.frame.positions - ETHANOL.positions).max() < np.abs(c.frame.positions - other.positions).max()
        for c in frames
        if c.source.system == "e"
    ]
    assert 5 <= sum(nearer) <= 25, "both conformers"


def test_a_walk_that_failed_goes_on_from_its_last_trusted_frame() -> None:
    def rises_away_from_start(batch: FrameBatch) -> FloatArray:
        away = np.abs(batch.positions - np.tile(ETHANOL.positions, (batch.n_frames, 1)))
        return away.reshape(batch.n_frames, -1).max(axis=1) ** 2 * 40.0

    walkers = explorer(rises_away_from_start, temperatures=[30], max_rewinds=3)
    report = advance(walkers, 1500)
    trajectories = {c.source.trajectory for c in report.candidates}
    assert report.stops["failed"] > 8
    assert 1 < len(trajectories) <= report.stops["failed"] // 4 + 2, "three rewinds, then a new trajectory"
    none = advance(explorer(rises_away_from_start, temperatures=[30], max_rewinds=0), 1500)
    assert len({c.source.trajectory for c in none.candidates}) > len(trajectories)


def test_a_rewound_walker_has_new_velocities_and_its_own_step() -> None:
    walkers = explorer(scripted([0.0] * 9 + [0.9]), max_rewinds=1)
    advance(walkers, 9)
    state = walkers._walkers
    assert state.rewinds.tolist() == [1]
    assert state.step.tolist() == [5]  # trusted at step 1, and a spacing later
    assert state.trusted_frame(0) is not None
    np.testing.assert_array_equal(state.frame(0).positions, state.trusted_frame(0).positions)


def test_atoms_that_fuse_end_a_walk_unless_chemistry_is_wanted() -> None:
    hydrogens = np.flatnonzero(ETHANOL.numbers == 1)
    fused = ETHANOL.positions.copy()
    fused[hydrogens[0]] = fused[hydrogens[1]] + [0.55, 0.0, 0.0]
    strict, reactive = (GeometryCheck([ETHANOL], 0.5, is_reactive=flag) for flag in (False, True))
    assert strict.problems(fused)[0] in ("fused", "broken")
    assert reactive.problems(fused) == {}
    gone = ETHANOL.positions.copy()
    gone[hydrogens[0]] += 20.0
    assert reactive.problems(gone) == {0: "broken"}


def test_constant_pressure_changes_the_cell_that_frames_carry() -> None:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * 4.5
    argon = Frame(np.full(64, 18), grid + 0.05 * rng.normal(size=grid.shape), np.eye(3) * 18.0, np.ones(3, dtype=bool))
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": "a", "smiles": "[Ar]"}],
            "labeling": {"kind": "xtb"},
            "model": {"kind": "nequip"},
            "exploration": {
                "walkers": 2, "temperatures": [100], "timestep": 5.0, "pressure": 2000.0, "pressure_relaxation": 500.0,
                "trust": {"accurate_below": 1e3, "failed_above": 1e4},
            },
        }
    )  # fmt: skip
    walkers = WalkerExplorer(config, {"a": [argon]}, 0, build=lambda _: LennardJonesCommittee(0.0104, 3.4, 8.5))
    report = advance(walkers, 60, n_random=4)
    volumes = [float(np.linalg.det(c.frame.cell)) for c in report.candidates]
    assert len(volumes) == 4
    assert len(set(volumes)) == 4, "each frame has its own cell"
    assert np.linalg.det(walkers._walkers.cell[0]) < 0.98 * 18.0**3, "2,000 bar compress it"


def test_pressure_with_a_model_that_has_no_stress_is_refused() -> None:
    with pytest.raises(InputError, match=r"exploration\.pressure needs model.kind nequip"):
        explorer(pressure=1.0)


def test_walkers_may_react_only_where_that_is_wanted() -> None:
    """Water falls to pieces: a walk ends where a bond breaks, or goes on until the pieces have flown."""
    falling: dict[str, Any] = {"systems": {"e": WATER}, "stiffness": -0.5, "max_temperature_ratio": 1e4}
    strict, reactive = explorer(**falling), explorer(**falling, reactive=True)
    assert advance(strict, 60).stops["broken"] >= 1
    assert advance(reactive, 60).stops == {}
    positions = reactive.walkers.positions
    assert np.linalg.norm(positions[1] - positions[0]) > 2.0  # Angstrom: the bond was 0.97
    assert advance(reactive, 100).stops["broken"] >= 1


def test_what_methods_add_can_be_seen() -> None:
    plain = explorer()
    advance(plain, 2)
    np.testing.assert_array_equal(plain.walkers.bias, np.zeros((ETHANOL.n_atoms, 3)))
    hills = {"kind": "metadynamics", "distances": [[0, 1]], "interval": 0.5, "height": 1.0}
    biased = explorer(methods=[hills], systems={"e": WATER})
    advance(biased, 5)
    bias = biased.walkers.bias
    assert [group.name for group in biased.walkers.steering.groups] == ["metadynamics"]
    assert np.abs(bias[:2]).max() > 1e-3
    np.testing.assert_allclose(bias.sum(axis=0), 0.0, atol=1e-12)
    np.testing.assert_array_equal(bias[2], np.zeros(3))


def test_what_the_committee_expects_of_candidates_comes_with_them() -> None:
    """So that their labels can be judged; of rescored frames, too."""
    config = parse_config(
        {
            "name": "t",
            "systems": [{"name": "e", "smiles": "C"}],
            "labeling": {"kind": "analytic"},
            "model": {"kind": "pair"},
            "exploration": {"walkers": 2, "spacing_steps": 4, "trust": {"accurate_below": 0.1, "failed_above": 0.5}},
        }
    )
    deviation = lambda batch: np.full(batch.n_frames, 0.2)  # noqa: E731
    walkers = WalkerExplorer(config, {"e": [ETHANOL]}, 0, build=lambda _: HarmonicCommittee(1.0, deviation))
    report = advance(walkers, 10, n_random=2, rescore=(ETHANOL,))
    wanted = {candidate.frame.frame_id for candidate in report.candidates} | {ETHANOL.frame_id}
    assert set(report.predictions) == wanted
    direct = HarmonicCommittee(1.0, deviation).evaluate(FrameBatch.of([report.candidates[0].frame]))
    prediction = report.predictions[report.candidates[0].frame.frame_id]
    np.testing.assert_allclose(prediction.forces, direct.forces)
    np.testing.assert_allclose(prediction.deviations, 0.2)
    assert prediction.energy == pytest.approx(float(direct.energy[0]))
    assert prediction.model_version == 1
