"""What a calculator says of itself beside energies and forces: how wrong they may be, and which model gave them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols, covalent_radii

from alsys.dynamics.surroundings import Surroundings
from alsys.errors import InputError
from alsys.frames import FloatArray, Frame
from alsys.metrics import Metrics
from alsys.potentials.base import CommitteeState
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
    """What is known of a model's errors, and what happens beyond that.

    Attributes:
        bound: On force errors; None where none goes with the model.
        known: What atoms that it has learned from were bonded to (`alsys.dynamics.surroundings`).
        on_distrust: What to do with a frame that is not trusted.
    """

    bound: ForceBound | None = None
    known: frozenset[str] = frozenset()
    on_distrust: OnDistrust = "ignore"

    def judge(self, surroundings: Surroundings, deviation: FloatArray) -> tuple[dict[str, Any], str]:
        """``force_bound`` and ``is_trusted``, nothing where there is no bound; and why a frame is not trusted.

        Args:
            surroundings: Of the frame.
            deviation: ``(n_atoms,)``, eV/Angstrom.
        """
        if self.bound is None:
            return {}, ""
        why = self._strange(surroundings) or self._deviating(surroundings.frame, deviation)
        return {"force_bound": self.bound.band.error(deviation), "is_trusted": not why}, why

    def act(self, why: str) -> None:
        """Warns or raises, as asked for, where there is a reason.

        Raises:
            UntrustedFrame: There is, and that is to end the calculation.
        """
        if not why or self.on_distrust == "ignore":
            return
        if self.on_distrust == "raise":
            raise UntrustedFrame(why)
        warnings.warn(why, stacklevel=3)

    def _strange(self, surroundings: Surroundings) -> str:
        names = surroundings.names()
        unknown = [k for k, name in enumerate(names) if name not in self.known]
        if not unknown:
            return ""
        symbol, _, around = names[unknown[0]].partition(":")
        bonded = f"bonded to {around}" if around else "alone"
        more = f", and {len(unknown) - 1} more atoms are as strange" if len(unknown) > 1 else ""
        return (
            f"atom {unknown[0]} ({symbol}) is {bonded}, which no atom was that this model has learned from{more}: "
            "nobody knows how wrong these forces are"
        )

    def _deviating(self, frame: Frame, deviation: FloatArray) -> str:
        assert self.bound is not None
        if self.bound.trusts(deviation):
            return ""
        worst = int(np.argmax(np.nan_to_num(deviation, nan=np.inf)))
        return (
            f"atom {worst} ({chemical_symbols[frame.numbers[worst]]}): the members deviate by {deviation[worst]:.3g} "
            f"eV/Angstrom, and errors were measured up to {self.bound.largest_deviation:.3g} only: nobody knows how "
            "wrong these forces are"
        )


def bound_of(state: CommitteeState, card: object) -> ForceBound | None:
    """On errors, as measured for a committee's card; None where they were not, or its surroundings are not known."""
    metrics = card.get("metrics") if isinstance(card, Mapping) else None
    if not isinstance(metrics, Mapping) or state.surroundings is None:
        return None
    return ForceBound.of(Metrics.read(metrics))


def check_apart(surroundings: Surroundings) -> None:
    """Refuses atoms on top of each other: a network leaves out what has no distance, and says nothing.

    Raises:
        InputError: Two atoms are closer than `FUSED` times the sum of their covalent radii.
    """
    ratio, numbers = surroundings.ratio, surroundings.frame.numbers
    if not (ratio < FUSED).any():
        return
    k = int(np.argmin(ratio))
    i, j = int(surroundings.i[k]), int(surroundings.j[k])
    distance = ratio[k] * float(covalent_radii[numbers[i]] + covalent_radii[numbers[j]])
    raise InputError(
        f"atoms {i} ({chemical_symbols[numbers[i]]}) and {j} ({chemical_symbols[numbers[j]]}) are "
        f"{distance:.3f} Angstrom apart",
        field="atoms.positions",
        remedy="remove one of them, or start from a structure without overlaps",
    )


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
