"""What is exported: the mean of a committee or one member, with the error of that thing and of nothing else.

A committee's mean is better than its members, so the error of one says nothing of the other. What is exported is
measured itself, on the random arm of the campaign that it lies in, which no version has learned from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alsys.errors import InputError, StoreCorrupt
from alsys.frames import Arm, Frame
from alsys.labels import LevelOfTheory
from alsys.metrics import Metrics, Name
from alsys.potentials.base import Committee, CommitteeState
from alsys.potentials.factory import build_committee
from alsys.potentials.force_bound import ForceBound
from alsys.potentials.scored import scored
from alsys.states import ElectronicState
from alsys.store.base import Snapshot
from alsys.training.evaluate import bootstrap_interval, evaluate, thinned

N_COMPARED = 32
"""Frames of the random arm on which an export is compared with its source."""
_OF_THE_MEAN = ("random_arm", "force_bound")
"""Metrics of a bundle that are of the mean of all members on frames that it has not learned."""


@dataclass(frozen=True, slots=True)
class Content:
    """A model to be exported.

    Attributes:
        state: Its members: all of the source's, or one.
        member: Which one, from 0 on; None for the mean of all.
        n_members: Of the source.
        source_card: Of the source's bundle.
        digest: Of the source's bundle.
        holdout: Labelled frames of the random arm; None where the campaign is not there.
        why_not: Why there are none; empty where there are.
    """

    state: CommitteeState
    member: int | None
    n_members: int
    source_card: Mapping[str, object]
    digest: str
    holdout: Snapshot | None
    why_not: str = ""

    @property
    def name(self) -> str:
        """In words."""
        if self.n_members == 1:
            return "the only member"
        return (
            f"mean of {self.n_members} members" if self.member is None else f"member {self.member} of {self.n_members}"
        )

    def of_state(self, chosen: ElectronicState) -> Content:
        """The same for one charge and multiplicity: frames of others are held out no more."""
        if self.holdout is None:
            return self
        is_kept = (self.holdout.charge == chosen.charge) & (self.holdout.multiplicity == chosen.multiplicity)
        why_not = "" if is_kept.any() else f"the random arm has no frame of {chosen}"
        return replace(self, holdout=self.holdout.select(is_kept) if is_kept.any() else None, why_not=why_not)

    def committee(self) -> Committee:
        """The source itself, not compiled."""
        return scored(build_committee(self.state), self.state)

    def frames(self) -> list[Frame]:
        """Up to `N_COMPARED` frames of the random arm, evenly spaced; none where it is not there."""
        if self.holdout is None:
            return []
        rows = np.unique(np.linspace(0, self.holdout.n_frames - 1, N_COMPARED).astype(int))
        return [self.holdout.frame(int(row)) for row in rows]


def content_of(bundle: Path, state: CommitteeState, card: object, digest: str, member: int | None) -> Content:
    """What is exported of a bundle.

    Args:
        bundle: Its folder; the random arm is looked for in the campaign around it.
        state: The committee in it.
        card: Its card.
        digest: Of its files.
        member: Which member; None for the mean of all.

    Raises:
        InputError: There is no such member, or the card is none.
    """
    if not isinstance(card, dict):
        raise InputError("is no mapping", source=str(bundle / "card.json"))
    if member is not None and not 0 <= member < state.n_members:
        raise InputError(
            f"the model has {state.n_members} members", field="--member", value=member,
            remedy=f"give 0 to {state.n_members - 1}",
        )  # fmt: skip
    holdout, why_not = _random_arm(bundle, card)
    n_members = state.n_members
    if member is not None and n_members > 1:
        state = replace(state, members=(state.members[member],), score="committee", score_state={}, inner=None)
    return Content(state, member, n_members, card, digest, holdout, why_not)


def _random_arm(bundle: Path, card: Mapping[str, Any]) -> tuple[Snapshot | None, str]:
    place = bundle.resolve()
    campaign = place.parent.parent
    if place.parent.name != "models" or not (campaign / "store.zarr").is_dir():
        return None, "the model does not lie in its campaign"
    if not isinstance(card.get("level_of_theory"), dict):
        return None, "its card names no level of theory"
    from alsys.store.damage import sound_snapshot
    from alsys.store.zarr import open_reader

    try:
        reader = open_reader(campaign / "store.zarr")
        try:
            snapshot = sound_snapshot(reader, campaign, LevelOfTheory(card["level_of_theory"]).level_id)
        finally:
            reader.close()
    except StoreCorrupt:
        return None, f"the labels of {campaign} are damaged"
    random = snapshot.select(snapshot.is_arm(Arm.RANDOM) & (snapshot.n_trusted > 0))
    return (thinned(random), "") if random.n_frames else (None, "its campaign has no frame of the random arm")


def measured(content: Content, committee: Committee, missing_energy: float = 0.0) -> Metrics:
    """Errors of the content on the random arm; those of its bundle where they are of the same thing; else nothing.

    Args:
        content: What is exported.
        committee: It, as it is exported.
        missing_energy: What its energies lack on each frame, eV.
    """
    given = content.source_card.get("metrics")
    known = Metrics.read(given) if isinstance(given, dict) else Metrics()
    is_whole = content.state.n_members == content.n_members
    own = {name: value for name, value in known.items() if is_whole and any(part in name for part in _OF_THE_MEAN)}
    if is_whole and (n_random := known.get("n_random")) is not None:
        own["n_random"] = n_random
    if content.holdout is None:
        return Metrics.read(own)
    holdout = replace(content.holdout, energy=content.holdout.energy - missing_energy)
    errors = evaluate(committee, holdout)
    found: dict[Name, float] = {
        "n_random": float(holdout.n_frames),
        "force_mae_random_arm": float(errors.force_mae.mean()),
        "force_rmse_random_arm": float(np.sqrt(errors.force_mse.mean())),
    }
    if holdout.n_frames >= 2:
        found["force_mae_random_arm_low"], found["force_mae_random_arm_high"] = bootstrap_interval(errors.force_mae)
    of_frames: tuple[tuple[Name, Any], ...] = (
        ("energy_mae_random_arm", errors.energy),
        ("stress_mae_random_arm", errors.stress),
    )
    found |= {name: float(np.nanmean(values)) for name, values in of_frames if not np.isnan(values).all()}
    bounds = {name: value for name, value in own.items() if name.startswith("force_bound")}
    return Metrics.read(bounds) | Metrics(found)


def card_of(content: Content, kind: str, metrics: Metrics) -> dict[str, object]:
    """The card of an export: which thing it is, of which model, and how wrong."""
    kept = ("level_of_theory", "n_labels", "head_seq", "distilled")
    facts = {name: content.source_card[name] for name in kept if name in content.source_card}
    on = f"{metrics['n_random']:.0f} frames of the random arm" if "n_random" in metrics else None
    return {
        **facts,
        "metrics": dict(metrics.items()),
        "exported": {
            "kind": kind,
            "content": content.name,
            "member": content.member,
            "n_members": content.n_members,
            "version": content.state.version,
            "bundle_digest": content.digest,
            "measured_on": on or f"nothing: {content.why_not}",
        },
    }


def bound_of(content: Content) -> ForceBound | None:
    """The bound that goes with the deviations of an exported committee; None where none does."""
    given = content.source_card.get("metrics")
    is_whole = content.state.n_members == content.n_members > 1
    if not is_whole or content.state.score != "committee" or not isinstance(given, dict):
        return None
    return ForceBound.of(Metrics.read(given))
