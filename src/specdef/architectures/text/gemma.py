"""Gemma 2 and 3: norms multiply by 1 + weight, and two of the four norms of a layer stand before a residual add.

The runtime computes ``(x.float() * (1.0 + weight.float())).type_as(x)``: a float32 product, then one cast, and both
roundings commute with a power of two. What may be impossible is to *store* a weight w' with
fl32(1 + w') = a * fl32(1 + w); whoever scales a slot with an offset decides that channel by channel. The offset is
declared here, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from specdef.architectures.spec import HIDDEN, Architecture, Config, Dims, Exclusion, Pair, Slot
from specdef.architectures.text.llama import (
    DECODER_EXCLUSIONS,
    DECODER_LINEARS,
    DECODER_OTHERS,
    DECODER_ROOTS,
    FINAL_NORM,
    MLP,
    Q_K_V,
    QUERY_KEY_NORMS,
    STEM,
    UP_DOWN,
    VALUE_OUTPUT,
)


def _pairs(config: Config, dims: Dims) -> Sequence[Pair]:
    return (
        Pair(
            "norm",
            (Slot(STEM + "input_layernorm.weight", 0, HIDDEN, offset=1.0),),
            Q_K_V,
            lambda d: d.hidden,
            label="attention",
        ),
        VALUE_OUTPUT,
        Pair(
            "norm",
            (Slot(STEM + "pre_feedforward_layernorm.weight", 0, HIDDEN, offset=1.0),),
            (Slot(MLP + "gate_proj.weight", 1, HIDDEN), Slot(MLP + "up_proj.weight", 1, HIDDEN)),
            lambda d: d.hidden,
            label="mlp",
        ),
        UP_DOWN,
        replace(FINAL_NORM, producers=(Slot("norm.weight", 0, HIDDEN, offset=1.0),)),
    )


GEMMA = Architecture(
    name="Gemma",
    model_types=("gemma2", "gemma3_text", "gemma3"),
    prefixes=("language_model.model.", "model.language_model.", "model.", ""),
    layer_stem=STEM,
    pairs=_pairs,
    linears=DECODER_LINEARS,
    inject_default=("gate_proj", "o_proj", "v_proj"),
    others=(
        *DECODER_OTHERS,
        *QUERY_KEY_NORMS,
        STEM + "post_attention_layernorm.weight",
        STEM + "post_feedforward_layernorm.weight",
    ),
    exclusions=(
        *DECODER_EXCLUSIONS,
        Exclusion(
            "post_attention_layernorm, post_feedforward_layernorm", "their output is added to the residual stream"
        ),
        Exclusion(
            "o_proj, down_proj -> the norm after them",
            "a norm divides by the length of the whole vector, not per channel",
        ),
        Exclusion("norm channels whose 1 + weight cannot be scaled in the stored dtype", "1 + w' would be rounded"),
        Exclusion("vision tower and projector (Gemma 3)", "not mapped: only the language model's layers are paired"),
    ),
    roots=DECODER_ROOTS,
    text_config="text_config",
    config_defaults={"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256},
)

FAMILIES = (GEMMA,)
