"""NequIP compiled ahead of time (torch's AOTInductor): once for an architecture, with new weights as new constants.

What is compiled is `alsys.potentials.undirected` (`alsys.potentials.directed` for Allegro), one graph for molecules and
periodic frames of any number. The traced graph keeps parameters and buffers as constants that share storage with the
model's, which tells the name in the state dict of each; the map is stored beside the package. A swap of weights copies
constants, so nothing is compiled again. A wrong map or graph would give wrong forces silently: after every swap each
member is compared with the model itself on a probe, and where one differs the committee stays eager, with a warning. So
it does where nothing can be compiled (no C++ compiler).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from alsys.frames import FloatArray
from alsys.potentials.architectures import architecture_of, kind_of, version_of
from alsys.potentials.base import (
    CommitteePrediction,
    CommitteeState,
    FrameBatch,
    chosen_members,
    committee_prediction,
    has_volume,
)
from alsys.potentials.compile_cache import cached_package, default_folder, is_cached, key_of, quiet
from alsys.potentials.devices import CPU, fetched, index_of, placed, processor_of
from alsys.potentials.directed import DirectedNetwork
from alsys.potentials.neighbours import NeighbourCache
from alsys.potentials.nequip import (
    MemberTensors,
    MemberValues,
    NequIPCommittee,
    TypeLookup,
    blank_model,
    is_weight,
    state_energies,
)
from alsys.potentials.probe import first_odd, probe_of
from alsys.potentials.tracing import tracing
from alsys.potentials.undirected import UndirectedNequIP, inputs_of

logger = logging.getLogger(__name__)

FORMAT = 2
CHUNK_ATOMS = 400
"""Atoms evaluated at once on a CPU, where there are several frames: more do not stay in its cache."""


class CompiledNequIPCommittee:
    """A `NequIPCommittee` whose members run compiled where they can.

    Args:
        state: Specification and weights.
        threads: Threads of torch in this process.
        folder: Where packages are kept; None for ``alsys/compiled`` in the user's cache folder.
        device: Where members are evaluated.

    Raises:
        InputError: The specification cannot be built, or the weights do not fit it.
    """

    def __init__(
        self, state: CommitteeState, threads: int = 1, folder: Path | None = None, device: torch.device = CPU
    ) -> None:
        self._folder = folder or default_folder()
        self._threads = threads
        self._device = device
        self._eager = NequIPCommittee(state, threads=threads, device=device)
        self._state = state
        self._packages: list[Any] = []
        self._runs: list[Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]]] = []
        self._caches: list[NeighbourCache] = []
        self._constants: dict[str, str] = {}
        self._is_verified = False
        self._open()
        self._swap()

    @property
    def version(self) -> int:
        """Version of the weights in use."""
        return self._eager.version

    @property
    def is_compiled(self) -> bool:
        """Whether batches run compiled with the weights in use."""
        return self._is_verified

    def load(self, state: CommitteeState) -> None:
        """Takes new weights; compiles only where the specification differs.

        Raises:
            InputError: The weights do not fit the specification.
        """
        self._eager.load(state)
        keys = [_key(spec, self._threads, self._device) for spec in (state.spec, self._state.spec)]
        is_known = state.n_members == self._state.n_members and keys[0] == keys[1]
        self._state = state
        if not is_known:
            self._open()
        self._swap()

    def evaluate(self, batch: FrameBatch, members: Sequence[int] | None = None) -> CommitteePrediction:
        """Mean energies (eV), forces (eV/Angstrom) and stress, their spread over members, and features.

        Args:
            batch: Frames.
            members: Which members to evaluate; None for all.

        Raises:
            InputError: An element that the model does not know, or a member that is not there.
        """
        if not self._is_verified:
            return self._eager.evaluate(batch, members)
        chosen = chosen_members(members, self._state.n_members)
        parts = split(batch, CHUNK_ATOMS) if self._device == CPU else [batch]
        while len(self._caches) < len(parts):
            self._caches.append(NeighbourCache(float(str(self._state.spec["r_max"]))))
        values = joined([self._run(part, chosen, cache) for part, cache in zip(parts, self._caches, strict=False)])
        return committee_prediction(
            batch,
            values.energies,
            values.forces,
            values.features,
            values.mean_stress,
            n_members=self._state.n_members,
        )

    def _run(self, batch: FrameBatch, chosen: Sequence[int], cache: NeighbourCache | None = None) -> MemberValues:
        """What packages say of a batch."""
        inputs = inputs_of(batch, self._lookup, float(str(self._state.spec["r_max"])), cache, self._device)
        n_frames, n_total = batch.n_frames, batch.numbers.size  # a ghost frame may follow
        is_stressed = has_volume(batch)
        energies = np.empty((len(chosen), n_frames))
        forces = np.empty((len(chosen), n_total, 3))
        stresses = np.full((len(chosen), n_frames, 3, 3), np.nan) if is_stressed.any() else None
        features = None
        for row, k in enumerate(chosen):
            energy, force, feature, virial = self._runs[k](inputs)
            said = [energy[:n_frames, 0], force[:n_total]]
            said += [feature[:n_total]] * (k == 0) + [virial[:n_frames]] * (stresses is not None)
            energy_, force_, *others = fetched(said)
            energies[row] = energy_ + state_energies(self._lookup, batch, self._state.members[k])
            forces[row] = force_
            if k == 0:
                features = others[0].astype(np.float64)
            if stresses is not None:
                volume = np.abs(np.linalg.det(batch.cell[is_stressed]))
                stresses[row, is_stressed] = others[-1][is_stressed] / volume[:, None, None]
        return MemberValues(energies, forces, features, stresses)

    def member(self, k: int, inputs: Sequence[torch.Tensor], cell: torch.Tensor | None, n_total: int) -> MemberTensors:
        """What the package of member `k` says of `inputs_of` a batch, where `is_compiled`; features of the first only.

        Args:
            k: The member.
            inputs: In the order of `alsys.potentials.undirected.INPUTS`; a ghost frame may follow.
            cell: ``(n_frames, 3, 3)``, Angstrom; None where no stress is wanted.
            n_total: Atoms of the batch.
        """
        energy, forces, features, virial = self._runs[k](inputs)
        stress = None if cell is None else virial[: len(cell)] / torch.linalg.det(cell).abs()[:, None, None]
        return MemberTensors(energy[:, 0], forces[:n_total], features[:n_total] if k == 0 else None, stress)

    @property
    def eager(self) -> NequIPCommittee:
        """The same members, not compiled."""
        return self._eager

    def _open(self) -> None:
        """Loads a package for each member, compiling it first where there is none."""
        self._packages, self._runs, self._caches, self._is_verified = [], [], [], False
        self._lookup = TypeLookup.of(self._state.spec)
        try:
            path = compile_package(self._state.spec, self._folder, self._threads, self._device)
        except Exception as error:  # whatever a compiler, its absence or a full disk leads to
            logger.warning("cannot compile NequIP, evaluating eagerly: %s", _first_line(error))
            return
        try:
            with quiet():
                self._packages = [
                    torch._inductor.aoti_load_package(str(path), device_index=index_of(self._device))
                    for _ in self._state.members
                ]
            self._runs = [_runner(package) for package in self._packages]
            record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            kept = set(self._packages[0].get_constant_fqns())  # the compiler drops constants that change nothing
            self._constants = {name: source for name, source in record["constants"].items() if name in kept}
        except Exception as error:  # torch raises many kinds for a damaged package
            self._packages = []
            path.with_suffix(".json").unlink(missing_ok=True)
            logger.warning(
                "%s cannot be read, evaluating eagerly; the next start compiles again: %s", path, _first_line(error)
            )

    def _swap(self) -> None:
        """Puts the weights in use into the packages, and compares with the eager model."""
        self._is_verified = False
        if not self._packages:
            return
        for k, (package, weights) in enumerate(zip(self._packages, self._state.members, strict=True)):
            try:
                values = placed([np.array(weights[at]) for at in self._constants.values()], self._device)
                # clones: the loader copies the whole storage of each, and packed ones share theirs
                constants = {name: value.clone() for name, value in zip(self._constants, values, strict=True)}
                package.load_constants(constants, check_full_update=False)
            except (KeyError, RuntimeError) as error:
                logger.warning("member %d does not fit its package, evaluating eagerly: %s", k, _first_line(error))
                return
        probe = probe_of(self._state.spec, (3, 4, 6))
        expected = self._eager.evaluate_members(probe)
        found = self._run(probe, range(self._state.n_members))
        if odd := first_odd(found, expected, probe, str(self._state.spec["dtype"])):
            logger.warning("member %d differs from the eager model by %.1e, evaluating eagerly", *odd)
            return
        self._is_verified = True


def _runner(package: Any) -> Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]]:
    """How a package is called: past torch's unpacking of nested inputs, which costs a tenth of a millisecond a call."""
    loader: Any = getattr(package, "loader", None)
    if hasattr(loader, "boxed_run"):
        return lambda inputs: loader.boxed_run(list(inputs))
    return lambda inputs: package(*inputs)


