"""What a calculator says of itself beside energies and forces: how wrong they may be, and which model gave them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray
from scipy.spatial import KDTree

from alsys.dynamics.geometry import close_pairs
from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.potentials.force_bound import ForceBound

OnDistrust = Literal["ignore", "warn", "raise"]
FUSED: Final = 0.3
"""Share of the covalent sum below which two atoms are one on top of the other; the shortest bonds are at 0.6."""
OF_ATOMS: Final = ("forces_std", "force_bound")
"""Results of each atom that ASE's own files know no place for."""
OF_FRAMES: Final = ("energy_std", "max_force_deviation", "is_trusted")
"""Likewise results of the frame."""


class UntrustedFrame(CalculationFailed):  # type: ignore[misc]
    """The model is asked for what it has not been measured on; results are there all the same."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which model a calculator evaluates.

    Attributes:
        model: Where it came from, as it was asked for.
        version: In its campaign.
        digest: SHA-256 of its files.
        n_members: Members that are evaluated.
    """

    model: str
    version: int
    digest: str
    n_members: int

    def todict(self) -> dict[str, Any]:
        """For ASE's databases, and whoever asks."""
        return {"model": self.model, "version": self.version, "digest": self.digest, "n_members": self.n_members}


@dataclass(frozen=True, slots=True)
class Trust:
    """What happens where a model does not know.

    Attributes:
        bound: On force errors; None where none goes with the model.
        on_distrust: What to do with a frame beyond it.
    """

    bound: ForceBound | None = None
    on_distrust: OnDistrust = "ignore"

    def results(self, deviation: FloatArray) -> dict[str, Any]:
        """``force_bound`` and ``is_trusted``; nothing where there is no bound.

        Args:
            deviation: ``(n_atoms,)``, eV/Angstrom.
        """
        if self.bound is None:
            return {}
        return {"force_bound": self.bound.band.error(deviation), "is_trusted": self.bound.trusts(deviation)}

    def act(self, results: Mapping[str, Any], deviation: FloatArray, numbers: NDArray[np.int32]) -> None:
        """Warns or raises, as asked for, where a frame is not trusted.

        Raises:
            UntrustedFrame: It is not, and that is to end the calculation.
        """
        if self.bound is None or self.on_distrust == "ignore" or results["is_trusted"]:
            return
        worst = int(np.argmax(np.nan_to_num(deviation, nan=np.inf)))
        message = (
            f"atom {worst} ({chemical_symbols[int(numbers[worst])]}): the members deviate by {deviation[worst]:.3g} "
            f"eV/Angstrom, and errors were measured up to {self.bound.largest_deviation:.3g} only: nobody knows how "
            "wrong these forces are"
        )
        if self.on_distrust == "raise":
            raise UntrustedFrame(message)
        warnings.warn(message, stacklevel=3)


@dataclass(frozen=True, slots=True)
class _Closest:
    """Two atoms and how close they are for their size."""

    i: int = 0
    j: int = 0
    ratio: float = field(default=np.inf)


def check_apart(frame: Frame) -> None:
    """Refuses atoms on top of each other: a network leaves out what has no distance, and says nothing.

    Raises:
        InputError: Two atoms are closer than `FUSED` times the sum of their covalent radii.
    """
    closest = _closest(frame)
    if closest.ratio >= FUSED:
        return
    i, j = closest.i, closest.j
    distance = closest.ratio * float(covalent_radii[frame.numbers[i]] + covalent_radii[frame.numbers[j]])
    raise InputError(
        f"atoms {i} ({chemical_symbols[frame.numbers[i]]}) and {j} ({chemical_symbols[frame.numbers[j]]}) are "
        f"{distance:.3f} Angstrom apart",
        field="atoms.positions",
        remedy="remove one of them, or start from a structure without overlaps",
    )


def _closest(frame: Frame) -> _Closest:
    radii = covalent_radii[frame.numbers]
    if frame.pbc.any():
        i, j, ratio, _ = close_pairs(frame, FUSED)
    else:
        pairs = KDTree(frame.positions).query_pairs(2.0 * FUSED * float(radii.max()), output_type="ndarray")
        i, j = pairs[:, 0], pairs[:, 1]
        ratio = np.linalg.norm(frame.positions[i] - frame.positions[j], axis=1) / (radii[i] + radii[j])
    if ratio.size == 0:
        return _Closest()
    k = int(np.argmin(ratio))
    return _Closest(int(i[k]), int(j[k]), float(ratio[k]))


def annotated(
    atoms: Atoms, results: Mapping[str, Any], provenance: Provenance | None, *, has_arrays: bool = True
) -> Atoms:
    """A copy of atoms that takes all results with it into files: extended XYZ, trajectories, databases.

    Energy, forces and stress go where ASE has them; what ASE has no name for goes to ``arrays`` (``forces_std``,
    ``force_bound``) and ``info`` (``energy_std``, ``max_force_deviation``, ``is_trusted``, ``alsys_model``,
    ``alsys_version``, ``alsys_digest``); all of it to ``info`` without `has_arrays`.
    """
    copy = atoms.copy()
    of_ase = {name: results[name] for name in ("energy", "free_energy", "forces", "stress") if name in results}
    copy.calc = SinglePointCalculator(copy, **of_ase)
    for name in (name for name in OF_ATOMS if name in results):
        values = np.asarray(results[name], dtype=np.float64)
        if has_arrays:
            copy.set_array(name, values)
        else:
            copy.info[name] = values
    copy.info |= {name: results[name] for name in OF_FRAMES if name in results}
    if provenance is not None:
        facts = provenance.todict()
        copy.info |= {f"alsys_{name}": facts[name] for name in ("model", "version", "digest")}
    return copy
