"""Total charge and multiplicity as a file states them, under whatever name and in whatever convention.

`spin` is S in one program, 2S in the next and 2S + 1 in a third. It is read where the number of electrons leaves one
multiplicity that all three could mean; else the user is asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from alsys.errors import InputError
from alsys.frames import FloatArray
from alsys.interop.account import FileAccount
from alsys.interop.comments import check_described
from alsys.interop.keys import ChoiceNeeded, Selection
from alsys.interop.raw_frames import integer
from alsys.said import doubt_of, failure_in, is_there, more_spin_in, multiplicity_of, number_of, objection, words_of
from alsys.states import ElectronicState, SeenStates, charges_of_count, formula_of

SPINS: Final = ("2S+1", "2S", "S")
"""What `spin` may mean."""
SUM_TOLERANCE: Final = 0.05
"""e or Bohr magnetons; what rounding leaves of a sum over atoms that is a whole number."""
MAX_STATED: Final = 2**31


def stated_electrons(
    selection: Selection,
    values: Mapping[str, Any],
    numbers: ArrayLike,
    account: FileAccount,
    place: str,
    *,
    is_periodic: bool = False,
) -> tuple[int | None, int | None]:
    """Charge and multiplicity of a frame; None where it does not say.

    Charges of atoms state their sum where it is a whole number other than 0, and so do, of molecules, magnetic moments.

    Args:
        selection: Its names.
        values: What stands under them, as text, numbers or arrays; None counts as not there.
        numbers: ``(n_atoms,)`` atomic numbers.
        account: Of the file.
        place: What the frame is called.
        is_periodic: Its magnetic moments are a guess, whose sum says nothing.

    Raises:
        InputError: No whole number, two statements that differ, sites that are occupied in part, or electrons that did
            not converge.
        ChoiceNeeded: `spin` may mean two things.
    """
    check_judged(selection, values, place)
    if selection.is_plain:
        charges, multiplicities = electrons_in(selection, values, numbers, place)
        if not (multiplicities or is_periodic or account.multiplicity):
            _check_spin(selection, values, place)
        return _described(
            selection, values, numbers, _agreed(charges, place), _agreed(multiplicities, place), account, place
        )
    for name in selection.heads:
        if values.get(name) is not None:
            account.meet_head(name, values[name], place)
    z = np.asarray(numbers)
    n_protons = int(z.sum()) if z.dtype.kind in "iu" else 0
    for name in selection.occupancies:
        if (shares := _of_atoms(values.get(name), z.size)) is not None and (shares < 0.999).any():
            raise InputError(
                "sites are occupied in part: no frame of whole atoms",
                field=f"{place}: {name}", value=float(shares.min()), remedy="leave such frames out",
            )  # fmt: skip
    charges, multiplicities = electrons_in(selection, values, z, place)
    for name in selection.atom_charges:
        if (of_atoms := _of_atoms(values.get(name), z.size)) is None:
            continue
        total = float(of_atoms.sum())
        if not is_near_whole(total) and not charges and _is_initial(name):
            raise InputError(
                "do not sum to a whole number", field=f"{place}: {name}", value=round(total, 4),
                remedy="state the total charge as `charge`",
            )  # fmt: skip
        if is_near_whole(total) and round(total):
            charges[name] = round(total)
    computed = [n for n in selection.atom_moments if values.get(n) is not None and not _is_initial(n)]
    for name in computed or selection.atom_moments:  # what a calculation began from counts where it gave none
        if (value := values.get(name)) is None:
            continue
        if np.shape(value) == (z.size, 3) and is_there(value) and set(words_of(name)) & {"spin", "spins", "force"}:
            raise InputError(
                "holds vectors, on which its label depends and for which a frame has no place",
                field=f"{place}: {name}", remedy="leave such frames out (--skip)",
            )  # fmt: skip
        of_atoms = _of_atoms(value, z.size)
        moment = number_of(value) if of_atoms is None else float(of_atoms.sum())
        if not is_periodic and moment is not None and is_near_whole(moment) and round(moment):
            multiplicities[name] = abs(round(moment)) + 1
    for name in selection.judged:
        if (named := multiplicity_of(values.get(name))) is not None:
            multiplicities[name] = named
    charge = _agreed(charges, place)
    electrons = n_protons - (account.charge if charge is None else charge)
    for name in selection.spin:
        if values.get(name) is not None:
            spin = _number(values[name], f"{place}: {name}")
            multiplicities[name] = _of_spin(spin, electrons, account, f"{place}: {name}", set(multiplicities.values()))
    if not (multiplicities or is_periodic or account.multiplicity):
        _check_spin(selection, values, place)
    return _described(selection, values, z, charge, _agreed(multiplicities, place), account, place)


def _described(
    selection: Selection, values: Mapping[str, Any], numbers: ArrayLike, charge: int | None, multiplicity: int | None,
    account: FileAccount, place: str,
) -> tuple[int | None, int | None]:  # fmt: skip
    """Charge and multiplicity, with which the frame's names, formulas and the like have been found to agree."""
    for name in selection.described:
        if isinstance(text := values.get(name), str) and text:
            check_described(name, text, np.asarray(numbers), charge, multiplicity, account, f"{place}: {name}")
    return charge, multiplicity


