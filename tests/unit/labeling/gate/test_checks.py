"""The gate finds each kind of wrong label, lets honest ones through, and does not depend on the order of labels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from alsys.config.labeling import QualityConfig
from alsys.frames import Frame, PointCharges
from alsys.labeling.analytic import morse
from alsys.labeling.gate.balance import net_torque
from alsys.labeling.gate.checks import LabelChecks
from alsys.labeling.gate.findings import Verdict, agree, settle
from alsys.labeling.gate.pair_check import PairForces
from alsys.labels import Diagnostics, Label, LevelOfTheory, Prediction
from alsys.potentials.calibration import Band

pytestmark = pytest.mark.thorough

ETHANOL = np.array(
    [
        [-0.888, 0.167, -0.027], [0.466, -0.512, -0.037], [1.431, 0.323, 0.587],
        [-0.847, 1.176, -0.450], [-1.644, -0.402, -0.576], [-1.187, 0.254, 1.017],
        [0.758, -0.657, -1.083], [0.402, -1.491, 0.454], [1.468, 1.142, 0.055],
    ]
)  # fmt: skip
NUMBERS = [6, 6, 8, 1, 1, 1, 1, 1, 1]
LEVEL, TIGHT = LevelOfTheory({"engine": "test"}), LevelOfTheory({"engine": "test", "tight": True})
DEVIATION = 0.05
GRID_NOISE = 5e-4

Labelled = tuple[Frame, Label, Prediction]


def stream(n: int, seed: int = 0, displacement: float = 0.04, version: int = 1) -> list[Labelled]:
    """Honest labels with numerical noise, and predictions whose error differs from atom to atom."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        frame = Frame.molecule(NUMBERS, ETHANOL + displacement * rng.normal(size=(9, 3)))
        energy, forces = morse(frame.numbers, frame.positions, 4.0, 1.9)
        label = Label(frame.frame_id, LEVEL.level_id, energy, forces + GRID_NOISE * rng.normal(size=(9, 3)))
        sizes = DEVIATION * rng.lognormal(sigma=0.4, size=9)
        predicted = forces + sizes[:, None] * rng.normal(size=(9, 3))
        out.append((frame, label, Prediction(energy + 0.03 * rng.normal(), predicted, sizes, version)))
    return out


def taught(n: int = 60, *, has_model: bool, seed: int = 0) -> LabelChecks:
    gate = LabelChecks(QualityConfig())
    for frame, label, prediction in stream(n, seed):
        gate.observe(frame, label, prediction if has_model else None)
    return gate


def checks(gate: LabelChecks, frame: Frame, label: Label, prediction: Prediction | None = None) -> set[str]:
    return {finding.check for finding in gate.examine(frame, label, prediction)}


def swapped(label: Label, i: int, j: int) -> Label:
    forces = label.forces.copy()
    forces[[i, j]] = forces[[j, i]]
    return replace(label, forces=forces)


FRESH = stream(1, seed=99)[0]


# --- what a label says of itself


@pytest.mark.parametrize("name", ["energy", "forces", "stress"])
def test_what_is_not_finite_is_fatal(name: str) -> None:
    frame, label, _ = FRESH
    forces = label.forces.copy()
    forces[3, 1] = math.inf
    values = {"energy": math.nan, "forces": forces, "stress": np.full((3, 3), math.nan)}
    (finding,) = LabelChecks(QualityConfig()).examine(frame, replace(label, **{name: values[name]}))
    assert (finding.check, finding.is_fatal) == ("not-finite", True)
    assert name in finding.message


def test_forces_of_other_atoms_or_another_frame_are_fatal() -> None:
    frame, label, _ = FRESH
    other = stream(1, seed=98)[0][1]
    for wrong in (replace(label, forces=label.forces[:-1]), other):
        (finding,) = LabelChecks(QualityConfig()).examine(frame, wrong)
        assert (finding.check, finding.is_fatal) == ("shape", True)


