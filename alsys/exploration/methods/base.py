"""What an exploration method is: it steers a group of walkers of one system, and integrates nothing itself.

The explorer moves all walkers as one batch. Between moves it shows each method its own walkers, stacked, and takes
back target temperatures, forces to add to the committee's mean force, and exchanges of temperatures. A method keeps
the state that it needs for each of its walkers (hills of metadynamics, where a scan stands) and forgets a walker's
state when that walker begins anew. Uncertainty is always judged on the committee, never on the biased forces.

A method whose class says ``takes_tensors = True`` is shown walkers on a device as tensors, and answers in tensors: it
uses operators and the functions of `Group.arrays`, and what it knows of each walker stays on the host. To all others a
device is shown as copies on the host, at one copy each way a step.

=================  =================================================  =====================
symbol             meaning                                            unit
=================  =================================================  =====================
``n_walkers``      walkers of this method on this system              none
``n_members``      members of the committee                           none
``step``           times that a walker was shown since it began       none
=================  =================================================  =====================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from pydantic import BaseModel

from alsys.frames import FloatArray, Frame, IntArray
from alsys.potentials.arrays import HOST, Array, Arrays


@dataclass(frozen=True, slots=True)
class Group:
    """Walkers of one method and one system, after their forces were evaluated.

    Attributes:
        positions: ``(n_walkers, n_atoms, 3)``, Angstrom.
        energy: ``(n_walkers,)`` mean of the committee, eV.
        forces: ``(n_walkers, n_atoms, 3)`` mean of the committee, eV/Angstrom.
        member_energies: ``(n_members, n_walkers)``, eV.
        member_forces: ``(n_members, n_walkers, n_atoms, 3)``, eV/Angstrom.
        temperatures: ``(n_walkers,)`` thermostats in force, K.
        step: ``(n_walkers,)``.
        arrays: Where the first five are; the other two are on the host. In `Method.exchange` energies are, too.
    """

    positions: Array
    energy: Array
    forces: Array
    member_energies: Array
    member_forces: Array
    temperatures: FloatArray
    step: IntArray
    arrays: Arrays = HOST


class Method(Protocol):
    """Steers a group of walkers of one system."""

    name: ClassVar[str]

    def start(self, k: int, trusted: Sequence[Frame], rng: np.random.Generator) -> Frame:
        """Where walker `k` of the group begins anew; its state of the method is forgotten.

        Args:
            k: Index in the group.
            trusted: Labelled frames of the system, at least one.
            rng: Source of chance.
        """
        ...

    def temperatures(self, step: IntArray) -> FloatArray:
        """``(n_walkers,)`` target temperatures for the next step, K."""
        ...

    def bias(self, group: Group) -> Array | None:
        """``(n_walkers, n_atoms, 3)`` forces to add, eV/Angstrom; None for none."""
        ...

    def exchange(self, group: Group, rng: np.random.Generator) -> Sequence[tuple[int, int]]:
        """Pairs of walkers whose temperatures were just swapped inside the method; velocities are to be rescaled."""
        ...


@dataclass(frozen=True, slots=True)
class MethodOrder:
    """What a method is built for: a group of walkers of one system.

    Attributes:
        start: Start structure of the system.
        n_walkers: Walkers of the group, at least one.
        timestep: Time from one time that a walker is shown to the next, fs.
        temperatures: Thermostats, K, where the method's own settings say nothing else.
        seed: Of what differs between groups of different explorers.
        smiles: What the start structure was made from, if it was.
    """

    start: Frame
    n_walkers: int
    timestep: float
    temperatures: Sequence[float]
    seed: int
    smiles: str | None = None


class MethodPlugin(Protocol):
    """What the class behind an entry point of the group `alsys.methods` has; it is never instantiated."""

    settings_model: type[BaseModel]

    @staticmethod
    def build(settings: Any, order: MethodOrder) -> Method:
        """The method for a group of walkers.

        Raises:
            InputError: It does not suit the system, which then goes without it; a method that suits none is refused.
        """
