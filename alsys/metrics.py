"""What is measured of a model version: every name, its unit and its meaning. Promotion, stop rules and reports read it.

A name that is not in the registry is an error, for mypy and at run time; what was not measured has no value, which
`Metrics.get` says with None. On disk (events, bundles, MLflow) metrics are numbers by name, those of one system or one
reason after a slash: ``n_random/water``. `Metrics.read` takes what any alsys has written: names of old (``exam_...``)
become those of today, and names that are not known here are left out.

- ``holdout_...``: on frames that the fit has not seen, those of the random arm where there are enough.
- ``stability_...``: of trial runs of dynamics (`alsys.training.stability_runs`).
- ``..._low``, ``..._high``: ends of a 95 % interval.
- ``champion_...``: of the champion of that time, on the same frames.
"""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Final, Literal, NamedTuple, get_args

LossName = Literal[
    "holdout_champion_energy_mae", "holdout_champion_stress_mae", "holdout_energy_loss_low", "holdout_energy_mae",
    "holdout_stress_loss_low", "holdout_stress_mae",
]  # fmt: skip
"""Metrics of energies and stresses beside the champion's: of a version, and of one system."""
PartName = Literal[
    LossName, "difference_high", "difference_low", "force_mae_random_arm", "n_random", "p_worse", "stability_drift",
    "stability_lost",
]  # fmt: skip
"""Metrics of one system, or for ``stability_lost`` of one reason."""
Name = Literal[
    LossName, "blind_spots", "blind_spots_high", "champion_force_mae_random_arm", "compiling_s", "difference_high",
    "difference_low", "energy_mae_random_arm", "energy_mae_to_teacher", "energy_mae_validation", "epochs",
    "error_correlation", "force_bound_deviation", "force_bound_exponent", "force_bound_factor",
    "force_bound_probability", "force_deviation_random_arm", "force_mae_random_arm", "force_mae_random_arm_high",
    "force_mae_random_arm_low", "force_mae_ratio", "force_mae_ratio_high", "force_mae_ratio_low",
    "force_mae_to_teacher", "force_mae_train", "force_mae_validation", "force_rmse_random_arm", "frame_ms",
    "holdout_champion_coverage", "holdout_coverage", "holdout_coverage_high", "holdout_skill", "holdout_skill_high",
    "inner_force_mae_train", "is_compiled", "members_renewed", "model_tests_wall_s", "n_frames", "n_labels_train",
    "n_random", "n_train", "n_validation", "resumed_s", "rollbacks", "rounds", "speed_up", "stability_drift",
    "stability_drift_low", "stability_hot_survival", "stability_hot_temperature", "stability_ps", "stability_steps",
    "stability_survival", "stability_walkers", "step_ms", "steps", "stress_mae_random_arm", "stress_mae_to_teacher",
    "teacher_force_mae_random_arm", "teacher_frame_ms", "trusted", "wall_s",
]  # fmt: skip
"""Metrics of a version as a whole."""


class Metric(NamedTuple):
    """What a number is.

    Attributes:
        unit: Empty for a pure number.
        meaning: In one line.
    """

    unit: str
    meaning: str


_FORCE, _ENERGY, _STRESS = "eV/Angstrom", "eV per atom", "eV/Angstrom^3"

