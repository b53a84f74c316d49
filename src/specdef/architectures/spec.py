"""Declarations: which tensors of a model family form compensable pairs.

A *pair* is a set of producer slots and consumer slots joined by a map that is linear (or positively homogeneous)
channel by channel: scaling producer channel ``c`` by ``a`` and consumer channel ``c`` by ``a ** -degree`` leaves the
function unchanged. A family file holds data only; `resolve.py` binds it to the tensors of a real checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Config = Mapping[str, Any]
PairKind = Literal["norm", "vo", "updown", "fc", "head", "conv"]
PAIR_KINDS: tuple[PairKind, ...] = ("norm", "vo", "updown", "fc", "head", "conv")


@dataclass(frozen=True)
class Dims:
    """Sizes every family is described by, read from ``config.json``.

    Attributes:
        expert_intermediate: width of one expert; equal to `intermediate` where the config gives one width.
    """

    hidden: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate: int
    num_experts: int = 0
    expert_intermediate: int = 0

    @property
    def q_width(self) -> int:
        """Rows of the query projection."""
        return self.num_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Rows of the value projection: the number of v->o channels."""
        return self.num_kv_heads * self.head_dim


@dataclass(frozen=True)
class Place:
    """One layer of a family whose layers are nested in stages, or differ in width.

    Attributes:
        path: what stands for ``{layer}`` in names, such as ``2.layers.0``.
        dims: its own sizes.
        kind: tells layers of different make apart; a pair says which it is of.
    """

    path: str
    dims: Dims
    kind: str = ""


@dataclass(frozen=True)
class Layout:
    """Where channel ``c`` of a pair sits along one tensor axis.

    Attributes:
        extent: dims -> length the axis must have; resolving fails on any other length.
        indices: (dims, channel) -> positions along the axis that belong to the channel.
    """

    extent: Callable[[Dims], int]
    indices: Callable[[Dims, int], Sequence[int]]


def _same(dims: Dims, channel: int) -> Sequence[int]:
    return (channel,)


def _query_groups(dims: Dims, channel: int) -> Sequence[int]:
    group = dims.num_heads // dims.num_kv_heads
    head, position = divmod(channel, dims.head_dim)
    first = head * group * dims.head_dim + position
    return range(first, first + group * dims.head_dim, dims.head_dim)


HIDDEN = Layout(extent=lambda d: d.hidden, indices=_same)
KV = Layout(extent=lambda d: d.kv_width, indices=_same)
INTERMEDIATE = Layout(extent=lambda d: d.intermediate, indices=_same)
EXPERT_INTERMEDIATE = Layout(extent=lambda d: d.expert_intermediate, indices=_same)
QUERY_GROUPS = Layout(extent=lambda d: d.q_width, indices=_query_groups)
"""Input columns of the output projection under grouped-query attention: one value channel feeds its whole group."""


def shifted(layout: Layout, by: Callable[[Dims], int], extent: Callable[[Dims], int]) -> Layout:
    """`layout` placed `by` positions into a longer, fused axis (Phi-3's qkv rows, GPT-2's c_attn columns)."""
    return Layout(extent=extent, indices=lambda d, c: [by(d) + i for i in layout.indices(d, c)])


HOMOGENEOUS_DEGREES = {"relu": 1, "leaky_relu": 1, "linear": 1, "relu2": 2}
"""Activations f with f(a x) = a**degree f(x) for every a > 0; a power of two passes through them without rounding."""


@dataclass(frozen=True)
class Slot:
    """One end of a pair: an axis of a tensor.

    Attributes:
        tensor: name template with ``{layer}`` and, for experts, ``{expert}``; without the checkpoint's prefix.
        axis: the axis channels run along.
        layout: channel -> positions on that axis.
        optional: absent in some checkpoints of the family (biases).
        offset: what the runtime adds to the stored number before using it (Gemma: 1).
    """

    tensor: str
    axis: int
    layout: Layout
    optional: bool = False
    offset: float = 0.0


@dataclass(frozen=True)
class Pair:
    """Producers and consumers that compensate each other.

    Attributes:
        kind: what ``--pairs`` selects by.
        size: dims -> number of channels.
        per: one instance per layer, per expert of each layer, or one in the model.
        degree: positive homogeneity of the map in between; the consumer is divided by ``a ** degree``.
        where: (config, layer) -> whether this layer has the pair (mixed dense and sparse layers).
        label: tells two pairs of one kind in one layer apart ("attention", "mlp").
        place: kind of layer that has it.
    """

    kind: PairKind
    producers: tuple[Slot, ...]
    consumers: tuple[Slot, ...]
    size: Callable[[Dims], int]
    per: Literal["layer", "expert", "model"] = "layer"
    degree: int = 1
    where: Callable[[Config, int], bool] | None = None
    label: str = ""
    place: str = ""


