"""Files of alsys stay small enough to be read at once."""

from __future__ import annotations

from pathlib import Path

import alsys

LONGEST = 450


def test_no_file_is_longer_than_450_lines() -> None:
    root = Path(alsys.__file__).parent
    lengths = {str(path.relative_to(root)): path.read_bytes().count(b"\n") for path in root.rglob("*.py")}
    assert len(lengths) > 300
    assert {name: n for name, n in lengths.items() if n > LONGEST} == {}
