"""ANI-1x as a labeler: a frozen machine-learned force field that stands in for wB97X/6-31G* as a teacher.

J. S. Smith et al., J. Chem. Phys. 148, 241733 (2018). The mean of the eight published members, in double precision;
weights come with torchani 2.2.4 (extra `teacher`). It knows neutral singlets of H, C, N and O without a cell; a free
atom gets the energy that the model's authors gave atoms of its element (the linear fit that is the model's zero).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from ase.data import atomic_numbers

from alsys.config.engines import ANILabeling
from alsys.errors import EnvironmentProblem, InputError
from alsys.frames import Frame
from alsys.labeling.atoms import ground_multiplicity
from alsys.labeling.engine import Computed, Failed


class ANIEngine:
    """The mean of the committee ANI-1x."""

    settings_model: ClassVar[type[ANILabeling]] = ANILabeling

    def __init__(self, settings: ANILabeling) -> None:
        import torch

        from alsys.potentials.ani import N_MEMBERS, AniCommittee, ani1x_state

        torch.set_num_threads(settings.threads)
        state = ani1x_state()
        self._committee = AniCommittee(state, torch.float64)
        self._members = tuple(range(N_MEMBERS))
        symbols, free = state.spec["elements"], state.spec["free_atoms"]
        assert isinstance(symbols, list)
        assert isinstance(free, list)
        self._free = {atomic_numbers[symbol]: float(energy) for symbol, energy in zip(symbols, free, strict=True)}

    @classmethod
    def spec(cls, settings: ANILabeling) -> Mapping[str, object]:
        """Model, members and precision."""
        return {"engine": "ani", "model": settings.model, "members": 8, "precision": "float64"}

    @classmethod
    def check(cls, settings: ANILabeling, frame: Frame) -> None:
        """Refuses all but neutral singlets of H, C, N and O without a cell, and a missing torchani."""
        from alsys.potentials.ani import ani1x_folder
        from alsys.potentials.ani_frames import check_frame

        check_frame(frame)
        if frame.n_atoms == 1 and frame.multiplicity != ground_multiplicity(int(frame.numbers[0])):
            raise InputError("ANI-1x knows free atoms as they are", field="multiplicity", value=frame.multiplicity)
        try:
            ani1x_folder()
        except InputError as error:
            raise EnvironmentProblem(f"labeling.kind: ani: {error}") from error

    def compute(self, frame: Frame) -> Computed | Failed:
        """Energy and forces of the mean."""
        from alsys.potentials.base import FrameBatch

        if frame.n_atoms == 1:
            return Computed(self._free[int(frame.numbers[0])], np.zeros((1, 3)))
        prediction = self._committee.evaluate(FrameBatch.of([frame]))
        return Computed(float(prediction.energy[0]), np.asarray(prediction.forces, dtype=np.float64))