def _check_spin(selection: Selection, values: Mapping[str, Any], place: str) -> None:
    """Refuses a molecule without a multiplicity that is said to have more spin than the lowest."""
    for name, value in values.items():
        if (isinstance(value, str) or name in selection.judged) and more_spin_in(name, value):
            raise InputError(
                "says more spin than the lowest, without the multiplicity", field=f"{place}: {name}", value=value,
                remedy="state `multiplicity` (2S + 1), or give --multiplicity",
            )  # fmt: skip


def check_judged(selection: Selection, values: Mapping[str, Any], place: str) -> None:
    """Refuses a frame by what it says beside its label, see `alsys.said.objection`; failures by any text.

    Raises:
        InputError: Names what says so.
    """
    for name, value in values.items():
        if not (isinstance(value, str) or name in selection.judged) or value is None:
            continue
        if why := _objection(selection, values, name) if name in selection.judged else failure_in(value):
            raise InputError(
                why, field=f"{place}: {name}", value=value if np.ndim(value) == 0 else None,
                remedy="state charge and multiplicity, and remove it where it says nothing of them"
                if why.startswith("may state") else "leave such frames out (--skip)",
            )  # fmt: skip


def _objection(selection: Selection, values: Mapping[str, Any], name: str) -> str:
    """That of `alsys.said`; beside a stated total, a name of the like is of a part."""
    why = objection(name, values[name])
    of = {"charge": selection.charge, "spin": selection.multiplicity}.get(doubt_of(name), ())
    is_known = any(values.get(known) is not None for known in of)
    return "" if why.startswith("may state") and is_known else why


def electrons_in(
    selection: Selection, values: Mapping[str, Any], numbers: ArrayLike, place: str
) -> tuple[dict[str, int], dict[str, int]]:
    """Total charges and multiplicities that names state which can be meant in one way, by name.

    Args:
        selection: The names.
        values: What stands under them; None counts as not there.
        numbers: ``(n_atoms,)`` atomic numbers.
        place: What the frame is called.

    Raises:
        InputError: No whole number.
    """

    def stated(names: tuple[str, ...]) -> dict[str, int]:
        return {name: _whole(values[name], place, name) for name in names if values.get(name) is not None}

    charges, multiplicities = stated(selection.charge), stated(selection.multiplicity)
    if selection.unpaired:
        multiplicities |= {name: abs(n) + 1 for name, n in stated(selection.unpaired).items()}
    if len(channels := stated(selection.channels)) == 2:
        (one, n_one), (other, n_other) = channels.items()
        multiplicities[f"{one}, {other}"] = abs(n_one - n_other) + 1
        name = f"{one}, {other}"
        charges[name] = _of_count(numbers, n_one + n_other, charges, f"{place}: {name}")
    elif channels:
        raise InputError(
            "is the number of electrons of one spin, without that of the other",
            field=f"{place}: {', '.join(channels)}", value=tuple(channels.values()),
            remedy="state charge and multiplicity",
        )  # fmt: skip
    if selection.electrons:
        for name, n in stated(selection.electrons).items():
            charges[name] = _of_count(numbers, n, charges, f"{place}: {name}")
    return charges, multiplicities


