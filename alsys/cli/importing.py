"""`alsys data import`: labelled frames of a file into a campaign, which need not exist yet.

The store's lock is taken first, so nobody runs the campaign meanwhile. Where the import is refused, a campaign that it
would have created is not there.
"""

from __future__ import annotations

import argparse
import difflib
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from alsys.campaign.checks import check_states, make_plan
from alsys.campaign.folder import CampaignFolder
from alsys.campaign.places import check_place
from alsys.campaign.start import is_meant
from alsys.cli.configs import read_config
from alsys.config import CampaignConfig
from alsys.config.start import ImportedStart
from alsys.control.rules.stopping import TO_GO_ON
from alsys.errors import AlsysError, InputError
from alsys.events import CampaignOpened, CampaignStopped
from alsys.files import replace_file
from alsys.frames import Arm, Frame
from alsys.interop.account import MAX_LISTED
from alsys.interop.file_units import energy_unit, force_unit, length_unit, stress_unit
from alsys.interop.formats import find, guess
from alsys.interop.import_reader import ImportOrder, may_be, named_level
from alsys.interop.importing import ImportReport, digest_of, import_frames
from alsys.interop.keys import KeyChoice
from alsys.interop.stated_electrons import SPINS
from alsys.labels import Label, LevelOfTheory
from alsys.outside.contents import MAX_YAML_BYTES, check_regular, parse_yaml, read_text
from alsys.states import NEUTRAL_SINGLET, CompositionStates
from alsys.store.base import StoreWriter
from alsys.store.objects import is_url

MAX_NAMED = 10
"""Frames that stand out which are named."""


def import_(args: argparse.Namespace) -> int:
    """Imports a file and says what became of it."""
    config, directory, own, baseline, states = _campaign(args)
    order = _order(args, own)
    from alsys.store.zarr import open_writer

    is_new = not directory.path.exists()
    store = None
    try:
        directory.logs.mkdir(parents=True, exist_ok=True)
        store = open_writer(directory.store)
        directory.write_record(config, None if Path(args.campaign).is_dir() else args.campaign)
        known = {level.level_id for level in store.levels()}
        # the campaign's own levels first, in its order, whatever the file is of
        store.stage(levels=[level for level in (baseline, own) if level is not None and level.level_id not in known])
        if states is not None:
            _add_labelled(states, store, own)
        order = replace(order, known_levels=(*order.known_levels, *store.levels()))
        report = import_frames(
            store, order, own, time.time(), baseline=_baseline_labeler(config, baseline), known=states
        )
        if report.event is None:
            store.commit()
    except BaseException as error:
        if store is not None:
            store.close()
        if is_new:
            shutil.rmtree(directory.path, ignore_errors=True)
        if isinstance(error, OSError):
            raise AlsysError(f"{directory.store} cannot be written: {error}; nothing was imported") from error
        raise
    turns = (event for event in reversed(store.events()) if isinstance(event, CampaignOpened | CampaignStopped))
    last = next(turns, None)
    store.close()
    ended = last if isinstance(last, CampaignStopped) and last.is_final else None
    _print(args, config, own, report, _list_skipped(directory, order.path, report), ended)
    return 0


def _list_skipped(directory: CampaignFolder, source: Path, report: ImportReport) -> Path | None:
    """Writes which frames were left out and why, one a line; None where there are none."""
    account = report.account
    if not account.n_refused:
        return None
    path = directory.logs / f"skipped-{source.stem}-{digest_of(source)[:8]}.tsv"
    lines = [f"{frame.place}\t{frame.reason}\n" for frame in account.refused]
    if (more := account.n_refused - len(account.refused)) > 0 and len(lines) == MAX_LISTED:
        lines.append(f"and {more} more\t\n")
    replace_file(path, "".join(lines))
    return path


