"""ViT: a pre-norm encoder, LayerNorm with bias. Tensors carry the published names, which transformers 5 also writes."""

from __future__ import annotations

from collections.abc import Sequence

from specdef.architectures.spec import (
    HIDDEN,
    KV,
    Architecture,
    Config,
    Dims,
    Exclusion,
    Pair,
    Slot,
    fc_pairs,
    layer_norm,
)

STEM = "encoder.layer.{layer}."
SELF = STEM + "attention.attention."
ATTENTION_OUTPUT = STEM + "attention.output.dense"
INTERMEDIATE_DENSE = STEM + "intermediate.dense"
OUTPUT_DENSE = STEM + "output.dense"


def _pairs(config: Config, dims: Dims) -> Sequence[Pair]:
    q_k_v = tuple(Slot(f"{SELF}{name}.weight", 1, HIDDEN) for name in ("query", "key", "value"))
    return (
        layer_norm(STEM + "layernorm_before", q_k_v, label="attention"),
        Pair(
            "vo",
            (Slot(SELF + "value.weight", 0, KV), Slot(SELF + "value.bias", 0, KV, optional=True)),
            (Slot(ATTENTION_OUTPUT + ".weight", 1, KV),),
            lambda d: d.kv_width,
        ),
        layer_norm(STEM + "layernorm_after", (Slot(INTERMEDIATE_DENSE + ".weight", 1, HIDDEN),), label="mlp"),
        *fc_pairs(config.get("hidden_act", "gelu"), INTERMEDIATE_DENSE, OUTPUT_DENSE),
    )


VIT = Architecture(
    name="ViT, DeiT",
    model_types=("vit", "deit"),
    prefixes=("vit.", "deit.", ""),
    layer_stem=STEM,
    pairs=_pairs,
    linears={
        **{name: SELF + name for name in ("query", "key", "value")},
        "attention_output": ATTENTION_OUTPUT,
        "intermediate": INTERMEDIATE_DENSE,
        "output": OUTPUT_DENSE,
    },
    inject_default=("intermediate", "attention_output", "value"),
    others=(
        SELF + "query.bias",
        SELF + "key.bias",
        ATTENTION_OUTPUT + ".bias",
        INTERMEDIATE_DENSE + ".bias",
        OUTPUT_DENSE + ".bias",
    ),
    exclusions=(
        Exclusion("intermediate -> output under GELU", "GELU is not homogeneous; offered where the config says ReLU"),
        Exclusion(
            "query -> key",
            "exact without rotary embeddings, but no pair kind specdef plans: left out until it is measured",
        ),
        Exclusion("final layernorm -> classifier", "its output is also the feature vector that users of ViTModel read"),
    ),
)

FAMILIES = (VIT,)
