"""What a committee of potentials is: a flat batch of frames in, mean forces and their spread out.

Weights travel as `CommitteeState` (a JSON specification and numpy arrays), never as code. `load` swaps weights in
place; `version` says which ones the last evaluation used. Between two looks at the spread, one member may do: what a
single member of several cannot know is NaN, never zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.frames import Frame, IntArray
from alsys.potentials.arrays import HOST, Array, Arrays, Segments
from alsys.states import SeenStates

BUNDLE_DIGEST = "bundle_digest"
"""Name under which the digest of a bundle goes with its card."""


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Frames concatenated along the atom axis.

    Positions and cells may be tensors on a device, for committees that say so (`arrays_for`); the others never are.

    Attributes:
        n_atoms: ``(n_frames,)`` atoms of each frame.
        numbers: ``(n_total,)`` atomic numbers.
        positions: ``(n_total, 3)``, Angstrom.
        cell: ``(n_frames, 3, 3)`` row vectors, Angstrom; zeros where there is none.
        pbc: ``(n_frames, 3)``.
        charge: ``(n_frames,)`` e; None where all are neutral. Only baselines look at it, and at the next.
        multiplicity: ``(n_frames,)`` 2S + 1; None where all are singlets.
    """

    n_atoms: IntArray
    numbers: NDArray[np.int32]
    positions: Array
    cell: Array
    pbc: NDArray[np.bool_]
    charge: NDArray[np.int32] | None = None
    multiplicity: NDArray[np.int32] | None = None

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> FrameBatch:
        """One batch of all `frames` (at least one), in order."""
        return cls(
            n_atoms=np.array([f.n_atoms for f in frames], dtype=np.int64),
            numbers=np.concatenate([f.numbers for f in frames]),
            positions=np.concatenate([f.positions for f in frames]),
            cell=np.stack([f.cell for f in frames]),
            pbc=np.stack([f.pbc for f in frames]),
            charge=np.array([f.charge for f in frames], dtype=np.int32),
            multiplicity=np.array([f.multiplicity for f in frames], dtype=np.int32),
        )

    def frames(self) -> Iterator[Frame]:
        """One frame after another.

        Raises:
            InputError: Positions or a cell that are not finite.
        """
        first = 0
        for i, n in enumerate(self.n_atoms.tolist()):
            yield Frame(
                numbers=self.numbers[first : first + n],
                positions=self.positions[first : first + n],
                cell=self.cell[i],
                pbc=self.pbc[i],
                charge=0 if self.charge is None else int(self.charge[i]),
                multiplicity=1 if self.multiplicity is None else int(self.multiplicity[i]),
            )
            first += n

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return int(self.n_atoms.size)

    @property
    def frame_of_atom(self) -> IntArray:
        """``(n_total,)`` index of each atom's frame."""
        return np.repeat(np.arange(self.n_frames), self.n_atoms)


@dataclass(frozen=True, slots=True)
class CommitteePrediction:
    """What a committee, or some of its members, says of a batch: arrays where the batch's positions are.

    Where one member of several was evaluated, the three spreads are NaN, which no comparison takes for certain.

    Attributes:
        energy: ``(n_frames,)`` mean over the members evaluated, eV.
        energy_std: ``(n_frames,)`` standard deviation over them, eV.
        forces: ``(n_total, 3)`` mean over members, eV/Angstrom.
        force_deviation: ``(n_total,)`` sqrt(<|F_k - <F>|^2>) over members k, eV/Angstrom (DP-GEN's model deviation:
            Zhang et al., Phys. Rev. Mater. 3, 023804 (2019), eq. 2).
        frame_deviation: ``(n_frames,)`` its maximum over each frame's atoms, eV/Angstrom.
        member_energies: ``(n_members, n_frames)``, eV; of the members evaluated; None where it was not kept.
        member_forces: ``(n_members, n_total, 3)``, eV/Angstrom; None where it was not kept.
        features: ``(n_total, n_features)`` what member 0 makes its energies of with linear weights, of each atom, no
            unit; None where there are none or member 0 was not evaluated. Those of members do not compare.
        stress: ``(n_frames, 3, 3)`` mean over members of dE/d(strain) / volume, eV/Angstrom^3, tension positive as in
            ASE; NaN in frames that are not periodic or have no volume; None where no frame is periodic, or where the
            committee knows no stress.
        is_failed: ``(n_frames,)`` frames on which the committee's baseline failed, whose energies, forces and stress
            are NaN; None where it failed on none.
    """

    energy: Array
    energy_std: Array
    forces: Array
    force_deviation: Array
    frame_deviation: Array
    member_energies: Array | None = None
    member_forces: Array | None = None
    features: Array | None = None
    stress: Array | None = None
    is_failed: NDArray[np.bool_] | None = None