def test_each_limit_of_the_config_is_kept_and_stands_when_a_second_label_agrees() -> None:
    frame, label, _ = FRESH
    gate = LabelChecks(QualityConfig(largest_force=40.0))
    push, turn, large = np.zeros((9, 3)), np.zeros((9, 3)), np.zeros((9, 3))
    push[0, 0] = 0.15
    turn[3, 2], turn[6, 2] = 0.5, -0.5
    large[0, 0], large[1, 0] = 50.0, -50.0
    cases = {
        "net-force": replace(label, forces=label.forces + push),
        "torque": replace(label, forces=label.forces + turn),
        "largest-force": replace(label, forces=label.forces + large),
        "spin": replace(label, diagnostics=Diagnostics(spin_excess=0.3)),
        "gap": replace(label, diagnostics=Diagnostics(gap=0.01)),
    }
    for check, wrong in cases.items():
        findings = gate.examine(frame, wrong)
        assert check in {finding.check for finding in findings}
        assert all("\n" not in finding.message for finding in findings)
        assert settle(QualityConfig(), frame, wrong, findings, wrong) is Verdict.DROP
    assert not gate.examine(frame, replace(label, diagnostics=Diagnostics(gap=8.0, spin_excess=0.01)))


def test_a_label_without_diagnostics_does_not_fail_for_them() -> None:
    frame, label, _ = FRESH
    assert checks(LabelChecks(QualityConfig()), frame, label) == set()


def test_a_periodic_frame_has_no_torque() -> None:
    frame, label, _ = FRESH
    box = Frame(frame.numbers, frame.positions, 9.0 * np.eye(3), np.ones(3, dtype=bool))
    assert math.isnan(net_torque(box, label))
    turned = replace(label, frame_id=box.frame_id, forces=label.forces + np.cross(box.positions, [0.0, 0.0, 0.1]))
    assert "torque" not in checks(LabelChecks(QualityConfig()), box, turned)


def test_what_stands_in_point_charges_has_no_net_force_of_its_own() -> None:
    """The charges pull at it, and their forces are no part of the label; other checks go on."""
    frame, label, _ = FRESH
    inside = replace(frame, environment=PointCharges(np.full((1, 3), 4.0), np.ones(1)))
    pulled = replace(label, frame_id=inside.frame_id, forces=label.forces + 0.2)
    gate = LabelChecks(QualityConfig())
    assert checks(gate, frame, replace(label, forces=label.forces + 0.2)) == {"net-force"}
    assert checks(gate, inside, pulled) == set()
    for _ in range(3):
        gate.observe(inside, pulled, None)
    assert checks(gate, inside, replace(pulled, forces=100.0 * pulled.forces)) == {"largest-force"}


def test_a_torque_within_the_limit_is_odd_where_others_have_none() -> None:
    frame, label, _ = FRESH
    arms = frame.positions - frame.positions.mean(axis=0)
    wrong = replace(label, forces=label.forces + 0.003 * np.cross(arms, [0.0, 0.0, 1.0]))
    assert checks(LabelChecks(QualityConfig()), frame, wrong) == set()
    assert checks(taught(has_model=False), frame, wrong) == {"torque"}


# --- gross errors


@pytest.mark.parametrize("has_model", [False, True])
def test_gross_errors_are_named(has_model: bool) -> None:
    gate = taught(has_model=has_model)
    for frame, label, prediction in stream(20, seed=5):
        known = prediction if has_model else None
        assert "sign" in checks(gate, frame, replace(label, forces=-label.forces), known)
        assert "scale" in checks(gate, frame, replace(label, forces=10.0 * label.forces), known)
        assert "scale" in checks(gate, frame, replace(label, forces=0.1 * label.forces), known)
        assert "permutation" in checks(gate, frame, swapped(label, 0, 7), known)
        assert "permutation" in checks(gate, frame, swapped(swapped(label, 0, 7), 2, 7), known)


def test_ten_labels_are_enough_to_tell_a_wrong_sign_without_a_model() -> None:
    gate = taught(10, has_model=False)
    frame, label, _ = FRESH
    assert "sign" in checks(gate, frame, replace(label, forces=-label.forces))
    assert checks(gate, frame, label) == set()


def test_a_bad_prediction_does_not_accuse_a_good_label() -> None:
    rng = np.random.default_rng(3)
    gate = LabelChecks(QualityConfig())
    for frame, label, prediction in stream(50, seed=6):
        useless = replace(prediction, forces=3.0 * rng.normal(size=(9, 3)), deviations=np.full(9, 6.0))
        assert checks(gate, frame, label, useless) == set()


# --- subtle errors


def test_another_functional_is_found_by_its_energy() -> None:
    frame, label, prediction = FRESH
    for shift in (-5.4, 10.8):  # heat raises energies, so that there is more room above
        wrong = replace(label, energy=label.energy + shift)
        assert checks(taught(has_model=False), frame, wrong) == {"energy"}
        assert checks(taught(has_model=True), frame, wrong, prediction) == {"residual-energy"}


