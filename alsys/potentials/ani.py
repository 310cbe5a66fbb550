"""The committee ANI-1x of J. S. Smith et al., J. Chem. Phys. 148, 241733 (2018): eight members for H, C, N and O.

A teacher with known answers that nobody here trained: wB97X/6-31G* energies, weights as published in the wheel of
torchani 2.2.4 (MIT licence). Only its parameter files are read; torchani itself is not imported, since its loader wants
`pkg_resources`, which recent setuptools lack, and an information file that is empty in that wheel. Descriptors are
those of J. S. Smith, O. Isayev, A. E. Roitberg, Chem. Sci. 8, 3192 (2017), equations 2 to 4, with torchani's constants:
radial terms times 1/4, and cosines times 0.95 before the arc cosine.

All members share descriptors. Their derivatives are written out, so one pass gives the forces of each member; columns
of elements that are absent are left out of the first layer. Molecules only.
"""

from __future__ import annotations

import bz2
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from numpy.typing import NDArray
from torch import Tensor

from alsys.errors import InputError
from alsys.frames import FloatArray
from alsys.potentials.base import (
    CommitteePrediction,
    CommitteeState,
    FrameBatch,
    chosen_members,
    committee_prediction,
)
from alsys.units import HARTREE

N_MEMBERS = 8
KIND = "ani"
CELU_ALPHA = 0.1
CELU, LINEAR = 9, 6
"""NeuroChem's numbers of activations."""
COSINE_SCALE = 0.95
_LAYER = re.compile(r"nodes=(\d+);.*?activation=(\d+);.*?blocksize=(\d+);.*?FILE:(\S+?)\[.*?FILE:(\S+?)\[", re.DOTALL)


def ani1x_folder() -> Path:
    """Where torchani keeps the parameters of ANI-1x.

    Raises:
        InputError: torchani is not installed, or holds no parameters.
    """
    remedy = "install the extra `teacher` (torchani 2.2)"
    spec = importlib.util.find_spec("torchani")  # does not import it
    if spec is None or not spec.submodule_search_locations:
        raise InputError("torchani is not installed", remedy=remedy)
    folder = Path(next(iter(spec.submodule_search_locations))) / "resources" / "ani-1x_8x"
    if not (folder / "sae_linfit.dat").exists() or not (folder / "sae_linfit.dat").stat().st_size:
        raise InputError("this torchani holds no parameters of ANI-1x", value=str(folder), remedy=remedy)
    return folder


def ani1x_state(version: int = 1) -> CommitteeState:
    """ANI-1x as data: descriptors' constants, energies of free atoms, and the weights of each member.

    Args:
        version: Model version to give it.

    Raises:
        InputError: torchani is not installed, or its files are not those of ANI-1x.
    """
    folder = ani1x_folder()
    constants: dict[str, Any] = {}
    for line in (folder / "rHCNO-5.2R_16-3.5A_a4-8.params").read_text().splitlines():
        name, _, value = (part.strip() for part in line.partition("="))
        if name == "Atyp":
            constants["elements"] = value.strip("[]").split(",")
        elif value:
            constants[name] = [float(number) for number in value.strip("[]").split(",")]
    elements = constants.pop("elements")
    free = dict.fromkeys(elements, 0.0)
    for line in (folder / "sae_linfit.dat").read_text().splitlines():
        name, _, value = line.partition("=")
        if value:
            free[name.split(",")[0].strip()] = float(value) * HARTREE
    members = tuple(
        {
            f"{symbol}.{name}": values
            for symbol in elements
            for name, values in _network(folder / f"train{k}" / "networks" / f"ANN-{symbol}.nnf").items()
        }
        for k in range(N_MEMBERS)
    )
    spec = {
        "elements": elements,
        "radial_cutoff": constants["Rcr"][0],
        "angular_cutoff": constants["Rca"][0],
        "radial_eta": constants["EtaR"][0],
        "radial_shifts": constants["ShfR"],
        "angular_eta": constants["EtaA"][0],
        "angular_shifts": constants["ShfA"],
        "zeta": constants["Zeta"][0],
        "angles": constants["ShfZ"],
        "free_atoms": [free[symbol] for symbol in elements],
    }
    return CommitteeState(version, KIND, spec, members)


