"""A model configuration made small: few layers, small widths that stay distinct where the family allows it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LAYERS = re.compile(
    r"(num_(hidden_|encoder_|decoder_)?layers|n_layers?|(encoder|decoder)_layers|num_(encoder|decoder)_blocks|depth)$"
)
HEADS = re.compile(r"(n_heads?|num_(attention_)?heads|(encoder|decoder)_attention_heads|num_(encoder|decoder)_heads)$")
KV_HEADS = re.compile(r"(num_key_value_heads|num_kv_heads|n_kv_heads|num_(encoder|decoder)_key_value_heads)$")
HIDDEN = re.compile(r"(hidden_size|n_embd|d_model|embed_dim|emb_dim|dim|model_dim)$")
EXPERTS = re.compile(r"(num_(local_)?experts|n_routed_experts|moe_num_experts|num_routed_experts)$")
PER_TOKEN = re.compile(r"(num_experts_per_tok(en)?|moe_k|moe_topk|top_k_experts|num_selected_experts)$")
ONE = re.compile(
    r"(n_group|topk_group|num_expert_groups?|n_shared_experts|first_k_dense_replace|moe_layer_start_index)$"
)
LENGTHS = re.compile(
    r"(max_.*position.*|n_positions|max_.*len(gth)?|n_ctx|max_seq.*|context_length|.*target_positions)$"
)
WINDOWS = re.compile(r"(sliding_window|.*local_attention|attention_window|window_size|.*chunk_size)$")
INNER = re.compile(r".*(intermediate|ffn|inner|d_ff|mlp_dim|mlp_hidden|feed_forward|expert_dim|d_inner).*")
BESIDE = re.compile(r"(embedding_size|intra_bottleneck_size|true_hidden_size)$")
VOCABULARY = re.compile(r"((.*_)?vocab_size|n_words|vocab_size_.*)$")
NOT_KEPT = ("quantization_config", "_name_or_path", "architectures", "out_features", "out_indices", "stage_names")
TOKEN = re.compile(r".*_token_id$|.*_token_index$|.*_token$")
VOCAB = 96
FIXED = {
    "q_lora_rank": 28,
    "kv_lora_rank": 24,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 6,
    "v_head_dim": 14,
    "qk_head_dim": 10,
    "rotary_dim": 4,
    "image_size": 16,
    "patch_size": 4,
}
MAX_INNER = 9


@dataclass(frozen=True)
class Sizes:
    """What a configuration is shrunk to.

    Attributes:
        layers: of every stack.
        heads: query heads; of keys and values there are half as many where the model groups them, and one where it
            has one.
        head_dim: width of a head.
        own_head_dim: `head_dim` is set where the configuration has such a key, so that the hidden size differs from
            the heads' together.
        inner: width of the first MLP; further widths follow in steps of four.
        filled: give a size to what the configuration leaves open, where the class does not.
        rope: leave out rotary scaling, whose lists of factors fit one width of head only.
    """

    layers: int = 2
    heads: int = 4
    head_dim: int = 8
    own_head_dim: bool = True
    inner: int = 44
    rope: bool = False
    filled: bool = False

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.heads * self.head_dim


TWINS = (
    Sizes(),
    Sizes(own_head_dim=False),
    Sizes(rope=True),
    Sizes(own_head_dim=False, rope=True),
    Sizes(own_head_dim=False, filled=True),
)
"""Tried in turn, until one can be built."""


def shrunk(config: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    """A configuration of the same model type with small sizes; what it says beside sizes is kept.

    Args:
        config: every entry, defaults included.
        sizes: to shrink to.
    """
    small = {key: value for key, value in config.items() if key not in NOT_KEPT}
    layers = next((value for key, value in config.items() if LAYERS.match(key) and _is_int(value)), None)
    heads = next((value for key, value in config.items() if HEADS.match(key) and _is_int(value)), None)
    hidden = next((value for key, value in config.items() if HIDDEN.match(key) and _is_int(value)), None)
    inner = sizes.inner
    given: dict[int, int] = {}
    kept = _layers_kept(config, layers, sizes.layers) if layers else []
    for key, value in config.items():
        if key in NOT_KEPT:
            continue
        if isinstance(value, Mapping) and value and all(str(name).isdecimal() for name in value):
            small[key] = {kept.index(int(name)): entry for name, entry in value.items() if int(name) in kept}
        elif isinstance(value, Mapping):
            nested = "model_type" in value or key.endswith("_config")
            small[key] = shrunk(value, sizes) if nested else _rotary(key, value, sizes)
        elif isinstance(value, list) and layers and len(value) == layers:
            small[key] = [value[index] for index in kept]
        elif value is None and KV_HEADS.match(key):
            small[key] = sizes.heads
        elif value is None and sizes.filled:
            small[key] = _filled(key, sizes)
        elif not _is_int(value):
            continue
        elif VOCABULARY.match(key):
            small[key] = VOCAB
        elif TOKEN.match(key):
            small[key] = value % VOCAB if value >= 0 else value
        elif LAYERS.match(key):
            small[key] = len(kept) if value == layers else min(value, sizes.layers)
        elif HEADS.match(key):
            small[key] = sizes.heads * (config.get("expand", 1) if key == "num_heads" else 1)
        elif KV_HEADS.match(key):
            small[key] = 1 if value == 1 else sizes.heads if value == heads else sizes.heads // 2
        elif HIDDEN.match(key):
            small[key] = sizes.hidden if value == hidden or value > 64 else value
        elif key == "mamba_n_heads":
            small[key] = sizes.heads * config.get("mamba_expand", 1)
        elif key in ("mamba_d_head", "d_head"):
            small[key] = sizes.head_dim
        elif BESIDE.match(key):
            small[key] = sizes.hidden if value == hidden else sizes.hidden // 2
        elif key == "head_dim":
            own = sizes.head_dim + (2 if sizes.own_head_dim else 0)
            small[key] = FIXED["qk_rope_head_dim"] if "qk_rope_head_dim" in config else own
        elif key in FIXED:
            small[key] = FIXED[key]
        elif EXPERTS.match(key):
            small[key] = min(value, 4)
        elif PER_TOKEN.match(key):
            small[key] = min(value, 2)
        elif ONE.match(key):
            small[key] = min(value, 1)
        elif LENGTHS.match(key):
            small[key] = min(value, 128)
        elif WINDOWS.match(key):
            small[key] = min(value, 16)
        elif value == hidden and not INNER.match(key) and value > 64:
            small[key] = sizes.hidden
        elif INNER.match(key) and value > 8:
            given.setdefault(value, inner + 4 * len(given))
            small[key] = given[value]
    return small


def _filled(key: str, sizes: Sizes) -> int | None:
    """A size for what a configuration leaves open."""
    if VOCABULARY.match(key):
        return VOCAB
    if EXPERTS.match(key):
        return 4
    if PER_TOKEN.match(key):
        return 2
    return sizes.head_dim if key == "head_dim" else None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _rotary(key: str, value: Mapping[str, Any], sizes: Sizes) -> Any:
    if "rope" not in key or not sizes.rope:
        return dict(value)
    theta = value.get("rope_theta", 10000.0)
    return {"rope_type": "default", "rope_theta": theta}


def _layers_kept(config: Mapping[str, Any], layers: int, least: int) -> list[int]:
    """Layers that show every kind of layer that per-layer lists tell apart, in order, and at least so many."""
    lists = [value for value in config.values() if isinstance(value, list) and len(value) == layers]
    seen: dict[tuple[str, ...], int] = {}
    for index in range(layers):
        seen.setdefault(tuple(repr(values[index]) for values in lists), index)
    kept = set(seen.values())
    for index in range(layers):
        if len(kept) >= min(least, layers):
            break
        kept.add(index)
    return sorted(kept)


def integers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Every whole number of a configuration by its key."""
    for key, value in config.items():
        if _is_int(value) and value > 0:
            yield key, value