def test_a_committee_without_a_notion_of_energies_does_not_hide_another_functional() -> None:
    rng = np.random.default_rng(4)
    gate = LabelChecks(QualityConfig())
    rows = [(f, r, replace(p, energy=p.energy + 3.0 * rng.normal())) for f, r, p in stream(60)]
    for frame, label, prediction in rows[:-1]:
        gate.observe(frame, label, prediction)
    frame, label, prediction = rows[-1]
    assert checks(gate, frame, label, prediction) == set()
    assert checks(gate, frame, replace(label, energy=label.energy - 5.4), prediction) == {"energy"}


def test_a_committee_that_halves_all_forces_accuses_nobody() -> None:
    rows = [(f, r, replace(p, forces=0.5 * p.forces)) for f, r, p in stream(40)]
    gate = LabelChecks(QualityConfig())
    flagged = gate.review(*(list(column) for column in zip(*rows, strict=True)))
    assert len(flagged) <= 1


def test_free_atoms_bound_the_energy_of_the_first_molecule() -> None:
    gate = LabelChecks(QualityConfig())
    for number, energy in ((1, -13.6), (6, -1025.3), (8, -2035.6)):
        atom = Frame.molecule([number], np.zeros((1, 3)), multiplicity=2)
        gate.observe(atom, Label(atom.frame_id, LEVEL.level_id, energy, np.zeros((1, 3))), None)
    frame, label, _ = FRESH
    free = 6 * -13.6 + 2 * -1025.3 - 2035.6
    assert checks(gate, frame, replace(label, energy=free - 35.0)) == set()
    assert checks(gate, frame, replace(label, energy=(free - 35.0) / 27.2114)) == {"energy"}
    assert checks(gate, frame, replace(label, energy=free - 200.0)) == {"energy"}


def test_energies_of_many_compositions_are_additive() -> None:
    rng = np.random.default_rng(0)
    gate = LabelChecks(QualityConfig())
    counts = [(n_c, n_h) for n_c in range(1, 5) for n_h in range(1, 5)]
    frames = [Frame.molecule([6] * c + [1] * h, 2.0 * rng.normal(size=(c + h, 3))) for c, h in counts]

    def label_of(frame: Frame, shift: float = 0.0) -> Label:
        energy = -1030.0 * (frame.numbers == 6).sum() - 15.0 * (frame.numbers == 1).sum() + shift
        return Label(frame.frame_id, LEVEL.level_id, float(energy), np.zeros((frame.n_atoms, 3)))

    for i, frame in enumerate(frames[:-1]):
        gate.observe(frame, label_of(frame, 40.0 if i == 2 else 0.1 * rng.normal()), None)
    assert checks(gate, frames[-1], label_of(frames[-1])) == set()
    assert checks(gate, frames[-1], label_of(frames[-1], 40.0)) == {"energy"}


def test_a_force_error_is_odd_only_where_the_committee_is_sure() -> None:
    gate = taught(has_model=True)
    frame, label, prediction = FRESH
    away = np.zeros((9, 3))
    away[0, 0], away[1, 0] = 1.0, -1.0
    surprising = replace(prediction, forces=label.forces + away, deviations=np.full(9, DEVIATION))
    assert checks(gate, frame, label, surprising) == {"residual-force"}
    assert checks(gate, frame, label, replace(surprising, deviations=np.full(9, 0.8))) == set()
    assert [f.check for f in gate.examine(frame, label, surprising, Band(1.0, 1.0))] == ["residual-force"]
    assert not gate.examine(frame, label, surprising, Band(0.6 / DEVIATION, 1.0))


def test_a_hot_frame_may_be_far_above_in_energy_but_not_below() -> None:
    gate = LabelChecks(QualityConfig())
    frame, label, _ = FRESH
    for i, (seen, seen_label, _) in enumerate(stream(40)):
        gate.observe(seen, replace(seen_label, energy=-4209.0 + 0.2 * math.sin(i)), None)
    assert checks(gate, frame, replace(label, energy=-4207.0)) == set()
    assert checks(gate, frame, replace(label, energy=-4211.5)) == {"energy"}


# --- in the long run


