"""The page on `insist` lists what is asked about, with its bounds."""

from __future__ import annotations

from pathlib import Path

from alsys.config.plausible import USUAL

PAGE = Path(__file__).parents[3] / "docs" / "insist.md"


def test_the_page_lists_every_field_with_its_bounds() -> None:
    rows = [line.split("|")[1:4] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    listed = {field.split("`")[1]: (bounds.strip(), unit.strip()) for field, bounds, unit in rows}
    assert listed == {field: (f"{usual.low:g} to {usual.high:g}", usual.unit) for field, usual in USUAL.items()}
