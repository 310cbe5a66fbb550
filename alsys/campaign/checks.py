"""Everything about a campaign that is known, and can be refused, before it starts: nothing is written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ase.data import chemical_symbols

from alsys.campaign.environments import check_environments
from alsys.campaign.folder import CampaignFolder
from alsys.campaign.minima import structures_with_hessians
from alsys.campaign.plan import Plan
from alsys.campaign.plan_workers import check_memory
from alsys.campaign.start import Levels, starting_point
from alsys.config import CampaignConfig
from alsys.config.load import config_hash
from alsys.config.plausible import check_usual
from alsys.config.start import ImportedStart
from alsys.errors import InputError
from alsys.events import CampaignOpened
from alsys.frames import Frame
from alsys.plugins import STOP_RULES
from alsys.states import CompositionStates

if TYPE_CHECKING:
    from alsys.systems.builders import BuiltSystem

RAY_PACKAGES = (("runtime_resources", "working_dir_files"), ("runtime_resources", "py_modules_files"))
"""Folders in one another in which Ray unpacks `working_dir` and `py_modules` of a runtime environment."""
APART = "make a campaign of each, or use model.kind nequip or allegro with model.states: true"
"""Remedy where one composition comes in two states and the model tells none apart."""


def make_plan(config: CampaignConfig, source: str | None, *, is_import: bool = False) -> Plan:
    """Everything that can be refused before anything starts.

    Args:
        config: The campaign.
        source: Its file; None where there is none, and paths are relative to the working folder.
        is_import: Labels are about to be imported, so those that it starts from may be missing.

    Raises:
        InputError: One line with file, field, value and remedy.
        EnvironmentProblem: A package that the campaign needs is missing.
    """
    from alsys.exploration.allocation import check_methods
    from alsys.exploration.factory import check_parts, check_time_steps
    from alsys.exploration.initial import check_initial
    from alsys.exploration.neighbourhoods import labelled_systems
    from alsys.labeling.baseline import baseline_level
    from alsys.labeling.factory import build_labeler, check_labeling
    from alsys.systems.builders import build_system

    directory = CampaignFolder.of(config)
    _check_lasting(directory, source)
    directory.check_same(config, source)
    if directory.record.is_file():
        directory.check_store(source)
    config = directory.as_begun(config)
    begun = directory.config() if directory.record.is_file() else None
    check_usual(config, begun, source)
    _check_log(config, directory, source)
    base = Path.cwd() if source is None else Path(source).resolve().parent
    built: dict[str, BuiltSystem] = {}
    try:
        for i, system in enumerate(config.systems):
            try:
                built[system.name] = build_system(system, base)
            except InputError as error:
                where = f"systems[{i}].{error.field}" if error.field else f"systems[{i}]"
                raise InputError(error.message, field=where, value=error.value, remedy=error.remedy) from None
        starts = {name: one.starts for name, one in built.items()}
        notes = {name: list(one.notes) for name, one in built.items()}
        systems = {name: frames[0] for name, frames in starts.items()}
        labelled = labelled_systems(config.exploration.carve, systems)
        try:
            check_labeling(config.labeling, labelled)
        except InputError as error:
            raise _incomplete(config, built, error) or error from None
        _check_model(config, systems)
        if not config.tells_states_apart:
            check_states(starts)
        check_initial(config.initial, systems)
        check_methods(config, systems)
        check_parts(config)
        check_memory(config)
        check_time_steps(config.exploration, systems)
        for i, rule in enumerate(config.stop.rules):
            STOP_RULES.chosen(rule, f"stop.rules[{i}]")
        if not (directory.store / "HEAD").is_file():  # what has begun goes on with what it began with
            _check_starts(config, built, notes)
        structures_with_hessians(config, starts, labelled)
        labeler = build_labeler(config.labeling)
        level, baseline = labeler.level, baseline_level(labeler)
        labeler.close()
        levels = Levels(level, baseline if config.training.delta is not None else None)
        is_start_needed = not (is_import and isinstance(config.training.start, ImportedStart))
        start = starting_point(config, directory, labelled, levels, base) if is_start_needed else None
        if config.tracking.enabled:
            _check_registry(config, directory)
    except InputError as error:
        raise error.located(source=source) from None
    return Plan(config, source, directory, starts, level, labelled, baseline, notes, start)


def _check_registry(config: CampaignConfig, directory: CampaignFolder) -> None:
    """Refuses a registry that is none, and a registered name that is another campaign's.

    A campaign that has delivered to it is not asked about again: deliveries see to it, and say so.

    Raises:
        InputError: One of the two.
    """
    from alsys.tracking.identity import kept_identity
    from alsys.tracking.outbox import Outbox
    from alsys.tracking.ownership import check_name
    from alsys.tracking.record import read_record, resolved_tracking

    kept, record = read_record(directory.path) if directory.record.is_file() else (None, {})
    resolved = resolved_tracking(config, record, directory.path)
    outbox = Outbox.of(directory.path)
    is_same = (record.get("tracking") or {}).get("uri") == resolved["uri"]
    is_known = is_same and kept is not None and kept.model_name == config.model_name
    if not (is_known and outbox.state().published):
        check_name(config, str(resolved["uri"]), kept_identity(outbox.directory))


def _incomplete(config: CampaignConfig, built: Mapping[str, BuiltSystem], error: InputError) -> InputError | None:
    """The refusal of a file that lacks atoms, where a multiplicity is impossible because of it."""
    from alsys.systems.start_check import seems_incomplete

    if error.field is None or not error.field.endswith("multiplicity"):
        return None
    for i, system in enumerate(config.systems):
        frame = built[system.name].starts[0]
        is_odd = (int(frame.numbers.sum()) - frame.charge - frame.multiplicity) % 2 == 0
        if system.file is not None and is_odd and (said := seems_incomplete(frame)):
            return InputError(
                f"{said}, and multiplicity {frame.multiplicity} does not suit its electrons",
                field=f"systems[{i}].file",
                value=system.file,
                remedy="add missing hydrogens; if none are missing, correct charge or multiplicity",
            )
    return None


def _check_starts(config: CampaignConfig, built: Mapping[str, BuiltSystem], notes: Mapping[str, list[str]]) -> None:
    """Asks start structures whether they are some, and adds to the notes what could not be checked.

    Raises:
        InputError: One is none.
    """
    from alsys.systems.start_check import check_single_atoms, check_system

    check_single_atoms(list(built.values()))
    for i, system in enumerate(config.systems):
        if not system.check:
            continue
        try:
            said = check_system(built[system.name], has_physics=config.labeling.kind != "analytic")
        except InputError as error:
            where = f"systems[{i}].{error.field}"
            raise InputError(error.message, field=where, value=error.value, remedy=error.remedy) from None
        notes[system.name].extend(said)


def _check_lasting(directory: CampaignFolder, source: str | None) -> None:
    """Refuses a place in what Ray has unpacked for a job, where relative paths of a submitted job lead.

    Raises:
        InputError: It is one.
    """
    parts = directory.path.resolve().parts
    if any(pair in RAY_PACKAGES for pair in pairwise(parts)):
        raise InputError(
            "is among packages that Ray has unpacked for a job, and removes when it wants",
            source=source, field="directory", value=str(directory.path),
            remedy="name a folder that stays, with its whole path, as in --set directory=/data/NAME",
        )  # fmt: skip


def _check_log(config: CampaignConfig, directory: CampaignFolder, source: str | None) -> None:
    """Where the record of a campaign's config is lost, its log still knows the digest of what may not change.

    Raises:
        InputError: It is another one.
    """
    if directory.record.is_file() or not (directory.store / "HEAD").is_file():
        return
    from alsys.store.zarr import open_reader

    reader = open_reader(directory.store)
    opened = [event for event in reader.events() if isinstance(event, CampaignOpened)]
    reader.close()
    if opened and opened[-1].config_hash not in ("", config_hash(config)):
        raise InputError(
            "holds a campaign of another configuration, or of another version of alsys, and its campaign.json is gone",
            source=source, field="directory", value=str(directory.path),
            remedy="restore campaign.json, use the file that it was made with, or name another directory",
        )  # fmt: skip


def _check_model(config: CampaignConfig, systems: Mapping[str, Frame]) -> None:
    numbers = sorted({int(z) for frame in systems.values() for z in frame.numbers})
    check_environments(config, [chemical_symbols[z] for z in numbers])
    for name, frame in systems.items():
        if config.model.kind == "pair" and frame.pbc.any():
            raise InputError(
                f"takes molecules only, {name} is periodic", field="model.kind", value="pair", remedy="use kind: nequip"
            )


def check_states(starts: Mapping[str, Sequence[Frame]]) -> CompositionStates:
    """Refuses one composition at two charges or multiplicities, for models that cannot tell them apart.

    Args:
        starts: Structures of each system.

    Returns:
        The state of each composition, to which imports are compared.

    Raises:
        InputError: Names two systems.
    """
    known = CompositionStates()
    for i, (name, frames) in enumerate(starts.items()):
        for frame in frames:
            conflict = known.add(frame.numbers, frame.charge, frame.multiplicity, f"system {name}")
            if conflict is not None:
                raise InputError(str(conflict), field=f"systems[{i}]", remedy=APART)
    return known
