"""Electronic states: total charge and spin multiplicity, and which of them a model can tell apart.

A model that sees elements and positions only gives one energy for water and for its cation, whose labels are 13 eV
apart. So each composition may come in one state among the labels of such a model (`CompositionStates`), and a model
carries which states it has learned (`SeenStates`), so that it is not asked for another one. numpy only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alsys.errors import InputError

MAX_COMPOSITIONS: Final = 1000
"""Compositions of which a model keeps the states; of further ones it knows no more than that they may be new."""

_TABLE: Final = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb "
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au "
    "Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts "
    "Og"
)
_SYMBOLS: Final = _TABLE.split()

_CHARGE = ("charge", "chrg", "chg")
_WHOSE = ("total", "tot", "net", "molecular", "mol", "formal", "pubchem_total", "system", "overall", "smiles", "sys")
_HOW_MANY = ("", "n_", "num_", "number_", "num_of_", "number_of_")
ELECTRON_WORDS: Final[Mapping[str, frozenset[str]]] = {
    "charge": frozenset(
        {
            *_CHARGE,
            "charge_total",
            "charge_state",
            "ion_charge",
            "excess_charge",
            "cell_charge",
            "n_charge",
            "icharg",
            *(f"{whose}_q" for whose in ("total", "tot", "net")),
            "q_tot",
            "q_total",
            *(f"{whose}_{word}" for whose in _WHOSE for word in _CHARGE),
        }
    ),
    "multiplicity": frozenset(
        {"multiplicity", "mult", "multip", "spin_multiplicity", "spin_mult", "total_multiplicity"}
    ),
    "unpaired": frozenset(
        {
            "uhf",
            "nopen",
            "nupdown",
            *(f"{n}unpaired{end}" for n in _HOW_MANY for end in ("", "_el", "_electron", "_electrons")),
        }
    ),
    "electrons": frozenset(
        {
            "electrons",
            "n_el",
            "n_elect",
            "n_elec",
            "n_elecs",
            "electron_count",
            *(f"{n}electron{s}" for n in _HOW_MANY[1:] for s in ("", "s")),
        }
    ),
    "channel": frozenset(
        {
            template.format(n=n, s=s)
            for s in ("alpha", "beta", "up", "down")
            for n in ("n_", "n_elec_", "nelec_", "n_el_", "num_", "n_electrons_", "")
            for template in ("{n}{s}", "{n}{s}_electrons")
            if n or template != "{n}{s}"
        }
    ),
    "spin": frozenset({"spin", "total_spin"}),
}
"""Words for charge, 2S + 1, 2S, the number of electrons, that of one spin, and what may be S, 2S or 2S + 1, in
structures and data sets alike. Lower case; an underscore stands for a space, an underscore, a hyphen or nothing. `q` is
a charge too where it may be one: structure files have scattering vectors of that name."""
_WHAT_OF: Final = {word.replace("_", ""): what for what, words in ELECTRON_WORDS.items() for word in words}


def electron_word(name: str) -> str:
    """Key of `ELECTRON_WORDS` that a name in lower case belongs to; empty for none."""
    return _WHAT_OF.get(re.sub(r"[ _-]", "", name), "")


@dataclass(frozen=True, slots=True, order=True)
class ElectronicState:
    """What a frame's electrons are told.

    Attributes:
        charge: Total charge, e.
        multiplicity: 2S + 1.
    """

    charge: int = 0
    multiplicity: int = 1

    def is_possible(self, numbers: ArrayLike) -> bool:
        """Whether the electrons of some atoms can have this multiplicity: enough of them, of the right parity."""
        n_electrons = int(np.sum(np.asarray(numbers, dtype=np.int64))) - self.charge
        unpaired = self.multiplicity - 1
        return 0 <= unpaired <= n_electrons and (n_electrons - unpaired) % 2 == 0

    def __str__(self) -> str:
        charge = f"{self.charge:+d}" if self.charge else "0"
        return f"charge {charge}, multiplicity {self.multiplicity}"


_CORES: Final = (2, 10, 18, 36, 54, 86)
_PLAUSIBLE_CHARGE: Final = 2
"""Largest charge, e, of molecules with so few atoms that their cores hold few electrons."""
NEUTRAL_SINGLET: Final = ElectronicState()


def formula_of(numbers: ArrayLike) -> str:
    """Hill formula of atomic numbers: carbon and hydrogen first where there is carbon, then by symbol."""
    values, counts = np.unique(np.asarray(numbers, dtype=np.int64), return_counts=True)
    by_symbol = {_SYMBOLS[z]: int(n) for z, n in zip(values.tolist(), counts.tolist(), strict=True)}
    first = [symbol for symbol in ("C", "H") if "C" in by_symbol and symbol in by_symbol]
    names = first + sorted(by_symbol.keys() - set(first))
    return "".join(name + (str(by_symbol[name]) if by_symbol[name] > 1 else "") for name in names)


@dataclass(frozen=True, slots=True)
class StateConflict:
    """One composition in two states.

    Attributes:
        formula: The composition.
        first: Its state where it came first.
        first_place: Where that was.
        second: Another state of it.
        second_place: Where that was.
    """

    formula: str
    first: ElectronicState
    first_place: str
    second: ElectronicState
    second_place: str

    def __str__(self) -> str:
        return (
            f"{self.second_place} has {self.formula} with {self.second}, {self.first_place} with {self.first}: the "
            f"model sees elements and positions only and cannot tell them apart"
        )


class CompositionStates:
    """The state of each composition that has come so far, for models that cannot tell states apart."""

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[ElectronicState, str]] = {}

    def add(self, numbers: ArrayLike, charge: int, multiplicity: int, place: str) -> StateConflict | None:
        """Takes one frame.

        Args:
            numbers: ``(n_atoms,)`` atomic numbers.
            charge: Total charge, e.
            multiplicity: 2S + 1.
            place: Where it is from, for the user.

        Returns:
            What it contradicts; None where it contradicts nothing.
        """
        key = np.sort(np.asarray(numbers, dtype=np.int16)).tobytes()
        state = ElectronicState(int(charge), int(multiplicity))
        first, first_place = self._seen.setdefault(key, (state, place))
        if first == state:
            return None
        return StateConflict(formula_of(numbers), first, first_place, state, place)

    def add_all(
        self, n_atoms: ArrayLike, numbers: ArrayLike, charge: ArrayLike, multiplicity: ArrayLike, place: str
    ) -> StateConflict | None:
        """Takes frames that are concatenated along the atom axis, as in a snapshot; returns the first conflict."""
        for frame in compositions(n_atoms, numbers, charge, multiplicity):
            conflict = self.add(frame.numbers, frame.state.charge, frame.state.multiplicity, place)
            if conflict is not None:
                return conflict
        return None


@dataclass(frozen=True, slots=True, eq=False)
class CompositionState:
    """A composition in a state, and how often it came.

    Attributes:
        numbers: Sorted atomic numbers.
        state: Charge and multiplicity.
        n_frames: Frames of it.
    """

    numbers: NDArray[np.int64]
    state: ElectronicState
    n_frames: int


def compositions(
    n_atoms: ArrayLike, numbers: ArrayLike, charge: ArrayLike, multiplicity: ArrayLike
) -> list[CompositionState]:
    """Each composition in each of its states, the most frequent ones first.

    Args:
        n_atoms: ``(n_frames,)``.
        numbers: ``(n_total,)`` atomic numbers.
        charge: ``(n_frames,)`` e.
        multiplicity: ``(n_frames,)`` 2S + 1.
    """
    counts, flat = np.asarray(n_atoms, dtype=np.int64), np.asarray(numbers, dtype=np.int64)
    states = np.stack([np.asarray(charge, dtype=np.int64), np.asarray(multiplicity, dtype=np.int64)], axis=1)
    frame_of_atom = np.repeat(np.arange(counts.size), counts)
    ordered = flat[np.lexsort((flat, frame_of_atom))]
    starts = np.cumsum(counts) - counts
    found = []
    for size in np.unique(counts).tolist():
        rows = np.flatnonzero(counts == size)
        table = np.concatenate([ordered[starts[rows][:, None] + np.arange(size)], states[rows]], axis=1)
        unique, n_frames = np.unique(table, axis=0, return_counts=True)
        found += [
            CompositionState(row[:size], ElectronicState(int(row[size]), int(row[size + 1])), int(n))
            for row, n in zip(unique, n_frames, strict=True)
        ]
    return sorted(found, key=lambda one: -one.n_frames)


@dataclass(frozen=True, slots=True)
class SeenStates:
    """The states that a model has learned from.

    Attributes:
        states: All of them, sorted.
        by_formula: Those of each composition, by Hill formula; of the most frequent ones where there are very many.
        is_told_apart: The model has been given charge and multiplicity; else it sees elements and positions only.
    """

    states: tuple[ElectronicState, ...]
    by_formula: Mapping[str, tuple[ElectronicState, ...]] = field(default_factory=dict)
    is_told_apart: bool = False

    @classmethod
    def of(
        cls,
        n_atoms: ArrayLike,
        numbers: ArrayLike,
        charge: ArrayLike,
        multiplicity: ArrayLike,
        *,
        is_told_apart: bool = False,
    ) -> SeenStates:
        """Those of frames that are concatenated along the atom axis."""
        by_formula: dict[str, set[ElectronicState]] = {}
        states = set()
        for one in compositions(n_atoms, numbers, charge, multiplicity):
            states.add(one.state)
            formula = formula_of(one.numbers)
            if formula in by_formula or len(by_formula) < MAX_COMPOSITIONS:
                by_formula.setdefault(formula, set()).add(one.state)
        return cls(
            tuple(sorted(states)), {name: tuple(sorted(found)) for name, found in by_formula.items()}, is_told_apart
        )

    @property
    def has_impossible(self) -> bool:
        """Whether a molecule was learned in a state that its electrons cannot have: its labels know no electrons."""
        for formula, states in self.by_formula.items():
            found = [(_SYMBOLS.index(s), int(n or 1)) for s, n in re.findall(r"([A-Z][a-z]?)(\d*)", formula)]
            if sum(n for _, n in found) > 1 and not all(s.is_possible([z * n for z, n in found]) for s in states):
                return True
        return False

    def to_json(self) -> dict[str, object]:
        """What `from_json` reads."""
        return {
            "states": [[state.charge, state.multiplicity] for state in self.states],
            "by_formula": {
                name: [[state.charge, state.multiplicity] for state in found] for name, found in self.by_formula.items()
            },
            "is_told_apart": self.is_told_apart,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SeenStates:
        """Of a bundle.

        Raises:
            KeyError, TypeError, ValueError: It is not what `to_json` gave.
        """
        return cls(
            read_states(content["states"]),
            {str(name): read_states(found) for name, found in dict(content["by_formula"]).items()},
            bool(content["is_told_apart"]),
        )

    def check(self, numbers: ArrayLike, state: ElectronicState) -> None:
        """Refuses a state that the model has not learned.

        Args:
            numbers: ``(n_atoms,)`` atomic numbers.
            state: What the frame says.

        Raises:
            InputError: One line with the states that it has learned.
        """
        formula = formula_of(numbers)
        known = self.by_formula.get(formula)
        if self.is_told_apart or known is None:
            if state not in self.states:
                raise unknown_state(state, self.states)
        elif state not in known:
            raise InputError(
                f"the model has learned {formula} with {_listed(known)} only, and cannot tell states apart",
                field="charge, multiplicity", value=(state.charge, state.multiplicity),
                remedy="use a model that has learned this state",
            )  # fmt: skip

    def complete(self, numbers: ArrayLike, charge: int | None, multiplicity: int | None) -> ElectronicState:
        """The state that is meant where charge, multiplicity or both are not given.

        It is the only one that fits among those of the composition, or else of the model. Where several or none fit,
        what is not given is that of a neutral singlet.
        """
        default = ElectronicState(0 if charge is None else charge, 1 if multiplicity is None else multiplicity)
        for known in (self.by_formula.get(formula_of(numbers), ()), self.states):
            fitting = [
                state
                for state in known
                if charge in (None, state.charge) and multiplicity in (None, state.multiplicity)
            ]
            if len(fitting) == 1:
                return fitting[0]
            if default in fitting:
                return default
        return default


def unknown_state(state: ElectronicState, known: Sequence[ElectronicState]) -> InputError:
    """The error of a state that a model has not learned."""
    return InputError(
        f"the model has learned {_listed(known)} only",
        field="charge, multiplicity",
        value=(state.charge, state.multiplicity),
        remedy="use a model that has learned this state",
    )


def read_states(content: Iterable[Sequence[int]]) -> tuple[ElectronicState, ...]:
    """States from pairs of charge and multiplicity.

    Raises:
        TypeError, ValueError: They are no pairs of integers.
    """
    states = []
    for charge, multiplicity in content:
        if isinstance(charge, bool) or not isinstance(charge, int) or not isinstance(multiplicity, int):
            raise TypeError("states are pairs of integers")
        if multiplicity < 1:
            raise ValueError("a multiplicity is at least 1")
        states.append(ElectronicState(charge, multiplicity))
    return tuple(states)


def _listed(states: Sequence[ElectronicState]) -> str:
    return "; ".join(map(str, states)) or "no state"


def multiplicity_of_spin(spin: float, n_electrons: int) -> int | None:
    """The multiplicity that a number called ``spin`` means; None where it fits the electrons in no way.

    Programs write 2S + 1 (OMol25), 2S (PySCF) or S under this name. The first two differ by the parity of the number of
    electrons, which is odd for even multiplicities; what is no integer is S.

    Args:
        spin: The number.
        n_electrons: Electrons of the frame: its atomic numbers less its charge.
    """
    if not np.isfinite(spin) or spin < 0 or 2 * spin != round(2 * spin):
        return None
    unpaired = round(2 * spin) if spin != round(spin) else round(spin)
    if spin == round(spin) and (n_electrons + unpaired) % 2:
        unpaired -= 1
    return unpaired + 1 if unpaired >= 0 and (n_electrons + unpaired) % 2 == 0 else None


def charges_of_count(numbers: ArrayLike, n_electrons: int) -> tuple[int, ...]:
    """The charges that a number of electrons may mean: that of all, and that of those outside noble gas cores.

    Both, in this order, where both are of the size that molecules have (8 electrons of OH: +1 or -1).

    Args:
        numbers: ``(n_atoms,)`` atomic numbers.
        n_electrons: As stated.
    """
    z = np.asarray(numbers)
    of_all = int(z.sum()) - n_electrons
    of_valence = of_all - sum(max((c for c in _CORES if c < one), default=0) for one in z.tolist())
    if of_all and of_all != of_valence and max(abs(of_all), abs(of_valence)) <= _PLAUSIBLE_CHARGE:
        return of_all, of_valence
    return (of_valence if abs(of_valence) < abs(of_all) else of_all,)
