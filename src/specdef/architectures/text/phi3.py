"""Phi-3, Phi-3.5, Phi-4: the Llama block with q, k, v in one tensor and gate, up in another."""

from __future__ import annotations

from collections.abc import Sequence

from specdef.architectures.spec import (
    HIDDEN,
    INTERMEDIATE,
    KV,
    QUERY_GROUPS,
    Architecture,
    Config,
    Dims,
    Pair,
    PartNames,
    Slot,
    shifted,
)
from specdef.architectures.text.llama import (
    ATTENTION,
    DECODER_EXCLUSIONS,
    DECODER_ROOTS,
    FINAL_NORM,
    MLP,
    STEM,
)

VALUE_ROWS = shifted(KV, by=lambda d: d.q_width + d.kv_width, extent=lambda d: d.q_width + 2 * d.kv_width)
UP_ROWS = shifted(INTERMEDIATE, by=lambda d: d.intermediate, extent=lambda d: 2 * d.intermediate)
"""Rows are stacked q, k, v and gate, up."""


def _pairs(config: Config, dims: Dims) -> Sequence[Pair]:
    qkv, gate_up = ATTENTION + "qkv_proj.weight", MLP + "gate_up_proj.weight"
    return (
        Pair(
            "norm",
            (Slot(STEM + "input_layernorm.weight", 0, HIDDEN),),
            (Slot(qkv, 1, HIDDEN),),
            lambda d: d.hidden,
            label="attention",
        ),
        Pair(
            "vo",
            (Slot(qkv, 0, VALUE_ROWS),),
            (Slot(ATTENTION + "o_proj.weight", 1, QUERY_GROUPS),),
            lambda d: d.kv_width,
        ),
        Pair(
            "norm",
            (Slot(STEM + "post_attention_layernorm.weight", 0, HIDDEN),),
            (Slot(gate_up, 1, HIDDEN),),
            lambda d: d.hidden,
            label="mlp",
        ),
        Pair(
            "updown",
            (Slot(gate_up, 0, UP_ROWS),),
            (Slot(MLP + "down_proj.weight", 1, INTERMEDIATE),),
            lambda d: d.intermediate,
        ),
        FINAL_NORM,
    )


PHI3 = Architecture(
    name="Phi-3",
    model_types=("phi3",),
    prefixes=("model.", ""),
    layer_stem=STEM,
    pairs=_pairs,
    linears={
        "qkv_proj": ATTENTION + "qkv_proj",
        "o_proj": ATTENTION + "o_proj",
        "gate_up_proj": MLP + "gate_up_proj",
        "down_proj": MLP + "down_proj",
    },
    inject_default=("gate_up_proj", "o_proj", "qkv_proj"),
    part_names=PartNames(("qkv_proj",)),
    others=(ATTENTION + "rotary_emb.inv_freq",),
    exclusions=DECODER_EXCLUSIONS,
    roots=DECODER_ROOTS,
)

FAMILIES = (PHI3,)
