"""The loss of a batch and its gradient: what one step of training costs.

All weights of a model are one flat vector in the order of its parameters, so that optimisers, averages and copies are
single operations. `EagerStep` runs NequIP itself. `CompiledStep` runs one graph that torch's AOTInductor made of the
whole step (energies, forces, loss, gradient by the weights) on undirected pairs (`alsys.potentials.undirected`): 4 to 5
times faster on a CPU. It is compiled once for an architecture and takes weights, shifts, scales and neighbour counts as
inputs. A package's gradient is compared with the eager one before it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from alsys.potentials.architectures import STATE_ENERGIES, architecture_of, kind_of, version_of
from alsys.potentials.base import FrameBatch, has_volume
from alsys.potentials.compile_cache import cached_package, default_folder, is_cached, key_of, quiet
from alsys.potentials.compiled import graph_of
from alsys.potentials.devices import CPU, index_of, number, placed, processor_of
from alsys.potentials.nequip import TypeLookup, blank_model, input_of
from alsys.potentials.probe import probe_of
from alsys.potentials.tracing import evaluating, tracing
from alsys.potentials.undirected import INPUTS, inputs_of
from alsys.training.loss import LossWeights, Objective, coefficients_of, loss_of, sum_of
from alsys.training.tensors import Counts, TrainingBatch

logger = logging.getLogger(__name__)

FORMAT = 4
TOLERANCE = {"float32": 1e-3, "float64": 1e-8}
"""Largest difference of a compiled gradient to the eager one, relative to its norm."""
PROBE_BALANCE = LossWeights(1.0, 1.0, 1.0)
"""Weights of the parts of the loss with which gradients are compared."""
SHIFTS = "model.func.per_type_energy_scale_shift.shifts"
SCALES = "model.func.per_type_energy_scale_shift.scales"
NEIGHBOURS = "avg_num_neighbors_norm.norm_const"


class Step(Protocol):
    """Gives the loss of a batch and its gradient."""

    @property
    def is_on_pairs(self) -> bool:
        """Whether batches must hold pairs instead of NequIP's edges."""
        ...

    def gradient(self, weights: torch.Tensor, batch: TrainingBatch, balance: LossWeights) -> tuple[float, torch.Tensor]:
        """Loss of a batch and its gradient.

        Args:
            weights: ``(n_weights,)`` of the model.
            batch: Input and labels.
            balance: Weights of the parts of the loss.

        Returns:
            The loss and ``(n_weights,)``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each parameter of a model lies in the flat vector.

    Attributes:
        names: Of the state dict.
        shapes: Likewise.
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, model: torch.nn.Module) -> Layout:
        """The layout of a model's parameters that are trained."""
        named = [(name, p.shape) for name, p in model.named_parameters() if p.requires_grad]
        return cls(tuple(name for name, _ in named), tuple(shape for _, shape in named))

    @property
    def sizes(self) -> list[int]:
        """Numbers in each parameter."""
        return [shape.numel() for shape in self.shapes]

    def flat(self, model: torch.nn.Module) -> torch.Tensor:
        """``(n_weights,)``, a copy."""
        parameters = dict(model.named_parameters())
        return torch.cat([parameters[name].detach().reshape(-1) for name in self.names])

    @torch.no_grad()
    def write(self, weights: torch.Tensor, model: torch.nn.Module) -> None:
        """Copies a flat vector into a model."""
        parameters = dict(model.named_parameters())
        for name, part in zip(self.names, self.parts(weights), strict=True):
            parameters[name].copy_(part)

    def parts(self, weights: torch.Tensor) -> list[torch.Tensor]:
        """Views of a flat vector in the shapes of the parameters."""
        pairs = zip(torch.split(weights, self.sizes), self.shapes, strict=True)
        return [part.reshape(shape) for part, shape in pairs]


