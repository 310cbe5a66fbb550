"""A committee's mean or one member becomes a NequIP package (`.nequip.zip`), which NequIP runs and compiles.

A package of one member can be trained on too; the mean of several is one model for evaluation, with the code of
`alsys.interop.committee_graph` in it. What follows holds for both.

The file is what `nequip-package build` of NequIP 0.19 writes (package version 2): the model for evaluation and, of one
member, for training, a frame to compile on, the versions of the code in it, and where it is from. It is written beside
its place and moved there only after NequIP's own loader and calculator have given alsys's energies, forces and stresses
with it. Packages carry their code: whoever opens one executes it.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ase import Atoms

from alsys.errors import EnvironmentProblem, InputError
from alsys.files import move
from alsys.frames import Frame
from alsys.interop.committee_models import ModelCommittee, mean_model
from alsys.interop.nequip_package import SUFFIX, TOLERANCE, probe_frames
from alsys.potentials.architectures import elements_of, states_of
from alsys.potentials.base import CommitteeState, FrameBatch
from alsys.potentials.elements import in_state
from alsys.potentials.nequip import NequIPCommittee, input_of, type_lookup
from alsys.potentials.tracing import tracing
from alsys.states import ElectronicState
from alsys.version import __version__

PACKAGE_VERSION = 2
SOLE_MODEL = "sole_model"
"""NequIP's name of a model that is alone in its file."""
MODES = ("eager", "compile")
COMMITTEE_CODE = "alsys.interop.committee_graph"
"""Module that a package of several members carries."""
MARGIN = 1.5
"""Between a cluster and its images in the frame that is periodic, Angstrom."""


@dataclass(frozen=True, slots=True)
class ExportedPackage:
    """How a package compares with what it was made of.

    Attributes:
        energy_difference: Largest difference of energies, eV per atom.
        force_difference: Of forces, eV/Angstrom.
        stress_difference: Of stresses, eV/Angstrom^3.
        state: Charge and multiplicity that it is for; None for a model that tells none apart.
        state_energy: What the members add, in the mean, to the energy of each frame in that state, and the package does
            not, eV.
    """

    energy_difference: float
    force_difference: float
    stress_difference: float
    state: ElectronicState | None = None
    state_energy: float = 0.0


def check_exportable(state: CommitteeState, member: int | None) -> None:
    """Refuses what a NequIP model cannot hold.

    Args:
        state: A committee.
        member: Which of its members, from 0 on; None for all.

    Raises:
        InputError: It is no network, needs a baseline, or has no such member.
    """
    if state.kind not in ("nequip", "allegro"):
        raise InputError(
            "packages and compiled files hold networks of kind nequip or allegro", field="kind", value=state.kind,
            remedy="use --to bundle",
        )  # fmt: skip
    if state.baseline is not None:
        raise InputError(
            "the model is nothing without its baseline, which NequIP's files cannot carry",
            field="baseline",
            value=dict(state.baseline).get("method"),
            remedy="make a plain model of it with `alsys models distil`, or use --to bundle",
        )
    if member is not None and not 0 <= member < state.n_members:
        raise InputError(
            f"the model has {state.n_members} members", field="--member", value=member,
            remedy=f"give 0 to {state.n_members - 1}",
        )  # fmt: skip


