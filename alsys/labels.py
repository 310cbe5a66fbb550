"""Labels: energies and forces of frames at one level of theory, and the ways in which labelling fails.

`label_id` is a digest of the frame's identity and the level's, so a label that is computed twice is stored once.
Both outcomes are values: `Labeler.label` returns `Label | LabelFailure` and does not raise for chemistry.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np

from alsys.errors import FailureKind
from alsys.frames import FloatArray

LEVEL_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class LevelOfTheory:
    """All that decides the value of a label, and nothing that does not (no hosts, limits, thread counts).

    Attributes:
        spec: JSON-compatible settings, for example ``{"engine": "pyscf", "xc": "pbe", "basis": "def2-svp", ...}``.
        level_id: Hexadecimal digest of the canonical JSON of `spec`, 32 characters.
    """

    spec: Mapping[str, object]
    level_id: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.blake2b(self.canonical.encode(), digest_size=LEVEL_ID_BYTES, person=b"alsys-level-1")
        object.__setattr__(self, "level_id", digest.hexdigest())

    @classmethod
    def lost(cls, level_id: str) -> LevelOfTheory:
        """The level of an identity whose settings were lost with the file that held them."""
        level = cls({"settings": "lost"})
        object.__setattr__(level, "level_id", level_id)
        return level

    @property
    def canonical(self) -> str:
        """Canonical JSON: sorted keys, no white space."""
        return json.dumps(dict(self.spec), sort_keys=True, separators=(",", ":"), allow_nan=False)


@lru_cache(maxsize=4096)
def label_id_of(frame_id: str, level_id: str) -> str:
    """Identity of the label of one frame at one level of theory: 32 hexadecimal characters."""
    return hashlib.blake2b(
        bytes.fromhex(frame_id) + bytes.fromhex(level_id), digest_size=LEVEL_ID_BYTES, person=b"alsys-label-1"
    ).hexdigest()


@dataclass(frozen=True, slots=True)
class LabelCost:
    """What a label took, and where.

    Attributes:
        wall_s: Seconds of wall time inside the labeler.
        cpu_s: CPU seconds of the labelling process; 0 where unknown.
        scf_cycles: SCF iterations; 0 where there are none.
        rescue_rung: 0 for the plain method, higher for each rung of the rescue ladder that was needed.
        host: Host name, at most 32 bytes.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    scf_cycles: int = 0
    rescue_rung: int = 0
    host: str = ""


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What the electronic structure says of itself; NaN where unknown.

    Attributes:
        gap: Energy of the lowest empty minus the highest filled orbital, eV; the smaller one of both spins.
        spin_excess: <S^2> minus S(S + 1) of an unrestricted determinant: its spin contamination.
    """

    gap: float = math.nan
    spin_excess: float = math.nan


@dataclass(frozen=True, slots=True)
class Label:
    """Energy and forces of one frame.

    Attributes:
        frame_id: Identity of the frame.
        level_id: Identity of the level of theory.
        energy: Total energy, eV.
        forces: ``(n_atoms, 3)``, eV/Angstrom.
        cost: What it took.
        stress: ``(3, 3)`` symmetric, eV/Angstrom^3, positive under tension as in ASE; None for molecules.
        diagnostics: What is known of the electronic structure.
        baseline: Label of the same frame at the campaign's baseline level; None where there is none.
        slope: How the energy falls along the forces, from two more energies (`alsys.labeling.slope`), eV/Angstrom:
            their length where they are right; NaN where unknown. Not stored.
    """

    frame_id: str
    level_id: str
    energy: float
    forces: FloatArray
    cost: LabelCost = LabelCost()
    stress: FloatArray | None = None
    diagnostics: Diagnostics = Diagnostics()
    baseline: Label | None = None
    slope: float = math.nan

    @property
    def label_id(self) -> str:
        """Identity of this label."""
        return label_id_of(self.frame_id, self.level_id)


@dataclass(frozen=True, slots=True)
class Hessian:
    """Second derivatives of the energy of a labelled frame, at the level of its label.

    Attributes:
        frame_id: Identity of the frame.
        matrix: ``(3 n_atoms, 3 n_atoms)`` symmetric, eV/Angstrom^2; x, y, z of the first atom come first.
    """

    frame_id: str
    matrix: FloatArray

    @classmethod
    def of_triangle(cls, frame_id: str, values: Sequence[float]) -> Hessian:
        """From its lower triangle, row by row."""
        n = math.isqrt(2 * len(values))
        matrix = np.zeros((n, n))
        matrix[np.tril_indices(n)] = values
        return cls(frame_id, np.tril(matrix, -1).T + matrix)

    @property
    def triangle(self) -> tuple[float, ...]:
        """The lower triangle, row by row."""
        values: list[float] = self.matrix[np.tril_indices(len(self.matrix))].tolist()
        return tuple(values)


@dataclass(frozen=True, slots=True)
class LabelFailure:
    """Why a frame has no label.

    Attributes:
        frame_id: Identity of the frame.
        kind: Stable kind; decides whether it is tried again.
        message: One line for the user.
        cost: What the failed attempt took.
    """

    frame_id: str
    kind: FailureKind
    message: str
    cost: LabelCost = LabelCost()


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a committee expects of a frame, before or after its label is known.

    Attributes:
        energy: Total energy, eV: mean over members.
        forces: ``(n_atoms, 3)``, eV/Angstrom: mean over members.
        deviations: ``(n_atoms,)`` force deviation of the committee, eV/Angstrom.
        model_version: Version of the committee.
    """

    energy: float
    forces: FloatArray
    deviations: FloatArray
    model_version: int
