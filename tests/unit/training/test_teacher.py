"""Teachers move and label; frames are thermal; what they cannot treat is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk, molecule

from alsys.config.start import TeacherStart
from alsys.dynamics.runner import Evaluation
from alsys.errors import InputError
from alsys.frames import TRAINING_ARMS, Arm, FloatArray, Frame
from alsys.potentials.base import FrameBatch
from alsys.potentials.baseline import Baseline
from alsys.potentials.xtb import XTBMethod, single_point
from alsys.store.base import Snapshot
from alsys.training.dataset import less_baseline
from alsys.training.snapshots import snapshot_of
from alsys.training.teacher import (
    CommitteeTeacher,
    XTBTeacher,
    build_teacher,
    check_teacher,
    relabelled,
    sample,
    taught,
)
from alsys.units import BOLTZMANN
from support.committees import HarmonicCommittee
from support.lennard_jones import LennardJonesCommittee

needs_torchani = pytest.mark.skipif(importlib.util.find_spec("torchani") is None, reason="torchani is not installed")

MakeSnapshot = Callable[..., Snapshot]
STIFFNESS = 20.0


class Springs:
    """Every atom on a spring to the middle of its frame; may fail on frames that are stretched."""

    def __init__(self, breaks_beyond: float = np.inf, elements: frozenset[int] | None = None) -> None:
        self.breaks_beyond = breaks_beyond
        self.elements = elements

    def check(self, frame: Frame) -> None:
        if frame.pbc.any() or (self.elements is not None and (frame.charge or set(frame.numbers) - self.elements)):
            raise InputError("knows no springs for this")

    def evaluate(self, batch: FrameBatch) -> Evaluation:
        starts = np.concatenate([[0], np.cumsum(batch.n_atoms)[:-1]])
        middle = np.add.reduceat(batch.positions, starts) / batch.n_atoms[:, None]
        away = batch.positions - np.repeat(middle, batch.n_atoms, axis=0)
        forces = -STIFFNESS * away
        forces[np.abs(batch.positions).max(axis=1) > self.breaks_beyond] = np.nan
        energy = 0.5 * STIFFNESS * np.add.reduceat(np.square(away).sum(axis=1), starts)
        return Evaluation(forces, energy)

    def labels(self, batch: FrameBatch) -> tuple[FloatArray, FloatArray, FloatArray | None]:
        found = self.evaluate(batch)
        assert found.energy is not None
        return np.where(batch.n_atoms == 3, np.nan, found.energy), found.forces, None

    def free_atoms(self, atoms: Sequence[Frame]) -> FloatArray | None:
        return np.array([-float(atom.numbers[0]) for atom in atoms])


def water(scale: float = 0.0) -> Frame:
    atoms = molecule("H2O")
    return Frame.molecule(atoms.numbers, scale * atoms.positions)


def test_walkers_have_the_variance_of_the_canonical_distribution() -> None:
    drawn = sample(Springs(), [water()], 32 * 160, [400.0], np.random.default_rng(1))
    late = [f for f, n in zip(drawn.frames, np.arange(len(drawn.frames)) // 32, strict=True) if n >= 20]
    away = np.stack([frame.positions - frame.positions.mean(axis=0) for frame in late])
    # kT / k of a harmonic oscillator, whatever its mass, less the third that the motion of the middle would have
    expected = np.full(3, BOLTZMANN * 400.0 / STIFFNESS * 2.0 / 3.0)
    assert np.square(away).mean(axis=(0, 2)) == pytest.approx(expected, rel=0.08)


def test_temperatures_are_spread_over_walkers() -> None:
    drawn = sample(Springs(), [water()], 32 * 80, [100.0, 900.0], np.random.default_rng(1))
    squared = np.array([np.square(frame.positions).mean() for frame in drawn.frames])
    walker = np.array(drawn.walkers)
    is_late = np.arange(len(walker)) >= 32 * 20
    cold, hot = (squared[is_late & (walker % 2 == k)].mean() for k in (0, 1))
    assert hot / cold == pytest.approx(9.0, rel=0.25)


def test_a_walker_that_the_teacher_throws_out_begins_anew_and_no_such_frame_is_returned() -> None:
    teacher = Springs(breaks_beyond=0.12)
    drawn = sample(teacher, [water()], 200, [400.0], np.random.default_rng(0))
    assert len(drawn.frames) == 200
    assert max(np.abs(frame.positions).max() for frame in drawn.frames) <= 0.12


def test_a_teacher_that_holds_nothing_together_is_refused() -> None:
    with pytest.raises(InputError, match="does not hold the frames together"):
        sample(Springs(breaks_beyond=0.001), [water()], 50, [900.0], np.random.default_rng(0))


def test_a_teacher_that_heats_without_end_is_refused_and_one_whose_start_is_strained_is_not() -> None:
    class Heats(Springs):
        """Pushes atoms away from the middle, with 10 eV/Angstrom and no energy that would pay for it."""

        def evaluate(self, batch: FrameBatch) -> Evaluation:
            found = super().evaluate(batch)
            away = -found.forces
            return Evaluation(10.0 * away / np.linalg.norm(away, axis=1)[:, None], np.zeros(batch.n_frames))

    with pytest.raises(InputError, match="does not hold the frames together"):
        sample(Heats(), [water(1.0)], 200, [300.0], np.random.default_rng(0))
    strained = sample(Springs(), [water(2.0)], 64, [100.0], np.random.default_rng(0))
    assert len(strained.frames) == 64


def test_labels_are_of_every_system_with_free_atoms_and_without_what_is_not_labelled(
    make_snapshot: MakeSnapshot,
) -> None:
    known = make_snapshot(12, 4)
    labelled = taught(Springs(), known, 60, [300.0], np.random.default_rng(0))
    molecules = labelled.select(~labelled.is_arm(Arm.ATOM))
    assert 0 < molecules.n_frames < 60
    assert set(molecules.n_atoms.tolist()) == {6}  # the teacher does not label water
    assert not set(molecules.frame_ids) & set(known.frame_ids)
    energy, forces, _ = Springs().labels(FrameBatch.of([molecules.frame(k) for k in range(molecules.n_frames)]))
    np.testing.assert_allclose(molecules.energy, energy)
    np.testing.assert_allclose(molecules.forces, forces)
    atoms = labelled.select(labelled.is_arm(Arm.ATOM))
    assert dict(zip(atoms.numbers.tolist(), atoms.energy.tolist(), strict=True)) == {1: -1.0, 6: -6.0, 8: -8.0}
    assert len(np.unique(molecules.trajectory)) > 10


def test_frames_with_forces_at_which_walks_end_are_not_labelled(make_snapshot: MakeSnapshot) -> None:
    known = make_snapshot(12, 0)
    frames = known.select(known.n_atoms == 6)
    frames = replace(frames, positions=frames.positions.copy())
    frames.positions[:6] *= 10.0
    assert relabelled(Springs(), frames).frame_ids == frames.frame_ids[1:]
    assert relabelled(Springs(), frames.select(np.arange(0))).n_frames == 0


def test_walkers_may_be_moved_by_another_committee_than_the_one_that_labels() -> None:
    soft, hard = HarmonicCommittee(1.0), HarmonicCommittee(9.0)
    teacher = CommitteeTeacher(hard, mover=soft)
    batch = FrameBatch.of([water(1.0)])
    np.testing.assert_array_equal(teacher.evaluate(batch).forces, soft.evaluate(batch).forces)
    np.testing.assert_array_equal(teacher.labels(batch)[1], hard.evaluate(batch).forces)


def test_imported_frames_that_a_teacher_does_not_know_are_left_out(make_snapshot: MakeSnapshot) -> None:
    """Of every other training frame the oxygen is sulphur; one more is charged."""
    known = make_snapshot(12, 4)
    rows = np.flatnonzero(known.is_arm(*TRAINING_ARMS) & (known.n_atoms == 6))
    is_new = np.isin(np.repeat(np.arange(known.n_frames), known.n_atoms), rows[::2]) & (known.numbers == 8)
    charge = known.charge.copy()
    charge[rows[1]] = 1
    mixed = replace(known, numbers=np.where(is_new, 16, known.numbers).astype(np.int32), charge=charge)
    labelled = taught(Springs(elements=frozenset((1, 6, 8))), mixed, 60, [300.0], np.random.default_rng(0))
    assert set(labelled.numbers.tolist()) == {1, 6, 8}
    assert not labelled.charge.any()
    all_of_it = taught(Springs(), mixed, 200, [300.0], np.random.default_rng(0))
    assert 16 in all_of_it.numbers
    with pytest.raises(InputError, match="to begin from"):
        taught(Springs(elements=frozenset((2,))), mixed, 60, [300.0], np.random.default_rng(0))


@pytest.mark.parametrize(("name", "method_name"), [("gfn2-xtb", "GFN2-xTB"), ("gfn1-xtb", "GFN1-xTB")])
def test_xtb_labels_are_those_of_xtb_and_their_difference_to_themselves_is_zero(
    name: str, method_name: str, make_snapshot: MakeSnapshot
) -> None:
    method = XTBMethod(method_name)
    labelled = taught(
        XTBTeacher(name), make_snapshot(4, 0), 8, [300.0], np.random.default_rng(0), Baseline(method.spec)
    )
    k = int(np.flatnonzero(~labelled.is_arm(Arm.ATOM))[0])
    values = single_point(labelled.frame(k), method)
    assert labelled.energy[k] == pytest.approx(values.energy, abs=1e-6)
    np.testing.assert_allclose(labelled.forces[labelled.offsets[k] : labelled.offsets[k + 1]], values.forces, atol=1e-5)
    left = less_baseline(labelled)
    assert left.n_frames == labelled.n_frames
    assert np.abs(left.energy).max() < 1e-5


STIFF = LennardJonesCommittee(epsilon=0.104, sigma=3.40, cutoff=7.0)
"""Argon, bound ten times as strongly: its vibrations come to their temperature ten times as often."""


def argon(seed: int) -> Frame:
    """Sixteen atoms of a crystal in a skewed cell."""
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True).repeat((2, 2, 1))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * np.triu(np.ones((3, 3)), 1)), scale_atoms=True)
    atoms.rattle(0.05, seed=seed)
    return Frame(atoms.numbers, atoms.positions, atoms.cell.array, np.ones(3, dtype=bool))


def dimer(seed: int) -> Frame:
    return Frame.molecule([18, 18], [[0, 0, 0], [0, 0, 3.75 + 0.01 * seed]])


def known_frames(frames: Sequence[Frame], systems: Sequence[int]) -> Snapshot:
    """Frames of two systems, without labels."""
    n_atoms = sum(frame.n_atoms for frame in frames)
    snapshot = snapshot_of(frames, np.zeros(len(frames)), np.zeros((n_atoms, 3)))
    return replace(snapshot, systems=("box", "dimer"), system=np.array(systems, dtype=np.int32))


def test_a_committee_teaches_periodic_frames_at_their_volume_and_molecules_beside_them() -> None:
    boxes = [argon(seed) for seed in range(3)]
    known = known_frames([*boxes, *(dimer(k) for k in range(3))], [0, 0, 0, 1, 1, 1])
    labelled = taught(CommitteeTeacher(STIFF), known, 64, [400.0], np.random.default_rng(0))
    is_box = labelled.pbc.all(axis=1)
    assert (int(is_box.sum()), labelled.n_frames) == (32, 64)
    assert [labelled.systems[k] for k in labelled.system] == ["box" if b else "dimer" for b in is_box]
    for row in np.flatnonzero(is_box):
        np.testing.assert_array_equal(labelled.cell[row], boxes[0].cell)
    frames = [labelled.frame(k) for k in range(labelled.n_frames)]
    for k, frame in enumerate(frames):
        alone = STIFF.evaluate(FrameBatch.of([frame]))
        assert labelled.energy[k] == pytest.approx(float(alone.energy[0]), abs=1e-9)
        atoms = slice(labelled.offsets[k], labelled.offsets[k + 1])
        np.testing.assert_allclose(labelled.forces[atoms], alone.forces, atol=1e-9)
        if is_box[k]:
            assert alone.stress is not None
            np.testing.assert_allclose(labelled.stress[k], alone.stress[0], atol=1e-9)
    moved = [np.abs(frame.positions - boxes[0].positions).max() for frame in np.array(frames, dtype=object)[is_box]]
    assert min(moved) > 0.05
    assert max(moved) < 3.0


def test_periodic_walkers_are_as_warm_as_the_thermostat() -> None:
    """The mean square force of a crystal is kT times the mean curvature (a hypervirial theorem), measured by steps."""
    start, temperature = argon(0), 400.0
    drawn = sample(CommitteeTeacher(STIFF), [start], 32 * 60, [temperature], np.random.default_rng(3))
    step_of = np.arange(len(drawn.frames)) // 32
    late = [drawn.frames[k] for k in np.flatnonzero(np.isin(step_of, [44, 59]))]
    squared = np.mean([np.square(STIFF.evaluate(FrameBatch.of([frame])).forces).mean() for frame in late])
    step, curvature = 1e-4, []
    for frame in late:
        sides = []
        for sign in (1.0, -1.0):
            moved = [frame.positions.copy() for _ in range(3 * frame.n_atoms)]
            for k, positions in enumerate(moved):
                positions[k // 3, k % 3] += sign * step
            found = STIFF.evaluate(FrameBatch.of([frame.with_positions(positions) for positions in moved])).forces
            by_frame = found.reshape(len(moved), frame.n_atoms * 3)
            sides.append(by_frame[np.arange(len(moved)), np.arange(len(moved))])
        curvature.append(((sides[1] - sides[0]) / (2.0 * step)).mean())
    assert squared / np.mean(curvature) == pytest.approx(BOLTZMANN * temperature, rel=0.08)


def test_a_teacher_of_molecules_leaves_periodic_frames_out_and_says_what_it_lacks() -> None:
    pair = Frame.molecule([8, 1], 0.1 * np.eye(3)[:2])
    known = known_frames([argon(0), pair], [0, 1])
    labelled = taught(Springs(), known, 10, [300.0], np.random.default_rng(0))
    assert set(labelled.n_atoms.tolist()) == {2}
    with pytest.raises(
        InputError, match=r"^training.start.teacher: the teacher finds no frame to begin from: it treats none"
    ):
        taught(Springs(), known.select(known.pbc.all(axis=1)), 10, [300.0], np.random.default_rng(0))
    nothing = known.select(np.zeros(2, dtype=bool))
    with pytest.raises(InputError, match=r"^systems: the teacher finds no frame to begin from"):
        taught(CommitteeTeacher(STIFF), nothing, 10, [300.0], np.random.default_rng(0), field="systems")


def test_walkers_begin_from_carved_clusters_only_where_their_system_has_nothing_whole() -> None:
    cluster = Frame.molecule(np.full(5, 18), 3.8 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0]]))
    known = known_frames([argon(0), cluster, cluster.with_positions(1.01 * cluster.positions)], [0, 0, 1])
    mask = known.mask.copy()
    mask[-1] = mask[-6] = False  # an atom of each cluster is not learned from
    known = replace(known, mask=mask)
    labelled = taught(CommitteeTeacher(STIFF), known, 48, [200.0], np.random.default_rng(0))
    sizes = {(labelled.systems[s], int(n)) for s, n in zip(labelled.system, labelled.n_atoms, strict=True)}
    assert sizes == {("box", 16), ("dimer", 5)}
    assert labelled.mask.all()  # all of a teacher's labels are learned from


@needs_torchani
def test_ani_1x_knows_its_free_atoms() -> None:
    teacher = build_teacher("ani-1x")
    assert isinstance(teacher, CommitteeTeacher)
    atoms = [Frame.molecule([z], np.zeros((1, 3)), multiplicity=m) for z, m in ((1, 2), (6, 3))]
    free = teacher.free_atoms(atoms)
    assert free is not None
    assert free / 27.211386 == pytest.approx([-0.600953, -38.08316], abs=1e-4)  # sae_linfit.dat of torchani


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (Frame.molecule([16, 1, 1], np.eye(3)), "knows H, C, N and O only: sulfide has element S"),
        (Frame.molecule([8, 1], np.eye(3)[:2], charge=-1), "knows neutral molecules only: sulfide has charge -1"),
        (Frame.molecule([8, 8], np.eye(3)[:2], multiplicity=3), "knows singlets only: sulfide has multiplicity 3"),
        (Frame([8, 1, 1], np.eye(3), 10 * np.eye(3), [True] * 3), "is for molecules: sulfide has pbc"),  # type: ignore[arg-type]
    ],
)
def test_what_a_teacher_cannot_treat_is_refused_in_one_line(frame: Frame, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        check_teacher(TeacherStart(kind="teacher"), {"sulfide": frame})
    assert "\n" not in str(caught.value)
    assert caught.value.field == "training.start.teacher"
    check_teacher(TeacherStart(kind="teacher", teacher="gfn1-xtb"), {"sulfide": frame})
    gfn2 = TeacherStart(kind="teacher", teacher="gfn2-xtb")
    if not frame.pbc.any():
        check_teacher(gfn2, {"sulfide": frame})
        return
    with pytest.raises(InputError, match=r"teaches molecules only: sulfide has pbc .*; use gfn1-xtb"):
        check_teacher(gfn2, {"sulfide": frame})
