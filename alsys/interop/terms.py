"""Licence, source and citation of labelled frames, as they go along with every export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

KEY: Final = "data_terms"
"""Under which they stand in files; an import leaves it out, and takes terms from the user."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Of some frames.

    Attributes:
        of: Whose frames these are: the campaign, or a file that was imported.
        n_frames: How many.
        licence: An SPDX identifier, or a sentence; empty for unknown.
        source: Where they can be had; empty for nothing to say.
        citation: What to cite; empty for nothing to say.
    """

    of: str
    n_frames: int
    licence: str = ""
    source: str = ""
    citation: str = ""

    @property
    def is_silent(self) -> bool:
        """Whether nothing is known."""
        return not (self.licence or self.source or self.citation)

    @property
    def text(self) -> str:
        """One line."""
        parts = {"licence": self.licence or "not stated", "source": self.source, "citation": self.citation}
        said = "; ".join(f"{name}: {value}" for name, value in parts.items() if value)
        return f"{self.n_frames} frames of {self.of}: {said}"


def text_of(terms: Sequence[Terms]) -> str:
    """Terms of all frames of a file in one line; empty where nothing is known of any of them."""
    return "" if all(one.is_silent for one in terms) else " | ".join(one.text for one in terms)
