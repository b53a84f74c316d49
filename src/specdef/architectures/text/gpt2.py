"""GPT-2: LayerNorm with bias, Conv1D weights stored [in, out], q, k, v side by side in one of them."""

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
    PartNames,
    Slot,
    fc_pairs,
    layer_norm,
    shifted,
)

STEM = "h.{layer}."
ATTENTION = STEM + "attn."
MLP = STEM + "mlp."

VALUE_COLUMNS = shifted(KV, by=lambda d: 2 * d.hidden, extent=lambda d: 3 * d.hidden)
"""c_attn's output is q, k, v, each as wide as the residual stream."""


def _pairs(config: Config, dims: Dims) -> Sequence[Pair]:
    return (
        layer_norm(STEM + "ln_1", (Slot(ATTENTION + "c_attn.weight", 0, HIDDEN),), label="attention"),
        Pair(
            "vo",
            (Slot(ATTENTION + "c_attn.weight", 1, VALUE_COLUMNS), Slot(ATTENTION + "c_attn.bias", 0, VALUE_COLUMNS)),
            (Slot(ATTENTION + "c_proj.weight", 0, KV),),
            lambda d: d.kv_width,
        ),
        layer_norm(STEM + "ln_2", (Slot(MLP + "c_fc.weight", 0, HIDDEN),), label="mlp"),
        *fc_pairs(config.get("activation_function", "gelu_new"), MLP + "c_fc", MLP + "c_proj", transposed=True),
        layer_norm("ln_f", (Slot("!lm_head.weight", 1, HIDDEN),), kind="head"),
    )


GPT2 = Architecture(
    name="GPT-2",
    model_types=("gpt2",),
    prefixes=("transformer.", ""),
    layer_stem=STEM,
    pairs=_pairs,
    linears={
        "c_attn": ATTENTION + "c_attn",
        "attn_c_proj": ATTENTION + "c_proj",
        "c_fc": MLP + "c_fc",
        "mlp_c_proj": MLP + "c_proj",
    },
    inject_default=("c_attn", "attn_c_proj", "c_fc"),
    part_names=PartNames(("c_attn",), embeddings=r"\bw[tp]e\."),
    others=(
        ATTENTION + "bias",
        ATTENTION + "masked_bias",
        ATTENTION + "c_proj.bias",
        MLP + "c_fc.bias",
        MLP + "c_proj.bias",
    ),
    transposed=True,
    exclusions=(
        Exclusion(
            "c_fc -> c_proj under GELU", "GELU is not homogeneous; the pair is offered where the config says ReLU"
        ),
        Exclusion(
            "q -> k", "exact without rotary embeddings, but no pair kind specdef plans: left out until it is measured"
        ),
        Exclusion("ln_f -> lm_head when tied", "the same tensor embeds the input tokens"),
        Exclusion(
            "crossattention", "a second reader of the stream that no published GPT-2 has; such checkpoints are refused"
        ),
    ),
    roots=("wte.weight", "wpe.weight", "!lm_head.weight"),
)

FAMILIES = (GPT2,)
