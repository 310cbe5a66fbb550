"""Figures of the labels that expectations rest on, in order; see `alsys.labeling.gate.sorted_numbers`."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass

from alsys.labeling.gate.expectations import Composition, is_free_atom
from alsys.labeling.gate.sorted_numbers import SortedNumbers

RESIDUAL_RECORDS = 60
"""Residuals of the newest committees that are enough; older ones are then left out."""


@dataclass(frozen=True, slots=True)
class Record:
    """Figures of a label: forces of rigid motion (-1: none), and residuals where there was a prediction.

    Attributes:
        version: Of the committee that predicted it; -1 for none.
        energy_residual: Energy per atom against the committee's, eV.
        energy_ratio: Its size over the committee's own deviation.
        force_residual: Largest error of an atom's force, eV/Angstrom.
    """

    composition: Composition
    energy: float
    net_force: float
    turning: float
    version: int
    energy_residual: float
    energy_ratio: float
    force_residual: float


class Residuals:
    """Differences between labels and what committees expected of them.

    Args:
        records: Of labels that a committee has predicted.

    Attributes:
        energies: Per atom, eV.
        ratios: Sizes of those over the committee's deviation.
        forces: Largest of an atom, eV/Angstrom.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        rows = list(records)
        self.energies = SortedNumbers(r.energy_residual for r in rows)
        self.ratios = SortedNumbers(r.energy_ratio for r in rows)
        self.forces = SortedNumbers(r.force_residual for r in rows)

    def __len__(self) -> int:
        return len(self.forces)

    def add(self, record: Record) -> None:
        """Takes one more."""
        self.energies.add(record.energy_residual)
        self.ratios.add(record.energy_ratio)
        self.forces.add(record.force_residual)

    def remove(self, record: Record) -> None:
        """Leaves one out."""
        self.energies.remove(record.energy_residual)
        self.ratios.remove(record.energy_ratio)
        self.forces.remove(record.force_residual)

    def with_others(self, others: Residuals) -> Residuals:
        """These and those."""
        both = Residuals()
        both.energies = self.energies.with_others(others.energies)
        both.ratios = self.ratios.with_others(others.ratios)
        both.forces = self.forces.with_others(others.forces)
        return both


class SeenLabels:
    """Records of labels by identity.

    Attributes:
        ids: Their identities, in order.
        net_forces: Of those that have one.
        turnings: Likewise.
        energies: By composition; none is empty.
        atoms: Those of them that are free atoms.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.net_forces, self.turnings = SortedNumbers(), SortedNumbers()
        self.energies: dict[Composition, SortedNumbers] = {}
        self.atoms: dict[Composition, SortedNumbers] = {}
        self._records: dict[str, Record] = {}
        self._residuals: dict[int, Residuals] = {}
        self._newest: Residuals | None = None

    def get(self, label_id: str) -> Record | None:
        """The record of a label, where there is one."""
        return self._records.get(label_id)

    def add(self, label_id: str, record: Record) -> None:
        """Takes a label that is not there."""
        self._records[label_id] = record
        bisect.insort(self.ids, label_id)
        if record.net_force >= 0:
            self.net_forces.add(record.net_force)
        if record.turning >= 0:
            self.turnings.add(record.turning)
        if record.composition not in self.energies:
            self.energies[record.composition] = SortedNumbers()
        energies = self.energies[record.composition]
        energies.add(record.energy)
        if is_free_atom(record.composition):
            self.atoms[record.composition] = energies
        if record.version >= 0:
            if record.version not in self._residuals:
                self._residuals[record.version] = Residuals()
            self._residuals[record.version].add(record)
            self._newest = None

    def discard(self, label_id: str) -> bool:
        """Leaves a label out; whether it was there."""
        record = self._records.pop(label_id, None)
        if record is None:
            return False
        del self.ids[bisect.bisect_left(self.ids, label_id)]
        if record.net_force >= 0:
            self.net_forces.remove(record.net_force)
        if record.turning >= 0:
            self.turnings.remove(record.turning)
        self.energies[record.composition].remove(record.energy)
        if not self.energies[record.composition]:
            del self.energies[record.composition]
            self.atoms.pop(record.composition, None)
        if record.version >= 0:
            self._residuals[record.version].remove(record)
            if not self._residuals[record.version]:
                del self._residuals[record.version]
            self._newest = None
        return True

    @property
    def residuals(self) -> Residuals:
        """Those of the newest committees, as many committees as it takes."""
        if self._newest is None:
            versions = sorted(self._residuals, reverse=True)
            self._newest = self._residuals[versions[0]] if versions else Residuals()
            for version in versions[1:]:
                if len(self._newest) >= RESIDUAL_RECORDS:
                    break
                self._newest = self._newest.with_others(self._residuals[version])
        return self._newest
