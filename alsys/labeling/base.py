"""What a labeler is: one level of theory, frames in, `Label` or `LabelFailure` out.

A labeler never raises for chemistry or for a killed child process; it returns a `LabelFailure`. An exception from
`label` is a bug and costs the worker. `alsys.testing.labelers.LabelerContract` checks an implementation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, overload, runtime_checkable

from alsys.frames import FloatArray, Frame
from alsys.labels import Hessian, Label, LabelFailure, LevelOfTheory


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


@dataclass(frozen=True, slots=True)
class HessianOrder:
    """One step towards the Hessian of a minimum; see `alsys.labeling.hessians`.

    Attributes:
        frame: Relaxed, or where it is a minimum, the frame whose Hessian is wanted.
        is_by_differences: By central differences of forces, also where the engine could do otherwise.
    """

    frame: Frame
    is_by_differences: bool = False


@dataclass(frozen=True, slots=True)
class Curvature:
    """What became of a `HessianOrder`.

    Attributes:
        frame: The minimum: another frame than that of the order where it was relaxed.
        label: Its label.
        hessian: Its second derivatives; None where the frame was relaxed.
        n_labels: Labels that it took, none of which is kept but `label`.
        wall_s: Seconds of wall time.
        is_analytic: The engine gave the second derivatives; else they are differences of forces.
    """

    frame: Frame
    label: Label
    hessian: Hessian | None
    n_labels: int
    wall_s: float
    is_analytic: bool = False


class LabelWorker(Protocol):
    """Carries out orders; see `alsys.labeling.worker`."""

    @overload
    def run(self, order: LabelingOrder) -> tuple[Label | LabelFailure, ...]: ...

    @overload
    def run(self, order: HessianOrder) -> Curvature | LabelFailure: ...

    def run(self, order: LabelingOrder | HessianOrder) -> tuple[Label | LabelFailure, ...] | Curvature | LabelFailure:
        """One outcome for each frame, in order; or that of a Hessian."""
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


@runtime_checkable
class HessianLabeler(Protocol):
    """A labeler that has second derivatives of its own."""

    def hessian(self, frame: Frame) -> FloatArray | LabelFailure | None:
        """``(3 n_atoms, 3 n_atoms)``, eV/Angstrom^2; None where it has none of this frame at its level."""
        ...
