"""Arcee, Jais 2, Nemotron: Llama's attention, and an MLP without a gate whose activation (squared ReLU) is homogeneous.

Nemotron multiplies by 1 + weight, and rounds the sum to the weights' own dtype. Where fl32(1 + w') = a * fl32(1 + w),
as is demanded of every channel (see `gemma`), that rounding commutes with the power of two as well: either both float32
sums are exact, or w is below the dtype's half unit at 1 and both round to a power of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from specdef.architectures.spec import HIDDEN, Architecture, Config, Dims, Exclusion, Pair, Slot, fc_pairs, layer_norm
from specdef.architectures.text.llama import (
    ATTENTION,
    ATTENTION_EXCLUSIONS,
    ATTENTION_NORM,
    DECODER_LINEARS,
    DECODER_ROOTS,
    FINAL_NORM,
    MLP,
    MLP_NORM,
    Q_K_V,
    STEM,
    VALUE_OUTPUT,
)

UP = (Slot(MLP + "up_proj.weight", 1, HIDDEN),)


def _inner(config: Config) -> tuple[Pair, ...]:
    """What needs no norm: value to output, and through the MLP where the activation allows it."""
    return VALUE_OUTPUT, *fc_pairs(config.get("hidden_act", "relu2"), MLP + "up_proj", MLP + "down_proj")


def _with_rms_norms(config: Config, dims: Dims) -> Sequence[Pair]:
    return ATTENTION_NORM, replace(MLP_NORM, consumers=UP), FINAL_NORM, *_inner(config)


def _with_layer_norms(config: Config, dims: Dims, *, offset: float = 0.0) -> Sequence[Pair]:
    return (
        layer_norm(STEM + "input_layernorm", Q_K_V, label="attention", offset=offset),
        layer_norm(STEM + "post_attention_layernorm", UP, label="mlp", offset=offset),
        layer_norm("norm", FINAL_NORM.consumers, kind="head", offset=offset),
        *_inner(config),
    )


ARCEE = Architecture(
    name="Arcee",
    model_types=("arcee",),
    prefixes=("model.", ""),
    layer_stem=STEM,
    pairs=_with_rms_norms,
    linears={name: module for name, module in DECODER_LINEARS.items() if name != "gate_proj"},
    inject_default=("up_proj", "o_proj", "v_proj"),
    others=(ATTENTION + "[qko]_proj.bias", ATTENTION + "rotary_emb.inv_freq", MLP + "down_proj.bias"),
    exclusions=(
        *ATTENTION_EXCLUSIONS,
        Exclusion("up_proj -> down_proj under another activation", "offered where the config names a homogeneous one"),
    ),
    roots=DECODER_ROOTS,
)
JAIS = replace(ARCEE, name="Jais 2", model_types=("jais2",), pairs=_with_layer_norms)
NEMOTRON = replace(ARCEE, name="Nemotron", model_types=("nemotron",), pairs=partial(_with_layer_norms, offset=1.0))

FAMILIES = (ARCEE, JAIS, NEMOTRON)
