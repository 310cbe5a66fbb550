"""Converged SCFs kept for later ones: a bounded memory, and optionally a folder that labelers share.

In memory each state keeps `MAX_SOLUTIONS`; of a full state the older one of the two most similar goes. In the folder
one file holds one solution (npz without pickle), written under another name first and then renamed; the oldest files go
when there are too many, or too many bytes. Files only save time: one that is missing, broken or foreign is ignored, and
so is a folder that cannot be written.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from alsys.files import UNFINISHED, replacing
from alsys.frames import FloatArray, Frame

MAX_SOLUTIONS: Final = 100
"""Solutions of one state in memory."""
MAX_FILES: Final = 400
MAX_BYTES: Final = 256 * 2**20
SUFFIX: Final = ".npz"


@dataclass(frozen=True, slots=True)
class Solution:
    """A converged SCF.

    Attributes:
        frame_id: Identity of its frame.
        positions: ``(n_atoms, 3)``, Angstrom.
        fock: ``(n_spins, nao, nao)``, Hartree: the orthogonalised Fock matrix less that of superposed atoms.
    """

    frame_id: str
    positions: FloatArray
    fock: NDArray[np.float32]


def state_key(level_id: str, frame: Frame, n_spins: int) -> str:
    """Digest of what two SCFs must share to learn from each other: 32 hexadecimal characters."""
    digest = hashlib.blake2b(digest_size=16, person=b"alsys-solution-1")
    digest.update(bytes.fromhex(level_id))
    digest.update(np.asarray([frame.charge, frame.multiplicity, n_spins], dtype="<i8").tobytes())
    digest.update(frame.numbers.astype("<i4").tobytes())
    return digest.hexdigest()


class SolutionStore:
    """Solutions by state.

    Args:
        folder: Where other processes find them too; None for memory only.
        max_solutions: Bound of each state in memory.
        max_files: Bound of the folder.
        max_bytes: Bound of the folder.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        max_solutions: int = MAX_SOLUTIONS,
        max_files: int = MAX_FILES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._folder = folder
        self._max_solutions = max_solutions
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._states: dict[str, list[Solution]] = {}
        self._seen: set[str] = set()

    def of(self, key: str) -> list[Solution]:
        """Solutions of a state, the oldest first; looks for new files of other processes."""
        for path in [] if self._folder is None else _files(self._folder, SUFFIX):
            if path.name.startswith(f"{key}-") and path.name not in self._seen:
                self._seen.add(path.name)
                solution = _read(path)
                if solution is not None:
                    self._remember(key, solution)
        return list(self._states.get(key, ()))

    def add(self, key: str, solution: Solution) -> None:
        """Remembers a solution, here and in the folder."""
        name = f"{key}-{solution.frame_id}{SUFFIX}"
        self._seen.add(name)
        self._remember(key, solution)
        if self._folder is not None:
            try:
                self._write(self._folder, name, solution)
                prune(self._folder, self._max_files, self._max_bytes)
            except OSError:  # full or read-only: labels go on without the folder
                self._folder = None

    def _remember(self, key: str, solution: Solution) -> None:
        kept = self._states.setdefault(key, [])
        if any(s.frame_id == solution.frame_id for s in kept):
            return
        if kept and (kept[0].fock.shape, kept[0].positions.shape) != (solution.fock.shape, solution.positions.shape):
            return
        kept.append(solution)
        if len(kept) > self._max_solutions:
            del kept[_most_redundant([s.positions for s in kept])]

    def _write(self, folder: Path, name: str, solution: Solution) -> None:
        folder.mkdir(exist_ok=True)  # on a machine without the campaign's directory there is none to share
        with replacing(folder / name, is_durable=False) as unfinished, unfinished.open("wb") as file:
            np.savez(file, positions=solution.positions, fock=solution.fock)


def solutions_of(folder: Path, frame_ids: Collection[str]) -> list[Path]:
    """Files of the solutions of some frames."""
    endings = tuple(f"-{frame_id}{SUFFIX}" for frame_id in frame_ids)
    return _files(folder, *endings) if endings else []


def prune(folder: Path, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
    """Removes the oldest files of a folder where there are too many, or too many bytes."""
    found: list[tuple[float, int, Path]] = []
    for path in _files(folder, SUFFIX, UNFINISHED):
        try:
            status = path.stat()
        except FileNotFoundError:  # another labeler pruned it
            continue
        found.append((status.st_mtime, status.st_size, path))
    found.sort(reverse=True)
    total = 0
    for rank, (_, size, path) in enumerate(found):
        total += size
        if rank >= max_files or total > max_bytes:
            path.unlink(missing_ok=True)


def _files(folder: Path, *endings: str) -> list[Path]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError:
        return []
    return [folder / name for name in names if name.endswith(endings)]


def _read(path: Path) -> Solution | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:  # np.load leaves broken files open
            positions, fock = content["positions"], content["fock"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    is_sound = positions.ndim == 2 and positions.shape[1:] == (3,) and positions.dtype == np.float64
    is_sound = is_sound and fock.ndim == 3 and fock.shape[1] == fock.shape[2] and fock.dtype == np.float32
    if not (is_sound and np.isfinite(positions).all() and np.isfinite(fock).all()):
        return None
    return Solution(path.stem.rpartition("-")[2], positions, fock)


def _most_redundant(positions: list[FloatArray]) -> int:
    """Index of the older one of the two frames whose inverse distances are most alike."""
    upper = np.triu_indices(len(positions[0]), 1)
    features = np.array([1.0 / np.linalg.norm(p[:, None] - p[None], axis=-1)[upper] for p in positions])
    squares = (features**2).sum(axis=1)
    apart = squares[:, None] + squares[None] - 2.0 * features @ features.T
    apart[np.tril_indices(len(apart))] = np.inf
    return int(np.unravel_index(np.argmin(apart), apart.shape)[0])