def check_possible(
    numbers: ArrayLike, state: ElectronicState, seen: SeenStates | None, field: str, *, is_periodic: bool
) -> None:
    """Refuses electrons that cannot have the multiplicity, but of boxes and single atoms, and for what was learned so.

    Args:
        numbers: ``(n_atoms,)`` atomic numbers.
        state: What a model is to be asked for.
        seen: What it has learned; None where that is not known.
        field: Where charge and multiplicity are given.
        is_periodic: Electrons of a box need not pair.

    Raises:
        InputError: Says what to set.
    """
    if np.size(numbers) < 2 or is_periodic or state.is_possible(numbers):
        return
    if seen is None or seen.has_impossible:  # nobody knows, or learned from a labeler without electrons
        return
    n_electrons = int(np.sum(np.asarray(numbers, dtype=np.int64))) - state.charge
    parity = "even" if n_electrons % 2 else "odd"
    raise InputError(
        f"{state} is impossible with {n_electrons} electrons of {formula_of(numbers)}",
        field=f"{field}: charge, multiplicity", value=(state.charge, state.multiplicity),
        remedy=f"set `charge`, or `multiplicity` (2S + 1), which is {parity} here",
    )  # fmt: skip


def is_near_whole(total: float) -> bool:
    """Whether a sum of charges or moments is a whole number but for rounding."""
    return abs(total - round(total)) <= SUM_TOLERANCE if math.isfinite(total) else False


def _is_initial(name: str) -> bool:
    return "initial" in words_of(name)


def _of_atoms(value: Any, n_atoms: int) -> FloatArray | None:
    """Numbers, one for each atom; None where there are none."""
    if value is None or np.shape(value) not in ((n_atoms,), (n_atoms, 1)):
        return None
    try:
        return np.asarray(value, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        return None


def _agreed(found: Mapping[str, int], place: str) -> int | None:
    if len(found) > 1 and len(set(found.values())) > 1:
        raise InputError(
            f"{' and '.join(found)} contradict each other", field=place, value=tuple(found.values()), remedy="keep one"
        )
    return next(iter(found.values()), None)


def _of_count(numbers: ArrayLike, n: int, known: Mapping[str, int], field: str) -> int:
    """The charge that a number of electrons means; VASP's `NELECT` is of those outside the cores."""
    possible = charges_of_count(numbers, n)
    agreeing = [charge for charge in possible if charge in known.values()]
    if len(possible) == 1 or known or field.lower().endswith(": nelect"):
        return (agreeing or possible)[-1]
    raise InputError(
        f"may be of all electrons, a charge of {possible[0]:+d}, or of those outside the cores, {possible[1]:+d}",
        field=field, value=n, remedy="state `charge`",
    )  # fmt: skip


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


def _whole(value: Any, place: str, name: str) -> int:
    if type(value) is int and abs(value) < MAX_STATED:
        return value
    if isinstance(value, bool | np.bool_):
        raise InputError("must be a whole number", field=f"{place}: {name}", value=bool(value))
    if isinstance(value, str) and value.lstrip("+-").isdecimal():
        return int(value)
    return integer(_number(value, f"{place}: {name}"), f"{place}: {name}")


def _number(value: Any, field: str) -> float:
    try:
        return float(value) if isinstance(value, str) else float(_scalar(value))
    except (TypeError, ValueError, OverflowError):
        raise InputError("must be a whole number", field=field, value=value) from None


def _scalar(value: Any) -> Any:
    return value.reshape(()).item() if hasattr(value, "reshape") else value
