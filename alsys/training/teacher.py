"""Teachers: potentials whose labels cost little beside DFT, and frames from their own dynamics.

A teacher moves walkers from given frames by Langevin dynamics (BAOAB: B. Leimkuhler, C. Matthews, Appl. Math. Res.
Express 2013, 34 (2013)) at several temperatures and labels what they pass: where it is smooth and wrong by a little,
a model that has learned it needs few labels of the better level (J. S. Smith et al., Nat. Commun. 10, 2903 (2019)).
Its energies are of another zero than the campaign's, so they are never mixed with them: see `alsys.training.start`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from alsys.config.ase_calculators import ASECalculator
from alsys.config.start import SPACING, TeacherStart
from alsys.dynamics.runner import FRICTION, TIMESTEP, Evaluation, Runner, thermostatted, trusted
from alsys.dynamics.stopping import MAX_FORCE, Limits, StopRule
from alsys.errors import InputError
from alsys.frames import TRAINING_ARMS, Arm, FloatArray, Frame, IntArray
from alsys.potentials.arrays import HOST, Arrays
from alsys.potentials.ase_single_points import check_treated
from alsys.potentials.base import Committee, FrameBatch, arrays_for
from alsys.potentials.baseline import Baseline
from alsys.potentials.xtb import XTBMethod
from alsys.potentials.xtb import check_frame as check_xtb_frame
from alsys.store.base import Snapshot
from alsys.training.ase_teacher import FIELD, ASETeacher
from alsys.training.evaluate import batch_of, chunks_of
from alsys.training.snapshots import joined, snapshot_of

MAX_WALKERS = 32
LIMITS = Limits(min_distance=None)
"""Of a walk. Geometry is not asked: what the teacher makes of it is what is learned."""
MAX_RESETS = 20
"""For each walker, on average."""


XTB: Final[Mapping[str, str]] = {"gfn2-xtb": "GFN2-xTB", "gfn1-xtb": "GFN1-xTB"}
FrameCheck = Callable[[Frame], None]
"""Refuses, with `InputError`, a frame that a teacher does not treat."""


class Teacher(Protocol):
    """Labels frames."""

    def check(self, frame: Frame) -> None:
        """Refuses a frame that it does not treat.

        Raises:
            InputError: Names the field of the frame.
        """
        ...

    def evaluate(self, batch: FrameBatch) -> Evaluation:
        """Energies and forces to move with, NaN where it fails; may be cheaper than labels."""
        ...

    def labels(self, batch: FrameBatch) -> tuple[FloatArray, FloatArray, FloatArray | None]:
        """Energies, forces and stresses; NaN where it fails.

        Returns:
            ``(n_frames,)``, eV; ``(n_total, 3)``, eV/Angstrom; ``(n_frames, 3, 3)``, eV/Angstrom^3, NaN for molecules,
            None where it has a stress of no frame.
        """
        ...

    def free_atoms(self, atoms: Sequence[Frame]) -> FloatArray | None:
        """Energies of free atoms at its level, eV, NaN of those that it does not know; None where it has none."""
        ...


class CommitteeTeacher:
    """A committee as a teacher: one member moves walkers, all of them label.

    Args:
        committee: It.
        free: Energies of free atoms by atomic number, eV; None where it knows none.
        check: As `Teacher.check`; None where it treats all frames.
        mover: Whose first member moves the walkers; None for the committee's own.

    Attributes:
        arrays: Where walkers under it are moved; teachers without it take arrays of numpy.
    """

    def __init__(
        self,
        committee: Committee,
        free: Mapping[int, float] | None = None,
        check: FrameCheck | None = None,
        mover: Committee | None = None,
    ) -> None:
        self._committee, self._free, self._check = committee, free, check
        self._mover = committee if mover is None else mover
        self.arrays = arrays_for(self._mover)

    def check(self, frame: Frame) -> None:
        """As given."""
        if self._check is not None:
            self._check(frame)

    def evaluate(self, batch: FrameBatch) -> Evaluation:
        """Those of the first member."""
        found = self._mover.evaluate(batch, [0])
        return Evaluation(found.forces, found.energy)

    def labels(self, batch: FrameBatch) -> tuple[FloatArray, FloatArray, FloatArray | None]:
        """Means over the members."""
        prediction = self._committee.evaluate(batch)
        return prediction.energy, prediction.forces, prediction.stress

    def free_atoms(self, atoms: Sequence[Frame]) -> FloatArray | None:
        """As given."""
        if self._free is None:
            return None
        return np.array([self._free[int(atom.numbers[0])] for atom in atoms])


class XTBTeacher:
    """GFN-xTB as a teacher: GFN1-xTB of molecules and boxes, GFN2-xTB of molecules only.

    Args:
        name: ``gfn2-xtb`` or ``gfn1-xtb``.

    Raises:
        EnvironmentProblem: tblite is missing.
    """

    def __init__(self, name: str = "gfn2-xtb") -> None:
        self._name, self._method = name, Baseline(XTBMethod(XTB[name]).spec)

    def check(self, frame: Frame) -> None:
        """Refuses elements beyond radon, impossible spins, and cells that the method is not for."""
        _check_xtb(self._name, frame)

    def evaluate(self, batch: FrameBatch) -> Evaluation:
        """XTB's."""
        found = self._method.evaluate(batch)
        return Evaluation(found.forces, found.energy)

    def labels(self, batch: FrameBatch) -> tuple[FloatArray, FloatArray, FloatArray | None]:
        """XTB's."""
        values = self._method.evaluate(batch)
        return values.energy, values.forces, values.stress

    def free_atoms(self, atoms: Sequence[Frame]) -> FloatArray | None:
        """XTB's."""
        return self._method.evaluate(FrameBatch.of(atoms)).energy if atoms else None


