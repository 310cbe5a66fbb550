"""The section model: presets, what each field does to a specification, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alsys.config import parse_config, science_fields
from alsys.config.models import NEQUIP_PRESET_COMMON, NEQUIP_PRESETS, AllegroModel, NequIPModel
from alsys.errors import InputError


def parsed(model: dict[str, Any], **sections: Any) -> Any:
    return parse_config(
        {
            "name": "t",
            "systems": [{"name": "m", "smiles": "CO"}],
            "labeling": {"kind": "analytic", "baseline": {"kind": "gfn2-xtb"}},
            "model": model,
            **sections,
        }
    )


def test_presets_are_those_of_the_installed_nequip() -> None:
    from nequip.model import nequip_models as theirs

    for name, values in NEQUIP_PRESETS.items():
        mine = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
        assert mine == theirs._NEQUIP_GNN_PRESETS[name]
    assert set(NEQUIP_PRESETS) == set(theirs._NEQUIP_GNN_PRESETS)
    assert dict(NEQUIP_PRESET_COMMON) == theirs._NEQUIP_GNN_STANDARD_PRESET


def test_fields_beside_a_preset_win() -> None:
    model = parsed({"kind": "nequip", "preset": "L", "num_layers": 3, "radial_mlp_width": 64, "r_max": 6.0}).model
    assert (model.num_layers, model.l_max, model.num_features) == (3, 3, (128, 64, 32, 32))
    assert model.spec(["H"]) == {
        "elements": ["H"], "r_max": 6.0, "num_layers": 3, "l_max": 3, "num_features": [128, 64, 32, 32],
        "parity": False, "dtype": "float32", "type_embed_num_features": 32, "radial_mlp_width": 64,
    }  # fmt: skip
    assert parsed({"kind": "nequip", "preset": "XL", "l_max": 1}).model.num_features == (320, 96)


@pytest.mark.parametrize("model", [{"kind": "nequip", "preset": "M"}, {"kind": "allegro", "cutoffs": {"H-H": 3.0}}])
def test_what_is_recorded_is_read_back(model: dict[str, Any]) -> None:
    config = parsed(model)
    again = parse_config(json.loads(config.model_dump_json()))
    assert again == config
    assert science_fields(again) == science_fields(config)


def test_every_field_reaches_the_specification() -> None:
    """No option does nothing; what `states` does depends on the systems (tests/integration/test_states.py)."""
    changes: dict[str, Any] = {
        "r_max": 4.5, "cutoffs": {"H-C": 3.0}, "num_layers": 3, "l_max": 3, "parity": None, "num_bessels": 6,
        "bessel_trainable": True, "polynomial_cutoff_p": 5, "zbl": True, "dtype": "float64", "num_features": 7,
        "type_embed_num_features": 9, "radial_mlp_depth": 2, "radial_mlp_width": 31, "num_scalar_features": 5,
        "num_tensor_features": 5, "embedding_mlp_depth": 2, "embedding_mlp_width": 31, "layer_mlp_depth": 2,
        "layer_mlp_width": 31, "readout_mlp_depth": 2, "readout_mlp_width": 31, "tp_path_channel_coupling": False,
    }  # fmt: skip
    for plain in (NequIPModel(kind="nequip"), AllegroModel(kind="allegro")):
        elements = ["H", "C"]
        for name in type(plain).model_fields.keys() - {"kind", "members", "preset", "states"}:
            value = not plain.parity if name == "parity" else changes[name]
            changed = type(plain)(**{"kind": plain.kind, name: value})
            assert changed.spec(elements) != plain.spec(elements), name


def test_cutoffs_are_those_of_the_elements_there_are() -> None:
    model = NequIPModel(kind="nequip", cutoffs={"O-H": 3.0, "C-C": 4.0, "N-H": 2.0})
    assert model.spec(["H", "C", "O"])["cutoffs"] == {"C-C": 4.0, "H-O": 3.0}
    assert "cutoffs" not in model.spec(["H"])


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"kind": "nequip", "preset": "XXL"}, "model.preset"),
        ({"kind": "nequip", "num_features": [8, 4, 2]}, "l_max + 1 = 2"),
        ({"kind": "nequip", "cutoffs": {"H": 3.0}}, "pairs of elements"),
        ({"kind": "nequip", "cutoffs": {"H-O": 7.0}}, "must not be larger than r_max"),
        ({"kind": "allegro", "cutoffs": {"H-O": 3.0, "O-H": 3.5}}, "twice"),
        ({"kind": "allegro", "num_features": 8}, "unknown key"),
        ({"kind": "allegro", "readout_mlp_depth": -1}, "model.readout_mlp_depth"),
    ],
)
def test_what_cannot_be_built_is_refused(model: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        parsed(model)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_repulsion_on_top_of_a_baseline_is_refused() -> None:
    with pytest.raises(InputError, match=r"zbl needs labels without training\.delta"):
        parsed({"kind": "nequip", "zbl": True}, training={"delta": "gfn2-xtb"})
