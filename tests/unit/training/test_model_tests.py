"""Real committees under examination: good ones pass; shuffled labels, NaN, explosions and one bad system do not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from scipy import stats

from alsys.config import CampaignConfig, parse_config
from alsys.control.rules.promotion import judge
from alsys.events import ModelPromoted, ModelRejected
from alsys.frames import Arm, Candidate, FloatArray, Frame, Source
from alsys.labels import Label
from alsys.metrics import Metrics
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.calibration import Band
from alsys.potentials.pair import PairCommittee
from alsys.potentials.xtb import XTBMethod
from alsys.store.base import Snapshot
from alsys.store.memory import open_writer
from alsys.testing.fakes import FAKE_LEVEL
from alsys.training.base import TrainedCommittee, TrainingFailure, TrainingOrder
from alsys.training.dataset import split
from alsys.training.evaluate import fit_metrics
from alsys.training.factory import build_trainer
from alsys.training.model_errors import AtomErrors, blind_spots, coverage, p_positive, skill, upper_limit
from alsys.training.model_tests import ModelTester, highest_temperature

MOLECULES = {"water": "H2O", "so2": "SO2"}
"""Two systems without a pair of elements in common: what is wrong on one is right on the other."""
PAIR = {"kind": "pair", "n_basis": 40, "r_max": 4.0, "members": 3}
NEQUIP = {"kind": "nequip", "num_layers": 1, "num_features": 8, "r_max": 4.0, "members": 2}


def springs(frame: Frame, rest: FloatArray) -> Label:
    """Springs between all atoms, 25 eV/Angstrom^2 for bonds and 6 for the rest."""
    i, j = np.triu_indices(frame.n_atoms, k=1)
    vector, rests = frame.positions[i] - frame.positions[j], np.linalg.norm(rest[i] - rest[j], axis=1)
    distance, stiffness = np.linalg.norm(vector, axis=1), np.where(rests < 1.5, 25.0, 6.0)
    forces = np.zeros_like(frame.positions)
    pull = -(stiffness * (distance - rests) / distance)[:, None] * vector
    np.add.at(forces, i, pull)
    np.add.at(forces, j, -pull)
    energy = 0.5 * float((stiffness * np.square(distance - rests)).sum())
    return Label(frame.frame_id, FAKE_LEVEL.level_id, energy, forces)


def make_data(n: Mapping[str, int], n_random: int = 15, spread: float = 0.05, seed: int = 0) -> Snapshot:
    """Free atoms, `n` training frames of each system, and `n_random` of each in the random arm."""
    rng = np.random.default_rng(seed)
    free = [Frame.molecule([z], np.zeros((1, 3)), multiplicity=m) for z, m in ((1, 2), (8, 3), (16, 3))]
    candidates = [Candidate(frame, Source("atoms", Arm.ATOM, "free-atom")) for frame in free]
    labels = [Label(frame.frame_id, FAKE_LEVEL.level_id, 0.0, np.zeros((1, 3))) for frame in free]
    for arm, count in ((Arm.INITIAL, n), (Arm.RANDOM, dict.fromkeys(n, n_random))):
        for system, k in count.items():
            atoms = molecule(MOLECULES[system])
            for _ in range(k):
                frame = Frame.molecule(atoms.numbers, atoms.positions + rng.normal(0, spread, (len(atoms), 3)))
                candidates.append(Candidate(frame, Source(system, arm, "rattle", trajectory=len(candidates))))
                labels.append(springs(frame, atoms.positions))
    store = open_writer()
    store.stage(candidates=candidates, labels=labels, levels=[FAKE_LEVEL])
    store.commit()
    return store.snapshot(FAKE_LEVEL.level_id)


def shuffled(data: Snapshot, systems: Sequence[str] = tuple(MOLECULES)) -> Snapshot:
    """Training labels of some systems swapped among frames of one composition; the random arm keeps its own."""
    energy, forces, offsets = data.energy.copy(), data.forces.copy(), data.offsets
    for system in systems:
        rows = np.flatnonzero(data.is_arm(Arm.INITIAL) & (data.system == data.systems.index(system)))
        for row, other in zip(rows, np.roll(rows, 1), strict=True):
            energy[row] = data.energy[other]
            forces[offsets[row] : offsets[row + 1]] = data.forces[offsets[other] : offsets[other + 1]]
    return replace(data, energy=energy, forces=forces)


def scaled(data: Snapshot, factors: Mapping[str, float]) -> Snapshot:
    """Training labels of some systems multiplied by a factor: wrong, and still a potential."""
    factor = np.ones(data.n_frames)
    for system, value in factors.items():
        factor[data.is_arm(Arm.INITIAL) & (data.system == data.systems.index(system))] = value
    return replace(data, energy=data.energy * factor, forces=data.forces * np.repeat(factor, data.n_atoms)[:, None])


def config(model: dict[str, Any] = PAIR, temperature: float = 300.0, **sections: Any) -> CampaignConfig:
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": name, "molecule": formula} for name, formula in MOLECULES.items()],
            "labeling": {"kind": "analytic"},
            "model": model,
            "training": {
                "budget_s": 1e6,
                "max_epochs": 10,
                "learning_rate": 0.02,
                "validation_share": 0.0,
                "compile": False,
            },
            "exploration": {"temperatures": [temperature]},
            **sections,
        }
    )


def fit(
    data: Snapshot, champion: CommitteeState | None = None, version: int = 1, settings: CampaignConfig | None = None
) -> TrainedCommittee:
    order = TrainingOrder(version, data, None, champion, seed=version)
    trained = build_trainer(settings or config()).run(order)
    assert isinstance(trained, TrainedCommittee), trained
    return trained


def parts_of(data: Snapshot) -> tuple[Snapshot, Snapshot, Snapshot]:
    parts = split(data, 0.0)
    return parts.train, parts.validation, parts.random


def decide(new: TrainedCommittee, old: TrainedCommittee | None) -> ModelPromoted | ModelRejected:
    champions = [] if old is None else [old.metrics]
    version = 0 if old is None else old.state.version
    return judge(new.state.version, new.metrics, version, champions, config().promotion, 0.9, 0.0)


@pytest.fixture(scope="module")
def data() -> Snapshot:
    return make_data({"water": 30, "so2": 30})


@pytest.fixture(scope="module")
def good(data: Snapshot) -> TrainedCommittee:
    """From half of the frames of both systems."""
    rows = [*range(3), *range(3, 18), *range(33, 48), *range(63, data.n_frames)]
    return fit(data.select(np.array(rows)))


def test_a_good_committee_is_promoted_and_its_successor_too(data: Snapshot, good: TrainedCommittee) -> None:
    first = decide(good, None)
    assert isinstance(first, ModelPromoted)
    assert not first.is_probation, first.reason
    assert good.metrics["stability_survival"] == good.metrics["stability_hot_survival"] == 1.0
    assert good.metrics["stability_drift"] < 1e-3
    assert good.metrics["stability_steps"] == 500
    assert good.metrics["stability_hot_temperature"] == 375.0
    assert good.metrics["holdout_skill"] > 0.9
    assert {
        "stability_drift/water",
        "stability_drift/so2",
        "n_random/water",
        "force_mae_random_arm/so2",
    } <= good.metrics.keys()
    assert not any(name.startswith(("p_worse", "difference")) for name in good.metrics)
    better = fit(data, good.state, version=2)
    event = decide(better, good)
    assert isinstance(event, ModelPromoted)
    assert not event.is_probation, event.reason
    assert event.reason.startswith("better: ")
    assert better.metrics["difference_low/water"] < better.metrics["difference_high/water"]
    assert 0.0 <= better.metrics["p_worse/water"] <= 1.0
    assert all(math.isfinite(value) for value in better.metrics.values())


@pytest.mark.parametrize("model", [PAIR, NEQUIP], ids=lambda model: str(model["kind"]))
def test_shuffled_labels_are_rejected_with_or_without_a_champion(data: Snapshot, model: dict[str, Any]) -> None:
    settings = config(model, promotion={"length": 5.0, "walkers": 2})
    data = data.select(np.array([*range(11), *range(33, 41), *range(63, data.n_frames)]))
    champion = fit(data, settings=settings)
    wrong = fit(shuffled(data), champion.state, version=2, settings=settings)
    event = decide(wrong, champion)
    assert isinstance(event, ModelRejected)
    assert {reason.split(":")[0] for reason in event.reasons} >= {"worse", "has learned next to nothing"}
    alone = decide(wrong, None)
    assert isinstance(alone, ModelRejected)
    assert alone.reason.startswith("has learned next to nothing: it explains 0% of the variance")


@pytest.mark.parametrize("model", [PAIR, NEQUIP], ids=lambda model: str(model["kind"]))
def test_weights_that_are_not_finite_are_a_failed_fit(data: Snapshot, model: dict[str, Any]) -> None:
    settings = config(model, promotion={"examine": False})
    trained = fit(data.select(np.arange(6)), settings=settings)
    name = next(name for name, array in trained.state.members[1].items() if array.dtype.kind == "f" and array.size)
    array = np.array(trained.state.members[1][name])
    array.flat[0] = math.nan
    members = (trained.state.members[0], {**trained.state.members[1], name: array}, *trained.state.members[2:])
    broken = replace(trained, state=replace(trained.state, members=members))
    order = TrainingOrder(2, data, None, None, seed=2)
    failure = ModelTester(settings).examine(broken, order)
    assert isinstance(failure, TrainingFailure)
    assert failure.message == f"weights of member 1 are not finite ({name})"
    silent = replace(trained, metrics=trained.metrics | Metrics({"force_mae_train": math.nan}))
    failure = ModelTester(settings).examine(silent, order)
    assert isinstance(failure, TrainingFailure)
    assert failure.message == "the committee predicts NaN (force_mae_train)"


def with_hole(state: CommitteeState, depth: float = 3.0, place: float = 1.33) -> CommitteeState:
    """A well where O-H bonds of the labelled frames hardly reach, and those of dynamics do."""
    elements = state.spec["elements"]
    assert elements == ["H", "O", "S"]
    centre = round((place - 0.4) / (4.0 - 0.4) * 39)
    members = []
    for member in state.members:
        coefficients = np.array(member["coefficients"])
        coefficients[1 * 40 + centre] -= depth  # the second kind of pair is H-O
        members.append({**member, "coefficients": coefficients})
    return replace(state, version=2, members=tuple(members))


def test_a_committee_that_explodes_is_rejected_though_its_errors_are_smaller(data: Snapshot) -> None:
    """The champion has learned from labels that are too large: it is worse on the random arm, and sound in dynamics."""
    settings = config(temperature=800.0)
    champion = fit(scaled(data, dict.fromkeys(MOLECULES, 1.4)), settings=settings)
    better = fit(data, champion.state, version=2, settings=settings)
    assert isinstance(decide(better, champion), ModelPromoted)
    spoiled = with_hole(better.state)
    errors, _ = fit_metrics(
        PairCommittee(spoiled), PairCommittee(champion.state), *parts_of(data), wall_s=1.0, epochs=1.0, seed=1
    )
    exploding = TrainedCommittee(spoiled, errors)
    examined = ModelTester(settings).examine(exploding, TrainingOrder(2, data, None, champion.state, seed=2))
    assert isinstance(examined, TrainedCommittee)
    event = decide(examined, champion)
    assert examined.metrics["difference_high"] < 0, "better on average"
    assert isinstance(event, ModelRejected)
    assert event.reasons[-1].startswith("lost "), event.reasons
    assert "of 8 walkers" in event.reasons[-1]
    assert not any(reason.startswith("worse") for reason in event.reasons)
    first = decide(examined, None)
    assert isinstance(first, ModelPromoted)
    assert first.is_probation, "as a first version it is what there is"


class Slow:
    """A committee whose evaluations take a while, on a clock of its own."""

    def __init__(self, committee: Any, seconds: float) -> None:
        self._committee, self._seconds = committee, seconds
        self.now = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._committee, name)

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> Any:
        self.now += self._seconds
        return self._committee.evaluate(batch, members)


def slowly(data: Snapshot, state: CommitteeState, seconds: float) -> TrainedCommittee:
    """Examined where each evaluation takes so many seconds of the six that there are."""
    settings = config(temperature=800.0, training={"budget_s": 60.0, "validation_share": 0.0})
    slow = Slow(PairCommittee(state), seconds)
    errors, _ = fit_metrics(PairCommittee(state), None, *parts_of(data), wall_s=1.0, epochs=1.0, seed=1)
    order = TrainingOrder(2, data, None, None, seed=2)
    examined = ModelTester(settings, lambda: slow.now).examine(TrainedCommittee(state, errors), order, slow)
    assert isinstance(examined, TrainedCommittee)
    return examined


def test_dynamics_have_a_time_of_their_own_and_go_on_until_they_say_something(
    data: Snapshot, good: TrainedCommittee
) -> None:
    enough = slowly(data, good.state, 0.0625)
    assert enough.metrics["stability_steps"] == 96
    late = slowly(data, good.state, 0.4)
    assert late.metrics["stability_steps"] == 60, (
        "the least that says anything, though six seconds are over after fifteen"
    )
    assert late.metrics["stability_survival"] == 1.0
    spoiled = slowly(data, with_hole(good.state), 0.4)
    assert spoiled.metrics["stability_hot_survival"] < 1.0


def test_dynamics_for_which_there_was_no_time_speak_for_nobody(data: Snapshot, good: TrainedCommittee) -> None:
    examined = slowly(data, good.state, 4.0)
    assert examined.metrics["stability_steps"] < 10
    assert not {"stability_survival", "stability_hot_survival", "stability_drift"} & examined.metrics.keys()
    event = decide(examined, None)
    assert isinstance(event, ModelPromoted)
    assert event.is_probation


def test_a_committee_that_forgot_the_energies_of_one_system_is_rejected(data: Snapshot, good: TrainedCommittee) -> None:
    """Its forces are the champion's own."""
    elements = good.state.spec["elements"]
    assert elements == ["H", "O", "S"]
    members = tuple({**member, "shifts": member["shifts"] + np.array([0.0, 0.0, 1.0])} for member in good.state.members)
    shifted = replace(good.state, version=2, members=members)
    order = TrainingOrder(2, data, None, good.state, seed=2)
    examined = ModelTester(config(promotion={"length": 5.0, "walkers": 1})).examine(
        TrainedCommittee(shifted, Metrics()), order
    )
    assert isinstance(examined, TrainedCommittee)
    event = decide(examined, good)
    assert isinstance(event, ModelRejected)
    assert [reason.split(":")[0] for reason in event.reasons] == [
        "energy error more than doubled", "energy error more than doubled on so2",
    ]  # fmt: skip
    assert examined.metrics["holdout_energy_mae/so2"] == pytest.approx(1.0 / 3.0, abs=0.02)
    same = ModelTester(config(promotion={"length": 5.0, "walkers": 1})).examine(good, order)
    assert isinstance(same, TrainedCommittee)
    assert same.metrics["holdout_energy_mae"] == same.metrics["holdout_champion_energy_mae"]
    assert isinstance(decide(same, good), ModelPromoted)


