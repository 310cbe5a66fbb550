"""What a fit minimises: a pure function of a model's output, the labels of a batch and weights.

Errors are those of the energy per atom (eV), of force components (eV/Angstrom) and of the components of the virial per
atom, stress times volume over atoms (eV), which unlike a stress does not shrink with the vacuum in a cell. Each kind
is averaged over what may be learned from in the batch: masked atoms, energies and virials of frames that hold any, and
virials that no label gives are taken out before anything is computed with them, so that neither the loss nor a gradient
depends on them to the last bit. Frames on both sides of a minimum enter with the difference of their force errors only
(`alsys.training.curvature`). A frame's weight multiplies its errors and does not enter the averages: a frame of weight
0.2 pulls a fifth as hard, in a batch of its own too. NequIP's own loss is a Lightning metric and knows neither masks
nor frame weights (docs/design/023-models.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from alsys.config.loss import LossSettings
from alsys.training.tensors import TrainingBatch

LossKind = Literal["mse", "huber", "l1"]


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weights of the three kinds of error.

    Attributes:
        energy: Of the error of the energy per atom.
        force: Of the errors of force components.
        stress: Of the errors of the components of stress times volume per atom.
    """

    energy: float
    force: float
    stress: float = 0.0


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss whose weights depend on how far a fit is.

    Attributes:
        first: Weights at the beginning.
        last: Weights at the end.
        kind: How an error counts.
        huber_delta: Where ``huber`` turns from squared to linear, in the unit of each error.
    """

    first: LossWeights
    last: LossWeights
    kind: LossKind = "mse"
    huber_delta: float = 0.01

    @classmethod
    def of(cls, settings: LossSettings) -> Objective:
        """The loss that a campaign's section ``training`` describes."""
        s = settings
        first = LossWeights(s.energy_weight, s.force_weight, s.stress_weight)
        finals = (s.energy_weight_final, s.force_weight_final, s.stress_weight_final)
        last = LossWeights(
            *(
                begin if end is None else end
                for begin, end in zip((first.energy, first.force, first.stress), finals, strict=True)
            )
        )
        return cls(first, last, s.loss, s.huber_delta)

    def weights(self, progress: float) -> LossWeights:
        """Weights at `progress`, the share of the fit that is done: straight lines in their logarithms."""
        x = min(max(progress, 0.0), 1.0)
        return LossWeights(
            _between(self.first.energy, self.last.energy, x),
            _between(self.first.force, self.last.force, x),
            _between(self.first.stress, self.last.stress, x),
        )

    def __call__(self, output: Mapping[str, torch.Tensor], batch: TrainingBatch, progress: float = 0.0) -> torch.Tensor:
        """The loss of a batch at `progress`; see `loss_of`."""
        return loss_of(output, batch, self.weights(progress), self.kind, self.huber_delta)


def loss_of(
    output: Mapping[str, torch.Tensor],
    batch: TrainingBatch,
    weights: LossWeights,
    kind: LossKind = "mse",
    huber_delta: float = 0.01,
) -> torch.Tensor:
    """Weighted mean penalties of the errors of a batch, in float64, as a scalar.

    Args:
        output: NequIP's output fields: ``total_energy`` (eV), ``forces`` (eV/Angstrom) and, where the batch has
            virials and their weight is not zero, ``virial``: minus stress times volume (eV).
        batch: Labels, masks and frame weights.
        weights: Weights of the kinds of error.
        kind: ``mse``: squares; ``l1``: absolute values; ``huber``: half of squares up to `huber_delta`, beyond it
            `huber_delta` times the absolute value less `huber_delta` / 2 (P. Huber, Ann. Math. Stat. 35, 73 (1964)).
        huber_delta: See `kind`.
    """
    of_atom, of_energy, of_virial, of_bend = coefficients_of(batch, weights)
    error = output["forces"].double() - batch.forces
    loss = sum_of(error, of_atom, kind, huber_delta)
    energy_error = (output["total_energy"].reshape(-1).double() - batch.energy) / batch.n_atoms
    loss = loss + sum_of(energy_error, of_energy, kind, huber_delta)
    if batch.partner is not None:
        loss = loss + sum_of(error - error[batch.partner], of_bend, kind, huber_delta)
    if weights.stress == 0.0 or batch.virial is None:
        return loss
    virial_error = (-output["virial"].reshape(-1, 3, 3).double() - batch.virial) / batch.n_atoms.reshape(-1, 1, 1)
    return loss + sum_of(virial_error, of_virial, kind, huber_delta)


def coefficients_of(
    batch: TrainingBatch, weights: LossWeights
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What each error of a batch is multiplied by in its loss: 0 for what may not be learned from.

    Returns:
        ``(n_total,)`` of the three errors of each atom's forces, ``(n_frames,)`` of the energy per atom,
        ``(n_frames,)`` of the nine errors of the virial per atom, and ``(n_total,)`` of the differences of force errors
        to those of the atom's partner; float64. With penalties p they make the loss, the sum of all c p.
    """
    frame = torch.ones_like(batch.n_atoms) if batch.weight is None else batch.weight.double()
    n_total, n_atoms = batch.forces.shape[0], batch.n_atoms.long()
    counts = batch.counts
    atom = torch.repeat_interleave(frame, n_atoms, output_size=n_total)
    energy = frame
    if batch.mask is not None and batch.is_whole is not None:
        atom, energy = atom * batch.mask, energy * batch.is_whole
    virial = torch.zeros_like(frame)
    if weights.stress != 0.0 and batch.has_virial is not None:
        virial = weights.stress * frame * batch.has_virial / max(9 * counts.stresses, 1)
    bend = torch.zeros_like(atom)
    if batch.bend is not None:
        bend = torch.repeat_interleave(batch.bend, n_atoms, output_size=n_total)
        bend = weights.force * bend / max(3 * counts.bends, 1)
    force, energy = weights.force * atom / max(3 * counts.atoms, 1), weights.energy * energy / max(counts.frames, 1)
    return force, energy, virial, bend


def penalty_of(error: torch.Tensor, kind: LossKind, delta: float) -> torch.Tensor:
    """What each error costs; see `loss_of`."""
    size = error.abs()
    if kind == "mse":
        return torch.square(error)
    if kind == "l1":
        return size
    return torch.where(size <= delta, 0.5 * torch.square(error), delta * (size - 0.5 * delta))


def sum_of(error: torch.Tensor, coefficient: torch.Tensor, kind: LossKind, delta: float) -> torch.Tensor:
    """Sum of penalties; an error whose coefficient is 0 does not enter, whatever it is.

    Args:
        error: Of any shape.
        coefficient: One for each of its first axis.
        kind: See `loss_of`.
        delta: Likewise.
    """
    shaped = coefficient.reshape(-1, *[1] * (error.dim() - 1))
    kept = torch.where(shaped != 0, error, torch.zeros_like(error))
    return (shaped * penalty_of(kept, kind, delta)).sum()


def _between(first: float, last: float, x: float) -> float:
    return first if first == last else first * (last / first) ** x
