"""A parent that a fit cannot go on from as it is: of fewer elements, of fewer states, or of a larger network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from alsys.config.schema import CampaignConfig
from alsys.potentials.architectures import architecture_of, states_of
from alsys.potentials.base import CommitteeState
from alsys.potentials.nequip import elements_of
from alsys.training.base import TrainingOrder
from alsys.training.dataset import Split, atomic_energies
from alsys.training.states import states_for, with_states
from alsys.training.step import SCALES, SHIFTS

logger = logging.getLogger(__name__)

GROWING: Final = ("num_layers", "l_max")
"""What a final fit may make larger."""


def as_large_as(spec: Mapping[str, object], parent: Mapping[str, object]) -> dict[str, object]:
    """A specification that is as large as its parent's, where they differ in size and the parent's is the larger one.

    A network that a final fit made larger stays so when its campaign goes on.
    """
    if not all(isinstance(of.get(name), int) for of in (spec, parent) for name in GROWING):
        return dict(spec)
    larger = {name: max(int(str(spec[name])), int(str(parent[name]))) for name in GROWING}
    grown = {**spec, **larger}
    free = dict.fromkeys(("avg_num_neighbors", "elements", "states", *GROWING))
    is_alike = architecture_of({**spec, **free}) == architecture_of({**parent, **free})
    return grown if is_alike and all(parent[name] == larger[name] for name in GROWING) else dict(spec)


def grown(
    parent: CommitteeState, order: TrainingOrder, parts: Split, config: CampaignConfig, wanted: Mapping[str, object]
) -> CommitteeState:
    """The parent with all elements and states of a snapshot, where it lacks some and is alike; else as it is.

    Energies of new elements are free atoms plus what the parent's other elements have beyond theirs on average.

    Args:
        parent: To go on from.
        order: What is to be fitted.
        parts: Of its snapshot.
        config: The campaign.
        wanted: Specification of the network to fit, with the parent's elements.
    """
    elements = [chemical_symbols[z] for z in sorted({int(z) for z in order.snapshot.numbers})]
    known, known_states = elements_of(parent.spec), states_of(parent.spec)
    states = states_for(config, order.snapshot, known_states)
    if set(elements) <= set(known) and states == known_states:
        return parent
    if known_states and not states:
        return parent
    wanted = as_large_as(wanted, parent.spec)
    free_entries = {"avg_num_neighbors": None, "states": None}
    if architecture_of({**wanted, **free_entries}) != architecture_of({**parent.spec, **free_entries}):
        return parent
    if set(elements) <= set(known):
        elements = known
    energies = atomic_energies(parts.atoms, parts.train, config.training.atomic_energies)
    free = np.array([energies.get(atomic_numbers[symbol], 0.0) for symbol in elements])
    is_new = np.array([symbol not in known for symbol in elements])
    larger = with_states(parent, elements, states, parts.train, order.seed)
    members = []
    for member in larger.members:
        shifts, scales = (np.array(member[name]) for name in (SHIFTS, SCALES))
        if is_new.any():
            by_state, scales_by_state = shifts.reshape(-1, len(elements)), scales.reshape(-1, len(elements))
            beyond = (by_state[:, ~is_new] - free[~is_new]).mean(axis=1, keepdims=True)
            by_state[:, is_new] = free[is_new] + beyond
            scales_by_state[:, is_new] = scales_by_state[:, ~is_new].mean(axis=1, keepdims=True)
        members.append({**member, SHIFTS: shifts, SCALES: scales})
    new = [*np.array(elements)[is_new], *(str(state) for state in states if state not in known_states)]
    logger.info("the parent learns new elements or states: %s", "; ".join(new))
    return replace(larger, members=tuple(members))
