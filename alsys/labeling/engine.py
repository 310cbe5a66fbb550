"""What an engine is, and the labeler that runs any engine in a child process.

An engine is one class: a pydantic model of its settings, a level of theory made from them, a check, and a calculation.
`EngineLabeler` adds what all need: a killable child with time and memory limits, the refusal of atoms that stand on top
of each other, and the check that energy, forces and stress are finite and have the right shape. Engines of other
packages come in by entry points (`alsys.plugins`) and are treated alike.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from pydantic import BaseModel

from alsys.config.labeling import LabelingBase
from alsys.errors import FailureKind
from alsys.frames import FloatArray, Frame
from alsys.labeling.checks import check_alone, fused_atoms
from alsys.labeling.child import ChildLabeler, ChildProcess
from alsys.labels import Diagnostics, Label, LabelCost, LabelFailure, LevelOfTheory


@dataclass(frozen=True, slots=True)
class Computed:
    """What an engine computed for a frame.

    Attributes:
        energy: eV; the one of which the forces are the gradient.
        forces: ``(n_atoms, 3)``, eV/Angstrom.
        stress: ``(3, 3)``, eV/Angstrom^3, positive under tension as in ASE; None where there is none.
        diagnostics: Gap and spin contamination, where known.
        scf_cycles: SCF iterations.
        rescue_rung: 0 for the plain method, higher for each rung of a rescue ladder.
    """

    energy: float
    forces: FloatArray
    stress: FloatArray | None = None
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    scf_cycles: int = 0
    rescue_rung: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """Why an engine has no result. Kinds of lost computing are tried again, others are not."""

    kind: FailureKind
    message: str
    scf_cycles: int = 0
    rescue_rung: int = 0


class EngineClass(Protocol):
    """What an engine must offer. The class is used in the campaign's process, its instances in the child.

    Attributes:
        settings_model: Pydantic model of the settings; must be importable, since settings are sent to the child.
    """

    settings_model: ClassVar[Any]

    def __init__(self, settings: Any) -> None:
        """Prepares calculations; runs in the child, once."""
        ...

    @classmethod
    def spec(cls, settings: Any) -> Mapping[str, object]:
        """All that decides the values, JSON-compatible; no limits, hosts, paths or thread counts."""
        ...

    @classmethod
    def check(cls, settings: Any, frame: Frame) -> None:
        """Refuses what can be refused before anything starts.

        Raises:
            InputError: Names the field of the frame (``charge``) or of the config (``labeling.basis``).
            EnvironmentProblem: A package or program is missing.
        """
        ...

    def compute(self, frame: Frame) -> Computed | Failed:
        """Energy, forces and, for cells, stress of a frame; runs in the child. An exception is a bug."""
        ...


class EngineLabeler(ChildLabeler):
    """Labels with an engine in a child process.

    Args:
        engine: The class; must be importable by its module and name.
        settings: An instance of its `settings_model`.
        limits: Time and memory.
        threads: Threads the child may use.
    """

    def __init__(self, engine: type[EngineClass], settings: BaseModel, limits: LabelingBase, threads: int = 1) -> None:
        self._engine = engine
        self._settings = settings
        child = ChildProcess(
            "alsys.labeling.engine:ChildEngine",
            (f"{engine.__module__}:{engine.__qualname__}", settings),
            timeout_s=limits.timeout_s,
            memory_mb=limits.memory_mb,
            threads=threads,
        )
        super().__init__(LevelOfTheory(engine.spec(settings)), child)

    def check(self, frame: Frame) -> None:
        """Refuses what the engine cannot treat."""
        check_alone(frame)
        self._engine.check(self._settings, frame)


class ChildEngine:
    """Runs in the child: one engine, whose results are checked before they become labels."""

    def __init__(self, start: tuple[str, BaseModel]) -> None:
        path, settings = start
        module, name = path.split(":")
        engine: Any = importlib.import_module(module)
        for part in name.split("."):
            engine = getattr(engine, part)
        self._engine: EngineClass = engine(settings)
        self._level_id = LevelOfTheory(engine.spec(settings)).level_id

    def label(self, frame: Frame) -> Label | LabelFailure:
        """A label, or why there is none."""
        return label_of(self._engine, frame, self._level_id)


def label_of(engine: EngineClass, frame: Frame, level_id: str) -> Label | LabelFailure:
    """One frame through an engine, checked."""
    fused = fused_atoms(frame)
    if fused is not None:
        return LabelFailure(frame.frame_id, FailureKind.UNPHYSICAL_FRAME, fused)
    outcome = engine.compute(frame)
    cost = LabelCost(scf_cycles=outcome.scf_cycles, rescue_rung=outcome.rescue_rung)
    if isinstance(outcome, Failed):
        return LabelFailure(frame.frame_id, outcome.kind, " ".join(outcome.message.split())[:300], cost)
    problem = _problem(outcome, frame)
    if problem is not None:
        return LabelFailure(frame.frame_id, *problem, cost)
    forces = np.array(outcome.forces, dtype=np.float64)
    stress = None if outcome.stress is None else 0.5 * (outcome.stress + outcome.stress.T)
    return Label(frame.frame_id, level_id, float(outcome.energy), forces, cost, stress, outcome.diagnostics)


def _problem(computed: Computed, frame: Frame) -> tuple[FailureKind, str] | None:
    shape = np.shape(computed.forces)
    if shape != (frame.n_atoms, 3):
        return FailureKind.INTERNAL, f"the engine gave forces of shape {shape} for {frame.n_atoms} atoms"
    if computed.stress is not None and np.shape(computed.stress) != (3, 3):
        return FailureKind.INTERNAL, f"the engine gave a stress of shape {np.shape(computed.stress)}"
    arrays = [np.asarray(computed.energy), computed.forces]
    arrays += [computed.stress] if computed.stress is not None else []
    if not all(np.isfinite(array).all() for array in arrays):
        return FailureKind.UNPHYSICAL_FRAME, "energy, forces or stress are not finite"
    return None