def test_better_on_average_but_worse_on_one_system_is_rejected_with_its_name(data: Snapshot) -> None:
    """The challenger has thirty frames of SO2, where the champion has two, and labels of water that are too large."""
    rows = [*range(3), *range(3, 33), *range(33, 35), *range(63, data.n_frames)]
    champion = fit(data.select(np.array(rows)))
    lopsided = fit(scaled(data, {"water": 1.1}), champion.state, version=2)
    event = decide(lopsided, champion)
    assert lopsided.metrics["difference_high"] < 0, "better on average"
    assert isinstance(event, ModelRejected)
    assert len(event.reasons) == 1, event.reasons
    assert event.reason.startswith("worse on water: [+")
    assert event.reason.endswith("meV/Angstrom over 15 random-arm frames")


def test_without_an_examination_metrics_stay_what_they_were(data: Snapshot) -> None:
    trained = fit(data, settings=config(promotion={"examine": False}))
    assert not any(name.startswith(("holdout_", "stability_", "blind", "n_random/")) for name in trained.metrics)


def test_a_difference_is_examined_with_its_baseline(data: Snapshot) -> None:
    """A model that adds nothing to GFN1-xTB holds water together; without the baseline it would fly apart."""
    water = data.select((data.system == data.systems.index("water")) | data.is_arm(Arm.ATOM))
    zeros = replace(water, baseline_energy=water.energy.copy(), baseline_forces=water.forces.copy())
    settings = config(
        temperature=1000.0,
        labeling={"kind": "analytic", "baseline": {"kind": "gfn1-xtb"}},
        training={"delta": "gfn1-xtb", "validation_share": 0.0, "budget_s": 1e6},
        promotion={"length": 60.0, "walkers": 2},
    )
    spec = {"elements": ["H", "O", "S"], "r_max": 4.0, "n_basis": 8}
    member = {"coefficients": np.zeros(48), "shifts": np.zeros(3)}
    state = CommitteeState(1, "pair", spec, (member, member), baseline=XTBMethod("GFN1-xTB").spec)
    order = TrainingOrder(1, zeros, None, None, seed=1)
    examined = ModelTester(settings).examine(TrainedCommittee(state, Metrics()), order)
    assert isinstance(examined, TrainedCommittee)
    assert examined.metrics["stability_steps"] == 120
    assert examined.metrics["stability_survival"] == examined.metrics["stability_hot_survival"] == 1.0
    bare = ModelTester(config(temperature=1000.0, promotion={"length": 60.0, "walkers": 2})).examine(
        TrainedCommittee(replace(state, baseline=None), Metrics()), order
    )
    assert isinstance(bare, TrainedCommittee)
    assert bare.metrics["stability_hot_survival"] < 1.0


