"""Committees of networks for other elements: fewer, more, or the same in another order.

What a network says of molecules of elements that stay does not change. Weights of an element that is new are random, as
those of a model that was never trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from ase.data import chemical_symbols

from alsys.errors import InputError
from alsys.potentials.architectures import blank_model, build_model, elements_of
from alsys.potentials.base import CommitteeState
from alsys.potentials.nequip import weights_of


def for_elements(state: CommitteeState, elements: Sequence[str], seed: int | None = None) -> CommitteeState:
    """The same committee for these elements, judged by its spread.

    Args:
        state: A committee of networks.
        elements: In the order that the new one has.
        seed: Of the weights of elements that it does not know; None refuses those.

    Raises:
        InputError: It does not know one of them and there is no seed, or its architecture cannot be changed so.
    """
    old = elements_of(state.spec)
    if seed is None and (missing := [symbol for symbol in elements if symbol not in old]):
        raise InputError(f"knows {' '.join(old)} only", value=" ".join(missing))
    if list(elements) == old:
        return state
    spec = {**state.spec, "elements": list(elements)}
    if isinstance(cutoffs := state.spec.get("cutoffs"), Mapping):
        spec["cutoffs"] = dict(sorted(cutoffs_among(cutoffs, elements).items()))
        if not spec["cutoffs"]:
            del spec["cutoffs"]
    shapes = {name: array.shape for name, array in weights_of(blank_model(spec)).items()}
    another = next(symbol for symbol in chemical_symbols[1:] if symbol not in elements)
    larger = weights_of(blank_model({**spec, "elements": [*elements, another]}))
    is_by_element = {name for name, shape in shapes.items() if larger[name].shape != shape}
    kept = [symbol for symbol in elements if symbol in old]
    to, of = (np.array([among.index(symbol) for symbol in kept], dtype=np.int64) for among in (elements, old))
    pairs_to, pairs_of = ((rows[:, None] * n + rows[None]).ravel() for rows, n in ((to, len(elements)), (of, len(old))))
    members = []
    for k, member in enumerate(state.members):
        fresh = weights_of(blank_model(spec) if seed is None else build_model(spec, seed=seed + k))
        for name, shape in shapes.items():
            array = np.asarray(member[name])
            if name not in is_by_element:
                fresh[name] = array
                continue
            is_of_pairs = shape[0] == len(elements) ** 2 and len(array) == len(old) ** 2 and len(old) > 1
            if array.shape[1:] != shape[1:] or not (is_of_pairs or (shape[0], len(array)) == (len(elements), len(old))):
                raise InputError("cannot be changed to other elements", field=name, value=array.shape)
            rows, others = (pairs_to, pairs_of) if is_of_pairs else (to, of)
            changed = np.array(fresh[name])
            changed[rows] = array[others]
            fresh[name] = changed
        members.append(fresh)
    return replace(state, spec=spec, members=tuple(members), score="committee", score_state={})


def cutoffs_among(cutoffs: Mapping[str, float], elements: Sequence[str]) -> dict[str, float]:
    """Cutoffs of pairs of `elements`, each under its elements in their order there."""
    kept = {pair: radius for pair, radius in cutoffs.items() if set(pair.split("-")) <= set(elements)}
    return {"-".join(sorted(pair.split("-"), key=list(elements).index)): radius for pair, radius in kept.items()}
