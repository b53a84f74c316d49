"""Negative preference optimisation against its formula; the mean over tokens, a known mistake, is another method."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from unlearning import Make

from specdef.defences.base import Given
from specdef.defences.kinds.npo import NpoObjective, NpoOptions
from specdef.defences.objective import Rows
from specdef.errors import SpecdefError


class MeanOverTokens(NpoObjective):
    """The mistake: losses per token in place of the whole answer's."""

    def forget_loss(self, forget: Rows) -> torch.Tensor:
        losses, lengths = self.kind.row_losses(self.model, forget.batch)
        ratio = losses / lengths - self.reference[list(forget.chosen)] / lengths
        return -2 / self.beta * torch.nn.functional.logsigmoid(self.beta * ratio).mean()


def rows(given: Given, chosen: tuple[int, ...] = (0, 1, 2)) -> Rows:
    assert given.data_rows is not None
    return Rows(given.loaded.kind.batch(given.data_rows.forget, chosen), chosen)


def gradients(loss: torch.Tensor, given: Given) -> torch.Tensor:
    found = torch.autograd.grad(loss, list(given.loaded.model.parameters()), allow_unused=True, retain_graph=True)
    return torch.cat([one.flatten() for one in found if one is not None])


def summed(given: Given) -> torch.Tensor:
    """Mean over rows of each row's loss, summed over its tokens, written with one row at a time."""
    kind, model = given.loaded.kind, given.loaded.model
    parts = []
    for row in range(3):
        batch = rows(given, (row,)).batch
        parts.append(kind.loss(model, batch) * kind.num_targets(batch))
    return sum(parts[1:], parts[0]) / 3


@pytest.mark.parametrize("beta", [0.1, 1.5])
def test_at_the_reference_it_is_ascent_on_whole_answers(toy_model: Path, given_for: Make, beta: float) -> None:
    given = given_for(toy_model)
    objective = NpoObjective(given, NpoOptions(beta=beta))
    loss = objective.forget_loss(rows(given))
    assert float(loss.detach()) == pytest.approx(2 / beta * math.log(2), rel=1e-5)
    torch.testing.assert_close(gradients(loss, given), -gradients(summed(given), given), rtol=1e-3, atol=1e-5)


def test_the_mean_over_tokens_is_another_method(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    wrong = MeanOverTokens(given, NpoOptions()).forget_loss(rows(given))
    assert float(wrong.detach()) == pytest.approx(20 * math.log(2), rel=1e-5)  # its value does not tell
    found, right = gradients(wrong, given), -gradients(summed(given), given)
    assert float((found - right).norm() / right.norm()) > 0.5


def test_away_from_the_reference_each_row_has_its_own_ratio(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    objective = NpoObjective(given, NpoOptions(beta=0.3))
    before = objective.reference.double()
    with torch.no_grad():
        for parameter in given.loaded.model.parameters():
            parameter.mul_(1.1)
    chosen = (2, 0)
    now, _ = given.loaded.kind.row_losses(given.loaded.model, rows(given, chosen).batch)
    ratios = now.detach().double() - before[list(chosen)]
    assert float(ratios.abs().min()) > 1e-3
    wanted = -2 / 0.3 * torch.log(1 / (1 + torch.exp(-0.3 * ratios))).mean()
    assert float(objective.forget_loss(rows(given, chosen)).detach()) == pytest.approx(float(wanted), rel=1e-4)


def test_what_is_kept_enters_with_its_weight(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    assert given.data_rows is not None
    kept = Rows(given.data_rows.retain, (0, 1, 2))
    objective = NpoObjective(given, NpoOptions(gamma=0.25))
    both, alone = objective.loss(0, rows(given), kept), objective.forget_loss(rows(given))
    wanted = 0.25 * float(given.loaded.kind.loss(given.loaded.model, kept.batch).detach())
    assert float((both - alone).detach()) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(("name", "value", "contract"), [("beta", 0.0, "be above 0"), ("gamma", -1.0, "be 0 or more")])
def test_an_option_out_of_range_is_refused(name: str, value: float, contract: str) -> None:
    with pytest.raises(SpecdefError, match=f"`{name}` must {contract}"):
        NpoOptions(**{name: value})