class EagerStep:
    """Steps of NequIP as it is.

    Args:
        model: The model; its weights are overwritten.
        objective: Kind of loss.
    """

    is_on_pairs = False

    def __init__(self, model: torch.nn.Module, objective: Objective) -> None:
        self._model = model.train()
        self._objective = objective
        self._layout = Layout.of(model)
        self._state_energies = dict(model.named_buffers()).get(STATE_ENERGIES)
        by_name = dict(model.named_parameters())
        self._parameters = [by_name[name] for name in self._layout.names]

    def gradient(self, weights: torch.Tensor, batch: TrainingBatch, balance: LossWeights) -> tuple[float, torch.Tensor]:
        """Loss and gradient of a batch of edges."""
        batch = batch.less(self._state_energies)
        self._layout.write(weights, self._model)
        with evaluating():
            output = self._model(dict(batch.data))
        loss = loss_of(output, batch, balance, self._objective.kind, self._objective.huber_delta)
        parts = torch.autograd.grad(loss, self._parameters)
        return number(loss), torch.cat([part.reshape(-1) for part in parts])


class CompiledStep:
    """Steps of a package that `compile_step` made.

    Args:
        package: The package, loaded; one step at a time may use it.
        model: Whose shifts, scales, neighbour counts and energies of states are used.
    """

    is_on_pairs = True

    def __init__(self, package: Any, model: torch.nn.Module) -> None:
        self._package = package
        buffers = dict(model.named_buffers())
        self._constants = [buffers[name].detach().clone() for name in _inputs_among(buffers)]
        self._state_energies = buffers.get(STATE_ENERGIES)

    def gradient(self, weights: torch.Tensor, batch: TrainingBatch, balance: LossWeights) -> tuple[float, torch.Tensor]:
        """Loss and gradient of a batch of pairs."""
        batch = batch.less(self._state_energies)
        n_total, n_frames = batch.data["atom_types"].shape[0], batch.data["num_atoms"].shape[0]
        virial = batch.forces.new_zeros((n_frames, 3, 3))
        if batch.virial is not None:
            virial[: batch.n_atoms.shape[0]] = batch.virial.nan_to_num(0.0)  # where there is none its coefficient is 0
        atom, energy, stress, bend = coefficients_of(batch, balance)
        partner = torch.arange(n_total, device=weights.device)
        if batch.partner is not None:
            partner[: batch.partner.shape[0]] = batch.partner
        loss, gradient = self._package(
            weights,
            *self._constants,
            *batch.data.values(),
            _padded(batch.forces, n_total),
            _padded(batch.energy, n_frames),
            virial,
            _padded(atom, n_total),
            _padded(energy, n_frames),
            _padded(stress, n_frames),
            _padded(bend, n_total),
            partner,
        )
        return number(loss), gradient


def load_package(
    model: torch.nn.Module,
    spec: Mapping[str, object],
    objective: Objective,
    threads: int,
    folder: Path | None = None,
    device: torch.device = CPU,
) -> Any | None:
    """The package of a step, for `CompiledStep`; None, with a warning, where it cannot be used.

    Its gradient on a probe with all elements is compared with that of the eager step: a wrong graph would train wrong
    weights silently.

    Args:
        model: With its shifts and scales.
        spec: Its specification.
        objective: Kind of loss.
        threads: Threads that it is to run on.
        folder: Cache of packages; None for the user's.
        device: Where it is to run; the model is there.
    """
    path = (folder or default_folder()) / f"{step_key(spec, objective, threads, device)}.pt2"
    try:
        with quiet():
            package = torch._inductor.aoti_load_package(str(path), device_index=index_of(device))
        difference = _difference(CompiledStep(package, model), model, spec, objective, device)
    except Exception as error:  # torch raises many kinds for a damaged package
        path.with_suffix(".json").unlink(missing_ok=True)
        logger.warning("%s cannot be used, training eagerly; it will be compiled again: %s", path, _first_line(error))
        return None
    if not difference <= TOLERANCE[str(spec["dtype"])]:
        logger.warning("the compiled gradient differs from the eager one by %.1e, training eagerly", difference)
        return None
    return package


