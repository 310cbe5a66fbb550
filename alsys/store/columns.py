"""Stores made of columns: everything that the Zarr store and its in-memory twin have in common.

`ColumnReader` turns committed columns into frames, labels, events and snapshots. `ColumnWriter` stages records, gives
each its row, and commits all that is staged as one group: columns first, then HEAD. A backend only reads, writes and
syncs rows. If a commit fails, what it took is kept and written again, at the same rows, by the next one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from alsys.errors import Fenced, InputError, StoreCorrupt
from alsys.events import Event, LabelAccepted, decode, encode
from alsys.frames import ARMS, Candidate, Frame, Source
from alsys.labels import Label, LabelCost, LevelOfTheory, label_id_of
from alsys.store.base import Head, Snapshot, VerifyReport
from alsys.store.schema import ALL_ARRAYS, ARRAYS, AXES, COMMITS, HOST_BYTES

Array = NDArray[Any]
MAX_PROBLEMS = 20


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

    def close(self, head: Head | None) -> None:
        """Releases everything; with `head`, first cuts every array to its committed length."""
        ...


class ColumnReader:
    """Reads what was committed up to one HEAD."""

    def __init__(self, backend: Backend, head: Head) -> None:
        self._backend = backend
        self._head = head

    @property
    def head(self) -> Head:
        """The HEAD this reader is pinned to."""
        return self._head

    def close(self) -> None:
        """Releases files."""
        self._backend.close(None)

    def events(self, start: int = 0) -> list[Event]:
        """Committed events from index `start` on."""
        return [decode(line) for line in self._texts("events", self._head.lengths, start)]

    def levels(self) -> tuple[LevelOfTheory, ...]:
        """Levels of theory, in the order they came."""
        return tuple(LevelOfTheory(json.loads(text)) for text in self._texts("levels", self._head.lengths))

    def candidates(self, frame_ids: Sequence[str]) -> list[Candidate]:
        """Frames and their sources."""
        if not frame_ids:
            return []
        lengths = self._head.lengths
        row_of = self._row_of_frame()
        rows = np.array([row_of[frame_id] for frame_id in frame_ids], dtype=np.int64)
        if rows.max(initial=-1) >= lengths["frames"]:
            raise KeyError("a frame is staged but not committed")
        columns = {
            name: self._column(f"frames/{name}", lengths)
            for name in ("n_atoms", "charge", "multiplicity", "cell", "pbc", "arm", "system", "method", "trajectory",
                         "model_version", "step", "deviation", "temperature")
        }  # fmt: skip
        names = [text.decode() for text in self._texts("names", lengths)]
        ends = np.cumsum(columns["n_atoms"], dtype=np.int64)
        result = []
        for row in rows:
            start, stop = int(ends[row] - columns["n_atoms"][row]), int(ends[row])
            frame = Frame(
                numbers=self._backend.read("atoms/numbers", start, stop),
                positions=self._backend.read("atoms/positions", start, stop),
                cell=columns["cell"][row],
                pbc=columns["pbc"][row].astype(np.bool_),
                charge=int(columns["charge"][row]),
                multiplicity=int(columns["multiplicity"][row]),
            )
            source = Source(
                system=names[columns["system"][row]],
                arm=ARMS[columns["arm"][row]],
                method=names[columns["method"][row]],
                trajectory=int(columns["trajectory"][row]),
                model_version=int(columns["model_version"][row]),
                step=int(columns["step"][row]),
                deviation=float(columns["deviation"][row]),
                temperature=float(columns["temperature"][row]),
            )
            result.append(Candidate(frame, source))
        return result

    def labels(self, frame_ids: Sequence[str], level_id: str) -> list[Label | None]:
        """Labels of frames at one level; None where there is none."""
        lengths = self._head.lengths
        if not frame_ids or not lengths["labels"]:
            return [None] * len(frame_ids)
        row_of = {label_id: i for i, label_id in enumerate(_hex(self._column("labels/label_id", lengths)))}
        n_atoms = self._column("frames/n_atoms", lengths)[self._column("labels/frame", lengths)]
        ends = np.cumsum(n_atoms, dtype=np.int64)
        labels: list[Label | None] = []
        for frame_id in frame_ids:
            row = row_of.get(label_id_of(frame_id, level_id))
            labels.append(None if row is None else self._label(frame_id, level_id, row, ends, n_atoms))
        return labels

    def _label(self, frame_id: str, level_id: str, row: int, ends: Array, n_atoms: Array) -> Label:
        def value(name: str) -> Any:
            return self._backend.read(f"labels/{name}", row, row + 1)[0]

        cost = LabelCost(
            wall_s=float(value("wall_s")),
            cpu_s=float(value("cpu_s")),
            scf_cycles=int(value("scf_cycles")),
            rescue_rung=int(value("rescue_rung")),
            host=value("host").tobytes().rstrip(b"\0").decode(errors="replace"),
        )
        forces = self._backend.read("labels/forces", int(ends[row] - n_atoms[row]), int(ends[row]))
        return Label(frame_id, level_id, float(value("energy")), forces, cost)

    def lengths_at(self, seq: int | None) -> Mapping[str, int]:
        """Committed lengths of a dataset version.

        Raises:
            InputError: No such version.
        """
        if seq is None or seq == self._head.seq:
            return self._head.lengths
        if not 0 <= seq <= self._head.seq:
            raise InputError(
                "no such dataset version", field="seq", value=seq, remedy=f"versions run from 0 to {self._head.seq}"
            )
        if seq == 0:
            return dict.fromkeys(AXES, 0)
        row = self._backend.read(COMMITS.path, seq - 1, seq)[0]
        return {axis: int(n) for axis, n in zip(AXES, row, strict=True)}

    def snapshot(self, level_id: str, seq: int | None = None) -> Snapshot:
        """Labelled frames of a dataset version at one level."""
        head = self._head
        lengths = self.lengths_at(seq)
        level_ids = _hex(self._column("levels/level_id", lengths))
        wanted = level_ids.index(level_id) if level_id in level_ids else -1
        frame_of = self._column("labels/frame", lengths)
        n_atoms = self._column("frames/n_atoms", lengths).astype(np.int64)
        keep = np.flatnonzero(self._column("labels/level", lengths) == wanted)
        rows = frame_of[keep]
        atoms = _ragged(np.cumsum(n_atoms) - n_atoms, n_atoms, rows)
        label_atoms_of = n_atoms[frame_of]
        label_atoms = _ragged(np.cumsum(label_atoms_of) - label_atoms_of, label_atoms_of, keep)
        names = tuple(text.decode() for text in self._texts("names", lengths))

        def frames(name: str) -> Array:
            return self._column(f"frames/{name}", lengths)[rows]

        return Snapshot(
            seq=head.seq if seq is None else seq,
            systems=names,
            frame_ids=tuple(_hex(frames("frame_id"))),
            n_atoms=n_atoms[rows],
            numbers=self._column("atoms/numbers", lengths)[atoms],
            positions=self._column("atoms/positions", lengths)[atoms],
            cell=frames("cell"),
            pbc=frames("pbc").astype(np.bool_),
            charge=frames("charge"),
            multiplicity=frames("multiplicity"),
            energy=self._column("labels/energy", lengths)[keep],
            forces=self._column("labels/forces", lengths)[label_atoms],
            arm=frames("arm"),
            system=frames("system"),
            trajectory=frames("trajectory"),
            model_version=frames("model_version"),
            deviation=frames("deviation"),
        )

    def verify(self) -> VerifyReport:
        """Checks arrays against HEAD, identities against contents, and the log against the arrays."""
        lengths = self._head.lengths
        report = VerifyReport(
            head_seq=self._head.seq,
            n_frames=lengths["frames"],
            n_labels=lengths["labels"],
            n_events=lengths["events"],
        )
        try:
            self._verify(report)
        except (StoreCorrupt, OSError, ValueError, KeyError, IndexError) as error:
            report.problems.append(f"{type(error).__name__}: {error}")
        del report.problems[MAX_PROBLEMS:]
        return report

    def _verify(self, report: VerifyReport) -> None:
        lengths = self._head.lengths
        problems = report.problems
        history = self._backend.read(COMMITS.path, 0, self._head.seq)
        if self._head.seq and (np.diff(history, axis=0) < 0).any():
            problems.append("commits: a length shrinks")
        if self._head.seq and [int(n) for n in history[-1]] != [lengths[axis] for axis in AXES]:
            problems.append("commits: the last row is not HEAD")
        n_atoms = self._column("frames/n_atoms", lengths).astype(np.int64)
        if int(n_atoms.sum()) != lengths["atoms"]:
            problems.append(f"atoms: {lengths['atoms']} rows, frames say {int(n_atoms.sum())}")
        frame_of = self._column("labels/frame", lengths)
        if ((frame_of < 0) | (frame_of >= lengths["frames"])).any():
            problems.append("labels: a label has no frame")
            return
        if int(n_atoms[frame_of].sum()) != lengths["label_atoms"]:
            problems.append("labels: forces do not fit the frames")
        frame_ids = _hex(self._column("frames/frame_id", lengths))
        for frame_id, candidate in zip(frame_ids, self.candidates(frame_ids), strict=True):
            if candidate.frame.frame_id != frame_id:
                problems.append(f"frame {frame_id}: the content has identity {candidate.frame.frame_id}")
        if len(set(frame_ids)) != len(frame_ids):
            problems.append("frames: an identity stands twice")
        level_ids = _hex(self._column("levels/level_id", lengths))
        for level_id, level in zip(level_ids, self.levels(), strict=True):
            if level.level_id != level_id:
                problems.append(f"level {level_id}: the specification has identity {level.level_id}")
        label_ids = _hex(self._column("labels/label_id", lengths))
        levels = self._column("labels/level", lengths)
        for label_id, row, level_row in zip(label_ids, frame_of, levels, strict=True):
            if not 0 <= level_row < len(level_ids) or label_id != label_id_of(frame_ids[row], level_ids[level_row]):
                problems.append(f"label {label_id}: identity does not fit frame and level")
        report.duplicate_labels = len(label_ids) - len(set(label_ids))
        if report.duplicate_labels:
            problems.append(f"labels: {report.duplicate_labels} duplicates")
        if not np.isfinite(self._column("labels/energy", lengths)).all():
            problems.append("labels: an energy is not finite")
        if not np.isfinite(self._column("labels/forces", lengths)).all():
            problems.append("labels: a force is not finite")
        accepted = [event.label_id for event in self.events() if isinstance(event, LabelAccepted)]
        if len(set(accepted)) != len(accepted):
            problems.append("events: a label is accepted twice")
        if set(accepted) != set(label_ids):
            problems.append(f"events: {len(set(accepted) ^ set(label_ids))} labels differ between log and arrays")

    def _row_of_frame(self) -> Mapping[str, int]:
        return {frame_id: i for i, frame_id in enumerate(_hex(self._column("frames/frame_id", self._head.lengths)))}

    def _column(self, path: str, lengths: Mapping[str, int]) -> Array:
        return self._backend.read(path, 0, lengths[_AXIS_OF[path]])

    def _texts(self, group: str, lengths: Mapping[str, int], start: int = 0) -> list[bytes]:
        n = lengths[group]
        if start >= n:
            return []
        ends = self._backend.read(f"{group}/end", max(0, start - 1), n).tolist()
        first = 0 if start == 0 else ends.pop(0)
        text = self._backend.read(f"{group}/bytes", first, ends[-1]).tobytes()
        starts = [first, *ends[:-1]]
        return [text[a - first : b - first] for a, b in zip(starts, ends, strict=True)]


@dataclass(slots=True)
class _Staged:
    events: list[bytes] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    labels: list[tuple[int, int, Label]] = field(default_factory=list)
    levels: list[LevelOfTheory] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.events) + len(self.candidates) + len(self.labels) + len(self.levels) + len(self.names)

    def extend(self, other: _Staged) -> None:
        self.events += other.events
        self.candidates += other.candidates
        self.labels += other.labels
        self.levels += other.levels
        self.names += other.names


class ColumnWriter(ColumnReader):
    """The one writer. See `alsys.store.base.StoreWriter`."""

    def __init__(self, backend: Backend, head: Head) -> None:
        super().__init__(backend, head)
        lengths = head.lengths
        self._lock = threading.Lock()
        self._staged = _Staged()
        self._taken = _Staged()
        self._rows = dict(super()._row_of_frame())
        self._atoms_of_row = self._column("frames/n_atoms", lengths).tolist()
        self._label_ids = set(_hex(self._column("labels/label_id", lengths)))
        self._level_rows = {i: row for row, i in enumerate(_hex(self._column("levels/level_id", lengths)))}
        self._levels = list(super().levels())
        self._names = {text.decode(): i for i, text in enumerate(self._texts("names", lengths))}
        self._is_closed = False

    @property
    def epoch(self) -> int:
        """This writer's epoch."""
        return self._head.epoch

    @property
    def n_staged(self) -> int:
        """Records staged and not yet durable."""
        return len(self._staged) + len(self._taken)

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
        """Takes records for the next commit, all of them or, where one is refused, none."""
        encoded = [encode(event) for event in events]
        new = _Staged(events=encoded)
        fresh_levels = {level.level_id for level in levels}
        fresh_frames = {candidate.frame.frame_id for candidate in candidates}
        for label in labels:
            if label.frame_id not in self._rows and label.frame_id not in fresh_frames:
                raise KeyError(f"label of frame {label.frame_id}, which is not in the store")
            if label.level_id not in self._level_rows and label.level_id not in fresh_levels:
                raise KeyError(f"label at level {label.level_id}, which is not in the store")
        with self._lock:
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
                for name in (candidate.source.system, candidate.source.method):
                    if name not in self._names:
                        self._names[name] = len(self._names)
                        new.names.append(name.encode())
                new.candidates.append(candidate)
            for label in labels:
                if label.label_id not in self._label_ids:
                    row = self._rows[label.frame_id]
                    if label.forces.shape != (self._atoms_of_row[row], 3):
                        raise ValueError(f"forces of shape {label.forces.shape} for {self._atoms_of_row[row]} atoms")
                    self._label_ids.add(label.label_id)
                    new.labels.append((row, self._level_rows[label.level_id], label))
            self._staged.extend(new)

    def commit(self) -> Head:
        """Writes everything staged, columns first, HEAD last; durable when it returns."""
        with self._lock:
            self._taken.extend(self._staged)
            self._staged = _Staged()
        if not len(self._taken):
            return self._head
        lengths = dict(self._head.lengths)
        for path, rows in self._encode(lengths).items():
            axis = _AXIS_OF[path]
            self._backend.write(path, self._head.lengths[axis], rows)
            lengths[axis] = self._head.lengths[axis] + len(rows)
        head = Head(self._head.seq + 1, self._head.epoch, lengths)
        history = np.array([[lengths[axis] for axis in AXES]], dtype=COMMITS.dtype)
        self._backend.write(COMMITS.path, self._head.seq, history)
        self._backend.sync()
        current = self._backend.read_head()
        if current.epoch > self._head.epoch:
            raise Fenced(f"another writer (epoch {current.epoch}) took over from epoch {self._head.epoch}")
        self._backend.write_head(head)
        self._head = head
        self._taken = _Staged()
        return head

    def _row_of_frame(self) -> Mapping[str, int]:
        return self._rows

    def _encode(self, lengths: Mapping[str, int]) -> dict[str, Array]:
        taken = self._taken
        columns: dict[str, Array] = {}
        if taken.events:
            columns |= _encode_texts("events", taken.events, lengths)
        if taken.names:
            columns |= _encode_texts("names", taken.names, lengths)
        if taken.levels:
            columns |= _encode_texts("levels", [level.canonical.encode() for level in taken.levels], lengths)
            columns["levels/level_id"] = _unhex(level.level_id for level in taken.levels)
        if taken.candidates:
            columns |= self._encode_frames(taken.candidates)
        if taken.labels:
            columns |= _encode_labels(taken.labels)
        return columns

    def _encode_frames(self, candidates: Sequence[Candidate]) -> dict[str, Array]:
        frames = [c.frame for c in candidates]
        sources = [c.source for c in candidates]
        values: dict[str, Any] = {
            "frames/n_atoms": [f.n_atoms for f in frames],
            "frames/charge": [f.charge for f in frames],
            "frames/multiplicity": [f.multiplicity for f in frames],
            "frames/cell": np.stack([f.cell for f in frames]),
            "frames/pbc": np.stack([f.pbc for f in frames]),
            "frames/frame_id": _unhex(f.frame_id for f in frames),
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
        }
        return {path: np.asarray(value, dtype=_DTYPE_OF[path]) for path, value in values.items()}


