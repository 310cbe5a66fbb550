"""Which states of charge and multiplicity a committee is to tell apart, and how one learns of further ones.

A fit sees the states of the campaign's systems, whose walkers it must drive, and those of the labels that it is given:
imported ones may come in others. Where they are several, elements get embeddings in each (`model.states`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from alsys.config.schema import CampaignConfig, EquivariantModel
from alsys.frames import Arm, FloatArray
from alsys.potentials.architectures import STATE_ENERGIES, kind_of, states_of
from alsys.potentials.base import CommitteeState
from alsys.states import ElectronicState
from alsys.store.base import Snapshot
from alsys.training.evaluate import batch_of, chunks_of, thinned


def states_for(
    config: CampaignConfig, snapshot: Snapshot, parent: Sequence[ElectronicState] = ()
) -> tuple[ElectronicState, ...]:
    """States that a committee is to tell apart; none where it is to tell none apart.

    Args:
        config: The campaign.
        snapshot: Labels that it is fitted to.
        parent: States that the committee before it tells apart: they keep their places.
    """
    if not config.tells_states_apart:
        return ()
    is_molecule = ~snapshot.is_arm(Arm.ATOM)
    pairs = np.unique(np.stack([snapshot.charge, snapshot.multiplicity], axis=1)[is_molecule], axis=0)
    found = {ElectronicState(*pair) for pair in pairs.tolist()}
    found |= {ElectronicState(system.charge, system.multiplicity) for system in config.systems}
    assert isinstance(config.model, EquivariantModel)
    if len(found) < 2 and not parent and config.model.states is not True:
        return ()
    return (*parent, *sorted(found - set(parent), key=_from_neutral))


def _from_neutral(state: ElectronicState) -> tuple[int, int, int]:
    return abs(state.charge), state.charge, state.multiplicity


def reference_of(states: Sequence[ElectronicState]) -> int:
    """Place of the state whose energy is that of its atoms: the one that is nearest to neutral singlets."""
    return min(range(len(states)), key=lambda k: _from_neutral(states[k]))


def places_of(snapshot: Snapshot, states: Sequence[ElectronicState]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """``(n_frames,)`` place of each frame's state among some; -1 where it is none of them."""
    rows = np.full(snapshot.n_frames, -1, dtype=np.int64)
    for k, state in enumerate(states):
        rows[(snapshot.charge == state.charge) & (snapshot.multiplicity == state.multiplicity)] = k
    return rows


def knows_states(state: CommitteeState, snapshot: Snapshot) -> bool:
    """Whether a committee can be evaluated in all states of a snapshot; one that tells none apart can in any."""
    known = states_of(state.spec) if state.kind in ("nequip", "allegro") else ()
    return not known or bool((places_of(snapshot, known) >= 0).all())


def energies_of_states(residuals: FloatArray, places: np.ndarray[tuple[int], np.dtype[np.int64]], n: int) -> FloatArray:
    """``(n_states,)`` mean of what is left of energies in each state, eV; 0 where there is no frame.

    Args:
        residuals: ``(n_frames,)`` energies less those of atoms, eV.
        places: ``(n_frames,)`` state of each frame.
        n: States.
    """
    counts = np.bincount(places, minlength=n)
    sums = np.bincount(places, weights=residuals, minlength=n)
    means: FloatArray = np.where(counts > 0, sums / np.maximum(counts, 1), 0.0)
    return means


def with_states(
    parent: CommitteeState, elements: Sequence[str], states: Sequence[ElectronicState], train: Snapshot, seed: int
) -> CommitteeState:
    """A committee that also knows these elements and states, whose energies are those of a training set.

    What it says of states that it knew does not change. One that told none apart knew those that it has learned.

    Args:
        parent: The committee.
        elements: Of the new one; energies of elements that are new are left to the caller.
        states: Of the new one.
        train: The training set, less the baseline where the committee learned a difference.
        seed: Of the weights of new elements.
    """
    from alsys.potentials.elements import for_types  # torch, which campaigns of pair models do without
    from alsys.potentials.nequip import NequIPCommittee

    grown = for_types(parent, elements, states, seed)
    known = states_of(parent.spec) or (() if parent.seen is None else parent.seen.states) or tuple(states[:1])
    whole = thinned(train.select(train.is_whole))
    places = places_of(whole, states)
    is_new = np.array([state not in known for state in states], dtype=np.bool_)
    rows = np.flatnonzero(is_new[places] & (places >= 0)) if is_new.size else np.zeros(0, dtype=np.int64)
    if not rows.size:
        return grown
    new, places = whole.select(rows), places[rows]
    bare = CommitteeState(grown.version, kind_of(grown.spec), grown.spec, grown.members)
    committee = NequIPCommittee(bare)
    predicted = np.concatenate(
        [committee.evaluate_members(batch_of(new.select(chunk))).energies for chunk in chunks_of(new)], axis=1
    )
    members = []
    for member, energies in zip(grown.members, predicted, strict=True):
        more = energies_of_states(new.energy - energies, places, len(states))
        members.append({**member, STATE_ENERGIES: np.asarray(member[STATE_ENERGIES]) + more})
    return replace(grown, members=tuple(members))
