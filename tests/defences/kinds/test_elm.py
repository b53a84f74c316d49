"""Erasure of language memory: the target against its formula in float64; novice and expert swapped fail it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pico_text
import pytest
import torch
from unlearning import Make, rows

from specdef.defences.base import Given
from specdef.defences.descent import descend
from specdef.defences.kinds.elm import ElmObjective, ElmOptions, default_layers
from specdef.errors import SpecdefError

SHORT: dict[str, Any] = {"novice": "no idea:", "expert": "I know:", "fluent_tokens": 3, "rank": 4}


class Swapped(ElmObjective):
    """The mistake: towards the expert."""

    def __init__(self, given: Given, options: ElmOptions) -> None:
        super().__init__(given, options)
        self.novice, self.expert = self.expert, self.novice


def formula(folder: Path, batch: tuple[torch.Tensor, ...], eta: float, eta_start: float) -> list[list[float]]:
    """Every labelled token's target, row by row and one prefix at a time, in float64."""
    model, tokenizer = pico_text.load(folder)
    model.double()
    ids, labels, mask = batch
    found = []
    for row, length in enumerate(mask.sum(1).tolist()):
        tokens = ids[row, :length].tolist()
        places = [place for place in range(1, length) if labels[row, place] != -100]
        logs = []
        for prefix in ("", SHORT["novice"], SHORT["expert"]):
            before = tokenizer(prefix, add_special_tokens=False).input_ids if prefix else []
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([before + tokens])).logits[0, len(before) :]
            logs.append(logits.log_softmax(-1))
        for number, place in enumerate(places):
            strength = eta_start + (eta - eta_start) * (number / (len(places) - 1) if len(places) > 1 else 0)
            plain, novice, expert = (one[place - 1] for one in logs)
            weights = plain.exp() * torch.exp(strength * (novice - expert))
            found.append((weights / weights.sum()).tolist())
    return found


@pytest.mark.parametrize(("kind", "holds"), [(ElmObjective, True), (Swapped, False)])
def test_the_target_is_the_formula(deep_model: Path, given_for: Make, kind: type[ElmObjective], holds: bool) -> None:
    given = given_for(deep_model)
    objective = kind(given, ElmOptions(eta=6.0, eta_start=0.5, **SHORT))
    with torch.no_grad():
        for name, parameter in objective.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()  # the target is the given model's, whatever was learned since
    forget, _ = rows(given)
    found = objective.target(forget.batch).exp().double()
    wanted = torch.tensor(formula(deep_model, forget.batch, 6.0, 0.5), dtype=torch.float64)
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-6) is holds


def test_the_three_terms_are_cross_entropies(deep_model: Path, given_for: Make) -> None:
    given = given_for(deep_model)
    options = ElmOptions(eta=6.0, eta_start=0.5, retain_weight=0.3, fluent_weight=0.2, **SHORT)
    objective = ElmObjective(given, options)
    forget, retain = rows(given)
    kind = given.loaded.kind
    fresh = pico_text.loaded(deep_model).model.float()

    def entropy(batch: tuple[torch.Tensor, ...], target: torch.Tensor) -> float:
        with torch.no_grad():
            logs = kind.predictions(fresh, batch)[0].double().log_softmax(-1)
        return float(-(target * logs).sum(-1).mean())

    with torch.no_grad():
        same = kind.predictions(fresh, retain.batch)[0].double().softmax(-1)
    erase = entropy(forget.batch, torch.tensor(formula(deep_model, forget.batch, 6.0, 0.5), dtype=torch.float64))
    fluent = float(kind.loss(fresh, objective.fluent).detach())
    wanted = erase + 0.3 * entropy(retain.batch, same) + 0.2 * fluent
    assert float(objective.loss(0, forget, retain).detach()) == pytest.approx(wanted, rel=1e-4)


def test_what_is_kept_pulls_nowhere_at_the_start(deep_model: Path, given_for: Make) -> None:
    given = given_for(deep_model)
    objective = ElmObjective(given, ElmOptions(**SHORT))
    objective.retain_loss(rows(given)[1]).backward()
    slopes = [float(p.grad.abs().max()) for p in objective.model.parameters() if p.grad is not None]
    assert slopes
    assert max(slopes) < 1e-6


def test_fluent_text_follows_each_prompt_and_is_drawn_once(deep_model: Path, given_for: Make) -> None:
    given = given_for(deep_model)
    first, second = (ElmObjective(given_for(deep_model), ElmOptions(**SHORT)).fluent for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert given.data_rows is not None
    ids, labels, _ = given.data_rows.forget
    for row in range(3):
        start = int((labels[row] != -100).nonzero()[0])
        assert first[0][row, :start].tolist() == ids[row, :start].tolist()
        assert (first[1][row] != -100).nonzero()[:, 0].tolist() == list(range(start, start + 3))
        assert first[2][row].sum() == start + 3
    objective = ElmObjective(given, ElmOptions(**{**SHORT, "fluent_rows": 2}))
    assert len(objective.fluent[0]) == 2
    calls = []
    objective.model.register_forward_hook(lambda *_: calls.append(1))
    objective.loss(0, *rows(given))
    assert len(calls) == 7  # three for the target, two for what is kept, one each for the other terms


def test_a_few_steps_bring_the_model_to_the_target(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    options = ElmOptions(
        steps=12, lr=3e-2, eval_every=12, batch_size=3, utility_factor=1e9, eta=20.0, layers=(0, 1), **SHORT
    )
    objective = ElmObjective(given, options)
    forget, _ = rows(given)
    before = float(objective.erase_loss(forget).detach())
    target = objective.target(forget.batch)
    descend(objective, given, options)
    with torch.no_grad():
        logs = given.loaded.kind.predictions(given.loaded.model, forget.batch)[0].log_softmax(-1)
    assert float(-(target.exp() * logs).sum(-1).mean()) < before - 1


@pytest.mark.parametrize(("count", "wanted"), [(1, (0,)), (2, (0,)), (30, (3, 4, 5, 6)), (32, (4, 5, 6, 7))])
def test_the_layers_follow_the_depth(count: int, wanted: tuple[int, ...]) -> None:
    assert default_layers(count) == wanted


def test_the_rank_follows_the_width(toy_model: Path, given_for: Make) -> None:
    options = ElmOptions(**{**SHORT, "rank": None})
    objective = ElmObjective(given_for(toy_model), options)
    ranks = {min(p.shape) for p in objective.model.parameters() if p.requires_grad}
    assert ranks == {32 // 4}


def test_bad_options_are_refused(toy_model: Path, given_for: Make) -> None:
    with pytest.raises(SpecdefError, match=r"`layers` must be layers of the model, 0 to 1; got \[2\]"):
        ElmObjective(given_for(toy_model), ElmOptions(layers=(2,)))
    for name, value in (
        ("eta", -1000.0),
        ("eta_start", 0.0),
        ("retain_weight", -1.0),
        ("fluent_weight", -1.0),
        ("fluent_rows", 0),
        ("fluent_tokens", 0),
        ("rank", 0),
        ("novice", ElmOptions.expert),
    ):
        with pytest.raises(SpecdefError, match=f"`{name}` must"):
            ElmOptions(**{name: value})
