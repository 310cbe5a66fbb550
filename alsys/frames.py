"""Frames: what explorers visit and labelers label, and where each one came from.

A frame's identity is the blake2b digest of its canonical bytes: no rounding, NaN refused, -0.0 equal to 0.0. Two
frames with the same identity are the same frame, so repeated work has no effect. Energies and forces are not part of
a frame; they are a `Label` (see `alsys.labels`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alsys.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FRAME_ID_BYTES: Final = 16
FRAME_PERSON: Final = b"alsys-frame-1"
"""What the digests of frames are personalised with."""
MAX_ATOMIC_NUMBER: Final = 118


class Arm(StrEnum):
    """Why a frame was proposed."""

    ATOM = "atom"
    """A free atom: its energy is the zero of the model's energy scale. Not counted in the label budget."""
    INITIAL = "initial"
    """Sampled from the structure itself, before there is a model."""
    UNCERTAIN = "uncertain"
    """The committee disagrees on it."""
    RANDOM = "random"
    """Taken at random from what the explorers visit. Never trained on: the unbiased test set."""
    IMPORTED = "imported"
    """Came with its label from elsewhere; trained on where that is of the campaign's level. Outside the budget."""
    CURVATURE = "curvature"
    """Derived for a fit from the Hessian of another frame (`alsys.training.curvature`): no label, never stored."""


ARMS: Final = tuple(Arm)
"""Arms in the order of their code in the store; append only."""


TRAINING_ARMS: Final = (Arm.INITIAL, Arm.UNCERTAIN, Arm.IMPORTED)
"""Arms whose labels are trained on."""


