"""Which members of a committee begin anew, and how much of a fit's budget each of them gets.

Every few refits one member in turn begins anew with a larger share, so that members do not grow alike.
"""

from __future__ import annotations

from typing import Final

from alsys.config.training import TrainingConfig
from alsys.potentials.base import CommitteeState
from alsys.training.base import TrainingOrder

FRESH_SHARES: Final = 4.0
"""Shares of the budget of a member that begins anew beside others that go on."""


class Renewal:
    """How the members of one fit begin.

    Args:
        config: `renew_every` is read.
        order: The fit.
        parent: Committee that it goes on from; None for none.
        n_members: Members of the new committee.
    """

    def __init__(
        self, config: TrainingConfig, order: TrainingOrder, parent: CommitteeState | None, n_members: int
    ) -> None:
        self._n_known = 0 if parent is None else parent.n_members
        self._n_members = n_members
        every, self._renewed = config.renew_every, -1
        if parent is not None and every and n_members > 1 and order.version % every == 0 and not order.is_final:
            self._renewed = order.version // every % n_members

    def is_warm(self, number: int) -> bool:
        """Whether a member goes on from its parent's weights."""
        return number < self._n_known and number != self._renewed

    def share(self, number: int) -> float:
        """Shares of the budget that a member gets."""
        return FRESH_SHARES if self._n_known and not self.is_warm(number) else 1.0

    @property
    def shares(self) -> list[float]:
        """Those of all members."""
        return [self.share(number) for number in range(self._n_members)]