def test_coverage_of_the_band_in_force_is_measured_for_both(data: Snapshot, good: TrainedCommittee) -> None:
    order = TrainingOrder(2, data, None, good.state, seed=2, band=Band(1e6, 1.0))
    settings = config(promotion={"length": 5.0, "walkers": 1})
    wide = ModelTester(settings).examine(good, order)
    narrow = ModelTester(settings).examine(good, replace(order, band=Band(1e-6, 1.0)))
    assert isinstance(wide, TrainedCommittee)
    assert isinstance(narrow, TrainedCommittee)
    assert wide.metrics["holdout_coverage"] == wide.metrics["holdout_champion_coverage"] == 1.0
    assert narrow.metrics["holdout_coverage"] < 0.05
    assert narrow.metrics["holdout_coverage"] <= narrow.metrics["holdout_coverage_high"] < 0.3
    assert "holdout_coverage" not in good.metrics, "no band, no coverage"


def test_frames_with_masked_atoms_start_no_dynamics(data: Snapshot) -> None:
    mask = data.mask.copy()
    mask[data.offsets[:-1][~data.is_arm(Arm.ATOM)]] = False
    trained = fit(replace(data, mask=mask))
    assert "holdout_skill" in trained.metrics
    assert "stability_steps" not in trained.metrics