def _network(path: Path) -> dict[str, NDArray[np.float32]]:
    """Weights ``(n_out, n_in)`` and biases of each layer of a NeuroChem network."""
    data = path.read_bytes()
    text = bz2.decompress(data[data.index(b"=") + 2 :]).decode("ascii")  # after the length in clear
    layers = _LAYER.findall(text)
    if [int(layer[1]) for layer in layers] != [CELU] * (len(layers) - 1) + [LINEAR]:
        raise InputError("activations are not those of ANI-1x", value=str(path))
    arrays: dict[str, NDArray[np.float32]] = {}
    for n, (n_out, _, n_in, weights, biases) in enumerate(layers):
        shape = int(n_out), int(n_in)
        arrays[f"{n}.weight"] = np.fromfile(path.with_name(weights), dtype="<f4").reshape(shape)
        arrays[f"{n}.bias"] = np.fromfile(path.with_name(biases), dtype="<f4").reshape(shape[0])
    return arrays


@dataclass(frozen=True, slots=True)
class _Molecule:
    """What depends on the elements of a molecule only.

    Attributes:
        is_of: ``(n_atoms, n_present)`` one where an atom is of an element that is present.
        present_of: ``(n_atoms,)`` index of that element.
        atoms: Atoms of each element.
        centre, first, second: ``(n_triples,)`` all triples of atoms.
        kind: ``(n_triples,)`` unordered pair of elements of the outer two.
        n_kinds: How many pairs there are.
        networks: Of each element, the layers of all members.
        free: Sum of the free atoms' energies, eV.
    """

    is_of: Tensor
    present_of: Tensor
    atoms: tuple[Tensor, ...]
    centre: Tensor
    first: Tensor
    second: Tensor
    kind: Tensor
    n_kinds: int
    networks: tuple[tuple[tuple[Tensor, Tensor], ...], ...]
    free: float


