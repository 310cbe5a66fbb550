"""Teachers move and label; frames are thermal; what they cannot treat is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from ase.build import molecule

from alsys.config.start import TeacherStart
from alsys.errors import InputError
from alsys.frames import Arm, FloatArray, Frame
from alsys.potentials.base import FrameBatch
from alsys.potentials.baseline import Baseline
from alsys.potentials.xtb import XTBMethod, single_point
from alsys.store.base import Snapshot
from alsys.training.dataset import less_baseline
from alsys.training.teacher import CommitteeTeacher, XTBTeacher, build_teacher, check_teacher, sample, taught
from alsys.units import BOLTZMANN

needs_torchani = pytest.mark.skipif(importlib.util.find_spec("torchani") is None, reason="torchani is not installed")

MakeSnapshot = Callable[..., Snapshot]
STIFFNESS = 20.0


class Springs:
    """Every atom on a spring to the origin; may fail on frames that are stretched."""

    def __init__(self, breaks_beyond: float = np.inf) -> None:
        self.breaks_beyond = breaks_beyond

    def forces(self, batch: FrameBatch) -> FloatArray:
        forces = -STIFFNESS * batch.positions
        forces[np.abs(batch.positions).max(axis=1) > self.breaks_beyond] = np.nan
        return forces

    def labels(self, batch: FrameBatch) -> tuple[FloatArray, FloatArray]:
        starts = np.concatenate([[0], np.cumsum(batch.n_atoms)[:-1]])
        energy = 0.5 * STIFFNESS * np.add.reduceat(np.square(batch.positions).sum(axis=1), starts)
        energy[batch.n_atoms == 3] = np.nan
        return energy, self.forces(batch)

    def free_atoms(self, atoms: Sequence[Frame]) -> FloatArray | None:
        return np.array([-float(atom.numbers[0]) for atom in atoms])


def water(scale: float = 0.0) -> Frame:
    atoms = molecule("H2O")
    return Frame.molecule(atoms.numbers, scale * atoms.positions)


def test_walkers_have_the_variance_of_the_canonical_distribution() -> None:
    drawn = sample(Springs(), [water()], 32 * 160, [400.0], np.random.default_rng(1))
    late = [f for f, n in zip(drawn.frames, np.arange(len(drawn.frames)) // 32, strict=True) if n >= 20]
    variance = np.square(np.stack([frame.positions for frame in late])).mean(axis=(0, 2))
    # kT / k of a harmonic oscillator, whatever its mass
    assert variance == pytest.approx(np.full(3, BOLTZMANN * 400.0 / STIFFNESS), rel=0.08)


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


def test_lessons_are_of_every_system_with_free_atoms_and_without_what_is_not_labelled(
    make_snapshot: MakeSnapshot,
) -> None:
    known = make_snapshot(12, 4)
    lessons = taught(Springs(), known, 60, [300.0], np.random.default_rng(0))
    molecules = lessons.select(~lessons.is_arm(Arm.ATOM))
    assert 0 < molecules.n_frames < 60
    assert set(molecules.n_atoms.tolist()) == {6}  # the teacher does not label water
    assert not set(molecules.frame_ids) & set(known.frame_ids)
    energy, forces = Springs().labels(FrameBatch.of([molecules.frame(k) for k in range(molecules.n_frames)]))
    np.testing.assert_allclose(molecules.energy, energy)
    np.testing.assert_allclose(molecules.forces, forces)
    atoms = lessons.select(lessons.is_arm(Arm.ATOM))
    assert dict(zip(atoms.numbers.tolist(), atoms.energy.tolist(), strict=True)) == {1: -1.0, 6: -6.0, 8: -8.0}
    assert len(np.unique(molecules.trajectory)) > 10


def test_xtb_labels_are_those_of_xtb_and_their_difference_to_themselves_is_zero(make_snapshot: MakeSnapshot) -> None:
    method = XTBMethod("GFN2-xTB")
    lessons = taught(XTBTeacher(), make_snapshot(4, 0), 8, [300.0], np.random.default_rng(0), Baseline(method.spec))
    k = int(np.flatnonzero(~lessons.is_arm(Arm.ATOM))[0])
    values = single_point(lessons.frame(k), method)
    assert lessons.energy[k] == pytest.approx(values.energy, abs=1e-6)
    np.testing.assert_allclose(lessons.forces[lessons.offsets[k] : lessons.offsets[k + 1]], values.forces, atol=1e-5)
    left = less_baseline(lessons)
    assert left.n_frames == lessons.n_frames
    assert np.abs(left.energy).max() < 1e-5


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
        (Frame.molecule([16, 1, 1], np.eye(3)), "sulfide holds S"),
        (Frame.molecule([8, 1], np.eye(3)[:2], charge=-1), "is charged or open-shell"),
        (Frame([8, 1, 1], np.eye(3), 10 * np.eye(3), [True] * 3), "is periodic"),  # type: ignore[arg-type]
    ],
)
def test_what_a_teacher_cannot_treat_is_refused_in_one_line(frame: Frame, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        check_teacher(TeacherStart(kind="teacher"), {"sulfide": frame})
    assert "\n" not in str(caught.value)
    if not frame.pbc.any():
        check_teacher(TeacherStart(kind="teacher", teacher="gfn2-xtb"), {"sulfide": frame})
