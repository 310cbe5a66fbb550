"""The section ``model``: what a committee's members are.

A section knows the specification that its fields mean (`NetworkModel.spec`): the builder arguments that a state
carries. An argument of NequIP that has its usual value is left out, so that specifications, bundles and compiled
packages from before there was a field for it stay what they are. Importable without torch.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from alsys.config.section import PluginSection, Section, plugin_named
from alsys.plugins import POTENTIALS

NEQUIP_PRESETS: Final[Mapping[str, Mapping[str, object]]] = {
    "S": {"num_layers": 2, "l_max": 1, "num_features": (128, 64)},
    "M": {"num_layers": 4, "l_max": 2, "num_features": (128, 64, 32)},
    "L": {"num_layers": 6, "l_max": 3, "num_features": (128, 64, 32, 32)},
    "XL": {"num_layers": 6, "l_max": 4, "num_features": (320, 96, 64, 32, 32)},
}
"""Sizes of the NequIP foundation potentials (arXiv:2607.28461), as ``nequip.model.PresetNequIPGNNModel`` has them."""
NEQUIP_PRESET_COMMON: Final[Mapping[str, object]] = {
    "parity": False, "type_embed_num_features": 32, "radial_mlp_depth": 1, "radial_mlp_width": 128,
}  # fmt: skip
"""What all of these sizes share."""

_PAIR = re.compile(r"([A-Z][a-z]?)-([A-Z][a-z]?)")


class NetworkModel(Section):
    """What all networks have in common."""

    members: int = Field(4, ge=2, le=32, description="Models in the committee.")
    r_max: float = Field(5.0, gt=0.5, le=20, description="Cutoff.")
    dtype: Literal["float32", "float64"] = "float32"

    @abstractmethod
    def spec(self, elements: Sequence[str]) -> dict[str, object]:
        """JSON-compatible builder arguments but ``avg_num_neighbors``, which data decide.

        Args:
            elements: Symbols, in the order of their types.
        """

    def cutoffs_among(self, elements: Sequence[str]) -> dict[str, float]:
        """Cutoffs of pairs of `elements` that are shorter than `r_max`: none, where a model has one cutoff."""
        return {}


class EquivariantModel(NetworkModel):
    """What NequIP and Allegro have in common."""

    cutoffs: dict[str, Annotated[float, Field(gt=0.5)]] = Field(
        {}, description="Shorter cutoffs of pairs of elements, as `{H-H: 3.0, C-H: 4.0}`."
    )
    num_layers: int = Field(2, ge=1, le=8)
    l_max: int = Field(1, ge=0, le=6)
    parity: bool = Field(False, description="Features of both parities.")
    num_bessels: int = Field(8, ge=1, le=64, description="Radial functions.")
    bessel_trainable: bool = Field(False, description="Fit the wave numbers of the radial functions too.")
    polynomial_cutoff_p: int = Field(6, ge=2, le=48, description="Exponent of the cutoff function; smaller: earlier.")
    zbl: bool = Field(
        False, description="Add the screened repulsion of nuclei (ZBL): no two atoms fuse, whatever the network says."
    )
    states: bool | Literal["auto"] = Field(
        "auto",
        description="Tell total charges and multiplicities apart, by embeddings of elements in each. `auto`: where "
        "systems or labels come in several, but not with `exploration.carve`. False: one composition, one of them.",
    )

    @model_validator(mode="after")
    def _known_cutoffs(self) -> EquivariantModel:
        seen = set()
        for name, cutoff in self.cutoffs.items():
            match = _PAIR.fullmatch(name)
            if match is None:
                raise ValueError(f"cutoffs names pairs of elements, as C-H, not {name}")
            if cutoff > self.r_max:
                raise ValueError(f"cutoffs.{name} must not be larger than r_max, which bounds the neighbours")
            if frozenset(match.groups()) in seen:
                raise ValueError(f"cutoffs names the pair {name} twice")
            seen.add(frozenset(match.groups()))
        return self

    def cutoffs_among(self, elements: Sequence[str]) -> dict[str, float]:
        """Cutoffs of pairs of `elements`, each under its elements in their order there."""
        place = {element: i for i, element in enumerate(elements)}
        chosen = {}
        for name, cutoff in self.cutoffs.items():
            pair = name.split("-")
            if all(element in place for element in pair):
                chosen["-".join(sorted(pair, key=place.__getitem__))] = cutoff
        return dict(sorted(chosen.items()))


class NequIPModel(EquivariantModel):
    """Committee of NequIP models (Batzner et al., Nat. Commun. 13, 2453 (2022))."""

    kind: Literal["nequip"]
    preset: Literal["S", "M", "L", "XL"] | None = Field(
        None, description="Size of NequIP's foundation potentials, far larger than the defaults; fields beside it win."
    )
    num_features: Annotated[int, Field(ge=1, le=512)] | tuple[Annotated[int, Field(ge=1, le=512)], ...] = Field(
        32, description="Features of each order; or a list, from order 0 to `l_max`."
    )
    type_embed_num_features: int | None = Field(
        None, ge=1, le=512, description="Numbers that stand for an element; default: features of order 0."
    )
    radial_mlp_depth: int = Field(1, ge=1, le=4, description="Hidden layers of the radial networks.")
    radial_mlp_width: int = Field(128, ge=1, le=1024, description="Their neurons.")

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, data: Any) -> Any:
        """What the preset says of fields that are not given."""
        if not isinstance(data, Mapping) or str(data.get("preset")).upper() not in NEQUIP_PRESETS:
            return data
        data = {**data, "preset": str(data["preset"]).upper()}
        filled = {**NEQUIP_PRESET_COMMON, **NEQUIP_PRESETS[data["preset"]], **data}
        if "l_max" in data and "num_features" not in data:
            features = NEQUIP_PRESETS[data["preset"]]["num_features"]
            assert isinstance(features, tuple)
            if isinstance(data["l_max"], int) and data["l_max"] < len(features):
                filled["num_features"] = features[: data["l_max"] + 1]
        return filled

    @model_validator(mode="after")
    def _one_number_for_each_order(self) -> NequIPModel:
        if isinstance(self.num_features, tuple) and len(self.num_features) != self.l_max + 1:
            raise ValueError(f"num_features must be one number or l_max + 1 = {self.l_max + 1} numbers")
        return self

    def spec(self, elements: Sequence[str]) -> dict[str, object]:
        """See `NetworkModel.spec`."""
        features = self.num_features
        if isinstance(features, tuple) and len(set(features)) == 1:
            features = features[0]
        optional: dict[str, object] = {
            name: getattr(self, name)
            for name in (
                "type_embed_num_features", "radial_mlp_depth", "radial_mlp_width", "num_bessels", "bessel_trainable",
                "polynomial_cutoff_p", "zbl",
            )
            if getattr(self, name) != type(self).model_fields[name].default
        }  # fmt: skip
        cutoffs = self.cutoffs_among(elements)
        return {
            "elements": list(elements),
            "r_max": self.r_max,
            "num_layers": self.num_layers,
            "l_max": self.l_max,
            "num_features": list(features) if isinstance(features, tuple) else features,
            "parity": self.parity,
            "dtype": self.dtype,
            **optional,
            **({"cutoffs": cutoffs} if cutoffs else {}),
        }


class AllegroModel(EquivariantModel):
    """Committee of Allegro models (Musaelian et al., Nat. Commun. 14, 579 (2023)); needs `alsys[allegro]`."""

    kind: Literal["allegro"]
    l_max: int = Field(2, ge=0, le=6)
    parity: bool = Field(True, description="Features of both parities.")
    num_scalar_features: int = Field(64, ge=1, le=1024)
    num_tensor_features: int = Field(16, ge=1, le=512)
    embedding_mlp_depth: int = Field(1, ge=1, le=4, description="Hidden layers of the network on pairs.")
    embedding_mlp_width: int = Field(64, ge=1, le=1024, description="Their neurons.")
    layer_mlp_depth: int = Field(1, ge=1, le=4, description="Hidden layers of each layer's network.")
    layer_mlp_width: int = Field(64, ge=1, le=1024, description="Their neurons.")
    readout_mlp_depth: int = Field(1, ge=0, le=4, description="Hidden layers of the network that reads energies off.")
    readout_mlp_width: int = Field(32, ge=1, le=1024, description="Their neurons.")
    tp_path_channel_coupling: bool = Field(
        True, description="Weights of tensor products for each channel and path, not for each path only."
    )

    def spec(self, elements: Sequence[str]) -> dict[str, object]:
        """See `NetworkModel.spec`."""
        names = type(self).model_fields.keys() - {"kind", "members", "cutoffs", "states"}
        fields = {name: getattr(self, name) for name in sorted(names)}
        cutoffs = self.cutoffs_among(elements)
        return {
            "architecture": "allegro",
            "elements": list(elements),
            **fields,
            **({"cutoffs": cutoffs} if cutoffs else {}),
        }


class PairModel(Section):
    """Committee of linear pair potentials: fitted in milliseconds, for tests and trying alsys out."""

    kind: Literal["pair"]
    members: int = Field(4, ge=2, le=32)
    r_max: float = Field(6.0, gt=0.5, le=20)
    n_basis: int = Field(16, ge=4, le=128, description="Radial functions for each pair of elements.")
    ridge: float = Field(1e-6, gt=0)


class PluginModel(PluginSection, NetworkModel):
    """Committee of potentials of another package, installed under a name (entry points `alsys.potentials`)."""

    def spec(self, elements: Sequence[str]) -> dict[str, object]:
        """See `NetworkModel.spec`."""
        return {
            "architecture": self.name,
            "elements": list(elements),
            "r_max": self.r_max,
            "dtype": self.dtype,
            "settings": self.settings,
        }


_Model = NequIPModel | AllegroModel | PairModel | PluginModel
ModelConfig = Annotated[_Model, Field(discriminator="kind"), plugin_named(POTENTIALS, _Model)]
