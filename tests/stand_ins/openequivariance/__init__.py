"""A stand-in for OpenEquivariance 0.7: what NequIP calls of it, with its signatures, computed by e3nn on any device.

`fault` makes its kernels wrong: ``forces`` scales derivatives by edge weights, while energies stay right (as its issue
211 describes), ``second`` scales second derivatives only, ``build`` refuses to be made, ``names`` adds a weight.
"""

from __future__ import annotations

from typing import Any

import torch
from e3nn.o3 import TensorProduct

fault = ""
n_calls = 0


def torch_to_oeq_dtype(dtype: torch.dtype) -> str:
    return str(dtype)


class TPProblem:
    def __init__(
        self,
        irreps_in1: Any,
        irreps_in2: Any,
        irreps_out: Any,
        instructions: Any,
        *,
        irrep_dtype: str,
        weight_dtype: str,
        shared_weights: bool,
        internal_weights: bool,
    ) -> None:
        if fault == "build":
            raise RuntimeError("no compiler")
        assert irrep_dtype == weight_dtype
        assert not shared_weights
        assert not internal_weights
        self.terms = (irreps_in1, irreps_in2, irreps_out, instructions)


class TensorProductConv(torch.nn.Module):
    def __init__(
        self,
        problem: TPProblem,
        *,
        deterministic: bool = False,
        kahan: bool = False,
        torch_op: bool = True,
        use_opaque: bool = False,
    ) -> None:
        super().__init__()
        assert torch_op
        self._product = [TensorProduct(*problem.terms, shared_weights=False, internal_weights=False)]  # no submodule
        if fault == "names":
            self.register_buffer("workspace", torch.zeros(1))

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor, rows: torch.Tensor, cols: torch.Tensor
    ) -> torch.Tensor:
        global n_calls
        n_calls += 1
        if fault in ("forces", "second"):
            weights = _Scaled.apply(weights, fault)
        product = self._product[0](x[cols], y, weights)
        return torch.zeros(x.shape[0], product.shape[1], dtype=x.dtype, device=x.device).index_add(0, rows, product)


class _Scaled(torch.autograd.Function):
    """The same, with derivatives of the first or the second order that are too large."""

    @staticmethod
    def forward(context: Any, value: torch.Tensor, order: str) -> torch.Tensor:
        context.order = order
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        if context.order == "forces":
            return 1.05 * gradient, None
        return (_Scaled.apply(gradient, "forces") if context.order == "second" else gradient), None