METRICS: Final[dict[Name | PartName, Metric]] = {
    "wall_s": Metric("s", "the fit"),
    "n_train": Metric("", "frames it was fitted to"),
    "n_validation": Metric("", "frames that say when to stop"),
    "n_random": Metric("", "frames of the random arm"),
    "n_labels_train": Metric("", "labels of its dataset version that are for training"),
    "epochs": Metric("", "passes over the training set, mean over members"),
    "steps": Metric("", "gradient steps, mean over members"),
    "step_ms": Metric("ms", "a gradient step"),
    "is_compiled": Metric("", "1 where the step was compiled"),
    "compiling_s": Metric("s", "compiling, beyond the budget"),
    "rollbacks": Metric("", "returns to earlier weights, all members"),
    "members_renewed": Metric("", "members that began from new weights"),
    "resumed_s": Metric("s", "fitting that an earlier process had done"),
    "force_mae_train": Metric(_FORCE, "mean absolute error of force components, training set"),
    "inner_force_mae_train": Metric(_FORCE, "the same as of the training set, network of the inner time steps"),
    "force_mae_validation": Metric(_FORCE, "the same, validation set"),
    "energy_mae_validation": Metric(_ENERGY, "mean absolute error of energies, frames without masked atoms"),
    "force_mae_random_arm": Metric(_FORCE, "the same as of the training set, random arm"),
    "force_mae_random_arm_low": Metric(_FORCE, "its lower limit (bootstrap over frames)"),
    "force_mae_random_arm_high": Metric(_FORCE, "its upper limit"),
    "force_rmse_random_arm": Metric(_FORCE, "root mean squared error of force components"),
    "force_deviation_random_arm": Metric(_FORCE, "deviation of the members, mean over atoms"),
    "energy_mae_random_arm": Metric(_ENERGY, "mean absolute error of energies, frames without masked atoms"),
    "stress_mae_random_arm": Metric(_STRESS, "mean absolute error of stresses, labels that have one"),
    "error_correlation": Metric("", "of force errors, mean over pairs of members, from two frames on"),
    "champion_force_mae_random_arm": Metric(_FORCE, "of the champion"),
    "difference_low": Metric(_FORCE, "force MAE of new minus champion, lower limit (paired bootstrap)"),
    "difference_high": Metric(_FORCE, "its upper limit"),
    "p_worse": Metric(
        "", "one-sided paired t-test (Student, Biometrika 6, 1 (1908)) of: error at most 1 + tolerated_loss champion's"
    ),
    "holdout_skill": Metric("", "share of the variance of forces that is explained, 1 - MSE / mean square force"),
    "holdout_skill_high": Metric("", "its upper limit (bootstrap over frames)"),
    "holdout_energy_mae": Metric(_ENERGY, "frames of the random arm that the champion knows too"),
    "holdout_champion_energy_mae": Metric(_ENERGY, "of the champion"),
    "holdout_energy_loss_low": Metric(_ENERGY, "error minus TOLERATED_GROWTH times the champion's, lower limit"),
    "holdout_stress_mae": Metric(_STRESS, "likewise of stresses"),
    "holdout_champion_stress_mae": Metric(_STRESS, "of the champion"),
    "holdout_stress_loss_low": Metric(_STRESS, "likewise of stresses"),
    "holdout_coverage": Metric("", "share of atoms whose force error is within the band, mean over frames"),
    "holdout_coverage_high": Metric("", "two standard errors above it"),
    "holdout_champion_coverage": Metric("", "of the champion"),
    "blind_spots": Metric("", "share of frames that are trusted with an error beyond the tolerated one, cross-fitted"),
    "blind_spots_high": Metric(
        "", "its upper limit (C. J. Clopper, E. S. Pearson, Biometrika 26, 404 (1934), one-sided)"
    ),
    "trusted": Metric("", "share of frames that are trusted"),
    "force_bound_factor": Metric("(eV/Angstrom)^(1 - exponent)", "of the bound on an atom's force error, random arm"),
    "force_bound_exponent": Metric("", "of the deviation in that bound: factor * deviation ** exponent"),
    "force_bound_probability": Metric("", "share of atoms that the bound is to cover"),
    "force_bound_deviation": Metric(_FORCE, "largest deviation of an atom that the bound was fitted to"),
    "stability_steps": Metric("", "steps of the trial runs"),
    "stability_ps": Metric("ps", "their length"),
    "stability_walkers": Metric("", "walkers of each kind"),
    "stability_survival": Metric("", "share of walkers at constant energy that lived"),
    "stability_hot_survival": Metric("", "share of hot walkers that lived"),
    "stability_hot_temperature": Metric("K", "of the hot walkers"),
    "stability_lost": Metric("", "walkers that were lost for a reason"),
    "stability_drift": Metric("eV per atom and ps", "of the total energy, largest of all systems"),
    "stability_drift_low": Metric("eV per atom and ps", "its lower limit"),
    "model_tests_wall_s": Metric("s", "all that was measured after the fit"),
    "n_frames": Metric("", "frames that a distilled model has learned from"),
    "force_mae_to_teacher": Metric(_FORCE, "of a distilled model, on walkers that it has not seen"),
    "energy_mae_to_teacher": Metric(_ENERGY, "likewise of energies"),
    "stress_mae_to_teacher": Metric(_STRESS, "likewise of stresses, where walkers are periodic"),
    "teacher_force_mae_random_arm": Metric(_FORCE, "of its teacher against labels"),
    "force_mae_ratio": Metric("", "of the random arm's force MAE to its teacher's"),
    "force_mae_ratio_low": Metric("", "its lower limit (paired bootstrap over frames)"),
    "force_mae_ratio_high": Metric("", "its upper limit"),
    "rounds": Metric("", "walks and fits that a distilled model has been through"),
    "frame_ms": Metric("ms", "a frame in a batch of 8, eager"),
    "teacher_frame_ms": Metric("ms", "the same by its teacher"),
    "speed_up": Metric("", "how many times faster than its teacher it is"),
}
"""What each name means."""

