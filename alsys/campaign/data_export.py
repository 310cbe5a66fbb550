"""Labelled frames out of a campaign: parts for training elsewhere, terms of use, and a card that says what they are.

A split is the campaign's own (`alsys.training.dataset.split`): whole trajectories validate, and the random arm is the
test set, in no file of training or validation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from alsys.campaign.dataset import check_version, chosen_level
from alsys.campaign.folder import CampaignFolder
from alsys.errors import InputError
from alsys.events import DataImported
from alsys.frames import ARMS, Arm, IntArray
from alsys.interop.extxyz_files import MACE_KEYS, export_extxyz
from alsys.interop.formats.base import Format, appearing
from alsys.interop.raw_frames import formula
from alsys.interop.terms import Terms, text_of
from alsys.labels import LevelOfTheory
from alsys.store.base import Snapshot
from alsys.training.dataset import split
from alsys.version import __version__

ENDINGS: Mapping[str, str] = {
    "extxyz": ".xyz", "ase-db": ".db", "spice": ".h5", "ani1x": ".h5", "omol25": ".aselmdb", "deepmd": "",
    "rmd17": ".npz", "parquet": ".parquet", "qcschema": ".jsonl",
}  # fmt: skip
"""Of files of a split; a part in DeePMD's format is a folder."""
MAX_FORMULAS = 50
"""Listed in a card."""


@dataclass(frozen=True, slots=True)
class DataRelease:
    """Labelled frames of one version at one level, with what is known of them.

    Attributes:
        name: The campaign's.
        snapshot: The frames.
        frames: ``(n_frames,)`` their rows in the store.
        level: Of the labels.
        own: The campaign's terms.
        imports: What was imported at that level.
        n_retracted: Frames whose labels were retracted.
        validation_share: Of trajectories.
    """

    name: str
    snapshot: Snapshot
    frames: IntArray
    level: LevelOfTheory
    own: Terms
    imports: tuple[DataImported, ...]
    n_retracted: int
    validation_share: float

    @classmethod
    def of(
        cls,
        directory: CampaignFolder,
        level: str | None = None,
        seq: int | None = None,
        validation_share: float | None = None,
    ) -> DataRelease:
        """Reads it.

        Args:
            directory: The campaign.
            level: Identity of a level of theory, or its beginning; default the campaign's own.
            seq: Dataset version; default the newest.
            validation_share: Share of trajectories that validate; default the campaign's.

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
            check_version(reader, seq, directory.place)
            snapshot = sound_snapshot(reader, directory.path, chosen.level_id, seq)
            live = reader.live_labels(chosen.level_id, seq)
            config = directory.config()
            said = config.data_terms
            events = (event for event in reader.iter_events() if isinstance(event, DataImported))
            return cls(
                name=config.name,
                snapshot=snapshot,
                frames=live.frames,
                level=chosen,
                own=Terms(f"campaign {config.name}", 0, _line(said.licence), _line(said.source), _line(said.citation)),
                imports=tuple(event for event in events if event.level_id == chosen.level_id),
                n_retracted=len({tombstone.frame_id for tombstone in reader.tombstones(seq)}),
                validation_share=config.training.validation_share if validation_share is None else validation_share,
            )
        finally:
            reader.close()

    def select(self, rows: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> DataRelease:
        """The frames of a mask."""
        return replace(self, snapshot=self.snapshot.select(rows), frames=self.frames[rows])

    @property
    def terms(self) -> tuple[Terms, ...]:
        """Of the frames, by where they came from; the campaign's own first."""
        found, is_own = [], np.ones(self.frames.size, dtype=np.bool_)
        for event in self.imports:
            is_its = (self.frames >= event.first_frame) & (self.frames < event.first_frame + event.n_frames) & is_own
            is_own &= ~is_its
            if n := int(is_its.sum()):
                found.append(Terms(f"file {event.source}", n, event.licence, event.origin, event.citation))
        n_own = int(is_own.sum())
        return (*([replace(self.own, n_frames=n_own)] if n_own else []), *found)

    def parts(self) -> dict[str, DataRelease]:
        """``train``, ``validation``, ``test`` (the random arm) and ``atoms`` (free ones), where they hold a frame."""
        parts = split(self.snapshot, self.validation_share)
        named = {"train": parts.train, "validation": parts.validation, "test": parts.random, "atoms": parts.atoms}
        place = {frame_id: i for i, frame_id in enumerate(self.snapshot.frame_ids)}
        found = {}
        for name, part in named.items():
            if part.n_frames:
                rows = np.array([place[frame_id] for frame_id in part.frame_ids], dtype=np.int64)
                found[name] = replace(self, snapshot=part, frames=self.frames[rows])
        return found


