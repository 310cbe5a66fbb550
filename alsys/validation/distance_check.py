"""The check `distances`: which distances the model's dynamics holds, beside what is known of the truth.

The model's own distributions are always measured. They are compared with dynamics of the reference where that is
affordable, else with frames of a trajectory that somebody else ran at the same level and temperature, else with
nothing: then its own noise is all there is to say. Frames that a campaign has labelled itself are no comparison. Those
of the random arm come from walkers at several temperatures, pushed by biases, begun at labelled frames and cut off
where the committee disagreed; the others were chosen for being odd.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from alsys.frames import Arm, FloatArray, Frame, IntArray
from alsys.labels import Label
from alsys.potentials.base import Committee, FrameBatch
from alsys.selection.strata import bonds, topology
from alsys.store.base import Snapshot, StoreReader
from alsys.validation.checks import Finding, skipped
from alsys.validation.distances import ALL, DistanceRecord, Distances, differences, distances_of
from alsys.validation.dynamics import DynamicsResult, DynamicsSettings, ForcesOf, committee_forces, run_dynamics
from alsys.validation.reference import NoLabel, Reference
from alsys.validation.results import DONE, PARTIAL, finite, rounded

MAX_PAIRS = 6
"""Pairs of elements whose distributions are kept to be drawn; those of most different distributions first."""
MIN_FRAMES = 200
"""Imported frames of one temperature from which they are compared with."""
MAX_FRAMES = 10_000
"""Imported frames that are looked at, evenly spaced."""
SAME_TEMPERATURE = 0.5
"""K."""
SAME_CELL = 1e-3
"""Angstrom."""
SAME_MOLECULE = 0.9
"""Share of the frames of one import whose bonds must be those of the system; single bonds may be stretched beyond."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the model's distances are compared with.

    Attributes:
        distances: Its distributions.
        noise: Integrated difference of two halves of it, over pairs of all elements.
        metrics: What else is to be said.
        notes: Remarks.
    """

    distances: Distances
    noise: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class DistanceComparison(Protocol):
    """Something that knows the true distribution of distances."""

    @property
    def name(self) -> str:
        """What it is, for a legend."""
        ...

    def expected(self, start: Frame, settings: DynamicsSettings) -> Expected:
        """Its distributions at the temperature of the settings.

        Raises:
            NoLabel: The budget of reference calculations is spent.
        """
        ...


class ReferenceDynamics:
    """Dynamics with the reference's forces, run as the model's is.

    Args:
        reference: The labeler.
        n_walkers: At least two.
    """

    name = "reference dynamics"

    def __init__(self, reference: Reference, n_walkers: int) -> None:
        self._reference, self._n_walkers = reference, n_walkers

    def expected(self, start: Frame, settings: DynamicsSettings) -> Expected:
        """From as many steps as the model has; never cut off by the clock."""
        endless = replace(settings, wall_s=float("inf"))
        found, made = _run([start] * self._n_walkers, reference_forces(self._reference), endless)
        n_lost = float(sum(reason != "" for reason in made.reasons))
        return Expected(found, found.spread.get(ALL, math.nan), {"n_lost": n_lost})


@dataclass(frozen=True, slots=True)
class KnownFrames:
    """Imported frames that sample the equilibrium of the reference at one temperature, on their importer's word.

    Attributes:
        positions: ``(n_frames, n_atoms, 3)``, Angstrom, atoms in the order of the system's; in the order of their time.
        frame_ids: Of each.
        systems: What the imports are called.
    """

    positions: FloatArray
    frame_ids: tuple[str, ...]
    systems: tuple[str, ...]
    name: str = "imported trajectory"

    def expected(self, start: Frame, settings: DynamicsSettings) -> Expected:
        """Their distributions."""
        found = distances_of(start, self.positions)
        n = len(self.frame_ids)
        note = f"compared with {n} imported frames ({', '.join(self.systems)}), stated to be of this temperature"
        return Expected(found, found.drift.get(ALL, math.nan), {"n_frames": float(n)}, (note,))


def known_frames(
    reader: StoreReader, snapshot: Snapshot, begin: Frame, temperature: float, *, is_reactive: bool
) -> KnownFrames | None:
    """Imported frames to compare the dynamics of a system with; None where there are fewer than `MIN_FRAMES`.

    They must be labelled at the reference's level, stated at their import to sample this temperature, and of the same
    atoms, charge, spin, cell and bonds, in any order of atoms. Bonds are judged by import and not by frame, since
    frames that are left out for a stretched bond would be missing in the distribution.

    Args:
        reader: The store.
        snapshot: Its labels at the reference's level.
        begin: Where the model's dynamics begins.
        temperature: K.
        is_reactive: Bonds may be others.
    """
    alike = snapshot.is_arm(Arm.IMPORTED) & snapshot.is_whole & (snapshot.n_atoms == begin.n_atoms)
    alike &= (snapshot.charge == begin.charge) & (snapshot.multiplicity == begin.multiplicity)
    alike &= (snapshot.pbc == begin.pbc).all(axis=1)
    if begin.pbc.any():
        alike &= (np.abs(snapshot.cell - begin.cell) < SAME_CELL).all(axis=(1, 2))
    chosen = snapshot.select(alike)
    if chosen.n_frames < MIN_FRAMES:
        return None
    numbers = chosen.numbers.reshape(chosen.n_frames, begin.n_atoms)
    rows = np.flatnonzero((np.sort(numbers, axis=1) == np.sort(begin.numbers)).all(axis=1))
    if rows.size > MAX_FRAMES:
        rows = rows[np.linspace(0, rows.size - 1, MAX_FRAMES).round().astype(np.int64)]
    candidates = reader.candidates([chosen.frame_ids[row] for row in rows])
    by_system: dict[str, list[Frame]] = {}
    for candidate in candidates:
        if abs(candidate.source.temperature - temperature) <= SAME_TEMPERATURE:
            by_system.setdefault(candidate.source.system, []).append(candidate.frame)
    if not (is_reactive or begin.pbc.any()):
        wanted = topology(begin, bonds(begin))
        by_system = {name: frames for name, frames in by_system.items() if _share(frames, wanted) >= SAME_MOLECULE}
    frames = [frame for part in by_system.values() for frame in part]
    if len(frames) < MIN_FRAMES:
        return None
    place = np.argsort(begin.numbers, kind="stable")
    positions = np.empty((len(frames), begin.n_atoms, 3))
    for k, frame in enumerate(frames):
        positions[k, place] = frame.positions[np.argsort(frame.numbers, kind="stable")]
    return KnownFrames(positions, tuple(frame.frame_id for frame in frames), tuple(sorted(by_system)))


def _share(frames: Sequence[Frame], wanted: str) -> float:
    """Share of the frames that have the bonds that are wanted."""
    return sum(topology(frame, bonds(frame)) == wanted for frame in frames) / len(frames)


def check_distances(
    committee: Committee,
    start: Frame,
    n_walkers: int,
    settings: DynamicsSettings,
    comparison: DistanceComparison | None,
    why_none: str = "",
) -> Finding:
    """Distributions of distances in the model's dynamics, and how far they are from the truth where that is known.

    Metrics: ``drift`` (integrated difference between the first and the second half of the model's run, over all pairs),
    ``spread`` (between the two halves of its walkers), ``n_failed`` (walkers). With a comparison: ``mae`` (integrated
    difference to it), ``mae_max`` (largest of a pair of elements), ``floor`` (what noise alone would make, from two
    halves of both), ``n_lost`` of reference dynamics or ``n_frames`` of imported ones. Curves: ``r`` (Angstrom),
    ``model`` by pair of elements, ``is_periodic``; ``reference`` by pair and ``against``, or without a comparison
    ``first`` and ``second``, the halves of the run.

    Args:
        committee: The model.
        start: Where all walkers begin.
        n_walkers: Of the model, at least two.
        settings: Of its dynamics.
        comparison: What is known of the truth; None for nothing.
        why_none: Why that is so.
    """
    expected, problem = None, ""
    if comparison is not None:
        try:
            expected = comparison.expected(start, settings)
        except NoLabel as error:
            problem = f"{comparison.name}: {error}"
    own, result = _run([start] * n_walkers, committee_forces(committee), settings)
    notes = [text for text in (problem, why_none if comparison is None else "") if text]
    n_failed = int(result.is_failure.sum())
    if n_failed:
        notes.append(f"{n_failed} of {n_walkers} walkers of the model failed; their distances until then are counted")
    wanted, reached = settings.n_steps * settings.timestep, float(result.times.max())
    if not result.is_failure.all() and reached < wanted - 1e-6:
        notes.append(f"cut off after {settings.wall_s:.0f} s, at {reached:.0f} of {wanted:.0f} fs")
    if not own.n_frames:
        return skipped(*notes, "no walker of the model lived long enough")
    metrics = {"drift": own.drift.get(ALL, math.nan), "spread": own.spread.get(ALL, math.nan), "n_failed": n_failed}
    if expected is not None:
        metrics |= expected.metrics
        if not expected.distances.n_frames:
            notes.append("no walker of the reference lived long enough")
            expected = None
    curves: dict[str, object] = {
        "r": rounded(0.5 * (own.edges[:-1] + own.edges[1:])),
        "is_periodic": bool(start.pbc.any()),
    }
    parts = {"model": own.whole}
    if expected is None or comparison is None:
        apart = own.drift
        parts |= {"first": own.in_time[0], "second": own.in_time[1]}
    else:
        apart = differences(own.whole, expected.distances.whole, own.edges)
        parts |= {"reference": expected.distances.whole}
        curves["against"] = comparison.name
        notes += expected.notes
        # halves differ by twice the noise of the whole
        floor = 0.5 * math.hypot(expected.noise, metrics["spread"])
        largest = max((value for name, value in apart.items() if name != ALL), default=apart[ALL])
        metrics |= {"mae": apart[ALL], "mae_max": largest, "floor": floor}
    pairs = sorted((name for name in own.whole if name != ALL), key=lambda name: -apart.get(name, 0.0))
    curves |= {
        part: {name: rounded(values[name], 4) for name in (ALL, *pairs[:MAX_PAIRS]) if name in values}
        for part, values in parts.items()
    }
    return Finding(PARTIAL if problem else DONE, finite(metrics), curves, tuple(notes))


def reference_forces(reference: Reference) -> ForcesOf:
    """Forces of the reference for dynamics; a frame whose label fails loses its walker.

    The function raises `NoLabel` where the budget is spent.
    """

    def forces_of(batch: FrameBatch) -> tuple[FloatArray, NDArray[np.bool_]]:
        frames = list(batch.frames())
        outcomes = reference.label(frames)
        if any(outcome is None for outcome in outcomes):
            raise NoLabel("the budget of reference calculations is spent", is_spent=True)
        is_lost = np.array([not isinstance(outcome, Label) for outcome in outcomes], dtype=np.bool_)
        forces = [
            outcome.forces if isinstance(outcome, Label) else np.zeros((frame.n_atoms, 3))
            for frame, outcome in zip(frames, outcomes, strict=True)
        ]
        return np.concatenate(forces), is_lost

    return forces_of


def _run(starts: Sequence[Frame], forces_of: ForcesOf, settings: DynamicsSettings) -> tuple[Distances, DynamicsResult]:
    """Dynamics with its distances, settled by the time that it had, and what became of the walkers."""
    record = DistanceRecord(starts[0], settings.n_steps)

    def observe(step: int, alive: IntArray, positions: FloatArray) -> None:
        record.observe(step, alive, positions)

    result = run_dynamics(starts, forces_of, settings, observe)
    is_alive = np.array([reason == "" for reason in result.reasons])
    reached = float(result.times[is_alive].max()) / settings.timestep if is_alive.any() else settings.n_steps
    return record.settled(reached), result
