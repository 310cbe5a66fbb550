"""Teachers: potentials whose labels cost little beside DFT, and frames from their own dynamics.

A teacher moves walkers from given frames by Langevin dynamics (BAOAB: B. Leimkuhler, C. Matthews, Appl. Math. Res.
Express 2013, 34 (2013)) at several temperatures and labels what they pass: where it is smooth and wrong by a little,
a model that has learned it needs few labels of the better level (J. S. Smith et al., Nat. Commun. 10, 2903 (2019)).
Its energies are of another zero than the campaign's, so they are never mixed with them: see `alsys.training.start`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from alsys.config.start import ANI_ELEMENTS, TeacherStart
from alsys.dynamics.runner import FRICTION, TIMESTEP, Evaluation, Runner, thermostatted, trusted
from alsys.dynamics.stopping import Limits, StopRule
from alsys.errors import InputError
from alsys.frames import TRAINING_ARMS, Arm, FloatArray, Frame, IntArray
from alsys.potentials.base import Committee, FrameBatch
from alsys.potentials.baseline import Baseline
from alsys.potentials.xtb import XTBMethod
from alsys.store.base import Snapshot
from alsys.training.evaluate import batch_of, chunks_of
from alsys.training.snapshots import joined, snapshot_of

MAX_WALKERS = 32
SPACING = 25
"""Steps between two frames of a walker."""
LIMITS = Limits(min_distance=None)
"""Of a walk. Geometry is not asked: what the teacher makes of it is what is learned."""
MAX_RESETS = 20
"""For each walker, on average."""


class Teacher(Protocol):
    """Labels frames.

    Attributes:
        is_molecular: Whether it treats molecules only, and no periodic frames.
        elements: Atomic numbers of the neutral molecules that are all it treats; None where there is no such limit.
    """

    is_molecular: bool
    elements: frozenset[int] | None

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
        """Energies of free atoms at its level, eV; None where it has none."""
        ...


class CommitteeTeacher:
    """A committee as a teacher: one member moves walkers, all of them label.

    Args:
        committee: It.
        free: Energies of free atoms by atomic number, eV; None where it knows none.
        is_molecular: Whether it treats molecules only.
        elements: As `Teacher.elements`.
    """

    def __init__(
        self,
        committee: Committee,
        free: dict[int, float] | None = None,
        *,
        is_molecular: bool = False,
        elements: frozenset[int] | None = None,
    ) -> None:
        self._committee, self._free = committee, free
        self.is_molecular, self.elements = is_molecular, elements

    def evaluate(self, batch: FrameBatch) -> Evaluation:
        """Those of the first member."""
        found = self._committee.evaluate(batch, [0])
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
    """GFN2-xTB as a teacher, of molecules only."""

    is_molecular = True
    elements: frozenset[int] | None = None

    def __init__(self) -> None:
        self._method = Baseline(XTBMethod("GFN2-xTB").spec)

    def evaluate(self, batch: FrameBatch) -> Evaluation:
        """GFN2-xTB's."""
        found = self._method.evaluate(batch)
        return Evaluation(found.forces, found.energy)

    def labels(self, batch: FrameBatch) -> tuple[FloatArray, FloatArray, FloatArray | None]:
        """GFN2-xTB's."""
        values = self._method.evaluate(batch)
        return values.energy, values.forces, values.stress

    def free_atoms(self, atoms: Sequence[Frame]) -> FloatArray | None:
        """GFN2-xTB's."""
        return self._method.evaluate(FrameBatch.of(atoms)).energy if atoms else None


