"""A cheap method under a committee that has learned a difference to it: what was taken away is added back.

A state that names a baseline is evaluated by `DeltaCommittee` only: energies, forces and stresses are those of the
baseline plus those of the model, their spread is the model's alone, since members share the baseline. A frame on which
the baseline fails has NaN for values and is flagged; it costs no other frame of the batch anything. Frames are
evaluated one after another, with nothing remembered between them: at 4 ms (ethanol) to 16 ms (acetylacetone) of
GFN2-xTB each, this is the floor under the time of a step (docs/design/016-baselines.md).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import FloatArray, Frame
from alsys.potentials.arrays import HOST, Arrays
from alsys.potentials.base import (
    Committee,
    CommitteePrediction,
    CommitteeState,
    FrameBatch,
    arrays_for,
    has_volume,
)
from alsys.potentials.xtb import XTBFailure, XTBMethod, check_frame, require_tblite, single_point

logger = logging.getLogger(__name__)

METHODS = ("GFN2-xTB", "GFN1-xTB")
CLOSEST = 0.05
"""Distance of two atoms below which a frame is not worth an SCF, Angstrom."""


@dataclass(frozen=True, slots=True)
class BaselineValues:
    """What a baseline says of a batch.

    Attributes:
        energy: ``(n_frames,)``, eV; NaN where it failed.
        forces: ``(n_total, 3)``, eV/Angstrom; NaN where it failed.
        stress: ``(n_frames, 3, 3)``, eV/Angstrom^3; NaN where it failed and in frames without a volume; None where no
            frame has one.
        is_failed: ``(n_frames,)``.
    """

    energy: FloatArray
    forces: FloatArray
    stress: FloatArray | None
    is_failed: NDArray[np.bool_]


class Baseline:
    """GFN-xTB for batches of frames.

    Args:
        spec: Specification of its level of theory, as a state names it.

    Raises:
        InputError: No baseline that can be evaluated here.
        EnvironmentProblem: tblite is missing.
    """

    def __init__(self, spec: Mapping[str, object]) -> None:
        self.spec = dict(spec)
        self.method = _method_of(self.spec)
        try:
            require_tblite()
        except EnvironmentProblem as error:
            message = f"the model learned a difference to {self.method.name} and is nothing without it"
            raise EnvironmentProblem(f"{message}: {error}") from error

    def evaluate(self, batch: FrameBatch) -> BaselineValues:
        """Energies, forces and stresses, frame by frame.

        Raises:
            InputError: A frame that xTB cannot treat at all: an element, an impossible spin, one or two periodic
                directions.
        """
        energy = np.full(batch.n_frames, np.nan)
        forces = np.full((batch.numbers.size, 3), np.nan)
        is_periodic = has_volume(batch)
        stress = np.full((batch.n_frames, 3, 3), np.nan) if is_periodic.any() else None
        first = 0
        for i, frame in enumerate(batch.frames()):
            last = first + frame.n_atoms
            check_frame(frame)
            try:
                if _is_collapsed(frame):
                    raise XTBFailure("atoms stand on top of each other")
                values = single_point(frame, self.method)
            except XTBFailure as failure:
                logger.info("%s failed on a frame of %d atoms: %s", self.method.name, frame.n_atoms, failure)
            else:
                energy[i], forces[first:last] = values.energy, values.forces
                if stress is not None and values.stress is not None and is_periodic[i]:
                    stress[i] = values.stress
            first = last
        return BaselineValues(energy, forces, stress, np.isnan(energy))


class DeltaCommittee:
    """A committee that adds its baseline.

    Args:
        committee: Has learned the difference; it has loaded the state.
        state: Names the baseline.

    Raises:
        InputError: The state names no baseline, or one that cannot be evaluated here.
        EnvironmentProblem: tblite is missing.
    """

    def __init__(self, committee: Committee, state: CommitteeState) -> None:
        self._committee = committee
        self._baseline = Baseline(_baseline_of(state))

    @property
    def version(self) -> int:
        """Version of the weights in use."""
        return self._committee.version

    @property
    def difference(self) -> Committee:
        """The committee without its baseline."""
        return self._committee

    @property
    def arrays(self) -> Arrays:
        """Where walkers under it are moved; the baseline itself stays on the host."""
        return arrays_for(self._committee)

    def load(self, state: CommitteeState) -> None:
        """Takes new weights, and their baseline where it is another one.

        Raises:
            InputError: They do not fit, or the state names no baseline.
        """
        spec = _baseline_of(state)
        if spec != self._baseline.spec:
            self._baseline = Baseline(spec)
        self._committee.load(state)

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        """Baseline plus committee; spread and features are the committee's.

        Raises:
            InputError: As of the committee, or a frame that the baseline cannot treat at all.
        """
        prediction = self._committee.evaluate(batch, members)
        arrays = HOST if isinstance(batch.positions, np.ndarray) else self.arrays
        positions, cell = arrays.read([batch.positions, batch.cell])
        base = self._baseline.evaluate(replace(batch, positions=positions, cell=cell))
        parts = [base.energy, base.forces, *([] if base.stress is None else [base.stress])]
        base_energy, base_forces, *base_stress = arrays.of(parts)
        stress, energies, forces = prediction.stress, prediction.member_energies, prediction.member_forces
        if stress is not None:  # without the baseline's it is nothing, as energies are
            stress = stress + base_stress[0] if base_stress else arrays.xp.full_like(stress, float("nan"))
        return replace(
            prediction,
            energy=prediction.energy + base_energy,
            forces=prediction.forces + base_forces,
            member_energies=None if energies is None else energies + base_energy,
            member_forces=None if forces is None else forces + base_forces,
            stress=stress,
            is_failed=base.is_failed if base.is_failed.any() else None,
        )


def _baseline_of(state: CommitteeState) -> dict[str, object]:
    if state.baseline is None:
        raise InputError("the committee names no baseline", field="baseline", value=None)
    return dict(state.baseline)


def _method_of(spec: Mapping[str, object]) -> XTBMethod:
    accuracy = spec.get("accuracy")
    if spec.get("engine") != "tblite" or spec.get("method") not in METHODS or not isinstance(accuracy, int | float):
        raise InputError(
            "the model is a difference to a baseline that cannot be evaluated here",
            field="baseline",
            value=dict(spec),
            remedy=f"baselines are {' and '.join(METHODS)}",
        )
    return XTBMethod(str(spec["method"]), float(accuracy))


def _is_collapsed(frame: Frame) -> bool:
    """Whether two atoms of a molecule are closer than `CLOSEST`: energies there are meaningless and may be huge."""
    if frame.n_atoms < 2 or frame.pbc.any():
        return False
    vector = frame.positions[:, None] - frame.positions[None]
    squared = np.einsum("ijx,ijx->ij", vector, vector)
    squared[np.diag_indices_from(squared)] = np.inf
    return bool(squared.min() < CLOSEST**2)
