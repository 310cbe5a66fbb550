"""The graph that is compiled equals NequIP's own, whatever the architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from alsys.config.models import AllegroModel
from alsys.errors import InputError
from alsys.frames import Frame
from alsys.potentials.architectures import kind_of
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.compiled import graph_of
from alsys.potentials.nequip import (
    NequIPCommittee,
    blank_model,
    build_model,
    input_of,
    load_weights,
    type_lookup,
    weights_of,
)
from alsys.potentials.undirected import inputs_of

SPEC = {
    "elements": ["H", "C", "O"],
    "r_max": 4.0,
    "num_layers": 2,
    "l_max": 1,
    "num_features": 4,
    "parity": True,
    "dtype": "float64",
    "avg_num_neighbors": 5.0,
}


ALLEGRO = {
    **AllegroModel(
        kind="allegro", r_max=4.0, l_max=1, num_scalar_features=6, num_tensor_features=3, embedding_mlp_width=8,
        layer_mlp_width=8, readout_mlp_width=5, dtype="float64",
    ).spec(["H", "C", "O"]),
    "avg_num_neighbors": 5.0,
}  # fmt: skip


def frames() -> list[Frame]:
    """A molecule, a crystal cell smaller than the cutoff, an atom alone, a slab."""
    rng = np.random.default_rng(0)
    ethanol, diamond = molecule("CH3CH2OH"), bulk("C", "diamond", a=3.5)
    positions = diamond.positions + rng.normal(0, 0.1, (2, 3))
    cell = diamond.cell.array + rng.normal(0, 0.1, (3, 3))
    return [
        Frame.molecule(ethanol.numbers, ethanol.positions + rng.normal(0, 0.05, (9, 3))),
        Frame(diamond.numbers, positions, cell, np.array([True, True, True])),
        Frame.molecule([6], [[0.0, 0.0, 0.0]]),
        Frame(diamond.numbers, positions, 2.0 * cell, np.array([True, True, False])),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"l_max": 2, "num_layers": 3},
        {"num_features": 2},  # fewer features than elements: self-connections as NequIP has them
        {"parity": False, "num_layers": 3},
        {"num_features": [6, 2], "type_embed_num_features": 5, "radial_mlp_depth": 2, "radial_mlp_width": 16},
        {"num_bessels": 5, "bessel_trainable": True, "polynomial_cutoff_p": 4},
        {"zbl": True},
        {"cutoffs": {"H-C": 2.5, "C-O": 3.0}, "zbl": True},
        ALLEGRO,
        {**ALLEGRO, "zbl": True, "cutoffs": {"H-C": 2.5}, "readout_mlp_depth": 0},
    ],
    ids=lambda change: "-".join(change),
)
def test_it_says_what_nequip_says(change: dict[str, object]) -> None:
    spec = change if "elements" in change else {**SPEC, **change}
    if "architecture" in spec:
        pytest.importorskip("allegro", reason="needs nequip-allegro")
    weights = weights_of(build_model(spec, seed=3))
    committee = NequIPCommittee(CommitteeState(1, kind_of(spec), spec, (weights,)))
    model = blank_model(spec)
    load_weights(model, weights)
    graph = graph_of(model)
    for chosen in ([0], [1], [2], [0, 1, 2, 3]):
        batch = FrameBatch.of([frames()[k] for k in chosen])
        n_frames, n_total = batch.n_frames, batch.numbers.size
        expected = committee.evaluate(batch)
        energy, forces, features, virial = (
            v.numpy() for v in graph(*inputs_of(batch, type_lookup(["H", "C", "O"]), 4.0))
        )
        np.testing.assert_allclose(energy[:n_frames, 0], expected.energy, rtol=0, atol=1e-12)
        np.testing.assert_allclose(forces[:n_total], expected.forces, rtol=0, atol=1e-12)
        np.testing.assert_allclose(features[:n_total], expected.features, rtol=0, atol=1e-12)
        for k in np.flatnonzero(batch.pbc.any(axis=1)):
            volume = abs(np.linalg.det(batch.cell[k]))
            np.testing.assert_allclose(virial[k] / volume, expected.stress[k], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "change", [{}, {"zbl": True, "cutoffs": {"H-C": 2.5}}, ALLEGRO], ids=["plain", "zbl", "allegro"]
)
def test_gradients_by_weights_are_those_of_the_model(change: dict[str, object]) -> None:
    """Of a loss of energies, forces and virials, where the graph is trained with."""
    spec = change if "elements" in change else {**SPEC, **change}
    if "architecture" in spec:
        pytest.importorskip("allegro", reason="needs nequip-allegro")
    batch, lookup = FrameBatch.of(frames()), type_lookup(["H", "C", "O"])
    gradients = []
    for is_graph in (True, False):
        model = build_model(spec, seed=3).train()
        parameters = [p for p in model.parameters() if p.requires_grad]
        if is_graph:
            energy, forces, _, virial = graph_of(model, is_trained=True)(*inputs_of(batch, lookup, 4.0))
        else:
            out = model(input_of(batch, lookup, 4.0))
            energy, forces, virial = out["total_energy"], out["forces"], -out["virial"]
        loss = energy.square().sum() + forces.square().sum() + virial[1::2].square().sum()
        gradients.append(torch.autograd.grad(loss, parameters))
    for mine, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-8, atol=1e-9 * float(other.abs().max()))


def test_a_ghost_follows_where_a_size_would_be_one() -> None:
    lookup = type_lookup(["H", "C", "O"])
    dimer = Frame.molecule([1, 1], [[0, 0, 0], [0, 0, 0.8]])
    for batch, n_more in (([frames()[0]], 1), ([frames()[2]] * 2, 1), ([dimer, frames()[2]], 1), ([dimer, dimer], 0)):
        vectors, pairs, types, frame_of_atom, n_atoms = inputs_of(FrameBatch.of(batch), lookup, 4.0)
        assert len(n_atoms) == len(batch) + n_more >= 2
        assert pairs.shape[1] == vectors.shape[0] >= 2
        assert int(n_atoms.sum()) == len(types) == len(frame_of_atom)
        assert int(pairs.max()) < len(types)


def test_unknown_elements_are_refused() -> None:
    with pytest.raises(InputError, match="does not know"):
        inputs_of(FrameBatch.of([Frame.molecule([7], [[0, 0, 0]])]), type_lookup(["H"]), 4.0)
