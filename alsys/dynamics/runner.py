"""One batch of walkers, moved a step at a time: what explorers, first frames, teachers and tests of models share.

A step is: first half of the integrator, the barostat, the positions judged, forces, second half, the motion judged. A
walker whose positions make no sense is put back to where it was before the potential sees it, and one whose forces are
not finite moves on without any; what becomes of them is the caller's affair, who is told why each of them must stop.
Nothing is random but what the integrator and the barostat draw. All of it runs on numpy, or on a device (`Runner.to`),
where the host hears of a step twice: of positions that make no sense, and of all that is judged at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alsys.dynamics.barostat import StochasticCellRescaling
from alsys.dynamics.geometry import Flags, told
from alsys.dynamics.integrators import Integrator, Langevin
from alsys.dynamics.masses import masses_of
from alsys.dynamics.stopping import StopRule
from alsys.frames import FloatArray, Frame
from alsys.potentials.arrays import HOST, Array, Arrays, Segments
from alsys.potentials.base import FrameBatch

TIMESTEP = 0.5
"""fs; of first frames and teachers."""
FRICTION = 0.02
"""1/fs; of dynamics that nobody sets up: strong enough to hold the temperature within a run of 100 fs."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a potential says of a batch.

    Attributes:
        forces: ``(n_total, 3)``, eV/Angstrom.
        energy: ``(n_walkers,)``, eV; None where nobody asks.
        stress: ``(n_walkers, 3, 3)``, eV/Angstrom^3; None where there is none.
        bias: ``(n_total, 3)`` forces that move walkers too, but are not judged, eV/Angstrom; None for none.
        known: ``(n_walkers,)`` what must be finite, or a walker is stopped; None for the energy.
        excess: ``(n_walkers,)`` energy of where walkers began that may have turned into heat by now, eV; None for none.
        missing: Walkers that have no forces through no fault of theirs, and why.
        told: What else the host is to know of each step, see `Runner.told`.
    """

    forces: Array
    energy: Array | None = None
    stress: Array | None = None
    bias: Array | None = None
    known: Array | None = None
    excess: Array | None = None
    missing: Mapping[int, str] = field(default_factory=dict)
    told: tuple[Array, ...] = ()

    @property
    def driving(self) -> Array:
        """``(n_total, 3)`` forces that move walkers, eV/Angstrom."""
        return self.forces if self.bias is None else self.forces + self.bias


Potential = Callable[[FrameBatch], Evaluation]
"""Energies and forces of a batch; what it raises ends the run."""


class Runner:
    """A batch of walkers.

    Args:
        starts: Where each walker is at first, at least one.
        integrator: Moves them.
        rule: Stops them.
        barostat: Changes cells, where there is one.

    Attributes:
        batch: The walkers' atoms; its positions and cells are those of the starts.
        offsets: ``(n_walkers + 1,)`` first atom of each walker.
        positions, velocities: ``(n_total, 3)``, Angstrom and Angstrom/fs.
        cell: ``(n_walkers, 3, 3)``, Angstrom.
        evaluation: The last one; zero forces at first.
        told: What the last one had for the host, there.
    """

    def __init__(
        self,
        starts: Sequence[Frame],
        integrator: Integrator,
        rule: StopRule,
        barostat: StochasticCellRescaling | None = None,
    ) -> None:
        self.batch = FrameBatch.of(starts)
        self.integrator, self.rule, self._barostat = integrator, rule, barostat
        self.offsets = np.concatenate([[0], np.cumsum(self.batch.n_atoms)])
        self.positions: Array = self.batch.positions.copy()
        self.velocities: Array = np.zeros_like(self.positions)
        self.cell: Array = self.batch.cell.copy()
        self.evaluation = Evaluation(np.zeros_like(self.positions))
        self.told: list[NDArray[Any]] = []
        self._arrays: Arrays = HOST
        self._walkers: Segments = HOST.segments(self.batch.n_atoms)

    def to(self, arrays: Arrays) -> None:
        """Goes on elsewhere, with all that is remembered."""
        names = ("forces", "energy", "stress", "bias", "known", "excess")
        last = {name: value for name in names if (value := getattr(self.evaluation, name)) is not None}
        values = self._arrays.read([self.positions, self.velocities, self.cell, *last.values()])
        self.positions, self.velocities, self.cell, *others = arrays.of(values)
        self.evaluation = replace(self.evaluation, **dict(zip(last, others, strict=True)), told=())
        self._arrays, self._walkers = arrays, arrays.segments(self.batch.n_atoms)
        for part in (self.integrator, self.rule, self._barostat):
            if part is not None:
                part.to(arrays)

    def atoms(self, k: int) -> slice:
        """Atoms of walker `k`."""
        return slice(int(self.offsets[k]), int(self.offsets[k + 1]))

    @property
    def here(self) -> FrameBatch:
        """The batch where walkers are now."""
        of = self.batch
        return FrameBatch(of.n_atoms, of.numbers, self.positions, self.cell, of.pbc, of.charge, of.multiplicity)

    def kinetic_energy(self) -> Array:
        """``(n_walkers,)``, eV."""
        return self.integrator.kinetic_energy(self.velocities)

    def put(self, k: int, frame: Frame, velocities: FloatArray) -> None:
        """Puts walker `k` elsewhere; its forces are wanted next."""
        part = self.atoms(k)
        self.positions[part], self.cell[k], self.velocities[part] = self._arrays.of(
            [frame.positions, frame.cell, velocities]
        )

    def begin(self, k: int, frame: Frame, rng: np.random.Generator) -> None:
        """Puts walker `k` elsewhere, with velocities of its temperature and a thermostat that remembers nothing."""
        self.integrator.reset(k, rng)
        self.put(k, frame, self.integrator.maxwell_of(k, rng))

    def evaluate(self, potential: Potential, rows: Sequence[int] | None = None) -> dict[int, str]:
        """Forces where walkers are, without a move.

        Args:
            potential: Gives them.
            rows: Walkers that are new there, which get no bias before their next step; None for all.

        Returns:
            Of all walkers, those that cannot go on from there, and why; those of `rows` are judged at their next step.
        """
        if rows is None:
            return self._judged(potential(self.here))
        index = np.asarray(rows, dtype=np.int64)
        of, atoms = self.batch, np.concatenate([np.arange(self.offsets[k], self.offsets[k + 1]) for k in rows])
        positions, cell = self._arrays.read([self.positions, self.cell])
        part = potential(
            FrameBatch(
                of.n_atoms[index], of.numbers[atoms], positions[atoms], cell[index], of.pbc[index],
                None if of.charge is None else of.charge[index],
                None if of.multiplicity is None else of.multiplicity[index],
            )
        )  # fmt: skip
        old, changed = self.evaluation, self._arrays.changed
        self.evaluation = replace(
            old,
            forces=changed(old.forces, atoms, np.where(np.isfinite(part.forces), part.forces, 0.0)),
            energy=None if old.energy is None or part.energy is None else changed(old.energy, index, part.energy),
            stress=None if old.stress is None or part.stress is None else changed(old.stress, index, part.stress),
            bias=None if old.bias is None else changed(old.bias, atoms, 0.0),
        )
        return {}

    def step(self, potential: Potential, rng: np.random.Generator) -> dict[int, str]:
        """One step of every walker.

        Returns:
            Walkers that must stop, and why: see `StopRule`, and `Evaluation.missing`.
        """
        before, cell = self.positions, self.cell
        positions, velocities = self.integrator.first_half(before, self.velocities, self.evaluation.driving, rng)
        stress = self.evaluation.stress
        if self._barostat is not None and stress is not None:
            positions, velocities, self.cell = self._barostat.rescale(positions, velocities, cell, stress, rng)
        problems = self.rule.of_positions(positions, self.cell, is_scaled=self._barostat is not None)
        if problems:  # the potential must not see them
            is_off = np.zeros(self.batch.n_frames, dtype=np.bool_)
            is_off[list(problems)] = True
            (back,) = self._arrays.of([is_off])
            atoms, where = self._walkers.spread(back)[:, None], self._arrays.xp.where
            self.cell = where(back[:, None, None], cell, self.cell)
            positions, velocities = where(atoms, before, positions), where(atoms, 0.0, velocities)
        self.positions = positions
        return self._judged(potential(self.here), velocities) | problems

    def _judged(self, found: Evaluation, velocities: Array | None = None) -> dict[int, str]:
        """Takes new forces, and the second half of a step under them for these velocities; all that is wrong then."""
        flags = self._take(found)
        if velocities is not None:
            self.velocities = self.integrator.second_half(velocities, self.evaluation.driving)
        excess = self.evaluation.excess
        hot = self.rule.of_heat(self.kinetic_energy(), self.integrator.targets, 0.0 if excess is None else excess)
        problems, self.told = told(self._arrays, [*hot, *flags], found.told)
        return problems | dict(found.missing)

    def _take(self, found: Evaluation) -> list[Flags]:
        """New forces; those of walkers that have none are zero, and the last stress stays where there is no new one."""
        flags = self.rule.of_forces(found.forces, found.energy if found.known is None else found.known)
        xp = self._arrays.xp
        if flags:
            found = replace(found, forces=xp.where(xp.isfinite(found.forces), found.forces, 0.0))
        if found.stress is None and self.evaluation.stress is not None:
            found = replace(found, stress=self.evaluation.stress)
        self.evaluation = found
        return flags


def thermostatted(
    starts: Sequence[Frame],
    temperatures: FloatArray,
    timestep: float,
    friction: FloatArray | float,
    hydrogen_mass: float | None = None,
) -> Langevin:
    """Langevin dynamics of walkers at these structures, centres of mass at rest.

    Args:
        starts: One of each walker.
        temperatures: ``(n_walkers,)``, K.
        timestep: fs.
        friction: One for all or ``(n_walkers,)``, 1/fs; 0 conserves the energy.
        hydrogen_mass: As of `masses_of`.
    """
    masses = masses_of(starts, hydrogen_mass)
    return Langevin(masses, temperatures, timestep, friction, [frame.n_atoms for frame in starts])


def trusted(potential: Potential, at_start: Array, arrays: Arrays = HOST) -> Potential:
    """A potential that is the reference itself, so that the energy it sets free may turn into heat.

    Args:
        potential: Knows energies.
        at_start: ``(n_walkers,)`` energies of where walkers begin, eV.
        arrays: Where walkers are, and these energies.
    """

    def evaluate(batch: FrameBatch) -> Evaluation:
        found = potential(batch)
        assert found.energy is not None
        return replace(found, excess=arrays.xp.clip(at_start - found.energy, 0.0, None))

    return evaluate
