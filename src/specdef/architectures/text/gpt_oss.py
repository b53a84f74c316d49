"""GPT-OSS: attention pairs only. Its experts compute (clamp(up) + 1) * glu(gate), and are published in MXFP4."""

from __future__ import annotations

from collections.abc import Sequence

from specdef.architectures.spec import Architecture, Config, Dims, Exclusion, Pair
from specdef.architectures.text.llama import (
    ATTENTION,
    ATTENTION_EXCLUSIONS,
    ATTENTION_NORM,
    DECODER_ROOTS,
    MLP,
    STEM,
    VALUE_OUTPUT,
)


def _pairs(config: Config, dims: Dims) -> Sequence[Pair]:
    return ATTENTION_NORM, VALUE_OUTPUT


GPT_OSS = Architecture(
    name="GPT-OSS",
    model_types=("gpt_oss",),
    prefixes=("model.", ""),
    layer_stem=STEM,
    pairs=_pairs,
    linears={f"{name}_proj": ATTENTION + f"{name}_proj" for name in "qkvo"},
    inject_default=("o_proj", "v_proj"),
    others=(
        ATTENTION + "[qko]_proj.bias",
        ATTENTION + "sinks",
        STEM + "post_attention_layernorm.weight",
        MLP + "router.weight",
        MLP + "router.bias",
        MLP + "experts.gate_up_proj*",
        MLP + "experts.down_proj*",
    ),
    exclusions=(
        *ATTENTION_EXCLUSIONS,
        Exclusion("up -> down in an expert", "up is clamped and 1 is added to it before the product: not linear in up"),
        Exclusion("gate -> down in an expert", "clamp and swish on the gate are not homogeneous"),
        Exclusion(
            "post_attention_layernorm -> router and experts",
            "the published experts are MXFP4 blocks: no column can be divided",
        ),
        Exclusion("final norm -> lm_head", "exact where untied, but this family is limited to its attention pairs"),
        Exclusion("attention sinks", "a learned logit of the softmax: it carries no value channel"),
    ),
    roots=DECODER_ROOTS,
    known_quantization=("mxfp4",),
)
"""The release quantises experts only; attention, router, embeddings and head stay bfloat16."""

FAMILIES = (GPT_OSS,)
