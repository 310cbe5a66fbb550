"""The surrogate of the selection study: a committee of linear force models on random features of local descriptors.

It stands in for a NequIP committee, which cannot be fitted well in seconds on a CPU, and is like one where selection
looks: many-body, local, one network's worth of features for each element, members with seeds and training frames of
their own, forces that are derivatives of an energy. The energy is ``sum_i w_Z(i) . cos(Omega g_i + b)`` with radial
and angular symmetry functions ``g_i`` (J. S. Smith et al., Chem. Sci. 8, 3192 (2017)) and random ``Omega`` (A. Rahimi,
B. Recht, NeurIPS 2007), so a fit is one linear solve and its error has no noise of an optimiser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve
from selection_pools import Pool

from alsys.frames import FloatArray, IntArray
from alsys.selection.batches import standardised
from alsys.selection.frame_features import frame_features

CUTOFF = 5.0
N_FEATURES = 300
"""Random features of an element and member."""
N_MEMBERS = 4
BOOTSTRAP = 0.9
BANDWIDTH = 0.005
"""Scale of Omega: standardised descriptors closer than its inverse look alike."""
RIDGE = 0.03
"""Share of the mean square of a feature's derivative. Set with the bandwidth on 200 random labels of the rare pool."""
CHUNK = 50


@dataclass(frozen=True, slots=True)
class Design:
    """What the models see of a pool.

    Attributes:
        forces: ``(n_members, n_frames, 3 n_atoms, n_weights)`` derivatives of the features in float32.
        target: ``(n_frames, 3 n_atoms)`` forces, eV/Angstrom.
        features: ``(n_frames, d)`` frame features for distances: means of the symmetry functions by element.
    """

    forces: NDArray[np.float32]
    target: FloatArray
    features: FloatArray


def design_of(pool: Pool, n_features: int = N_FEATURES) -> Design:
    """Features and their derivatives for all frames; nothing in it has seen a label."""
    torch.set_num_threads(1)
    numbers, n_frames = pool.numbers, len(pool.positions)
    describe = _Descriptors(numbers)
    both = torch.func.vmap(torch.func.jacfwd(lambda x: (describe(x),) * 2, has_aux=True))
    positions = torch.from_numpy(pool.positions.astype(np.float32))
    sample = positions[np.linspace(0, n_frames - 1, 200).astype(int)]
    values = torch.func.vmap(describe)(sample)
    elements = sorted(set(numbers.tolist()))
    of_element = [np.flatnonzero(numbers == z) for z in elements]
    shift = [values[:, a].reshape(-1, values.shape[-1]).mean(0) for a in of_element]
    scale = [1.0 / values[:, a].reshape(-1, values.shape[-1]).std(0).clamp(min=1e-3) for a in of_element]
    generator = torch.Generator().manual_seed(0)
    shape = (N_MEMBERS, len(elements), n_features)
    omega = BANDWIDTH * torch.randn(*shape, values.shape[-1], generator=generator)
    phase = 2.0 * np.pi * torch.rand(*shape, generator=generator)
    n_weights = len(elements) * n_features
    out = np.empty((N_MEMBERS, n_frames, 3 * len(numbers), n_weights), dtype=np.float32)
    descriptors = []
    for start in range(0, n_frames, CHUNK):
        jacobian, g = both(positions[start : start + CHUNK])
        descriptors.append(g.numpy())
        jacobian = jacobian.reshape(*g.shape, -1)
        for k in range(len(elements)):
            atoms = of_element[k]
            scaled = (g[:, atoms] - shift[k]) * scale[k]
            slopes = jacobian[:, atoms] * scale[k][:, None]
            for member in range(N_MEMBERS):
                sine = torch.sin(scaled @ omega[member, k].T + phase[member, k])
                force = torch.einsum("faw,fawx->fxw", sine, omega[member, k] @ slopes)
                out[member, start : start + CHUNK, :, k * n_features : (k + 1) * n_features] = force.numpy()
    flat = np.concatenate(descriptors).reshape(n_frames * len(numbers), -1)
    counts = np.full(n_frames, len(numbers))
    features = frame_features(flat, np.tile(numbers, n_frames), counts)
    return Design(out, pool.forces.reshape(n_frames, -1), features)


def committees(pool: Pool, n_features: int = N_FEATURES) -> Callable[[int], Committee]:
    """A committee without labels for a seed; distances are those of all frames that may be labelled."""
    design = design_of(pool, n_features)
    frames = np.flatnonzero(~pool.is_test)
    (scaled,) = standardised(design.features[frames])
    is_used = scaled.std(axis=0) > 0
    features = np.full((len(pool.positions), int(is_used.sum())), np.nan)
    features[frames] = scaled[:, is_used] / np.sqrt(is_used.sum())
    return lambda seed: Committee(design, features, seed)


