"""From a specification to a network: NequIP itself, or Allegro (package nequip-allegro), with or without ZBL.

A specification is JSON: builder arguments by name, never a name of code. Entries that NequIP's specifications may lack
have the values of `OPTIONAL`, so a specification written before there was such an entry means what it meant. An entry
that is not known is refused: it would change the energies of a model that loads well. Imports torch where it builds.

With ``states``, pairs of total charge and multiplicity, a network tells these apart: each element is a type of its own
in each state, so that whatever the network keeps for a type, its embedding first of all, it keeps for element and
state. Types count elements within states. What is no embedding (shifts, scales, cutoffs, ZBL) is the same in all
states, and so is everything in a model that is new. The energy of a state beyond that of its atoms, such as an
ionisation energy, belongs to the frame and not to its atoms: `STATE_ENERGIES`, a buffer, which whoever evaluates the
model adds to each frame's energy.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import metadata
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from ase.data import atomic_numbers

from alsys.errors import EnvironmentProblem, InputError
from alsys.potentials.tracing import tracing
from alsys.states import ElectronicState, read_states

if TYPE_CHECKING:
    import torch

SPEC_KEYS: Final = ("elements", "r_max", "num_layers", "l_max", "num_features", "parity", "dtype", "avg_num_neighbors")
"""What every specification of a NequIP model has."""
_COMMON_OPTIONAL: Final[Mapping[str, object]] = {
    "num_bessels": 8, "bessel_trainable": False, "polynomial_cutoff_p": 6, "cutoffs": None, "zbl": False,
    "states": None,
}  # fmt: skip
OPTIONAL: Final[Mapping[str, object]] = {
    **_COMMON_OPTIONAL, "type_embed_num_features": None, "radial_mlp_depth": 1, "radial_mlp_width": 128,
}  # fmt: skip
"""What a specification of a NequIP model may have, and what its absence means."""
ALLEGRO_KEYS: Final = (
    "architecture", "elements", "r_max", "num_layers", "l_max", "num_scalar_features", "num_tensor_features", "parity",
    "embedding_mlp_depth", "embedding_mlp_width", "layer_mlp_depth", "layer_mlp_width", "readout_mlp_depth",
    "readout_mlp_width", "tp_path_channel_coupling", "dtype", "avg_num_neighbors",
)  # fmt: skip
"""What every specification of an Allegro model has."""
STATE_ENERGIES: Final = "state_energies"
"""Buffer of models with states: ``(n_states,)``, eV."""
_is_ready = False


def prepare() -> None:
    """Imports NequIP (seconds) and sets its process-wide state, once."""
    global _is_ready
    if _is_ready:
        return
    with tracing():
        from nequip.utils.global_state import set_global_state

        if not _is_ready:
            with without_deprecations():
                set_global_state()
            _is_ready = True


PLUGIN_KEYS: Final = ("architecture", "elements", "r_max", "dtype", "settings", "avg_num_neighbors")
"""What every specification of a potential of another package has (`alsys.potentials.plugins`)."""
_ENTRIES: Final[Mapping[str, tuple[tuple[str, ...], Mapping[str, object]]]] = {
    "nequip": (SPEC_KEYS, OPTIONAL),
    "allegro": (ALLEGRO_KEYS, _COMMON_OPTIONAL),
}
"""What a specification of a kind must have and may have."""


def kind_of(spec: Mapping[str, object]) -> str:
    """Kind of the state of such a specification: ``nequip`` or ``allegro``.

    Raises:
        InputError: An architecture that is not known.
    """
    kind = spec.get("architecture", "nequip")
    if kind not in ("nequip", "allegro") and "settings" not in spec:  # which only potentials of others have
        raise InputError("unknown architecture", field="spec.architecture", value=kind, remedy="a newer alsys wrote it")
    return str(kind)


def architecture_of(spec: Mapping[str, object]) -> dict[str, object]:
    """All that decides how a model is built, without entries that say what their absence says: an identity.

    Raises:
        InputError: An architecture or an entry that is not known.
    """
    required, optional = _ENTRIES.get(kind_of(spec), (PLUGIN_KEYS, {}))
    if strange := sorted(set(spec) - set(required) - set(optional)):
        raise InputError("has unknown entries", field="spec", value=strange, remedy="a newer alsys wrote it")
    entries = {key: spec.get(key) for key in required}
    for key, default in optional.items():
        value = spec.get(key, default)
        if value != default and value not in (None, {}, []):
            entries[key] = value
    return entries


def is_own(spec: Mapping[str, object]) -> bool:
    """Whether alsys knows the architecture: it can be compiled, exported, and told states of charge and spin."""
    return kind_of(spec) in _ENTRIES


def is_extended(spec: Mapping[str, object]) -> bool:
    """Whether a network's specification holds what readers from before `OPTIONAL` would not see."""
    return bool(set(spec) - set(SPEC_KEYS))


