"""Kernels of other packages for the tensor products of networks on GPUs: what each is for, and what installs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Accelerate = Literal["none", "auto", "openequivariance", "cuequivariance"]
"""What a user asks for."""
ACCELERATE: Final = (
    "Kernels for tensor products on a GPU: `openequivariance` (NequIP) or `cuequivariance` (Allegro; NequIP in "
    "explorers), each with the extra of its name. `auto`: what is installed and fits, else none, with the reason in "
    "the log. Each model is compared with the plain one before it is used. Nothing is compiled besides."
)


@dataclass(frozen=True, slots=True)
class Kernels:
    """Kernels of one package.

    Attributes:
        name: As a user asks for them; also that of the extra that installs them.
        modules: What they import.
        modifiers: Modifier of NequIP's that puts them into a model, by kind of network.
        trains: Kinds that they can also train.
    """

    name: str
    modules: tuple[str, ...]
    modifiers: Mapping[str, str]
    trains: frozenset[str]

    def lacks(self, kind: str, *, is_trained: bool) -> str:
        """Why they are of no use for a kind of network; empty where they are.

        Args:
            kind: As `model.kind`.
            is_trained: The network is trained with them.
        """
        if kind not in self.modifiers:
            return f"{self.name} has no kernels for models of kind {kind}"
        if is_trained and kind not in self.trains:
            return f"{self.name} does not train models of kind {kind}"
        return ""


KERNELS: Final[Mapping[str, Kernels]] = {
    kernels.name: kernels
    for kernels in (
        Kernels(
            "openequivariance", ("openequivariance",), {"nequip": "enable_OpenEquivariance"}, frozenset({"nequip"})
        ),
        Kernels(
            "cuequivariance",
            ("cuequivariance", "cuequivariance_torch", "cuequivariance_ops_torch"),
            {"allegro": "enable_CuEquivarianceContracter", "nequip": "enable_CuEquivariance"},
            frozenset({"allegro"}),
        ),
    )
}
"""By name, those first that `auto` prefers (NequIP's documentation calls its support of cuEquivariance alpha)."""
