"""The seam between arrays and tensors: what is placed, what comes back, and how many copies that takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alsys.errors import InputError
from alsys.potentials import devices
from alsys.potentials.devices import CPU, META, copies, fetched, number, placed
from alsys.potentials.factory import device_of

ARRAYS = [np.arange(6.0).reshape(2, 3), np.arange(4), np.array([True, False]), np.zeros((0, 3)), np.ones(2)]


def test_on_the_cpu_nothing_is_copied() -> None:
    before = (copies.to_device, copies.to_host)
    tensors = placed(ARRAYS)
    tensors[0][0, 0] = 7.0
    assert ARRAYS[0][0, 0] == 7.0
    ARRAYS[0][0, 0] = 0.0
    assert fetched(tensors)[0][0, 0] == 0.0
    assert (copies.to_device, copies.to_host) == before


def test_elsewhere_there_is_one_copy_for_each_type_of_number() -> None:
    before = (copies.to_device, copies.to_host)
    tensors = placed(ARRAYS, META)
    assert {tensor.device for tensor in tensors} == {META}
    assert [tuple(tensor.shape) for tensor in tensors] == [array.shape for array in ARRAYS]
    assert [tensor.dtype for tensor in tensors] == [tensor.dtype for tensor in placed(ARRAYS)]
    found = fetched(tensors)
    assert [array.shape for array in found] == [array.shape for array in ARRAYS]
    assert [array.dtype for array in found] == [array.dtype for array in ARRAYS]
    assert (copies.to_device - before[0], copies.to_host - before[1]) == (3, 3)


def test_packing_keeps_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: the branch that packs, with a device that holds numbers."""
    monkeypatch.setattr(devices, "CPU", META)
    found = fetched(placed(ARRAYS, CPU))
    for array, expected in zip(found, ARRAYS, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_a_number_comes_back_as_one() -> None:
    assert number(torch.tensor(2.5, requires_grad=True)) == 2.5
    assert number(torch.tensor(True)) == 1.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"no GPU here.*auto or cpu"):
        device_of(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    assert device_of("auto") == device_of("cpu") == CPU
