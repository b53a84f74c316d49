"""Mixtral, Qwen3-MoE and OLMoE: a norm read by the router and by every expert, and one up->down pair per expert.

Tensors carry the published names, one per expert, which is also what transformers 5 writes; its fused in-memory form
(``mlp.experts.gate_up_proj``) has other names and is refused as unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from specdef.architectures.spec import (
    EXPERT_INTERMEDIATE,
    HIDDEN,
    Architecture,
    Config,
    Dims,
    Exclusion,
    Pair,
    Slot,
)
from specdef.architectures.text.llama import (
    ATTENTION,
    ATTENTION_EXCLUSIONS,
    ATTENTION_NORM,
    DECODER_EXCLUSIONS,
    DECODER_LINEARS,
    DECODER_OTHERS,
    DECODER_ROOTS,
    FINAL_NORM,
    MLP,
    MLP_NORM,
    QUERY_KEY_NORMS,
    STEM,
    UP_DOWN,
    VALUE_OUTPUT,
)

ATTENTION_LINEARS = {f"{name}_proj": ATTENTION + f"{name}_proj" for name in "qkvo"}
MOE_EXCLUSIONS = (
    Exclusion("gate of an expert -> its down projection", "the activation on the gate is not homogeneous"),
    Exclusion("router", "its softmax picks experts: it can only be a consumer, and always is one of the norm's"),
    Exclusion("experts as inject targets", "transformers runs them as one fused parameter, not as linears"),
)


def expert_pairs(block: str, gate: str, up: str, down: str) -> tuple[Pair, Pair]:
    """The norm before a sparse block against its router and all its experts, and the up->down pair inside one expert.

    Args:
        block: template of the sparse block, ending in a dot; the router is ``gate`` in it.
        gate: name of an expert's gate projection.
        up: name of an expert's up projection.
        down: name of an expert's down projection.
    """
    expert = block + "experts.{expert}."
    norm = Pair(
        "norm",
        (Slot(STEM + "post_attention_layernorm.weight", 0, HIDDEN),),
        (
            Slot(block + "gate.weight", 1, HIDDEN),
            Slot(f"{expert}{gate}.weight", 1, HIDDEN),
            Slot(f"{expert}{up}.weight", 1, HIDDEN),
        ),
        lambda d: d.hidden,
        label="mlp",
    )
    up_down = Pair(
        "updown",
        (Slot(f"{expert}{up}.weight", 0, EXPERT_INTERMEDIATE),),
        (Slot(f"{expert}{down}.weight", 1, EXPERT_INTERMEDIATE),),
        lambda d: d.expert_intermediate,
        per="expert",
    )
    return norm, up_down


def _mixtral_pairs(config: Config, dims: Dims) -> Sequence[Pair]:
    block = STEM + "block_sparse_moe."
    return ATTENTION_NORM, VALUE_OUTPUT, *expert_pairs(block, "w1", "w3", "w2"), FINAL_NORM


def is_sparse(config: Config, layer: int) -> bool:
    """Whether a Qwen3-MoE layer holds experts.

    Example:
        >>> [is_sparse({"num_experts": 8, "decoder_sparse_step": 2}, layer) for layer in range(4)]
        [False, True, False, True]
    """
    dense = layer in (config.get("mlp_only_layers") or ())
    has_experts = (config.get("num_experts") or config.get("num_local_experts") or 0) > 0
    return has_experts and not dense and (layer + 1) % config.get("decoder_sparse_step", 1) == 0


def _is_dense(config: Config, layer: int) -> bool:
    return not is_sparse(config, layer)


def _qwen3_moe_pairs(config: Config, dims: Dims) -> Sequence[Pair]:
    sparse = expert_pairs(MLP, "gate_proj", "up_proj", "down_proj")
    clipped = config.get("clip_qkv") is not None
    return (
        ATTENTION_NORM,
        *(() if clipped else (VALUE_OUTPUT,)),
        *(replace(pair, where=is_sparse) for pair in sparse),
        *(replace(pair, where=_is_dense) for pair in (MLP_NORM, UP_DOWN)),
        FINAL_NORM,
    )


MIXTRAL = Architecture(
    name="Mixtral",
    model_types=("mixtral",),
    prefixes=("model.", ""),
    layer_stem=STEM,
    pairs=_mixtral_pairs,
    linears=ATTENTION_LINEARS,
    inject_default=("o_proj", "v_proj"),
    others=(ATTENTION + "rotary_emb.inv_freq",),
    exclusions=(*ATTENTION_EXCLUSIONS, *MOE_EXCLUSIONS),
    roots=DECODER_ROOTS,
)
QWEN3_MOE = Architecture(
    name="Qwen3-MoE, OLMoE",
    model_types=("qwen3_moe", "olmoe"),
    prefixes=("model.", ""),
    layer_stem=STEM,
    pairs=_qwen3_moe_pairs,
    linears=DECODER_LINEARS,
    inject_default=("o_proj", "v_proj"),
    others=(*DECODER_OTHERS, *QUERY_KEY_NORMS),
    exclusions=(
        *DECODER_EXCLUSIONS,
        *MOE_EXCLUSIONS,
        Exclusion("v_proj -> o_proj when clip_qkv is set (OLMoE)", "a clamp on the values is not homogeneous"),
    ),
    roots=DECODER_ROOTS,
)

FAMILIES = (MIXTRAL, QWEN3_MOE)
