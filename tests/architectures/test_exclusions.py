"""What the maps leave out really changes the function: the tempting pair is built by hand and measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pico
import pytest
import torch
from channel_scaling import read_state, scale_pair, write_state

from specdef.architectures.resolve import ResolvedPair, ResolvedSlot

LAYER = {
    "gpt_oss": "model.layers.0.",
    "gpt2": "transformer.h.0.",
    "bert": "bert.encoder.layer.0.",
    "llama": "model.layers.0.",
    "opt-post-norm": "model.decoder.layers.0.",
    "resnet": "resnet.",
}


def _same(channel: int) -> Sequence[int]:
    return (channel,)


def _odd(channel: int) -> Sequence[int]:
    return (2 * channel + 1,)


def _tempting(size: int, producers: Sequence[tuple], consumers: Sequence[tuple]) -> Callable[[str], ResolvedPair]:
    def bind(layer: str) -> ResolvedPair:
        slots = [
            tuple(ResolvedSlot(layer + tensor, axis, *indices or (_same,)) for tensor, axis, *indices in side)
            for side in (producers, consumers)
        ]
        return ResolvedPair("tempting", "fc", 0, size, slots[0], slots[1])

    return bind


TEMPTING = {
    "gpt_oss: up -> down": _tempting(
        48,
        [("mlp.experts.gate_up_proj", 2, _odd), ("mlp.experts.gate_up_proj_bias", 1, _odd)],
        [("mlp.experts.down_proj", 1)],
    ),
    "gpt2: GELU c_fc -> c_proj": _tempting(
        48, [("mlp.c_fc.weight", 1), ("mlp.c_fc.bias", 0)], [("mlp.c_proj.weight", 0)]
    ),
    "bert: LayerNorm -> intermediate": _tempting(
        32,
        [("attention.output.LayerNorm.weight", 0), ("attention.output.LayerNorm.bias", 0)],
        [("intermediate.dense.weight", 1)],
    ),
    "llama: gate -> down": _tempting(48, [("mlp.gate_proj.weight", 0)], [("mlp.down_proj.weight", 1)]),
    "llama: q -> k under rotary embeddings": _tempting(
        8,
        [("self_attn.q_proj.weight", 0), ("self_attn.q_proj.weight", 0, lambda c: (c + 8,))],
        [("self_attn.k_proj.weight", 0)],
    ),
    "opt-post-norm: norm -> fc1": _tempting(
        32, [("self_attn_layer_norm.weight", 0), ("self_attn_layer_norm.bias", 0)], [("fc1.weight", 1)]
    ),
    "resnet: last normalization -> next block": _tempting(
        16,
        [(f"encoder.stages.1.layers.0.layer.1.normalization.{part}", 0) for part in ("weight", "bias")],
        [("encoder.stages.1.layers.1.layer.0.convolution.weight", 1)],
    ),
    "resnet: embedder -> first block": _tempting(
        8,
        [(f"embedder.embedder.normalization.{part}", 0) for part in ("weight", "bias")],
        [("encoder.stages.0.layers.0.layer.0.convolution.weight", 1)],
    ),
}


@pytest.mark.parametrize("case", TEMPTING)
def test_excluded_pair_changes_the_function(case: str, tmp_path: Path) -> None:
    """Far beyond rounding: a factor of 4 on one channel moves some logit by over 1000 eps of the largest."""
    name = case.split(":")[0]
    source = pico.build(name, tmp_path / "source")
    state = read_state(source)
    scale_pair(state, TEMPTING[case](LAYER[name]), exponent=2)
    expected = pico.run(name, source)
    got = pico.run(name, write_state(state, source, tmp_path / "scaled"))
    moved = (got - expected).abs().max() / expected.abs().max()
    assert moved > 1000 * torch.finfo(torch.float32).eps
