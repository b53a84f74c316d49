"""Llama, Mistral, SmolLM, Granite, Qwen2, Qwen3 and their kin: RMSNorm, grouped-query attention, gated MLP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from specdef.architectures.spec import (
    HIDDEN,
    INTERMEDIATE,
    KV,
    QUERY_GROUPS,
    Architecture,
    Config,
    Dims,
    Exclusion,
    Pair,
    Slot,
)

STEM = "layers.{layer}."
ATTENTION = "layers.{layer}.self_attn."
MLP = "layers.{layer}.mlp."

Q_K_V = tuple(Slot(ATTENTION + f"{name}_proj.weight", 1, HIDDEN) for name in "qkv")

ATTENTION_NORM = Pair(
    "norm", (Slot(STEM + "input_layernorm.weight", 0, HIDDEN),), Q_K_V, lambda d: d.hidden, label="attention"
)
VALUE_OUTPUT = Pair(
    "vo",
    (
        Slot(ATTENTION + "v_proj.weight", 0, KV),
        Slot(ATTENTION + "v_proj.bias", 0, KV, optional=True),
    ),
    (Slot(ATTENTION + "o_proj.weight", 1, QUERY_GROUPS),),
    lambda d: d.kv_width,
)
MLP_NORM = Pair(
    "norm",
    (Slot(STEM + "post_attention_layernorm.weight", 0, HIDDEN),),
    (Slot(MLP + "gate_proj.weight", 1, HIDDEN), Slot(MLP + "up_proj.weight", 1, HIDDEN)),
    lambda d: d.hidden,
    label="mlp",
)
UP_DOWN = Pair(
    "updown",
    (
        Slot(MLP + "up_proj.weight", 0, INTERMEDIATE),
        Slot(MLP + "up_proj.bias", 0, INTERMEDIATE, optional=True),
    ),
    (Slot(MLP + "down_proj.weight", 1, INTERMEDIATE),),
    lambda d: d.intermediate,
)
FINAL_NORM = Pair(
    "head",
    (Slot("norm.weight", 0, HIDDEN),),
    (Slot("!lm_head.weight", 1, HIDDEN),),
    lambda d: d.hidden,
    per="model",
)
"""Only where the output embedding is a tensor of its own; ``!`` marks a name outside the prefix."""

DECODER_LINEARS = {
    **{f"{name}_proj": ATTENTION + f"{name}_proj" for name in "qkvo"},
    **{f"{name}_proj": MLP + f"{name}_proj" for name in ("gate", "up", "down")},
}
DECODER_OTHERS = (
    ATTENTION + "[qko]_proj.bias",
    ATTENTION + "rotary_emb.inv_freq",
    MLP + "gate_proj.bias",
    MLP + "down_proj.bias",
)
QUERY_KEY_NORMS = (ATTENTION + "[qk]_norm.weight",)
DECODER_ROOTS = ("embed_tokens.weight", "norm.weight", "!lm_head.weight")
ATTENTION_EXCLUSIONS = (
    Exclusion("q_proj -> k_proj", "rotary embeddings mix planes: only a per-plane rotation or scale would be exact"),
    Exclusion("final norm -> lm_head when tied", "the same tensor embeds the input tokens"),
)
DECODER_EXCLUSIONS = (
    *ATTENTION_EXCLUSIONS,
    Exclusion("gate_proj -> down_proj", "the activation on the gate is not homogeneous"),
)


def _pairs(config: Config, dims: Dims) -> Sequence[Pair]:
    return ATTENTION_NORM, VALUE_OUTPUT, MLP_NORM, UP_DOWN, FINAL_NORM


LLAMA = Architecture(
    name="Llama",
    model_types=(
        *("llama", "mistral", "ministral", "ministral3", "smollm3", "granite", "ernie4_5", "seed_oss", "helium"),
        "eurobert",
    ),
    prefixes=("model.", ""),
    layer_stem=STEM,
    pairs=_pairs,
    linears=DECODER_LINEARS,
    inject_default=("gate_proj", "o_proj", "v_proj"),
    others=DECODER_OTHERS,
    exclusions=DECODER_EXCLUSIONS,
    roots=DECODER_ROOTS,
)
QWEN = Architecture(
    name="Qwen2/Qwen3",
    model_types=("qwen2", "qwen3"),
    prefixes=("model.", ""),
    layer_stem=STEM,
    pairs=_pairs,
    linears=DECODER_LINEARS,
    inject_default=("gate_proj", "o_proj", "v_proj"),
    others=(*DECODER_OTHERS, *QUERY_KEY_NORMS),
    exclusions=(
        *DECODER_EXCLUSIONS,
        Exclusion("q_norm, k_norm -> scores", "each is read by rotary embeddings, which mix the channels of a plane"),
    ),
    roots=DECODER_ROOTS,
)

HYPERCLOVA = replace(
    LLAMA,
    name="HyperCLOVA X",
    model_types=("hyperclovax",),
    others=(*DECODER_OTHERS, STEM + "post_norm[12].weight"),
    exclusions=(*DECODER_EXCLUSIONS, Exclusion("post_norm1, post_norm2", "they are added to the residual stream")),
)

FAMILIES = (LLAMA, QWEN, HYPERCLOVA)