def _check_xtb(name: str, frame: Frame) -> None:
    if name == "gfn2-xtb" and frame.pbc.any():
        raise InputError(
            "gfn2-xtb teaches molecules only", field="pbc", value=frame.pbc.tolist(), remedy="use gfn1-xtb"
        )
    check_xtb_frame(frame)


def frame_check(teacher: str | ASECalculator) -> FrameCheck:
    """What a teacher of a config refuses, whether it is installed or not."""
    if isinstance(teacher, ASECalculator):
        return partial(check_treated, teacher.calculator)
    if teacher in XTB:
        return partial(_check_xtb, teacher)
    from alsys.potentials.ani_frames import check_frame

    return check_frame


def build_teacher(teacher: str | ASECalculator, python: str | None = None, threads: int = 1) -> Teacher:
    """The teacher of a config.

    Args:
        teacher: ``ani-1x``, ``gfn2-xtb``, ``gfn1-xtb``, or a calculator of ASE.
        python: Interpreter of the environment that has the calculator; None for this one.
        threads: Threads that the calculator may use.

    Raises:
        InputError: The package torchani, which carries ANI-1x, is missing.
        EnvironmentProblem: tblite, or the calculator's package, is missing.
    """
    if isinstance(teacher, ASECalculator):
        return ASETeacher(teacher, python, threads)
    if teacher in XTB:
        return XTBTeacher(teacher)
    from alsys.potentials.ani import AniCommittee, ani1x_state

    state = ani1x_state()
    elements, energies = state.spec["elements"], state.spec["free_atoms"]
    assert isinstance(elements, list)
    assert isinstance(energies, list)
    free = {atomic_numbers[symbol]: float(energy) for symbol, energy in zip(elements, energies, strict=True)}
    return CommitteeTeacher(AniCommittee(state), free, frame_check(teacher))


def check_teacher(start: TeacherStart, frames: Mapping[str, Frame], python: str | None = None) -> None:
    """Refuses what a teacher cannot treat, and a teacher that is not installed.

    Args:
        start: The section.
        frames: What a labeler gets to see of each system.
        python: As of `build_teacher`.

    Raises:
        InputError: Names the system.
        EnvironmentProblem: tblite, or the calculator's package, is missing.
    """
    check = frame_check(start.teacher)
    for name, frame in frames.items():
        try:
            check(frame)
        except InputError as error:
            raise InputError(
                f"{error.message}: {name} has {error.field} {error.value}",
                field=FIELD,
                value=str(start.teacher),
                remedy=error.remedy or "use another teacher, or leave `training.start` out",
            ) from None
    build_teacher(start.teacher, python)