@pytest.mark.parametrize("has_model", [False, True])
def test_honest_labels_are_hardly_ever_fail_and_poison_does_not_blind_the_gate(has_model: bool) -> None:
    rng = np.random.default_rng(8)
    gate = LabelChecks(QualityConfig())
    n_failed = n_missed = n_poison = 0
    for i, (frame, label, prediction) in enumerate(stream(600, seed=7)):
        known = prediction if has_model and i >= 30 else None
        is_poison = rng.random() < 0.05
        if is_poison:
            label = replace(label, forces=-label.forces) if i % 2 else replace(label, energy=label.energy - 5.0)
        findings = gate.examine(frame, label, known)
        n_failed += bool(findings) and not is_poison
        n_poison += is_poison and i >= 30
        n_missed += is_poison and i >= 30 and not findings
        if not findings:
            gate.observe(frame, label, known)
    assert n_poison > 15
    assert n_missed == 0
    assert n_failed <= 3


def test_a_hotter_stage_is_not_taken_for_poison() -> None:
    gate = LabelChecks(QualityConfig())
    n_failed = 0
    for frame, label, _ in (*stream(150, seed=1, displacement=0.02), *stream(150, seed=2, displacement=0.04)):
        n_failed += bool(gate.examine(frame, label))
        gate.observe(frame, label, None)
    assert n_failed <= 6, "four times the temperature at a stroke may cost a few second labels"


def verdicts(gate: LabelChecks) -> list[tuple[str, ...]]:
    rng = np.random.default_rng(12)
    out = []
    for frame, label, prediction in stream(25, seed=11):
        for size in (0.0, 0.02, 0.1, 0.5):
            wrong = replace(label, energy=label.energy + size, forces=label.forces + size * rng.normal(size=(9, 3)))
            findings = [gate.examine(frame, wrong, known) for known in (None, prediction)]
            out += [tuple(finding.message for finding in found) for found in findings]
    return out


@pytest.mark.parametrize("max_records", [30, 2000])
def test_order_and_restarts_do_not_change_verdicts(max_records: int) -> None:
    rows = [*stream(60, version=1), *stream(60, seed=1, version=2)]
    gates = []
    for order in (np.arange(120), np.arange(120)[::-1], np.random.default_rng(0).permutation(120)):
        gate = LabelChecks(QualityConfig(), max_records=max_records)
        for i in order:
            gate.observe(*rows[i])
        gates.append(gate)
    for row in rows:  # a restart feeds some labels twice
        gates[0].observe(*row)
    first, *others = (verdicts(gate) for gate in gates)
    assert gates[0].n_observed == min(max_records, 120)
    assert sum(bool(findings) for findings in first) > 20
    assert all(other == first for other in others)


def test_a_later_committee_replaces_the_residual_of_an_earlier_one() -> None:
    rows = stream(40, version=1)
    better = [(f, r, replace(p, forces=r.forces, energy=r.energy, model_version=2)) for f, r, p in rows]
    forwards, backwards = LabelChecks(QualityConfig()), LabelChecks(QualityConfig())
    for row in (*rows, *better):
        forwards.observe(*row)
    for row in (*better, *rows):
        backwards.observe(*row)
    frame, label, prediction = FRESH
    assert checks(taught(40, has_model=True), frame, label, prediction) == set()
    for gate in (forwards, backwards):
        assert "residual-force" in checks(gate, frame, label, replace(prediction, deviations=np.full(9, 1e-3)))


def test_a_label_that_is_forgotten_leaves_no_trace() -> None:
    rows = stream(50)
    gate, clean = LabelChecks(QualityConfig()), LabelChecks(QualityConfig())
    for frame, label, prediction in rows[:-1]:
        gate.observe(frame, label, prediction)
        clean.observe(frame, label, prediction)
    frame, label, prediction = rows[-1]
    wrong = replace(label, energy=label.energy + 90.0, forces=label.forces[::-1])
    gate.observe(frame, wrong, prediction)
    gate.forget(wrong.label_id)
    assert verdicts(gate) == verdicts(clean)


# --- afterwards


