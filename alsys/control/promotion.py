"""Promotion: whether a new version becomes champion, and all the reasons. Pure functions of metrics.

A challenger becomes champion unless something speaks against it: it is worse than the champion on the random arm beyond
the 95 % paired interval; it is worse on one system, tested for all systems at once (S. Holm, Scand. J. Stat. 6, 65
(1979)); its energies or stresses are off by more than twice as much as the champion's; it explains next to nothing of
unseen forces; or it falls short of a limit of `promotion` in its examination (`alsys.training.examination`). A
shortcoming in dynamics or coverage that the champion has too, and no less, is no reason to keep that champion: the
challenger is then promoted on probation, as long as it is not far behind the best of all champions so far. So is a
first version with such shortcomings, since without a champion nothing is explored, and explorers have guards of their
own; one that has learned next to nothing is no first version either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alsys.config.promotion import PromotionConfig
from alsys.events import ModelPromoted, ModelRejected

SIGNIFICANCE = 0.05
"""Chance that a version which is worse on no system is rejected for one of them."""
SURVIVAL_SLACK = 0.25
"""Survival below the best champion's that still counts as no worse: two walkers of eight."""
DRIFT_SLACK = 2.0
"""Drift over the best champion's that still counts as no worse."""
FLOORS = {"energy": (5e-3, "meV per atom"), "stress": (1e-3, "meV/Angstrom^3")}
"""Error below which a growing error of energies per atom (eV) or stresses (eV/Angstrom^3) is none, and its name."""


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
    metrics: Mapping[str, float],
    champion: int,
    champions: Sequence[Mapping[str, float]],
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


