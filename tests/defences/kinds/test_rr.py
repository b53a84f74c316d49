"""Representation rerouting against its formula; half a schedule and a bare inner product, known mistakes, fail it."""

from __future__ import annotations

from pathlib import Path

import pico_text
import pytest
import torch
from unlearning import Make, rows

from specdef.defences.base import Given
from specdef.defences.descent import descend
from specdef.defences.hidden import hidden_states
from specdef.defences.kinds.rr import RrObjective, RrOptions, default_layers
from specdef.defences.objective import Rows
from specdef.errors import SpecdefError


class HalfSchedule(RrObjective):
    """The mistake of the published code: progress over twice the steps."""

    def weights(self, step: int) -> tuple[float, float]:
        progress = step / (2 * self.steps)
        return self.alpha * progress, self.alpha * (1 - progress)


class InnerProduct(RrObjective):
    """The mistake: no division by the lengths."""

    def alike(self, forget: Rows) -> torch.Tensor:
        with self.given_model():
            before = self._chosen(forget.batch)
        products = [(a * b).sum(-1).relu() for a, b in zip(self._chosen(forget.batch), before, strict=True)]
        return torch.stack(products)[:, forget.batch[2].bool()].mean()


def starts_and_ends(objective: RrObjective, given: Given, steps: int) -> bool:
    """Whether it starts at cosine 1 with weight 10 and ends with weight 0."""
    forget, retain = rows(given)
    first = float(objective.loss(0, forget, retain).detach())
    alike, moved = float(objective.alike(forget).detach()), float(objective.moved(retain).detach())
    weights = objective.weights(0), objective.weights(steps - 1)
    exact = weights == ((0.0, 10.0), (10.0, 0.0)) and moved == 0.0
    return exact and alike == pytest.approx(1, abs=1e-5) and first == pytest.approx(10, abs=1e-4)


@pytest.mark.parametrize(("kind", "holds"), [(RrObjective, True), (HalfSchedule, False), (InnerProduct, False)])
def test_it_starts_at_cosine_one_and_ends_its_schedule(
    deep_model: Path, given_for: Make, kind: type[RrObjective], holds: bool
) -> None:
    given = given_for(deep_model)
    assert starts_and_ends(kind(given, RrOptions(steps=7, rank=2, kick=0.0)), given, 7) is holds


def test_it_is_the_formula_and_padding_is_no_token(deep_model: Path, given_for: Make) -> None:
    given = given_for(deep_model)
    torch.manual_seed(1)
    objective = RrObjective(given, RrOptions(steps=5, rank=2, layers=(0, 2)))
    with torch.no_grad():
        for name, parameter in objective.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    forget, retain = rows(given)
    fresh = pico_text.loaded(deep_model).model.float()

    def pairs(batch: tuple[torch.Tensor, ...], places: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Each real token's hidden state, now and before, in float64."""
        with torch.no_grad():
            now, before = hidden_states(objective.model, batch), hidden_states(fresh, batch)
        lengths = batch[2].sum(-1).tolist()
        return [
            (now[place][row, token].double(), before[place][row, token].double())
            for place in places
            for row, length in enumerate(lengths)
            for token in range(length)
        ]

    turned = pairs(forget.batch, [1, 3])
    cosines = [max(0.0, float(a @ b / (a @ a).sqrt() / (b @ b).sqrt())) for a, b in turned]
    distances = [float(((a - b) @ (a - b)).sqrt()) for a, b in pairs(retain.batch, [0, 1, 2, 3, 4])]
    alike, moved = sum(cosines) / len(cosines), sum(distances) / len(distances)
    assert alike < 0.99
    assert moved > 0.01
    wanted = 10 * (1 / 4) * moved + 10 * (3 / 4) * alike
    assert float(objective.loss(1, forget, retain).detach()) == pytest.approx(wanted, rel=1e-4)
    padded = torch.stack(
        [
            torch.cosine_similarity(
                hidden_states(objective.model, forget.batch)[place], hidden_states(fresh, forget.batch)[place], dim=-1
            )
            .relu()
            .mean()
            for place in (1, 3)
        ]
    ).mean()
    assert float(padded.detach()) != pytest.approx(alike, rel=1e-3)


def test_a_few_steps_turn_the_forget_rows_away(deep_model: Path, given_for: Make) -> None:
    given = given_for(deep_model)
    options = RrOptions(steps=12, lr=0.1, eval_every=12, batch_size=3, utility_factor=1e9)
    forget, _ = rows(given)
    fresh = pico_text.loaded(deep_model).model.float()
    descend(RrObjective(given, options), given, options)
    with torch.no_grad():
        now, before = (hidden_states(model, forget.batch) for model in (given.loaded.model, fresh))
    cosine = torch.cosine_similarity(now[3], before[3], dim=-1)[forget.batch[2].bool()]
    assert float(cosine.relu().mean()) < 0.5


def test_at_the_start_nothing_pulls_and_a_kick_gets_it_going(deep_model: Path, given_for: Make) -> None:
    """A cosine of 1 is at its top: in float32 what is left of its gradient is rounding."""
    norms, cosines = [], []
    for kick in (0.0, 1e-3):
        given = given_for(deep_model)
        objective = RrObjective(given, RrOptions(rank=4, kick=kick))
        loss = objective.loss(0, *rows(given))
        loss.backward()
        trained = [p.grad for p in objective.model.parameters() if p.grad is not None]
        norms.append(float(torch.stack([grad.norm() for grad in trained]).norm()))
        cosines.append(float(loss.detach()) / 10)
    assert norms[1] > 100 * norms[0]
    assert cosines[1] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("count", "wanted"), [(1, (0,)), (2, (0, 1)), (30, (9, 19)), (32, (10, 21))])
def test_the_layers_follow_the_depth(count: int, wanted: tuple[int, ...]) -> None:
    assert default_layers(count) == wanted


def test_adapters_stand_up_to_the_last_chosen_layer(deep_model: Path, given_for: Make) -> None:
    objective = RrObjective(given_for(deep_model), RrOptions(layers=(1,), rank=3))
    trained = [(name, p) for name, p in objective.model.named_parameters() if p.requires_grad]
    assert all("lora_" in name for name, _ in trained)
    assert {name.split("layers.")[1][0] for name, _ in trained} == {"0", "1"}
    assert {min(p.shape) for _, p in trained} == {3}
    assert len(trained) == 2 * 7 * 2


def test_bad_options_are_refused(deep_model: Path, given_for: Make) -> None:
    with pytest.raises(SpecdefError, match=r"`layers` must be layers of the model, 0 to 3; got \[1, 4\]"):
        RrObjective(given_for(deep_model), RrOptions(layers=(1, 4)))
    for name, value in (("rank", 0), ("alpha", 0.0), ("lora_alpha", 0)):
        with pytest.raises(SpecdefError, match=f"`{name}` must be"):
            RrOptions(**{name: value})
