"""Tiny random checkpoints of every family, written by plain transformers, with no weight at a value that hides a bug.

Norm weights stay away from 1 (or 0 where the runtime adds 1) and biases away from 0, so that a map that forgets one of
them, or scales the wrong rows, changes the logits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

VOCAB = 96
TOKENS: dict[str, Any] = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
BLOCK: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
DECODER = {**TOKENS, **BLOCK, "num_key_value_heads": 2, "tie_word_embeddings": False}
WIDE_HEADS = {**DECODER, "head_dim": 16}
GEMMA = {**WIDE_HEADS, "query_pre_attn_scalar": 16}
GPT2 = {**TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 64}
NEOX = {**TOKENS, **BLOCK, "tie_word_embeddings": False}
OPT = {**NEOX, "ffn_dim": 48, "word_embed_proj_dim": 32}
MIXTRAL = {**DECODER, "num_local_experts": 3, "num_experts_per_tok": 2}
OLMOE = {**DECODER, "num_experts": 3, "num_experts_per_tok": 2}
QWEN3_MOE = {**WIDE_HEADS, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
MINISTRAL_ROPE = {**ROPE, "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 16}
GPT_OSS = {**WIDE_HEADS, "num_local_experts": 3, "num_experts_per_tok": 2, "rope_parameters": ROPE}
GRANITE = {"embedding_multiplier": 2.0, "logits_scaling": 2.0, "residual_multiplier": 0.5}
ENCODER = {**BLOCK, "vocab_size": VOCAB, "type_vocab_size": 2, "pad_token_id": 0}
DEBERTA = {**ENCODER, "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm"}
VIT = {**BLOCK, "image_size": 16, "patch_size": 4, "num_labels": 7}
VIT.pop("max_position_embeddings")
RESNET: dict[str, Any] = {
    "num_channels": 3,
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 2],
    "layer_type": "basic",
    "num_labels": 7,
}
SIGLIP = {**VIT, "vision_use_head": False}


@dataclass(frozen=True)
class Pico:
    """How to build one tiny model: transformers' config and model class names, and the config's arguments."""

    config: str
    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


_FAMILIES = {
    "llama": Pico("LlamaConfig", "LlamaForCausalLM", DECODER),
    "mistral": Pico("MistralConfig", "MistralForCausalLM", WIDE_HEADS),
    "ministral": Pico("MinistralConfig", "MinistralForCausalLM", WIDE_HEADS),
    "ministral3": Pico("Ministral3Config", "Ministral3ForCausalLM", {**WIDE_HEADS, "rope_parameters": MINISTRAL_ROPE}),
    "smollm3": Pico("SmolLM3Config", "SmolLM3ForCausalLM", DECODER),
    "granite": Pico("GraniteConfig", "GraniteForCausalLM", {**DECODER, **GRANITE}),
    "ernie4_5": Pico("Ernie4_5Config", "Ernie4_5ForCausalLM", {**WIDE_HEADS, "use_bias": True}),
    "seed_oss": Pico("SeedOssConfig", "SeedOssForCausalLM", WIDE_HEADS),
    "helium": Pico("HeliumConfig", "HeliumForCausalLM", {**DECODER, "head_dim": 8}),
    "eurobert": Pico("EuroBertConfig", "EuroBertForMaskedLM", {**DECODER, "mask_token_id": 3}),
    "hyperclovax": Pico("HyperCLOVAXConfig", "HyperCLOVAXForCausalLM", {**DECODER, **GRANITE, "use_post_norm": True}),
    "arcee": Pico("ArceeConfig", "ArceeForCausalLM", DECODER),
    "jais2": Pico("Jais2Config", "Jais2ForCausalLM", DECODER),
    "nemotron": Pico("NemotronConfig", "NemotronForCausalLM", DECODER),
    "olmo2": Pico("Olmo2Config", "Olmo2ForCausalLM", DECODER),
    "olmo3": Pico("Olmo3Config", "Olmo3ForCausalLM", DECODER),
    "qwen2": Pico("Qwen2Config", "Qwen2ForCausalLM", DECODER),
    "qwen3": Pico("Qwen3Config", "Qwen3ForCausalLM", WIDE_HEADS),
    "phi3": Pico("Phi3Config", "Phi3ForCausalLM", DECODER),
    "gemma2": Pico("Gemma2Config", "Gemma2ForCausalLM", GEMMA),
    "gemma3_text": Pico("Gemma3TextConfig", "Gemma3ForCausalLM", GEMMA),
    "gpt2": Pico("GPT2Config", "GPT2LMHeadModel", GPT2),
    "gpt_neox": Pico("GPTNeoXConfig", "GPTNeoXForCausalLM", NEOX),
    "opt": Pico("OPTConfig", "OPTForCausalLM", OPT),
    "mixtral": Pico("MixtralConfig", "MixtralForCausalLM", MIXTRAL),
    "qwen3_moe": Pico("Qwen3MoeConfig", "Qwen3MoeForCausalLM", QWEN3_MOE),
    "olmoe": Pico("OlmoeConfig", "OlmoeForCausalLM", OLMOE),
    "gpt_oss": Pico("GptOssConfig", "GptOssForCausalLM", GPT_OSS),
    "bert": Pico("BertConfig", "BertForMaskedLM", ENCODER),
    "roberta": Pico("RobertaConfig", "RobertaForMaskedLM", ENCODER),
    "xlm-roberta": Pico("XLMRobertaConfig", "XLMRobertaForMaskedLM", ENCODER),
    "deberta-v2": Pico("DebertaV2Config", "DebertaV2ForMaskedLM", {**DEBERTA, "pos_att_type": ["p2c", "c2p"]}),
    "vit": Pico("ViTConfig", "ViTForImageClassification", VIT),
    "deit": Pico("DeiTConfig", "DeiTForImageClassification", VIT),
    "resnet": Pico("ResNetConfig", "ResNetForImageClassification", RESNET),
}
_VARIANTS = {
    "llama-biased": Pico("LlamaConfig", "LlamaForCausalLM", {**DECODER, "attention_bias": True, "mlp_bias": True}),
    "llama-tied": Pico("LlamaConfig", "LlamaForCausalLM", {**DECODER, "tie_word_embeddings": True}),
    "llama-bare": Pico("LlamaConfig", "LlamaModel", DECODER),
    "llama-classifier": Pico("LlamaConfig", "LlamaForSequenceClassification", DECODER),
    "gemma3-multimodal": Pico(
        "Gemma3Config",
        "Gemma3ForConditionalGeneration",
        {"text_config": GEMMA, "vision_config": SIGLIP, "mm_tokens_per_image": 4},
    ),
    "gpt2-bare": Pico("GPT2Config", "GPT2Model", GPT2),
    "gpt2-relu-untied": Pico(
        "GPT2Config", "GPT2LMHeadModel", {**GPT2, "activation_function": "relu", "tie_word_embeddings": False}
    ),
    "gpt_neox-serial": Pico(
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        {**NEOX, "use_parallel_residual": False, "attention_bias": False, "hidden_act": "relu2"},
    ),
    "opt-post-norm": Pico(
        "OPTConfig", "OPTForCausalLM", {**OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 24}
    ),
    "opt-no-bias": Pico(
        "OPTConfig",
        "OPTForCausalLM",
        {**OPT, "enable_bias": False, "layer_norm_elementwise_affine": False, "tie_word_embeddings": True},
    ),
    "qwen3_moe-mixed": Pico("Qwen3MoeConfig", "Qwen3MoeForCausalLM", {**QWEN3_MOE, "mlp_only_layers": [0]}),
    "olmoe-clipped": Pico("OlmoeConfig", "OlmoeForCausalLM", {**OLMOE, "clip_qkv": 0.5}),
    "bert-classifier": Pico("BertConfig", "BertForSequenceClassification", ENCODER),
    "bert-relu": Pico("BertConfig", "BertModel", {**ENCODER, "hidden_act": "relu"}),
    "roberta-classifier": Pico("RobertaConfig", "RobertaForSequenceClassification", ENCODER),
    "deberta-v2-shared-key": Pico(
        "DebertaV2Config",
        "DebertaV2ForSequenceClassification",
        {**DEBERTA, "pos_att_type": ["p2c", "c2p"], "share_att_key": True},
    ),
    "resnet-cifar": Pico(
        "CifarResNetConfig",
        "CifarResNetForImageClassification",
        {"depths": [1, 2], "hidden_sizes": [8, 16], "num_labels": 7},
    ),
    "resnet-bottleneck": Pico(
        "ResNetConfig", "ResNetForImageClassification", {**RESNET, "layer_type": "bottleneck", "hidden_sizes": [32, 32]}
    ),
    "resnet-bare": Pico("ResNetConfig", "ResNetModel", {**RESNET, "downsample_in_first_stage": True}),
    "vit-bare-relu": Pico("ViTConfig", "ViTModel", {**VIT, "hidden_act": "relu", "qkv_bias": False}),
}
PICOS: Mapping[str, Pico] = {**_FAMILIES, **_VARIANTS}
UNDECLARED = {"gemma": Pico("GemmaConfig", "GemmaForCausalLM", WIDE_HEADS)}
"""Families without a declared map."""
FAMILIES = list(_FAMILIES)
VARIANTS = list(_VARIANTS)


def class_of(name: str) -> Any:
    """A class of transformers, or one that this project adds to it."""
    if (found := getattr(transformers, name, None)) is not None:
        return found
    from specdef.models import cifar_resnet  # not before conftest.py has put its import hook in place

    return getattr(cifar_resnet, name)


def build(family_name: str, folder: Path, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> Path:
    """Write a random 2-layer checkpoint with `save_pretrained`; `family_name` is of FAMILIES, VARIANTS or UNDECLARED.

    `changes` go into the config.

    Returns:
        `folder`, holding config.json and model.safetensors, the same bytes for the same arguments.
    """
    pico = {**PICOS, **UNDECLARED}[family_name]
    model = class_of(pico.model)(class_of(pico.config)(**{**pico.arguments, **changes}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(fill(name, parameter, generator, offset_norms="Gemma" in pico.model))
        for name, buffer in model.named_buffers():
            if "running_" in name:  # statistics of a trained BatchNorm
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + (0.5 if name.endswith("var") else 0.0))
    model.to(dtype).save_pretrained(folder)
    return Path(folder)


def fill(name: str, like: Tensor, generator: torch.Generator, offset_norms: bool = False) -> Tensor:
    """A weight of that name and shape, away from values that hide a bug."""
    draw = torch.randn(like.shape, generator=generator)
    if "norm" in name.lower() or "bn" in name or ".ln_" in name or name.startswith("ln_"):
        if name.endswith("bias"):
            return 0.3 * draw
        away = 0.3 + 0.5 * torch.rand(like.shape, generator=generator)
        return draw.sign() * away + (0.0 if offset_norms and "vision" not in name else 1.0)
    if name.endswith("bias") or like.ndim == 1:
        return 0.3 * draw
    if "embed" in name or "wte" in name or "wpe" in name:
        return draw
    return draw * (1.5 / math.sqrt(like.shape[-1] if like.ndim < 4 else like[0].numel()))


def inputs(family_name: str, seed: int = 0) -> dict[str, Tensor]:
    """Probe inputs: 3 sequences of 24 tokens, or 3 images."""
    generator = torch.Generator().manual_seed(seed)
    if PICOS[family_name].config in ("ViTConfig", "DeiTConfig", "ResNetConfig", "CifarResNetConfig"):
        return {"pixel_values": torch.randn(3, 3, 16, 16, generator=generator)}
    return {"input_ids": torch.randint(3, VOCAB, (3, 24), generator=generator)}


def run(family_name: str, folder: Path) -> Tensor:
    """Load `folder` in plain transformers, in its stored dtype, and return logits (or the last hidden state)."""
    model_class = class_of(PICOS[family_name].model)
    model, report = model_class.from_pretrained(folder, dtype="auto", output_loading_info=True)
    unmatched = {key: value for key, value in report.items() if value}
    assert not unmatched, f"{family_name}: {unmatched}"
    given = {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in inputs(family_name).items()}
    with torch.no_grad():
        output = model.eval()(**given)
    return output.logits if "logits" in output else output.last_hidden_state


def shard(folder: Path) -> list[str]:
    """Turn a folder's single weight file into two shards with an index; returns the shards' names."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = list(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for name, members in halves.items():
        save_file({member: tensors[member] for member in members}, folder / name, {"format": "pt", "note": "keep"})
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    weight_map = {member: name for name, members in halves.items() for member in members}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return list(halves)
