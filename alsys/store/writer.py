"""The writer that all stores share: it stages records, gives each its row, and commits them in groups.

`stage` runs in one thread, `commit` in another; what they share is swapped under a lock. A group is written columns
first, HEAD last. If that fails, the same group is written again, to the same rows and under the same sequence number,
before anything newer: whether the failed attempt reached the disk or not, a dataset version never changes. `append`
writes a group beyond HEAD, so that a version may be larger than memory and is there as a whole or not at all.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from alsys.events import Event, encode
from alsys.frames import ARMS, Arm, Candidate
from alsys.labels import Label, LevelOfTheory, label_id_of
from alsys.store.base import Head
from alsys.store.columns import Backend, ColumnReader
from alsys.store.encoding import AXIS_OF, DTYPE_OF, NO_STRESS, Array, crc_of, encode_texts, from_hex, host_bytes, to_hex
from alsys.store.schema import AXES, COMMITS, HOST_BYTES

NO_CHARGES = np.zeros((0, 3))


@dataclass(slots=True)
class _Group:
    events: list[bytes] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    labels: list[tuple[int, int, Label]] = field(default_factory=list)
    levels: list[LevelOfTheory] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.events) + len(self.candidates) + len(self.labels) + len(self.levels) + len(self.names)

    def extend(self, other: _Group) -> None:
        self.events += other.events
        self.candidates += other.candidates
        self.labels += other.labels
        self.levels += other.levels
        self.names += other.names


class ColumnWriter(ColumnReader):
    """The one writer. See `alsys.store.base.StoreWriter`."""

    def __init__(self, backend: Backend, head: Head) -> None:
        super().__init__(backend, head)
        self._lock = threading.Lock()
        self._staged = _Group()
        self._failed = _Group()
        self._rows = dict(super()._row_of_frame())
        self._atoms_of_row: list[int] = self.atoms_of_frames(head.lengths).tolist()
        self._arm_of_row: list[int] = self._codes("frames/arm", head.lengths, len(ARMS)).tolist()
        self._label_ids = set(to_hex(self.column("labels/label_id")))
        self._level_rows = {i: row for row, i in enumerate(to_hex(self.column("levels/level_id")))}
        self._levels = list(super().levels())
        self._names = {name: i for i, name in enumerate(self.names_at(head.lengths))}
        self._is_closed = False
        self._written = dict(head.lengths)  # beyond HEAD where something was appended and is not committed

    @property
    def epoch(self) -> int:
        """This writer's epoch."""
        return self._head.epoch

    @property
    def n_staged(self) -> int:
        """Records that wait for a commit, those of a failed commit included."""
        with self._lock:
            return len(self._staged) + len(self._failed)

    @property
    def waits_for(self) -> str:
        """Empty: what is committed is where it shall be."""
        return ""

    def levels(self) -> tuple[LevelOfTheory, ...]:
        """Levels of theory, staged ones included."""
        return tuple(self._levels)

    def close(self) -> None:
        """Cuts the arrays to their committed lengths and releases the lock. What is only staged is dropped."""
        if not self._is_closed:
            self._is_closed = True
            self._backend.close(self._head)

    def stage(
        self,
        events: Sequence[Event] = (),
        candidates: Sequence[Candidate] = (),
        labels: Sequence[Label] = (),
        levels: Sequence[LevelOfTheory] = (),
    ) -> None:
        """Takes records for the next commit, all of them or, where one is refused, none.

        Raises:
            KeyError: A label's frame or level is neither stored nor staged.
            TypeError: An event is transient.
            ValueError: A label or a mask does not fit its frame, or a label is not finite.
        """
        new = _Group(events=[encode(event) for event in events])
        for candidate in candidates:
            if candidate.mask is not None and candidate.mask.shape != (candidate.frame.n_atoms,):
                raise ValueError(f"mask of shape {candidate.mask.shape} for {candidate.frame.n_atoms} atoms")
        self._check_labels(labels, candidates, levels)
        for level in levels:
            if level.level_id not in self._level_rows:
                self._level_rows[level.level_id] = len(self._level_rows)
                self._levels.append(level)
                new.levels.append(level)
        for candidate in candidates:
            frame = candidate.frame
            if frame.frame_id in self._rows:
                continue
            self._rows[frame.frame_id] = len(self._rows)
            self._atoms_of_row.append(frame.n_atoms)
            self._arm_of_row.append(ARMS.index(candidate.source.arm))
            for name in (candidate.source.system, candidate.source.method):
                if name not in self._names:
                    self._names[name] = len(self._names)
                    new.names.append(name.encode())
            new.candidates.append(candidate)
        for label in labels:
            label_id = label.label_id
            if label_id not in self._label_ids:
                self._label_ids.add(label_id)
                new.labels.append((self._rows[label.frame_id], self._level_rows[label.level_id], label))
        with self._lock:
            self._staged.extend(new)

    def commit(self) -> Head:
        """Writes everything staged, columns first, HEAD last; durable when it returns."""
        with self._lock:
            groups = [self._failed, self._staged]
            self._failed, self._staged = _Group(), _Group()
        if not any(map(len, groups)) and self._written != self._head.lengths:
            self._head = self._write(_Group())
        while groups:
            if len(groups[0]):
                try:
                    self._head = self._write(groups[0])
                except BaseException:
                    self._put_back(groups)
                    raise
            del groups[0]
        return self._head

    def check_owner(self) -> None:
        """Raises `Fenced` where the store is no longer this writer's."""
        self._backend.check_owner(self._head)

    def arm_of(self, frame_id: str) -> Arm | None:
        """Arm of a frame that is stored or staged; None for others."""
        row = self._rows.get(frame_id)
        return None if row is None else ARMS[self._arm_of_row[row]]

    def is_labelled(self, frame_id: str, level_id: str) -> bool:
        """Whether a label is stored or staged, retracted ones included."""
        return label_id_of(frame_id, level_id) in self._label_ids

    def append(self) -> Mapping[str, int]:
        """Writes everything staged beyond HEAD, where no reader looks before the next commit; returns the lengths."""
        with self._lock:
            groups = [self._failed, self._staged]
            self._failed, self._staged = _Group(), _Group()
        while groups:
            if len(groups[0]):
                try:
                    lengths = self._append(groups[0])
                    self._backend.sync()  # closes the files of full chunks
                    self._written = lengths
                except BaseException:
                    self._put_back(groups)
                    raise
            del groups[0]
        return dict(self._written)

    def _put_back(self, groups: list[_Group]) -> None:
        """The group that failed stays by itself; what came after it goes before what was staged meanwhile."""
        with self._lock:
            self._failed = groups[0]
            for later in groups[1:]:
                later.extend(self._staged)
                self._staged = later

    def _append(self, group: _Group) -> dict[str, int]:
        """Writes the columns of a group behind all that was written; returns the lengths that this leads to."""
        self._backend.check_owner(self._head)  # before the first row: in a store of another's they would hit its own
        lengths = dict(self._written)
        for path, rows in self._encode(group).items():
            axis = AXIS_OF[path]
            self._backend.write(path, self._written[axis], rows)
            lengths[axis] = self._written[axis] + len(rows)
        return lengths

    def _write(self, group: _Group) -> Head:
        lengths = self._append(group)
        history = np.array([[lengths[axis] for axis in AXES]], dtype=COMMITS.dtype)
        self._backend.write(COMMITS.path, self._head.seq, history)
        self._backend.sync()
        self._backend.check_owner(self._head)
        head = replace(self._head, seq=self._head.seq + 1, lengths=lengths)
        self._backend.write_head(head)
        self._written = dict(lengths)
        return head

    def _check_labels(
        self, labels: Sequence[Label], candidates: Sequence[Candidate], levels: Sequence[LevelOfTheory]
    ) -> None:
        if not labels:
            return
        fresh_atoms = {c.frame.frame_id: c.frame.n_atoms for c in candidates}
        fresh_levels = {level.level_id for level in levels}
        for label in labels:
            row = self._rows.get(label.frame_id)
            n_atoms = fresh_atoms.get(label.frame_id) if row is None else self._atoms_of_row[row]
            if n_atoms is None:
                raise KeyError(f"label of frame {label.frame_id}, which is not in the store")
            if label.level_id not in self._level_rows and label.level_id not in fresh_levels:
                raise KeyError(f"label at level {label.level_id}, which is not in the store")
            if label.forces.shape != (n_atoms, 3):
                raise ValueError(f"forces of shape {label.forces.shape} for {n_atoms} atoms")
            if label.stress is not None and label.stress.shape != (3, 3):
                raise ValueError(f"stress of shape {label.stress.shape}")
            if not (math.isfinite(label.energy) and np.isfinite(label.forces).all()):
                raise ValueError(f"label of frame {label.frame_id} is not finite")

    def _row_of_frame(self) -> Mapping[str, int]:
        return self._rows

    def _encode(self, group: _Group) -> dict[str, Array]:
        lengths = self._written
        columns: dict[str, Array] = {}
        if group.events:
            columns |= encode_texts("events", group.events, lengths["event_bytes"])
            columns["events/crc"] = np.array([crc_of(event) for event in group.events], dtype="<u4")
        if group.names:
            columns |= encode_texts("names", group.names, lengths["name_bytes"])
        if group.levels:
            specifications = [level.canonical.encode() for level in group.levels]
            columns |= encode_texts("levels", specifications, lengths["level_bytes"])
            columns["levels/level_id"] = from_hex(level.level_id for level in group.levels)
        if group.candidates:
            columns |= self._encode_frames(group.candidates)
        if group.labels:
            columns |= _encode_labels(group.labels)
        return columns

    def _encode_frames(self, candidates: Sequence[Candidate]) -> dict[str, Array]:
        frames = [c.frame for c in candidates]
        sources = [c.source for c in candidates]
        environments = [f.environment for f in frames if f.environment is not None]
        return _as_columns(
            {
                "frames/n_atoms": [f.n_atoms for f in frames],
                "frames/charge": [f.charge for f in frames],
                "frames/multiplicity": [f.multiplicity for f in frames],
                "frames/cell": np.stack([f.cell for f in frames]),
                "frames/pbc": np.stack([f.pbc for f in frames]),
                "frames/frame_id": from_hex(f.frame_id for f in frames),
                "frames/arm": [ARMS.index(s.arm) for s in sources],
                "frames/system": [self._names[s.system] for s in sources],
                "frames/method": [self._names[s.method] for s in sources],
                "frames/trajectory": [s.trajectory for s in sources],
                "frames/model_version": [s.model_version for s in sources],
                "frames/step": [s.step for s in sources],
                "frames/deviation": [s.deviation for s in sources],
                "frames/temperature": [s.temperature for s in sources],
                "atoms/numbers": np.concatenate([f.numbers for f in frames]),
                "atoms/positions": np.concatenate([f.positions for f in frames]),
                "atoms/mask": np.concatenate([_mask_of(c) for c in candidates]),
                "frames/n_charges": [0 if f.environment is None else f.environment.n_charges for f in frames],
                "charges/positions": np.concatenate([NO_CHARGES, *(e.positions for e in environments)]),
                "charges/values": np.concatenate([NO_CHARGES[:, 0], *(e.values for e in environments)]),
            }
        )


