"""A version of a campaign's labelled frames, as a whole: for ASE, for xarray, and beside another version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alsys.arguments import checked
from alsys.campaign.elsewhere import campaign_at
from alsys.campaign.folder import CampaignFolder
from alsys.errors import EnvironmentProblem, InputError
from alsys.events import DataImported, HessianComputed
from alsys.frames import ARMS, Arm, FloatArray, Frame
from alsys.labels import Hessian, LevelOfTheory
from alsys.store.base import Snapshot, StoreReader, own_level

if TYPE_CHECKING:
    import xarray
    from ase import Atoms


@dataclass(frozen=True, slots=True)
class DatasetDifference:
    """What another version has and lacks.

    Attributes:
        added: Identities of frames that only the other one has, in its order.
        removed: Those that only this one has: their labels were retracted.
        changed: Those of both whose energy or forces are not the same.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True, slots=True, repr=False)
class Dataset:
    """Labelled frames of one dataset version at one level of theory, in the order in which they were labelled.

    Attributes:
        snapshot: Flat arrays; eV, eV/Angstrom, Angstrom.
        level: Level of theory.
        hessians: ``(3 n_atoms, 3 n_atoms)`` second derivatives, eV/Angstrom^2, by the frames of `labeling.hessians`.
    """

    snapshot: Snapshot
    level: LevelOfTheory
    hessians: Mapping[str, FloatArray] = field(default_factory=dict)

    @classmethod
    def of(cls, directory: CampaignFolder, version: int | None = None, level: str | None = None) -> Dataset:
        """Reads a version of a campaign's data.

        Args:
            directory: The campaign.
            version: Sequence number of a commit; default the newest.
            level: Identity of a level of theory, or its beginning; default the campaign's own.

        Raises:
            InputError: There is no such version or level, or there are no labels.
            StoreCorrupt: Frames or labels are damaged and were not set aside.
        """
        from alsys.store.damage import sound_snapshot
        from alsys.store.zarr import open_reader

        reader = open_reader(directory.store)
        try:
            chosen = chosen_level(reader, level)
            if chosen is None:
                raise InputError("holds no labels yet", source=directory.place)
            check_version(reader, version, directory.place)
            snapshot, is_own = sound_snapshot(reader, directory.path, chosen.level_id, version), level is None
            return cls(snapshot, chosen, _hessians_of(reader, snapshot.frame_ids) if is_own else {})
        finally:
            reader.close()

    @property
    def version(self) -> int:
        """Sequence number of the commit."""
        return self.snapshot.seq

    def __len__(self) -> int:
        return self.snapshot.n_frames

    def __repr__(self) -> str:
        return f"<Dataset version {self.version}: {len(self)} frames>"

    @checked
    def select(self, *arms: Arm | str, system: str | None = None) -> Dataset:
        """The frames of some arms (none for all), and of one system where it is named."""
        chosen = np.ones(len(self), dtype=np.bool_)
        if arms:
            known = [arm.value for arm in Arm]
            if strange := [arm for arm in arms if arm not in known]:
                raise InputError("no such arm", field="arms", value=strange[0], remedy=f"arms are {', '.join(known)}")
            chosen &= self.snapshot.is_arm(*map(Arm, arms))
        if system is not None:
            if system not in self.snapshot.systems:
                raise InputError(
                    "no such system",
                    field="system",
                    value=system,
                    remedy=f"there are {', '.join(self.snapshot.systems)}",
                )
            chosen &= self.snapshot.system == self.snapshot.systems.index(system)
        snapshot = self.snapshot.select(chosen)
        there = set(snapshot.frame_ids)
        return Dataset(snapshot, self.level, {name: h for name, h in self.hessians.items() if name in there})

    def frames(self) -> Iterator[Frame]:
        """The structures."""
        return self.snapshot.frames()

    def to_ase(self) -> list[Atoms]:
        """Atoms with energy (eV), forces (eV/Angstrom) and, where there is one, stress (eV/Angstrom^3) of the label.

        ``atoms.info`` has ``charge``, ``multiplicity`` (2S + 1), ``arm``, ``system`` and ``frame_id``.
        """
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.stress import full_3x3_to_voigt_6_stress

        data, offsets, found = self.snapshot, self.snapshot.offsets, []
        for i in range(data.n_frames):
            part = slice(int(offsets[i]), int(offsets[i + 1]))
            atoms = Atoms(
                numbers=data.numbers[part],
                positions=data.positions[part],
                cell=data.cell[i],
                pbc=data.pbc[i],
                info={
                    "charge": int(data.charge[i]),
                    "multiplicity": int(data.multiplicity[i]),
                    "arm": str(ARMS[data.arm[i]]),
                    "system": data.systems[data.system[i]],
                    "frame_id": data.frame_ids[i],
                },
            )
            results: dict[str, Any] = {"energy": float(data.energy[i]), "forces": data.forces[part].copy()}
            if np.isfinite(data.stress[i]).all():
                results["stress"] = full_3x3_to_voigt_6_stress(data.stress[i])
            atoms.calc = SinglePointCalculator(atoms, **results)
            found.append(atoms)
        return found

    def to_xarray(self) -> xarray.Dataset:
        """All arrays with their units, ragged: the atoms of a frame are ``n_atoms`` consecutive rows of ``atom``.

        Raises:
            EnvironmentProblem: xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise EnvironmentProblem("xarray is not installed; pip install 'alsys[xarray]'") from error
        data = self.snapshot
        per_frame, per_atom, tensor = ("frame",), ("atom", "xyz"), ("frame", "vector", "xyz")
        variables = {
            "n_atoms": (per_frame, data.n_atoms, {"sample_dimension": "atom"}),
            "numbers": (("atom",), data.numbers, {}),
            "positions": (per_atom, data.positions, {"units": "Angstrom"}),
            "cell": (tensor, data.cell, {"units": "Angstrom"}),
            "pbc": (("frame", "vector"), data.pbc, {}),
            "charge": (per_frame, data.charge, {"units": "e"}),
            "multiplicity": (per_frame, data.multiplicity, {}),
            "energy": (per_frame, data.energy, {"units": "eV"}),
            "forces": (per_atom, data.forces, {"units": "eV/Angstrom"}),
            "stress": (tensor, data.stress, {"units": "eV/Angstrom^3"}),
            "is_trusted": (("atom",), data.mask, {}),
            "arm": (per_frame, np.array([str(ARMS[code]) for code in data.arm], dtype=str), {}),
            "system": (per_frame, np.array([data.systems[i] for i in data.system], dtype=str), {}),
            "trajectory": (per_frame, data.trajectory, {}),
            "model_version": (per_frame, data.model_version, {}),
            "deviation": (per_frame, data.deviation, {"units": "eV/Angstrom"}),
        }
        return xarray.Dataset(
            variables,
            coords={"frame": ("frame", np.array(data.frame_ids, dtype=str))},
            attrs={"version": data.seq, "level_of_theory": self.level.canonical},
        )

    @checked
    def diff(self, other: Dataset) -> DatasetDifference:
        """What `other` has that this one lacks, lacks that this one has, and has otherwise.

        Raises:
            InputError: It is of another level of theory.
        """
        if other.level.level_id != self.level.level_id:
            raise InputError("are of different levels of theory", field="diff", value=other.level.canonical)
        mine, theirs = self._rows(), other._rows()
        return DatasetDifference(
            added=tuple(name for name in theirs if name not in mine),
            removed=tuple(name for name in mine if name not in theirs),
            changed=tuple(
                name for name, row in mine.items() if name in theirs and not self._is_same(row, other, theirs[name])
            ),
        )

    def _rows(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.snapshot.frame_ids)}

    def _is_same(self, row: int, other: Dataset, its: int) -> bool:
        return self.snapshot.energy[row] == other.snapshot.energy[its] and np.array_equal(
            self._forces(row), other._forces(its)
        )

    def _forces(self, row: int) -> Any:
        offsets = self.snapshot.offsets
        return self.snapshot.forces[offsets[row] : offsets[row + 1]]


def _hessians_of(reader: StoreReader, frame_ids: Sequence[str]) -> dict[str, FloatArray]:
    """Hessians of frames, at the campaign's own level of theory."""
    wanted = set(frame_ids)
    found = (event for event in reader.iter_events() if isinstance(event, HessianComputed))
    return {e.frame_id: Hessian.of_triangle(e.frame_id, e.triangle).matrix for e in found if e.frame_id in wanted}