def test_walkers_are_bounded_and_every_system_has_one(data: Snapshot) -> None:
    few = fit(data, settings=config(promotion={"length": 5.0, "walkers": 1}))
    assert few.metrics["stability_walkers"] == 2, "one of each system"
    bounded = fit(data, settings=config(promotion={"length": 5.0, "walkers": 50, "max_atoms": 30}))
    assert bounded.metrics["stability_walkers"] == 5


# --- statistics


def errors_of(deviation: FloatArray, error: FloatArray) -> AtomErrors:
    """Of frames of equally many atoms: ``(n_frames, n_atoms)`` each."""
    zeros = np.zeros(len(deviation))
    return AtomErrors(tuple(deviation), tuple(error), zeros, zeros, zeros, zeros, zeros)


def test_the_upper_limit_is_that_of_clopper_and_pearson() -> None:
    assert upper_limit(0, 59) == pytest.approx(1.0 - 0.05 ** (1.0 / 59.0))
    assert upper_limit(1, 20) == pytest.approx(0.2161, abs=5e-5)  # tables
    for k, n in ((0, 10), (3, 40), (17, 30)):
        assert upper_limit(k, n) == pytest.approx(stats.binomtest(k, n, alternative="less").proportion_ci().high)
    assert upper_limit(5, 5) == 1.0


