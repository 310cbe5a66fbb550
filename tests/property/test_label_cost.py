"""Over random histories, frames of different size are ordered by what their labels truly cost."""

from __future__ import annotations

import numpy as np
import pytest

from alsys.control.state.ledger import Ledger
from alsys.events import CampaignOpened, FrameProposed, LabelAccepted, LabelStarted, ModelPromoted, ModelPublished
from alsys.frames import Arm
from alsys.selection.label_cost import LabelCostModel
from alsys.testing.policies import policy_settings


def sizes_of(rng: np.random.Generator) -> list[int]:
    """Two to six numbers of electrons, each at least 1.3 times the one before."""
    sizes = [int(rng.integers(2, 30))]
    for _ in range(int(rng.integers(1, 6))):
        sizes.append(int(np.ceil(sizes[-1] * rng.uniform(1.3, 2.5))))
    return sizes


@pytest.mark.parametrize("seed", range(100))
def test_pending_frames_are_ranked_by_true_cost(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes, power, scale = sizes_of(rng), rng.uniform(1.0, 4.0), 10 ** rng.uniform(-6, 2)
    ledger = Ledger(policy_settings(n_labels=1000, random_share=0.0, is_cost_aware=True))
    ledger.apply(CampaignOpened(t=0.0, epoch=1, config_hash="", version=""))
    ledger.apply(ModelPublished(t=0.0, version=1, parent=0, seq=1, n_labels=0, wall_s=1.0))
    ledger.apply(ModelPromoted(t=0.0, version=1, reason="first"))
    frames: dict[str, int] = {}
    waiting: list[str] = []
    for k in range(int(rng.integers(10, 60))):
        name, n_electrons = f"frame-{k}", int(rng.choice(sizes))
        frames[name] = n_electrons
        waiting.append(name)
        ledger.apply(
            FrameProposed(
                t=1.0, frame_id=name, arm=Arm.UNCERTAIN, system="s", deviation=0.5, n_electrons=n_electrons,
                model_version=1,
            )
        )  # fmt: skip
        if rng.random() < 0.6:
            name = waiting.pop(int(rng.integers(len(waiting))))
            ledger.apply(LabelStarted(t=2.0, frame_ids=(name,), worker="labeler-0"))
            wall_s = scale * frames[name] ** power * float(np.exp(rng.normal(0.0, 0.03)))
            ledger.apply(LabelAccepted(t=3.0, frame_id=name, label_id=name, worker="labeler-0", wall_s=wall_s))
    costs = [frames[name] ** power for name in ledger.pending.ranked()]
    assert len(costs) == len(waiting)
    assert costs == sorted(costs)


@pytest.mark.parametrize("seed", range(100))
def test_the_model_orders_sizes_that_lie_off_the_line(seed: int) -> None:
    rng, model = np.random.default_rng(1000 + seed), LabelCostModel()
    costs = {n: 0.01 * n**2.5 * float(np.exp(rng.normal(0.0, 0.5))) for n in sizes_of(rng)}
    for _ in range(30):
        for n in rng.permutation(list(costs)):
            model.observe(int(n), costs[int(n)] * float(np.exp(rng.normal(0.0, 0.03))))
    for small in costs:
        for large in costs:
            if costs[large] > 1.2 * costs[small]:
                assert model.predict(large) > model.predict(small)
