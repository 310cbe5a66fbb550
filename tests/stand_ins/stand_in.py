"""What the packages beside this module give instead of potentials: a Morse potential, another zero, charge and spin.

`STAND_IN` in the environment is a JSON mapping: `log` a file that gets a line for each model and each 100th frame,
`raise_every` and `nan_every` frames that fail, `dies_beyond` a coordinate (Angstrom) beyond which the process dies, and
`wait_s` seconds that each frame takes.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from alsys.labeling.analytic import morse

ZERO, PER_CHARGE, PER_UNPAIRED = -4000.0, 7.0, 3.0
DEPTH, WIDTH = 3.5, 1.5


class StandIn(Calculator):
    """Reads charge and spin from `Atoms.info` where it is given names of entries, else from its arguments."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "free_energy", "stress"]

    def __init__(self, name: str, state: tuple[int, int] = (0, 1), info: tuple[str | None, str | None] = (None, None)):
        super().__init__()
        self._settings: dict[str, Any] = json.loads(os.environ.get("STAND_IN", "{}"))
        self._state, self._info, self._n_frames = state, info, 0
        self._log(f"loaded {name}")

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        """Whatever is asked for, all of it."""
        super().calculate(atoms, properties, system_changes)
        self._n_frames += 1
        if self._n_frames % 100 == 1:
            self._log(f"frame {self._n_frames}")
        time.sleep(self._settings.get("wait_s", 0.0))
        if np.abs(atoms.positions).max() > self._settings.get("dies_beyond", np.inf):
            os.abort()
        if self._n_frames % self._settings.get("raise_every", 10**9) == 0:
            raise RuntimeError("this frame is not\nto its taste")
        charge, multiplicity = (
            atoms.info[name] if name is not None else value for name, value in zip(self._info, self._state, strict=True)
        )
        energy, forces = morse(atoms.numbers, atoms.positions, DEPTH, WIDTH)
        energy += ZERO + PER_CHARGE * charge + PER_UNPAIRED * (multiplicity - 1)
        if self._n_frames % self._settings.get("nan_every", 10**9) == 0:
            forces = np.full_like(forces, np.nan)
        self.results = {"energy": energy, "forces": forces}
        if atoms.pbc.all():
            self.results["stress"] = np.arange(6.0)

    def _log(self, line: str) -> None:
        if "log" in self._settings:
            with Path(self._settings["log"]).open("a") as file:
                file.write(f"{line}\n")
