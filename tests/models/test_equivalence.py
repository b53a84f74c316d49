"""Two folders compared: language models, classifiers, and models that no kind knows."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pico
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3TextConfig

from specdef.errors import CheckpointError
from specdef.models.equivalence import Equivalence, _outputs, _Place, compare
from specdef.models.loading import load
from specdef.models.probing import Probing, kl_divergence


@pytest.mark.parametrize("family", ["llama", "bert", "vit", "gemma3-multimodal", "bert-classifier", "llama-classifier"])
def test_a_copy_is_identical_and_one_changed_weight_is_seen(family: str, tmp_path: Path) -> None:
    first, second = (pico.build(family, tmp_path / name) for name in ("first", "second"))
    same = compare(first, second, num_probes=4)
    assert (same.bit_identical, same.max_error, same.kl) == (True, 0.0, 0.0)
    assert same.num_outputs > 0
    tensors = load_file(second / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("weight") and tensor.ndim == 2:
            tensors[name] = tensor * 1.5
    save_file(tensors, second / "model.safetensors", {"format": "pt"})
    other = compare(first, second, num_probes=4)
    assert not other.bit_identical
    assert other.kl > other.tolerance


def test_an_encoder_decoder_is_compared_on_tokens_for_both(tmp_path: Path) -> None:
    """T5 makes no input for its decoder by itself; a changed weight of either half is seen."""
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_heads": 4, "num_layers": 1, "vocab_size": 64}
    torch.manual_seed(0)
    T5ForConditionalGeneration(T5Config(**sizes)).save_pretrained(tmp_path / "model")
    assert compare(tmp_path / "model", tmp_path / "model", num_probes=2).bit_identical
    for half in ("encoder", "decoder"):
        tensors = load_file(tmp_path / "model" / "model.safetensors")
        tensors[f"{half}.block.0.layer.0.SelfAttention.o.weight"].mul_(2)
        shutil.copytree(tmp_path / "model", tmp_path / half)
        save_file(tensors, tmp_path / half / "model.safetensors", {"format": "pt"})
        assert not compare(tmp_path / "model", tmp_path / half, num_probes=2).bit_identical
    probes = Probing().probes({**sizes, "is_encoder_decoder": True})
    assert probes["input_ids"].shape == probes["decoder_input_ids"].shape
    assert not torch.equal(probes["input_ids"], probes["decoder_input_ids"])


def test_a_vocabulary_that_is_the_classs_default_may_be_left_out() -> None:
    """As in published Gemma 3 folders; before, `verify --original` said that their config.json gives no sizes."""
    text = {"model_type": "gemma3_text", "hidden_size": 32}
    ids = Probing().probes({"model_type": "gemma3", "text_config": text})["input_ids"]
    assert ids.shape == (16, 48)
    assert 2**17 < int(ids.max()) < Gemma3TextConfig().vocab_size
    for config in ({}, {"model_type": "resnet"}, {"model_type": "no such model"}, {"text_config": 7}):
        with pytest.raises(CheckpointError, match=r"config.json must give usable sizes \(vocab_size or image_size\)"):
            Probing().probes(config)


def test_kl_is_that_of_torch() -> None:
    first, second = torch.randn(2, 300, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = torch.nn.functional.kl_div(
        second.log_softmax(-1), first.log_softmax(-1), reduction="batchmean", log_target=True
    )
    assert kl_divergence(first, second) == pytest.approx(float(wanted), rel=1e-12)


def test_what_counts_as_one_function() -> None:
    """In float32 a millionth of a nat; in a narrower dtype twice what rounding to it costs the original itself."""
    narrow = Equivalence(False, 0.1, 3e-3, 1.6e-3, 100, "bfloat16")
    assert Equivalence(False, 0.1, 3e-3, None, 100, "float32").tolerance == 1e-6
    assert narrow.tolerance == 2 * 1.6e-3


def test_a_model_fifty_times_its_noise_away_is_another_function(tmp_path: Path) -> None:
    first, second = (pico.build("llama", tmp_path / name, dtype=torch.bfloat16) for name in ("first", "second"))
    tensors = load_file(second / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            spread = 0.02 * tensor.float().std()
            tensors[name] = (tensor + spread * torch.randn(tensor.shape, generator=generator)).to(tensor.dtype)
    save_file(tensors, second / "model.safetensors", {"format": "pt"})
    found = compare(first, second, num_probes=4)
    assert found.own_noise is not None
    assert found.tolerance < found.kl < 200 * found.own_noise


def test_two_models_in_memory_must_stand_alike(llama: Path) -> None:
    wide, narrow = load(llama), load(llama).double()
    with pytest.raises(CheckpointError) as caught:
        compare(wide, narrow)
    assert str(caught.value) == (
        "`original` must be of the dtype and on the device of the locked model, torch.float64 on cpu; it is "
        "torch.float32 on cpu. Move it."
    )


def test_a_folder_is_loaded_as_the_model_in_memory_stands(llama: Path) -> None:
    model = load(llama, dtype=torch.bfloat16)
    model.train()
    model.lm_head.eval()
    found = compare(llama, model, num_probes=3, length=7)
    assert (found.dtype, found.bit_identical, found.own_noise) == ("bfloat16", True, None)
    assert found.num_outputs == 3 * 7 * model.config.vocab_size
    assert model.training
    assert not model.lm_head.training
    with torch.no_grad():
        model.lm_head.weight[5] += 0.25
    other = compare(llama, model, num_probes=3, length=7)
    plain = load(llama, dtype=torch.bfloat16)
    inputs = Probing().probes(plain.config.to_dict(), 3, 0, length=7)
    with torch.no_grad():
        first, second = plain(**inputs).logits, model.eval()(**inputs).logits
        wide = load(llama)(**inputs).logits
    assert other.max_error == float((first.double() - second.double()).abs().max()) > 0
    assert other.kl == kl_divergence(first, second)
    assert other.own_noise == kl_divergence(wide, first)


def test_a_model_with_another_head_is_another(tmp_path: Path) -> None:
    first, second = (pico.build(family, tmp_path / family) for family in ("llama", "llama-classifier"))
    with pytest.raises(CheckpointError, match=r"`original` must be the model that was locked; its outputs are \[\d+, "):
        compare(first, second, num_probes=1)


def test_pixels_are_given_in_the_models_own_dtype_and_tokens_in_theirs() -> None:
    given: list[torch.dtype] = []

    class Seeing(Probing):
        def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
            given.extend(value.dtype for value in inputs.values())
            return torch.zeros(1, 2)

    inputs = {"pixel_values": torch.zeros(1, 3), "input_ids": torch.zeros(1, 3, dtype=torch.int64)}
    _outputs(torch.nn.Linear(3, 3).bfloat16(), inputs, _Place(torch.bfloat16, "cpu"), Seeing())
    assert given == [torch.bfloat16, torch.int64]


def test_a_model_that_does_not_run_is_named_and_left_as_it_was(llama: Path) -> None:
    model = load(llama).train()
    model.lm_head.eval()
    before = {name: part.training for name, part in model.named_modules()}

    def fails(*_: object, **__: object) -> None:
        raise ValueError("no such luck")

    model.model.forward = fails
    with pytest.raises(CheckpointError) as caught:
        compare(model, model)
    assert str(caught.value).startswith("Model LlamaForCausalLM cannot be loaded and run by transformers (")
    assert {name: part.training for name, part in model.named_modules()} == before


def test_a_folder_that_does_not_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pico.build("llama", tmp_path / "model")

    def fails(*_: object, **__: object) -> None:
        raise ValueError("no such luck")

    monkeypatch.setattr("transformers.LlamaForCausalLM.forward", fails)
    with pytest.raises(CheckpointError) as caught:
        compare(folder, folder)
    assert str(caught.value).startswith(f"Model {folder} cannot be loaded and run by transformers (")


def test_modules_put_in_place_while_a_model_runs_do_not_train(llama: Path) -> None:
    """As BigBird does; nobody knows how they stood before."""
    model = load(llama).train()
    real = model.model.forward

    def swaps(*given: object, **named: object) -> object:
        model.model.norm = copy.deepcopy(model.model.norm)
        model.model.extra = torch.nn.Identity().train()
        return real(*given, **named)

    model.model.forward = swaps
    assert compare(model, model, num_probes=2).bit_identical
    assert model.model.norm.training, "one by that name trained before"
    assert not model.model.extra.training
