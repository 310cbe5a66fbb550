"""Promotion: whether a new version becomes champion, and all the reasons. Pure functions of metrics.

A challenger becomes champion unless something speaks against it: it is worse than the champion on the random arm beyond
the 95 % paired interval; it is worse on one system, tested for all systems at once (S. Holm, Scand. J. Stat. 6, 65
(1979)); its energies or stresses are off by more than twice as much as the champion's; it explains next to nothing of
unseen forces; or it falls short of a limit of `promotion` in its model tests (`alsys.training.model_tests`). A
shortcoming in dynamics or coverage that the champion has too, and no less, is no reason to keep that champion: the
challenger is then promoted on probation, as long as it is not far behind the best of all champions so far. So is a
first version with such shortcomings, since without a champion nothing is explored, and explorers have guards of their
own; one that has learned next to nothing is no first version either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alsys.config.promotion import PromotionConfig
from alsys.events import ModelPromoted, ModelRejected
from alsys.metrics import LossName, Metrics, Name

SIGNIFICANCE = 0.05
"""Chance that a version which is worse on no system is rejected for one of them."""
SURVIVAL_SLACK = 0.25
"""Survival below the best champion's that still counts as no worse: two walkers of eight."""
DRIFT_SLACK = 2.0
"""Drift over the best champion's that still counts as no worse."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A quantity whose error must not grow too much.

    Attributes:
        quantity: For people.
        unit: Of a thousandth of it.
        floor: Error below which a growing one is none, eV per atom or eV/Angstrom^3.
        new, old, loss_low: Metrics of the new version, of the champion, and of how much worse the new one is.
    """

    quantity: str
    unit: str
    floor: float
    new: LossName
    old: LossName
    loss_low: LossName


COMPARED = (
    Compared(
        "energy", "meV per atom", 5e-3, "holdout_energy_mae", "holdout_champion_energy_mae", "holdout_energy_loss_low"
    ),
    Compared(
        "stress", "meV/Angstrom^3", 1e-3, "holdout_stress_mae", "holdout_champion_stress_mae", "holdout_stress_loss_low"
    ),
)


@dataclass(frozen=True, slots=True)
class Shortcoming:
    """A limit that a version does not keep.

    Attributes:
        criterion: ``dynamics``, ``survival``, ``hot-survival``, ``drift`` or ``coverage``.
        text: For people.
    """

    criterion: str
    text: str


def judge(
    version: int,
    metrics: Metrics,
    champion: int,
    champions: Sequence[Metrics],
    settings: PromotionConfig,
    probability: float,
    now: float,
) -> ModelPromoted | ModelRejected:
    """Promotes a version or keeps it challenger.

    Args:
        version: The version.
        metrics: Of its fit.
        champion: The champion; 0 for none.
        champions: Metrics of all champions so far, the current one last.
        settings: The limits.
        probability: Share of atoms that the calibrated band is to cover.
        now: Unix time.
    """
    against = _unskilled(metrics, settings)
    if champion:
        compared = [*_worse(metrics, champion), *_worse_systems(metrics), *_worse_energies(metrics, champion)]
        against = [*compared, *against]
    own = _shortcomings(metrics, settings, probability)
    excused = [s for s in own if not champion or _is_no_worse(s, metrics, champions, settings)]
    against += [shortcoming.text for shortcoming in own if shortcoming not in excused]
    if against:
        return ModelRejected(t=now, version=version, reason="; ".join(against), reasons=tuple(against))
    reason = _comparison(metrics, champion)
    notes = tuple(shortcoming.text for shortcoming in excused)
    if notes:
        reason += f"; on probation: {'; '.join(notes)}"
    return ModelPromoted(t=now, version=version, reason=reason, reasons=notes, is_probation=bool(notes))


