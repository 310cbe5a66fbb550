"""Constants of a fresh model: energy shifts of its elements and states, and its energy scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols

from alsys.frames import FloatArray
from alsys.potentials.architectures import STATE_ENERGIES, states_of, type_names_of
from alsys.potentials.devices import fetched, number, placed
from alsys.potentials.nequip import (
    build_model,
    elements_of,
)
from alsys.potentials.tracing import evaluating
from alsys.store.base import Snapshot
from alsys.training.dataset import Split, atomic_energies
from alsys.training.evaluate import chunks_of
from alsys.training.states import energies_of_states, places_of, reference_of
from alsys.training.step import SCALES, SHIFTS
from alsys.training.tensors import TrainingFrames


def first_constants(
    spec: Mapping[str, object], parts: Split, frames: TrainingFrames, kind: Literal["isolated", "fitted"]
) -> tuple[list[float], float, FloatArray]:
    """See `shifts_and_scale`; of what is left for the network to learn where a repulsion of nuclei is added.

    Shifts are those of a model's types; after them come energies of its states, eV, beyond those of their atoms.
    """
    train = parts.train if not spec.get("zbl") else less_repulsion(parts.train, frames, spec)
    energies = atomic_energies(parts.atoms, train, kind)
    elements, states = elements_of(spec), states_of(spec)
    if not states:
        return *shifts_and_scale(train, elements, energies), np.zeros(0)
    reference, places = reference_of(states), places_of(train, states)
    of_reference = train.select(places == reference)
    _, scale = shifts_and_scale(train, elements, energies)
    shifts, _ = shifts_and_scale(of_reference if of_reference.is_whole.any() else train, elements, energies)
    by_number = {atomic_numbers[symbol]: shift for symbol, shift in zip(elements, shifts, strict=True)}
    whole = train.select(train.is_whole)
    atoms = np.bincount(
        np.repeat(np.arange(whole.n_frames), whole.n_atoms),
        weights=[by_number[int(z)] for z in whole.numbers],
        minlength=whole.n_frames,
    )
    of_states = energies_of_states(whole.energy - atoms, places_of(whole, states), len(states))
    of_states[reference] = 0.0
    return shifts * len(states), scale, of_states


def shifts_and_scale(train: Snapshot, elements: list[str], energies: dict[int, float]) -> tuple[list[float], float]:
    """Energy shift of each element (eV) and one scale (eV: the root mean square force times 1 Angstrom).

    An element with neither a free atom nor a training frame gets a shift of zero. Masked atoms and the energies of
    frames that hold any do not enter; where all frames do, shifts are the energies of free atoms.
    """
    whole, forces = train.select(train.is_whole), train.forces[train.mask]
    constant = 0.0
    if whole.n_frames:
        free = np.array([energies[int(z)] for z in whole.numbers])
        constant = float((whole.energy.sum() - free.sum()) / whole.n_atoms.sum())
    scale = max(float(np.sqrt(np.square(forces).mean())), 1e-3) if forces.size else 1e-3
    by_symbol = {chemical_symbols[z]: energy + constant for z, energy in energies.items()}
    return [by_symbol.get(symbol, 0.0) for symbol in elements], scale


def less_repulsion(train: Snapshot, frames: TrainingFrames, spec: Mapping[str, object]) -> Snapshot:
    """The labels of `train`, whose tensors are `frames`, less a model's ZBL term, by a model of scale zero."""
    model = build_model(spec).to(frames.device)
    set_buffers(model, [0.0] * len(type_names_of(spec)), 0.0)
    model.eval()
    energies, forces = [], []
    for rows in chunks_of(train):
        with evaluating():
            out = model(dict(frames.batch(rows).data))
        energy, force = fetched([out["total_energy"].double(), out["forces"].double()])
        energies.append(energy.reshape(-1))
        forces.append(force)
    return replace(train, energy=train.energy - np.concatenate(energies), forces=train.forces - np.concatenate(forces))


def set_buffers(
    model: torch.nn.Module, shifts: list[float], scale: float, state_energies: FloatArray | None = None
) -> None:
    """Gives a model energy shifts of its types, one scale, and energies of its states, eV."""
    state = model.state_dict()
    if state_energies is not None and STATE_ENERGIES in state:
        state[STATE_ENERGIES].copy_(placed([state_energies])[0])
    for name, values in ((SHIFTS, shifts), (SCALES, [scale] * len(shifts))):
        state[name].copy_(placed([np.array(values)])[0].to(state[name].dtype).reshape(state[name].shape))


def force_scale(model: torch.nn.Module) -> float:
    """The model's energy scale, eV: the root mean square force times 1 Angstrom where it began."""
    return max(number(model.state_dict()[SCALES].abs().mean()), 1e-3)
