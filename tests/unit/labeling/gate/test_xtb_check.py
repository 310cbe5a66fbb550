"""Gross errors of the very first labels are told by GFN2-xTB; honest labels and made-up potentials are left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule
from pydantic import TypeAdapter

from alsys.config.engines import LabelingConfig
from alsys.config.labeling import QualityConfig
from alsys.frames import FloatArray, Frame, PointCharges
from alsys.labeling.gate.checks import LabelChecks
from alsys.labeling.gate.xtb_check import gfn2_forces, xtb_check_for
from alsys.labels import Label
from alsys.potentials.xtb import XTBMethod, single_point


def honest(name: str = "CH3CH2OH", seed: int = 0) -> tuple[Frame, Label]:
    """A label of another method than the one that checks: GFN1-xTB, off by a good tenth of the forces."""
    atoms = molecule(name)
    positions = atoms.positions + np.random.default_rng(seed).normal(0, 0.05, (len(atoms), 3))
    frame = Frame.molecule(atoms.numbers, positions)
    values = single_point(frame, XTBMethod("GFN1-xTB"))
    return frame, Label(frame.frame_id, "ab" * 16, values.energy, values.forces)


def exchanged(forces: FloatArray) -> FloatArray:
    """With the forces of the two heaviest loaded atoms exchanged."""
    i, j = np.argsort(-np.linalg.norm(forces, axis=1))[:2]
    swapped = forces.copy()
    swapped[[i, j]] = forces[[j, i]]
    return swapped


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("spoil", "check"),
    [(lambda f: -f, "sign"), (lambda f: 10 * f, "scale"), (lambda f: f / 27.2, "scale"), (exchanged, "permutation")],
    ids=["sign", "tenfold", "unit", "exchanged"],
)
def test_the_first_label_of_a_campaign_is_examined(
    spoil: Callable[[FloatArray], FloatArray], check: str, seed: int
) -> None:
    frame, label = honest(seed=seed)
    wrong = replace(label, forces=spoil(label.forces))
    limits = QualityConfig(largest_force=1e6, net_torque=1e6)
    gate = LabelChecks(limits, gfn2_forces)
    assert check in {finding.check for finding in gate.examine(frame, wrong)}
    assert not LabelChecks(limits).examine(frame, wrong)  # nobody else would have told
    (flagged,) = gate.review([frame], [wrong], [None])
    assert check in {finding.check for finding in flagged[1]}


@pytest.mark.parametrize("name", ["CH3OH", "H2O", "CH3CH2OH", "C6H6", "O2"])
def test_honest_labels_are_left_alone(name: str) -> None:
    for seed in range(3):
        frame, label = honest(name, seed)
        assert not LabelChecks(QualityConfig(net_torque=5.0), gfn2_forces).examine(frame, label)


def test_an_xtb_check_that_cannot_tell_says_nothing() -> None:
    fused = Frame.molecule([8, 8], np.array([[0.0, 0, 0], [0, 0, 1e-4]]))
    heavy = Frame.molecule([92, 8], np.array([[0.0, 0, 0], [0, 0, 1.8]]))
    odd = Frame.molecule([8, 1], np.array([[0.0, 0, 0], [0, 0, 1.0]]))
    box = Frame(np.array([8, 1, 1], dtype=np.int32), np.eye(3), 9 * np.eye(3), np.ones(3, dtype=np.bool_))
    long = Frame.molecule([2] * 61, 3.0 * np.arange(183.0).reshape(61, 3))
    atom = Frame.molecule([1], np.zeros((1, 3)), multiplicity=2)
    for frame in (heavy, odd, box, long, atom):
        assert gfn2_forces(frame) is None
    forces = gfn2_forces(fused)
    assert forces is None or np.isfinite(forces).all()


def test_a_cluster_in_charges_is_not_compared_with_one_in_vacuum() -> None:
    frame, label = honest()
    around = replace(frame, environment=PointCharges(np.full((1, 3), 9.0), np.array([0.5])))
    wrong = replace(label, frame_id=around.frame_id, forces=-label.forces)
    assert not LabelChecks(QualityConfig(), gfn2_forces).examine(around, wrong)


def test_potentials_that_are_made_up_have_no_xtb_check() -> None:
    adapter: TypeAdapter[LabelingConfig] = TypeAdapter(LabelingConfig)
    assert xtb_check_for(adapter.validate_python({"kind": "analytic"})) is None
    real = adapter.validate_python({"kind": "pyscf", "xc": "pbe", "basis": "def2-svp"})
    assert xtb_check_for(real) is gfn2_forces
