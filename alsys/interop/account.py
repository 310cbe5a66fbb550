"""The account of a file: what of it was used, left out or unknown, and which frames were refused.

A reader tells its `FileAccount` the names that it met and every frame that it cannot take. Without an import, a frame
that is refused raises at once; an import collects them, so that it can count them before it gives up, or leave them out
where the user asked for that. What concerns the file as a whole (a choice between two columns, a cut-off end) is raised
always.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from alsys.errors import InputError
from alsys.interop.keys import NONE, ChoiceNeeded, KeyChoice, Meaning, Selection, meaning_of, select, unit_named
from alsys.said import number_of

MAX_LISTED: Final = 100_000
"""Refused frames whose reasons are kept; all are counted."""
_Met = tuple[Selection, tuple[str, str, str], tuple[tuple[str, str], ...], tuple[str, ...]]
_OPTIONS: Final = {"energy": "--energy-key", "forces": "--forces-key", "stress": "--stress-key"}


@dataclass(frozen=True, slots=True)
class RefusedFrame:
    """A frame that was not taken.

    Attributes:
        place: What it is called in its file.
        error: Why.
    """

    place: str
    error: InputError

    @property
    def reason(self) -> str:
        """In one line, without the place."""
        field = (self.error.field or "").removeprefix(self.place).lstrip(": ")
        text = f"{field}: {self.error.message}" if field else self.error.message
        return text if self.error.value is None else f"{text} (got {self.error.value!r})"


class FileAccount:
    """What one file holds, as its reader finds it.

    Args:
        choice: Names that the user chose.
        is_tolerant: Whether refused frames are collected instead of raised.
        charge: Total charge of frames that state none.
        multiplicity: Likewise; None for unknown.

    Attributes:
        choice: As given.
        is_tolerant: As given.
        charge: As given.
        multiplicity: As given.
        refused: The first `MAX_LISTED` refused frames.
        n_refused: How many there are.
        notes: What else is to be said of the file.
    """

    def __init__(
        self,
        choice: KeyChoice | None = None,
        *,
        is_tolerant: bool = False,
        charge: int = 0,
        multiplicity: int | None = None,
    ) -> None:
        self.choice = KeyChoice() if choice is None else choice
        self.is_tolerant = is_tolerant
        self.charge = charge
        self.multiplicity = multiplicity
        self.refused: list[RefusedFrame] = []
        self.n_refused = 0
        self.notes: list[str] = []
        self._met: dict[_Met, list[int]] = {}
        self._last: tuple[_Met, list[int]] | None = None
        self._used: Counter[str] = Counter()
        self._left_out: dict[str, str] = {}
        self._left_out_counts: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._taken: dict[str, tuple[str, str]] = {}
        self._text = ("", "")
        self._n_texts = 0
        self._heads: dict[str, tuple[str, str]] = {}

    def refuse(self, place: str, error: InputError, n: int = 1) -> None:
        """Takes note of a frame that cannot be taken.

        Args:
            place: What it is called in its file.
            error: Why.
            n: How many frames share the reason, from this one on.

        Raises:
            InputError: The account does not collect them, or the whole file is concerned.
        """
        if not self.is_tolerant or isinstance(error, ChoiceNeeded):
            raise error
        self.n_refused += n
        if len(self.refused) < MAX_LISTED:
            self.refused.append(RefusedFrame(place if n == 1 else f"{place} and {n - 1} after it", error))

    def absorb(self, other: FileAccount) -> None:
        """Adds what another account of the same file has noted, in another process."""
        room = MAX_LISTED - len(self.refused)
        self.refused = sorted(self.refused + other.refused[:room], key=lambda one: _natural(one.place))
        self.n_refused += other.n_refused
        for met, count in other._met.items():
            self._met.setdefault(met, [0])[0] += count[0]
        self._used += other._used
        self._left_out = {**other._left_out, **self._left_out}
        self._left_out_counts += other._left_out_counts
        self._unknown += other._unknown
        self._taken = {**other._taken, **self._taken}
        for name, (value, place) in other._heads.items():
            self.meet_head(name, value, place)
        self._text = self._text if self._n_texts else other._text
        self._n_texts += other._n_texts

    def use(self, name: str, n: int = 1) -> None:
        """A name whose values are used."""
        self._used[name] += n

    def leave_out(self, name: str, why: str, n: int = 1) -> None:
        """A name whose values are known, and not used."""
        self._left_out.setdefault(name, why)
        self._left_out_counts[name] += n

    def ignore(self, name: str, n: int = 1, *, is_per_atom: bool = False) -> None:
        """A name that this format does not use: left out where it is known why, else unknown."""
        meaning, why = meaning_of(name, is_per_atom)
        if meaning is Meaning.UNKNOWN:
            self._unknown[name] += n
        else:
            self.leave_out(name, why or "not the one that this format is defined by", n)

    def meet_head(self, name: str, value: Any, place: str) -> None:
        """What a frame calls its level of theory in a training of several.

        Args:
            name: Of the key.
            value: What stands under it.
            place: What the frame is called.

        Raises:
            ChoiceNeeded: Another frame is of another one.
        """
        known, where = self._heads.setdefault(name, (str(value), place))
        if known != str(value):
            raise ChoiceNeeded(
                f"is {known!r} in {where} and {str(value)!r} in {place}: labels of two levels of theory",
                field=name,
                remedy="split the file, and import each part with its own --level",
            )

    def skip_text(self, text: str, place: str) -> None:
        """Free text of a frame that is not read."""
        if not self._n_texts:
            self._text = text[:60], place
        self._n_texts += 1

    def meet(
        self,
        selection: Selection,
        taken: tuple[str, str, str] = ("", "", ""),
        dropped: tuple[tuple[str, str], ...] = (),
        place: str = "",
        structure: tuple[str, ...] = (),
        n: int = 1,
    ) -> None:
        """Frames whose names were selected.

        Args:
            selection: Of its names.
            taken: Names of energy, forces and stress that were taken; empty for none.
            dropped: Further names that were not used, and why.
            place: What the frame is called.
            structure: Names of what makes the structure.
            n: How many frames.

        Raises:
            ChoiceNeeded: Another frame has its energy or forces under another name.
        """
        is_known = self._last is not None and self._last[0][1] == taken
        for what, name in () if is_known else zip(("energy", "forces", "stress"), taken, strict=True):
            if not name:
                continue
            known, where = self._taken.setdefault(what, (name, place))
            if known.lower() != name.lower():
                raise ChoiceNeeded(
                    f"is {name} in {place} and {known} in {where}: frames of two kinds",
                    field=what,
                    remedy=f"choose {_OPTIONS[what]}={name} or {_OPTIONS[what]}={known}, and --skip for the others",
                )
        if self._last is None or not _is_alike(self._last[0], selection, taken, dropped, structure):
            met = (selection, taken, dropped, structure)
            self._last = (met, self._met.setdefault(met, [0]))
        self._last[1][0] += n

    def chosen_among(
        self, what: str, names: Sequence[str], values: Mapping[str, Any], place: str, same: Callable[[Any, Any], bool]
    ) -> str:
        """The one name that holds a label; empty where none does.

        Args:
            what: ``energy``, ``forces`` or ``stress``.
            names: Candidates, the likeliest first.
            values: Of all of them.
            place: What the frame is called.
            same: Whether two values are one.

        Raises:
            ChoiceNeeded: Values differ, and the user has not said which counts.
        """
        if what == "energy":  # not a list of energies of orbitals, states or an ensemble beside it
            names = [name for name in names if number_of(values[name]) is not None] or names
        if not names:
            return ""
        if len(names) == 1:
            return names[0]
        first, *others = names
        differing = [name for name in others if not same(values[first], values[name])]
        if differing:
            listed = " or ".join(f"{_OPTIONS[what]}={name}" for name in (first, *differing))
            more = f", or {_OPTIONS[what]}={NONE} to leave it out" if what == "stress" else ""
            raise ChoiceNeeded(
                f"{' and '.join((first, *differing))} differ: which of them is meant must be said",
                field=f"{place}: {what}",
                remedy=f"give {listed}{more}",
            )
        return first

    def missing(self, what: str, place: str, names: Sequence[str]) -> InputError:
        """The error of a frame without a label."""
        said = getattr(self.choice, what)
        if said:
            return InputError(
                f"there is no {said}",
                field=f"{place}: {what}",
                remedy=f"the frame holds {', '.join(names) or 'nothing'}",
            )
        return InputError(
            "is missing",
            field=f"{place}: {what}",
            remedy=f"the frame holds {', '.join(names)[:200] or 'nothing'}; {_OPTIONS[what]} says which of them it is",
        )

    @property
    def used(self) -> dict[str, int]:
        """Names that were used, with the number of frames."""
        found = Counter(self._used)
        for (s, taken, _, structure), (n,) in self._met.items():
            for name in (
                *structure,
                *(name for name in taken if name),
                *s.charge,
                *s.multiplicity,
                *s.unpaired,
                *s.electrons,
                *s.channels,
                *s.spin,
                *s.other,
            ):
                found[name] += n
        return dict(found)

    @property
    def left_out(self) -> dict[str, tuple[int, str]]:
        """Names that were left out on purpose, with the number of frames and why."""
        counts, why = Counter(self._left_out_counts), dict(self._left_out)
        for (selection, _, dropped, _), (n,) in self._met.items():
            for name, reason in (*selection.left_out, *dropped):
                counts[name] += n
                why.setdefault(name, reason)
        return {name: (n, why[name]) for name, n in counts.items()}

    @property
    def unknown(self) -> dict[str, int]:
        """Names that nobody knows, with the number of frames."""
        found = Counter(self._unknown)
        for (selection, *_), (n,) in self._met.items():
            for name in selection.unknown:
                found[name] += n
        return dict(found)

    @property
    def labels(self) -> dict[str, str]:
        """Under which names ``energy``, ``forces`` and ``stress`` were found."""
        return {what: name for what, (name, _) in self._taken.items()}

    @property
    def units(self) -> tuple[tuple[str, str], ...]:
        """Units that the names of the labels say."""
        named = (unit_named(name.removesuffix(".npy")) for name, _ in self._taken.values())
        return tuple(unit for unit in named if unit)

    def label_from(self, what: str, name: str, place: str = "") -> None:
        """States under which name a format keeps a label."""
        self._taken.setdefault(what, (name, place))

    @property
    def not_read(self) -> str:
        """The first free text that is not read, and in how many frames there is one; empty for none."""
        (text, place), n = self._text, self._n_texts
        return f"{text!r} in {place}{f' and text in {n - 1} others' * (n > 1)}" if n else ""

    def to_json(self) -> dict[str, object]:
        """Names with counts and reasons."""
        return {
            "labels": self.labels,
            "used": self.used,
            "left_out": {name: {"frames": n, "why": why} for name, (n, why) in self.left_out.items()},
            "unknown": self.unknown,
            "not_read": self.not_read,
        }

    @property
    def text(self) -> str:
        """In one line."""
        parts = ["labels: " + ", ".join(f"{what} from {name}" for what, name in self.labels.items())]
        by_reason: dict[str, list[str]] = {}
        for name, (_, why) in self.left_out.items():
            by_reason.setdefault(why, []).append(name)
        if by_reason:
            parts.append("left out: " + ", ".join(f"{', '.join(names)} ({why})" for why, names in by_reason.items()))
        if unknown := self.unknown:
            parts.append("unknown, not used: " + ", ".join(unknown))
        if not_read := self.not_read:
            parts.append(f"not read: {not_read}")
        return "; ".join([*parts, *self.notes])


def _is_alike(
    met: _Met,
    selection: Selection,
    taken: tuple[str, str, str],
    dropped: tuple[tuple[str, str], ...],
    structure: tuple[str, ...],
) -> bool:
    """Whether a frame's names are those of the one before, without looking into its selection."""
    return met[0] is selection and met[1] == taken and met[2] == dropped and met[3] == structure


def _natural(place: str) -> tuple[tuple[bool, int, str], ...]:
    """Numbers within a text by their size."""
    return tuple((part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", place))


def same_numbers(one: Any, other: Any) -> bool:
    """Whether two values, or texts of numbers, are equal to a rounding of the last digits."""
    a, b = (np.asarray(value, dtype=np.float64) for value in (one, other))
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-9, atol=1e-9, equal_nan=True))


def selected(frame_names: Sequence[str], atom_names: Sequence[str], account: FileAccount) -> Selection:
    """Names of a frame under the account's choice."""
    return select(tuple(frame_names), tuple(atom_names), account.choice)
