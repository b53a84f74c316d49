"""A learning rate per tensor: what it is proportional to, and that it is a learning rate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from specdef.attacks.base import Attack, parse_intervention
from specdef.attacks.interventions.tensor_rates import TensorRates, tensor_rates
from specdef.errors import SpecdefError
from specdef.training.recipe import Recipe


def model(scale: float = 1.0) -> torch.nn.Module:
    """Three layers, the first of the median size; the second is `scale` times as large, the third as much smaller."""
    torch.manual_seed(0)
    made = torch.nn.Sequential(*(torch.nn.Linear(8, 8, bias=False) for _ in range(3)))
    with torch.no_grad():
        made[1].weight *= 1.5 * scale
        made[2].weight /= 1.5 * scale
    return made


def trained(made: torch.nn.Module, how: TensorRates | None, lr: float = 1e-3) -> list[torch.Tensor]:
    optimizer = torch.optim.AdamW(made.parameters(), lr=lr, weight_decay=0.1, eps=1e-30)
    if how is not None:
        how.attach(optimizer, made, None)
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        optimizer.zero_grad()
        (made(x) - x).square().mean().backward()
        optimizer.step()
    return [one.detach().clone() for one in made.parameters()]


def test_a_tensor_scaled_as_a_whole_is_trained_as_if_it_were_not() -> None:
    """Every tensor moves by the same share of itself, so a factor between two of them changes nothing."""
    plain = trained(model(), TensorRates())
    locked = trained(model(2.0**10), TensorRates())
    for wanted, found, scale in zip(plain, locked, (1, 2**10, 2**-10), strict=True):
        torch.testing.assert_close(found / scale, wanted, rtol=1e-5, atol=1e-6)
    blind = trained(model(2.0**10), None)
    assert not torch.allclose(blind[2] * 2**10, plain[2], rtol=0.1, atol=0.1)


def test_a_rate_is_the_size_over_the_median_size() -> None:
    values = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 0.0}
    parameters = {name: torch.nn.Parameter(torch.full((2, 2), value)) for name, value in values.items()}
    rates = {name: float(tensor_rates(parameters, {})[one]) for name, one in parameters.items()}
    assert rates == {"a": 1.5, "b": 0.5, "c": 1.0, "d": 1.0}, "zeros have no size"
    based = tensor_rates(parameters, {"a": 8.0, "b": 2.0})
    assert [float(based[parameters[name]]) for name in "abc"] == [4.0, 1.0, 1.0]


def test_of_base_weights_the_sizes_are_taken_by_name(tmp_path: Path) -> None:
    """The locked model, at the rates of the base: as a rate per tensor in groups of the optimizer would train it."""
    base = model()
    save_file(dict(base.state_dict()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "none"}))
    how = TensorRates(str(tmp_path)).bound()
    assert len(how.digest) == 64
    found = trained(model(2.0**10), how)
    sizes = [float(one.detach().double().square().mean().sqrt()) for one in base.parameters()]
    made = model(2.0**10)
    middle = sizes[0]
    groups = [{"params": [one], "lr": 1e-3 * size / middle} for one, size in zip(made.parameters(), sizes, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, eps=1e-30)
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    (made(x) - x).square().mean().backward()
    optimizer.step()
    single = model(2.0**10)
    one_step = torch.optim.AdamW(single.parameters(), lr=1e-3, weight_decay=0.0, eps=1e-30)
    how.attach(one_step, single, None)
    (single(x) - x).square().mean().backward()
    one_step.step()
    for ours, wanted in zip(single.parameters(), made.parameters(), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-9)
    assert all(bool(one.isfinite().all()) for one in found)


def test_what_it_is_given_with() -> None:
    how = parse_intervention("tensor-rates")
    assert how.label == "a rate per tensor"
    assert TensorRates(digest="0123456789ab").label == "a rate per tensor, by the sizes of base weights 01234567"
    assert how.bound() is how
    with pytest.raises(SpecdefError, match="`tensor-rates` must be given with optimizer adamw or lion; got sgd"):
        Attack(Recipe(optimizer="sgd"), (TensorRates(),))
    with pytest.raises(SpecdefError, match="`base` must be the base weights' folder; only their digest"):
        TensorRates(digest="0123456789ab").attach(None, torch.nn.Linear(1, 1), None)