class AniCommittee:
    """Evaluates a committee of ANI networks.

    Args:
        state: As from `ani1x_state`.
        dtype: Precision of all but the sums over free atoms.
    """

    def __init__(self, state: CommitteeState, dtype: torch.dtype = torch.float32) -> None:
        self._dtype = dtype
        self._molecule = lru_cache(maxsize=64)(self._molecule_of)
        self.load(state)

    @property
    def version(self) -> int:
        """Version of the weights in use."""
        return self._state.version

    def load(self, state: CommitteeState) -> None:
        """Takes new weights and constants."""
        self._state, spec = state, state.spec
        self._elements = [atomic_numbers[str(symbol)] for symbol in _list(spec, "elements")]
        self._radial_shifts, self._angular_shifts, angles = (
            torch.tensor(_list(spec, name), dtype=self._dtype) for name in ("radial_shifts", "angular_shifts", "angles")
        )
        self._cos, self._sin = torch.cos(angles), torch.sin(angles)
        self._n_radial, self._n_angular = len(self._radial_shifts), len(self._angular_shifts) * len(angles)
        self._radial_eta, self._angular_eta, self._zeta, self._radial_cutoff, self._angular_cutoff = (
            float(spec[name])  # type: ignore[arg-type]
            for name in ("radial_eta", "angular_eta", "zeta", "radial_cutoff", "angular_cutoff")
        )
        self._molecule.cache_clear()

    @torch.no_grad()
    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        """Mean energies (eV) and forces (eV/Angstrom), and their spread over members.

        Args:
            batch: Frames; those with the same atoms in the same order are evaluated together.
            members: Which members to evaluate; None for all.

        Raises:
            InputError: An element that the model does not know, a periodic frame, or a member that is not there.
        """
        if batch.pbc.any():
            raise InputError("molecules only", field="pbc", value=True)
        chosen = tuple(chosen_members(members, self._state.n_members))
        energies = np.zeros((len(chosen), batch.n_frames))
        forces = np.zeros((len(chosen), batch.numbers.size, 3))
        features: FloatArray | None = None
        starts = np.concatenate([[0], np.cumsum(batch.n_atoms)])
        alike: dict[bytes, list[int]] = {}
        for k in range(batch.n_frames):
            alike.setdefault(batch.numbers[starts[k] : starts[k + 1]].tobytes(), []).append(k)
        for numbers, frames in alike.items():
            rows = (starts[frames][:, None] + np.arange(batch.n_atoms[frames[0]])).ravel()
            positions = torch.as_tensor(batch.positions[rows], dtype=self._dtype).reshape(len(frames), -1, 3)
            molecule = self._molecule(numbers, chosen)
            energy, force, hidden = self._energies_and_forces(molecule, positions, len(chosen))
            energies[:, frames], forces[:, rows] = energy + molecule.free, force
            if 0 in chosen:
                features = np.zeros((batch.numbers.size, hidden.shape[2])) if features is None else features
                features[rows] = hidden[chosen.index(0)]
        return committee_prediction(batch, energies, forces, features, n_members=self._state.n_members)

    def _molecule_of(self, numbers: bytes, members: tuple[int, ...]) -> _Molecule:
        symbols = np.frombuffer(numbers, dtype=np.int32)
        unknown = sorted({int(z) for z in symbols} - set(self._elements))
        if unknown:
            raise InputError("the model does not know these elements", field="numbers", value=unknown)
        element = np.array([self._elements.index(z) for z in symbols])
        present = sorted(set(element.tolist()))
        present_of = np.array([present.index(e) for e in element])
        n_atoms, n_present, n_all = len(symbols), len(present), len(self._elements)
        first, second = np.triu_indices(n_atoms, k=1)
        centre = np.repeat(np.arange(n_atoms), first.size)
        first, second = np.tile(first, n_atoms), np.tile(second, n_atoms)
        is_triple = (centre != first) & (centre != second)
        centre, first, second = centre[is_triple], first[is_triple], second[is_triple]
        kinds = _kinds(n_present)
        columns = [np.arange(e * self._n_radial, (e + 1) * self._n_radial) for e in present]
        offset, all_kinds = n_all * self._n_radial, _kinds(n_all)
        for i, j in zip(*np.triu_indices(n_present), strict=True):
            at = offset + all_kinds[present[i], present[j]] * self._n_angular
            columns.append(np.arange(at, at + self._n_angular))
        names = [str(symbol) for symbol in _list(self._state.spec, "elements")]
        free = np.array(_list(self._state.spec, "free_atoms"), dtype=np.float64)
        return _Molecule(
            is_of=torch.tensor(np.eye(n_present)[present_of], dtype=self._dtype),
            present_of=torch.tensor(present_of),
            atoms=tuple(torch.tensor(np.flatnonzero(present_of == k)) for k in range(n_present)),
            centre=torch.tensor(centre),
            first=torch.tensor(first),
            second=torch.tensor(second),
            kind=torch.tensor(kinds[present_of[first], present_of[second]]),
            n_kinds=n_present * (n_present + 1) // 2,
            networks=tuple(self._layers(names[e], members, np.concatenate(columns)) for e in present),
            free=float(free[element].sum()),
        )

    def _layers(
        self, symbol: str, members: tuple[int, ...], columns: NDArray[np.int64]
    ) -> tuple[tuple[Tensor, Tensor], ...]:
        """``(n_members, n_in, n_out)`` weights and ``(n_members, 1, n_out)`` biases; the first layer's used columns."""
        chosen = [self._state.members[k] for k in members]
        layers = []
        n = 0
        while f"{symbol}.{n}.weight" in chosen[0]:
            weight = np.stack([np.asarray(member[f"{symbol}.{n}.weight"]) for member in chosen])
            bias = np.stack([np.asarray(member[f"{symbol}.{n}.bias"]) for member in chosen])
            weight = weight[:, :, columns] if n == 0 else weight
            layers.append(
                (
                    torch.tensor(weight, dtype=self._dtype).transpose(1, 2).contiguous(),
                    torch.tensor(bias, dtype=self._dtype)[:, None],
                )
            )
            n += 1
        return tuple(layers)

    def _energies_and_forces(
        self, molecule: _Molecule, positions: Tensor, n_members: int
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """``(n_members, n_frames)`` energies without free atoms, ``(n_members, n, 3)`` forces, and features."""
        n_frames, n_atoms, _ = positions.shape
        n_present = molecule.is_of.shape[1]
        vector = positions[:, :, None] - positions[:, None]
        distance = vector.norm(dim=3)
        distance.diagonal(dim1=1, dim2=2).fill_(10.0 * self._radial_cutoff)  # no atom is its own neighbour
        radial, radial_slope = self._radial(distance)
        by_element = torch.einsum("wijr,js->wisr", radial, molecule.is_of)
        triples = self._triples(molecule, vector, distance)
        angular = positions.new_zeros((n_frames * n_atoms * molecule.n_kinds, self._n_angular))
        angular.index_add_(0, triples.row, torch.einsum("ta,tz->taz", triples.radial, triples.angle).flatten(1))
        n_columns = n_present * self._n_radial
        descriptors = torch.cat([by_element.flatten(2), angular.reshape(n_frames, n_atoms, -1)], dim=2)
        energy, slope, hidden = _networks(molecule, descriptors, n_members)

        by_radial = slope[..., :n_columns].reshape(n_frames, n_atoms, n_members, n_present, self._n_radial)
        by_distance = torch.einsum("wimsr,js,wijr->wmij", by_radial, molecule.is_of, radial_slope)
        by_distance = (by_distance + by_distance.transpose(2, 3)) / distance[:, None]
        force = -torch.einsum("wmij,wijx->wimx", by_distance, vector).flatten(0, 1)
        by_angular = slope[..., n_columns:].reshape(n_frames, n_atoms, n_members, molecule.n_kinds, self._n_angular)
        self._add_triples(force, triples, by_angular.transpose(2, 3).flatten(0, 2), n_members)
        return (
            HARTREE * energy.double().numpy(),
            HARTREE * force.transpose(0, 1).double().numpy(),
            hidden.double().numpy(),
        )

    def _radial(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Radial terms ``(..., n_radial)`` and their derivatives by the distance."""
        shifted = distance[..., None] - self._radial_shifts
        gauss = 0.25 * torch.exp(-self._radial_eta * shifted * shifted)
        cutoff, cutoff_slope = (part[..., None] for part in _cutoff(distance, self._radial_cutoff))
        return gauss * cutoff, gauss * (cutoff_slope - 2.0 * self._radial_eta * shifted * cutoff)

    def _triples(self, molecule: _Molecule, vector: Tensor, distance: Tensor) -> _Triples:
        """All triples within the angular cutoff."""
        n_atoms = distance.shape[1]
        is_near = distance < self._angular_cutoff
        centre, first, second = molecule.centre, molecule.first, molecule.second
        frame, n = (is_near[:, centre, first] & is_near[:, centre, second]).nonzero(as_tuple=True)
        i, j, k = centre[n], first[n], second[n]
        one, other = -vector[frame, i, j], -vector[frame, i, k]
        r_one, r_other = distance[frame, i, j], distance[frame, i, k]
        cosine = (one * other).sum(1) / (r_one * r_other)
        scaled = (COSINE_SCALE * cosine)[:, None]
        sine = torch.sqrt(1.0 - scaled * scaled)
        base = 0.5 + 0.5 * (scaled * self._cos + sine * self._sin)
        base_slope = 0.5 * COSINE_SCALE * (self._cos - scaled / sine * self._sin)
        power = base ** (self._zeta - 1.0)
        shifted = 0.5 * (r_one + r_other)[:, None] - self._angular_shifts
        gauss = 2.0 * torch.exp(-self._angular_eta * shifted * shifted)
        gauss_slope = -self._angular_eta * shifted * gauss  # by either distance
        (cut_one, cut_one_slope), (cut_other, cut_other_slope) = (
            tuple(part[:, None] for part in _cutoff(r, self._angular_cutoff)) for r in (r_one, r_other)
        )
        return _Triples(
            row=(frame * n_atoms + i) * molecule.n_kinds + molecule.kind[n],
            centre=frame * n_atoms + i,
            first=frame * n_atoms + j,
            second=frame * n_atoms + k,
            unit_first=one / r_one[:, None],
            unit_second=other / r_other[:, None],
            r_first=r_one[:, None],
            r_second=r_other[:, None],
            cosine=cosine[:, None],
            radial=gauss * cut_one * cut_other,
            by_first=(gauss_slope * cut_one + gauss * cut_one_slope) * cut_other,
            by_second=(gauss_slope * cut_other + gauss * cut_other_slope) * cut_one,
            angle=power * base,
            by_cosine=self._zeta * power * base_slope,
        )

    def _add_triples(self, force: Tensor, triples: _Triples, slope: Tensor, n_members: int) -> None:
        """Adds forces of angular terms to ``(n_total, n_members, 3)``.

        Args:
            force: Where they are added.
            triples: All of them.
            slope: ``(n_rows, n_members, n_angular)`` derivatives of energies by angular descriptors.
            n_members: Members.
        """
        n_triples, n_shifts = triples.radial.shape
        of_triple = slope[triples.row].reshape(n_triples, n_members * n_shifts, -1)
        both = torch.stack([triples.angle, triples.by_cosine], dim=2)
        contracted = torch.bmm(of_triple, both).reshape(n_triples, n_members, n_shifts, 2)
        by_angle, by_cosine = contracted[..., 0], contracted[..., 1]
        lengths = torch.bmm(by_angle, torch.stack([triples.by_first, triples.by_second], dim=2))
        turn = torch.bmm(by_cosine, triples.radial[:, :, None])
        for atoms, unit, other, r, k in (
            (triples.first, triples.unit_first, triples.unit_second, triples.r_first, 0),
            (triples.second, triples.unit_second, triples.unit_first, triples.r_second, 1),
        ):
            across = (other - triples.cosine * unit) / r
            pull = lengths[:, :, k, None] * unit[:, None] + turn * across[:, None]
            force.index_add_(0, atoms, pull, alpha=-1.0)
            force.index_add_(0, triples.centre, pull)


@dataclass(frozen=True, slots=True)
class _Triples:
    """Angular terms of triples of atoms within the cutoff, as factors.

    Attributes:
        row: ``(n_triples,)`` row of the angular descriptors.
        centre, first, second: ``(n_triples,)`` atoms in the batch.
        unit_first, unit_second: ``(n_triples, 3)`` from the centre to the outer atoms.
        r_first, r_second, cosine: ``(n_triples, 1)``, Angstrom, and of the angle.
        radial, by_first, by_second: ``(n_triples, n_shifts)`` and derivatives by the distances.
        angle, by_cosine: ``(n_triples, n_angles)`` and derivative by the cosine.
    """

    row: Tensor
    centre: Tensor
    first: Tensor
    second: Tensor
    unit_first: Tensor
    unit_second: Tensor
    r_first: Tensor
    r_second: Tensor
    cosine: Tensor
    radial: Tensor
    by_first: Tensor
    by_second: Tensor
    angle: Tensor
    by_cosine: Tensor


def _networks(molecule: _Molecule, descriptors: Tensor, n_members: int) -> tuple[Tensor, Tensor, Tensor]:
    """``(n_members, n_frames)`` energies, their derivatives by descriptors, and values of the last hidden layer.

    Derivatives are ``(n_frames, n_atoms, n_members, n_columns)``, values ``(n_members, n, n_features)``. Hartree.
    """
    n_frames, n_atoms, n_columns = descriptors.shape
    energy = descriptors.new_zeros((n_members, n_frames))
    slope = descriptors.new_empty((n_frames, n_atoms, n_members, n_columns))
    hidden = descriptors.new_zeros((n_members, n_frames, n_atoms, max(n[-1][0].shape[1] for n in molecule.networks)))
    for atoms, layers in zip(molecule.atoms, molecule.networks, strict=True):
        values = descriptors[:, atoms].reshape(1, -1, n_columns).expand(n_members, -1, -1)
        slopes = []
        for weight, bias in layers[:-1]:
            before = torch.baddbmm(bias, values, weight)
            values = torch.nn.functional.celu(before, CELU_ALPHA)
            slopes.append(torch.exp(before.clamp(max=0.0) / CELU_ALPHA))
        hidden[:, :, atoms, : values.shape[2]] = values.reshape(n_members, n_frames, -1, values.shape[2])
        weight, bias = layers[-1]
        energy += torch.baddbmm(bias, values, weight).reshape(n_members, n_frames, -1).sum(dim=2)
        back = weight.transpose(1, 2).expand(-1, values.shape[1], -1)
        for (before_weight, _), derivative in zip(reversed(layers[:-1]), reversed(slopes), strict=True):
            back = torch.bmm(back * derivative, before_weight.transpose(1, 2))
        slope[:, atoms] = back.reshape(n_members, n_frames, -1, n_columns).permute(1, 2, 0, 3)
    return energy, slope, hidden.flatten(1, 2)


def _cutoff(distance: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """The cosine cutoff and its derivative; both vanish beyond."""
    phase = (np.pi / radius) * distance
    is_near = distance < radius
    value = torch.where(is_near, 0.5 * torch.cos(phase) + 0.5, 0.0)
    return value, torch.where(is_near, (-0.5 * np.pi / radius) * torch.sin(phase), 0.0)


def _kinds(n_elements: int) -> NDArray[np.int64]:
    """``(n_elements, n_elements)`` index of each unordered pair of elements."""
    kinds = np.zeros((n_elements, n_elements), dtype=np.int64)
    upper = np.triu_indices(n_elements)
    kinds[upper] = np.arange(upper[0].size)
    return np.maximum(kinds, kinds.T)


def _list(spec: Mapping[str, object], name: str) -> list[Any]:
    value = spec[name]
    if not isinstance(value, Sequence):
        raise InputError("must be a list", field=name, value=value)
    return list(value)
