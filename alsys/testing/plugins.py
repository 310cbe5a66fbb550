"""Contract tests of a potential of another package: subclass `PotentialContract`, name it, and run pytest.

class TestMyPotential(PotentialContract):
    name = "my-potential"             # its entry point in the group `alsys.potentials`
    settings = {"features": 8}        # small ones, so that the tests are quick
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from alsys.frames import Frame
from alsys.potentials.architectures import build_model
from alsys.potentials.base import Committee, CommitteeState, FrameBatch
from alsys.potentials.bundle import read_bundle, write_bundle
from alsys.potentials.factory import build_committee
from alsys.potentials.nequip import weights_of
from alsys.testing.potentials import CommitteeContract


class PotentialContract(CommitteeContract):
    """What every potential promises, beside what every committee does.

    Attributes:
        name: Of the entry point.
        settings: As under ``model.settings``.
        r_max: Cutoff, Angstrom.
    """

    name: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}
    r_max: ClassVar[float] = 4.0

    def spec(self) -> dict[str, object]:
        """The specification of the committees under test."""
        return {
            "architecture": self.name,
            "elements": ["C", "H", "O"],
            "r_max": self.r_max,
            "dtype": "float64",
            "settings": dict(self.settings),
            "avg_num_neighbors": 4.0,
        }

    def build(self, state: CommitteeState) -> Committee:
        """The committee with these weights."""
        return build_committee(state)

    def states(self) -> tuple[CommitteeState, CommitteeState]:
        """Fresh random weights."""
        members = [weights_of(build_model(self.spec(), seed)) for seed in range(4)]
        one = CommitteeState(1, self.name, self.spec(), tuple(members[:2]))
        return one, replace(one, version=2, members=tuple(members[2:]))

    def frames(self) -> list[Frame]:
        """Methanol and water, shaken, and two waters in a small periodic cell."""
        rng = np.random.default_rng(5)
        methanol = np.array(
            [[-0.05, 0.66, 0.0], [-0.05, -0.76, 0.0], [-1.09, 0.98, 0.0], [0.88, -1.06, 0.0], [0.44, 1.07, 0.89],
             [0.44, 1.07, -0.89]]
        )  # fmt: skip
        water = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])
        two = np.concatenate([water, water + np.array([1.8, 1.5, 2.0])])
        shaken = [x + 0.08 * rng.normal(size=x.shape) for x in (methanol, water, two)]
        cell = np.array([[4.2, 0.0, 0.0], [0.5, 4.5, 0.0], [0.2, -0.3, 4.8]])
        return [
            Frame.molecule([6, 8, 1, 1, 1, 1], shaken[0]),
            Frame.molecule([8, 1, 1], shaken[1]),
            Frame(np.array([8, 1, 1, 8, 1, 1]), shaken[2], cell, np.ones(3, dtype=bool)),
        ]

    def unknown_frame(self) -> Frame:
        """With an element that is none of the specification's."""
        return Frame.molecule([7, 1, 1, 1], [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])

    def test_atoms_far_apart_do_not_know_of_each_other(self) -> None:
        """The energy of two molecules beyond the cutoff is the sum of theirs."""
        committee, (one, other, _) = self._committee(), self.frames()
        far = Frame.molecule(
            np.concatenate([one.numbers, other.numbers]),
            np.concatenate([one.positions, other.positions + np.array([50.0, 0.0, 0.0])]),
        )
        energies = committee.evaluate(FrameBatch.of([one, other, far])).energy
        self._equal(energies[2], energies[0] + energies[1])

    def test_energies_are_smooth_at_the_cutoff(self) -> None:
        """A pair that leaves the cutoff takes neither energy nor force with it at once."""
        committee = self._committee()
        pairs = [
            Frame.molecule([8, 1], np.array([[0.0, 0.0, 0.0], [self.r_max + dx, 0.0, 0.0]])) for dx in (-1e-4, 1e-4)
        ]
        inside, outside = (committee.evaluate(FrameBatch.of([pair])) for pair in pairs)
        assert abs(inside.energy[0] - outside.energy[0]) < 1e-5
        assert np.abs(inside.forces - outside.forces).max() < 1e-2
        assert np.abs(outside.forces).max() == 0.0

    def test_a_bundle_brings_it_back(self, tmp_path: Path) -> None:
        """Written and read, it says the same."""
        state, _ = self.states()
        write_bundle(tmp_path / "bundle", state, {})
        batch = FrameBatch.of(self.frames())
        self._same(self.build(read_bundle(tmp_path / "bundle")).evaluate(batch), self.build(state).evaluate(batch))

    def test_equal_seeds_give_equal_weights(self) -> None:
        """And others give others."""
        one, same, other = (weights_of(build_model(self.spec(), seed)) for seed in (7, 7, 8))
        assert all(np.array_equal(one[name], same[name]) for name in one)
        assert any(not np.array_equal(one[name], other[name]) for name in one)
