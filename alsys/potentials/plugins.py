"""Potentials of other packages: found by the entry points of the group `alsys.potentials`.

A package brings a network that makes atomic energies of a graph; alsys does the rest: neighbour lists, energies of free
atoms and the scale of energies, forces and stresses as derivatives, committees, training, bundles. See
`docs/potentials.md`, `examples/plugins/painn` and the contract `alsys.testing.plugins.PotentialContract`.

    class MyPotential:
        settings_model = MySettings                       # a pydantic model

        @staticmethod
        def check(settings, elements): ...                # raises InputError

        @staticmethod
        def build(settings, network): ...                 # a torch.nn.Module: Graph -> (n_atoms,)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from ase.data import atomic_numbers
from pydantic import BaseModel

from alsys.config.models import PluginModel
from alsys.plugins import POTENTIALS, settings_of


@dataclass(frozen=True, slots=True)
class NetworkOrder:
    """What a network is built for.

    Attributes:
        elements: Symbols; `Graph.types` counts them.
        numbers: Their atomic numbers.
        r_max: Cutoff, Angstrom: longest edge of a graph.
        n_neighbours: Mean number of neighbours of an atom in the training set.
        dtype: Of weights; vectors of a graph come in it.
    """

    elements: tuple[str, ...]
    numbers: tuple[int, ...]
    r_max: float
    n_neighbours: float
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Graph:
    """Atoms of one or more frames and the pairs of them that are closer than the cutoff.

    Attributes:
        types: ``(n_atoms,)`` index into the elements.
        edges: ``(2, n_edges)`` centre and neighbour, each pair in both directions.
        vectors: ``(n_edges, 3)`` from centre to neighbour, Angstrom; images of periodic cells included.
        frame: ``(n_atoms,)`` frame of each atom.
        n_frames: Frames.
    """

    types: torch.Tensor
    edges: torch.Tensor
    vectors: torch.Tensor
    frame: torch.Tensor
    n_frames: int

    @property
    def n_atoms(self) -> int:
        """Atoms of all frames."""
        return int(self.types.shape[0])


class PotentialPlugin(Protocol):
    """What the class behind an entry point has; nothing of it is called on an instance."""

    settings_model: type[BaseModel]

    @staticmethod
    def check(settings: Any, elements: Sequence[str]) -> None:
        """Refuses what cannot be built, before a campaign starts.

        Raises:
            InputError: Names the setting.
        """

    @staticmethod
    def build(settings: Any, order: NetworkOrder) -> torch.nn.Module:
        """A network with fresh random weights, which torch's generator has been seeded for.

        It takes a `Graph` and returns ``(n_atoms,)`` energies, without unit: alsys multiplies them by a scale, the root
        mean square force times 1 Angstrom, and adds the energy of each element. They must be smooth in the vectors,
        vanish smoothly with an edge at the cutoff, and be the same for rotated, mirrored and permuted atoms.
        """


def load_potential(name: str) -> type[PotentialPlugin]:
    """The class of an installed potential.

    Raises:
        InputError: No such potential is installed.
        EnvironmentProblem: It is installed and broken.
    """
    found: type[PotentialPlugin] = POTENTIALS.load(name)
    return found


def check_plugin(config: PluginModel, elements: Sequence[str]) -> None:
    """Refuses a potential that is not installed, or settings that it refuses.

    Raises:
        InputError: Names the field.
        EnvironmentProblem: It is installed and broken.
    """
    potential, settings = POTENTIALS.chosen(config)
    potential.check(settings, elements)


def build_plugin(spec: Mapping[str, Any], seed: int) -> torch.nn.Module:
    """A model with zero shifts and unit scales.

    Args:
        spec: `alsys.potentials.architectures.PLUGIN_KEYS`.
        seed: Of the initial weights.

    Raises:
        InputError: The potential is not installed, or refuses its settings.
        EnvironmentProblem: It is installed and broken.
    """
    name = str(spec["architecture"])
    potential = load_potential(name)
    settings = settings_of(potential.settings_model, spec["settings"], name=name, field="spec.settings")
    elements = tuple(spec["elements"])
    dtype = torch.float64 if spec["dtype"] == "float64" else torch.float32
    order = NetworkOrder(
        elements,
        tuple(atomic_numbers[symbol] for symbol in elements),
        float(spec["r_max"]),
        float(spec["avg_num_neighbors"]),
        dtype,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = potential.build(settings, order).to(dtype)
    return _Model(network, len(elements), dtype)


class _Model(torch.nn.Module):
    """A network with the input and output fields of NequIP's models, and the names of their shifts and scales."""

    def __init__(self, network: torch.nn.Module, n_elements: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = torch.nn.Module()
        self.model.func = _Energies(network, n_elements)
        self._dtype = dtype

    def forward(self, data: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Energies (eV), forces (eV/Angstrom), and of periodic frames virials (eV) and stresses (eV/Angstrom^3).

        ``virial`` is minus stress times volume, as NequIP has it.
        """
        with torch.enable_grad():
            return self._forward(data)

    def _forward(self, data: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        frame, edges, types = data["batch"], data["edge_index"], data["atom_types"]
        n_frames = int(data["num_atoms"].shape[0])
        positions = data["pos"].detach().clone().requires_grad_()
        moved, cell, strain = positions, None, None
        if "cell" in data:
            strain = positions.new_zeros((n_frames, 3, 3)).requires_grad_()
            symmetric = 0.5 * (strain + strain.transpose(1, 2))
            moved = positions + torch.einsum("ax,axy->ay", positions, symmetric[frame])
            cell = data["cell"].reshape(-1, 3, 3)
            cell = cell + cell @ symmetric
        vectors = moved[edges[1]] - moved[edges[0]]
        if cell is not None:
            vectors = vectors + torch.einsum("ex,exy->ey", data["edge_cell_shift"], cell[frame[edges[0]]])
        graph = Graph(types, edges, vectors.to(self._dtype), frame, n_frames)
        atomic = self.model.get_submodule("func")(graph)
        energy = atomic.new_zeros(n_frames).index_add(0, frame, atomic)
        wanted = [positions] if strain is None else [positions, strain]
        gradients = torch.autograd.grad(energy.sum(), wanted, create_graph=self.training, materialize_grads=True)
        out = {
            "total_energy": energy.reshape(-1, 1),
            "atomic_energy": atomic.reshape(-1, 1),
            "forces": -gradients[0],
        }
        if strain is not None and cell is not None:
            out["virial"] = -gradients[1]
            volume = torch.linalg.det(cell.detach()).abs().reshape(-1, 1, 1)
            out["stress"] = gradients[1] / volume
        return out


class _Energies(torch.nn.Module):
    """Atomic energies, eV."""

    def __init__(self, network: torch.nn.Module, n_elements: int) -> None:
        super().__init__()
        self.network = network
        self.per_type_energy_scale_shift = _ShiftAndScale(n_elements)

    def forward(self, graph: Graph) -> torch.Tensor:
        """``(n_atoms,)``, eV."""
        energies: torch.Tensor = self.per_type_energy_scale_shift(self.network(graph).reshape(-1), graph.types)
        return energies


class _ShiftAndScale(torch.nn.Module):
    """Energies in eV of those that a network makes, in float64."""

    shifts: torch.Tensor
    scales: torch.Tensor

    def __init__(self, n_elements: int) -> None:
        super().__init__()
        self.register_buffer("shifts", torch.zeros((n_elements, 1), dtype=torch.float64))
        self.register_buffer("scales", torch.ones((n_elements, 1), dtype=torch.float64))

    def forward(self, energies: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """``(n_atoms,)``, eV."""
        return energies.double() * self.scales[types, 0] + self.shifts[types, 0]
