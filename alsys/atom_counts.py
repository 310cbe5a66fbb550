"""Whether the counts of atoms in an XYZ file can be true: ASE's reader believes them.

A count of billions is a loop of billions for that reader, whatever the file holds. Here a file is read no further than
its end, without keeping any of it.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

from alsys.errors import InputError


def check_counts(path: Path) -> None:
    """Refuses a file that ends within a frame; what else is wrong with it is left to whoever reads it.

    Args:
        path: An XYZ or extended XYZ file.

    Raises:
        InputError: Names the frame (the first is 0) and its count.
        OSError: The file cannot be read.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        i, line = 0, file.readline()
        while line.strip():
            try:
                n = int(line)
            except ValueError:
                return
            file.readline()
            found = sum(1 for _ in islice(file, max(0, min(n, sys.maxsize))))
            if found < n:
                raise cut_off(i, n, found)
            line = file.readline()
            while line.lstrip().startswith("VEC"):  # cell vectors, which ASE reads as part of the frame
                line = file.readline()
            i += 1


def cut_off(frame: int, n_atoms: int, found: int) -> InputError:
    """The error of a file that ends within a frame.

    Args:
        frame: Which, from 0 on.
        n_atoms: That it says it has.
        found: Lines of atoms that are there.
    """
    return InputError(
        f"is cut off: the file ends after {found} of its atoms",
        field=f"frame {frame}",
        value=f"{n_atoms} atoms",
        remedy="correct the number of atoms, or give the whole file",
    )
