"""Total charge and multiplicity as a file states them, under whatever name and in whatever convention.

`spin` is S in one program, 2S in the next and 2S + 1 in a third. It is read where the number of electrons leaves one
multiplicity that all three could mean; else the user is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from alsys.errors import InputError
from alsys.interop.account import FileAccount
from alsys.interop.keys import ChoiceNeeded, Selection
from alsys.interop.raw import integer

SPINS: Final = ("2S+1", "2S", "S")
"""What `spin` may mean."""


def stated_electrons(
    selection: Selection, values: Mapping[str, Any], n_protons: int, account: FileAccount, place: str
) -> tuple[int | None, int | None]:
    """Charge and multiplicity of a frame; None where it does not say.

    Args:
        selection: Its names.
        values: What stands under them, as text or numbers; None counts as not there.
        n_protons: Sum of its atomic numbers.
        account: Of the file.
        place: What the frame is called.

    Raises:
        InputError: No whole number, or two statements that differ.
        ChoiceNeeded: `spin` may mean two things.
    """

    def stated(names: tuple[str, ...]) -> int | None:
        found = {name: _whole(values[name], f"{place}: {name}") for name in names if values.get(name) is not None}
        return _agreed(found, place)

    charge = stated(selection.charge)
    multiplicities = {}
    if (plain := stated(selection.multiplicity)) is not None:
        multiplicities[selection.multiplicity[0]] = plain
    if (unpaired := stated(selection.unpaired)) is not None:
        multiplicities[selection.unpaired[0]] = unpaired + 1
    electrons = n_protons - (account.charge if charge is None else charge)
    for name in selection.spin:
        if values.get(name) is not None:
            spin = _number(values[name], f"{place}: {name}")
            multiplicities[name] = _of_spin(spin, electrons, account, f"{place}: {name}", set(multiplicities.values()))
    return charge, _agreed(multiplicities, place)


def _agreed(found: Mapping[str, int], place: str) -> int | None:
    if len(set(found.values())) > 1:
        raise InputError(
            f"{' and '.join(found)} contradict each other", field=place, value=tuple(found.values()), remedy="keep one"
        )
    return next(iter(found.values()), None)


def _of_spin(spin: float, electrons: int, account: FileAccount, field: str, known: set[int]) -> int:
    """2S + 1 of what a file calls spin."""
    meanings = dict(zip(SPINS, (spin, spin + 1.0, 2.0 * spin + 1.0), strict=True))
    if said := account.choice.spin:
        meanings = {said: meanings[said]}
    possible = {round(m) for m in meanings.values() if m >= 1 and m == round(m) and (electrons - round(m) + 1) % 2 == 0}
    if len(possible & known) == 1:
        return next(iter(possible & known))
    if not possible:
        raise InputError(
            f"fits {electrons} electrons in no convention",
            field=field,
            value=spin,
            remedy="state charge and multiplicity",
        )
    if len(possible) > 1:
        raise ChoiceNeeded(
            f"may mean a multiplicity of {' or '.join(map(str, sorted(possible)))}",
            field=field,
            value=spin,
            remedy=f"say what it is with --spin-is, one of {', '.join(SPINS)}",
        )
    return next(iter(possible))


def _whole(value: Any, field: str) -> int:
    if isinstance(value, str) and value.lstrip("+-").isdecimal():
        return int(value)
    return integer(_number(value, field), field)


def _number(value: Any, field: str) -> float:
    try:
        return float(value) if isinstance(value, str) else float(_scalar(value))
    except (TypeError, ValueError, OverflowError):
        raise InputError("must be a whole number", field=field, value=value) from None


def _scalar(value: Any) -> Any:
    return value.reshape(()).item() if hasattr(value, "reshape") else value