def _campaign(
    args: argparse.Namespace,
) -> tuple[CampaignConfig, CampaignFolder, LevelOfTheory, LevelOfTheory | None, CompositionStates | None]:
    """Config, directory, level and baseline's level of a campaign that is there or to be, and states of compositions.

    The last are None where its model tells states apart, so that they need not be compared.
    """
    target = Path(args.campaign)
    if target.is_dir() or is_url(args.campaign):
        from alsys.labeling.baseline import baseline_level
        from alsys.labeling.factory import build_labeler

        directory = CampaignFolder.existing(args.campaign)
        if args.set:
            raise InputError("goes with a campaign file", field="--set", value=args.set[0])
        config = directory.config()
        labeler = build_labeler(config.labeling)
        try:
            return (
                config,
                directory,
                labeler.level,
                baseline_level(labeler),
                None if config.tells_states_apart else CompositionStates(),
            )
        finally:
            labeler.close()
    args.config = args.campaign
    config = read_config(args)
    check_place(config, args.campaign, args.set)
    plan = make_plan(config, args.campaign, is_import=True)
    return (
        config,
        plan.directory,
        plan.level,
        plan.baseline,
        None if config.tells_states_apart else check_states(plan.starts),
    )


def _add_labelled(known: CompositionStates, store: StoreWriter, own: LevelOfTheory) -> None:
    """The states of compositions that the campaign has labelled."""
    labelled = store.snapshot(own.level_id)
    labelled = labelled.select(~labelled.is_arm(Arm.ATOM))
    known.add_all(labelled.n_atoms, labelled.numbers, labelled.charge, labelled.multiplicity, "the campaign")


def _order(args: argparse.Namespace, own: LevelOfTheory) -> ImportOrder:
    path = Path(args.file)
    if not path.is_dir():
        check_regular(path)
    temperature = 0.0 if args.sampled_at is None else float(args.sampled_at)
    if args.sampled_at is not None and not 0.0 < temperature <= 20_000.0:
        raise InputError("must be a temperature up to 20000 K", source="--sampled-at", value=args.sampled_at)
    units = []
    readers = (("energy", energy_unit), ("force", force_unit), ("length", length_unit), ("stress", stress_unit))
    for what, read in readers:
        said = getattr(args, f"{what}_unit")
        if said is not None:
            units.append((what, read(said)))
    return ImportOrder(
        path=path,
        format=find(args.format) if args.format else guess(path),
        level=None if args.level is None else _level(args.level, own),
        units=tuple(units),
        charge=args.charge,
        multiplicity=args.multiplicity,
        take=args.take,
        system=args.system or path.stem,
        is_trusted=args.trust_units,
        temperature=temperature,
        choice=KeyChoice(args.energy_key, args.forces_key, args.stress_key, _spin(args.spin_is)),
        is_skipping=args.skip,
        known_levels=(own,),
        licence=" ".join(args.licence.split()),
        origin=" ".join(args.source.split()),
        citation=" ".join(args.citation.split()),
    )


def _spin(text: str) -> str:
    """What `spin` means, as the user says it."""
    if text and text.upper() not in SPINS:
        raise InputError("is not known", source="--spin-is", value=text, remedy=f"one of {', '.join(SPINS)}")
    return text.upper()


def _level(text: str, own: LevelOfTheory) -> LevelOfTheory:
    """The level that the user means: the campaign's, that of a file, or a named one."""
    if text.strip().lower() == "campaign":
        return own
    if difflib.get_close_matches(text.strip().lower(), ["campaign"], cutoff=0.75):
        raise InputError("is no level", source="--level", value=text, remedy="did you mean `campaign`?")
    path = Path(text)
    if path.suffix not in (".json", ".yaml", ".yml"):
        return named_level(text)
    try:
        spec = parse_yaml(read_text(path, MAX_YAML_BYTES))
    except InputError as error:
        raise error.located(source=text, field="level") from error
    if not isinstance(spec, dict) or not spec:
        raise InputError("is no mapping", field="level", source=text)
    if {"systems", "labeling"} & spec.keys():
        raise InputError(
            "is a campaign file and no level of theory", field="level", source=text,
            remedy="give `campaign` for the campaign's own level, else e.g. pbe/def2-svp",
        )  # fmt: skip
    return named_level(json.dumps(spec))


def _apart(config: CampaignConfig, report: ImportReport) -> str:
    """What the campaign's model makes of several states of charge and multiplicity."""
    if len(report.states) < 2 or not config.tells_states_apart:
        return ""
    return "; the model tells them apart (model.states)"