def write_package(
    path: Path,
    state: CommitteeState,
    member: int | None,
    card: Mapping[str, object],
    *,
    charge: int | None = None,
    multiplicity: int | None = None,
) -> ExportedPackage:
    """Writes a package and checks it.

    A package knows neither charge nor multiplicity, so that of a model that tells states apart is of one of them: a
    plain network whose energies lack one constant for each frame.

    Args:
        path: File to make; ends in ``.nequip.zip``.
        state: A committee.
        member: Which of its members; None for the mean of all.
        card: Facts that go into its ``config.yaml``.
        charge: Total charge that it is to be used for, e; None where the multiplicity says it, or the model has one.
        multiplicity: 2S + 1, likewise.

    Raises:
        InputError: The state cannot be exported, it has not learned that charge and multiplicity or several and none is
            chosen, or the name does not suit.
        EnvironmentProblem: NequIP cannot package it here, or does not give the same values with it.
        FileExistsError: Something is at `path`.
    """
    check_exportable(state, member)
    if not path.name.endswith(SUFFIX):
        raise InputError(f"must end in {SUFFIX}", field="OUTPUT", value=str(path))
    if path.exists():
        raise FileExistsError(f"{path} exists")
    chosen = chosen_state(state, charge, multiplicity)
    alone, state_energy = plain(state, member, chosen)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".alsys-export-", dir=path.parent) as folder:
        file = Path(folder) / path.name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's and NequIP's, about their own files
            try:
                _write(file, alone, _origin(state, member, card, chosen, state_energy))
                exported = _compared(file, alone)
            except (RuntimeError, AssertionError, ImportError, AttributeError, torch.package.PackagingError) as error:  # type: ignore[attr-defined]
                message = " ".join(str(error).split())[:200]
                raise EnvironmentProblem(f"NequIP cannot package this model here: {message}") from error
        if path.exists():
            raise FileExistsError(f"{path} exists")
        move(file, path)
    return replace(exported, state=chosen if states_of(state.spec) else None, state_energy=state_energy)


def plain(state: CommitteeState, member: int | None, chosen: ElectronicState | None) -> tuple[CommitteeState, float]:
    """Networks that tell no states apart, of one member or of all, and what their mean lacks on each frame, eV."""
    members = state.members if member is None else (state.members[member],)
    alone = replace(state, members=members, score="committee", score_state={}, inner=None)
    if not states_of(state.spec):
        return alone, 0.0
    assert chosen is not None
    alone, energies = in_state(alone, chosen)
    return alone, float(energies.mean())


def chosen_state(state: CommitteeState, charge: int | None, multiplicity: int | None) -> ElectronicState | None:
    """The charge and multiplicity that a package is for.

    Args:
        state: A committee.
        charge: As of `write_package`.
        multiplicity: Likewise.

    Returns:
        None where the model tells none apart, nobody knows what it has learned, and none is given.

    Raises:
        InputError: It has not learned them, or several that fit.
    """
    is_given = charge is not None or multiplicity is not None
    learned = states_of(state.spec) or (() if state.seen is None else state.seen.states)
    if state.seen is not None:
        learned = tuple(one for one in learned if one in state.seen.states)
    fitting = [s for s in learned if charge in (None, s.charge) and multiplicity in (None, s.multiplicity)]
    if not learned and is_given:
        raise InputError(
            "nobody has recorded what the model has learned", field="--charge, --multiplicity",
            value=(charge, multiplicity), remedy="leave them out",
        )  # fmt: skip
    if len(fitting) == 1:
        return fitting[0]
    if not is_given and not states_of(state.spec):
        return None  # compositions in one state each, which the package cannot tell apart either
    listed = "; ".join(map(str, learned))
    raise InputError(
        f"the model has learned {listed}" + ("" if fitting else " only"),
        field="--charge, --multiplicity",
        value=(charge, multiplicity),
        remedy="choose one of them: a package is of one",
    )


def _write(file: Path, state: CommitteeState, origin: Mapping[str, object]) -> None:
    """As `nequip-package build` does."""
    from nequip.model.utils import override_model_compile_mode
    from nequip.scripts._package_utils import _EXTERNAL_MODULES, _INTERNAL_MODULES, _MOCK_MODULES
    from nequip.utils.versions import get_current_code_versions
    from nequip.utils.versions.version_utils import get_version_safe

    elements = elements_of(state.spec)
    models = {}
    for mode in MODES if state.n_members == 1 else MODES[:1]:
        with override_model_compile_mode(mode):
            models[mode] = torch.nn.ModuleDict({SOLE_MODEL: mean_model(state)})
    example = example_of(state)
    metadata = {
        "versions": get_current_code_versions(verbose=False),
        "external_modules": {name: get_version_safe(name) for name in sorted(_EXTERNAL_MODULES)},
        "package_version_id": PACKAGE_VERSION,
        "available_models": list(models),
        "atom_types": dict(enumerate(elements)),
    }
    exporter: Any = torch.package.PackageExporter(str(file), importer=(torch.package.importer.sys_importer,))  # type: ignore[attr-defined]
    with tracing(), exporter as package:
        package.mock([f"{name}.**" for name in _MOCK_MODULES])
        package.extern([f"{name}.**" for name in _EXTERNAL_MODULES])
        package.intern([*(f"{name}.**" for name in _INTERNAL_MODULES), COMMITTEE_CODE])
        package.save_pickle("model", "example_data.pkl", example)
        package.save_text("model", "config.yaml", yaml.safe_dump(dict(origin)))
        package.save_text("model", "package_metadata.txt", yaml.safe_dump(metadata))
        for mode, model in models.items():
            package.save_pickle("model", f"{mode}_model.pkl", model)


