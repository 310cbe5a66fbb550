"""Which walkers there are: shared out over systems by the config, and over exploration methods by the bandit.

A method that does not suit a system (a torsion scan of water) is left out there; `check_methods` refuses one that suits
none. Walkers are grouped anew only when new weights come with other shares: methods then begin afresh, as hills and
tuned biases belonged to the model before. Where there are fewer walkers than systems, systems take turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alsys.config.exploration_methods import ExplorationMethod, PlainMethod, PluginMethod
from alsys.config.schema import CampaignConfig
from alsys.errors import InputError
from alsys.exploration.bandit import allocate
from alsys.exploration.methods.base import Method
from alsys.exploration.methods.factory import build_method
from alsys.exploration.methods.plain import Plain
from alsys.exploration.shares import shares_of, spread
from alsys.exploration.steering import GroupOfWalkers, Steering
from alsys.exploration.walkers import Walkers
from alsys.frames import Frame
from alsys.plugins import METHODS

TARGET = "target"
"""Name of the walkers in the target ensemble, which the random arm is taken from; no method has it."""
NEW_SHARE = 0.1
"""Change of a method's share from which walkers are grouped anew."""


class WalkerAllocation:
    """Makes batches of walkers.

    Args:
        config: The campaign.
        systems: Reference structure of each system.
        seed: Of everything random in methods.
    """

    def __init__(self, config: CampaignConfig, systems: Mapping[str, Frame], seed: int) -> None:
        self._config, self._systems, self._seed = config, dict(systems), seed
        self._names, self._methods = config.exploration.method_names, methods_of(config)
        self._suited = {name: self._methods_for(name) for name in systems}
        self._shares: dict[str, float] = {}
        self._n_made = 0
        self._take_turns = config.exploration.walkers < len(systems)

    def is_new(self, shares: Mapping[str, float]) -> bool:
        """Whether walkers are to be grouped anew: other shares of methods, or systems that take turns."""
        return self._take_turns or any(
            abs(self._shares.get(name, 0.0) - share) >= NEW_SHARE for name, share in shares.items()
        )

    def walkers(self, shares: Mapping[str, float]) -> Walkers:
        """A batch of walkers.

        Args:
            shares: Share of each method; empty for equal ones.
        """
        settings = self._config.exploration
        self._shares = dict(shares) or dict.fromkeys(self._names, 1.0 / len(self._names))
        self._n_made += 1
        weights = shares_of(self._config, self._systems)
        if self._take_turns:
            shares_by_name = {name: weight / sum(weights) for name, weight in zip(self._systems, weights, strict=True)}
            turn = allocate(shares_by_name, settings.walkers, self._seed + self._n_made)
            counts = tuple(turn.values())
        else:
            counts = spread(weights, settings.walkers)
        chosen: list[str] = []
        groups: list[GroupOfWalkers] = []
        for index, ((name, start), count) in enumerate(zip(self._systems.items(), counts, strict=True)):
            suited = self._suited[name]
            total = sum(self._shares.get(method, 0.0) for method in suited)
            parts = {m: self._shares.get(m, 0.0) / total if total > 0 else 1.0 / len(suited) for m in suited}
            if not count:
                continue
            if target := self._config.target:
                n_target = min(max(1, round(target.share * count)), count - 1)
                groups.append(GroupOfWalkers(TARGET, Plain([target.temperature], n_target), n_target, start.n_atoms))
                chosen += [name] * n_target
                count -= n_target
            seed = self._seed + 7919 * self._n_made + 104_729 * index
            for method, n_walkers in allocate(parts, count, seed).items():
                if n_walkers:
                    built = self._build(suited[method], name, n_walkers, seed)
                    groups.append(GroupOfWalkers(method, built, n_walkers, start.n_atoms))
                    chosen += [name] * n_walkers
        return Walkers(chosen, [self._systems[name] for name in chosen], Steering(groups), settings)

    def _methods_for(self, name: str) -> dict[str, ExplorationMethod]:
        """Methods that suit a system, by name; plain dynamics where none does."""
        suited: dict[str, ExplorationMethod] = {}
        for method_name, method in zip(self._names, self._methods, strict=True):
            try:
                self._build(method, name, 1, 0)
            except InputError:
                continue
            suited[method_name] = method
        return suited or {self._names[0]: PlainMethod(kind="plain")}

    def _build(self, method: ExplorationMethod, name: str, n_walkers: int, seed: int) -> Method:
        return _build(self._config, method, name, self._systems[name], n_walkers, seed)


def check_methods(config: CampaignConfig, systems: Mapping[str, Frame]) -> None:
    """Refuses an exploration method that suits none of the systems, or is not installed.

    Raises:
        InputError: With the reason that the first system gives.
        EnvironmentProblem: A method of another package is broken.
    """
    for i, method in enumerate(methods_of(config)):
        problems: list[InputError] = []
        for name, start in systems.items():
            try:
                _build(config, method, name, start, 1, 0)
            except InputError as error:
                problems.append(error)
        if len(problems) == len(systems):
            first = problems[0]
            field = f"exploration.methods[{i}].{first.field or 'kind'}"
            raise InputError(first.message, field=field, value=first.value, remedy=first.remedy) from first


def methods_of(config: CampaignConfig) -> Sequence[ExplorationMethod]:
    """The methods of a campaign; one that is not installed here is an error, not a method that does not suit.

    Raises:
        InputError: It is not installed, or refuses its settings.
        EnvironmentProblem: Its package is broken.
    """
    for i, method in enumerate(config.exploration.methods):
        if isinstance(method, PluginMethod):
            METHODS.chosen(method, f"exploration.methods[{i}]")
    return config.exploration.methods or (PlainMethod(kind="plain"),)


def _build(
    config: CampaignConfig, method: ExplorationMethod, name: str, start: Frame, n_walkers: int, seed: int
) -> Method:
    smiles = next((system.smiles for system in config.systems if system.name == name), None)
    settings = config.exploration
    return build_method(
        method,
        start,
        n_walkers,
        settings.timestep * settings.steps_per_look,
        seed,
        smiles=smiles,
        temperatures=settings.temperatures,
    )