def _encode_labels(labels: Sequence[tuple[int, int, Label]]) -> dict[str, Array]:
    costs = [label.cost for _, _, label in labels]
    hosts = b"".join(cost.host.encode()[:HOST_BYTES].ljust(HOST_BYTES, b"\0") for cost in costs)
    values: dict[str, Any] = {
        "labels/frame": [row for row, _, _ in labels],
        "labels/label_id": _unhex(label.label_id for _, _, label in labels),
        "labels/level": [level for _, level, _ in labels],
        "labels/energy": [label.energy for _, _, label in labels],
        "labels/wall_s": [cost.wall_s for cost in costs],
        "labels/cpu_s": [cost.cpu_s for cost in costs],
        "labels/scf_cycles": [cost.scf_cycles for cost in costs],
        "labels/rescue_rung": [cost.rescue_rung for cost in costs],
        "labels/host": np.frombuffer(hosts, dtype=np.uint8).reshape(len(costs), HOST_BYTES),
        "labels/forces": np.concatenate([label.forces for _, _, label in labels]),
    }
    return {path: np.asarray(value, dtype=_DTYPE_OF[path]) for path, value in values.items()}


def _encode_texts(group: str, texts: Sequence[bytes], lengths: Mapping[str, int]) -> dict[str, Array]:
    bytes_path = f"{group}/bytes"
    start = lengths[_AXIS_OF[bytes_path]]
    ends = start + np.cumsum([len(text) for text in texts])
    return {f"{group}/end": ends.astype("<i8"), bytes_path: np.frombuffer(b"".join(texts), dtype=np.uint8)}


def _hex(ids: Array) -> list[str]:
    text = ids.tobytes().hex()
    width = 2 * ids.shape[1]
    return [text[i : i + width] for i in range(0, len(text), width)]


def _unhex(ids: Iterable[str]) -> Array:
    return np.frombuffer(bytes.fromhex("".join(ids)), dtype=np.uint8).reshape(-1, 16)


def _ragged(starts: Array, counts: Array, rows: Array) -> Array:
    """Indices of all elements of the ragged `rows`, in their order."""
    chosen = counts[rows]
    total = int(chosen.sum())
    offsets = np.repeat(starts[rows] - (np.cumsum(chosen) - chosen), chosen)
    return offsets + np.arange(total)


_AXIS_OF = {spec.path: spec.axis for spec in ALL_ARRAYS}
_DTYPE_OF = {spec.path: spec.dtype for spec in ARRAYS}