def split(batch: FrameBatch, n_atoms: int) -> list[FrameBatch]:
    """Parts of whole frames, in order, each of up to `n_atoms` atoms or of one frame."""
    ends = np.cumsum(batch.n_atoms)
    if ends[-1] <= n_atoms or batch.n_frames == 1:
        return [batch]
    parts, first, start = [], 0, 0
    while first < batch.n_frames:
        last = max(first + 1, int(np.searchsorted(ends, start + n_atoms, side="right")))
        rows, atoms = slice(first, last), slice(start, int(ends[last - 1]))
        parts.append(
            FrameBatch(
                batch.n_atoms[rows], batch.numbers[atoms], batch.positions[atoms], batch.cell[rows], batch.pbc[rows],
                None if batch.charge is None else batch.charge[rows],
                None if batch.multiplicity is None else batch.multiplicity[rows],
            )
        )  # fmt: skip
        first, start = last, int(ends[last - 1])
    return parts


def joined(parts: Sequence[MemberValues]) -> MemberValues:
    """The values of a batch from those of its parts."""
    if len(parts) == 1:
        return parts[0]
    stresses: FloatArray | None = None
    if any(part.stresses is not None for part in parts):
        stresses = np.concatenate(
            [np.full((*p.energies.shape, 3, 3), np.nan) if p.stresses is None else p.stresses for p in parts], axis=1
        )
    features = [part.features for part in parts if part.features is not None]
    return MemberValues(
        np.concatenate([part.energies for part in parts], axis=1),
        np.concatenate([part.forces for part in parts], axis=1),
        np.concatenate(features) if features else None,
        stresses,
    )


