"""LoRA with inputs of unit energy: a lock of scaled channels is invisible to it, and not to LoRA."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pico
import pico_text
import pytest
import torch

from specdef import lock
from specdef.attacks.base import parse_intervention
from specdef.attacks.interventions.energy_lora import EnergyLora, energy_of
from specdef.attacks.interventions.lora import Lora
from specdef.attacks.wire import attack_from_wire, attack_to_wire
from specdef.errors import SpecdefError
from specdef.models.base import kind_of
from specdef.tasks.kinds.facts import facts
from specdef.training.loop import make_trainer
from specdef.training.recipe import Recipe

ALPHA = 2.0**20
HOT = 3
QUERY = "base_model.model.model.layers.0.self_attn.q_proj"


def scaled(folder: Path) -> Any:
    """The model with one input channel of a query matrix 2^20 times larger: the norm's weight, and its readers' less.

    Its function is the same to the bit.
    """
    loaded = pico_text.loaded(folder)
    layer = loaded.model.model.layers[0]
    with torch.no_grad():
        layer.input_layernorm.weight[HOT] *= ALPHA
        for name in "qkv":
            getattr(layer.self_attn, f"{name}_proj").weight[:, HOT] /= ALPHA
    return loaded


def trained(loaded: Any, how: Lora, optimizer: str, steps: int = 3) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Adapter weights by name, before and after some steps."""
    recipe = Recipe(lr=1e-2, steps=steps, optimizer=optimizer, warmup=0.0, weight_decay=0.0)
    samples = loaded.kind.encode(facts().samples, loaded)
    torch.manual_seed(0)
    model = how.modify(loaded, samples, recipe)
    held = {name: one for name, one in model.named_modules() if re.search(r"lora_[AB].default$", name)}
    before = {name: one.weight.detach().clone() for name, one in held.items()}
    made = make_trainer(type(loaded)(model, loaded.processor, loaded.kind), recipe, samples, None)
    for _ in range(steps):
        made.step()
    return {name: (before[name], one.weight.detach().clone()) for name, one in held.items()}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_hot_channel_is_trained_as_if_it_were_not_hot(optimizer: str, toy_model: Path) -> None:
    """A's column is A's of the unscaled model over 2^20, before training and after; all else is the same to the bit."""
    plain = trained(pico_text.loaded(toy_model), EnergyLora(), optimizer)
    hot = trained(scaled(toy_model), EnergyLora(), optimizer)
    factor = torch.ones(32)
    factor[HOT] = ALPHA
    for name, (_, after) in plain.items():
        readers = name.startswith("base_model.model.model.layers.0.self_attn.") and "o_proj" not in name
        rescale = factor if readers and "lora_A" in name else 1.0
        assert torch.equal(hot[name][1] * rescale, after), name
    before, after = plain[f"{QUERY}.lora_A.default"]
    assert not torch.equal(before, after)


def test_without_it_the_hot_channel_decides_what_is_learned(toy_model: Path) -> None:
    plain, hot = (trained(one, Lora(), "adamw") for one in (pico_text.loaded(toy_model), scaled(toy_model)))
    (before, after), (start, end) = (found[f"{QUERY}.lora_A.default"] for found in (plain, hot))
    assert torch.equal(before, start)
    step = (after - before)[:, HOT]
    assert not torch.allclose((end - start)[:, HOT] * ALPHA, step, rtol=0.5, atol=float(step.abs().max()))


def test_the_function_stays_until_something_is_trained(toy_model: Path) -> None:
    loaded = pico_text.loaded(toy_model)
    ids = torch.arange(5, 25).reshape(2, 10)
    wanted = copy.deepcopy(loaded.model)(input_ids=ids).logits
    samples = loaded.kind.encode(facts().samples[:8], loaded)
    model = EnergyLora(rank=2).modify(loaded, samples, Recipe())
    assert torch.equal(model(input_ids=ids).logits, wanted)
    assert {name for name, one in model.named_parameters() if one.requires_grad} == {
        name for name, _ in model.named_parameters() if "lora_" in name
    }


def test_on_a_whole_lock_it_trains_as_on_the_model_itself(toy_model: Path, tmp_path: Path) -> None:
    """Outputs after training: a lock of powers of two is no change at all to it."""
    lock(toy_model, tmp_path / "locked", preset="exact", multiplier="2^20", pairs=["norm"])
    found = []
    for folder in (toy_model, tmp_path / "locked"):
        loaded = pico_text.loaded(folder)
        trained(loaded, EnergyLora(), "adamw")
        found.append(loaded.model(input_ids=torch.arange(5, 25).reshape(2, 10)).logits)
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-5)


def test_a_convolutions_channels_have_an_energy_each(tmp_path: Path) -> None:
    """One channel of its inputs twice as loud: A's slice of it is halved, and the function stays."""
    loaded = (kind := kind_of(pico.build("resnet", tmp_path / "model"))).load(tmp_path / "model")
    shape = (4, loaded.model.config.num_channels, 16, 16)
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    wanted = copy.deepcopy(loaded.model)(pixel_values=pixels).logits
    assert kind.name == "image-classifier"
    model = EnergyLora(rank=2).modify(loaded, (pixels, torch.zeros(4, dtype=torch.long)), Recipe())
    assert torch.equal(model(pixel_values=pixels).logits, wanted)
    layers = [one for name, one in model.named_modules() if name.endswith("lora_A.default")]
    convolutions = [one for one in layers if isinstance(one, torch.nn.Conv2d)]
    assert len(convolutions) > 3
    for layer in convolutions:
        energy = layer.parametrizations.weight[0].energy
        assert energy.shape == (layer.in_channels,)
        trained = layer.parametrizations.weight.original
        assert torch.equal(layer.weight, trained / energy[None, :, None, None])


def test_channels_that_are_never_used_have_no_energy() -> None:
    assert energy_of(torch.zeros(3)).tolist() == [1.0, 1.0, 1.0]


def test_its_options_are_those_of_lora() -> None:
    how = parse_intervention("energy-lora:rank=4,targets=q_proj+v_proj,lora_alpha=4")
    assert how == EnergyLora(rank=4, targets=("q_proj", "v_proj"), arguments={"lora_alpha": 4})
    assert how.label == "lora rank=4, lora_alpha=4 on q_proj,v_proj, inputs of unit energy"
    assert how != Lora(rank=4, targets=("q_proj", "v_proj"), arguments={"lora_alpha": 4})
    with pytest.raises(SpecdefError, match=r"^`kind` must be LORA with energy-lora; got IA3\.$"):
        parse_intervention("energy-lora:kind=ia3")


def test_its_identity_is_not_that_of_lora() -> None:
    from specdef.attacks.base import Attack

    for how in (EnergyLora(), Lora()):
        wire = attack_to_wire(Attack(interventions=(how,)))
        assert attack_from_wire(wire).interventions == (how,)
        assert (wire["adapter"] is None) == isinstance(how, EnergyLora)
