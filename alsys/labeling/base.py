"""What a labeler is: one level of theory, frames in, `Label` or `LabelFailure` out.

A labeler never raises for chemistry or for a killed child process; it returns a `LabelFailure`. An exception from
`label` is a bug and costs the worker. `alsys.testing.labelers.LabelerContract` checks an implementation.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from alsys.frames import Frame
from alsys.labels import Label, LabelFailure, LevelOfTheory


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
