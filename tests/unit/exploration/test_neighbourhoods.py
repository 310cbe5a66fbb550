"""What is labelled of boxes: clusters with masks, around the least certain atom or any one, judged as clusters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from alsys.config import parse_config
from alsys.config.carving import CarveConfig
from alsys.errors import InputError
from alsys.exploration.base import ExplorationOrder
from alsys.exploration.comparison import compare
from alsys.exploration.explorer import NOT_CARVED, WalkerExplorer
from alsys.exploration.initial import initial_frames
from alsys.exploration.neighbourhoods import Neighbourhoods, labelled_systems
from alsys.frames import Arm, Candidate, Frame, Source
from alsys.potentials.base import CommitteePrediction, CommitteeState, FrameBatch
from support.committees import HarmonicCommittee

WATER = molecule("H2O")
STATE = CommitteeState(1, "fake", {}, ())
UNSURE = 31


def box() -> Frame:
    rng = np.random.default_rng(0)
    positions = []
    for i in np.ndindex(3, 3, 3):
        q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        positions.append(WATER.positions @ q + 3.1 * np.array(i))
    return Frame(np.tile(WATER.numbers, 27), np.concatenate(positions), np.eye(3) * 9.3, np.ones(3, dtype=np.bool_))


class OneUnsureAtom(HarmonicCommittee):
    """Certain but of one atom of each box; of clusters, of the last atom, which is masked."""

    def evaluate(self, batch: FrameBatch, members: Any = None) -> CommitteePrediction:
        prediction = super().evaluate(batch, members)
        starts = np.cumsum(batch.n_atoms) - batch.n_atoms
        deviation = np.full(batch.numbers.size, 0.01)
        deviation[starts + np.where(batch.pbc.any(axis=1), UNSURE, batch.n_atoms - 1)] = 0.3
        import dataclasses

        return dataclasses.replace(
            prediction, force_deviation=deviation, frame_deviation=np.maximum.reduceat(deviation, starts)
        )


def config(carve: dict[str, Any] | None = None, **sections: Any) -> Any:
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "w", "box": {"density": 1.0, "components": [{"molecule": "H2O", "count": 27}]}}],
            "labeling": {"kind": "xtb"},
            "model": {"kind": "nequip"},
            "exploration": {
                "walkers": 2, "spacing_steps": 4, "trust": {"accurate_below": 0.1, "failed_above": 0.5},
                "carve": {"radius": 3.0} if carve is None else carve,
            },
            "initial": {"method": "rattle", "frames": 6, "stdev": 0.02},
            "selection": {"diversity": "none", "random_share": 0.5},
            **sections,
        }
    )  # fmt: skip


def test_explorers_return_neighbourhoods() -> None:
    explorer = WalkerExplorer(config(), {"w": [box()]}, 0, build=lambda _: OneUnsureAtom(0.0))
    report = explorer.run(ExplorationOrder(n_steps=12, n_random=6, state=STATE, max_candidates=8))
    uncertain = [c for c in report.candidates if c.source.arm is Arm.UNCERTAIN]
    random = [c for c in report.candidates if c.source.arm is Arm.RANDOM]
    assert uncertain
    assert len(random) == 6
    for candidate in report.candidates:
        assert not candidate.frame.pbc.any()
        assert candidate.mask is not None
        assert candidate.mask.sum() == 3 < candidate.frame.n_atoms
    centres = [c.frame.positions[0] for c in uncertain]
    near = box().positions[3 * (UNSURE // 3)]
    assert all(np.linalg.norm(centre - near) < 1.0 for centre in centres), "around the atom nobody is sure of"
    assert len({tuple(np.round(c.frame.positions[0] / 3.1)) for c in random}) > 2, "the test set around any atom"


def test_candidates_that_cannot_be_carved_are_counted_and_left_out() -> None:
    few = config({"radius": 3.0, "max_atoms": 3})
    explorer = WalkerExplorer(few, {"w": [box()]}, 0, build=lambda _: OneUnsureAtom(0.0))
    report = explorer.run(ExplorationOrder(n_steps=12, n_random=2, state=STATE))
    assert report.candidates == ()
    assert report.stops[NOT_CARVED] >= 2


def test_clusters_are_judged_by_the_atoms_that_count() -> None:
    committee = OneUnsureAtom(0.0)
    frame = Frame.molecule(WATER.numbers, WATER.positions)
    mask = np.array([True, True, False])
    explorer = WalkerExplorer(config(), {"w": [box()]}, 0, build=lambda _: committee)
    order = ExplorationOrder(n_steps=1, state=STATE, rescore=(frame,), masks={frame.frame_id: mask})
    assert explorer.run(order).rescored == {frame.frame_id: pytest.approx(0.01)}
    forces = np.array([[0.1, 0, 0], [0, 0.2, 0], [50, 0, 0]])
    deviations, errors = compare(committee, [(frame, forces)], {frame.frame_id: mask})[frame.frame_id]
    assert deviations.tolist() == pytest.approx([0.01, 0.01])
    assert errors.tolist() == pytest.approx([0.1, 0.2])


def test_first_frames_are_neighbourhoods_too() -> None:
    candidates = initial_frames(config(), {"w": [box()]}, 3)
    assert len(candidates) == 6
    assert {c.source.arm for c in candidates} == {Arm.INITIAL, Arm.RANDOM}
    assert all(c.mask is not None and not c.frame.pbc.any() for c in candidates)
    with pytest.raises(InputError, match="no first frame could be carved"):
        initial_frames(config({"radius": 3.0, "max_atoms": 3}), {"w": [box()]}, 3)


def test_molecules_that_are_small_enough_stay_whole() -> None:
    settings = CarveConfig(radius=3.0, max_atoms=30)
    small = Candidate(Frame.molecule(WATER.numbers, WATER.positions), Source("w", Arm.INITIAL, "x"))
    assert Neighbourhoods(settings).of(small, 0) is small
    labelled = labelled_systems(settings, {"w": box(), "m": small.frame})
    assert labelled["m"] is small.frame
    assert not labelled["w"].pbc.any()
    assert labelled_systems(None, {"w": box()})["w"].pbc.all()
    with pytest.raises(InputError, match="more atoms than allowed") as caught:
        labelled_systems(CarveConfig(radius=6.0, max_atoms=30), {"w": box()})
    assert caught.value.field == "exploration.carve.max_atoms"


def test_growth_is_judged_and_what_does_not_settle_is_left_out() -> None:
    candidate = Candidate(box(), Source("w", Arm.UNCERTAIN, "x"))
    grow = {"tolerance": 0.05, "start": 2.5, "step": 0.5, "max_radius": 4.0}
    settings = CarveConfig.model_validate({"grow": grow})
    calm = Neighbourhoods(settings, evaluate=lambda frame: np.zeros((frame.n_atoms, 3)))
    carved = calm.of(candidate, 0)
    assert carved.mask is not None
    assert carved.frame.n_atoms > 3
    restless = Neighbourhoods(settings, evaluate=lambda frame: np.full((frame.n_atoms, 3), 1.0 * frame.n_atoms))
    with pytest.raises(InputError, match="still change"):
        restless.of(candidate, 0)


def test_settings_that_contradict_each_other_are_refused() -> None:
    for settings in ({}, {"radius": 3.0, "grow": {}}, {"radius": 3.0, "trusted": 4.0}):
        with pytest.raises(ValueError, match=r"exactly one|trusted"):
            CarveConfig.model_validate(settings)


EMBEDDING = {"kind": "charges", "charges": {"H2O": {"O": -0.834, "H": 0.417}}, "reach": 8.0}


@pytest.mark.parametrize("carve", [{"radius": 3.0}, {"grow": {"start": 2.0, "max_radius": 5.0, "tolerance": 1.0}}])
def test_what_is_labelled_stands_in_charges_where_asked_for(carve: dict[str, Any]) -> None:
    source = Source("w", Arm.RANDOM, "langevin")
    plain, embedded = (
        Neighbourhoods(CarveConfig.model_validate({**carve, **extra}), lambda frame: np.zeros((frame.n_atoms, 3))).of(
            Candidate(box(), source), 4
        )
        for extra in ({}, {"embedding": EMBEDDING})
    )
    assert plain.frame.environment is None
    assert embedded.frame.environment is not None
    assert embedded.frame == replace(plain.frame, environment=embedded.frame.environment)
    assert embedded.mask is not None
    assert embedded.mask.sum() == 3 < embedded.frame.n_atoms, "so neither its energy nor its rim is learned"
    whole = Candidate(Frame.molecule(WATER.numbers, WATER.positions), source)
    assert Neighbourhoods(CarveConfig.model_validate({**carve, "embedding": EMBEDDING})).of(whole, 0) is whole


def test_energies_in_charges_are_never_learned() -> None:
    """A cluster of one molecule would be whole, with all atoms trusted: it is left out."""
    source = Source("w", Arm.RANDOM, "langevin")
    settings = CarveConfig.model_validate({"radius": 0.5, "embedding": EMBEDDING})
    with pytest.raises(InputError, match="would be learned"):
        Neighbourhoods(settings).of(Candidate(box(), source), 4)
    alone = Neighbourhoods(CarveConfig.model_validate({"radius": 0.5})).of(Candidate(box(), source), 4)
    assert alone.frame.n_atoms == 3


def test_the_labeler_is_checked_with_charges_before_anything_starts() -> None:
    settings = CarveConfig.model_validate({"radius": 3.0, "embedding": EMBEDDING})
    assert labelled_systems(settings, {"w": box()})["w"].environment is not None
    with pytest.raises(InputError, match="has no point charges") as error:
        labelled_systems(
            CarveConfig.model_validate({"radius": 3.0, "embedding": {**EMBEDDING, "charges": {"CH4": {"C": 0.0}}}}),
            {"w": box()},
        )
    assert error.value.field == "exploration.carve.embedding.charges"


PYSCF = {"kind": "pyscf", "xc": "pbe", "basis": "def2-svp"}


@pytest.mark.parametrize(
    ("labeling", "expected"),
    [
        ({"kind": "xtb"}, "needs labeling.kind pyscf"),
        ({"kind": "pyscf", "method": "mp2", "basis": "def2-svp", "xc": None}, "method dft or hf"),
        ({**PYSCF, "solvent_model": "cpcm", "solvent": "water"}, "solvent_model"),
        ({**PYSCF, "device": "gpu"}, "device gpu"),
        ({**PYSCF, "baseline": {"kind": "gfn2-xtb"}}, "xTB knows no point charges"),
    ],
)
def test_levels_that_know_no_charges_are_refused(labeling: dict[str, Any], expected: str) -> None:
    carve = {"radius": 3.0, "embedding": EMBEDDING}
    with pytest.raises(InputError, match=expected):
        config(carve, labeling=labeling)
    assert config(carve, labeling=PYSCF).exploration.carve.embedding.reach == 8.0


def test_charges_must_reach_beyond_the_cluster() -> None:
    with pytest.raises(ValueError, match=r"embedding\.reach must be larger"):
        CarveConfig.model_validate({"radius": 8.0, "embedding": EMBEDDING})