def version_of(kind: str) -> str:
    """Version of the package beside NequIP that builds this kind; empty where there is none."""
    return metadata.version("nequip-allegro") if kind == "allegro" else ""


def check_installed(kind: str) -> None:
    """Imports nothing.

    Raises:
        EnvironmentProblem: The package for this kind of model is missing.
    """
    if kind == "allegro" and importlib.util.find_spec("allegro") is None:
        raise EnvironmentProblem(
            "models of kind allegro need the package nequip-allegro, which is not installed; "
            "pip install 'alsys[allegro]'"
        )


def build_model(spec: Mapping[str, Any], seed: int = 0) -> torch.nn.Module:
    """One model with zero shifts and unit scales.

    Args:
        spec: `SPEC_KEYS` and any of `OPTIONAL`; or for Allegro ``architecture: allegro``, `ALLEGRO_KEYS` and any of the
            common ones. ``elements`` are symbols, ``cutoffs`` gives radii (Angstrom) by pair of elements, as ``H-C``.
        seed: Seed of the initial weights.

    Raises:
        InputError: The specification lacks an entry, or has one that is not known.
        EnvironmentProblem: The package of the architecture is missing.
    """
    kind = kind_of(spec)
    required, _ = _ENTRIES.get(kind, (PLUGIN_KEYS, {}))
    if missing := [key for key in required if key not in spec]:
        raise InputError("lacks entries", field="spec", value=missing)
    architecture_of(spec)
    if kind not in _ENTRIES:
        from alsys.potentials.plugins import build_plugin

        return build_plugin(spec, seed)
    check_installed(kind)
    prepare()
    elements, states, names = elements_of(spec), states_of(spec), type_names_of(spec)
    full = {**OPTIONAL, **spec}
    arguments: dict[str, Any] = {
        "seed": seed,
        "model_dtype": spec["dtype"],
        "type_names": names,
        "r_max": float(spec["r_max"]),
        "num_layers": int(spec["num_layers"]),
        "l_max": int(spec["l_max"]),
        "parity": bool(spec["parity"]),
        "avg_num_neighbors": float(spec["avg_num_neighbors"]),
        "per_edge_type_cutoff": _both_ways(full["cutoffs"], elements, names),
        "per_type_energy_shifts": dict.fromkeys(names, 0.0),
        "per_type_energy_scales": dict.fromkeys(names, 1.0),
        "compile_mode": "eager",
    }
    if full["zbl"]:
        arguments["pair_potential"] = {
            "_target_": "nequip.nn.pair_potential.ZBL",
            "units": "metal",
            "chemical_species": elements * max(len(states), 1),
        }
    radial = {
        "num_bessels": int(full["num_bessels"]),
        "bessel_trainable": bool(full["bessel_trainable"]),
        "polynomial_cutoff_p": int(full["polynomial_cutoff_p"]),
    }
    with tracing(), without_deprecations():
        model = (_allegro if kind == "allegro" else _nequip)(arguments, radial, full)
    if states:
        import torch

        model.register_buffer(STATE_ENERGIES, torch.zeros(len(states), dtype=torch.float64))
        _copy_to_all_states(build_model({k: v for k, v in spec.items() if k != "states"}, seed), model, len(states))
    return model


def _nequip(arguments: Mapping[str, Any], radial: Mapping[str, Any], spec: Mapping[str, Any]) -> torch.nn.Module:
    from nequip.model import NequIPGNNModel

    features, embedding = spec["num_features"], spec["type_embed_num_features"]
    model: torch.nn.Module = NequIPGNNModel(
        **arguments,
        **radial,
        num_features=[int(n) for n in features] if isinstance(features, list | tuple) else int(features),
        type_embed_num_features=None if embedding is None else int(embedding),
        radial_mlp_depth=int(spec["radial_mlp_depth"]),
        radial_mlp_width=int(spec["radial_mlp_width"]),
    )
    return model


def _copy_to_all_states(plain: torch.nn.Module, model: torch.nn.Module, n_states: int) -> None:
    """Gives a model the weights of one without states, the same for all states."""
    given = plain.state_dict()
    for name, value in model.state_dict().items():
        if name in given:
            value.copy_(over_states(given[name], value.shape[0] if value.dim() else 0, n_states))


def over_states(value: torch.Tensor, n_rows: int, n_states: int) -> torch.Tensor:
    """What a model without states keeps, repeated for one that has `n_rows` instead, of types or of pairs of types."""
    if not value.dim() or value.shape[0] == n_rows:
        return value
    if value.shape[0] * n_states == n_rows:
        return value.repeat(n_states, *[1] * (value.dim() - 1))
    n = round(value.shape[0] ** 0.5)
    pairs = value.reshape(n, n, *value.shape[1:])
    return pairs.repeat(n_states, n_states, *[1] * (value.dim() - 1)).reshape(n_rows, *value.shape[1:])


