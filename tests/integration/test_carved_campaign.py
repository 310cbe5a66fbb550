"""Before a campaign that carves is started: the labeler sees clusters in charges, also as its reference frame."""

from __future__ import annotations

from typing import Any

import pytest

from alsys.campaign.checks import make_plan
from alsys.campaign.workers import label_gate
from alsys.config import parse_config


def config(labeling: dict[str, Any], carve: dict[str, Any]) -> Any:
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "w", "box": {"density": 0.6, "components": [{"molecule": "H2O", "count": 8}]}}],
            "labeling": labeling,
            "model": {"kind": "nequip"},
            "exploration": {"carve": carve, "trust": {"accurate_below": 0.1, "failed_above": 0.5}},
            "initial": {"method": "rattle", "frames": 6},
        }
    )


EMBEDDING = {"kind": "charges", "charges": {"H2O": {"O": -0.834, "H": 0.417}}, "reach": 6.0}


@pytest.mark.dft
@pytest.mark.parametrize("embedding", [None, EMBEDDING])
def test_a_labeler_of_molecules_is_never_sent_the_box(embedding: dict[str, Any] | None) -> None:
    labeling = {"kind": "pyscf", "xc": "pbe", "basis": "sto-3g"}
    plan = make_plan(config(labeling, {"radius": 2.5, "embedding": embedding}), "t.yaml")
    gate = label_gate(plan)
    assert gate is not None
    assert gate.reference_frame is not None
    assert not gate.reference_frame.pbc.any()
    assert not plan.labelled["w"].pbc.any()
    assert (plan.labelled["w"].environment is None) == (embedding is None)


def test_a_labeler_of_cells_keeps_the_reference_frame_that_older_campaigns_remember() -> None:
    plan = make_plan(config({"kind": "xtb", "method": "GFN1-xTB"}, {"radius": 2.5}), "t.yaml")
    gate = label_gate(plan)
    assert gate is not None
    assert gate.reference_frame == min(plan.starts["w"], key=lambda frame: frame.frame_id)
