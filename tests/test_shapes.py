"""Shapes written in the library are enforced while tests run: a wrong one is caught in every file that writes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from specdef.attacks.factored_linear import FactoredLinear
from specdef.linalg.compensation import effective_weight
from specdef.linalg.deform import deform
from specdef.linalg.rank import numerical_rank
from specdef.locks.deformed_linear import DeformedLinear

LINEAR = nn.Linear(4, 4)
LOCKED = DeformedLinear.from_linear(LINEAR, deform(LINEAR.weight.detach(), 1, 2.0))


@pytest.mark.parametrize(
    "call",
    [
        lambda: deform(torch.ones(4), 1, 2.0),
        lambda: numerical_rank(torch.ones(4), 1, torch.float32),
        lambda: effective_weight(torch.ones(4, 4, dtype=torch.int64), {"compensation": torch.eye(4)}, "output"),
        lambda: LOCKED(torch.ones(2, 4, dtype=torch.int64)),
        lambda: FactoredLinear.of([torch.eye(4)], bias=None)(torch.ones(2, 4, dtype=torch.int64)),
    ],
)
def test_a_tensor_of_another_kind_is_caught(call: Callable[[], object]) -> None:
    with pytest.raises(TypeCheckError):
        call()
