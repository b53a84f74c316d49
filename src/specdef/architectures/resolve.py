"""Bind a declared architecture to the tensors of a real checkpoint, or say what does not match."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from specdef.architectures.quantization import format_of, refuse_quantized
from specdef.architectures.registry import architecture_of
from specdef.architectures.spec import Architecture, Config, Dims, Exclusion, Pair, PairKind, Place, Slot
from specdef.errors import ArchitectureError

Shapes = Mapping[str, tuple[int, ...]]
HEADED_CLASSES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""Model classes whose output is the output embedding's, never the bare final norm's."""


@dataclass(frozen=True)
class ResolvedSlot:
    """A slot whose tensor exists, with the positions of each channel along `axis`."""

    tensor: str
    axis: int
    indices: Callable[[int], Sequence[int]]
    offset: float = 0.0


@dataclass(frozen=True)
class ResolvedPair:
    """A pair bound to tensors. `id` is stable across runs, for example ``norm.3.attention`` or ``updown.3.expert7``."""

    id: str
    kind: PairKind
    layer: int | None
    size: int
    producers: tuple[ResolvedSlot, ...]
    consumers: tuple[ResolvedSlot, ...]
    degree: int = 1

    @property
    def slots(self) -> tuple[ResolvedSlot, ...]:
        """Producers first, then consumers."""
        return self.producers + self.consumers


@dataclass(frozen=True)
class ResolvedModel:
    """An architecture bound to one checkpoint.

    Attributes:
        pairs: every compensable pair the checkpoint has.
        linears: (component, layer) -> weight tensor name, what the inject lock may replace.
        layer_paths: what each layer is called in names, in order.
        withheld: pairs the family has and this checkpoint cannot offer, with the reason found in it.
    """

    architecture: Architecture
    dims: Dims
    prefix: str
    pairs: tuple[ResolvedPair, ...]
    linears: Mapping[tuple[str, int], str]
    layer_paths: tuple[str, ...]
    withheld: tuple[Exclusion, ...] = ()

    def layer_of(self, tensor: str) -> int | None:
        """The layer a tensor belongs to; None for embeddings, final norm and heads."""
        match = re.match(_stem_pattern(self.architecture, self.prefix), tensor)
        return self.layer_paths.index(match.group(1)) if match and match.group(1) in self.layer_paths else None

    def component_of(self, tensor: str) -> str:
        """A tensor's name without prefix, layer and expert numbers: ``self_attn.v_proj``."""
        short = re.sub(_stem_pattern(self.architecture, self.prefix), "", tensor, count=1).removeprefix(self.prefix)
        return re.sub(r"\.[0-9]+\.", ".*.", short).removesuffix(".weight")


def resolve(config: Config, shapes: Shapes, family: Architecture | None = None) -> ResolvedModel:
    """Bind the declared family of `config` to tensors.

    Args:
        config: the parsed ``config.json``.
        shapes: tensor name -> shape, as read from the checkpoint's headers.
        family: bound instead of the declared one: an automatic map's.

    Raises:
        ArchitectureError: unknown family, a quantised checkpoint, a required tensor is missing or has an unexpected
            shape, or a layer, or what stands beside the layers under their name, holds a tensor the family's map does
            not know (it might consume a scaled channel).
    """
    family = architecture_of(config) if family is None else family
    refuse_quantized(config, family)
    inner = config[family.text_config] if family.text_config and family.text_config in config else config
    if not isinstance(inner, Mapping):
        raise ArchitectureError(f"`{family.text_config}` in config.json must be an object; got {inner!r}. Repair it.")
    refuse_quantized(inner, family)
    inner = {**family.config_defaults, **inner}
    places = family.places(inner, shapes) if family.places is not None else _numbered(read_dims(inner))
    dims = replace(places[0].dims, num_layers=len(places))
    prefix = _find_prefix(family, places, shapes)
    pairs = list(family.pairs(inner, dims))
    _refuse_unknown_tensors(family, places, prefix, pairs, shapes)
    resolved: list[ResolvedPair] = []
    withheld: list[Exclusion] = []
    for pair in pairs:
        reason = _why_withheld(pair, family, prefix, shapes, (config, inner)) if pair.per == "model" else None
        if reason is None:
            resolved.extend(_instances(pair, inner, places, prefix, shapes))
        else:
            what = f"{pair.producers[0].tensor} -> {pair.consumers[0].tensor.lstrip('!')}"
            withheld.append(Exclusion(what, reason))
    linears = {}
    for component, template in family.linears.items():
        for layer, place in enumerate(places):
            name = prefix + template.format(layer=place.path) + ".weight"
            if name in shapes:
                linears[component, layer] = name
    paths = tuple(place.path for place in places)
    return ResolvedModel(family, dims, prefix, tuple(resolved), linears, paths, tuple(withheld))


