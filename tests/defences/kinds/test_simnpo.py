"""SimNPO against its formula in float64; it knows no reference model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from unlearning import Make, rows

from specdef.defences.base import Given
from specdef.defences.kinds.simnpo import SimNpoObjective, SimNpoOptions
from specdef.errors import SpecdefError


def formula(given: Given, beta: float, delta: float, gamma: float, *, per_token: bool = True) -> float:
    """The loss in float64, from the model's logits, token by token."""
    model = given.loaded.model
    forget, retain = rows(given)

    def losses(batch: tuple[torch.Tensor, ...]) -> list[list[float]]:
        ids, labels, mask = batch
        with torch.no_grad():
            logs = model(input_ids=ids, attention_mask=mask).logits.double().log_softmax(-1)
        return [
            [-float(logs[r, t - 1, ids[r, t]]) for t in range(1, ids.shape[1]) if labels[r, t] != -100]
            for r in range(len(ids))
        ]

    margins = [sum(row) / (len(row) if per_token else 1) - delta for row in losses(forget.batch)]
    signs = torch.tensor([beta * margin for margin in margins], dtype=torch.float64)
    kept = [one for row in losses(retain.batch) for one in row]
    return float(-2 / beta * torch.log(torch.sigmoid(signs)).mean()) + gamma * sum(kept) / len(kept)


@pytest.mark.parametrize(("beta", "delta", "gamma"), [(4.5, 5.5, 1.0), (0.1, 2.0, 0.125)])
def test_it_is_the_formula(toy_model: Path, given_for: Make, beta: float, delta: float, gamma: float) -> None:
    given = given_for(toy_model)
    found = SimNpoObjective(given, SimNpoOptions(beta=beta, delta=delta, gamma=gamma)).loss(0, *rows(given))
    assert float(found.detach()) == pytest.approx(formula(given, beta, delta, gamma), rel=1e-4)
    assert float(found.detach()) != pytest.approx(formula(given, beta, delta, gamma, per_token=False), rel=1e-3)


def test_it_reads_the_model_once_a_step_and_no_other_model(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    calls: list[bool] = []
    given.loaded.model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    objective = SimNpoObjective(given, SimNpoOptions())
    assert calls == []
    objective.loss(0, *rows(given))
    assert calls == [True, True]


def test_options_out_of_range_are_refused() -> None:
    for name, value in (("beta", 0.0), ("delta", -1.0), ("gamma", -1.0)):
        with pytest.raises(SpecdefError, match=f"`{name}` must be"):
            SimNpoOptions(**{name: value})
