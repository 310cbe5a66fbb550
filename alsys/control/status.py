"""The state of a campaign as one JSON-compatible mapping: what `alsys status --json` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from alsys.control.ports import Role
from alsys.control.rules.goals import converged, wants_labels
from alsys.control.rules.labels import to_quarantine
from alsys.control.rules.pace import LEAST_RANDOM
from alsys.control.rules.spending import COST, projected, spendings
from alsys.control.rules.training import extra_fits, trains_on
from alsys.control.rules.trust import random_share
from alsys.control.state.ledger import Ledger
from alsys.control.state.records import Status
from alsys.events import WorkersWaiting
from alsys.frames import Arm
from alsys.units import HOUR_S

ROLES = tuple(str(role) for role in Role)


def status_of(ledger: Ledger, *, state: str, head_seq: int) -> dict[str, object]:
    """Counts, models, champion and utilisation of a campaign.

    Args:
        ledger: Folded from the log, or live.
        state: ``running``, ``finished``, ``stopped``, ``failed`` or ``interrupted``.
        head_seq: Dataset version on disk.
    """
    counts, convergence = ledger.counts, converged(ledger)
    return {
        "state": state,
        "reason": ledger.stopped.reason if ledger.stopped else None,
        "message": ledger.stopped.message if ledger.stopped else None,
        "head_seq": head_seq,
        "labels": {
            "accepted": ledger.n_labels,
            "target": ledger.settings.n_labels,
            "training": ledger.n_train,
            "random_arm": ledger.accepted[Arm.RANDOM],
            "random_arm_note": random_note(ledger.accepted[Arm.RANDOM]),
            "test_frames": ledger.settings.test_frames,
            "chosen_by": {
                str(version): {
                    "training": sum(counts.values()) - counts.get(Arm.RANDOM, 0),
                    "random_arm": counts.get(Arm.RANDOM, 0),
                }
                for version, counts in sorted(ledger.chosen.items())
            },
            "free_atoms": ledger.accepted[Arm.ATOM],
            "imported": ledger.accepted[Arm.IMPORTED],
            "imported_at_other_levels": sum(e.n_labels for e in ledger.imports if not e.is_training),
            "failed": ledger.totals.failed,
            "quarantined": counts[Status.QUARANTINED],
            "retracted": counts[Status.RETRACTED],
            "repeated": ledger.totals.repeated,
            "conflicts": ledger.totals.conflicts,
            "mean_s": ledger.label_times.mean,
        },
        "hessians": hessians_text(ledger),
        "candidates": {
            "proposed": ledger.proposed,
            "pending": counts[Status.PENDING],
            "in_flight": counts[Status.IN_FLIGHT],
            "labelled": counts[Status.LABELLED],
            "dropped": counts[Status.DROPPED],
            "quarantined": counts[Status.QUARANTINED],
            "retracted": counts[Status.RETRACTED],
        },
        "models": [
            {
                "version": model.version,
                "n_labels": model.n_labels,
                "force_mae_random_arm": _number(model.metrics.get("force_mae_random_arm")),
                "force_mae_interval": [
                    _number(model.metrics.get("force_mae_random_arm_low")),
                    _number(model.metrics.get("force_mae_random_arm_high")),
                ],
                "n_random": int(model.metrics.get("n_random") or 0),
                "promoted": model.promoted,
                "reason": model.reason,
                "reasons": list(model.reasons),
                "is_probation": model.is_probation,
                "is_lost": model.is_lost,
            }
            for model in ledger.models.values()
        ],
        "champion": ledger.champion or None,
        "fit": None
        if ledger.training is None
        else {
            "version": ledger.training.version,
            "n_labels": ledger.training.n_labels + ledger.accepted[Arm.IMPORTED],
            "begun": ledger.training.t,
            "budget_s": ledger.training.budget_s,
            "is_final": ledger.training.is_final,
            "n_workers": ledger.training.n_workers,
        },
        "training_on": {
            "is_due": trains_on(ledger),
            "fits_done": extra_fits(ledger),
            "fits_at_most": ledger.settings.train_on,
            "is_last": not wants_labels(ledger),
        },
        "convergence": {
            "is_reached": convergence.is_reached,
            "versions_in_a_row": convergence.n_in_a_row,
            "text": convergence.text,
        },
        "exploration": {
            "walker_steps": ledger.totals.walker_steps,
            "stops": dict(ledger.totals.stops),
            "workers_lost": ledger.totals.workers_lost,
        },
        "uncertainty": {
            "tolerated_error": ledger.settings.trust[0] if ledger.settings.is_calibrated else None,
            "probability": ledger.settings.probability,
            "trust_band": [_number(edge) for edge in ledger.trust_band],
            "coverage": _number(ledger.calibration.coverage.share),
            "coverage_standard_error": _number(ledger.calibration.coverage.standard_error),
            "coverage_frames": ledger.calibration.coverage.n_frames,
            "coverage_version": ledger.coverage_version if ledger.calibration.coverage.n_frames else None,
            "alarms": dict(ledger.alarms),
            "random_share": random_share(ledger),
        },
        "label_checks": {
            "failed_gate": ledger.audits.n_failed_gate,
            "waiting": len(ledger.audits.to_verify.keys() - to_quarantine(ledger)),
            "not_reproduced": ledger.audits.n_not_reproduced,
            "audited": ledger.audits.n_audited,
            "rejected": ledger.audits.n_rejected,
            "to_audit": len(ledger.audits.waiting(ledger.settings.audit_share)),
            "reference_checks": ledger.audits.n_reference_checks,
            "reference_checks_failed": ledger.audits.n_failed_reference_checks,
        },
        "lost_work_s": round(ledger.totals.lost_s, 3),
        "workers_waiting": waiting_text(ledger.waiting),
        "openings": ledger.totals.openings,
        "wall_s": round(ledger.totals.wall_s, 3),
        "wall_limit_s": ledger.settings.wall_s,
        "nodes": dict(ledger.totals.nodes),
        "budgets": budgets_of(ledger),
        "utilisation": {role: round(ledger.totals.utilisation.get(role, 0.0), 4) for role in ROLES},
    }


def budgets_of(ledger: Ledger) -> dict[str, dict[str, float | None]]:
    """Node-hours and money: spent, at most, at the end as it looks now, an hour; and hours that have no price."""
    unpriced = ledger.totals.unpriced_s / HOUR_S
    return {
        one.name: {
            "spent": round(one.spent, 6),
            "limit": one.limit,
            "used": one.used,
            "projected": projected(ledger, one),
            "an_hour": one.an_hour,
            "unpriced_node_hours": round(unpriced, 6) if one.name == COST else 0.0,
        }
        for one in spendings(ledger)
    }


def budgets_text(budgets: Mapping[str, Mapping[str, float | None]]) -> str:
    """What is spent of each budget, and what it will be; without a limit or a price money is left out.

    Args:
        budgets: As of `budgets_of`.
    """
    said = []
    for name, told in budgets.items():
        spent, limit, end, unpriced = (told[key] for key in ("spent", "limit", "projected", "unpriced_node_hours"))
        if name == COST and not spent and limit is None:
            continue
        text = f"{name} {spent:.4g}" if limit is None else f"{name} {spent:.4g} of {limit:g} ({told['used']:.0%})"
        text += f", about {end:.4g} at the end" if end is not None and end != spent else ""
        said.append(text + (f", without {unpriced:.4g} node-hours that had no price" if unpriced else ""))
    return "; ".join(said)


def lost_text(status: Mapping[str, Any]) -> str:
    """Workers that died, and what the calls had taken that were lost with them; empty for none."""
    n, spent_s = status["exploration"]["workers_lost"], status.get("lost_work_s", 0.0)  # a driver of an older version
    return f"{n} worker{'s' * (n != 1)} lost, and {spent_s:.0f} s of work" if n else ""


def headline(status: Mapping[str, object]) -> str:
    """One line for people: labels, champion and its error."""
    labels, models = status["labels"], status["models"]
    assert isinstance(labels, dict)
    assert isinstance(models, list)
    text = f"{status['state']}: {labels['accepted']}/{labels['target']} labels"
    if labels["failed"] or labels["quarantined"]:
        text += f", {labels['failed']} failed attempts, {labels['quarantined']} quarantined"
    if labels.get("imported"):
        text += f", {labels['imported']} imported"
    if labels.get("retracted"):
        text += f", {labels['retracted']} retracted"
    if status.get("hessians"):  # a driver of an older version may have written it
        text += f", Hessians {status['hessians']}"
    training_on = status["training_on"]
    assert isinstance(training_on, dict)
    if status["state"] == "running" and training_on["is_due"] and training_on["is_last"]:
        k, most = training_on["fits_done"] + 1, training_on["fits_at_most"]
        text += f", training on (fit {k} of at most {most} on the same data)"
    champion = next((m for m in models if m["version"] == status["champion"]), None)
    if champion is None:
        return text + ", no model yet"
    text += f", champion v{champion['version']:04d}"
    return text + f" {error_text(champion)}"


def hessians_text(ledger: Ledger) -> str:
    """Of which structures Hessians are there, with what they took, and of which there will be none; may be empty."""
    hessians, gone = ledger.hessians, set(ledger.retracted)
    there = [
        f"of {event.name} ({'by the engine' if event.is_analytic else 'from differences of forces'}, "
        f"{event.wall_s:.0f} s){', not learned: its label was retracted' * (event.frame_id in gone)}"
        for event in hessians.found.values()
    ]
    under_way = [f"at work on {name}" for name in sorted(hessians.computing.values())]
    return "; ".join([*there, *under_way, *(f"none of {n}: {e.message}" for n, e in hessians.given_up.items())])


def waiting_text(event: WorkersWaiting | None) -> str:
    """Which workers have no place, and what they wait for; empty where none waits."""
    return "" if event is None or not event.message else f"asked {event.asked}, up {event.up}: {event.message}"


def fit_text(status: Mapping[str, Any], now: float) -> str:
    """How far the fit is that a running campaign waits for, by its time; empty where there is none.

    Args:
        status: As of `status_of`.
        now: Seconds since 1970.
    """
    fit = status.get("fit")  # a driver of an older version may have written it
    if status["state"] != "running" or not fit:
        return ""
    n_workers = fit.get("n_workers", 1)
    on = f" on {n_workers} workers" if n_workers > 1 else ""
    said = f"v{fit['version']:04d} from {fit['n_labels']} labels{on}, for {max(now - fit['begun'], 0.0):.0f} s"
    what = "final fit, " if fit.get("is_final") else "fitting "
    return f"{what}{said} (budget: {fit['budget_s']:.0f} CPU s, and tests)"


def random_note(n_random: int) -> str:
    """What a small random arm means for errors measured on it; empty for one that is large enough."""
    if n_random >= LEAST_RANDOM:
        return ""
    return (
        f"the random arm has {n_random} frames, fewer than {LEAST_RANDOM}: errors measured on it say little; "
        "raise stop.labels or selection.random_share"
    )


def coverage_text(ledger: Ledger) -> str:
    """How well the calibrated band has held, and for which version; empty where nothing was counted."""
    coverage = ledger.calibration.coverage
    if not coverage.n_frames:
        return ""
    return (
        f"the {ledger.settings.probability:.0%} band of v{ledger.coverage_version:04d} covers {coverage.share:.0%} of "
        f"atoms (standard error {coverage.standard_error:.0%}) over {coverage.n_frames} frames"
    )


def error_text(model: Mapping[str, object]) -> str:
    """Force MAE on the random arm with its interval, meV/Angstrom."""
    mae, interval = model["force_mae_random_arm"], model["force_mae_interval"]
    if not isinstance(mae, float) or not isinstance(interval, list):
        return "(not measured: there was no test frame when it was fitted)"
    text = f"{mae * 1e3:.1f}"
    if all(isinstance(x, float) for x in interval):
        text += f" [{interval[0] * 1e3:.1f}, {interval[1] * 1e3:.1f}]"
    return f"{text} meV/Angstrom force MAE on {model['n_random']} random-arm frames"


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