def committee_prediction(
    batch: FrameBatch,
    energies: Array,
    forces: Array,
    features: Array | None = None,
    stress: Array | None = None,
    *,
    n_members: int | None = None,
    arrays: Arrays = HOST,
    atoms: Segments | None = None,
) -> CommitteePrediction:
    """Mean and spread of some members.

    Args:
        batch: What was evaluated.
        energies: ``(n_evaluated, n_frames)``, eV.
        forces: ``(n_evaluated, n_total, 3)``, eV/Angstrom.
        features: As in the prediction.
        stress: As in the prediction.
        n_members: Members of the committee; None where all were evaluated. One of several has no spread: NaN.
        arrays: Where all of these are.
        atoms: Segments of the frames' atoms, where they are known already.
    """
    xp = arrays.xp
    mean = forces.mean(axis=0)
    if len(energies) == 1 and n_members not in (None, 1):
        energy_std = xp.full_like(energies[0], float("nan"))
        deviation = xp.full_like(mean[:, 0], float("nan"))
    else:
        energy_std = arrays.deviation(energies)
        away = forces - mean
        deviation = xp.sqrt(xp.einsum("kax,kax->a", away, away) / len(forces))
    if atoms is None:
        atoms = arrays.segments(batch.n_atoms)
    return CommitteePrediction(
        energy=energies.mean(axis=0),
        energy_std=energy_std,
        forces=mean,
        force_deviation=deviation,
        frame_deviation=atoms.max(deviation),
        member_energies=energies,
        member_forces=forces,
        features=features,
        stress=stress,
    )


def chosen_members(members: Sequence[int] | None, n_members: int) -> list[int]:
    """Members to evaluate, ascending; all of them for None.

    Raises:
        InputError: None, one twice, or one that is not there.
    """
    if members is None:
        return list(range(n_members))
    chosen = sorted(int(k) for k in members)
    if not chosen or len(set(chosen)) < len(chosen) or chosen[0] < 0 or chosen[-1] >= n_members:
        raise InputError(f"must be different members out of 0 to {n_members - 1}", field="members", value=list(members))
    return chosen


def has_volume(batch: FrameBatch) -> NDArray[np.bool_]:
    """``(n_frames,)`` periodic frames whose lattice vectors span a volume: those that have a stress."""
    has: NDArray[np.bool_] = batch.pbc.any(axis=1) & (np.abs(np.linalg.det(batch.cell)) > 0.0)
    return has


@dataclass(frozen=True, slots=True)
class CommitteeState:
    """A committee as data.

    Attributes:
        version: Model version in the campaign; 0 for unversioned.
        kind: Which implementation reads it: ``nequip`` or ``pair``.
        spec: JSON-compatible builder arguments, equal for all members (elements, cutoff, layers, energy shifts, ...).
        members: One state dict of numpy arrays for each member.
        score: What judges atoms: ``committee`` for the spread of members, or a name in
            `alsys.potentials.uncertainty.UNCERTAINTIES`.
        score_state: What that score learned.
        baseline: Level of theory (`alsys.labels.LevelOfTheory.spec`) whose energies and forces must be added, for
            members that learned a difference; None for members that learned labels.
        seen: States of charge and multiplicity that it has learned from; None where nobody has recorded them.
        surroundings: What atoms that it has learned from were bonded to (`alsys.dynamics.surroundings`); None likewise.
        inner: One small member that learned whole labels, to move walkers between two evaluations of this committee
            (`alsys.dynamics.multiple_time_steps`); None for none.
    """

    version: int
    kind: str
    spec: Mapping[str, object]
    members: tuple[Mapping[str, NDArray[np.generic]], ...]
    score: str = "committee"
    score_state: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    baseline: Mapping[str, object] | None = None
    seen: SeenStates | None = None
    surroundings: frozenset[str] | None = None
    inner: CommitteeState | None = None

    @property
    def n_members(self) -> int:
        """Number of members."""
        return len(self.members)


class Committee(Protocol):
    """A committee that can be evaluated."""

    @property
    def version(self) -> int:
        """Version of the weights in use."""
        ...

    def load(self, state: CommitteeState) -> None:
        """Takes new weights of the same specification, without rebuilding where possible."""
        ...

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        """Mean energies and forces, and their spread over members.

        Args:
            batch: Frames.
            members: Which members to evaluate; None for all. One of several gives forces without a spread (NaN) at
                its share of the cost.

        Raises:
            InputError: The committee does not know an element, or has no such member.
        """
        ...


def arrays_for(committee: Committee) -> Arrays:
    """Where walkers under a committee are moved: its attribute ``arrays`` where it takes positions on a device."""
    arrays: Arrays = getattr(committee, "arrays", HOST)
    return arrays