def _baseline_labeler(
    config: CampaignConfig, level: LevelOfTheory | None
) -> tuple[LevelOfTheory, Callable[[Frame], Label | None]] | None:
    """Where models learn a difference, frames to train on need the baseline beside their label."""
    from alsys.config.labeling import PySCFBaseline
    from alsys.potentials.xtb import XTBFailure, XTBMethod, single_point

    kind = config.labeling.baseline
    if config.training.delta is None or kind is None or level is None or isinstance(kind, PySCFBaseline):
        return None
    method = XTBMethod.of(kind)

    def label(frame: Frame) -> Label | None:
        try:
            values = single_point(frame, method)
        except XTBFailure:
            return None  # such a frame is stored, and left out of training
        return Label(frame.frame_id, level.level_id, values.energy, values.forces)

    return level, label


def _when(config: CampaignConfig, report: ImportReport, ended: CampaignStopped | None) -> str:
    """When imported labels are learned."""
    if ended is not None:
        return f", once the campaign goes on; it has ended: {ended.message}; {TO_GO_ON.get(ended.reason, '')}"
    return "; the first fit starts at once" if report.n_train >= config.training.first_at else ""


def _print(
    args: argparse.Namespace,
    config: CampaignConfig,
    own: LevelOfTheory,
    report: ImportReport,
    listed: Path | None,
    ended: CampaignStopped | None,
) -> None:
    account = report.account
    if args.json:
        content = {
            "frames": report.n_frames,
            "new": report.n_new,
            "trained_on": report.n_train,
            "known": report.n_known,
            "left_to_the_campaign": report.n_own,
            "level_id": report.level.level_id,
            "level": dict(report.level.spec),
            "unit_check": report.note,
            "keys": account.to_json(),
            "n_skipped": account.n_refused,
            "skipped": [{"frame": frame.place, "reason": frame.reason} for frame in account.refused],
            "skipped_file": None if listed is None else str(listed),
            "outliers": [{"frame": place, "reason": why} for place, why in report.outliers],
            "states": [[state.charge, state.multiplicity, n] for state, n in sorted(report.states.items())],
        }
        sys.stdout.write(json.dumps(content) + "\n")
        return
    known = f", {report.n_known} known already" if report.n_known else ""
    left = f", {report.n_own} left to the campaign's own labelers (its frames, free atoms)" if report.n_own else ""
    lines = [f"{report.n_new} new labels of {report.n_frames} frames{known}{left}; level {report.level.canonical}"]
    if report.n_new:
        lines.append(f"units: {report.note}")
    lines.append(account.text)
    if listed is not None:
        first = account.refused[0]
        lines.append(f"{account.n_refused} frames are left out: {first.place}: {first.reason}; all of them in {listed}")
    if report.outliers:
        named = "; ".join(f"{place}: {why}" for place, why in report.outliers[:MAX_NAMED])
        more = f"; and {len(report.outliers) - MAX_NAMED} more" if len(report.outliers) > MAX_NAMED else ""
        lines.append(
            f"warning: {len(report.outliers)} frames stand out, and are taken: {named}{more}; look at them, and "
            "`alsys data retract` what is wrong"
        )
    if args.sampled_at is not None and report.n_known + report.n_own:
        lines.append("--sampled-at says nothing of frames that were there before: they stay as they came")
    if report.states.keys() - {NEUTRAL_SINGLET}:
        counts = "; ".join(f"{state}: {n}" for state, n in sorted(report.states.items()))
        lines.append(f"frames by state: {counts}" + _apart(config, report))
    if report.n_train:
        lines.append(f"{report.n_train} are of the campaign's level and are trained on" + _when(config, report, ended))
    elif report.n_new:
        start = config.training.start
        is_pretraining = isinstance(start, ImportedStart) and is_meant(start.level, report.level)
        lines.append(
            f"they are of another level than the campaign's, {report.level.level_id[:8]}: stored, "
            + ("and learned before its own labels" if is_pretraining else "and not trained on with its labels")
        )
        if may_be(args.level or report.level.canonical, own):
            said = args.level or "what the file states"
            lines.append(f"--level campaign says that {said} is exactly the campaign's, {own.canonical}")
    sys.stdout.write("\n".join(lines) + "\n")
