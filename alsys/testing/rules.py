"""Contract tests of exploration methods, selection rules and stop rules of other packages.

Subclass the contract, name the part's entry point, and run pytest:

class TestMyMethod(MethodContract):
    name = "my-method"
    settings = {"force": 0.2}
    frame = Frame.molecule(...)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from alsys.config.exploration_methods import PluginMethod
from alsys.config.section import PluginSection
from alsys.control.stop_rules import CampaignView, VersionView
from alsys.errors import InputError
from alsys.exploration.methods.base import Group, Method
from alsys.exploration.methods.factory import build_method
from alsys.frames import Frame
from alsys.metrics import Metrics
from alsys.plugins import STOP_RULES
from alsys.selection.plugins import SelectionRule


class MethodContract:
    """What every exploration method promises.

    Attributes:
        name: Of the entry point.
        settings: As under ``settings`` in the campaign file.
        frame: A system that it suits.
        unsuited: One that it does not suit; None where it suits all.
        n_walkers: Of a group.
    """

    name: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}
    frame: ClassVar[Frame]
    unsuited: ClassVar[Frame | None] = None
    n_walkers: ClassVar[int] = 4

    def build(self, frame: Frame, seed: int = 0) -> Method:
        """The method for walkers of a system."""
        section = PluginMethod(kind="plugin", name=self.name, settings=dict(self.settings))
        return build_method(section, frame, self.n_walkers, 0.5, seed, temperatures=(300.0, 500.0))

    def walk(self, method: Method, n_steps: int = 20) -> np.ndarray[Any, np.dtype[np.float64]]:
        """``(n_steps, n_walkers, n_atoms, 3)`` forces that it adds to shaken atoms on springs."""
        rng = np.random.default_rng(3)
        frames = [method.start(k, [self.frame], rng) for k in range(self.n_walkers)]
        assert all(np.array_equal(frame.numbers, self.frame.numbers) for frame in frames)
        at = np.stack([frame.positions for frame in frames])
        added = np.zeros((n_steps, *at.shape))
        for step in range(n_steps):
            steps = np.full(self.n_walkers, step)
            temperatures = method.temperatures(steps)
            assert temperatures.shape == (self.n_walkers,)
            assert (np.isfinite(temperatures) & (temperatures > 0)).all()
            positions = at + 0.05 * rng.normal(size=at.shape)
            members = np.stack([(1.0 + 0.1 * k) * (at - positions) for k in range(3)])
            energies = np.stack([np.square(members[k]).sum(axis=(1, 2)) for k in range(3)])
            group = Group(
                positions, energies.mean(axis=0), members.mean(axis=0), energies, members, temperatures, steps
            )
            forces = method.bias(group)
            if forces is not None:
                assert forces.shape == at.shape
                added[step] = forces
            for i, j in method.exchange(group, rng):
                assert {i, j} <= set(range(self.n_walkers))
        assert np.isfinite(added).all()
        return added

    def test_it_steers_its_walkers(self) -> None:
        """Starts of the system's atoms, positive temperatures, finite forces, exchanges within the group."""
        self.walk(self.build(self.frame))

    def test_equal_seeds_do_the_same(self) -> None:
        """Nothing random beside what it is given."""
        once, again = (self.walk(self.build(self.frame, seed=5)) for _ in range(2))
        np.testing.assert_array_equal(once, again)

    def test_what_it_does_not_suit_is_refused(self) -> None:
        """By an error that names a field, and nothing else."""
        if self.unsuited is None:
            self.build(self.frame)
            return
        with pytest.raises(InputError) as caught:
            self.build(self.unsuited)
        assert caught.value.field


class SelectionContract:
    """What every selection rule promises.

    Attributes:
        name: Of the entry point.
        settings: As under ``settings`` in the campaign file.
    """

    name: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}

    @pytest.mark.parametrize("n_frames", [1, 2, 40])
    @pytest.mark.parametrize("n_labelled", [0, 7])
    @pytest.mark.parametrize("n", [0, 1, 5])
    def test_it_gives_distinct_frames_and_the_same_again(self, n_frames: int, n_labelled: int, n: int) -> None:
        """As many as are wanted, for equal rows and unknown uncertainties too, and leaves its arrays alone."""
        rng = np.random.default_rng(n_frames)
        features, labelled = rng.normal(size=(n_frames, 3)), rng.normal(size=(n_labelled, 3))
        uncertainty = rng.exponential(size=n_frames)
        rule = SelectionRule(PluginSection(kind="plugin", name=self.name, settings=dict(self.settings)))
        for rows in (features, np.zeros_like(features)):
            for known in (uncertainty, np.full(n_frames, np.nan), np.zeros(n_frames)):
                for array in (rows, known, labelled):
                    array.setflags(write=False)
                wanted = min(n, n_frames)
                chosen = rule(rows, known, labelled, wanted, 11)
                assert chosen.size == wanted
                np.testing.assert_array_equal(chosen, rule(rows, known, labelled, wanted, 11))


class StopRuleContract:
    """What every stop rule promises.

    Attributes:
        name: Of the entry point.
        settings: As under ``settings`` in the campaign file.
        ends: A campaign that it ends.
        goes_on: One that it does not.
    """

    name: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}
    ends: ClassVar[CampaignView]
    goes_on: ClassVar[CampaignView]

    def ask(self, view: CampaignView) -> str | None:
        """What the rule says."""
        part, settings = STOP_RULES.chosen(
            PluginSection(kind="plugin", name=self.name, settings=dict(self.settings)), "stop.rules[0]"
        )
        said = part.why_stop(settings, view)
        assert said is None or isinstance(said, str)
        return said

    def test_it_says_why_in_one_line(self) -> None:
        """And nothing about a campaign that goes on, whatever it was asked before."""
        said = self.ask(self.ends)
        assert said
        assert said.splitlines() == [said]
        assert not self.ask(self.goes_on)
        assert self.ask(self.ends) == said

    def test_a_young_campaign_is_no_error(self) -> None:
        """One version of which nothing was measured, or something that is very good or very bad."""
        for metrics in (Metrics({}), Metrics({"force_mae_random_arm": 1e-9}), Metrics({"force_mae_random_arm": 1e9})):
            self.ask(campaign_view([metrics]))


def campaign_view(metrics: list[Metrics], **changes: Any) -> CampaignView:
    """A campaign whose versions have these metrics, each after ten further labels; the last one leads."""
    versions = tuple(VersionView(k, 10 * k, True, each) for k, each in enumerate(metrics, 1))
    counts: dict[str, Any] = {
        "n_labels": 10 * len(versions), "n_train": 8 * len(versions), "n_random": 2 * len(versions), "n_pending": 3,
        "n_quarantined": 0, "walker_steps": 1000 * len(versions), "wall_s": 60.0 * len(versions),
    }  # fmt: skip
    return CampaignView(**{**counts, "champion": versions[-1], "versions": versions, **changes})