def worse_systems(metrics: Mapping[str, float]) -> list[str]:
    """Systems on which a version is worse than the champion, by Holm's step-down test at `SIGNIFICANCE` for all."""
    p_values = {name.partition("/")[2]: value for name, value in metrics.items() if name.startswith("p_worse/")}
    found: list[str] = []
    for k, (system, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        if p > SIGNIFICANCE / (len(p_values) - k):
            break
        found.append(system)
    return sorted(found)


def _worse(metrics: Mapping[str, float], champion: int) -> list[str]:
    low, high = metrics.get("difference_low", math.nan), metrics.get("difference_high", math.nan)
    return [f"worse: {_interval(low, high)} against v{champion:04d} on the random arm"] if low > 0 else []


def _worse_systems(metrics: Mapping[str, float]) -> list[str]:
    reasons = []
    for system in worse_systems(metrics):
        low, high = (metrics.get(f"difference_{end}/{system}", math.nan) for end in ("low", "high"))
        n = int(metrics.get(f"n_random/{system}", 0))
        reasons.append(f"worse on {system}: {_interval(low, high)} over {n} random-arm frames")
    return reasons


def _worse_energies(metrics: Mapping[str, float], champion: int) -> list[str]:
    """Energies and stresses that are off by more than twice the champion's error, over all and by system."""
    reasons = []
    for name, low in sorted(metrics.items()):
        head, _, system = name.partition("/")
        quantity = head.removeprefix("exam_").removesuffix("_loss_low")
        if head != f"exam_{quantity}_loss_low" or not low > 0.0:
            continue
        least, unit = FLOORS[quantity]
        new, old = (metrics.get(name.replace(head, f"exam_{of}{quantity}_mae"), math.nan) for of in ("", "champion_"))
        if new > least:
            where = f" on {system}" if system else ""
            text = f"{1e3 * new:.1f} {unit} against {1e3 * old:.1f} of v{champion:04d} on the random arm"
            reasons.append(f"{quantity} error more than doubled{where}: {text}")
    return reasons


def _unskilled(metrics: Mapping[str, float], settings: PromotionConfig) -> list[str]:
    high = metrics.get("exam_skill_high", math.nan)
    if not high < settings.least_skill:
        return []
    share = max(metrics.get("exam_skill", high), 0.0)
    return [f"has learned next to nothing: it explains {share:.0%} of the variance of forces it has not seen"]


def _shortcomings(metrics: Mapping[str, float], settings: PromotionConfig, probability: float) -> list[Shortcoming]:
    """Limits of `promotion` that a version does not keep; what was not measured speaks against nobody."""
    found: list[Shortcoming] = []
    n, length = int(metrics.get("exam_walkers", 0)), metrics.get("exam_ps", 0.0) * 1e3
    lost = ", ".join(
        f"{int(count)} {name.partition('/')[2]}" for name, count in metrics.items() if name.startswith("exam_lost/")
    )
    if "exam_steps" in metrics and "exam_survival" not in metrics:
        found.append(Shortcoming("dynamics", f"dynamics not examined: time for {length:.0f} fs only"))
    share = metrics.get("exam_survival", 1.0)
    if share < settings.survival:
        text = f"lost {_count(share, n)} of {n} walkers at constant energy within {length:.0f} fs ({lost})"
        found.append(Shortcoming("survival", text))
    share = metrics.get("exam_hot_survival", 1.0)
    if share < settings.survival:
        temperature = metrics.get("exam_hot_temperature", math.nan)
        text = f"lost {_count(share, n)} of {n} walkers at {temperature:.0f} K within {length:.0f} fs ({lost})"
        found.append(Shortcoming("hot-survival", text))
    drift = metrics.get("exam_drift", 0.0)
    if metrics.get("exam_drift_low", 0.0) > settings.drift:
        text = f"total energy drifts by {drift * 1e3:.0f} meV per atom and ps (limit {settings.drift * 1e3:.0f})"
        found.append(Shortcoming("drift", text))
    least = probability - settings.coverage_tolerance
    if metrics.get("exam_coverage_high", 1.0) < least:
        text = f"overconfident: the {probability:.0%} band covers {metrics.get('exam_coverage', math.nan):.0%} of atoms"
        found.append(Shortcoming("coverage", text))
    return found


def _is_no_worse(
    shortcoming: Shortcoming,
    own: Mapping[str, float],
    champions: Sequence[Mapping[str, float]],
    settings: PromotionConfig,
) -> bool:
    """Whether the champion has the same shortcoming, or was never examined in this respect.

    What the best of all champions had limits how far a row of versions, each a little worse, can go down. Champions
    that were examined at another temperature do not count.
    """
    champion = champions[-1]
    alike = [m for m in champions if m.get("exam_hot_temperature") == own.get("exam_hot_temperature")]
    match shortcoming.criterion:
        case "survival" | "hot-survival":
            name = f"exam_{shortcoming.criterion.replace('-', '_')}"
            before = champion.get(name)
            best = max((m[name] for m in alike if name in m), default=0.0)
            return before is None or (before < settings.survival and own[name] >= best - SURVIVAL_SLACK)
        case "drift":
            drift = champion.get("exam_drift_low")
            if drift is None:  # every walker was lost, or there was no examination
                return champion.get("exam_survival", 0.0) < settings.survival
            least = min((m["exam_drift_low"] for m in alike if "exam_drift_low" in m), default=drift)
            return drift > settings.drift and own["exam_drift_low"] <= DRIFT_SLACK * max(least, settings.drift)
        case "coverage":
            coverage = own.get("exam_champion_coverage")  # of the champion on the same frames
            return coverage is None or coverage <= own["exam_coverage"]
        case _:  # nothing was seen that speaks against it
            return True


def _comparison(metrics: Mapping[str, float], champion: int) -> str:
    if not champion:
        return "first version"
    low, high = metrics.get("difference_low", math.nan), metrics.get("difference_high", math.nan)
    if math.isnan(low):
        return "no random-arm frame to compare on yet"
    text = f"{'better' if high < 0 else 'not worse'}: {_interval(low, high)} against v{champion:04d} on the random arm"
    counts = {name.partition("/")[2]: n for name, n in metrics.items() if name.startswith("n_random/")}
    few = [f"{system} ({int(n)})" for system, n in sorted(counts.items()) if f"p_worse/{system}" not in metrics]
    return text + (f"; too few frames to tell for {', '.join(few)}" if few else "")


def _interval(low: float, high: float) -> str:
    return f"[{low * 1e3:+.1f}, {high * 1e3:+.1f}] meV/Angstrom"


def _count(survival: float, n: int) -> int:
    return round((1.0 - survival) * n)