def _inputs_among(buffers: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the buffers that are inputs of the graph: what differs between campaigns with one architecture."""
    return [name for name in buffers if name in (SHIFTS, SCALES) or name.endswith(NEIGHBOURS)]


def _difference(
    step: CompiledStep, model: torch.nn.Module, spec: Mapping[str, object], objective: Objective, device: torch.device
) -> float:
    """Norm of the difference of both gradients on a probe, relative to that of the eager one."""
    frames, edges = _probe_batch(spec, device)
    inputs = inputs_of(frames, TypeLookup.of(spec), float(str(spec["r_max"])), device=device)
    pairs = replace(edges, data=dict(zip(INPUTS, inputs, strict=True)))
    weights = Layout.of(model).flat(model)
    _, expected = EagerStep(model, objective).gradient(weights, edges, PROBE_BALANCE)
    _, found = step.gradient(weights, pairs, PROBE_BALANCE)
    return _distance(found, expected)


def eager_difference(
    other: torch.nn.Module,
    model: torch.nn.Module,
    spec: Mapping[str, object],
    objective: Objective,
    device: torch.device,
) -> float:
    """The same of a model that computes otherwise, with kernels for its tensor products.

    Args:
        other: It, with the weights of `model`.
        model: The plain one.
        spec: Their specification.
        objective: Kind of loss.
        device: Where they are.
    """
    _, edges = _probe_batch(spec, device)
    weights = Layout.of(model).flat(model)
    (_, expected), (_, found) = (
        EagerStep(one, objective).gradient(weights, edges, PROBE_BALANCE) for one in (model, other)
    )
    return _distance(found, expected)


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return number((found - expected).norm() / expected.norm().clamp_min(1e-30))


def _probe_batch(spec: Mapping[str, object], device: torch.device) -> tuple[FrameBatch, TrainingBatch]:
    """Frames of a probe, and the same as a batch of edges with labels of zero."""
    frames, lookup, r_max = probe_of(spec, (3, 4, 6)), TypeLookup.of(spec), float(str(spec["r_max"]))
    n_frames, n_total, has_virial = frames.n_frames, frames.numbers.size, has_volume(frames)
    labels = {
        "energy": np.zeros(n_frames),
        "forces": np.zeros((n_total, 3)),
        "n_atoms": np.asarray(frames.n_atoms, dtype=np.float64),
        "virial": np.zeros((n_frames, 3, 3)),
        "has_virial": has_virial,
        "partner": np.arange(n_total)[::-1],
        "bend": np.ones(n_frames),
    }
    return frames, TrainingBatch(
        data=input_of(frames, lookup, r_max, device),
        **dict(zip(labels, placed(list(labels.values()), device), strict=True)),
        counts=Counts(n_total, n_frames, int(has_virial.sum()), n_total),
    )


def is_compiled(
    spec: Mapping[str, object],
    objective: Objective,
    threads: int,
    folder: Path | None = None,
    device: torch.device = CPU,
) -> bool:
    """Whether the package is there."""
    return is_cached(folder or default_folder(), step_key(spec, objective, threads, device))


def step_key(spec: Mapping[str, object], objective: Objective, threads: int, device: torch.device = CPU) -> str:
    """Identity of a compiled step."""
    return key_of(
        {
            "graph": "training",
            "format": FORMAT,
            "spec": architecture_of({**spec, "avg_num_neighbors": 1.0}),
            "package": version_of(kind_of(spec)),
            "loss": objective.kind,
            "huber_delta": objective.huber_delta if objective.kind == "huber" else None,
            "threads": threads,
            **processor_of(device),
        }
    )


def compile_step(
    spec: Mapping[str, object],
    objective: Objective,
    threads: int,
    folder: Path | None = None,
    device: torch.device = CPU,
) -> Path:
    """Compiles the step of an architecture on one core, where its package is not there: two minutes and more."""
    return cached_package(
        folder or default_folder(),
        step_key(spec, objective, threads, device),
        lambda path: _compile(spec, objective, threads, path, device),
    )


def _compile(
    spec: Mapping[str, object], objective: Objective, threads: int, path: Path, device: torch.device
) -> dict[str, object]:
    from nequip.utils.compile import prepare_model_for_compile
    from nequip.utils.fx import fx_duck_shape, nequip_decomp_table

    with tracing(), quiet():
        torch._dynamo.reset()
        model = blank_model(spec).train().to(device)
        layout = Layout.of(model)
        weights = layout.flat(model)
        buffers = dict(model.named_buffers())
        places = {p.data_ptr(): i for i, p in enumerate(dict(model.named_parameters())[n] for n in layout.names)}
        inputs_among = _inputs_among(buffers)
        constants = {buffers[name].data_ptr(): k for k, name in enumerate(inputs_among)}
        values = [buffers[name].clone() for name in inputs_among]
        n_values = len(values)
        graph = graph_of(model, is_trained=True).to(device)
        # what shares storage has several names, of which each must be replaced
        named = [(n, p) for n, p in graph.named_parameters(remove_duplicate=False) if p.requires_grad]
        weight_names = {n: places[p.data_ptr()] for n, p in named}
        buffer_names = {n: constants[b.data_ptr()] for n, b in graph.named_buffers() if b.data_ptr() in constants}
        graph = prepare_model_for_compile(graph, str(device))

        penalty = objective.kind, objective.huber_delta

        def step(flat: torch.Tensor, *others: torch.Tensor) -> Sequence[torch.Tensor]:
            given, inputs = others[:n_values], others[n_values : n_values + 5]
            forces, energies, virials, of_atom, of_energy, of_virial, of_bend, partner = others[n_values + 5 :]
            flat = flat.detach().requires_grad_()
            parts = layout.parts(flat)
            replaced = {name: parts[i] for name, i in weight_names.items()}
            replaced |= {name: given[k] for name, k in buffer_names.items()}
            energy, force, _, virial = torch.func.functional_call(graph, replaced, tuple(inputs), tie_weights=False)
            n_atoms = inputs[4].double()
            error = force - forces
            loss = (
                sum_of(error, of_atom, *penalty)
                + sum_of(error - error[partner], of_bend, *penalty)
                + sum_of((energy.reshape(-1) - energies) / n_atoms, of_energy, *penalty)
                + sum_of((virial - virials) / n_atoms.reshape(-1, 1, 1), of_virial, *penalty)
            )
            (gradient,) = torch.autograd.grad(loss, [flat])
            return loss.detach(), gradient

        inputs = inputs_of(probe_of(spec, (5, 2)), TypeLookup.of(spec), float(str(spec["r_max"])), device=device)
        n_total, n_frames = inputs[2].shape[0], inputs[4].shape[0]
        of_labels: dict[str, Any] = {"dtype": torch.float64, "device": device}
        zeros = [torch.zeros(shape, **of_labels) for shape in ((n_total, 3), (n_frames,), (n_frames, 3, 3))]
        ones = [torch.ones(size, **of_labels) for size in (n_total, n_frames, n_frames, n_total)]
        arguments = [weights, *values, *inputs, *zeros, *ones, torch.arange(n_total, device=device).flip(0)]
        with fx_duck_shape(False):
            traced = make_fx(
                step,
                decomposition_table=nequip_decomp_table(),
                tracing_mode="symbolic",
                _allow_non_fake_inputs=True,
                _error_on_data_dependent_ops=True,
            )(*[value.clone() for value in arguments])
        frame, atom, pair = (torch.export.Dim(f"n_{name}", min=2) for name in ("frames", "atoms", "pairs"))
        of_inputs = [{0: pair}, {1: pair}, {0: atom}, {0: atom}, {0: frame}]
        sizes = [
            None,
            *[None] * n_values,
            *of_inputs,
            {0: atom},
            {0: frame},
            {0: frame},
            {0: atom},
            {0: frame},
            {0: frame},
            {0: atom},
            {0: atom},
        ]
        exported = torch.export.export(traced, tuple(arguments), dynamic_shapes=tuple(sizes))
        with torch._inductor.config.patch({"compile_threads": 1, "cpp.threads": threads}):
            torch._inductor.aoti_compile_and_package(exported, package_path=str(path))
    return {"format": FORMAT, "n_weights": int(weights.numel())}


def _padded(value: torch.Tensor, size: int) -> torch.Tensor:
    """With zeros for a ghost frame."""
    missing = size - value.shape[0]
    return torch.cat([value, value.new_zeros((missing, *value.shape[1:]))]) if missing else value


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
