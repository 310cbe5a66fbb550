"""Opens a NequIP package, which executes code, and writes down what it holds; run by `alsys.interop.nequip_package`.

Reads one line of JSON from its input: the package, a folder for results, limits, and frames. Sets its limits before
anything of the package is touched. Writes ``result.json`` (architecture, energies and forces of the frames) and
``weights.safetensors``; what comes back is checked by the process that asked, which believes none of it.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import warnings
from pathlib import Path
from typing import Any


class NotPlain(Exception):
    """The model is not one that `nequip.model.NequIPGNNModel` builds."""


def main() -> None:
    """Does it."""
    order = json.loads(sys.stdin.readline())
    for name, value in order["limits"].items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        limit = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(kind, (limit, limit))
    folder = Path(order["folder"])
    result: dict[str, object]
    try:
        result = {"ok": _convert(order["package"], order["frames"], folder)}
    except NotPlain as error:
        result = {"refused": str(error)}
    except Exception as error:  # whatever the package's code raises
        result = {"refused": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def _convert(package: str, frames: list[dict[str, Any]], folder: Path) -> dict[str, object]:
    import torch
    from nequip.utils.global_state import set_global_state
    from safetensors.torch import save_file

    from alsys.potentials.tracing import evaluating, tracing

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tracing():
        set_global_state()
        importer: Any = torch.package.PackageImporter(package)  # type: ignore[attr-defined]
        loaded: Any = importer.load_pickle("model", "eager_model.pkl", map_location="cpu")
    if isinstance(loaded, torch.nn.ModuleDict):
        if len(loaded) != 1:
            raise NotPlain(f"it holds {len(loaded)} models, {', '.join(loaded)}")
        loaded = next(iter(loaded.values()))
    model = loaded.eval()
    spec = _spec(model)
    lookup = {symbol: i for i, symbol in enumerate(model.type_names)}
    answers = []
    for frame in frames:
        positions = torch.tensor(frame["positions"], dtype=torch.float64)
        pairs = [(i, j) for i in range(len(positions)) for j in range(len(positions)) if i != j]
        near = [pair for pair in pairs if float((positions[pair[0]] - positions[pair[1]]).norm()) < spec["r_max"]]
        data = {
            "pos": positions,
            "atom_types": torch.tensor([lookup[symbol] for symbol in frame["symbols"]]),
            "edge_index": torch.tensor(near, dtype=torch.int64).T.contiguous(),
            "batch": torch.zeros(len(positions), dtype=torch.int64),
            "num_atoms": torch.tensor([len(positions)]),
        }
        with evaluating():
            out = model(data)
        answers.append(
            {"energy": float(out["total_energy"].detach()), "forces": out["forces"].detach().double().tolist()}
        )
    weights = {name: value.detach().contiguous().clone() for name, value in model.state_dict().items()}
    save_file(weights, str(folder / "weights.safetensors"))
    return {"spec": spec, "answers": answers}


def _spec(model: Any) -> dict[str, Any]:
    """Builder arguments, read off the modules of a model.

    Raises:
        NotPlain: There are modules that `nequip.model.NequIPGNNModel` does not make.
    """
    network = model.model.func if hasattr(getattr(model, "model", None), "func") else None
    parts = {} if network is None else dict(network.named_children())
    layers = [parts[name] for name in sorted(parts) if name.endswith("_convnet")]
    known = {
        "type_embed", "spharm", "edge_norm", "bessel_encode", "factor", "per_atom_energy_readout",
        "per_type_energy_scale_shift", "total_energy_sum", "pair_potential",
    }  # fmt: skip
    needed = {"type_embed", "spharm", "edge_norm", "bessel_encode"}
    strange = sorted(name for name in parts if name not in known and not name.endswith("_convnet"))
    if not layers or strange or not needed <= set(parts):
        raise NotPlain(f"it is no NequIPGNNModel: {', '.join(strange) or 'parts are missing'}")
    names, r_max = list(model.type_names), float(parts["edge_norm"].r_max)
    hidden = layers[0].feature_irreps_hidden
    l_max = parts["spharm"].irreps_edge_sh.lmax
    by_order = {ir.l: int(mul) for mul, ir in hidden}
    features = [by_order.get(order, by_order[0]) for order in range(l_max + 1)]
    norms = [layer.conv.avg_num_neighbors_norm.norm_const.flatten() for layer in layers]
    if any(norm.numel() != 1 or not math.isclose(float(norm), float(norms[0])) for norm in norms):
        raise NotPlain("its neighbours are counted for each element")
    radial, bessel = list(layers[0].conv.edge_mlp.dims), parts["bessel_encode"]
    spec: dict[str, Any] = {
        "elements": names,
        "r_max": r_max,
        "num_layers": len(layers),
        "l_max": int(l_max),
        "num_features": features[0] if len(set(features)) == 1 else features,
        "parity": any(ir.p != (-1) ** ir.l for _, ir in hidden),
        "dtype": str(model.model_dtype).removeprefix("torch."),
        "avg_num_neighbors": float(norms[0]) ** -2,
        "type_embed_num_features": int(parts["type_embed"].irreps_out["node_attrs"].dim),
        "radial_mlp_depth": len(radial) - 2,
        "radial_mlp_width": int(radial[1]),
        "num_bessels": int(bessel.num_bessels),
        "bessel_trainable": bool(bessel.trainable),
        "polynomial_cutoff_p": int(bessel.cutoff.p),
        "zbl": "pair_potential" in parts,
    }
    reciprocal = parts["edge_norm"]._buffers.get("_rmax_recip")
    if reciprocal is not None and reciprocal.numel() == len(names) ** 2:
        table = (1.0 / reciprocal.double()).reshape(len(names), len(names))
        spec["cutoffs"] = {
            f"{names[i]}-{names[j]}": float(table[i, j])
            for i in range(len(names))
            for j in range(i, len(names))
            if float(table[i, j]) < r_max - 1e-5
        }
        if not bool((table == table.T).all()):
            raise NotPlain("its cutoffs differ by direction")
    return spec


if __name__ == "__main__":
    main()