@dataclass(frozen=True, slots=True, eq=False)
class PointCharges:
    """Charges around a frame that are no atoms of it: what a cluster was carved out of, seen from afar.

    Attributes:
        positions: ``(n, 3)``, Angstrom.
        values: ``(n,)``, e.
    """

    positions: FloatArray
    values: FloatArray

    def __post_init__(self) -> None:
        positions = np.array(self.positions, dtype=np.float64) + 0.0
        values = np.array(self.values, dtype=np.float64) + 0.0
        if values.ndim != 1 or values.size == 0 or positions.shape != (values.size, 3):
            shapes = (positions.shape, values.shape)
            raise InputError("needs positions (n, 3) and values (n,), n > 0", field="environment", value=shapes)
        if not (np.isfinite(positions).all() and np.isfinite(values).all()):
            raise InputError("positions and values must be finite", field="environment", value="NaN or infinity")
        for name, array in (("positions", positions), ("values", values)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def n_charges(self) -> int:
        """Number of charges."""
        return int(self.values.size)

    def __reduce__(self) -> tuple[type[PointCharges], tuple[FloatArray, FloatArray]]:
        return (PointCharges, (self.positions, self.values))


@dataclass(frozen=True, slots=True)
class Frame:
    """One configuration of atoms.

    Attributes:
        numbers: ``(n_atoms,)`` atomic numbers.
        positions: ``(n_atoms, 3)``, Angstrom.
        cell: ``(3, 3)`` row vectors, Angstrom; zeros where there is no cell.
        pbc: ``(3,)`` periodic directions.
        charge: Total charge, e.
        multiplicity: 2S + 1.
        environment: Point charges that it is embedded in; None for none. Its atoms feel them; it is not periodic then.
        frame_id: Hexadecimal digest of all the above, 32 characters.
    """

    numbers: NDArray[np.int32]
    positions: FloatArray
    cell: FloatArray
    pbc: NDArray[np.bool_]
    charge: int = 0
    multiplicity: int = 1
    environment: PointCharges | None = None
    frame_id: str = field(init=False)

    def __post_init__(self) -> None:
        numbers = np.array(self.numbers, dtype=np.int32)
        positions = np.array(self.positions, dtype=np.float64) + 0.0  # -0.0 and 0.0 must be one identity
        cell = np.array(self.cell, dtype=np.float64) + 0.0
        pbc = np.array(self.pbc, dtype=np.bool_)
        if numbers.ndim != 1 or numbers.size == 0:
            raise InputError("a frame needs at least one atom", field="numbers", value=numbers.shape)
        if positions.shape != (numbers.size, 3):
            raise InputError("positions must be (n_atoms, 3)", field="positions", value=positions.shape)
        if cell.shape != (3, 3) or pbc.shape != (3,):
            raise InputError("cell must be (3, 3) and pbc (3,)", field="cell", value=(cell.shape, pbc.shape))
        if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
            raise InputError("positions and cell must be finite", field="positions", value="NaN or infinity")
        if numbers.min() < 1 or numbers.max() > MAX_ATOMIC_NUMBER:
            raise InputError("atomic numbers run from 1 to 118", field="numbers", value=numbers.tolist())
        if self.multiplicity < 1:
            raise InputError("multiplicity is 2S + 1, at least 1", field="multiplicity", value=self.multiplicity)
        if self.environment is not None and pbc.any():
            raise InputError("a periodic frame has no point charges around it", field="environment")
        for name, value in (("numbers", numbers), ("positions", positions), ("cell", cell), ("pbc", pbc)):
            value.flags.writeable = False
            object.__setattr__(self, name, value)
        digest = _digest(numbers, positions, cell, pbc, self.charge, self.multiplicity, self.environment)
        object.__setattr__(self, "frame_id", digest)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return int(self.numbers.size)

    @classmethod
    def molecule(cls, numbers: ArrayLike, positions: ArrayLike, charge: int = 0, multiplicity: int = 1) -> Frame:
        """A frame without a cell."""
        return cls(
            numbers=np.asarray(numbers, dtype=np.int32),
            positions=np.asarray(positions, dtype=np.float64),
            cell=np.zeros((3, 3)),
            pbc=np.zeros(3, dtype=np.bool_),
            charge=charge,
            multiplicity=multiplicity,
        )

    @classmethod
    def several(
        cls,
        numbers: ArrayLike,
        positions: FloatArray,
        cells: FloatArray | None,
        pbc: ArrayLike,
        charge: int,
        multiplicity: int,
    ) -> list[Frame]:
        """Frames that differ in positions and cells only, checked together; their positions are views of one array.

        Args:
            numbers: ``(n_atoms,)`` atomic numbers.
            positions: ``(n_frames, n_atoms, 3)``, Angstrom.
            cells: ``(n_frames, 3, 3)``, Angstrom; None where there are none.
            pbc: ``(3,)`` periodic directions.
            charge: Total charge, e.
            multiplicity: 2S + 1.

        Raises:
            InputError: As for one frame.
        """
        n = len(positions)
        if not n:
            return []
        positions = np.array(positions, dtype=np.float64) + 0.0
        cells = np.zeros((n, 3, 3)) if cells is None else np.array(cells, dtype=np.float64) + 0.0
        first = cls(np.asarray(numbers, dtype=np.int32), positions[0], cells[0], np.asarray(pbc), charge, multiplicity)
        if positions.shape != (n, first.n_atoms, 3) or cells.shape != (n, 3, 3):
            raise InputError("must be (n_frames, n_atoms, 3)", field="positions", value=positions.shape)
        if not (np.isfinite(positions).all() and np.isfinite(cells).all()):
            raise InputError("positions and cell must be finite", field="positions", value="NaN or infinity")
        positions.flags.writeable = cells.flags.writeable = False
        shared = {"numbers": first.numbers, "pbc": first.pbc, "charge": charge, "multiplicity": multiplicity}
        start, end = _digest_of_atoms(first.numbers, charge, multiplicity), first.pbc.astype("u1").tobytes()
        frames = []
        for x, h in zip(positions, cells, strict=True):
            digest = start.copy()
            digest.update(x.astype("<f8", copy=False).tobytes() + h.astype("<f8", copy=False).tobytes() + end)
            frame = object.__new__(cls)
            for name, value in shared.items():
                object.__setattr__(frame, name, value)
            object.__setattr__(frame, "positions", x)
            object.__setattr__(frame, "cell", h)
            object.__setattr__(frame, "environment", None)
            object.__setattr__(frame, "frame_id", digest.hexdigest())
            frames.append(frame)
        return frames

    def with_positions(self, positions: ArrayLike) -> Frame:
        """The same atoms at other ``(n_atoms, 3)`` positions."""
        return replace(self, positions=np.asarray(positions, dtype=np.float64))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and other.frame_id == self.frame_id

    def __hash__(self) -> int:
        return hash(self.frame_id)

    def __reduce__(self) -> tuple[type[Frame], tuple[object, ...]]:
        arrays = (self.numbers, self.positions, self.cell, self.pbc)
        return (Frame, (*arrays, self.charge, self.multiplicity, self.environment))


@dataclass(frozen=True, slots=True)
class Source:
    """Where a frame came from.

    Attributes:
        system: Name of the system in the config.
        arm: Why it was proposed.
        method: How it was reached, for example ``langevin`` or ``normal-modes``.
        trajectory: Identity of the continuous trajectory it lies on; frames of one trajectory are correlated, so a
            holdout is split by it. Non-negative, below 2**63.
        model_version: Version of the committee that drove the walker; 0 before there is one.
        step: Step on that trajectory.
        deviation: Largest force deviation over its atoms, eV/Angstrom; NaN where no committee has seen it.
        temperature: Temperature of the walker's thermostat, K.
        stratum: Bond topology and temperature bin, where selection spreads over them; not stored.
    """

    system: str
    arm: Arm
    method: str
    trajectory: int = 0
    model_version: int = 0
    step: int = 0
    deviation: float = float("nan")
    temperature: float = 0.0
    stratum: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A frame proposed for labelling.

    Attributes:
        frame: The configuration.
        source: Where it came from.
        mask: ``(n_atoms,)`` False for atoms whose forces must not be learned from, such as those at the rim of a
            cluster that was cut out of a liquid; None where all may. A masked frame's energy is not learned either.
    """

    frame: Frame
    source: Source
    mask: NDArray[np.bool_] | None = None

    def is_beside(self, other: Candidate, spacing: int) -> bool:
        """Whether both lie on one trajectory, fewer than `spacing` steps apart."""
        mine, theirs = self.source, other.source
        return mine.trajectory == theirs.trajectory and abs(mine.step - theirs.step) < spacing


def _digest(
    numbers: NDArray[np.int32],
    positions: FloatArray,
    cell: FloatArray,
    pbc: NDArray[np.bool_],
    charge: int,
    multiplicity: int,
    environment: PointCharges | None,
) -> str:
    digest = _digest_of_atoms(numbers, charge, multiplicity)
    digest.update(positions.astype("<f8").tobytes())
    digest.update(cell.astype("<f8").tobytes())
    digest.update(pbc.astype("u1").tobytes())
    if environment is not None:  # frames without one keep the identity that they had before there were any
        digest.update(environment.positions.astype("<f8").tobytes())
        digest.update(environment.values.astype("<f8").tobytes())
    return digest.hexdigest()


def _digest_of_atoms(numbers: NDArray[np.int32], charge: int, multiplicity: int) -> hashlib.blake2b:
    digest = hashlib.blake2b(digest_size=FRAME_ID_BYTES, person=FRAME_PERSON)
    digest.update(np.asarray([numbers.size, charge, multiplicity], dtype="<i8").tobytes())
    digest.update(numbers.astype("<i4").tobytes())
    return digest
