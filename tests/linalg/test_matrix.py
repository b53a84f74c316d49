"""The shape of a weight as a matrix."""

from __future__ import annotations

import pytest
import torch

from specdef.linalg.matrix import matrix_shape


@pytest.mark.parametrize("shape", [(8, 3, 5, 2), (1, 1, 1, 1), (4, 0, 3, 3), (8, 3), (0, 3)])
def test_it_is_torchs_own_flattening(shape: tuple[int, ...]) -> None:
    found = matrix_shape(shape)
    assert found == tuple(torch.zeros(shape).flatten(1).shape)
    assert torch.zeros(shape).reshape(found).numel() == torch.zeros(shape).numel()


@pytest.mark.parametrize("shape", [(), (8,), (8, 3, 5), (8, 3, 5, 2, 2)])
def test_other_weights_are_no_matrix(shape: tuple[int, ...]) -> None:
    assert matrix_shape(shape) == ()
