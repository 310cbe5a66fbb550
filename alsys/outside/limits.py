"""What reading a file may cost: memory, processor time and silence, in proportion to its size.

Limits are on the work and not on its kind: a damaged file of 1 kB costs no more than a sound one of 1 kB might.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Limits of one reading process.

    Attributes:
        memory_mb: Private memory (heap, stacks, copies), MB of 2**20 bytes, with the interpreter's own 150 or so.
        cpu_s: Processor time, s.
        silence_s: Time on the monotonic clock without any result, s. Generous: a busy machine is no fault of a file.
    """

    memory_mb: int
    cpu_s: int
    silence_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of a kind of reader, by the size of what it reads.

    Attributes:
        memory_mb: For an empty file, MB.
        memory_times: MB for each MB of a file.
        cpu_s: For an empty file, s.
        cpu_s_per_mb: s for each MB of a file.
    """

    memory_mb: int
    memory_times: float
    cpu_s: int
    cpu_s_per_mb: float

    def for_(self, path: Path) -> ReadLimits:
        """Limits for a file, or for all files in a folder."""
        size = _size_mb(path)
        return ReadLimits(int(self.memory_mb + self.memory_times * size), int(self.cpu_s + self.cpu_s_per_mb * size))


STRUCTURE: Final = Budget(memory_mb=768, memory_times=50, cpu_s=4, cpu_s_per_mb=10)
"""Files of one or some structures. ASE keeps about 30 times the size of a text in memory."""
DATA_SET: Final = Budget(memory_mb=768, memory_times=12, cpu_s=4, cpu_s_per_mb=4)
"""Data sets, read as a stream (JSON as a whole). The slowest reader takes 0.3 s a MB."""


def _size_mb(path: Path) -> float:
    try:
        if path.is_dir():
            n_bytes = sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
        else:
            n_bytes = os.stat(path).st_size
    except (OSError, ValueError):
        n_bytes = 0  # said by whoever opens it
    return n_bytes / 2**20
