"""RMU: three tensors, steered to a length, padding left out."""

from __future__ import annotations

from pathlib import Path

import pico
import pico_text
import pytest
import torch
from unlearning import Make, rows

from specdef.defences.descent import descend
from specdef.defences.hidden import hidden_states
from specdef.defences.kinds.rmu import RmuObjective, RmuOptions
from specdef.errors import SpecdefError


def test_three_tensors_are_trained_and_reach_the_length(deep_model: Path, given_for: Make) -> None:
    given = given_for(deep_model)
    model = given.loaded.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = RmuOptions(layer=2, coefficient=6.0, alpha=0.0, lr=3e-2, steps=100, eval_every=100, utility_factor=1e6)
    objective = RmuObjective(given, options)
    descend(objective, given, options)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    assert changed == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1, 2)}
    forget, _ = rows(given)
    steered = hidden_states(model, forget.batch)[3][forget.batch[2].bool()]
    assert float(steered.detach().norm(dim=-1).mean()) == pytest.approx(6.0, rel=0.1)
    assert float(torch.nn.functional.cosine_similarity(steered.detach(), objective.target, dim=-1).mean()) > 0.9


def test_padding_is_no_token(deep_model: Path, given_for: Make) -> None:
    given = given_for(deep_model)
    objective = RmuObjective(given, RmuOptions(layer=1, coefficient=5.0, alpha=3.0))
    forget, retain = rows(given)
    with torch.no_grad():
        for name, parameter in given.loaded.model.named_parameters():
            if name == "model.layers.1.mlp.down_proj.weight":
                parameter.mul_(1.5)
    found = float(objective.loss(0, forget, retain).detach())
    mask = forget.batch[2].bool()
    assert not mask.all()
    away, moved = [], []
    fresh = pico_text.loaded(deep_model).model.float()
    for batch, kept in ((forget.batch, away), (retain.batch, moved)):
        states = hidden_states(given.loaded.model, batch)[2].detach().double()
        reference = hidden_states(fresh, batch)[2].detach().double()
        for row, real in zip(range(3), batch[2].sum(-1).tolist(), strict=True):
            for token in range(real):
                goal = objective.target.double() if batch is forget.batch else reference[row, token]
                kept.append(float(((states[row, token] - goal) ** 2).mean()))
    wanted = sum(away) / len(away) + 3.0 * sum(moved) / len(moved)
    assert found == pytest.approx(wanted, rel=1e-4)
    states = hidden_states(given.loaded.model, forget.batch)[2]
    padded = ((states - objective.target) ** 2).mean() + 3.0 * sum(moved) / len(moved)
    assert found != pytest.approx(float(padded.detach()), rel=1e-3)


def test_the_reference_is_the_given_model_and_leaves_no_trace(deep_model: Path, given_for: Make) -> None:
    given = given_for(deep_model)
    objective = RmuObjective(given, RmuOptions(layer=1))
    _, retain = rows(given)
    model = given.loaded.model
    first = hidden_states(model, retain.batch)[2].detach()
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(2)
    now = model.model.layers[0].mlp.down_proj.weight.detach().clone()
    assert torch.equal(objective.reference(retain.batch), first)
    assert torch.equal(model.model.layers[0].mlp.down_proj.weight, now)
    assert not torch.equal(hidden_states(model, retain.batch)[2], first)


def test_tensors_are_found_by_name_where_layers_have_biases(given_for: Make, tmp_path: Path) -> None:
    """By its number, 6, the published code would take another tensor of GPT-2's layers."""
    pico.build("gpt2", tmp_path / "gpt2", n_positions=128)
    pico_text.write_tokenizer(tmp_path / "gpt2")
    given = given_for(tmp_path / "gpt2")
    RmuObjective(given, RmuOptions(layer=0))
    trained = [name for name, p in given.loaded.model.named_parameters() if p.requires_grad]
    assert trained == ["transformer.h.0.mlp.c_proj.weight"]
    names = [name for name, _ in given.loaded.model.named_parameters() if ".h.0." in name]
    assert names[6] != trained[0]


def test_bad_options_are_refused(deep_model: Path, given_for: Make) -> None:
    with pytest.raises(SpecdefError, match="`layer` must be a layer of the model, 0 to 3; got 9"):
        RmuObjective(given_for(deep_model), RmuOptions(layer=9))
    for name, value in (("coefficient", 0.0), ("alpha", -1.0)):
        with pytest.raises(SpecdefError, match=f"`{name}` must be"):
            RmuOptions(**{name: value})