@checked
def open_dataset(folder: str | Path, version: int | None = None, level: str | None = None) -> Dataset:
    """The labelled frames of a campaign's folder, or of its mirror, whether it runs or not; retracted ones left out.

    For xarray, `to_xarray()` of what is returned, or ``xarray.open_dataset(folder, engine="alsys", version=...)``,
    which reads what is used.

    Args:
        folder: The folder of a campaign, or the URL of its mirror.
        version: Sequence number of a commit; default the newest.
        level: Identity of a level of theory, or its beginning; default the campaign's own.

    Raises:
        InputError: It is no campaign, there is no such version or level, or there are no labels.
        StoreCorrupt: Frames or labels are damaged; `alsys data repair` sets them aside.
    """
    return Dataset.of(campaign_at(str(folder)), version, level)


def check_version(reader: StoreReader, version: int | None, place: str) -> None:
    """Refuses a dataset version that there is not.

    Raises:
        InputError: Names the newest.
    """
    if version is not None and not 0 <= version <= reader.head.seq:
        remedy = f"the newest is {reader.head.seq}"
        raise InputError("no such dataset version", source=place, field="version", value=version, remedy=remedy)


def chosen_level(reader: StoreReader, wanted: str | None) -> LevelOfTheory | None:
    """The level with this identity, or beginning of one; the campaign's own where none is wanted.

    Raises:
        InputError: There is no such level, or there are several.
    """
    levels = reader.levels()
    if wanted is None:
        return own_level(levels, [event for event in reader.events() if isinstance(event, DataImported)])
    found = [level for level in levels if level.level_id.startswith(wanted.lower())]
    if len(found) != 1:
        remedy = "see `alsys data info` for identities of levels"
        raise InputError(f"{len(found)} levels have this identity", field="level", value=wanted, remedy=remedy)
    return found[0]
