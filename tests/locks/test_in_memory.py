"""Locks on a model in memory: the same weights as in a folder, the same function, and the way back to the bit."""

from __future__ import annotations

from pathlib import Path

import pico
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

import specdef
from specdef import lock, lock_module, unlock_module
from specdef.errors import PlanError, SpecdefError

IN_MEMORY = ("llama", "qwen2", "phi3", "gemma2", "gpt2", "opt", "bert")
PROBE = torch.randint(3, pico.VOCAB, (4, 24), generator=torch.Generator().manual_seed(0))


def load(folder: Path, dtype: torch.dtype | None = None) -> nn.Module:
    name = transformers.AutoConfig.from_pretrained(folder).architectures[0]
    model: nn.Module = getattr(transformers, name).from_pretrained(folder, dtype=dtype or "auto")
    return model.eval()


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=PROBE).logits.clone()  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", IN_MEMORY)
def test_the_exact_lock_in_memory_is_the_folders(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = pico.build(family, tmp_path / "model", dtype=dtype)
    lock(folder, tmp_path / "locked", seed=3)
    model = load(folder)
    original = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = logits(model)
    locked = lock_module(model, preset="exact", seed=3)
    assert torch.equal(logits(model), before)
    model.save_pretrained(tmp_path / "saved")  # type: ignore[operator]
    saved, wanted = load_file(tmp_path / "saved/model.safetensors"), load_file(tmp_path / "locked/model.safetensors")
    assert saved.keys() == wanted.keys()
    assert all(torch.equal(saved[name], wanted[name]) for name in wanted)
    assert any(not torch.equal(original[name], tensor) for name, tensor in model.state_dict().items())
    unlock_module(model, locked.key)
    assert all(torch.equal(original[name], tensor) for name, tensor in model.state_dict().items())


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    folder = pico.build("llama-tied" if "llama-tied" in pico._VARIANTS else "gpt2", tmp_path / "model")
    model = load(folder)
    lock_module(model, preset="exact")
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight  # type: ignore[operator]


def test_the_papers_lock_in_memory_and_back(llama: Path) -> None:
    model = load(llama)
    before, names = logits(model), [name for name, _ in model.named_parameters()]
    locked = lock_module(model, preset="paper", targets=["*.mlp.gate_proj"], rank=3, multiplier="2^10")
    assert locked.lock == lock_module(load(llama), targets=["*.mlp.gate_proj"], rank=3).lock
    assert "quantization_config" in model.config.to_dict()
    unlock_module(model, locked.key)
    assert torch.equal(logits(model), before)
    assert [name for name, _ in model.named_parameters()] == names
    assert "quantization_config" not in model.config.to_dict()


def test_a_refused_lock_leaves_the_model_alone(llama: Path) -> None:
    model = load(llama)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for options in ({"multiplier": "2^61"}, {"channels": 1000}, {"rank": 3}, {"preset": "best"}):
        with pytest.raises(PlanError):
            lock_module(model, **options)  # type: ignore[arg-type]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_what_is_no_transformers_model_is_said(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="`module` must be a transformers model for lock fold"):
        lock_module(nn.Linear(3, 3), preset="exact")
    with pytest.raises(PlanError, match=r"got a LlamaForCausalLM. Use specdef.lock_module"):
        specdef.lock(load(llama), tmp_path / "out")  # type: ignore[arg-type]


def test_parameters_under_other_names_than_the_maps_are_refused(tmp_path: Path) -> None:
    model = load(pico.build("vit", tmp_path / "model"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        lock_module(model, preset="exact")
    except SpecdefError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