def _encode_labels(labels: Sequence[tuple[int, int, Label]]) -> dict[str, Array]:
    costs = [label.cost for _, _, label in labels]
    hosts = b"".join(host_bytes(cost.host) for cost in costs)
    return _as_columns(
        {
            "labels/frame": [row for row, _, _ in labels],
            "labels/label_id": from_hex(label.label_id for _, _, label in labels),
            "labels/level": [level for _, level, _ in labels],
            "labels/energy": [label.energy for _, _, label in labels],
            "labels/wall_s": [cost.wall_s for cost in costs],
            "labels/cpu_s": [cost.cpu_s for cost in costs],
            "labels/scf_cycles": [cost.scf_cycles for cost in costs],
            "labels/rescue_rung": [cost.rescue_rung for cost in costs],
            "labels/stress": np.stack([NO_STRESS if x.stress is None else x.stress for _, _, x in labels]),
            "labels/gap": [label.diagnostics.gap for _, _, label in labels],
            "labels/spin_excess": [label.diagnostics.spin_excess for _, _, label in labels],
            "labels/host": np.frombuffer(hosts, dtype=np.uint8).reshape(len(costs), HOST_BYTES),
            "labels/forces": np.concatenate([label.forces for _, _, label in labels]),
        }
    )


def _mask_of(candidate: Candidate) -> Array:
    return np.ones(candidate.frame.n_atoms, dtype=np.uint8) if candidate.mask is None else candidate.mask


def _as_columns(values: Mapping[str, Any]) -> dict[str, Array]:
    return {path: np.asarray(value, dtype=DTYPE_OF[path]) for path, value in values.items()}