def worse_systems(metrics: Metrics) -> list[str]:
    """Systems on which a version is worse than the champion, by Holm's step-down test at `SIGNIFICANCE` for all."""
    p_values = metrics.of("p_worse")
    found: list[str] = []
    for k, (system, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        if p > SIGNIFICANCE / (len(p_values) - k):
            break
        found.append(system)
    return sorted(found)


def _worse(metrics: Metrics, champion: int) -> list[str]:
    low, high = metrics.get("difference_low"), metrics.get("difference_high")
    if low is None or high is None or low <= 0:
        return []
    return [f"worse: {_interval(low, high)} against v{champion:04d} on the random arm"]


def _worse_systems(metrics: Metrics) -> list[str]:
    lows, highs, counts = metrics.of("difference_low"), metrics.of("difference_high"), metrics.of("n_random")
    reasons = []
    for system in worse_systems(metrics):
        low, high, n = lows.get(system), highs.get(system), counts.get(system)
        text = f"worse on {system}"
        if low is not None and high is not None and n is not None:
            text += f": {_interval(low, high)} over {n:.0f} random-arm frames"
        reasons.append(text)
    return reasons


def _worse_energies(metrics: Metrics, champion: int) -> list[str]:
    """Energies and stresses that are off by more than twice the champion's error, over all and by system."""
    reasons = []
    for c in COMPARED:
        parts = [("", metrics.get(c.loss_low), metrics.get(c.new), metrics.get(c.old))]
        new_of, old_of = metrics.of(c.new), metrics.of(c.old)
        parts += [
            (f" on {of}", low, new_of.get(of), old_of.get(of)) for of, low in sorted(metrics.of(c.loss_low).items())
        ]
        for where, low, new, old in parts:
            if low is None or new is None or old is None or low <= 0.0 or new <= c.floor:
                continue
            text = f"{1e3 * new:.1f} {c.unit} against {1e3 * old:.1f} of v{champion:04d} on the random arm"
            reasons.append(f"{c.quantity} error more than doubled{where}: {text}")
    return reasons


def _unskilled(metrics: Metrics, settings: PromotionConfig) -> list[str]:
    share, high = metrics.get("holdout_skill"), metrics.get("holdout_skill_high")
    if high is None or high >= settings.least_skill:
        return []
    share = max(high if share is None else share, 0.0)
    return [f"has learned next to nothing: it explains {share:.0%} of the variance of forces it has not seen"]


def _shortcomings(metrics: Metrics, settings: PromotionConfig, probability: float) -> list[Shortcoming]:
    """Limits of `promotion` that a version does not keep; what was not measured speaks against nobody."""
    found: list[Shortcoming] = []
    n, length = int(metrics.get("stability_walkers") or 0), (metrics.get("stability_ps") or 0.0) * 1e3
    lost = ", ".join(f"{count:.0f} {reason}" for reason, count in metrics.of("stability_lost").items())
    share = metrics.get("stability_survival")
    if share is None and metrics.get("stability_steps") is not None:
        remedy = "raise promotion.budget_s, and training.budget_s to ten times that"
        found.append(Shortcoming("dynamics", f"dynamics not examined: time for {length:.0f} fs only ({remedy})"))
    if share is not None and share < settings.survival:
        text = f"lost {_count(share, n)} of {n} walkers at constant energy within {length:.0f} fs ({lost})"
        found.append(Shortcoming("survival", text))
    share, temperature = metrics.get("stability_hot_survival"), metrics.get("stability_hot_temperature")
    if share is not None and share < settings.survival:
        at = "an unknown temperature" if temperature is None else f"{temperature:.0f} K"
        text = f"lost {_count(share, n)} of {n} walkers at {at} within {length:.0f} fs ({lost})"
        found.append(Shortcoming("hot-survival", text))
    low, drift = metrics.get("stability_drift_low"), metrics.get("stability_drift")
    if low is not None and low > settings.drift:
        text = f"total energy drifts by {(low if drift is None else drift) * 1e3:.0f} meV per atom and ps"
        found.append(Shortcoming("drift", f"{text} (limit {settings.drift * 1e3:.0f})"))
    high, covered = metrics.get("holdout_coverage_high"), metrics.get("holdout_coverage")
    if high is not None and high < probability - settings.coverage_tolerance:
        covered = high if covered is None else covered
        text = f"overconfident: the {probability:.0%} band covers {covered:.0%} of atoms"
        found.append(Shortcoming("coverage", text))
    return found


def _is_no_worse(
    shortcoming: Shortcoming,
    own: Metrics,
    champions: Sequence[Metrics],
    settings: PromotionConfig,
) -> bool:
    """Whether the champion has the same shortcoming, or was never examined in this respect.

    What the best of all champions had limits how far a row of versions, each a little worse, can go down. Champions
    that were examined at another temperature do not count.
    """
    champion = champions[-1]
    temperature = own.get("stability_hot_temperature")
    alike = [m for m in champions if m.get("stability_hot_temperature") == temperature]
    match shortcoming.criterion:
        case "survival":
            return _survives_no_less("stability_survival", own, champion, alike, settings.survival)
        case "hot-survival":
            return _survives_no_less("stability_hot_survival", own, champion, alike, settings.survival)
        case "drift":
            before = champion.get("stability_drift_low")
            if before is None:  # every walker was lost, or there were no model tests
                survival = champion.get("stability_survival")
                return survival is None or survival < settings.survival
            least = min((low for m in alike if (low := m.get("stability_drift_low")) is not None), default=before)
            is_near = own["stability_drift_low"] <= DRIFT_SLACK * max(least, settings.drift)
            return before > settings.drift and is_near
        case "coverage":
            coverage = own.get("holdout_champion_coverage")  # of the champion on the same frames
            mine = own.get("holdout_coverage")
            return coverage is None or (mine is not None and coverage <= mine)
        case _:  # nothing was seen that speaks against it
            return True


def _survives_no_less(name: Name, own: Metrics, champion: Metrics, alike: Sequence[Metrics], least: float) -> bool:
    before = champion.get(name)
    best = max((share for m in alike if (share := m.get(name)) is not None), default=0.0)
    return before is None or (before < least and own[name] >= best - SURVIVAL_SLACK)


def _comparison(metrics: Metrics, champion: int) -> str:
    if not champion:
        return "first version"
    low, high = metrics.get("difference_low"), metrics.get("difference_high")
    if low is None or high is None:
        return "no random-arm frame to compare on yet"
    text = f"{'better' if high < 0 else 'not worse'}: {_interval(low, high)} against v{champion:04d} on the random arm"
    tested = metrics.of("p_worse")
    few = [f"{system} ({n:.0f})" for system, n in sorted(metrics.of("n_random").items()) if system not in tested]
    return text + (f"; too few frames to tell for {', '.join(few)}" if few else "")


def _interval(low: float, high: float) -> str:
    return f"[{low * 1e3:+.1f}, {high * 1e3:+.1f}] meV/Angstrom"


def _count(survival: float, n: int) -> int:
    return round((1.0 - survival) * n)