def _numbered(dims: Dims) -> list[Place]:
    """Layers that are alike."""
    return [Place(str(layer), dims) for layer in range(dims.num_layers)]


def read_dims(config: Config) -> Dims:
    """Sizes under the key names most families use.

    Raises:
        ArchitectureError: a size is missing or is not a positive whole number.
    """

    def size(*keys: str, default: int | None = None) -> int:
        for key in keys:
            value = config.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ArchitectureError(f"`{key}` in config.json must be a positive whole number; got {value!r}.")
            return value
        if default is None:
            raise ArchitectureError(f"config.json must give `{keys[0]}`; it has none of {', '.join(keys)}.")
        return default

    hidden = size("hidden_size", "n_embd")
    num_heads = size("num_attention_heads", "n_head")
    num_kv_heads = size("num_key_value_heads", default=num_heads)
    if num_heads % num_kv_heads:
        raise ArchitectureError(
            f"`num_attention_heads` must be a multiple of `num_key_value_heads`; got {num_heads} and {num_kv_heads}."
        )
    intermediate = size("intermediate_size", "ffn_dim", "n_inner", default=4 * hidden)
    return Dims(
        hidden=hidden,
        num_layers=size("num_hidden_layers", "n_layer"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=size("head_dim", "attention_head_size", default=max(1, hidden // num_heads)),
        intermediate=intermediate,
        num_experts=size("num_local_experts", "num_experts", default=0) if _has_experts(config) else 0,
        expert_intermediate=size("moe_intermediate_size", default=intermediate),
    )


def _has_experts(config: Config) -> bool:
    return any(config.get(key) for key in ("num_local_experts", "num_experts"))


def _find_prefix(family: Architecture, places: Sequence[Place], shapes: Shapes) -> str:
    stem = family.layer_stem.format(layer=places[0].path)
    for prefix in family.prefixes:
        if any(name.startswith(prefix + stem) for name in shapes):
            return prefix
    expected = " or ".join(repr(prefix + stem + "...") for prefix in family.prefixes)
    found = ", ".join(sorted(shapes)[:3]) or "no tensors"
    raise ArchitectureError(
        f"A {family.name} checkpoint must hold tensors named {expected}; found {found}. "
        "Check that config.json belongs to these weights."
    )


def _full_name(template: str, prefix: str) -> str:
    return template[1:] if template.startswith("!") else prefix + template


def _refuse_unknown_tensors(
    family: Architecture, places: Sequence[Place], prefix: str, pairs: Iterable[Pair], shapes: Shapes
) -> None:
    templates = [slot.tensor for pair in pairs for slot in (*pair.producers, *pair.consumers)]
    templates += [module + ".weight" for module in family.linears.values()] + list(family.others)
    known = re.compile("|".join({_name_pattern(_full_name(template, prefix), family) for template in templates}))
    stem = re.compile(_stem_pattern(family, prefix))
    start = prefix + family.layer_stem.partition("{layer}")[0]
    paths = {place.path for place in places}
    for name in shapes:
        match = stem.match(name)
        if match is None and not (start and name.startswith(start)):  # a stem may begin with the layer's own path
            continue
        if match is not None and match.group(1) not in paths:
            raise ArchitectureError(
                f"config.json says {len(places)} layers; found tensor {name}. "
                "Check that config.json belongs to these weights."
            )
        if match is None or known.match(name) is None:
            _refuse_quantized_tensor(name)
            raise ArchitectureError(
                f"Tensor {name} is not part of the {family.name} map, so what it consumes is unknown. "
                "Add it to the family's declaration (CONTRIBUTING.md, 'Adding a family') or remove it."
            )


def _refuse_quantized_tensor(name: str) -> None:
    found = format_of(name)
    if found is not None:
        raise ArchitectureError(
            f"A layer's tensors must be plain floating point; got {found} storage in tensor {name}. "
            "Lock the unquantised checkpoint."
        )


def _why_withheld(
    pair: Pair, family: Architecture, prefix: str, shapes: Shapes, configs: Iterable[Config]
) -> str | None:
    """Why the final norm has no pair here: it needs an untied output tensor that is its only reader."""
    said = [config["tie_word_embeddings"] for config in configs if config.get("tie_word_embeddings") is not None]
    if not said or any(said):
        return "the output embedding is tied to the input embedding" + ("" if said else " unless config.json denies it")
    absent = [name for slot in pair.consumers if (name := _full_name(slot.tensor, prefix)) not in shapes]
    if absent:
        return f"the checkpoint does not hold {absent[0]}"
    classes = [names for config in configs if isinstance(names := config.get("architectures"), list) and names]
    if not classes or not all(str(name).endswith(HEADED_CLASSES) for names in classes for name in names):
        return "config.json names no class that applies the output embedding to every output"
    templates = [slot.tensor for slot in (*pair.producers, *pair.consumers)] + list(family.roots)
    known = re.compile("|".join(_name_pattern(_full_name(template, prefix), family) for template in templates))
    stem = re.compile(_stem_pattern(family, prefix))
    strangers = sorted(name for name in shapes if stem.match(name) is None and known.match(name) is None)
    return f"tensor {strangers[0]} may read the final norm as well" if strangers else None


def _stem_pattern(family: Architecture, prefix: str) -> str:
    return re.escape(prefix + family.layer_stem).replace(r"\{layer\}", f"({family.layer_pattern})")


def _name_pattern(template: str, family: Architecture) -> str:
    """Regex for a name template: numbers where a layer or expert stands, shell wildcards elsewhere."""
    marked = template.replace("{layer}", "\1").replace("{expert}", "\0")
    return fnmatch.translate(marked).replace("\0", "[0-9]+").replace("\1", family.layer_pattern)


def _instances(
    pair: Pair, config: Config, places: Sequence[Place], prefix: str, shapes: Shapes
) -> Iterator[ResolvedPair]:
    if pair.per == "model":
        yield _bind(pair, None, None, Place("", places[0].dims), prefix, shapes)
        return
    for layer, place in enumerate(places):
        if pair.place != place.kind or (pair.where is not None and not pair.where(config, layer)):
            continue
        if pair.per == "layer":
            yield _bind(pair, layer, None, place, prefix, shapes)
        else:
            for expert in range(place.dims.num_experts):
                yield _bind(pair, layer, expert, place, prefix, shapes)


def _bind(pair: Pair, layer: int | None, expert: int | None, place: Place, prefix: str, shapes: Shapes) -> ResolvedPair:
    parts = [pair.kind, None if layer is None else str(layer), pair.label or None]
    parts.append(None if expert is None else f"expert{expert}")

    def bind(slots: Sequence[Slot]) -> tuple[ResolvedSlot, ...]:
        return tuple(r for slot in slots for r in _bind_slot(slot, expert, place, prefix, shapes))

    return ResolvedPair(
        id=".".join(part for part in parts if part is not None),
        kind=pair.kind,
        layer=layer,
        size=pair.size(place.dims),
        producers=bind(pair.producers),
        consumers=bind(pair.consumers),
        degree=pair.degree,
    )


def _bind_slot(slot: Slot, expert: int | None, place: Place, prefix: str, shapes: Shapes) -> Iterator[ResolvedSlot]:
    dims = place.dims
    experts: Iterable[int | None] = [expert]
    if expert is None and "{expert}" in slot.tensor:
        experts = range(dims.num_experts)
    for e in experts:
        name = _full_name(slot.tensor, prefix).format(layer=place.path, expert=e)
        if name not in shapes:
            if slot.optional:
                continue
            stem = name.removesuffix(".weight")
            for beside in sorted(n for n in shapes if n.startswith(stem)):
                _refuse_quantized_tensor(beside)
            raise ArchitectureError(
                f"Tensor {name} must exist; the checkpoint does not hold it{_near(name, shapes)}. "
                "Check for a missing shard, and that config.json belongs to these weights."
            )
        shape, extent = shapes[name], slot.layout.extent(dims)
        if slot.axis >= len(shape) or shape[slot.axis] != extent:
            raise ArchitectureError(
                f"Tensor {name} must have length {extent} on axis {slot.axis}; got shape {list(shape)}. "
                "Check that config.json belongs to these weights."
            )
        yield ResolvedSlot(name, slot.axis, functools.partial(slot.layout.indices, dims), slot.offset)


def _near(name: str, shapes: Shapes) -> str:
    stem = name.rsplit(".", 1)[0] + "."
    near = sorted(n for n in shapes if n.startswith(stem))[:3]
    return f" (found {', '.join(near)})" if near else ""
