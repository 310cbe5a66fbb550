"""All checks on one model of a campaign, with results kept as they come.

`validation/vNNNN.json` is written after every check of every system, so a run that is killed goes on with the next one;
a result whose inputs have not changed (weights, settings, start structure, and for errors the dataset version) is not
measured again. Reference labels come from the campaign's own labeler, within its limits, and stay in
`validation/labels.jsonl` (`alsys.validation.reference`). What a check cannot do is noted in its result and never ends
the run.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from alsys.config.schema import CampaignConfig
from alsys.config.systems import SystemConfig
from alsys.config.validation import CHECKS
from alsys.dynamics.minima import Minimum, relaxed
from alsys.errors import EnvironmentProblem, InputError
from alsys.exploration.initial import is_simple
from alsys.exploration.methods.torsions import find_rotors
from alsys.frames import Arm, FloatArray, Frame
from alsys.interop.model_sources import read_model
from alsys.labeling.base import Labeler
from alsys.potentials.base import Committee, CommitteeState
from alsys.potentials.factory import build_committee
from alsys.potentials.scored import scored
from alsys.store.base import Snapshot
from alsys.store.columns import ColumnReader
from alsys.store.damage import sound_snapshot
from alsys.training.evaluate import bootstrap_interval, evaluate
from alsys.validation import checks
from alsys.validation.accuracy import Comparison, compare_labels
from alsys.validation.checks import Finding, skipped
from alsys.validation.distance_check import (
    MIN_FRAMES,
    DistanceComparison,
    KnownFrames,
    ReferenceDynamics,
    check_distances,
    known_frames,
)
from alsys.validation.dynamics import DynamicsSettings
from alsys.validation.minima import NoForces, is_same_molecule
from alsys.validation.reference import LabelCache, NoLabel, Reference
from alsys.validation.results import (
    DONE,
    PARTIAL,
    UnitResult,
    ValidationRecord,
    read_validation,
    record_path,
    write_validation,
)
from alsys.validation.scans import bond_scans, torsion_scans
from alsys.validation.systems import KnownMinima, StartStructures

logger = logging.getLogger(__name__)

MAX_VERSIONS = 12
"""Versions on the learning curve, evenly spaced."""
ON_LABELS = ("parity", "learning", "calibration")
_ORDER: dict[str, int] = {check: k for k, check in enumerate(CHECKS)}
WITH_MINIMUM = ("minima", "torsions", "bonds", "frequencies")


class CampaignValidation:
    """Validates one model of a campaign. Only one process at a time may: see `exclusive`.

    Args:
        version: A version that has a bundle.
        config: The campaign's config.
        reader: Its store.
        models: Its folder of bundles.
        folder: Where results and reference labels are kept.
        n_labels: Labels that each published version was made from.
        build_labeler: Makes the labeler that the campaign has, without baseline.
        budget: New reference calculations of this run; None for what the config allows.
        label_s: Seconds that a label takes, for whether reference dynamics is affordable; NaN where unknown.
        progress: Told what is being done.
    """

    def __init__(
        self,
        version: int,
        *,
        config: CampaignConfig,
        reader: ColumnReader,
        models: Path,
        folder: Path,
        n_labels: Mapping[int, int],
        build_labeler: Callable[[], Labeler],
        budget: int | None = None,
        label_s: float = math.nan,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self._version, self._config, self._reader = version, config, reader
        self._models, self._folder = models, folder
        self._settings = config.validation
        self._n_labels, self._build_labeler, self._budget, self._label_s = n_labels, build_labeler, budget, label_s
        self._progress = progress or (lambda message: None)
        self._minima: dict[str, Minimum | Finding] = {}

    def run(self, only: Sequence[str] = ()) -> ValidationRecord:
        """Makes the checks, and returns all results that the version has.

        Args:
            only: Checks to make; default those of the config. Results of others that are there are kept.

        Raises:
            InputError: No such bundle, it is damaged, or a file of the validation is; or the campaign has no labels of
                the labeler's level of theory.
        """
        path = record_path(self._folder, self._version)
        old = read_validation(path)
        self._state, _ = read_model(self._bundle)
        cache = LabelCache(self._folder / "labels.jsonl")
        budget = self._settings.labels if self._budget is None else self._budget
        self._reference = Reference(self._build_labeler, cache, budget, self._settings.workers)
        try:
            level = self._reference.level
            if level.level_id not in {known.level_id for known in self._reader.levels()}:
                raise InputError(
                    "the store holds no labels of the labeler's level of theory",
                    field="labeling",
                    value=level.canonical,
                    remedy="validate with the alsys that made them",
                )
            self._snapshot = sound_snapshot(self._reader, self._folder.parent, level.level_id)
            self._known_minima = KnownMinima(self._folder / "minima.json")
            self._starts = StartStructures(self._folder / "starts.json", self._config, self._snapshot)
            left_out = [system.name for system in self._config.systems[self._settings.max_systems :]]
            if left_out:
                self._progress(f"not scanned and not run (validation.max_systems): {', '.join(left_out)}")
            units = {unit.place: unit for unit in old.units} if old is not None else {}
            when = old.unix_time if old is not None else 0.0
            seq, spec = self._snapshot.seq, dict(level.spec)
            record = ValidationRecord(self._version, seq, spec, tuple(units.values()), len(cache), when)
            for unit in self._measured(only or self._settings.checks, units):
                units[unit.place] = unit
                ordered = sorted(units.values(), key=lambda u: _ORDER[u.check])
                record = replace(record, units=tuple(ordered), n_labels=len(cache), unix_time=time.time())
                write_validation(path, record)
        finally:
            self._reference.close()
        return record

    @property
    def _bundle(self) -> Path:
        return self._models / f"v{self._version:04d}"

    @property
    def n_spent(self) -> int:
        """New reference calculations of the run."""
        return self._reference.n_spent

    def _measured(self, wanted: Sequence[str], known: Mapping[str, UnitResult]) -> Iterator[UnitResult]:
        """Results that are new, one after another."""
        for check in CHECKS:
            if check not in wanted:
                continue
            for place, make in self._units(check):
                old = known.get(place.place)
                if old is not None and old.key == place.key and old.status == DONE:
                    self._progress(f"{place.place}: known")
                    continue
                self._progress(f"{place.place}: begins")
                finding = self._safely(place.place, make)
                self._progress(f"{place.place}: {'; '.join([finding.status, *finding.notes])}")
                yield replace(
                    place, status=finding.status, metrics=finding.metrics, curves=finding.curves, notes=finding.notes
                )

    def _safely(self, place: str, make: Callable[[], Finding]) -> Finding:
        """A check's finding; what keeps it from finding anything is one."""
        try:
            return make()
        except NoLabel as error:
            return Finding(PARTIAL, notes=(str(error),)) if error.is_spent else skipped(str(error))
        except NoForces as error:
            return Finding(DONE, {"n_broken": 1.0}, notes=(f"the model gives no forces: {error}",))
        except (InputError, EnvironmentProblem) as error:
            logger.warning("%s: %s", place, error)
            return skipped(str(error))

    def _units(self, check: str) -> Iterator[tuple[UnitResult, Callable[[], Finding]]]:
        """What one check is about: places with their keys, and how each is measured."""
        if check in ON_LABELS:
            labels: list[object] = [self._snapshot.seq, *(self._shown_versions if check == "learning" else [])]
            yield self._place(check, labels), {
                "parity": self._parity, "learning": self._learning, "calibration": self._calibration
            }[check]  # fmt: skip
            return
        for system in self._config.systems[: self._settings.max_systems]:
            try:
                start = self._starts.of(system)
            except InputError as error:
                yield self._place(check, [], system.name), partial(skipped, f"no start structure: {error}")
                continue
            if check in WITH_MINIMUM:
                place = self._place(check, self._scan_settings(check, start), system.name)
                yield place, partial(self._with_minimum, check, system, start)
                continue
            for temperature in self._temperatures:
                begin = self._begin(system, start)
                dynamics = self._dynamics(check, temperature)
                basis = [repr(dynamics), begin.frame_id, self._settings.walkers, self._settings.reference_walkers]
                if check == "stability":
                    place = self._place(check, basis, system.name, temperature)
                    yield place, partial(self._stability, begin, dynamics, place.place)
                    continue
                comparison, why_none = self._comparison(begin, temperature)
                frames = comparison.frame_ids if isinstance(comparison, KnownFrames) else ()
                basis += [getattr(comparison, "name", ""), *frames]
                place = self._place(check, basis, system.name, temperature)
                yield place, partial(self._distances, begin, dynamics, comparison, why_none)

    def _place(
        self, check: str, basis: Sequence[object], system: str = "", temperature: float = math.nan
    ) -> UnitResult:
        content = [check, system, repr(temperature), self._digest, self._reference.level.level_id, *map(repr, basis)]
        key = hashlib.blake2b(json.dumps(content).encode(), digest_size=16, person=b"alsys-valid-1").hexdigest()
        return UnitResult(check, key, PARTIAL, system, temperature)

    def _scan_settings(self, check: str, start: Frame) -> list[object]:
        s = self._settings
        own: dict[str, list[object]] = {
            "minima": [],
            "torsions": [s.torsion_points],
            "bonds": [s.bond_points, s.bond_range],
            "frequencies": [s.displacement],
        }
        return [start.frame_id, s.relax_force, s.relax_steps, *own[check]]

    @property
    def _digest(self) -> str:
        return hashlib.sha256((self._bundle / "SHA256SUMS").read_bytes()).hexdigest()

    @cached_property
    def _committee(self) -> Committee:
        return self._built(self._state)

    @cached_property
    def _mover(self) -> Committee:
        """The same, compiled where the campaign compiles its explorers' models: dynamics evaluates it often."""
        exploration = self._config.exploration
        if not exploration.compile or self._state.kind != "nequip":
            return self._committee
        return self._built(self._state, is_compiled=True)

    def _built(self, state: CommitteeState, *, is_compiled: bool = False) -> Committee:
        exploration = self._config.exploration
        return build_committee(state, exploration.threads, is_compiled=is_compiled, device=exploration.device)

    @cached_property
    def _random(self) -> Snapshot:
        snapshot = self._snapshot
        return snapshot.select(snapshot.is_arm(Arm.RANDOM) & (snapshot.n_trusted > 0))

    @cached_property
    def _compared(self) -> Comparison:
        return compare_labels(scored(self._committee, self._state), self._random)

    def _parity(self) -> Finding:
        return checks.check_parity(self._compared) if self._random.n_frames else skipped("the random arm is empty")

    def _calibration(self) -> Finding:
        return checks.check_calibration(self._compared) if self._random.n_frames else skipped("the random arm is empty")

    @property
    def _shown_versions(self) -> list[int]:
        known = [v for v in sorted(self._n_labels) if (self._models / f"v{v:04d}" / "model.json").is_file()]
        rows = np.unique(np.linspace(0, len(known) - 1, min(len(known), MAX_VERSIONS)).round().astype(int))
        return sorted({*(known[k] for k in rows), self._version})

    def _learning(self) -> Finding:
        if not self._random.n_frames:
            return skipped("the random arm is empty")
        rows = []
        for version in self._shown_versions:
            if version not in self._n_labels:
                continue
            try:
                errors = evaluate(self._built(read_model(self._models / f"v{version:04d}")[0]), self._random).force_mae
            except InputError as error:  # an early version may not know an element, or be damaged
                logger.warning("v%04d is not on the learning curve: %s", version, error)
                continue
            errors = errors[np.isfinite(errors)]
            if errors.size:
                low, high = bootstrap_interval(errors) if errors.size > 1 else (math.nan, math.nan)
                rows.append((version, self._n_labels[version], float(errors.mean()), low, high))
        return checks.check_learning(rows)

    def _with_minimum(self, check: str, system: SystemConfig, start: Frame) -> Finding:
        if not is_simple(start):
            return skipped("holds several molecules: it has no one minimum")
        if check in ("torsions", "bonds") and start.pbc.any():
            return skipped("is periodic: only molecules are scanned")
        if start.n_atoms == 1:
            return skipped("is a single atom")
        minimum = self._minimum(system.name, start)
        if isinstance(minimum, Finding):
            return minimum
        settings = self._settings
        if check == "minima":
            return checks.check_minimum(self._committee, minimum, settings)
        if check == "frequencies":
            return checks.check_frequencies(self._committee, self._reference, minimum, settings)
        if check == "bonds":
            scans = bond_scans(minimum.frame, _through_zero(*settings.bond_range, settings.bond_points))
        else:
            scans = torsion_scans(minimum.frame, find_rotors(minimum.frame, system.smiles), settings.torsion_points)
        return (
            checks.check_scans(self._committee, self._reference, minimum, scans)
            if scans
            else skipped("has no bond that turns" if check == "torsions" else "has no bonds")
        )

    def _minimum(self, name: str, start: Frame) -> Minimum | Finding:
        """The reference's minimum: found by an earlier run, or now and kept."""
        if name not in self._minima:
            s = self._settings
            content = [self._reference.level.level_id, start.frame_id, s.relax_force, s.relax_steps]
            key = hashlib.blake2b(json.dumps(content).encode(), digest_size=16, person=b"alsys-minimum-1").hexdigest()
            try:
                known = self._known_minima.get(key)
                found = known or relaxed(start, self._reference.potential(start), s.relax_force, s.relax_steps)
                if known is None:
                    self._known_minima.put(key, found)
                is_same = is_same_molecule(start, found.frame)
                self._minima[name] = found if is_same else skipped("the reference relaxes into another structure")
            except NoLabel as error:
                note = f"the reference's minimum: {error}"
                self._minima[name] = Finding(PARTIAL, notes=(note,)) if error.is_spent else skipped(note)
        return self._minima[name]

    @property
    def _temperatures(self) -> list[float]:
        chosen = self._settings.temperatures
        if chosen is None:
            known = self._config.exploration.temperatures
            chosen = (min(known), max(known))
        return sorted({float(t) for t in chosen})

    def _dynamics(self, check: str, temperature: float) -> DynamicsSettings:
        exploration, settings = self._config.exploration, self._settings
        n_steps = max(1, round(settings.time / exploration.timestep))
        if check == "distances" and not self._why_no_dynamics:
            n_steps = max(1, min(n_steps, settings.reference_labels // settings.reference_walkers - 1))
        return DynamicsSettings(
            temperature=temperature,
            timestep=exploration.timestep,
            friction=exploration.friction,
            n_steps=n_steps,
            seed=self._config.seed,
            bond_tolerance=None if exploration.reactive else settings.bond_tolerance,
            min_distance=exploration.min_distance,
            max_temperature_ratio=exploration.max_temperature_ratio,
            is_reactive=exploration.reactive,
            wall_s=settings.wall_s,
            hydrogen_mass=exploration.hydrogen_mass,
        )

    def _begin(self, system: SystemConfig, start: Frame) -> Frame:
        """Where dynamics begins: at the reference's minimum where that can be had."""
        if start.n_atoms > 1 and is_simple(start):
            minimum = self._minimum(system.name, start)
            if isinstance(minimum, Minimum):
                return minimum.frame
        return start

    def _stability(self, begin: Frame, dynamics: DynamicsSettings, place: str) -> Finding:
        checkpoint = self._folder / f".v{self._version:04d}-{place.replace('/', '-')}.npz"
        return checks.check_stability(self._mover, begin, self._settings.walkers, dynamics, checkpoint)

    @property
    def _why_no_dynamics(self) -> str:
        """Why the reference can have no dynamics; empty where it can."""
        settings = self._settings
        if not self._label_s <= settings.cheap_s:
            return f"labels take {self._label_s:.2g} s, too dear for reference dynamics (validation.cheap_s)"
        if settings.reference_labels < 10 * settings.reference_walkers:
            return "validation.reference_labels allows no reference dynamics"
        return ""

    def _comparison(self, begin: Frame, temperature: float) -> tuple[DistanceComparison | None, str]:
        """What the distances of the model's dynamics are compared with, or why with nothing."""
        why_none = self._why_no_dynamics
        if not why_none:
            return ReferenceDynamics(self._reference, self._settings.reference_walkers), ""
        is_reactive = self._config.exploration.reactive
        known = known_frames(self._reader, self._snapshot, begin, temperature, is_reactive=is_reactive)
        if known is not None:
            return known, ""
        return None, (
            f"model only: {why_none}, and there are not {MIN_FRAMES} imported frames that were said to be sampled at "
            f"{temperature:g} K (`alsys data import --sampled-at`)"
        )

    def _distances(
        self, begin: Frame, dynamics: DynamicsSettings, comparison: DistanceComparison | None, why_none: str
    ) -> Finding:
        settings = self._settings
        if begin.n_atoms == 1:
            return skipped("is a single atom")
        if self._budget is None and isinstance(comparison, ReferenceDynamics):
            self._reference.budget = self._reference.n_spent + settings.reference_labels
        return check_distances(self._mover, begin, settings.walkers, dynamics, comparison, why_none)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds the right to validate a campaign.

    Raises:
        InputError: Another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        for left in (1, 0):  # one who asks whether it is held holds it for a moment
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise InputError("another process is validating this campaign", source=str(folder)) from None
                time.sleep(0.2)
        yield
    finally:
        os.close(handle)


def _through_zero(low: float, high: float, n: int) -> FloatArray:
    """`n` values from `low` to `high`, the one nearest to zero moved there."""
    values = np.linspace(low, high, n)
    values[1 + int(np.argmin(np.abs(values[1:-1])))] = 0.0
    return values
