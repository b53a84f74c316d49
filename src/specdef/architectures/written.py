"""A family's map as plain data: what an automatic map is, what a manifest carries, and the declaration it means."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from specdef.architectures.spec import (
    Architecture,
    Config,
    Dims,
    Exclusion,
    Layout,
    Pair,
    PairKind,
    Place,
    Slot,
)
from specdef.errors import ArchitectureError

Shapes = Mapping[str, tuple[int, ...]]
DECLARE = "Declare the family's pairs (CONTRIBUTING.md, 'Adding a family')."
"""What is left to do where no automatic map is found."""
EXPERT = re.compile(r"(?<=experts\.)[0-9]+(?=\.)")


@dataclass(frozen=True)
class WrittenLayout:
    """Where channels sit along an axis: it is cut into `outer` equal blocks, each block into `parts` one after another.

    The channels are those of part `index` of every block. A part may hold each of its channels `repeat` times, one run
    of them after the other, as one head of values is read by every head of its group. Sizes are products such as
    ``2*hidden`` of whole numbers, names of `Dims` and keys of the configuration; ``group`` is heads per value head.

    Attributes:
        outer: how many blocks.
        parts: width of one run of each part.
        index: which part.
        repeat: runs in that part.
    """

    parts: tuple[str, ...]
    outer: str = "1"
    index: int = 0
    repeat: str = "1"


@dataclass(frozen=True)
class WrittenSlot:
    """See `spec.Slot`."""

    tensor: str
    axis: int
    layout: WrittenLayout
    offset: float = 0.0


@dataclass(frozen=True)
class WrittenPair:
    """See `spec.Pair`; `size` follows from the first producer."""

    kind: PairKind
    producers: tuple[WrittenSlot, ...]
    consumers: tuple[WrittenSlot, ...]
    per: Literal["layer", "expert", "model"] = "layer"
    degree: int = 1
    label: str = ""
    place: str = ""


@dataclass(frozen=True)
class WrittenMap:
    """A family's map as data.

    Attributes:
        model_type: of the configurations it was found for.
        stacks: what stands before the numbers of layers, such as ``model.layers``.
        kinds: kind of layer -> the tensors that such a layer holds, ``{expert}`` for an expert's number.
        keys: size of `Dims` -> key of the configuration.
        defaults: values of keys that the configuration may leave out.
        roots: tensors outside the layers.
        pairs: proved ones.
        exclusions: what was refused or cannot be said in this form, each with the reason.
        text_config: key of the nested configuration that holds the sizes.
        made_by: program and versions that found it.
    """

    model_type: str
    stacks: tuple[str, ...]
    kinds: Mapping[str, tuple[str, ...]]
    keys: Mapping[str, str]
    pairs: tuple[WrittenPair, ...]
    roots: tuple[str, ...] = ()
    defaults: Mapping[str, int] = field(default_factory=dict)
    exclusions: tuple[tuple[str, str], ...] = ()
    text_config: str | None = None
    made_by: str = ""


def architecture_from(written: WrittenMap) -> Architecture:
    """The declaration that a written map stands for: every function that takes a family takes it unchanged.

    Raises:
        ArchitectureError: the data say nothing sensible.
    """
    if not written.stacks or not written.kinds or not all(pair.producers for pair in written.pairs):
        raise ArchitectureError(
            f"The map of {written.model_type!r} must name layers and ends; it does not. Make it anew."
        )
    for pair in written.pairs:
        if not pair.consumers or pair.degree < 1 or not all(map(_is_sound, (*pair.producers, *pair.consumers))):
            raise ArchitectureError(
                f"The map of {written.model_type!r} must hold sound pairs; it does not. Make it anew."
            )
    pattern = "|".join(re.escape(stack) for stack in written.stacks)
    known = sorted({rel for rels in written.kinds.values() for rel in rels})
    return Architecture(
        name=f"{written.model_type} (automatic map)",
        model_types=(written.model_type,),
        prefixes=("",),
        layer_stem="{layer}.",
        layer_pattern=rf"(?:{pattern})\.[0-9]{{1,6}}",
        pairs=functools.partial(_pairs, written),
        places=functools.partial(places, written),
        linears={},
        inject_default=(),
        others=tuple("{layer}." + rel for rel in known),
        roots=written.roots,
        exclusions=tuple(Exclusion(what, reason) for what, reason in written.exclusions),
        text_config=written.text_config,
        config_defaults=dict(written.defaults),
    )


def _is_sound(slot: WrittenSlot) -> bool:
    """Whether a slot names a part of its layout, and no number of the tensor's name but the expert's is left open."""
    named = not set("{}") & set(slot.tensor.replace("{expert}", ""))
    return named and slot.axis >= 0 and 0 <= slot.layout.index < len(slot.layout.parts)


def split_layer(name: str, stacks: Sequence[str]) -> tuple[str, str] | None:
    """A tensor's layer (with its stack) and its name in it, experts' numbers replaced; None outside the layers.

    Example:
        >>> split_layer("model.layers.3.mlp.experts.5.up_proj.weight", ["model.layers"])
        ('model.layers.3', 'mlp.experts.{expert}.up_proj.weight')
    """
    for stack in stacks:
        match = re.match(re.escape(stack) + r"\.[0-9]{1,6}(?=\.)", name)
        if match:
            return match.group(), EXPERT.sub("{expert}", name[match.end() + 1 :])
    return None


def places(written: WrittenMap, config: Config, shapes: Shapes) -> list[Place]:
    """The layers of a checkpoint, each of the kind whose tensors it holds.

    Raises:
        ArchitectureError: a layer holds other tensors than those of any kind.
    """
    dims = read_sizes(written, config)
    kinds = kinds_of_layers(written, shapes)
    several = len(written.kinds) > 1
    paths = sorted(kinds, key=lambda path: (path.rpartition(".")[0], int(path.rpartition(".")[2])))
    return [Place(path, dims, kinds[path] if several else "") for path in paths]


def kinds_of_layers(written: WrittenMap, shapes: Shapes) -> dict[str, str]:
    """Layer -> its kind, by the names of the tensors that it holds.

    Raises:
        ArchitectureError: a layer holds other tensors than those of any kind, or there is no layer.
    """
    held: dict[str, set[str]] = {}
    for name in shapes:
        found = split_layer(name, written.stacks)
        if found is not None:
            held.setdefault(found[0], set()).add(found[1])
    if not held:
        raise ArchitectureError(
            f"A checkpoint of {written.model_type!r} must hold layers named {' or '.join(written.stacks)}; it holds "
            "none. Check that config.json belongs to these weights."
        )
    kinds, found_kinds = {frozenset(rels): kind for kind, rels in written.kinds.items()}, {}
    for path, rels in held.items():
        kind = kinds.get(frozenset(rels))
        if kind is None:
            near = min(written.kinds.values(), key=lambda known: len(rels ^ set(known)))
            odd = ", ".join(sorted(rels ^ set(near))[:3])
            raise ArchitectureError(
                f"Layer {path} must hold the tensors of a kind of layer in the map of {written.model_type!r}; it "
                f"differs in {odd}. Check that config.json belongs to these weights."
            )
        found_kinds[path] = kind
    return found_kinds


def read_sizes(written: WrittenMap, config: Config) -> Dims:
    """The sizes of a configuration by the map's own keys."""

    def size(name: str, default: int) -> int:
        value = config.get(written.keys.get(name, ""), None)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default

    hidden, heads = size("hidden", 1), size("num_heads", 1)
    return Dims(
        hidden=hidden,
        num_layers=1,
        num_heads=heads,
        num_kv_heads=size("num_kv_heads", heads),
        head_dim=size("head_dim", max(1, hidden // heads)),
        intermediate=size("intermediate", 4 * hidden),
        num_experts=size("num_experts", 0),
    )


def evaluate(size: str, config: Config, dims: Dims) -> int:
    """A size in numbers.

    Raises:
        ArchitectureError: a name in it is no size of this configuration.

    Example:
        >>> evaluate("2*hidden", {}, Dims(8, 1, 2, 1, 4, 16))
        16
    """
    return math.prod(_factor(name, config, dims) for name in size.split("*"))


def _factor(name: str, config: Config, dims: Dims) -> int:
    if name.isdecimal() and int(name[:9]) > 0:
        return int(name[:9])
    if name == "group":
        value: object = dims.num_heads // dims.num_kv_heads
    else:
        value = getattr(dims, name, None) if name in SIZES else config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArchitectureError(f"`{name}` in config.json must be a positive whole number; got {value!r}.")
    return value


SIZES = ("hidden", "intermediate", "kv_width", "q_width", "head_dim", "num_heads", "num_kv_heads", "num_experts")
"""Names of `Dims` that a written size may use."""


def _pairs(written: WrittenMap, config: Config, dims: Dims) -> Sequence[Pair]:
    for pair in written.pairs:
        slots = (*pair.producers, *pair.consumers)
        if len({channels(slot.layout, config, dims) for slot in slots}) > 1:
            raise ArchitectureError(
                f"The map of {written.model_type!r} must give all ends of a pair as many channels; it does not for "
                f"{', '.join(slot.tensor for slot in slots)}. Make it anew."
            )
    return [
        Pair(
            pair.kind,
            tuple(_slot(slot, pair, config) for slot in pair.producers),
            tuple(_slot(slot, pair, config) for slot in pair.consumers),
            functools.partial(channels, pair.producers[0].layout, config),
            per=pair.per,
            degree=pair.degree,
            label=pair.label,
            place=pair.place,
        )
        for pair in written.pairs
    ]


def layout_from(layout: WrittenLayout, config: Config) -> Layout:
    """A written layout as `spec` has it; its positions are counted once for each set of sizes."""

    @functools.lru_cache(maxsize=8)
    def all_indices(dims: Dims) -> list[Sequence[int]]:
        return positions(layout, config, dims)

    return Layout(extent=functools.partial(extent, layout, config), indices=lambda dims, c: all_indices(dims)[c])


def _slot(slot: WrittenSlot, pair: WrittenPair, config: Config) -> Slot:
    name = slot.tensor if pair.per == "model" else "{layer}." + slot.tensor
    return Slot(name, slot.axis, layout_from(slot.layout, config), offset=slot.offset)


def _widths(layout: WrittenLayout, config: Config, dims: Dims) -> tuple[int, list[int], int]:
    """Blocks, width of each whole part, runs."""
    repeat = evaluate(layout.repeat, config, dims)
    widths = [evaluate(part, config, dims) for part in layout.parts]
    widths[layout.index] *= repeat
    return evaluate(layout.outer, config, dims), widths, repeat


def extent(layout: WrittenLayout, config: Config, dims: Dims) -> int:
    """Length the axis must have."""
    outer, widths, _ = _widths(layout, config, dims)
    return outer * sum(widths)


def channels(layout: WrittenLayout, config: Config, dims: Dims) -> int:
    """How many channels it has."""
    outer, widths, repeat = _widths(layout, config, dims)
    return outer * (widths[layout.index] // repeat)


def positions(layout: WrittenLayout, config: Config, dims: Dims) -> list[Sequence[int]]:
    """Channel -> its positions on the axis.

    Example:
        >>> dims = Dims(hidden=8, num_layers=1, num_heads=4, num_kv_heads=2, head_dim=2, intermediate=16)
        >>> groups = WrittenLayout(("head_dim",), outer="num_kv_heads", repeat="group")
        >>> [list(found) for found in positions(groups, {}, dims)]
        [[0, 2], [1, 3], [4, 6], [5, 7]]
    """
    outer, widths, repeat = _widths(layout, config, dims)
    run, start = widths[layout.index] // repeat, sum(widths[: layout.index])
    firsts = (block * sum(widths) + start + position for block in range(outer) for position in range(run))
    return [range(first, first + repeat * run, run) for first in firsts]