def _allegro(arguments: Mapping[str, Any], radial: Mapping[str, Any], spec: Mapping[str, Any]) -> torch.nn.Module:
    from allegro.model import AllegroModel

    model: torch.nn.Module = AllegroModel(
        **arguments,
        radial_chemical_embed={"_target_": "allegro.nn.TwoBodyBesselScalarEmbed", **radial},
        num_scalar_features=int(spec["num_scalar_features"]),
        num_tensor_features=int(spec["num_tensor_features"]),
        scalar_embed_mlp_hidden_layers_depth=int(spec["embedding_mlp_depth"]),
        scalar_embed_mlp_hidden_layers_width=int(spec["embedding_mlp_width"]),
        allegro_mlp_hidden_layers_depth=int(spec["layer_mlp_depth"]),
        allegro_mlp_hidden_layers_width=int(spec["layer_mlp_width"]),
        readout_mlp_hidden_layers_depth=int(spec["readout_mlp_depth"]),
        readout_mlp_hidden_layers_width=int(spec["readout_mlp_width"]),
        tp_path_channel_coupling=bool(spec["tp_path_channel_coupling"]),
    )
    return model


def blank_model(spec: Mapping[str, Any]) -> torch.nn.Module:
    """A model in evaluation mode whose weights are to be loaded: a copy of one built before, where there is one.

    Raises:
        InputError: The specification cannot be built.
        EnvironmentProblem: The package of the architecture is missing.
    """
    elements_of(spec)
    with tracing():
        template = _template(json.dumps(architecture_of(spec), sort_keys=True))
        return copy.deepcopy(template, {} if kind_of(spec) not in _ENTRIES else _generated(template))


def _generated(model: torch.nn.Module) -> dict[int, Any]:
    """Copies of the modules with code that e3nn generated, for `copy.deepcopy`, which would have it traced again."""
    from e3nn.util.codegen import CodeGenMixin

    memo: dict[int, Any] = {}
    for module in model.modules():
        if isinstance(module, CodeGenMixin):
            _share_code(module, memo)
    return memo


def _share_code(module: torch.nn.Module, memo: dict[int, Any]) -> torch.nn.Module:
    """A copy with numbers of its own and the same code."""
    known: torch.nn.Module | None = memo.get(id(module))
    if known is None:
        made = object.__new__(type(module))
        own = {key: copy.copy(v) if isinstance(v, dict | list | set) else v for key, v in vars(module).items()}
        numbers = {key: copy.deepcopy(own[key], memo) for key in ("_parameters", "_buffers")}
        children = {name: _share_code(child, memo) for name, child in module.named_children()}
        vars(made).update(own | numbers | {"_modules": children})
        memo[id(module)] = known = made
    return known


@lru_cache(maxsize=4)
def _template(spec: str) -> torch.nn.Module:
    return build_model({key: value for key, value in json.loads(spec).items() if value is not None}).eval()


def elements_of(spec: Mapping[str, object]) -> list[str]:
    """Element symbols of a specification, in the order of their types.

    Raises:
        InputError: They are not a list of symbols.
    """
    elements = spec.get("elements")
    if not isinstance(elements, list | tuple) or not all(symbol in atomic_numbers for symbol in elements):
        raise InputError("must be a list of element symbols", field="elements", value=elements)
    return list(elements)


def states_of(spec: Mapping[str, object]) -> tuple[ElectronicState, ...]:
    """States that a specification tells apart, in the order of their types; empty where it tells none apart.

    Raises:
        InputError: They are not different pairs of charge and multiplicity.
    """
    given = spec.get("states")
    if not given:
        return ()
    try:
        states = read_states(given)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise InputError(f"must be pairs of charge and multiplicity: {error}", field="states", value=given) from error
    if len(set(states)) < len(states):
        raise InputError("names a state twice", field="states", value=given)
    return states


def type_names_of(spec: Mapping[str, object]) -> list[str]:
    """Name of each type: its element, and from the second state on the number of its state."""
    elements = elements_of(spec)
    return [f"{symbol}{k or ''}" for k in range(max(len(states_of(spec)), 1)) for symbol in elements]


def _both_ways(cutoffs: object, elements: list[str], names: list[str]) -> dict[str, dict[str, float]] | None:
    """NequIP's cutoffs by the types of both ends."""
    if not cutoffs:
        return None
    if not isinstance(cutoffs, Mapping):
        raise InputError("must be radii by pair of elements", field="spec.cutoffs", value=cutoffs)
    nested: dict[str, dict[str, float]] = {}
    for name, radius in cutoffs.items():
        first, _, second = str(name).partition("-")
        if first not in elements or second not in elements:
            raise InputError("names a pair of other elements", field="spec.cutoffs", value=name)
        for one, other in ((first, second), (second, first)):
            ends = (names[elements.index(symbol) :: len(elements)] for symbol in (one, other))
            for name_, other_name in product(*ends):
                nested.setdefault(name_, {})[other_name] = float(radius)
    return nested


@contextlib.contextmanager
def without_deprecations() -> Iterator[None]:
    """NequIP uses TorchScript, which torch 2.13 deprecates, where models are built, even in eager mode."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
        yield
