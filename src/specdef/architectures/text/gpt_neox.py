"""GPT-NeoX, Pythia: LayerNorm with bias, q, k, v interleaved per head, attention and MLP side by side."""

from __future__ import annotations

from collections.abc import Sequence

from specdef.architectures.spec import (
    HIDDEN,
    KV,
    Architecture,
    Config,
    Dims,
    Exclusion,
    Layout,
    Pair,
    PartNames,
    Slot,
    fc_pairs,
    layer_norm,
)

STEM = "layers.{layer}."
ATTENTION = STEM + "attention."
MLP = STEM + "mlp."


def _value_rows(dims: Dims, channel: int) -> Sequence[int]:
    head, position = divmod(channel, dims.head_dim)
    return (head * 3 * dims.head_dim + 2 * dims.head_dim + position,)


VALUE_ROWS = Layout(extent=lambda d: 3 * d.q_width, indices=_value_rows)
"""query_key_value's rows run head by head, and within a head q, k, v."""


def _pairs(config: Config, dims: Dims) -> Sequence[Pair]:
    fused = ATTENTION + "query_key_value"
    return (
        layer_norm(STEM + "input_layernorm", (Slot(fused + ".weight", 1, HIDDEN),), label="attention"),
        Pair(
            "vo",
            (Slot(fused + ".weight", 0, VALUE_ROWS), Slot(fused + ".bias", 0, VALUE_ROWS, optional=True)),
            (Slot(ATTENTION + "dense.weight", 1, KV),),
            lambda d: d.kv_width,
        ),
        layer_norm(STEM + "post_attention_layernorm", (Slot(MLP + "dense_h_to_4h.weight", 1, HIDDEN),), label="mlp"),
        *fc_pairs(config.get("hidden_act", "gelu"), MLP + "dense_h_to_4h", MLP + "dense_4h_to_h"),
        layer_norm("final_layer_norm", (Slot("!embed_out.weight", 1, HIDDEN),), kind="head"),
    )


GPT_NEOX = Architecture(
    name="GPT-NeoX",
    model_types=("gpt_neox",),
    prefixes=("gpt_neox.", ""),
    layer_stem=STEM,
    pairs=_pairs,
    linears={
        "query_key_value": ATTENTION + "query_key_value",
        "dense": ATTENTION + "dense",
        "dense_h_to_4h": MLP + "dense_h_to_4h",
        "dense_4h_to_h": MLP + "dense_4h_to_h",
    },
    inject_default=("query_key_value", "dense", "dense_h_to_4h"),
    part_names=PartNames(("query_key_value",)),
    others=(
        ATTENTION + "bias",
        ATTENTION + "masked_bias",
        ATTENTION + "rotary_emb.inv_freq",
        ATTENTION + "dense.bias",
        MLP + "dense_h_to_4h.bias",
        MLP + "dense_4h_to_h.bias",
    ),
    exclusions=(
        Exclusion(
            "dense_h_to_4h -> dense_4h_to_h under GELU", "GELU is not homogeneous; offered where the config says ReLU"
        ),
        Exclusion("q -> k", "rotary embeddings mix planes: only a per-plane rotation or scale would be exact"),
        Exclusion("final_layer_norm -> embed_out when tied", "the same tensor embeds the input tokens"),
    ),
    roots=("embed_in.weight", "!embed_out.weight"),
)
"""Parallel or serial residual makes no difference here: each norm has exactly one reader in both."""

FAMILIES = (GPT_NEOX,)
