"""NequIP compiled ahead of time (torch's AOTInductor): once for an architecture, with new weights as new constants.

The traced graph keeps parameters and buffers as constants that share storage with the model's, which tells the name in
the state dict of each; the map is stored beside the package. A swap of weights copies constants, so nothing is
compiled again. A wrong map would give wrong forces silently: after every swap each member is compared with the eager
model on a probe, and where one differs the committee stays eager, with a warning. So it does where nothing can be
compiled (no C++ compiler), for periodic frames, and for a batch of one frame, which torch compiles apart.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import platform
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers

from alsys.frames import Frame
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch, committee_prediction
from alsys.potentials.nequip import (
    SPEC_KEYS,
    NequIPCommittee,
    blank_model,
    elements_of,
    input_of,
    type_lookup,
)

logger = logging.getLogger(__name__)

INPUTS = ["pos", "edge_index", "atom_types", "batch", "num_atoms"]
OUTPUTS = ["total_energy", "forces"]
FORMAT = 1
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
"""Largest difference to the eager model on the probe, relative to its largest force or, if larger, 1 eV/Angstrom."""


class CompiledNequIPCommittee:
    """A `NequIPCommittee` whose members run compiled where they can.

    Args:
        state: Specification and weights.
        threads: Threads of torch in this process.
        folder: Where packages are kept; None for ``alsys/compiled`` in the user's cache folder.

    Raises:
        InputError: The specification cannot be built, or the weights do not fit it.
    """

    def __init__(self, state: CommitteeState, threads: int = 1, folder: Path | None = None) -> None:
        self._folder = folder or default_folder()
        self._eager = NequIPCommittee(state, threads=threads)
        self._state = state
        self._packages: list[Any] = []
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
        """Whether batches of molecules run compiled with the weights in use."""
        return self._is_verified

    def load(self, state: CommitteeState) -> None:
        """Takes new weights; compiles only where the specification differs.

        Raises:
            InputError: The weights do not fit the specification.
        """
        self._eager.load(state)
        is_known = state.n_members == self._state.n_members and _key(state.spec) == _key(self._state.spec)
        self._state = state
        if not is_known:
            self._open()
        self._swap()

    def evaluate(self, batch: FrameBatch) -> CommitteePrediction:
        """Mean energies (eV) and forces (eV/Angstrom), and their spread over members.

        Raises:
            InputError: An element that the model does not know.
        """
        if not self._is_verified or batch.n_frames < 2 or batch.pbc.any():
            return self._eager.evaluate(batch)
        inputs = self._inputs(batch)
        if inputs[1].shape[1] < 2:
            return self._eager.evaluate(batch)
        energies, forces = [], []
        for package in self._packages:
            energy, force = package(*inputs)
            energies.append(energy.reshape(-1).double().numpy())
            forces.append(force.double().numpy())
        return committee_prediction(batch, np.stack(energies), np.stack(forces))

    def _inputs(self, batch: FrameBatch) -> list[torch.Tensor]:
        data = input_of(batch, self._lookup, float(str(self._state.spec["r_max"])))
        return [data[name] for name in INPUTS]

    def _open(self) -> None:
        """Loads a package for each member, compiling it first where there is none."""
        self._packages, self._is_verified = [], False
        self._lookup = type_lookup(elements_of(self._state.spec))
        try:
            path = compile_package(self._state.spec, self._folder)
        except Exception as error:  # whatever a compiler, its absence or a full disk leads to
            logger.warning("cannot compile NequIP, evaluating eagerly: %s", _first_line(error))
            return
        try:
            with _quiet():
                self._packages = [torch._inductor.aoti_load_package(str(path)) for _ in self._state.members]
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
        probe = _probe(self._state.spec)
        energies, forces = self._eager.evaluate_members(probe)
        inputs = self._inputs(probe)
        tolerance = TOLERANCE[str(self._state.spec["dtype"])]
        for k, (package, weights) in enumerate(zip(self._packages, self._state.members, strict=True)):
            try:
                constants = {name: torch.from_numpy(np.array(weights[at])) for name, at in self._constants.items()}
                package.load_constants(constants, check_full_update=False)
            except (KeyError, RuntimeError) as error:
                logger.warning("member %d does not fit its package, evaluating eagerly: %s", k, _first_line(error))
                return
            energy, force = (value.double().numpy() for value in package(*inputs))
            scale = max(1.0, float(np.abs(forces[k]).max()))
            difference = max(
                float(np.abs(force - forces[k]).max()),
                float(np.abs(energy.reshape(-1) - energies[k]).max()) / probe.numbers.size,
            )
            if not difference <= tolerance * scale:
                logger.warning("member %d differs from the eager model by %.1e, evaluating eagerly", k, difference)
                return
        self._is_verified = True


def default_folder() -> Path:
    """``alsys/compiled`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alsys" / "compiled"


def compile_package(spec: Mapping[str, object], folder: Path) -> Path:
    """The package of an architecture, compiled on one core where it is not in `folder` yet (most of a minute).

    Args:
        spec: As of `alsys.potentials.nequip.build_model`.
        folder: Cache; processes wait for each other.

    Returns:
        ``.pt2`` file. Beside it lies a ``.json`` file with the name in the state dict of each constant.
    """
    path = folder / f"{_key(spec)}.pt2"
    record = path.with_suffix(".json")
    if record.is_file() and path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / f"{path.stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (record.is_file() and path.is_file()):
            temporary = folder / f"{path.stem}.tmp.pt2"  # under the lock: a killed process leaves one at most
            constants = _compile(spec, temporary)
            temporary.rename(path)
            text = json.dumps({"format": FORMAT, "constants": constants}, indent=1)
            unfinished = record.with_suffix(".tmp")
            unfinished.write_text(text, encoding="utf-8")
            unfinished.rename(record)
    return path


def _compile(spec: Mapping[str, object], path: Path) -> dict[str, str]:
    """Writes a package; returns the state dict's name of each of its constants."""
    from nequip.data._key_registry import get_dynamic_shapes
    from nequip.nn.compile import ListInputOutputWrapper
    from nequip.utils.compile import prepare_model_for_compile
    from nequip.utils.fx import nequip_make_fx

    with _quiet():
        torch._dynamo.reset()
        model = blank_model(spec)
        data = input_of(_probe(spec), type_lookup(elements_of(spec)), float(str(spec["r_max"])))
        traced = nequip_make_fx(
            model=prepare_model_for_compile(ListInputOutputWrapper(model, INPUTS, OUTPUTS), "cpu"),
            data={name: data[name] for name in INPUTS},
            fields=INPUTS,
        )
        places = {value.data_ptr(): name for name, value in model.state_dict().items() if value.numel()}
        attributes = {node.target: getattr(traced, node.target) for node in traced.graph.nodes if node.op == "get_attr"}
        constants = {
            name: places[value.data_ptr()]
            for name, value in attributes.items()
            if isinstance(value, torch.Tensor) and value.data_ptr() in places
        }
        sizes = {
            "graph": torch.export.Dim("num_frames", min=2),
            "node": torch.export.Dim("num_nodes", min=2),
            "edge": torch.export.Dim("num_edges", min=2),
        }
        exported = torch.export.export(
            traced, tuple(data[name] for name in INPUTS), dynamic_shapes=get_dynamic_shapes(INPUTS, sizes)
        )
        # without the second setting, weights of up to 8 numbers are written into the code
        with torch._inductor.config.patch(compile_threads=1, always_keep_tensor_constants=True):
            torch._inductor.aoti_compile_and_package(exported, package_path=str(path))
    return constants


def _key(spec: Mapping[str, object]) -> str:
    """Identity of what is compiled: architecture, versions and processor, 32 hexadecimal characters."""
    import nequip

    content = {
        "format": FORMAT,
        "spec": {key: spec.get(key) for key in SPEC_KEYS},
        "torch": str(torch.__version__),
        "nequip": nequip.__version__,
        "machine": platform.machine(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
    }
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def _probe(spec: Mapping[str, object]) -> FrameBatch:
    """Three clusters of different sizes that hold all elements twice."""
    elements = elements_of(spec)
    rng = np.random.default_rng(7)
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    frames = []
    for extra in (3, 4, 6):
        numbers = [atomic_numbers[symbol] for symbol in elements * 2] + [atomic_numbers[elements[0]]] * extra
        sites = np.tile(grid, (len(numbers) // len(grid) + 1, 1))[: len(numbers)]
        layers = np.arange(len(numbers)) // len(grid)
        positions = 1.3 * sites + 0.15 * rng.normal(size=sites.shape)
        positions[:, 0] += 6.5 * layers
        frames.append(Frame.molecule(np.array(numbers), positions))
    return FrameBatch.of(frames)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences torch, which warns of its own deprecations while it traces and compiles."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