class Committee:
    """Grows with the labels; a frame's members are decided by the seed when it comes in.

    Args:
        design: What the members see.
        features: ``(n_frames, d)`` for distances; NaN for test frames.
        seed: Of the bootstraps.
    """

    def __init__(self, design: Design, features: FloatArray, seed: int) -> None:
        self._design, self._features = design, features
        self._predicted: tuple[FloatArray, FloatArray] | None = None
        self._rng = np.random.default_rng([seed, 4])
        n_weights = design.forces.shape[-1]
        self._ridge = RIDGE * float(np.square(design.forces[0, ::10]).mean())
        self._gram = np.zeros((N_MEMBERS, n_weights, n_weights))
        self._moment = np.zeros((N_MEMBERS, n_weights))

    def learn(self, frames: IntArray) -> None:
        """Takes the labels of these frames in."""
        design = self._design
        self._predicted = None
        is_seen = self._rng.random((N_MEMBERS, len(frames))) < BOOTSTRAP
        for member in range(N_MEMBERS):
            chosen = frames[is_seen[member]]
            rows = design.forces[member][chosen].reshape(-1, design.forces.shape[-1]).astype(np.float64)
            self._gram[member] += rows.T @ rows
            self._moment[member] += rows.T @ design.target[chosen].ravel()

    def errors(self, frames: IntArray) -> FloatArray:
        """``(n,)`` force MAE of the committee's mean, eV/Angstrom."""
        return self._of_all()[0][frames]

    def look(self, frames: IntArray, kernel: str = "committee") -> tuple[FloatArray, FloatArray]:
        """``(n,)`` largest force deviation over atoms, and ``(n, d)`` features whose root mean square is one."""
        assert kernel == "committee", "there is no other"
        return self._of_all()[1][frames], self._features[frames]

    def _of_all(self) -> tuple[FloatArray, FloatArray]:
        if self._predicted is None:
            self._predicted = self._predict()
        return self._predicted

    def _predict(self) -> tuple[FloatArray, FloatArray]:
        """``(n_frames,)`` force MAE of the committee's mean, and largest force deviation over atoms, eV/Angstrom."""
        design = self._design
        n_frames, n_coordinates, n_weights = design.forces.shape[1:]
        ridge = self._ridge * np.eye(n_weights)
        predicted = []
        for member in range(N_MEMBERS):
            weights = solve(self._gram[member] + ridge, self._moment[member], assume_a="pos")
            flat = design.forces[member].reshape(-1, n_weights) @ weights.astype(np.float32)
            predicted.append(flat.reshape(n_frames, n_coordinates).astype(np.float64))
        forces = np.stack(predicted)
        mean = forces.mean(axis=0)
        error = np.abs(mean - design.target).mean(axis=1)
        spread = np.square(forces - mean).reshape(N_MEMBERS, n_frames, -1, 3).sum(axis=-1).mean(axis=0)
        return error, np.sqrt(spread.max(axis=1))


class _Descriptors:
    """Symmetry functions of all atoms of a molecule; all pairs, since the molecule is smaller than the cutoff."""

    def __init__(self, numbers: NDArray[np.int32]) -> None:
        n = len(numbers)
        elements = sorted(set(numbers.tolist()))
        kind = torch.tensor([elements.index(z) for z in numbers.tolist()])
        self._onehot = torch.nn.functional.one_hot(kind, len(elements)).float()
        centre, j, k = np.array(
            [(i, j, k) for i in range(n) for j in range(n) for k in range(j + 1, n) if i not in (j, k)]
        ).T
        pairs = {
            pair: p for p, pair in enumerate((a, b) for a in range(len(elements)) for b in range(a, len(elements)))
        }
        of_pair = [
            pairs[min(int(kind[a]), int(kind[b])), max(int(kind[a]), int(kind[b]))] for a, b in zip(j, k, strict=True)
        ]
        self._centre, self._j, self._k = (torch.from_numpy(a) for a in (centre, j, k))
        slot = torch.from_numpy(centre) * len(pairs) + torch.tensor(of_pair)
        self._to_slot = torch.nn.functional.one_hot(slot, n * len(pairs)).float()
        self._radii = torch.linspace(0.9, 4.1, 12)
        self._means = torch.tensor([1.1, 1.7, 2.4, 3.1])
        self._angles = (torch.arange(4) + 0.5) * (np.pi / 4)
        self._n, self._off = n, ~torch.eye(n, dtype=torch.bool)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """``(n_atoms, d)`` of ``(n_atoms, 3)``."""
        vector = x[None] - x[:, None] + torch.eye(self._n)[:, :, None]
        distance = torch.sqrt(torch.square(vector).sum(-1))
        fade = torch.where(self._off, 0.5 * torch.cos(np.pi * distance / CUTOFF) + 0.5, 0.0)
        fade = torch.where(distance < CUTOFF, fade, 0.0)
        bumps = torch.exp(-8.0 * torch.square(distance[..., None] - self._radii)) * fade[..., None]
        radial = torch.einsum("ijr,je->ier", bumps, self._onehot).reshape(self._n, -1)
        i, j, k = self._centre, self._j, self._k
        rij, rik = distance[i, j], distance[i, k]
        cosine = 0.95 * (vector[i, j] * vector[i, k]).sum(-1) / (rij * rik)
        sine = torch.sqrt(1.0 - torch.square(cosine))
        lobes = cosine[:, None] * torch.cos(self._angles) + sine[:, None] * torch.sin(self._angles)
        lobes = torch.pow(0.5 * (1.0 + lobes), 16.0)
        shells = (
            torch.exp(-6.0 * torch.square(0.5 * (rij + rik)[:, None] - self._means))
            * (fade[i, j] * fade[i, k])[:, None]
        )
        terms = (lobes[:, :, None] * shells[:, None, :]).reshape(len(i), -1)
        return torch.cat([radial, (self._to_slot.T @ terms).reshape(self._n, -1)], dim=1)