def test_review_finds_what_slipped_through_and_passes_over_what_was_cleared() -> None:
    rows = stream(60)
    wrong = {3: "sign", 17: "permutation", 40: "residual-energy"}
    labels = [label for _, label, _ in rows]
    labels[3] = replace(labels[3], forces=-labels[3].forces)
    labels[17] = swapped(labels[17], 0, 7)
    labels[40] = replace(labels[40], energy=labels[40].energy - 2.0)
    gate = LabelChecks(QualityConfig())
    frames, forecasts = [frame for frame, _, _ in rows], [prediction for _, _, prediction in rows]
    flagged = dict(gate.review(frames, labels, forecasts))
    assert set(flagged) == set(wrong)
    for row, check in wrong.items():
        assert check in {finding.check for finding in flagged[row]}
    gate.clear(labels[3].label_id)
    assert {row for row, _ in gate.review(frames, labels, forecasts)} == {17, 40}


def test_review_without_a_committee_finds_a_wrong_sign_among_the_first_labels() -> None:
    rows = stream(40)
    labels = [label for _, label, _ in rows]
    labels[3] = replace(labels[3], forces=-labels[3].forces)
    gate = LabelChecks(QualityConfig())
    for i, (frame, _, _) in enumerate(rows):
        findings = gate.examine(frame, labels[i])
        assert not findings, "nothing is known of the first labels"
        gate.observe(frame, labels[i], None)
    flagged = gate.review([frame for frame, _, _ in rows], labels, [None] * 40)
    assert [row for row, _ in flagged] == [3]


def test_a_committee_that_predicts_nan_accuses_nobody() -> None:
    frame, label, prediction = FRESH
    broken = replace(prediction, forces=np.full((9, 3), math.nan))
    assert checks(taught(has_model=True), frame, label, broken) == set()
    assert LabelChecks(QualityConfig()).review([frame], [label], [broken]) == []


def test_a_second_label_at_tighter_settings_decides() -> None:
    frame, label, _ = FRESH
    rng = np.random.default_rng(0)
    config = QualityConfig()
    findings = taught(has_model=False).examine(frame, replace(label, forces=-label.forces))
    tight = replace(label, level_id=TIGHT.level_id, forces=label.forces + 1.2e-3 * rng.normal(size=(9, 3)))
    assert settle(config, frame, label, findings, tight) is Verdict.KEEP
    assert settle(config, frame, replace(label, forces=-label.forces), findings, tight) is Verdict.DROP
    assert settle(config, frame, label, findings, None) is Verdict.DROP


def test_agreement_of_two_labels() -> None:
    _, label, _ = FRESH
    tight = replace(label, level_id=TIGHT.level_id)
    assert agree(label, label, 0.005)
    assert agree(label, replace(tight, energy=label.energy + 0.1), 0.005), "levels differ by a constant"
    assert not agree(label, replace(label, energy=label.energy + 0.1), 0.005), "one level does not"
    assert not agree(label, replace(tight, energy=label.energy + 5.4), 0.005), "no grid makes eV"
    assert not agree(label, replace(tight, forces=label.forces + 0.006), 0.005)
    local = label.forces.copy()
    local[0, 0] += 0.02
    assert agree(label, replace(tight, forces=local), 0.005)
    local[0, 0] += 0.04
    assert not agree(label, replace(tight, forces=local), 0.005), "an atom is far off"
    assert not agree(label, replace(tight, forces=label.forces * math.nan), 0.005)
    assert not agree(label, stream(1, seed=98)[0][1], 0.005), "two frames"


def test_each_charge_has_a_rough_fit_of_its_own() -> None:
    pairs, rng = PairForces(), np.random.default_rng(3)
    frames = [Frame.molecule(NUMBERS, ETHANOL + 0.04 * rng.normal(size=(9, 3)), q, 1 + q) for q in [0, 1] * 15]
    for frame in frames:
        _, forces = morse(frame.numbers, frame.positions, 4.0, 1.9)
        sign = -1.0 if frame.charge else 1.0  # as far apart as can be
        pairs.observe(frame, Label(frame.frame_id, LEVEL.level_id, 0.0, sign * forces))
    for charge, multiplicity in ((0, 1), (1, 2)):
        frame = Frame.molecule(NUMBERS, ETHANOL, charge, multiplicity)
        _, forces = morse(frame.numbers, frame.positions, 4.0, 1.9)
        found = pairs.predict(frame, "new")
        assert found is not None
        expected = -forces if charge else forces
        assert np.sqrt(np.square(found.forces - expected).mean()) < 0.5 * np.sqrt(np.square(forces).mean())
    assert pairs.predict(Frame.molecule(NUMBERS, ETHANOL, -1, 2), "new") is None
