"""What others run: ASE's Langevin with one `NequIPCalculator` a member, and torch-sim with compiled members.

Compiled members are made as `nequip-compile` makes them (targets `ase` and `batch`). All members of a peer's committee
hold the weights that were compiled: the time of a step does not depend on them. Packages stay in alsys's cache.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from alsys.frames import Frame
from alsys.potentials.base import FrameBatch
from alsys.potentials.compile_cache import default_folder
from alsys.potentials.nequip import build_model, input_of, type_lookup

TIMESTEP_FS = 0.5
TEMPERATURE_K = 300.0
FRICTION_PER_FS = 0.01


def compile_for(target: str, spec: dict[str, Any], atoms: Atoms) -> Path:
    """A package of `nequip-compile`'s target ``ase`` or ``batch``, from the cache where it is there."""
    import nequip
    from nequip.scripts._compile_utils import COMPILE_TARGET_DICT
    from nequip.utils.aot import aot_export_model
    from nequip.utils.global_state import get_latest_global_state

    text = json.dumps([target, spec, str(torch.__version__), nequip.__version__], sort_keys=True)
    path = default_folder() / f"peer-{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}.nequip.pt2"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = COMPILE_TARGET_DICT[target]
    data = _periodic_input(spec, atoms, n_frames=1 if target == "ase" else 2)
    if target == "ase":
        del data["batch"], data["num_atoms"]
    graph = torch.export.Dim("num_frames", min=2)
    sizes = {
        "graph": graph,
        "node": torch.export.Dim("num_nodes", min=2),
        "edge": torch.export.Dim("num_edges", min=2),
    }
    model: Any = build_model(spec).eval()
    metadata = {**model.metadata, **get_latest_global_state(only_metadata_related=True), "AOTI_DEVICE_KEY": "cpu"}
    text_of = {key: str(int(value)) if isinstance(value, bool) else str(value) for key, value in metadata.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        aot_export_model(
            model,
            "cpu",
            list(settings["input"]),
            list(settings["output"]),
            data,
            settings["batch_map_settings"](sizes),
            str(path),
            inductor_configs={"aot_inductor.metadata": text_of},
        )
    return path


def ase_rate(make_member: Callable[[int], Calculator], n_members: int, atoms: Atoms, seconds: float) -> float:
    """Walker-steps a second of ASE's Langevin under the mean force of a committee of calculators."""
    atoms = atoms.copy()
    atoms.calc = MeanCalculator([make_member(i) for i in range(n_members)])
    MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE_K, rng=np.random.default_rng(0))
    dynamics = Langevin(
        atoms,
        TIMESTEP_FS * units.fs,
        temperature_K=TEMPERATURE_K,
        friction=FRICTION_PER_FS / units.fs,
        rng=np.random.default_rng(1),
    )
    dynamics.run(5)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        dynamics.run(5)
        count += 5
    return count / (time.perf_counter() - started)


def eager_member(spec: dict[str, Any]) -> Callable[[int], Calculator]:
    """`NequIPCalculator`s of eager models with their default neighbour lists."""
    from nequip.integrations.ase import NequIPCalculator
    from nequip.integrations.utils import basic_transforms

    def make(seed: int) -> Calculator:
        model = build_model(spec, seed=seed).eval()
        species = {symbol: symbol for symbol in spec["elements"]}
        transforms = basic_transforms(model.metadata, spec["r_max"], list(spec["elements"]), species)
        return NequIPCalculator(model=model, device="cpu", transforms=transforms)

    return make


def compiled_member(path: Path) -> Callable[[int], Calculator]:
    """`NequIPCalculator`s of a package."""
    from nequip.integrations.ase import NequIPCalculator

    return lambda _: NequIPCalculator.from_compiled_model(path, device="cpu", chemical_species_to_atom_type_map=True)


def torchsim_rate(path: Path, n_members: int, atoms: Atoms, n_walkers: int, seconds: float) -> float:
    """Walker-steps a second of torch-sim's BAOAB Langevin; members share one neighbour list, to their advantage."""
    import torch_sim
    from nequip.integrations.torchsim import NequIPTorchSimCalc

    members = [
        NequIPTorchSimCalc.from_compiled_model(
            path, device="cpu", chemical_species_to_atom_type_map=True, neighborlist_backend="matscipy"
        )
        for _ in range(n_members)
    ]

    first = members[0]
    first.model = _MeanModule([member.model for member in members])
    atoms = atoms.copy()
    atoms.center(vacuum=10.0)
    metal = torch_sim.units.MetalUnits
    begin, step = torch_sim.nvt_langevin(
        model=first,
        dt=torch.tensor(TIMESTEP_FS * 1e-3 * metal.time, dtype=torch.float64),
        kT=torch.tensor(TEMPERATURE_K * metal.temperature, dtype=torch.float64),
        gamma=torch.tensor(FRICTION_PER_FS * 1e3 / metal.time, dtype=torch.float64),
        seed=1,
    )
    state = begin(torch_sim.io.atoms_to_state([atoms] * n_walkers, torch.device("cpu"), torch.float64), seed=1)
    for _ in range(3):
        state = step(state)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        state = step(state)
        count += n_walkers
    return count / (time.perf_counter() - started)


class MeanCalculator(Calculator):  # type: ignore[misc]  # ASE has no types
    """Mean force of a committee, whose members are asked one after another."""

    implemented_properties = ("energy", "forces")

    def __init__(self, members: list[Calculator]) -> None:
        super().__init__()
        self._members = members
        self.deviation = 0.0

    def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Energy, forces and the force deviation."""
        super().calculate(atoms, ["energy", "forces"], system_changes)
        energies, forces = [], []
        for member in self._members:
            member.calculate(atoms, ["energy", "forces"], system_changes)
            energies.append(float(member.results["energy"]))
            forces.append(member.results["forces"])
        stacked = np.stack(forces)
        mean = stacked.mean(axis=0)
        self.deviation = float(np.sqrt(np.square(stacked - mean).sum(axis=2).mean(axis=0)).max())
        self.results = {"energy": float(np.mean(energies)), "forces": mean}


class _MeanModule(torch.nn.Module):
    """Evaluates all members on the same input and returns the mean of each output."""

    def __init__(self, members: list[torch.nn.Module]) -> None:
        super().__init__()
        self._members = torch.nn.ModuleList(members)
        self.deviation = torch.zeros(0)

    def forward(self, data: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        outputs = [member(dict(data)) for member in self._members]
        forces = torch.stack([out["forces"] for out in outputs])
        self.deviation = (forces - forces.mean(0)).square().sum(-1).mean(0).sqrt()
        names = ("total_energy", "forces", "stress")
        return {name: torch.stack([out[name] for out in outputs]).mean(0) for name in names}


def _periodic_input(spec: dict[str, Any], atoms: Atoms, n_frames: int) -> dict[str, torch.Tensor]:
    """Frames in a large box, with all fields that the targets take."""
    atoms = atoms.copy()
    atoms.center(vacuum=10.0)
    frame = Frame.molecule(atoms.numbers, atoms.positions)
    data = input_of(FrameBatch.of([frame] * n_frames), type_lookup(spec["elements"]), spec["r_max"])
    data["cell"] = torch.from_numpy(np.stack([np.asarray(atoms.cell)] * n_frames))
    data["edge_cell_shift"] = torch.zeros((data["edge_index"].shape[1], 3), dtype=torch.float64)
    return data
