"""What an explorer is: it owns a batch of walkers and advances them by a chunk of steps on request.

An explorer holds no queue and knows nobody. Weights and restart frames come with the order, candidates and counts go
back with the report. One that keeps its state goes on in another process; what is lost is what it has done since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from alsys.frames import Candidate, FloatArray, Frame
from alsys.labels import Prediction
from alsys.potentials.base import CommitteeState


@dataclass(frozen=True, slots=True)
class ExplorationOrder:
    """What an explorer is asked to do.

    Attributes:
        n_steps: Steps for every walker, at least.
        n_random: Frames to take at random (uniform over walkers and steps) for the random arm.
        max_candidates: At most so many uncertain frames come back, the most uncertain ones.
        state: New weights, loaded before the chunk; None keeps the ones it has.
        seeds: Trusted frames (system name, frame) that walkers start from and are rewound to; empty keeps the ones it
            has.
        rescore: Frames whose deviation under the current weights is wanted.
        compare: Labelled frames that the weights were not trained on, with their ``(n_atoms, 3)`` forces.
        masks: ``(n_atoms,)`` atoms that count, of frames of `rescore` and `compare` where not all do, by identity.
        trust: Edges of the trust band, force deviation, eV/Angstrom.
        shares: Share of the walkers for each exploration method, by name; takes effect with new weights. Empty: equal.
        trajectory_base: First trajectory identity it may give out; a fresh range for every order.
    """

    n_steps: int
    n_random: int = 0
    max_candidates: int = 16
    state: CommitteeState | None = None
    seeds: tuple[tuple[str, Frame], ...] = ()
    rescore: tuple[Frame, ...] = ()
    compare: tuple[tuple[Frame, FloatArray], ...] = ()
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    trust: tuple[float, float] = (0.1, 0.6)
    shares: Mapping[str, float] = field(default_factory=dict)
    trajectory_base: int = 0


@dataclass(frozen=True, slots=True)
class ExplorationReport:
    """What an explorer found. Counts as in `alsys.events.ExplorationReported`.

    Attributes:
        model_version: Version of the weights it ran with.
        candidates: Uncertain and random frames; the source says which.
        rescored: Deviation of each frame of `order.rescore`, by identity, eV/Angstrom.
        compared: Force deviation and length of the force error of the atoms of each frame of `order.compare`, by
            identity, ``(n_kept,)`` each, eV/Angstrom; large frames are thinned out.
        withdrawn: Frames proposed in an earlier chunk that now lie beside one of the random arm, by identity.
        trust: Edges of the trust band it ran with.
        n_members: Members of the committee.
        n_distinct: Members that are not copies of another one.
        method_steps: Steps that walkers of each exploration method were asked to make.
        predictions: What the committee predicts for candidates and rescored frames, by identity, where labels are
            judged by it.
    """

    model_version: int
    candidates: tuple[Candidate, ...]
    n_steps: int
    walker_steps: int
    n_above: int
    wall_s: float
    stops: Mapping[str, int] = field(default_factory=dict)
    deviation_max: float = 0.0
    deviation_mean: float = 0.0
    rescored: Mapping[str, float] = field(default_factory=dict)
    compared: Mapping[str, tuple[FloatArray, FloatArray]] = field(default_factory=dict)
    withdrawn: tuple[str, ...] = ()
    trust: tuple[float, ...] = ()
    n_members: int = 0
    n_distinct: int = 0
    method_steps: Mapping[str, int] = field(default_factory=dict)
    predictions: Mapping[str, Prediction] = field(default_factory=dict)


class Explorer(Protocol):
    """Moves walkers."""

    def run(self, order: ExplorationOrder) -> ExplorationReport:
        """Loads weights where given, moves every walker by a chunk, and reports.

        Raises:
            RuntimeError: There are neither weights nor seeds yet (a bug of the caller).
        """
        ...


@runtime_checkable
class Resumable(Protocol):
    """An explorer that goes on in another process."""

    def state(self) -> bytes:
        """All that its chunks have left for the next one; not the committee, which comes with the next order."""
        ...

    def go_on(self, state: bytes) -> None:
        """Goes on where an explorer of the same config, structures and seed was.

        Args:
            state: As from `state`. It may be from a file: nothing in it is run (`alsys.exploration.safe_pickle`).
        """
        ...
