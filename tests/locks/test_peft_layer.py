"""LoRA on locked layers: step 0 keeps every bit, adapters learn and are saved, what would break the lock is refused."""

from __future__ import annotations

from pathlib import Path

import peft
import pico
import pytest
import torch
from torch import Tensor, nn

from specdef.errors import SpecdefError
from specdef.linalg.compensation import Form
from specdef.linalg.deform import deform
from specdef.locks.deformed_linear import DeformedLinear
from specdef.locks.peft_layer import LoraDeformedLinear, peft_layers

TARGETS = ["model.layers.0.mlp.gate_proj", "model.layers.1.self_attn.v_proj"]


def locked_model(folder: Path, form: str = "dense", dtype: torch.dtype = torch.float32) -> nn.Module:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(pico.build("llama-biased", folder, dtype=dtype)).eval()
    basis, form = ("axis", "dense") if form == "axis" else ("svd", form)
    for name in TARGETS:
        linear = model.get_submodule(name)
        deformation = deform(linear.weight.detach(), 3, 2.0**10, basis=basis, form=form)  # type: ignore[arg-type]
        model.set_submodule(name, DeformedLinear.from_linear(linear, deformation))
    return model


def config(**options: object) -> peft.LoraConfig:
    made = peft.LoraConfig(r=4, target_modules=[*TARGETS, "q_proj"], **options)
    made._register_custom_module(peft_layers())
    return made


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(**pico.inputs("llama")).logits


@pytest.mark.parametrize(
    ("form", "dtype"),
    [("dense", torch.float32), ("low_rank", torch.float32), ("axis", torch.float32), ("dense", torch.bfloat16)],
)
def test_adapters_start_at_the_function_and_learn(form: Form, dtype: torch.dtype, tmp_path: Path) -> None:
    model = locked_model(tmp_path / "model", form, dtype)
    before = logits(model)
    frozen = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = peft.get_peft_model(model, config())
    assert sum(isinstance(m, LoraDeformedLinear) for m in adapted.modules()) == 2
    assert torch.equal(logits(adapted), before)

    tokens = pico.inputs("llama")["input_ids"]
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    for step in range(2):
        loss = adapted(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        for name, layer in adapted.named_modules():
            if isinstance(layer, LoraDeformedLinear):
                a, b = layer.lora_A["default"].weight.grad, layer.lora_B["default"].weight.grad
                assert b.abs().sum() > 0, name
                assert (a.abs().sum() > 0) == (step > 0), name  # B starts at zero, so A moves from the second step on
                assert all(p.grad is None for p in layer.get_base_layer().parameters())
        optimizer.step()
    with torch.no_grad():
        assert adapted(input_ids=tokens, labels=tokens).loss < loss
    assert not torch.equal(logits(adapted), before)
    with adapted.disable_adapter():
        assert torch.equal(logits(adapted), before)
    assert all(torch.equal(value, frozen[name]) for name, value in adapted.unload().state_dict().items())


def test_an_adapter_is_saved_and_loaded_onto_the_locked_model(tmp_path: Path) -> None:
    adapted = peft.get_peft_model(locked_model(tmp_path / "model"), config(init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = peft.LoraConfig.from_pretrained(tmp_path / "adapter")
    loaded._register_custom_module(peft_layers())
    again = peft.PeftModel.from_pretrained(locked_model(tmp_path / "again"), tmp_path / "adapter", config=loaded)
    assert torch.equal(logits(again), logits(adapted))
    assert not torch.equal(logits(again), logits(locked_model(tmp_path / "third")))


def test_merging_is_refused_and_changes_no_locked_weight(tmp_path: Path) -> None:
    adapted = peft.get_peft_model(locked_model(tmp_path / "model"), config(init_lora_weights=False))
    before = {n: m.weight.clone() for n, m in adapted.named_modules() if isinstance(m, DeformedLinear)}
    for merge in (adapted.merge_adapter, adapted.merge_and_unload):
        with pytest.raises(SpecdefError, match=r"must stay beside a locked layer: .* unlock the model first"):
            merge()
    assert len(before) == 2
    assert all(torch.equal(m.weight, before[n]) for n, m in adapted.named_modules() if n in before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "`use_dora` must be false for a locked layer"),
        ({"init_lora_weights": "pissa"}, "`init_lora_weights` must not be taken from the weight .* got 'pissa'"),
    ],
)
def test_what_reads_the_scaled_weight_is_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecdefError, match=message):
        peft.get_peft_model(locked_model(tmp_path / "model"), config(**options))