def build_teacher(name: str) -> Teacher:
    """The teacher of a config.

    Args:
        name: ``ani-1x`` or ``gfn2-xtb``.

    Raises:
        InputError: The package torchani, which carries ANI-1x, is missing.
        EnvironmentProblem: tblite is missing.
    """
    if name == "gfn2-xtb":
        return XTBTeacher()
    from alsys.potentials.ani import AniCommittee, ani1x_state

    state = ani1x_state()
    energies = state.spec["free_atoms"]
    assert isinstance(energies, list)
    free = {chemical_symbols.index(symbol): energy for symbol, energy in zip(ANI_ELEMENTS, energies, strict=True)}
    return CommitteeTeacher(AniCommittee(state), free, is_molecular=True, elements=frozenset(free))


def check_teacher(start: TeacherStart, frames: dict[str, Frame]) -> None:
    """Refuses what a teacher cannot treat, and a teacher that is not installed.

    Args:
        start: The section.
        frames: What a labeler gets to see of each system.

    Raises:
        InputError: Names the system.
        EnvironmentProblem: tblite is missing.
    """
    field = "training.start.teacher"
    for name, frame in frames.items():
        if frame.pbc.any():
            raise InputError(
                f"treats molecules only, {name} is periodic",
                field=field,
                value=start.teacher,
                remedy="leave `training.start` out, or start from a model (`kind: model`)",
            )
        if start.teacher != "ani-1x":
            continue
        unknown = sorted({chemical_symbols[z] for z in frame.numbers} - set(ANI_ELEMENTS))
        if unknown or frame.charge or frame.multiplicity != 1:
            what = f"holds {' '.join(unknown)}" if unknown else "is charged or open-shell"
            raise InputError(
                f"knows neutral molecules of {' '.join(ANI_ELEMENTS)}, {name} {what}",
                field=field,
                value=start.teacher,
                remedy="use gfn2-xtb",
            )
    build_teacher(start.teacher)


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

    stopped = runner.evaluate(teacher.evaluate)
    assert runner.evaluation.energy is not None
    potential = trusted(teacher.evaluate, runner.evaluation.energy)
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
        for k in np.flatnonzero((age > 0) & (age % SPACING == 0))[: count - len(frames)]:
            frames.append(frames_of[k].with_positions(runner.positions[runner.atoms(k)]))
            walkers.append(int(k))
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
        what = "treats molecules only, and there is none" if teacher.is_molecular else "finds no frame"
        raise InputError(f"the teacher {what} to begin from", field=field)
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
    atoms = known.select(known.is_arm(Arm.ATOM))
    if teacher.elements is not None:
        atoms = atoms.select(np.isin(atoms.numbers, list(teacher.elements)))
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
    """The same frames with the teacher's labels, all atoms trusted; without those that it does not label.

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
    return labelled.select(np.isfinite(labelled.energy))


def _is_start(teacher: Teacher, known: Snapshot) -> NDArray[np.bool_]:
    """``(n_frames,)`` frames that walkers may begin from; imported ones may be beyond the teacher."""
    is_learned = known.is_arm(*TRAINING_ARMS)
    if teacher.elements is not None and known.n_frames:
        is_known = np.logical_and.reduceat(np.isin(known.numbers, list(teacher.elements)), known.offsets[:-1])
        is_learned &= is_known & (known.charge == 0) & (known.multiplicity == 1)
    if teacher.is_molecular:
        return is_learned & ~known.pbc.any(axis=1)
    has_whole = np.isin(known.system, known.system[is_learned & known.is_whole])
    return is_learned & (known.is_whole | ~has_whole)


def _evenly(rows: IntArray, system: np.ndarray[tuple[int], np.dtype[np.int32]], rng: np.random.Generator) -> IntArray:
    """As many rows of each system, at most `MAX_WALKERS` in all, but one of each at least."""
    names = np.unique(system[rows])
    each = max(1, MAX_WALKERS // max(1, names.size))
    chosen = [rng.permutation(rows[system[rows] == name])[:each] for name in names]
    fewest = min((part.size for part in chosen), default=0)
    full = [np.resize(part, each) if fewest < each and names.size > 1 else part for part in chosen]
    result: IntArray = np.concatenate(full).astype(np.int64) if full else rows
    return result