def test_the_paired_test_is_students() -> None:
    values = np.random.default_rng(3).normal(0.3, 1.0, 12)
    assert p_positive(values) == pytest.approx(stats.ttest_1samp(values, 0.0, alternative="greater").pvalue)
    assert p_positive(np.full(4, 0.1)) == 0.0
    assert p_positive(np.full(4, -0.1)) == 1.0


def test_blind_spots_are_frames_that_are_trusted_and_wrong() -> None:
    rng = np.random.default_rng(0)
    deviation = rng.lognormal(-3.0, 1.0, (200, 6))
    honest = errors_of(deviation, deviation * rng.exponential(0.5, deviation.shape))
    found = blind_spots(honest, tolerated_error=0.15, probability=0.9)
    assert found["trusted"] > 0.3
    assert found["blind_spots"] < 0.05
    lies = rng.random(200) < 0.2  # one frame in five is wrong and looks like any other
    blind = errors_of(np.where(lies[:, None], 0.01, deviation), np.where(lies[:, None], 0.4, honest.error))
    spoiled = blind_spots(blind, tolerated_error=0.15, probability=0.8)
    assert 0.05 < spoiled["blind_spots"] < 0.25
    assert spoiled["blind_spots"] < spoiled["blind_spots_high"]
    useless = blind_spots(errors_of(np.full((50, 3), 0.1), np.full((50, 3), 1.0)), 0.15, 0.9)
    assert (useless["trusted"], useless["blind_spots"]) == (0.0, 0.0)


