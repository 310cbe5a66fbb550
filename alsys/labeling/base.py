"""What a labeler is: one level of theory, frames in, `Label` or `LabelFailure` out.

A labeler never raises for chemistry or for a killed child process; it returns a `LabelFailure`. An exception from
`label` is a bug and costs the worker. `alsys.testing.labelers.LabelerContract` checks an implementation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from alsys.frames import Frame
from alsys.labels import Label, LabelFailure, LevelOfTheory


@dataclass(frozen=True, slots=True)
class LabelingOrder:
    """What a labeler is asked to do in one call.

    Attributes:
        frames: Labelled one after another.
        is_tight: At the tighter settings that labels are verified with, not at the campaign's level.
        has_slope: With two more energies for each frame, which tell whether its forces are their slope.
    """

    frames: tuple[Frame, ...]
    is_tight: bool = False
    has_slope: bool = False


class LabelWorker(Protocol):
    """Carries out orders; see `alsys.labeling.worker`."""

    def run(self, order: LabelingOrder) -> tuple[Label | LabelFailure, ...]:
        """One outcome for each frame, in order."""
        ...


@runtime_checkable
class Labeler(Protocol):
    """Computes energies and forces at one level of theory."""

    @property
    def level(self) -> LevelOfTheory:
        """All settings that decide the values."""
        ...

    def check(self, frame: Frame) -> None:
        """Refuses, before anything starts, a frame that this level cannot treat at all.

        Raises:
            InputError: For example an impossible spin, or an element without a basis.
        """
        ...

    def label(self, frame: Frame) -> Label | LabelFailure:
        """Energy (eV) and forces (eV/Angstrom) of a frame."""
        ...

    def close(self) -> None:
        """Ends child processes."""
        ...
