"""What committed columns mean: `ColumnReader` turns them into frames, labels, events and snapshots.

The Zarr store and its in-memory twin share it; a backend only reads, writes and syncs rows. `alsys.store.writer` holds
the other half.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from alsys.errors import InputError, StoreCorrupt
from alsys.events import LOST_EVENT, Event, LabelRetracted, decode, decode_all
from alsys.frames import ARMS, MAX_ATOMIC_NUMBER, Candidate, Frame, IntArray, PointCharges, Source
from alsys.labels import Label, LevelOfTheory, label_id_of
from alsys.store.base import Head, Snapshot, VerifyReport
from alsys.store.encoding import AXIS_OF, Array, crc_of, decode_texts, ragged_indices, to_hex
from alsys.store.guards import check_codes, check_counts, check_ends
from alsys.store.label_rows import LABEL_COLUMNS, LiveLabels, label_from
from alsys.store.schema import ALL_AXES, AXES, CHARGES, COMMITS

_CANDIDATE_COLUMNS = (
    "charge", "multiplicity", "cell", "pbc", "arm", "system", "method", "trajectory", "model_version", "step",
    "deviation", "temperature",
)  # fmt: skip

EVENTS_AT_ONCE = 8192
"""Events that are read and decoded at once."""

FRAMES_AT_ONCE = 8192
"""Rows that are read at once where single ones are wanted."""

_TOMBSTONE = f'{{"kind":"{LabelRetracted.kind}",'.encode()
"""How the line of a tombstone begins. Quotes inside a text are escaped, so it stands nowhere else."""


class Backend(Protocol):
    """Rows of columns, somewhere."""

    def read(self, path: str, start: int, stop: int) -> Array:
        """Rows of a column."""
        ...

    def write(self, path: str, start: int, rows: Array) -> None:
        """Writes rows; beyond HEAD, so nobody reads them yet."""
        ...

    def sync(self) -> None:
        """Returns when everything written is durable."""
        ...

    def read_head(self) -> Head:
        """The committed HEAD."""
        ...

    def write_head(self, head: Head) -> None:
        """Replaces HEAD, atomically and durably."""
        ...

    def check_owner(self, head: Head) -> None:
        """Raises `Fenced` where the store is no longer that of the writer whose HEAD this is."""
        ...

    def verify(self, reader: ColumnReader) -> VerifyReport:
        """What `reader`, which reads from here, finds wrong."""
        ...

    def close(self, head: Head | None) -> None:
        """Releases everything; with `head`, first cuts every array to its committed length."""
        ...


class Columns(Protocol):
    """What segments are made from and into."""

    def read(self, path: str, start: int, stop: int) -> Array:
        """Rows of a column."""
        ...

    def write(self, path: str, start: int, rows: Array) -> None:
        """Writes rows."""
        ...

    def read_head(self) -> Head:
        """The HEAD that holds."""
        ...

    def write_head(self, head: Head) -> None:
        """Replaces it."""
        ...

    def verify(self, reader: ColumnReader) -> VerifyReport:
        """What is wrong."""
        ...


class ColumnReader:
    """Reads what was committed up to one HEAD. See `alsys.store.base.StoreReader`."""

    def __init__(self, backend: Backend, head: Head) -> None:
        self._backend = backend
        self._head = head
        self._scanned: tuple[int, tuple[tuple[int, LabelRetracted], ...]] = (0, ())

    @property
    def head(self) -> Head:
        """The HEAD this reader is pinned to."""
        return self._head

    def at(self, seq: int) -> ColumnReader:
        """A reader of an older dataset version.

        Raises:
            InputError: No such version.
        """
        return ColumnReader(self._backend, replace(self._head, seq=seq, lengths=self.lengths_at(seq)))

    def close(self) -> None:
        """Releases files."""
        self._backend.close(None)

    def events(self, start: int = 0) -> list[Event]:
        """Committed events from index `start` on."""
        return list(self.iter_events(start))

    def iter_events(self, start: int = 0) -> Iterator[Event]:
        """As `events`, without all of them in memory at once."""
        lengths = self._head.lengths
        ends = check_ends("events/end", self.read("events/end", 0, lengths["events"]), lengths["event_bytes"])
        for first in range(start, lengths["events"], EVENTS_AT_ONCE):
            part = ends[first : first + EVENTS_AT_ONCE]
            begin = int(ends[first - 1]) if first else 0
            lines = decode_texts(part, begin, self.read("events/bytes", begin, int(part[-1])))
            crcs = self.read("events/crc", first, first + len(part))
            kept = np.fromiter(map(crc_of, lines), dtype=np.uint32, count=len(lines))
            if (damaged := np.flatnonzero((crcs != 0) & (crcs != kept))).size:
                raise StoreCorrupt(f"events: event {first + int(damaged[0])} of the log is damaged", LOST_EVENT)
            yield from decode_all(lines)

    def levels(self) -> tuple[LevelOfTheory, ...]:
        """Levels of theory, in the order they came; a blank text is one that `alsys data repair` could not restore."""
        level_ids = to_hex(self.column("levels/level_id"))
        try:
            levels = tuple(
                LevelOfTheory(json.loads(text)) if text.strip() else LevelOfTheory.lost(level_id)
                for text, level_id in zip(self.texts("levels"), level_ids, strict=True)
            )
        except (TypeError, ValueError) as error:
            raise StoreCorrupt(f"levels of theory: {error}") from error
        if [level.level_id for level in levels] != level_ids:
            raise StoreCorrupt("levels of theory: a specification does not fit its identity")
        return levels

    def candidates(self, frame_ids: Sequence[str]) -> list[Candidate]:
        """Frames and their sources, in the order asked for."""
        if not frame_ids:
            return []
        row_of = self._row_of_frame()
        rows = np.array([row_of[frame_id] for frame_id in frame_ids], dtype=np.int64)
        if rows.max() >= self._head.lengths["frames"]:
            raise KeyError("a frame is staged but not committed")
        names = self.names_at(self._head.lengths)
        ends = np.cumsum(self.atoms_of_frames(self._head.lengths))
        environments = self._environments(rows)
        found: dict[int, Candidate] = {}
        order = np.argsort(rows, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(rows[order] // FRAMES_AT_ONCE)) + 1):
            found.update(self._candidates_at(part, rows, ends, names, environments, frame_ids))
        return [found[i] for i in range(len(rows))]

    def _candidates_at(
        self,
        part: Array,
        rows: Array,
        ends: Array,
        names: Sequence[str],
        environments: Sequence[PointCharges | None],
        frame_ids: Sequence[str],
    ) -> Iterator[tuple[int, Candidate]]:
        """Those of the wanted `rows` at the indices `part`, which lie close together."""
        first, last = int(rows[part].min()), int(rows[part].max()) + 1
        inside = rows[part] - first
        columns = {name: self.read(f"frames/{name}", first, last)[inside].tolist() for name in _CANDIDATE_COLUMNS}
        for name, size in (("arm", len(ARMS)), ("system", len(names)), ("method", len(names))):
            check_codes(f"frames/{name}", columns[name], size)
        begin = int(ends[first - 1]) if first else 0
        numbers = self.read("atoms/numbers", begin, int(ends[last - 1]))
        positions = self.read("atoms/positions", begin, int(ends[last - 1]))
        masks = self.read("atoms/mask", begin, int(ends[last - 1])).astype(np.bool_)
        for k, i in enumerate(part.tolist()):
            row = int(rows[i])
            atoms = slice((int(ends[row - 1]) if row else 0) - begin, int(ends[row]) - begin)
            try:
                frame = Frame(
                    numbers=numbers[atoms],
                    positions=positions[atoms],
                    cell=columns["cell"][k],
                    pbc=columns["pbc"][k],
                    charge=columns["charge"][k],
                    multiplicity=columns["multiplicity"][k],
                    environment=environments[i],
                )
            except InputError as error:
                raise StoreCorrupt(f"frame {frame_ids[i]}: {error}") from error
            source = Source(
                system=names[columns["system"][k]],
                arm=ARMS[columns["arm"][k]],
                method=names[columns["method"][k]],
                trajectory=columns["trajectory"][k],
                model_version=columns["model_version"][k],
                step=columns["step"][k],
                deviation=columns["deviation"][k],
                temperature=columns["temperature"][k],
            )
            mask = masks[atoms]
            yield i, Candidate(frame, source, None if mask.all() else mask.copy())

    def labels(self, frame_ids: Sequence[str], level_id: str) -> list[Label | None]:
        """Labels of frames at one level; None where there is none, or it was retracted."""
        if not frame_ids or not self._head.lengths["labels"]:
            return [None] * len(frame_ids)
        row_of = self._rows_of_labels([label_id_of(frame_id, level_id) for frame_id in frame_ids])
        n_atoms = self.atoms_of_labels(self._head.lengths)
        ends = np.cumsum(n_atoms)
        retracted = {tombstone.frame_id for tombstone in self.tombstones()}
        found = [row_of.get(label_id_of(f, level_id), -1) if f not in retracted else -1 for f in frame_ids]
        rows = np.array(found, dtype=np.int64)
        order = np.argsort(rows, kind="stable")[np.count_nonzero(rows < 0) :]
        labels: list[Label | None] = [None] * len(frame_ids)
        for part in np.split(order, np.flatnonzero(np.diff(rows[order] // FRAMES_AT_ONCE)) + 1) if order.size else ():
            first, last = int(rows[part[0]]), int(rows[part[-1]]) + 1
            columns = [self.read(f"labels/{name}", first, last)[rows[part] - first] for name in LABEL_COLUMNS]
            begin = int(ends[first] - n_atoms[first])
            forces = self.read("labels/forces", begin, int(ends[last - 1]))
            for i, values in zip(part.tolist(), zip(*columns, strict=True), strict=True):
                stop = int(ends[rows[i]]) - begin
                atoms = slice(stop - int(n_atoms[rows[i]]), stop)
                labels[i] = label_from(frame_ids[i], level_id, values, forces[atoms].copy())
        return labels

    def lengths_at(self, seq: int | None) -> Mapping[str, int]:
        """Committed lengths of a dataset version.

        Raises:
            InputError: No such version.
        """
        head = self._head  # a commit in another thread may replace it
        if seq is None or seq == head.seq:
            return head.lengths
        if not 0 <= seq <= head.seq:
            raise InputError(
                "no such dataset version", field="seq", value=seq, remedy=f"versions run from 0 to {head.seq}"
            )
        if seq == 0:
            return dict.fromkeys(ALL_AXES, 0)
        row = self.read(COMMITS.path, seq - 1, seq)[0]
        lengths = {axis: int(n) for axis, n in zip(AXES, row, strict=True)}
        if any(not 0 <= n <= head.lengths[axis] for axis, n in lengths.items()):
            raise StoreCorrupt(f"{COMMITS.path}: lengths of version {seq} do not fit HEAD")
        n_charges = self.read("frames/n_charges", 0, lengths["frames"]).astype(np.int64)
        return lengths | {CHARGES: int(check_counts("frames/n_charges", n_charges, 0, head.lengths[CHARGES]).sum())}

    def tombstones(self, seq: int | None = None) -> tuple[LabelRetracted, ...]:
        """What had been retracted in a dataset version, in order. Reads each part of the log once."""
        lengths = self.lengths_at(seq)
        stop = lengths["event_bytes"]
        scanned, found = self._scanned
        if stop > scanned:
            ends = check_ends("events/end", self.read("events/end", 0, lengths["events"]), stop)
            first = int(np.searchsorted(ends, scanned, side="right"))
            for block in range(first, len(ends), EVENTS_AT_ONCE):
                found = (
                    *found,
                    *self._tombstones_in(int(ends[block - 1]) if block else 0, ends[block:][:EVENTS_AT_ONCE]),
                )
            self._scanned = (stop, found)
        return tuple(event for end, event in found if end <= stop)

    def _tombstones_in(self, begin: int, ends: Array) -> list[tuple[int, LabelRetracted]]:
        """Those among the events that end at `ends`, the first of which begins at `begin`; each with its end."""
        content = self.read("events/bytes", begin, int(ends[-1])).tobytes()
        new = []
        place = content.find(_TOMBSTONE)
        while place >= 0:
            end = int(ends[np.searchsorted(ends, begin + place, side="right")])
            event = decode(content[place : end - begin])
            if not isinstance(event, LabelRetracted):
                raise StoreCorrupt(f"events: a line at byte {begin + place} is no tombstone")
            new.append((end, event))
            place = content.find(_TOMBSTONE, end - begin)
        return new

    def live_labels(self, level_id: str, seq: int | None = None) -> LiveLabels:
        """Rows of the labels of a dataset version at one level, retracted ones left out, in the order they came."""
        lengths = self.lengths_at(seq)
        level_ids = to_hex(self.read("levels/level_id", 0, lengths["levels"]))
        level_of = self._codes("labels/level", lengths, len(level_ids))
        frame_of = self._codes("labels/frame", lengths, lengths["frames"])
        n_atoms, n_label_atoms = self.atoms_of_frames(lengths), self.atoms_of_labels(lengths)
        is_live = level_of == (level_ids.index(level_id) if level_id in level_ids else -1)
        if gone := {tombstone.frame_id for tombstone in self.tombstones(seq)}:
            frame_ids = to_hex(self.read("frames/frame_id", 0, lengths["frames"]))
            is_live &= ~np.array([frame_id in gone for frame_id in frame_ids], dtype=np.bool_)[frame_of]
        labels = np.flatnonzero(is_live)
        frames = frame_of[labels].astype(np.int64)
        return LiveLabels(
            labels=labels,
            frames=frames,
            atoms=ragged_indices(np.cumsum(n_atoms) - n_atoms, n_atoms, frames),
            label_atoms=ragged_indices(np.cumsum(n_label_atoms) - n_label_atoms, n_label_atoms, labels),
        )

    def snapshot(self, level_id: str, seq: int | None = None, baseline_id: str | None = None) -> Snapshot:
        """Labelled frames of a dataset version at one level, retracted ones left out, with a baseline beside them."""
        seq = self._head.seq if seq is None else seq
        lengths = self.lengths_at(seq)

        def column(path: str) -> Array:
            return self.read(path, 0, lengths[AXIS_OF[path]])

        n_atoms = self.atoms_of_frames(lengths)
        numbers = column("atoms/numbers")
        if numbers.size and not 1 <= numbers.min() <= numbers.max() <= MAX_ATOMIC_NUMBER:
            raise StoreCorrupt("atoms/numbers: an atomic number is out of range")
        systems = self.names_at(lengths)
        frame_ids = column("frames/frame_id")
        live = self.live_labels(level_id, seq)
        keep, rows, atoms, label_atoms = live.labels, live.frames, live.atoms, live.label_atoms
        energy, forces = column("labels/energy"), column("labels/forces")
        baseline_energy = baseline_forces = None
        if baseline_id is not None:
            beside = self.live_labels(baseline_id, seq)
            place_of = np.full(n_atoms.size, -1, dtype=np.int64)
            place_of[beside.frames] = np.arange(beside.frames.size)
            is_there = place_of[rows] >= 0
            partners = place_of[rows][is_there]
            baseline_energy = np.full(rows.size, np.nan)
            baseline_energy[is_there] = energy[beside.labels[partners]]
            baseline_forces = np.full((atoms.size, 3), np.nan)
            starts = np.cumsum(n_atoms[beside.frames]) - n_atoms[beside.frames]
            baseline_forces[np.repeat(is_there, n_atoms[rows])] = forces[
                beside.label_atoms[ragged_indices(starts, n_atoms[beside.frames], partners)]
            ]
        n_charges = self.charges_of_frames(lengths)
        charges = ragged_indices(np.cumsum(n_charges) - n_charges, n_charges, rows)
        return Snapshot(
            seq=seq,
            systems=systems,
            frame_ids=tuple(to_hex(frame_ids[rows])),
            n_atoms=n_atoms[rows],
            numbers=numbers[atoms],
            positions=column("atoms/positions")[atoms],
            cell=column("frames/cell")[rows],
            pbc=column("frames/pbc")[rows].astype(np.bool_),
            charge=column("frames/charge")[rows],
            multiplicity=column("frames/multiplicity")[rows],
            energy=energy[keep],
            forces=forces[label_atoms],
            stress=column("labels/stress")[keep],
            mask=column("atoms/mask")[atoms].astype(np.bool_),
            arm=self._codes("frames/arm", lengths, len(ARMS))[rows],
            system=self._codes("frames/system", lengths, len(systems))[rows],
            trajectory=column("frames/trajectory")[rows],
            model_version=column("frames/model_version")[rows],
            deviation=column("frames/deviation")[rows],
            baseline_energy=baseline_energy,
            baseline_forces=baseline_forces,
            n_charges=n_charges[rows] if charges.size else None,
            charge_positions=column("charges/positions")[charges] if charges.size else None,
            charge_values=column("charges/values")[charges] if charges.size else None,
        )

    def verify(self) -> VerifyReport:
        """Checks arrays against HEAD, identities against contents, and the log against the arrays."""
        return self._backend.verify(self)

    def read(self, path: str, start: int, stop: int) -> Array:
        """Rows of a column."""
        return self._backend.read(path, start, stop)

    def column(self, path: str) -> Array:
        """All committed rows of a column."""
        return self._backend.read(path, 0, self._head.lengths[AXIS_OF[path]])

    def texts(self, group: str, start: int = 0) -> list[bytes]:
        """Committed texts of a group from index `start` on."""
        return self._texts(group, self._head.lengths, start)

    def _row_of_frame(self) -> Mapping[str, int]:
        return {frame_id: i for i, frame_id in enumerate(to_hex(self.column("frames/frame_id")))}

    def _rows_of_labels(self, label_ids: Sequence[str]) -> Mapping[str, int]:
        """Rows of those of these labels that are there."""
        wanted = {bytes.fromhex(label_id).rstrip(b"\0"): label_id for label_id in label_ids}
        stored = self.column("labels/label_id").reshape(-1).view("S16").tolist()  # without zeros at their end
        return {wanted[key]: row for row, key in enumerate(stored) if key in wanted}

    def _environments(self, rows: Array) -> list[PointCharges | None]:
        """Point charges around the frames at `rows`."""
        n_charges = self.charges_of_frames(self._head.lengths)
        ends = np.cumsum(n_charges)
        found: list[PointCharges | None] = []
        for count, end in zip(n_charges[rows].tolist(), ends[rows].tolist(), strict=True):
            part = (self.read(f"charges/{name}", end - count, end) for name in ("positions", "values"))
            found.append(PointCharges(*part) if count else None)
        return found

    def names_at(self, lengths: Mapping[str, int]) -> tuple[str, ...]:
        """Names of systems and sampling methods."""
        try:
            return tuple(text.decode() for text in self._texts("names", lengths))
        except UnicodeDecodeError as error:
            raise StoreCorrupt(f"names/bytes: {error}") from error

    def _codes(self, path: str, lengths: Mapping[str, int], size: int) -> Array:
        """A column of indices into something of that size."""
        return check_codes(path, self.read(path, 0, lengths[AXIS_OF[path]]), size)

    def atoms_of_frames(self, lengths: Mapping[str, int]) -> IntArray:
        """Checked counts along `atoms` of all frames of a version."""
        counts = self.read("frames/n_atoms", 0, lengths["frames"]).astype(np.int64)
        return check_counts("frames/n_atoms", counts, 1, lengths["atoms"], is_whole=True)

    def atoms_of_labels(self, lengths: Mapping[str, int]) -> IntArray:
        """Checked counts along `label_atoms` of all labels of a version."""
        counts = self.atoms_of_frames(lengths)[self._codes("labels/frame", lengths, lengths["frames"])]
        return check_counts("labels/frame", counts, 1, lengths["label_atoms"], is_whole=True)

    def charges_of_frames(self, lengths: Mapping[str, int]) -> IntArray:
        """Checked counts along `charges` of all frames of a version."""
        counts = self.read("frames/n_charges", 0, lengths["frames"]).astype(np.int64)
        return check_counts("frames/n_charges", counts, 0, lengths[CHARGES], is_whole=True)

    def _texts(self, group: str, lengths: Mapping[str, int], start: int = 0) -> list[bytes]:
        n = lengths[group]
        if start >= n:
            return []
        size = lengths[AXIS_OF[f"{group}/bytes"]]
        ends = check_ends(f"{group}/end", self.read(f"{group}/end", max(0, start - 1), n), size)
        first = int(ends[0]) if start else 0
        ends = ends[1:] if start else ends
        return decode_texts(ends, first, self.read(f"{group}/bytes", first, int(ends[-1])))