def _line(text: str) -> str:
    return " ".join(text.split())


def write_release(release: DataRelease, path: Path, known: Format, keys: str = "ase") -> int:
    """Writes frames into one file and returns how many; it appears whole.

    Raises:
        InputError: The format cannot hold them.
    """
    terms = text_of(release.terms)
    if keys == "ase":
        return known.write(release.snapshot, path, release.level, terms)
    if known.name != "extxyz":
        remedy = "leave it out, or --format extxyz"
        raise InputError("names labels of extxyz", field="--keys", value=keys, remedy=remedy)
    if not release.snapshot.mask.all():
        raise InputError(
            "MACE has no place for atoms whose forces are not to be learned from", field="--keys", value=keys,
            remedy="leave it out, and drop such frames by their column `mask`",
        )  # fmt: skip
    return export_extxyz(release.snapshot, path, level=release.level, keys=MACE_KEYS, terms=terms)


def write_split(release: DataRelease, folder: Path, known: Format, keys: str = "ase") -> dict[str, int]:
    """Writes a folder of parts, which appears whole, with ``card.md`` and ``card.json``; frames by part.

    With MACE's names free atoms are part of ``train``, where ``mace_run_train`` looks for them; else they are a part
    of their own, which formats of neutral singlets leave out.

    Raises:
        InputError: There is nothing to train on, or the format cannot hold the frames.
    """
    parts = release.parts()
    if "train" not in parts:
        raise InputError(
            "holds no frame to train on: of the random arm and of free atoms only", source=release.name,
            remedy="leave --split out",
        )  # fmt: skip
    if keys == "mace" and "atoms" in parts:
        ids = {*parts.pop("atoms").snapshot.frame_ids, *parts["train"].snapshot.frame_ids}
        parts["train"] = release.select(np.array([frame_id in ids for frame_id in release.snapshot.frame_ids]))
    elif not known.holds_electrons:
        parts.pop("atoms", None)
    counts = {}
    with appearing(folder) as temporary:
        temporary.mkdir(parents=True)
        for name, part in parts.items():
            counts[name] = write_release(part, temporary / f"{name}{ENDINGS[known.name]}", known, keys)
        card = card_of(release) | {"parts": counts, "format": known.name, "keys": keys}
        (temporary / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        (temporary / "card.md").write_text(card_text(card), encoding="utf-8")
    return counts


def card_of(release: DataRelease) -> dict[str, object]:
    """What a data set is: counts, level, ranges, terms."""
    data = release.snapshot
    is_atom = data.is_arm(Arm.ATOM)
    frames = data.select(~is_atom)
    formulas: dict[str, int] = {}
    for i in range(frames.n_frames):
        name = formula(frames.numbers[frames.offsets[i] : frames.offsets[i + 1]].astype("<i4").tobytes())
        formulas[name] = formulas.get(name, 0) + 1
    states = sorted(set(zip(frames.charge.tolist(), frames.multiplicity.tolist(), strict=True)))
    from ase.data import chemical_symbols

    rms = float(np.sqrt(np.mean(frames.forces**2))) if frames.n_frames else 0.0
    return {
        "name": release.name,
        "version": data.seq,
        "level_of_theory": dict(release.level.spec),
        "level_id": release.level.level_id,
        "frames": frames.n_frames,
        "free_atoms": int(is_atom.sum()),
        "retracted": release.n_retracted,
        "arms": {str(arm): int(n) for arm in ARMS if (n := data.is_arm(arm).sum())},
        "systems": {name: int(n) for i, name in enumerate(data.systems) if (n := (frames.system == i).sum())},
        "elements": [chemical_symbols[z] for z in np.unique(data.numbers).tolist()],
        "formulas": formulas,
        "atoms_per_frame": [int(frames.n_atoms.min()), int(frames.n_atoms.max())] if frames.n_frames else [],
        "periodic_frames": int(frames.pbc.any(axis=1).sum()),
        "charges_and_multiplicities": [list(state) for state in states],
        "frames_with_stress": int(np.isfinite(frames.stress).all(axis=(1, 2)).sum()),
        "masked_atoms": int((~frames.mask).sum()),
        "rms_force": rms,
        "largest_force": float(np.abs(frames.forces).max()) if frames.n_frames else 0.0,
        "units": {"energy": "eV", "forces": "eV/Angstrom", "positions": "Angstrom", "stress": "eV/Angstrom^3"},
        "terms": [
            {"of": t.of, "frames": t.n_frames, "licence": t.licence, "source": t.source, "citation": t.citation}
            for t in release.terms
        ],
        "written_by": f"alsys {__version__}",
    }


def card_text(card: Mapping[str, object]) -> str:
    """A card in Markdown, as it is read on the usual places for data sets."""
    name, formulas = card["name"], card["formulas"]
    assert isinstance(formulas, dict)
    shown = dict(list(formulas.items())[:MAX_FORMULAS])
    more = f", and {len(formulas) - len(shown)} more" if len(formulas) > len(shown) else ""
    lines = [
        f"# Data set {name}, version {card['version']}",
        "",
        f"Energies and forces at {_pairs(card['level_of_theory'])} (level {card['level_id']}).",
        f"Written by {card['written_by']}; units are those of ASE: eV, eV/Angstrom, Angstrom.",
        "",
        "| | |",
        "|---|---|",
        f"| frames | {card['frames']}, and {card['free_atoms']} free atoms |",
        f"| by arm | {_pairs(card['arms'])} |",
        f"| by system | {_pairs(card['systems'])} |",
        f"| by formula | {_pairs(shown)}{more} |",
        f"| elements | {_listed(card['elements'])} |",
        f"| atoms per frame | {_listed(card['atoms_per_frame'], ' to ')} |",
        f"| periodic frames | {card['periodic_frames']} |",
        f"| charge, multiplicity | {_listed(card['charges_and_multiplicities'], '; ')} |",
        f"| frames with stress | {card['frames_with_stress']} |",
        f"| atoms not to be learned from | {card['masked_atoms']} |",
        f"| force, root mean square and largest | {card['rms_force']:.3g}, {card['largest_force']:.3g} eV/Angstrom |",
        f"| retracted frames, left out | {card['retracted']} |",
        "",
        "Arm `random` was taken at random from what the explorers visit and never trained on: it is the test set.",
        "",
    ]
    if "parts" in card:
        lines += [f"Files: {_pairs(card['parts'])} frames ({card['format']}, keys of {card['keys']}).", ""]
    lines += ["## Terms", "", "| frames of | number | licence | source | citation |", "|---|---|---|---|---|"]
    terms = card["terms"]
    assert isinstance(terms, Sequence)
    for t in terms:
        cells = (t["of"], t["frames"], t["licence"] or "not stated", t["source"], t["citation"])
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _pairs(values: object) -> str:
    assert isinstance(values, Mapping)
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _listed(values: object, between: str = ", ") -> str:
    assert isinstance(values, list)
    return between.join(", ".join(map(str, value)) if isinstance(value, list) else str(value) for value in values)
