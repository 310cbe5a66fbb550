"""The symmetry of a CIF: operations, where it lists them, else a space group that ASE knows; anything else is refused.

Tags come with underscores (``_space_group_name_h-m_alt``), also where the file has dots.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase.spacegroup import Spacegroup
from ase.spacegroup.spacegroup import SpacegroupError, parse_sitesym

from alsys.frames import FloatArray
from alsys.systems.files.content import Concern, FileProblem

_SYMBOLS = ("_space_group_name_h-m_alt", "_symmetry_space_group_name_h-m", "_space_group_name_h-m")
_NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")
_OPERATIONS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
_SETTINGS = ("_symmetry_space_group_setting", "_space_group_crystal_system", "_symmetry_cell_setting")
_OF_SYMMETRY = ("_symmetry_", "_space_group_", "_parent_space_group_")
_NOTHING = frozenset({"?", ".", ""})
_TRIVIAL = frozenset({"p1", "c1", "c1\u00b9", "1", "1.1", "1.1.1", "x,y,z", "x,y,z,+1", "0"})
"""What tags of all kinds say of a group without symmetry."""


def with_symmetry(tags: Mapping[str, Any]) -> tuple[dict[str, Any], list[Concern]]:
    """The tags with the symmetry in the way that ASE takes it.

    ASE takes operations only beside a group, whose inversion it adds: P 1 is set.

    Raises:
        FileProblem: The file contradicts itself, or says its symmetry in a way that is not read.
    """
    from ase.io.cif import old_spacegroup_names

    kept = dict(tags)
    stated = {key: _text(kept.pop(key)) for key in (*_SYMBOLS, *_NUMBERS) if key in kept}
    for key in (*_SYMBOLS, *_SETTINGS):
        if _text(kept.get(key)) in _NOTHING:
            kept.pop(key, None)
    named = {key: old_spacegroup_names.get(name.replace(" ", ""), name) for key, name in stated.items()}
    named = {key: name for key, name in named.items() if name not in _NOTHING}
    known = {key: group for key, name in named.items() if (group := _group(key, name))}
    groups = {group.no: key for key, group in known.items()}
    if len(groups) > 1:
        said = " and ".join(f"{key} {stated[key]}" for key in groups.values())
        raise FileProblem(f"names two space groups ({said})", "correct one of them")
    operations = next((found for key in _OPERATIONS if (found := _listed(kept.get(key)))), [])
    if operations:
        for key, group in known.items():
            if not _agree(operations, group, is_of_setting=key in _SYMBOLS):
                raise FileProblem(
                    f"names the space group {stated[key]} ({key}), and lists {len(operations)} operations of another",
                    "correct the name or the operations",
                )
        return {**{key: value for key, value in kept.items() if key not in _SETTINGS}, _SYMBOLS[0]: "P 1"}, []
    for key in named.keys() - known.keys():
        raise FileProblem(
            f"is of a space group that is not known ({stated[key]}), and has no operations of symmetry",
            "give them, or the atoms of the whole cell as P 1",
        )
    _check_read(kept, is_named=bool(known))
    if known:
        key, group = next(iter(known.items()))
        return {**kept, _SYMBOLS[0]: group.symbol}, []
    concern = Concern(
        "symmetry",
        "names no space group (?) and no operations of symmetry",
        "name the space group, or give the atoms of the whole cell as P 1",
        "only the atoms of the file are in the cell",
    )
    return kept, [concern] if stated else []


def _check_read(tags: Mapping[str, Any], *, is_named: bool) -> None:
    """Refuses symmetry in other tags (a Hall symbol, a magnetic group), where no operations say it."""
    for key, value in tags.items():
        values = [_text(v) for v in _listed(value)]
        is_other = not is_named or "_magn_" in key
        if not key.startswith(_OF_SYMMETRY) or key.endswith("_id") or key in _SETTINGS or not is_other:
            continue
        if said := [text for text in values if text.lower().replace(" ", "") not in _TRIVIAL]:
            raise FileProblem(
                f"says its symmetry in a way that is not read ({key} {said[0][:40]})",
                "give the operations of the space group (_space_group_symop_operation_xyz), or the atoms of the whole "
                "cell as P 1",
            )


def _group(key: str, name: str) -> Spacegroup | None:
    """The space group of a name or a number; None for one that ASE does not know."""
    words = name.split()
    if len(words) == 4 and words[1] == words[3] == "1":  # the full symbol of a monoclinic group
        name = f"{words[0]} {words[2]}"
    try:
        return Spacegroup(int(name) if key in _NUMBERS else name)
    except (SpacegroupError, ValueError):
        return None


def _agree(operations: list[str], group: Spacegroup, *, is_of_setting: bool) -> bool:
    """Whether operations can be those of a group: as many of each kind, in whatever axes and from whatever origin.

    Args:
        operations: As ``-x, y+1/2, -z``.
        group: In one of its settings.
        is_of_setting: Whether the file means this setting, with its centring.
    """
    one, other = _by_rotation(*parse_sitesym(operations)), _by_rotation(*group.get_op())
    if sorted(map(_kind, one.items())) != sorted(map(_kind, other.items())):
        return False
    return not is_of_setting or one.keys() != other.keys() or len(one[_IDENTITY]) == len(other[_IDENTITY])


_IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)


def _by_rotation(rotations: Any, translations: Any) -> dict[tuple[int, ...], list[FloatArray]]:
    found: dict[tuple[int, ...], list[FloatArray]] = {}
    for rotation, translation in zip(rotations, translations, strict=True):
        found.setdefault(tuple(int(v) for v in rotation.flat), []).append(translation)
    return found


def _kind(operation: tuple[tuple[int, ...], list[FloatArray]]) -> tuple[int, int, bool]:
    """Determinant and trace of a rotation, and whether it is one without screw or glide."""
    rotation = np.reshape(operation[0], (3, 3))
    powers = [np.linalg.matrix_power(rotation, n) for n in range(12)]  # whole turns of orders 1, 2, 3, 4 and 6
    steps = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3)).reshape(3, -1).T
    along = (np.asarray(operation[1])[:, None] + steps) @ np.mean(powers, axis=0).T  # does not depend on the origin
    is_pure = bool((np.abs(along) < 0.01).all(axis=-1).any())
    return round(np.linalg.det(rotation)), int(np.trace(rotation)), is_pure


def _text(value: Any) -> str:
    return " ".join(str("" if value is None else value).strip("'\"").split())


def _listed(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    return [v for v in values if _text(v) not in _NOTHING]