def read_again(file: Path, state: CommitteeState) -> ModelCommittee:
    """A package as a committee, through NequIP's loader, to compare it with its source."""
    from nequip.model.saved_models.load_utils import load_saved_model

    with tracing(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_saved_model(str(file), compile_mode=MODES[0], model_key=SOLE_MODEL)
    return ModelCommittee(model, state)


def example_of(state: CommitteeState) -> dict[str, torch.Tensor]:
    """NequIP's fields of one periodic frame, to compile a model on."""
    elements = elements_of(state.spec)
    frame = periodic(probe_frames(elements)[0])
    return input_of(FrameBatch.of([frame]), type_lookup(elements), float(str(state.spec["r_max"])))


def _compared(file: Path, state: CommitteeState) -> ExportedPackage:
    """A package in NequIP's own calculator beside the committee, on clusters and one periodic frame.

    Raises:
        EnvironmentProblem: They differ by more than rounding.
    """
    from nequip.integrations.ase import NequIPCalculator

    clusters = probe_frames(elements_of(state.spec))
    frames = [*clusters, periodic(clusters[0])]
    mine = NequIPCommittee(state, threads=torch.get_num_threads()).evaluate(FrameBatch.of(frames))
    assert mine.stress is not None
    with tracing():
        calculator = NequIPCalculator._from_saved_model(str(file), chemical_species_to_atom_type_map=True)
    energies, forces = [], []
    for frame in frames:
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc, calculator=calculator)
        energies.append(float(atoms.get_potential_energy()))
        forces.append(atoms.get_forces())
    n_atoms = np.array([frame.n_atoms for frame in frames])
    values = [
        (np.array(energies) / n_atoms, mine.energy / n_atoms),
        (np.concatenate(forces), mine.forces),
        (atoms.get_stress(voigt=False), mine.stress[-1]),
    ]
    differences = [float(np.abs(theirs - ours).max()) for theirs, ours in values]
    allowed = TOLERANCE[str(state.spec["dtype"])]
    for name, difference, (_, ours) in zip(("energies", "forces", "stresses"), differences, values, strict=True):
        scale = 1.0 if name == "energies" else max(1.0, float(np.abs(ours).max()))
        if not difference <= allowed * scale:
            raise EnvironmentProblem(f"NequIP gives other {name} with the package, by {difference:.2g}")
    energy, force, stress = differences
    return ExportedPackage(energy, force, stress)


def periodic(frame: Frame) -> Frame:
    """A cluster in a box, with images near enough to be neighbours."""
    edges = np.ptp(frame.positions, axis=0) + MARGIN
    return Frame(frame.numbers, frame.positions, np.diag(edges), np.ones(3, dtype=bool))


def _origin(
    state: CommitteeState,
    member: int | None,
    card: Mapping[str, object],
    chosen: ElectronicState | None,
    state_energy: float,
) -> dict[str, object]:
    """Where a package is from, for its reader."""
    kept = ("level_of_theory", "n_labels", "head_seq", "metrics", "exported")
    facts = {name: card[name] for name in kept if name in card}
    made = {"version": __version__, "model_version": state.version, "member": member, "n_members": state.n_members}
    said = card.get("exported")
    if isinstance(said, Mapping):  # the state is what is left of the committee it was
        made |= {name: said[name] for name in ("member", "n_members")}
    electrons: dict[str, object] = {}
    if chosen is not None:
        electrons = {"charge": chosen.charge, "multiplicity": chosen.multiplicity, "energies_lack_eV": state_energy}
    elif state.seen is not None:
        electrons = {"states": state.seen.to_json()["by_formula"]}
    return {"units": "eV, Angstrom", "alsys": made, "model": dict(state.spec), **electrons, **facts}
