"""BERT, RoBERTa, DeBERTa-v2: post-norm encoders, so only pairs inside attention and, under ReLU, inside the MLP.

DeBERTa's disentangled attention adds terms of q, k and the relative positions to the scores; the values are still
averaged with those scores and nothing else, so v -> output stays linear channel by channel.
"""

from __future__ import annotations

from collections.abc import Sequence

from specdef.architectures.spec import KV, Architecture, Config, Dims, Exclusion, Pair, PartNames, Slot, fc_pairs

STEM = "encoder.layer.{layer}."
SELF = STEM + "attention.self."
ATTENTION_OUTPUT = STEM + "attention.output.dense"
INTERMEDIATE_DENSE = STEM + "intermediate.dense"
OUTPUT_DENSE = STEM + "output.dense"

ENCODER_EXCLUSIONS = (
    Exclusion("LayerNorm -> its readers", "post-norm: its output is also the residual stream of the next block"),
    Exclusion(
        "intermediate.dense -> output.dense under GELU", "GELU is not homogeneous; offered where the config says ReLU"
    ),
    Exclusion(
        "query -> key", "exact without rotary embeddings, but no pair kind specdef plans: left out until it is measured"
    ),
    Exclusion("prediction head", "its GELU and its tied decoder leave no pair; a fine-tuner replaces it anyway"),
)


def _self_linears(suffix: str) -> dict[str, str]:
    return {f"{name}{suffix}": f"{SELF}{name}{suffix}" for name in ("query", "key", "value")}


BLOCK_MLP = r"\.\d+\.(intermediate|output)\.dense\."
BLOCK_LINEARS = {
    "attention_output": ATTENTION_OUTPUT,
    "intermediate": INTERMEDIATE_DENSE,
    "output": OUTPUT_DENSE,
}
BLOCK_OTHERS = (
    ATTENTION_OUTPUT + ".bias",
    INTERMEDIATE_DENSE + ".bias",
    OUTPUT_DENSE + ".bias",
    STEM + "attention.output.LayerNorm.*",
    STEM + "output.LayerNorm.*",
)
"""LayerNorm tensors end in weight and bias, or in gamma and beta in the oldest checkpoints."""


def _pairs_through(value: str, config: Config) -> Sequence[Pair]:
    values = Pair(
        "vo",
        (Slot(value + ".weight", 0, KV), Slot(value + ".bias", 0, KV)),
        (Slot(ATTENTION_OUTPUT + ".weight", 1, KV),),
        lambda d: d.kv_width,
    )
    return values, *fc_pairs(config.get("hidden_act", "gelu"), INTERMEDIATE_DENSE, OUTPUT_DENSE)


def _bert_pairs(config: Config, dims: Dims) -> Sequence[Pair]:
    return _pairs_through(SELF + "value", config)


def _deberta_pairs(config: Config, dims: Dims) -> Sequence[Pair]:
    return _pairs_through(SELF + "value_proj", config)


BERT = Architecture(
    name="BERT",
    model_types=("bert", "roberta", "xlm-roberta"),
    prefixes=("bert.", "roberta.", ""),
    layer_stem=STEM,
    pairs=_bert_pairs,
    linears={**_self_linears(""), **BLOCK_LINEARS},
    inject_default=("intermediate", "attention_output", "value"),
    part_names=PartNames(("query", "value"), BLOCK_MLP),
    others=(SELF + "query.bias", SELF + "key.bias", *BLOCK_OTHERS),
    exclusions=ENCODER_EXCLUSIONS,
)
DEBERTA_V2 = Architecture(
    name="DeBERTa-v2",
    model_types=("deberta-v2",),
    prefixes=("deberta.", ""),
    layer_stem=STEM,
    pairs=_deberta_pairs,
    linears={**_self_linears("_proj"), **BLOCK_LINEARS},
    inject_default=("intermediate", "attention_output", "value_proj"),
    part_names=PartNames(("query_proj", "value_proj"), BLOCK_MLP),
    others=(
        SELF + "query_proj.bias",
        SELF + "key_proj.bias",
        SELF + "pos_key_proj.*",
        SELF + "pos_query_proj.*",
        *BLOCK_OTHERS,
    ),
    exclusions=(
        *ENCODER_EXCLUSIONS,
        Exclusion("pos_query_proj, pos_key_proj", "they only add to the scores, as q and k do"),
    ),
)

FAMILIES = (BERT, DEBERTA_V2)