@dataclass(frozen=True, slots=True)
class Sample:
    """Frames from dynamics.

    Attributes:
        frames: They.
        walkers: Walker of each.
        starts: Index of the start frame that each walker began from.
    """

    frames: list[Frame]
    walkers: list[int]
    starts: IntArray


def sample(
    teacher: Teacher,
    starts: Sequence[Frame],
    count: int,
    temperatures: Sequence[float],
    rng: np.random.Generator,
) -> Sample:
    """Frames from the teacher's own dynamics, every 12.5 fs of up to 32 walkers; cells stay as they are.

    Args:
        teacher: Gives energies and forces; what it sets free from a start on may turn into heat.
        starts: Where walkers begin, and begin anew when they are stopped; molecules, or periodic frames for a teacher
            that treats them.
        count: Frames wanted.
        temperatures: Of the thermostats, K; walkers are spread over them.
        rng: Source of randomness.

    Raises:
        InputError: The teacher holds none of the frames together.
    """
    n_walkers = min(MAX_WALKERS, count)
    origin = np.concatenate([rng.permutation(len(starts)) for _ in range(1 + n_walkers // len(starts))])[:n_walkers]
    frames_of = [starts[k] for k in origin]
    targets = np.resize(np.asarray(temperatures, dtype=np.float64), n_walkers)
    integrator = thermostatted(frames_of, targets, TIMESTEP, FRICTION)
    runner = Runner(frames_of, integrator, StopRule(frames_of, integrator.n_degrees, LIMITS))
    runner.velocities = integrator.maxwell(rng)
    arrays: Arrays = getattr(teacher, "arrays", HOST)
    arrays.seed(rng)
    runner.to(arrays)

    stopped = runner.evaluate(teacher.evaluate)
    assert runner.evaluation.energy is not None
    potential = trusted(teacher.evaluate, runner.evaluation.energy, arrays)
    frames: list[Frame] = []
    walkers: list[int] = []
    age, resets = np.zeros(n_walkers, dtype=np.int64), 0
    while len(frames) < count:
        for k in stopped:
            runner.begin(k, frames_of[k], rng)
            age[k] = 0
        if stopped:
            runner.evaluate(teacher.evaluate, list(stopped))
        resets += len(stopped)
        if resets > MAX_RESETS * n_walkers:
            raise InputError(
                "the teacher does not hold the frames together",
                field="temperatures",
                value=list(temperatures),
                remedy="lower them, or use another teacher",
            )
        stopped = runner.step(potential, rng)
        age += 1
        age[list(stopped)] = 0
        due = np.flatnonzero((age > 0) & (age % SPACING == 0))[: count - len(frames)]
        if due.size:
            (positions,) = arrays.read([runner.positions])
            frames += [frames_of[k].with_positions(positions[runner.atoms(k)]) for k in due]
            walkers += due.tolist()
    return Sample(frames, walkers, origin)


def taught(
    teacher: Teacher,
    known: Snapshot,
    count: int,
    temperatures: Sequence[float],
    rng: np.random.Generator,
    baseline: Baseline | None = None,
    *,
    field: str = "training.start.teacher",
) -> Snapshot:
    """Frames from the teacher's dynamics with its labels.

    Walkers begin from frames of `known` that are learned from, molecules and, where the teacher treats them, periodic
    frames at constant volume, each system's share of them the same. Frames of elements that the teacher does not know
    are left out: imported ones may be such. In a system that has whole frames, a teacher that
    treats periodic frames begins from none with masked atoms: those were carved out of such, and their outer atoms are
    at a surface that nobody has labelled.

    Args:
        teacher: Labels.
        known: Frames of the campaign, free atoms included; those are labelled too, where the teacher can.
        count: Frames wanted; those that the teacher does not label are left out.
        temperatures: K.
        rng: Source of randomness.
        baseline: Its values are put beside the labels.
        field: What an error names.

    Raises:
        InputError: There is no frame to begin from, or the teacher labels none.
    """
    rows = _evenly(np.flatnonzero(_is_start(teacher, known)), known.system, rng)
    if not rows.size:
        raise InputError("the teacher finds no frame to begin from: it treats none of them", field=field)
    drawn = sample(teacher, [known.frame(int(row)) for row in rows], count, temperatures, rng)
    labelled = snapshot_of(
        drawn.frames, np.zeros(len(drawn.frames)), np.zeros((sum(f.n_atoms for f in drawn.frames), 3)),
        trajectories=[2_000_000 + k for k in drawn.walkers],
    )  # fmt: skip
    labelled = replace(
        labelled, systems=known.systems, system=known.system[rows][drawn.starts][drawn.walkers].astype(np.int32)
    )
    labelled = relabelled(teacher, labelled)
    if not labelled.n_frames:
        raise InputError("the teacher labels none of the frames", field=field)
    atoms = known.select(_is_treated(teacher, known, known.is_arm(Arm.ATOM)))
    free = teacher.free_atoms([atoms.frame(k) for k in range(atoms.n_frames)])
    if free is not None and atoms.n_frames:
        atoms = replace(
            atoms, energy=free, forces=np.zeros_like(atoms.forces), baseline_energy=None, baseline_forces=None
        )
        labelled = joined(atoms.select(np.isfinite(free)), labelled)
    if baseline is None:
        return labelled
    values = baseline.evaluate(batch_of(labelled))
    return replace(labelled, baseline_energy=values.energy, baseline_forces=values.forces)


def relabelled(teacher: Teacher, frames: Snapshot) -> Snapshot:
    """The same frames with the teacher's labels, all atoms trusted.

    Without those that it does not label, or with a force at which a walk would have ended.

    Args:
        teacher: Labels.
        frames: It treats all of them.
    """
    energies, forces, stresses = [], [], []
    for rows in chunks_of(frames):
        part = frames.select(rows)
        energy, force, stress = teacher.labels(batch_of(part))
        energies.append(energy)
        forces.append(force)
        stresses.append(np.full_like(part.stress, np.nan) if stress is None else stress)
    labelled = replace(
        frames,
        energy=np.concatenate([np.zeros(0), *energies]),
        forces=np.concatenate([np.zeros((0, 3)), *forces]),
        stress=np.concatenate([np.zeros((0, 3, 3)), *stresses]),
        mask=np.ones_like(frames.mask),
        baseline_energy=None,
        baseline_forces=None,
    )
    if not labelled.n_frames:
        return labelled
    largest = np.maximum.reduceat(np.linalg.norm(labelled.forces, axis=1), labelled.offsets[:-1])
    return labelled.select(np.isfinite(labelled.energy) & (largest <= MAX_FORCE))


def _is_treated(teacher: Teacher, known: Snapshot, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``(n_frames,)`` frames that a teacher treats; imported ones may be beyond it."""
    is_treated = np.zeros(known.n_frames, dtype=np.bool_)
    for row in np.flatnonzero(among):
        try:
            teacher.check(known.frame(int(row)))
        except InputError:
            continue
        is_treated[row] = True
    return is_treated


def _is_start(teacher: Teacher, known: Snapshot) -> NDArray[np.bool_]:
    """``(n_frames,)`` frames that walkers may begin from: whole ones, where their system has any that is treated."""
    is_start = _is_treated(teacher, known, known.is_arm(*TRAINING_ARMS))
    has_whole = np.isin(known.system, known.system[is_start & known.is_whole])
    return is_start & (known.is_whole | ~has_whole)


def _evenly(rows: IntArray, system: np.ndarray[tuple[int], np.dtype[np.int32]], rng: np.random.Generator) -> IntArray:
    """As many rows of each system, at most `MAX_WALKERS` in all, but one of each at least."""
    names = np.unique(system[rows])
    each = max(1, MAX_WALKERS // max(1, names.size))
    chosen = [rng.permutation(rows[system[rows] == name])[:each] for name in names]
    fewest = min((part.size for part in chosen), default=0)
    full = [np.resize(part, each) if fewest < each and names.size > 1 else part for part in chosen]
    result: IntArray = np.concatenate(full).astype(np.int64) if full else rows
    return result
