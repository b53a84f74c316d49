"""The error of each output: invariant where the model is, hidden by no huge row, tried on real inputs if given."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from specdef.errors import PlanError
from specdef.linalg.closeness import (
    Closeness,
    StoredLock,
    compare,
    default_tolerance,
    probe_inputs,
    relative_error,
)
from specdef.linalg.deform import deform

U32 = torch.finfo(torch.float32).eps / 2


def random_weight(shape: tuple[int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(0)) / shape[1] ** 0.5).to(dtype)


def of(source: Tensor, wrong: Tensor, activations: Tensor | None = None) -> Closeness:
    """The closeness of a layer that computes with `wrong` instead of `source`; C is the identity."""
    stored = StoredLock(wrong, {"compensation": torch.eye(len(wrong), dtype=torch.float64)}, "output", "dense")
    return compare(source, torch.float32, stored, probe_inputs(source, torch.float32, activations))


def test_one_huge_row_hides_nothing() -> None:
    w = random_weight((32, 24))
    w[3] *= 1e6
    wrong = w.clone()
    wrong[7] *= 1.1
    close = of(w, wrong)
    assert close.whole < 1e-6
    assert close.worst.output == 7
    assert close.worst.value == pytest.approx(0.1, rel=1e-6)
    assert close.least_tolerance == pytest.approx(0.025, rel=1e-6)


@pytest.mark.parametrize("factor", [1e-2, 1e2, 1e5])
def test_scaling_an_output_leaves_its_error(factor: float) -> None:
    """What scales a row and what reads it by the inverse are one model, so they have one error."""
    w, noise = random_weight((32, 24)), torch.randn(32, 24, dtype=torch.float64) * 1e-3
    scale = torch.ones(32, 1, dtype=torch.float64).index_fill(0, torch.tensor([5]), factor)
    plain, scaled = of(w, w + noise), of(scale * w, scale * (w + noise))
    assert scaled.worst.value == pytest.approx(plain.worst.value, rel=1e-6)
    assert scaled.worst.output == plain.worst.output


def test_an_error_in_a_small_column_shows() -> None:
    w = random_weight((32, 64))
    w[:, 10] *= 1e-3  # trained weights are small where their input is massive
    wrong = w.clone()
    wrong[:, 10] *= 1.05
    close = of(w, wrong)
    assert close.whole < 1e-3
    assert close.worst.value > 0.01
    assert close.worst.inputs == "inputs large where columns are small"


def test_real_activations_show_what_made_up_ones_do_not() -> None:
    w = random_weight((32, 64))
    wrong = w.clone()
    wrong[:, 20] += 1e-3 * w[:, 20].norm()
    real = torch.randn(50, 64, generator=torch.Generator().manual_seed(1)) * 1e-3
    real[:, 20] = 1.0
    made_up, given = of(w, wrong), of(w, wrong, real)
    assert made_up.worst.value < given.worst.value / 2
    assert given.worst.inputs == "the given activations"


def test_dead_rows_count_as_rounding() -> None:
    w = random_weight((32, 24))
    w[4], w[5] = 0, w[5] * 1e-30
    assert of(w, w + 1e-12).worst.value < 1e-6
    wrong = w.clone()
    wrong[4] = w[6] * 0.01
    assert of(w, wrong).worst.output == 4
    assert of(w, wrong).worst.value > 1


def test_what_is_no_number_is_infinitely_far() -> None:
    w = random_weight((8, 6))
    wrong = w.clone()
    wrong[2, 3] = math.inf
    close = of(w, wrong)
    assert close.whole == close.worst.value == math.inf


def test_the_same_layer_has_no_error_on_any_inputs() -> None:
    w = random_weight((8, 6))
    assert of(w, w, torch.zeros(3, 6)).worst.value == of(w, w).whole == 0


def test_four_kinds_of_inputs_massive_where_they_say() -> None:
    w = random_weight((32, 64))
    w[:, 10] *= 100
    w[:, 11] *= 0.01
    inputs = probe_inputs(w, torch.float32)
    size = {name: x.abs().mean(dim=0) for name, x in inputs.items()}
    assert size["Gaussian inputs"].max() < 2
    large, anywhere = size["massive channels at large columns"], size["massive channels anywhere"]
    assert large[10] > 100 > large[11]
    assert ((large > 100).sum(), (anywhere > 100).sum()) == (4, 4)
    assert not torch.equal(large > 100, anywhere > 100)
    even = w / w.norm(dim=1, keepdim=True)
    counts = inputs["inputs large where columns are small"].abs().mean(dim=0) * even.norm(dim=0)
    assert counts.max() < 2 * counts.min()
    assert len(inputs) == 4


@pytest.mark.parametrize(
    ("activations", "message"),
    [
        (torch.ones(5, 7), r"`activations` must be inputs of this layer \[tokens, 24\]; got shape \[5, 7\]"),
        (torch.ones(0, 24), r"got shape \[0, 24\]"),
        (torch.full((5, 24), math.nan), "`activations` must be finite; got NaN or infinity"),
    ],
)
@pytest.mark.usefixtures("any_shape")
def test_activations_that_do_not_fit(activations: Tensor, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        probe_inputs(random_weight((32, 24)), torch.float32, activations)


def test_a_lock_is_refused_on_the_inputs_it_fails_on() -> None:
    """Inputs along a direction that W nearly loses: what rounding W~ adds there is large beside what is left."""
    u, s, vh = torch.linalg.svd(random_weight((32, 24)), full_matrices=False)
    s[-1] = 1e-4 * s[0]
    w = ((u * s) @ vh).float()
    real = torch.outer(torch.linspace(1, 2, 16), vh[-1].float())
    assert deform(w, 4, 100.0, form="low_rank").closeness.worst.value < default_tolerance(torch.float32)
    with pytest.raises(PlanError, match=r"error of every output within 9.8e-04 .* on the given activations"):
        deform(w, 4, 100.0, form="low_rank", activations=real)


def test_the_relative_error_of_nothing_is_none_and_of_something_beside_nothing_infinite() -> None:
    zero, one = torch.zeros(3), torch.ones(3)
    assert relative_error(zero, zero) == 0.0
    assert relative_error(one, zero) == math.inf
    assert relative_error(zero, one) == 1.0
    assert relative_error(one * math.nan, one) == math.inf


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_scaling_a_whole_layer_leaves_every_error(factor: float) -> None:
    w, noise = random_weight((32, 24)), torch.randn(32, 24, dtype=torch.float64) * 1e-3
    plain, scaled = of(w, w + noise), of(factor * w, factor * (w + noise))
    assert scaled.worst.value == pytest.approx(plain.worst.value, rel=1e-6)
    assert scaled.whole == pytest.approx(plain.whole, rel=1e-6)