def compile_package(spec: Mapping[str, object], folder: Path, threads: int = 1, device: torch.device = CPU) -> Path:
    """The package of an architecture, compiled on one core where it is not in `folder` yet (most of a minute).

    Args:
        spec: As of `alsys.potentials.nequip.build_model`.
        folder: Cache; processes wait for each other.
        threads: Threads that it is going to run on, which are written into the code.
        device: Where it is going to run.

    Returns:
        ``.pt2`` file. Beside it lies a ``.json`` file with the name in the state dict of each constant.
    """
    return cached_package(
        folder,
        _key(spec, threads, device),
        lambda path: {"format": FORMAT, "constants": _compile(spec, path, threads, device)},
    )


def has_package(
    spec: Mapping[str, object], threads: int = 1, device: torch.device = CPU, folder: Path | None = None
) -> bool:
    """Whether an architecture has been compiled before, into `folder` or the default one: then it costs nothing now."""
    return is_cached(folder or default_folder(), _key(spec, threads, device))


def graph_of(model: torch.nn.Module, *, is_trained: bool = False) -> torch.nn.Module:
    """The graph that is compiled for a model; its parameters and buffers are the model's.

    Args:
        model: Used up.
        is_trained: Energies, forces and virials keep their graph, so that a loss of them has a gradient.
    """
    is_nequip = hasattr(model.get_submodule("model.func"), "layer0_convnet")
    return (UndirectedNequIP if is_nequip else DirectedNetwork)(model, is_trained=is_trained)


def _compile(spec: Mapping[str, object], path: Path, threads: int, device: torch.device) -> dict[str, str]:
    """Writes a package; returns the state dict's name of each of its constants."""
    from nequip.utils.compile import prepare_model_for_compile
    from nequip.utils.fx import fx_duck_shape, nequip_decomp_table

    with tracing(), quiet():
        torch._dynamo.reset()
        model = blank_model(spec).to(device)
        places = {v.data_ptr(): name for name, v in model.state_dict().items() if v.numel() and is_weight(name)}
        # not the probe: sizes that tracing wrote into the graph would go unnoticed on frames of the same sizes
        inputs = inputs_of(probe_of(spec, (5, 2)), TypeLookup.of(spec), float(str(spec["r_max"])), device=device)
        with fx_duck_shape(False):
            traced = make_fx(
                prepare_model_for_compile(graph_of(model).to(device), str(device)),
                decomposition_table=nequip_decomp_table(),
                tracing_mode="symbolic",
                _allow_non_fake_inputs=True,
                _error_on_data_dependent_ops=True,
            )(*[value.clone() for value in inputs])
        attributes = {node.target: getattr(traced, node.target) for node in traced.graph.nodes if node.op == "get_attr"}
        constants = {
            name: places[value.data_ptr()]
            for name, value in attributes.items()
            if isinstance(value, torch.Tensor) and value.data_ptr() in places
        }
        frame, atom, pair = (torch.export.Dim(f"n_{name}", min=2) for name in ("frames", "atoms", "pairs"))
        sizes = ({0: pair}, {1: pair}, {0: atom}, {0: atom}, {0: frame})
        exported = torch.export.export(traced, tuple(inputs), dynamic_shapes=sizes)
        # without the second setting, weights of up to 8 numbers are written into the code
        with torch._inductor.config.patch(
            {"compile_threads": 1, "always_keep_tensor_constants": True, "cpp.threads": threads}
        ):
            torch._inductor.aoti_compile_and_package(exported, package_path=str(path))
    return constants


def _key(spec: Mapping[str, object], threads: int, device: torch.device) -> str:
    """Identity of what is compiled: architecture, threads, versions and processor."""
    package = version_of(kind_of(spec))
    content = {"format": FORMAT, "spec": architecture_of(spec), "threads": threads, **processor_of(device)}
    return key_of({**content, "package": package} if package else content)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
