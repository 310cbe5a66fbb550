"""Committees of networks for other elements or states: fewer, more, or the same in another order.

What a network says of molecules of elements and in states that stay does not change. Weights of an element that is new
are random, as those of a model that was never trained; those of a state that is new are a known state's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.potentials.architectures import STATE_ENERGIES, blank_model, build_model, elements_of, states_of
from alsys.potentials.base import CommitteeState
from alsys.potentials.nequip import weights_of
from alsys.states import ElectronicState, unknown_state


def for_elements(state: CommitteeState, elements: Sequence[str], seed: int | None = None) -> CommitteeState:
    """The same committee for these elements, judged by its spread.

    Args:
        state: A committee of networks.
        elements: In the order that the new one has.
        seed: Of the weights of elements that it does not know; None refuses those.

    Raises:
        InputError: It does not know one of them and there is no seed, or its architecture cannot be changed so.
    """
    return for_types(state, elements, states_of(state.spec), seed)


def for_types(
    state: CommitteeState, elements: Sequence[str], states: Sequence[ElectronicState], seed: int | None = None
) -> CommitteeState:
    """The same committee for these elements and these states of charge and multiplicity, judged by its spread.

    What it says of elements and states that stay does not change. A state that is new begins as the one that is nearest
    in charge and then in multiplicity, and its energy as that state's; in a committee that told no states apart, all
    begin as what it says of any.

    Args:
        state: A committee of networks.
        elements: In the order that the new one has.
        states: Likewise; none for a committee that tells none apart, which one that does can become of one state only.
        seed: Of the weights of elements that it does not know; None refuses those.

    Raises:
        InputError: It does not know one of the elements and there is no seed, or its architecture cannot be changed so.
    """
    old, old_states = elements_of(state.spec), states_of(state.spec)
    if seed is None and (missing := [symbol for symbol in elements if symbol not in old]):
        raise InputError(f"knows {' '.join(old)} only", value=" ".join(missing))
    if list(elements) == old and tuple(states) == old_states:
        return state
    if old_states and not states:
        raise InputError("tells states of charge and multiplicity apart", field="states")
    spec = {**state.spec, "elements": list(elements), "states": [[one.charge, one.multiplicity] for one in states]}
    if not states:
        del spec["states"]
    if isinstance(cutoffs := state.spec.get("cutoffs"), Mapping):
        spec["cutoffs"] = dict(sorted(cutoffs_among(cutoffs, elements).items()))
        if not spec["cutoffs"]:
            del spec["cutoffs"]
    shapes = {name: array.shape for name, array in weights_of(blank_model(spec)).items()}
    another = next(symbol for symbol in chemical_symbols[1:] if symbol not in elements)
    larger = weights_of(blank_model({**spec, "elements": [*elements, another]}))
    is_by_type = {name for name, shape in shapes.items() if larger[name].shape != shape}
    origins = [_nearest(one, old_states) for one in states] if old_states else [0] * max(len(states), 1)
    kept = [symbol for symbol in elements if symbol in old]
    places = [(k, origin, symbol) for k, origin in enumerate(origins) for symbol in kept]
    to = np.array([k * len(elements) + list(elements).index(symbol) for k, _, symbol in places], dtype=np.int64)
    of = np.array([origin * len(old) + old.index(symbol) for _, origin, symbol in places], dtype=np.int64)
    n_to, n_of = len(elements) * max(len(states), 1), len(old) * max(len(old_states), 1)
    pairs_to, pairs_of = ((rows[:, None] * n + rows[None]).ravel() for rows, n in ((to, n_to), (of, n_of)))
    members = []
    for k, member in enumerate(state.members):
        fresh = weights_of(blank_model(spec) if seed is None else build_model(spec, seed=seed + k))
        for name, shape in shapes.items():
            if name == STATE_ENERGIES:
                energies = np.asarray(member[name])[origins] if old_states else np.zeros(len(states))
                fresh[name] = energies.astype(np.float64)
                continue
            array = np.asarray(member[name])
            if name not in is_by_type:
                fresh[name] = array
                continue
            is_of_types = (shape[0], len(array)) == (n_to, n_of)
            is_of_pairs = not is_of_types and (shape[0], len(array)) == (n_to**2, n_of**2)
            if array.shape[1:] != shape[1:] or not (is_of_types or is_of_pairs):
                raise InputError("cannot be changed to other elements or states", field=name, value=array.shape)
            rows, others = (pairs_to, pairs_of) if is_of_pairs else (to, of)
            changed = np.array(fresh[name])
            changed[rows] = array[others]
            fresh[name] = changed
        members.append(fresh)
    return replace(state, spec=spec, members=tuple(members), score="committee", score_state={})


def in_state(state: CommitteeState, chosen: ElectronicState) -> tuple[CommitteeState, NDArray[np.float64]]:
    """What a committee says of one state, as a committee of plain networks that tell none apart.

    Args:
        state: A committee of networks that tells states apart.
        chosen: The state.

    Returns:
        The committee; and ``(n_members,)`` energies, eV, that each of its members lacks on every frame.

    Raises:
        InputError: It does not know the state.
    """
    states, n = states_of(state.spec), len(elements_of(state.spec))
    if chosen not in states:
        raise unknown_state(chosen, states)
    place, n_types = states.index(chosen), n * len(states)
    spec = {name: value for name, value in state.spec.items() if name != "states"}
    shapes = {name: array.shape for name, array in weights_of(blank_model(spec)).items()}
    rows = np.arange(place * n, (place + 1) * n)
    members = []
    for member in state.members:
        plain = {}
        for name, shape in shapes.items():
            array = np.asarray(member[name])
            if array.shape != shape:
                array = array[rows if len(array) == n_types else (rows[:, None] * n_types + rows[None]).ravel()]
            plain[name] = array
        members.append(plain)
    energies = np.array([float(member[STATE_ENERGIES][place]) for member in state.members])
    seen = None if state.seen is None else replace(state.seen, states=(chosen,), by_formula={}, is_told_apart=True)
    changed = replace(state, spec=spec, members=tuple(members), score="committee", score_state={}, seen=seen)
    return changed, energies


def _nearest(wanted: ElectronicState, states: Sequence[ElectronicState]) -> int:
    """Place of the state itself, or of the one that is nearest in charge and then in multiplicity."""
    away = [(abs(one.charge - wanted.charge), abs(one.multiplicity - wanted.multiplicity)) for one in states]
    return away.index(min(away))


def cutoffs_among(cutoffs: Mapping[str, float], elements: Sequence[str]) -> dict[str, float]:
    """Cutoffs of pairs of `elements`, each under its elements in their order there."""
    kept = {pair: radius for pair, radius in cutoffs.items() if set(pair.split("-")) <= set(elements)}
    return {"-".join(sorted(pair.split("-"), key=list(elements).index)): radius for pair, radius in kept.items()}
