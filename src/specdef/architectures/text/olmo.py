"""OLMo 2 and 3: Llama's layers, with norms after attention and MLP, before a residual add, and over queries and keys.

No norm of a layer feeds a linear, so value to output, up to down and the final norm are all there is.
"""

from __future__ import annotations

from collections.abc import Sequence

from specdef.architectures.spec import Architecture, Config, Dims, Exclusion, Pair
from specdef.architectures.text.llama import (
    DECODER_EXCLUSIONS,
    DECODER_LINEARS,
    DECODER_OTHERS,
    DECODER_ROOTS,
    FINAL_NORM,
    QUERY_KEY_NORMS,
    STEM,
    UP_DOWN,
    VALUE_OUTPUT,
)


def _pairs(config: Config, dims: Dims) -> Sequence[Pair]:
    return VALUE_OUTPUT, UP_DOWN, FINAL_NORM


OLMO = Architecture(
    name="OLMo 2/3",
    model_types=("olmo2", "olmo3"),
    prefixes=("model.", ""),
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
        Exclusion("post_attention_layernorm, post_feedforward_layernorm", "they are added to the residual stream"),
        Exclusion("q_proj, k_proj -> q_norm, k_norm", "a norm takes the scale of all channels away, not of one"),
        Exclusion("q_norm -> k_norm", "rotary embeddings mix the channels of a plane"),
    ),
    roots=DECODER_ROOTS,
)

FAMILIES = (OLMO,)
