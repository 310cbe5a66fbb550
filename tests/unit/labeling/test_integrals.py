"""Three-centre integrals that are kept for an SCF: when they are, and that nothing depends on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from alsys.labeling.integrals import hold_integrals

WATER = "O 0 0 0.117; H 0 0.757 -0.469; H 0 -0.757 -0.469"


def field_of(xc: str, max_memory: float = 4000, fitted: bool = True) -> Any:
    from pyscf import dft, gto

    field = dft.RKS(gto.M(atom=WATER, basis="def2-svp", verbose=0, max_memory=max_memory), xc=xc)
    field.grids.level = 1
    return field.density_fit() if fitted else field


@pytest.mark.dft
@pytest.mark.parametrize("xc", ["pbe", "r2scan"])
def test_energy_and_forces_are_those_without(xc: str) -> None:
    held, plain = field_of(xc), field_of(xc)
    hold_integrals(held)
    assert held.with_df._cderi.shape == (held.with_df.get_naoaux(), held.mol.nao * (held.mol.nao + 1) // 2)
    assert held.kernel() == pytest.approx(plain.kernel(), abs=1e-10)
    assert plain.with_df._cderi is None
    np.testing.assert_allclose(held.nuc_grad_method().kernel(), plain.nuc_grad_method().kernel(), atol=1e-9)


def test_nothing_is_made_where_memory_is_short_or_nothing_is_fitted() -> None:
    short, direct = field_of("pbe", max_memory=1), field_of("pbe", fitted=False)
    hold_integrals(short)
    hold_integrals(direct)
    assert short.with_df._cderi is None
    assert getattr(direct, "with_df", None) in (None, False)


def test_a_tensor_that_is_there_is_kept() -> None:
    field = field_of("pbe")
    hold_integrals(field)
    tensor = field.with_df._cderi
    hold_integrals(field)
    assert field.with_df._cderi is tensor