@dataclass(frozen=True)
class Exclusion:
    """Something that looks like a pair and is not offered, with the reason."""

    what: str
    reason: str


@dataclass(frozen=True)
class PartNames:
    """What the parts of a loaded model are called that an attacker trains alone, or puts adapters beside.

    Attributes:
        query_value: last names of the linear layers that make queries and values.
        mlp: regular expression, found in the names of the MLPs' parameters and no others.
        embeddings: the same for the embeddings' parameters.
    """

    query_value: tuple[str, ...] = ("q_proj", "v_proj")
    mlp: str = r"mlp\."
    embeddings: str = "embed"


LLAMA_NAMES = PartNames()
"""What most families call them."""


@dataclass(frozen=True)
class Architecture:
    """All that is known about one model family.

    Attributes:
        name: family name for messages.
        model_types: the ``model_type`` values of ``config.json`` it covers.
        prefixes: what may stand before every tensor name, most specific first ("model." or "").
        layer_stem: template of a layer's prefix; every tensor under it, or under what stands before ``{layer}`` in it,
            must be known.
        pairs: (config, dims) -> the pairs this configuration has.
        others: templates under ``layer_stem`` that are known and never edited (q_norm, rotary buffers); ``*`` allowed.
        linears: component name -> module template, what the inject lock may replace.
        inject_default: components the ``paper`` preset draws from.
        transposed: linear weights are stored [in, out] (GPT-2's Conv1D).
        exclusions: what is left out, and why.
        roots: templates outside the layers that are known; anything else there might read the final norm, so the "head"
            pairs are then withheld. ``*`` allowed.
        text_config: key of a nested config that holds the sizes ("text_config") when present.
        config_defaults: sizes that published ``config.json`` files leave out because they equal the class default.
        part_names: of what attackers aim at.
        known_quantization: ``quant_method`` values under which every tensor of the map keeps a floating-point type.
        places: (config, tensor name -> shape) -> its layers in order, where they are not alike and numbered 0, 1, ...;
            None where they are.
        layer_pattern: regular expression of what stands for ``{layer}``.
        remarks: what whoever locks such a model must know, in sentences.
    """

    name: str
    model_types: tuple[str, ...]
    prefixes: tuple[str, ...]
    layer_stem: str
    pairs: Callable[[Config, Dims], Sequence[Pair]]
    linears: Mapping[str, str]
    inject_default: tuple[str, ...]
    others: tuple[str, ...] = ()
    transposed: bool = False
    exclusions: tuple[Exclusion, ...] = ()
    roots: tuple[str, ...] = ()
    text_config: str | None = None
    config_defaults: Mapping[str, Any] = field(default_factory=dict)
    part_names: PartNames = LLAMA_NAMES
    known_quantization: tuple[str, ...] = ()
    places: Callable[[Config, Mapping[str, tuple[int, ...]]], Sequence[Place]] | None = None
    layer_pattern: str = "[0-9]{1,6}"
    remarks: tuple[str, ...] = ()


def degree_of(activation: object) -> int | None:
    """The degree an activation, as ``config.json`` names it, is positively homogeneous of; None where it is not."""
    return HOMOGENEOUS_DEGREES.get(activation) if isinstance(activation, str) else None


def fc_pairs(activation: object, inner: str, outer: str, *, transposed: bool = False) -> tuple[Pair, ...]:
    """The pair through a plain two-layer MLP: one where the activation is positively homogeneous, else none.

    Args:
        activation: the activation's name in ``config.json``.
        inner: module template of the first linear; its bias scales with its rows.
        outer: module template of the second linear.
        transposed: weights are stored [in, out].

    Example:
        >>> [pair.degree for pair in fc_pairs("relu", "fc1", "fc2")], fc_pairs("gelu", "fc1", "fc2")
        ([1], ())
    """
    degree = degree_of(activation)
    if degree is None:
        return ()
    out_axis, in_axis = (1, 0) if transposed else (0, 1)
    return (
        Pair(
            "fc",
            (
                Slot(inner + ".weight", out_axis, INTERMEDIATE),
                Slot(inner + ".bias", 0, INTERMEDIATE, optional=True),
            ),
            (Slot(outer + ".weight", in_axis, INTERMEDIATE),),
            lambda d: d.intermediate,
            degree=degree,
        ),
    )


def layer_norm(
    module: str, consumers: tuple[Slot, ...], *, kind: PairKind = "norm", label: str = "", offset: float = 0.0
) -> Pair:
    """A LayerNorm's weight and bias against everything that reads its output; one in the model for kind "head".

    `offset` is what the runtime adds to the stored weight.
    """
    producers = (Slot(module + ".weight", 0, HIDDEN, offset=offset), Slot(module + ".bias", 0, HIDDEN, optional=True))
    per: Literal["layer", "model"] = "model" if kind == "head" else "layer"
    return Pair(kind, producers, consumers, lambda d: d.hidden, per=per, label=label)
