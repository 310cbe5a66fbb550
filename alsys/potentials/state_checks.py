"""Whether a committee from a file can be what it says: plain types, possible sizes, finite numbers.

Nothing is built for it. An architecture is bounded by the weights that are there: no width is larger than their number,
so no specification asks for more memory than the file has bytes, times a constant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Final

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from alsys.errors import InputError
from alsys.potentials.base import CommitteeState

MAX_CUTOFF: Final = 50.0
"""Angstrom."""
MAX_LAYERS: Final = 32
MAX_ORDER: Final = 8
"""Of spherical harmonics."""
MAX_DEPTH: Final = 64
MAX_NEIGHBOURS: Final = 1e5
DTYPES: Final = ("float32", "float64")
_REMEDY: Final = "it is damaged, or was not written by alsys"
_WIDTHS: Final = (
    "num_scalar_features", "num_tensor_features", "embedding_mlp_width", "layer_mlp_width", "readout_mlp_width",
    "radial_mlp_width", "num_bessels", "type_embed_num_features", "n_basis",
)  # fmt: skip
_DEPTHS: Final = ("embedding_mlp_depth", "layer_mlp_depth", "readout_mlp_depth", "radial_mlp_depth")
_FLAGS: Final = ("parity", "zbl", "bessel_trainable", "tp_path_channel_coupling")


def check_state(state: CommitteeState) -> None:
    """Returns where all numbers are finite, members are alike, and what the specification says is possible.

    Raises:
        InputError: Names the entry or the array.
    """
    for k, arrays in enumerate(state.members):
        where = f"member_{k:02d}"
        _check_arrays(arrays, where)
        first = state.members[0]
        if arrays.keys() != first.keys() or any(arrays[name].shape != first[name].shape for name in arrays):
            raise InputError("differs from the first member", field=where, remedy=_REMEDY)
    _check_arrays(state.score_state, "score")
    if state.inner is not None:
        check_state(state.inner)
    if state.kind not in ("nequip", "allegro", "pair"):
        return  # refused by whoever builds it
    spec: Mapping[str, Any] = state.spec
    n_weights = sum(array.size for array in state.members[0].values()) if state.members else 0
    if "elements" in spec:
        _check_elements(spec["elements"])
    for name, high in (("r_max", MAX_CUTOFF), ("avg_num_neighbors", MAX_NEIGHBOURS)):
        if name in spec:
            _real(spec[name], name, 0.0, high)
    if spec.get("polynomial_cutoff_p") is not None:
        _real(spec["polynomial_cutoff_p"], "polynomial_cutoff_p", 1.0, 100.0)
    for name, low, most in (
        ("num_layers", 1, MAX_LAYERS),
        ("l_max", 0, MAX_ORDER),
        *((name, 0, MAX_DEPTH) for name in _DEPTHS),
        *((name, 1, max(n_weights, 1)) for name in _WIDTHS),
    ):
        if spec.get(name) is not None:
            _whole(spec[name], name, low, most)
    for name in _FLAGS:
        if name in spec and not isinstance(spec[name], bool):
            raise _wrong(name, spec[name], "must be true or false")
    if "dtype" in spec and spec["dtype"] not in DTYPES:
        raise _wrong("dtype", spec["dtype"], f"must be one of {', '.join(DTYPES)}")
    if spec.get("cutoffs") is not None:
        _check_cutoffs(spec["cutoffs"], spec.get("r_max", MAX_CUTOFF))


def check_fit(state: CommitteeState) -> None:
    """Returns where the weights are those of the specification, as far as can be told without building it.

    Raises:
        InputError: Names the entry or the array.
    """
    spec: Mapping[str, Any] = state.spec
    needed = ("elements", "r_max", *(("n_basis",) if state.kind == "pair" else ("num_layers", "l_max", "dtype")))
    if missing := [name for name in needed if name not in spec]:
        raise InputError("lacks entries", field="spec", value=missing, remedy=_REMEDY)
    if not state.members:
        raise InputError("has no members", field="n_members", value=0, remedy=_REMEDY)
    check_state(state)
    for weights in state.members:
        if state.kind == "pair":
            _check_pair(spec, weights, len(spec["elements"]))
        elif state.kind == "nequip":
            _check_network(spec, weights)


def _check_elements(elements: object) -> None:
    if (
        not isinstance(elements, list | tuple)
        or not elements
        or not all(isinstance(symbol, str) and atomic_numbers.get(symbol) for symbol in elements)
        or len(set(elements)) < len(elements)
    ):
        raise _wrong("elements", elements, "must be different element symbols")


def _check_cutoffs(cutoffs: object, r_max: float) -> None:
    if not isinstance(cutoffs, Mapping):
        raise _wrong("cutoffs", cutoffs, "must be radii by pair of elements")
    for name, value in cutoffs.items():
        _real(value, f"cutoffs.{name}", 0.0, r_max * (1.0 + 1e-6))


def _check_pair(spec: Mapping[str, Any], weights: Mapping[str, NDArray[Any]], n_elements: int) -> None:
    wanted = {"coefficients": n_elements * (n_elements + 1) // 2 * int(spec["n_basis"]), "shifts": n_elements}
    for name, size in wanted.items():
        found = weights.get(name)
        if found is None or found.size != size:
            raise InputError(
                f"must hold {size} numbers", field=name, value=None if found is None else found.size, remedy=_REMEDY
            )


def _check_network(spec: Mapping[str, Any], weights: Mapping[str, NDArray[Any]]) -> None:
    layers = {part for name in weights for part in name.split(".") if part.endswith("_convnet")}
    if len(layers) != spec["num_layers"]:
        raise _wrong("num_layers", spec["num_layers"], f"its weights are of {len(layers)} layers")
    n_weights = sum(array.size for array in weights.values())
    features = spec.get("num_features")
    if isinstance(features, list | tuple) and len(features) != spec["l_max"] + 1:
        raise _wrong("num_features", features, f"must be {spec['l_max'] + 1} numbers")
    for count in features if isinstance(features, list | tuple) else [features]:
        if (
            isinstance(count, bool)
            or not isinstance(count, Integral)
            or not 1 <= int(count) ** 2 <= n_weights
            or int(count) < 1
        ):
            raise _wrong("num_features", count, f"is impossible with {n_weights} weights")
    r_max = float(spec["r_max"])
    for name, array in weights.items():
        if name.endswith("edge_norm._rmax_recip"):
            longest = 1.0 / float(array.min()) if array.size and float(array.min()) > 0.0 else math.inf
            if not longest <= r_max * (1.0 + 1e-5) or (array.size == 1 and longest < r_max * (1.0 - 1e-5)):
                raise _wrong("r_max", r_max, f"its weights are for a cutoff of {longest:.6g}")


def _check_arrays(arrays: Mapping[str, NDArray[Any]], where: str) -> None:
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise InputError("holds no plain numbers", field=f"{where}: {name}", value=str(array.dtype))
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError("holds NaN or infinity", field=f"{where}: {name}", remedy=_REMEDY)


def _real(value: object, name: str, low: float, high: float) -> None:
    """A finite number above `low`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low < float(value) <= high:
        raise _wrong(name, value, f"must be a number above {low:g}, {high:g} at most")


def _whole(value: object, name: str, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise _wrong(name, value, f"must be a whole number from {low} to {high}")


def _wrong(name: str, value: object, message: str) -> InputError:
    return InputError(message, field=f"spec.{name}", value=value, remedy=_REMEDY)
