"""Settings of rules for campaigns on fakes: few labels, quick fits, and nothing that a test did not ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from alsys.config.promotion import PromotionConfig
from alsys.control.settings import COVERED, PolicySettings

BASE: Final = PolicySettings(
    is_rounds=False,
    is_random=False,
    n_labels=100,
    wall_s=None,
    target_force_mae=None,
    target_blind_spots=None,
    versions_in_a_row=2,
    min_random=20,
    promotion=PromotionConfig(),
    quiet_steps=None,
    random_share=0.2,
    max_pending=64,
    pool=1.0,
    max_candidates=16,
    trust=(0.1, 0.6),
    is_diverse=False,
    is_cost_aware=False,
    methods=(),
    method_floor=0.3,
    is_calibrated=False,
    probability=COVERED,
    first_at=10,
    refit_every=10,
    refit_growth=0.0,
    max_ahead=None,
    fit_s=60.0,
    final_fit_s=0.0,
    train_on=0,
    chunk_steps=50,
    max_attempts=3,
    audit_share=0.0,
    reference_every=0,
    batch_s=0.02,
    seed=0,
)


def policy_settings(**changes: Any) -> PolicySettings:
    """Settings of a small campaign, with changes."""
    return replace(BASE, **changes)
