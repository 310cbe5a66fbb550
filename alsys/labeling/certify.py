"""Certification: a labeler relabels published frames and is compared with what was published.

Energies of different codes differ by a constant for each composition (basis set conventions, frozen grids), so their
spread counts, not their offset. Frames are taken evenly spaced over the file, so that `n` frames sample all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.labeling.base import Labeler
from alsys.labels import LabelFailure, LevelOfTheory

Published = tuple[Frame, float, FloatArray]
"""Frame, energy (eV) and forces ``(n_atoms, 3)`` (eV/Angstrom)."""


@dataclass(frozen=True, slots=True)
class CertifyReport:
    """What a certification found; eV, eV/Angstrom, s.

    Attributes:
        energy_differences: Label minus published energy of each frame.
        force_errors: Label minus published force components, all frames flat.
        wall_s: Seconds of each label; the first one may include starting the child process.
        failures: Frame index and message.
    """

    level: LevelOfTheory
    n_frames: int
    energy_differences: FloatArray
    force_errors: FloatArray
    wall_s: FloatArray
    failures: tuple[tuple[int, str], ...]

    @property
    def n_failed(self) -> int:
        """Frames without a label."""
        return len(self.failures)

    def to_json(self) -> dict[str, object]:
        """Figures in meV and meV/Angstrom; null where nothing could be compared."""
        errors, energies = self.force_errors * 1e3, self.energy_differences * 1e3
        has_any = errors.size > 0
        return {
            "level": dict(self.level.spec),
            "n_frames": self.n_frames,
            "n_failed": self.n_failed,
            "force_mae_mev_per_ang": float(np.abs(errors).mean()) if has_any else None,
            "force_rmse_mev_per_ang": float(np.sqrt(np.square(errors).mean())) if has_any else None,
            "force_max_mev_per_ang": float(np.abs(errors).max()) if has_any else None,
            "energy_spread_mev": float(energies.std()) if has_any else None,
            "energy_offset_mev": float(energies.mean()) if has_any else None,
            "seconds_per_label": float(np.median(self.wall_s)) if has_any else None,
            "failures": [{"frame": i, "message": message} for i, message in self.failures],
        }


def evenly_spaced(n_available: int, n: int) -> list[int]:
    """`n` indices spread evenly over ``range(n_available)``, the first included."""
    n = min(n, n_available)
    return [i * n_available // n for i in range(n)]


def certify(
    labeler: Labeler, published: Sequence[Published], n: int, progress: Callable[[int, int], None] | None = None
) -> CertifyReport:
    """Relabels `n` of the published frames.

    Raises:
        InputError: The labeler cannot treat a frame.
    """
    rows = evenly_spaced(len(published), n)
    for row in rows:
        try:
            labeler.check(published[row][0])
        except InputError as error:
            field = f"frame {row}: {error.field}" if error.field else f"frame {row}"
            raise InputError(error.message, field=field, value=error.value, remedy=error.remedy) from None
    energies: list[float] = []
    forces: list[FloatArray] = []
    wall: list[float] = []
    failures: list[tuple[int, str]] = []
    for done, row in enumerate(rows):
        frame, energy, reference = published[row]
        outcome = labeler.label(frame)
        if isinstance(outcome, LabelFailure):
            failures.append((row, f"{outcome.kind}: {outcome.message}"))
        else:
            energies.append(outcome.energy - energy)
            forces.append((outcome.forces - reference).ravel())
            wall.append(outcome.cost.wall_s)
        if progress is not None:
            progress(done + 1, len(rows))
    return CertifyReport(
        level=labeler.level,
        n_frames=len(rows),
        energy_differences=np.array(energies),
        force_errors=np.concatenate(forces) if forces else np.zeros(0),
        wall_s=np.array(wall),
        failures=tuple(failures),
    )