_NAMES: Final = frozenset(get_args(Name))
_PARTS: Final = frozenset(get_args(PartName))


class UnknownMetric(Exception):
    """Nobody measures what has this name."""


class Metrics:
    """Numbers of one version by name; immutable.

    Args:
        values: Of the version.
        parts: Of its systems, or of reasons, by name and system.

    Raises:
        UnknownMetric: A name is not in `METRICS`.
    """

    def __init__(
        self,
        values: Mapping[Name, float] | None = None,
        parts: Mapping[tuple[PartName, str], float] | None = None,
    ) -> None:
        self._values: dict[str, float] = {_checked(name): float(value) for name, value in (values or {}).items()}
        self._values |= {_checked(f"{name}/{of}"): float(value) for (name, of), value in (parts or {}).items()}

    @classmethod
    def read(cls, written: Mapping[str, float]) -> Metrics:
        """What an event, a card or MLflow says, whichever alsys wrote it; NaN there is what was not measured."""
        metrics = cls()
        metrics._values = {
            name: float(value)
            for old, value in written.items()
            if math.isfinite(value) and (name := _today(old)) is not None
        }
        return metrics

    def get(self, name: Name) -> float | None:
        """A number; None where it was not measured."""
        return self._values.get(_checked(name))

    def of(self, name: PartName) -> dict[str, float]:
        """Numbers by system, or by reason; empty where there are none."""
        prefix = f"{_checked(f'{name}/')}"
        return {key.removeprefix(prefix): value for key, value in self._values.items() if key.startswith(prefix)}

    def __getitem__(self, name: Name) -> float:
        """A number that was measured for sure: else `KeyError`."""
        return self._values[_checked(name)]

    def __contains__(self, name: Name) -> bool:
        return _checked(name) in self._values

    def __or__(self, other: Metrics) -> Metrics:
        metrics = Metrics()
        metrics._values = {**self._values, **other._values}
        return metrics

    def __eq__(self, other: object) -> bool:
        return self._values == (other._values if isinstance(other, Metrics) else other)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._values.items())))

    def __repr__(self) -> str:
        return f"Metrics({self._values})"

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def keys(self) -> KeysView[str]:
        """Names, as on disk."""
        return self._values.keys()

    def values(self) -> ValuesView[float]:
        """Numbers."""
        return self._values.values()

    def items(self) -> ItemsView[str, float]:
        """Names and numbers, as on disk."""
        return self._values.items()


def _is_known(name: str) -> bool:
    head, slash, _ = name.partition("/")
    return head in (_PARTS if slash else _NAMES)


def _checked(name: str) -> str:
    if not _is_known(name):
        raise UnknownMetric(f"{name!r} is no metric of `alsys.metrics`")
    return name


def _today(name: str) -> str | None:
    """A name as it is today; None for one that nobody knows here."""
    if _is_known(name):
        return name
    if name.startswith("exam_"):  # until 2026-11
        rest = name.removeprefix("exam_")
        return next((new for head in ("holdout_", "stability_", "model_tests_") if _is_known(new := head + rest)), None)
    return None
