"""LoRA+: B's learning rate, against peft's own optimizer."""

from __future__ import annotations

from pathlib import Path

import pico_text
import pytest
import torch
from peft.optimizers import create_loraplus_optimizer

from specdef.attacks.base import Attack, parse_intervention
from specdef.attacks.interventions.lora import add_adapter
from specdef.attacks.interventions.lora_plus import LoraPlus
from specdef.errors import SpecdefError
from specdef.training.recipe import Recipe


@pytest.mark.parametrize("ratio", [16.0, 4.0])
def test_it_trains_as_pefts_optimizer_does(ratio: float, toy_model: Path) -> None:
    ids = torch.arange(5, 45).reshape(4, 10)
    found = []
    for ours in (True, False):
        torch.manual_seed(0)
        model = add_adapter(pico_text.loaded(toy_model), LoraPlus(ratio=ratio))
        if ours:
            optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0)
            LoraPlus(ratio=ratio).attach(optimizer, model, None)
        else:
            optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=ratio)
        for _ in range(3):
            optimizer.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
        found.append({name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad})
    assert any(".lora_B." in name for name in found[0])
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], rtol=1e-4, atol=1e-8)


def test_a_ratio_of_one_is_lora(toy_model: Path) -> None:
    """And another ratio is not: the test above would pass if the hooks did nothing to both."""
    found = []
    for ratio in (1.0, 16.0):
        torch.manual_seed(0)
        model = add_adapter(pico_text.loaded(toy_model), LoraPlus())
        parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
        optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3, weight_decay=0)
        LoraPlus(ratio=ratio).attach(optimizer, model, None)
        ids = torch.arange(5, 25).reshape(2, 10)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        name = next(name for name in parameters if ".lora_B." in name)
        found.append(float(parameters[name].detach().abs().max()))
    assert found[0] == pytest.approx(1e-3, rel=1e-3)
    assert found[1] == pytest.approx(16e-3, rel=1e-3)


def test_its_options_are_loras_and_a_ratio() -> None:
    how = parse_intervention("lora-plus:rank=4,ratio=8,targets=q_proj+v_proj")
    assert how == LoraPlus(rank=4, targets=("q_proj", "v_proj"), ratio=8.0)
    assert how.label == "lora rank=4 on q_proj,v_proj, B at 8 times A's rate"
    assert parse_intervention("lora-plus") == LoraPlus()
    for text, sentence in (
        ("lora-plus:ratio=0.5", r"^`ratio` must be at least 1; got 0\.5\.$"),
        ("lora-plus:kind=ia3", r"^`kind` must be LORA with lora-plus; got IA3\.$"),
    ):
        with pytest.raises(SpecdefError, match=sentence):
            parse_intervention(text)
    with pytest.raises(SpecdefError, match="`lora-plus` must be given with optimizer adamw or lion; got sgd"):
        Attack(Recipe(optimizer="sgd"), (LoraPlus(),))
