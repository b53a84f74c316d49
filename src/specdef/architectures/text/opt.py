"""OPT, Galactica: LayerNorm with bias, separate q, k, v, a plain MLP that is ReLU in OPT (fc1 -> fc2 is a pair)."""

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
)

STEM = "layers.{layer}."
ATTENTION = STEM + "self_attn."


def _pairs(config: Config, dims: Dims) -> Sequence[Pair]:
    pairs = [
        Pair(
            "vo",
            (Slot(ATTENTION + "v_proj.weight", 0, KV), Slot(ATTENTION + "v_proj.bias", 0, KV, optional=True)),
            (Slot(ATTENTION + "out_proj.weight", 1, KV),),
            lambda d: d.kv_width,
        ),
        *fc_pairs(config.get("activation_function", "relu"), STEM + "fc1", STEM + "fc2"),
    ]
    if config.get("do_layer_norm_before", True) and config.get("layer_norm_elementwise_affine", True):
        q_k_v = tuple(Slot(ATTENTION + f"{name}_proj.weight", 1, HIDDEN) for name in "qkv")
        pairs += [
            layer_norm(STEM + "self_attn_layer_norm", q_k_v, label="attention"),
            layer_norm(STEM + "final_layer_norm", (Slot(STEM + "fc1.weight", 1, HIDDEN),), label="mlp"),
        ]
        if not config.get("_remove_final_layer_norm") and config.get("word_embed_proj_dim", dims.hidden) == dims.hidden:
            pairs.append(layer_norm("final_layer_norm", (Slot("!lm_head.weight", 1, HIDDEN),), kind="head"))
    return pairs


OPT = Architecture(
    name="OPT",
    model_types=("opt",),
    prefixes=("model.decoder.", "decoder.", ""),
    layer_stem=STEM,
    pairs=_pairs,
    linears={
        **{f"{name}_proj": ATTENTION + f"{name}_proj" for name in ("q", "k", "v", "out")},
        "fc1": STEM + "fc1",
        "fc2": STEM + "fc2",
    },
    inject_default=("fc1", "out_proj", "v_proj"),
    part_names=PartNames(mlp=r"\.fc[12]\."),
    others=(
        ATTENTION + "[qk]_proj.bias",
        ATTENTION + "out_proj.bias",
        STEM + "fc[12].bias",
        STEM + "self_attn_layer_norm.*",
        STEM + "final_layer_norm.*",
    ),
    exclusions=(
        Exclusion("norms when do_layer_norm_before is false (opt-350m)", "their output is the residual stream itself"),
        Exclusion("norms when layer_norm_elementwise_affine is false", "they have no weight to scale"),
        Exclusion("fc1 -> fc2 under GELU (Galactica)", "GELU is not homogeneous; offered where the config says ReLU"),
        Exclusion(
            "q_proj -> k_proj",
            "exact without rotary embeddings, but no pair kind specdef plans: left out until it is measured",
        ),
        Exclusion("final norm -> lm_head when tied", "the same tensor embeds the input tokens"),
        Exclusion("final norm -> project_out", "only ever published without a final norm; not worth a pair of its own"),
    ),
    roots=("embed_tokens.weight", "embed_positions.weight", "!lm_head.weight"),
)

FAMILIES = (OPT,)