def test_skill_is_the_variance_explained() -> None:
    frames = np.full(10, 4.0)
    errors = AtomErrors((), (), frames, frames / 4.0, frames, frames, frames)
    assert skill(errors, seed=0) == pytest.approx({"holdout_skill": 0.75, "holdout_skill_high": 0.75})
    assert skill(AtomErrors((), (), frames, frames, 0.0 * frames, frames, frames), seed=0) == {}, (
        "no force, no variance"
    )


def test_coverage_is_the_mean_over_frames() -> None:
    errors = errors_of(np.full((10, 4), 0.1), np.tile([0.05, 0.15, 0.15, 0.25], (10, 1)))
    share, error = coverage(errors, Band(2.0, 1.0))
    assert share == pytest.approx(0.75)
    assert 0.0 < error < 0.1


def test_the_highest_temperature_is_that_of_all_methods() -> None:
    assert highest_temperature(config()) == 300.0
    methods = [{"kind": "plain"}, {"kind": "ramp", "points": [[0, 200], [100, 900]]}]
    exploration = {"temperatures": [300.0, 400.0], "methods": methods}
    assert highest_temperature(config(exploration=exploration)) == 900.0
    methods += [{"kind": "replica-exchange", "highest": 1200.0}, {"kind": "plain", "temperatures": [1500.0]}]
    assert highest_temperature(config(exploration=exploration)) == 1500.0
