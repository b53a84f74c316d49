"""Sharpness-aware NPO: one gradient from nearby, one from here, and neither overwrites the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from unlearning import Make, rows

from specdef.defences.base import Given
from specdef.defences.kinds.npo import NpoObjective
from specdef.defences.kinds.npo_sam import NpoSamObjective, NpoSamOptions
from specdef.errors import SpecdefError


def left(objective: NpoObjective, given: Given) -> torch.Tensor:
    """The gradients that a step leaves."""
    objective.model.zero_grad(set_to_none=True)
    objective.backward(0, *rows(given))
    return torch.cat([p.grad.flatten().clone() for p in objective.model.parameters()])


def test_without_a_step_it_is_npo(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    options = NpoSamOptions(rho=0.0)
    torch.testing.assert_close(left(NpoSamObjective(given, options), given), left(NpoObjective(given, options), given))


def test_the_forget_gradient_is_taken_nearby_and_the_other_here(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    options = NpoSamOptions(rho=0.05)
    objective = NpoSamObjective(given, options)
    model = given.loaded.model
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = left(objective, given)
    assert all(torch.equal(start[name], p) for name, p in model.named_parameters())
    forget, retain = rows(given)

    def gradient(loss: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(loss, list(model.parameters())))

    kept, first = gradient(objective.retain_loss(retain)), gradient(objective.forget_loss(forget))
    length = torch.sqrt(sum(((g.double() ** 2).sum() for g in first), torch.tensor(0.0).double()))
    with torch.no_grad():
        for p, g in zip(model.parameters(), first, strict=True):
            p += (0.05 / length * g).to(p)
    nearby = gradient(objective.forget_loss(forget))
    wanted = torch.cat([(a + b).flatten() for a, b in zip(nearby, kept, strict=True)])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    overwritten = torch.cat([g.flatten() for g in nearby])
    assert float((found - overwritten).norm() / found.norm()) > 0.01
    plain = torch.cat([(a + b).flatten() for a, b in zip(first, kept, strict=True)])
    assert float((found - plain).norm() / found.norm()) > 1e-4


def test_a_step_backwards_is_refused() -> None:
    with pytest.raises(SpecdefError, match=r"`rho` must be 0 or more; got -0\.1"):
        NpoSamOptions(rho=-0.1)
