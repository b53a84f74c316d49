"""An automatic map: pairs found on a twin, proved there to the bit, and bound to the real checkpoint's tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.architectures.resolve import ResolvedPair, resolve
from specdef.architectures.written import (
    DECLARE,
    EXPERT,
    Shapes,
    WrittenMap,
    WrittenPair,
    architecture_from,
    read_sizes,
    split_layer,
)
from specdef.checkpoint.reader import Checkpoint
from specdef.core.results import Records, brief
from specdef.errors import ArchitectureError

if TYPE_CHECKING:
    from specdef.mapping.proof import Outcome
    from specdef.mapping.twin import Twin

ALIASES = {
    "hidden": ("hidden_size", "n_embd", "d_model", "dim", "embed_dim", "model_dim"),
    "num_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
    "num_kv_heads": ("num_key_value_heads", "num_kv_heads", "n_kv_heads"),
    "head_dim": ("head_dim", "attention_head_size", "d_kv", "kv_channels"),
    "intermediate": ("intermediate_size", "ffn_dim", "n_inner", "d_ff", "ffn_hidden_size", "encoder_ffn_dim"),
    "num_experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
}
"""Size of `Dims` -> keys that configurations call it by."""
LAYERS = (2, 4, 8)
"""Layers of the twin, tried in turn until every kind of layer of the real model is among them."""


@dataclass(frozen=True)
class Kept:
    """A proved pair, and in which dtypes it was."""

    pair: WrittenPair
    what: str
    said: str


@dataclass(frozen=True, repr=False)
class MapReport(Records):
    """What was found for a model.

    Attributes:
        written: the map, of kept pairs only.
        kept: every pair of it.
        refused: what was proposed and changed an output -> the reason.
        not_expressible: what the gradients show and no declaration can say -> the reason.
        withheld: pairs of the map that this checkpoint cannot offer -> the reason.
        num_pairs: pairs bound to the checkpoint's tensors.
        on_model: what the real model said under a lock of the pairs; "" where it was not asked.
    """

    written: WrittenMap
    kept: tuple[Kept, ...]
    refused: Mapping[str, str]
    not_expressible: Mapping[str, str]
    withheld: Mapping[str, str]
    num_pairs: int
    on_model: str = ""

    @property
    def proposed(self) -> int:
        """How many templates of pairs were tried on the twin."""
        return len(self.kept) + len(self.refused)

    def summary(self) -> dict[str, str]:
        """See `Result`."""
        return {
            "model_type": self.written.model_type,
            "proposed": brief(self.proposed),
            "kept": brief(len(self.kept)),
            "refused": brief(len(self.refused)),
            "found, not expressible": brief(len(self.not_expressible)),
            "pairs in the checkpoint": brief(self.num_pairs),
        }

    def records(self) -> list[dict[str, Any]]:
        """A row a proposal."""
        rows = [{"what": k.what, "kind": k.pair.kind, "verdict": "kept", "reason": k.said} for k in self.kept]
        for verdict in ("refused", "not_expressible", "withheld"):
            found = getattr(self, verdict)
            rows += [{"what": what, "kind": "", "verdict": verdict, "reason": reason} for what, reason in found.items()]
        return rows


def map_checkpoint(checkpoint: Checkpoint) -> MapReport:
    """The automatic map of a checkpoint; nothing but its config.json and its tensors' shapes is read.

    Raises:
        ArchitectureError: no twin of it can be built, it has layers of a make that no twin shows, or no pair is left.
    """
    from transformers import AutoConfig

    from specdef.models.loading import model_class, quiet, reason

    try:
        with quiet():
            config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    except Exception as error:  # whatever a stranger's config makes transformers raise
        raise ArchitectureError(
            f"`map` auto must read config.json with transformers; it cannot ({reason(error)}). Repair it."
        ) from error
    return automatic_map(config, dict(checkpoint.config), checkpoint.shapes, model_class(Path(checkpoint.folder)))


def automatic_map(config: Any, raw: Mapping[str, Any], shapes: Shapes, model_class: Any) -> MapReport:
    """Find and prove the pairs of a model.

    Args:
        config: transformers' configuration of it.
        raw: its ``config.json``.
        shapes: its tensors.
        model_class: what builds it.

    Raises:
        ArchitectureError: as said at `map_checkpoint`.
    """
    from specdef.mapping.declare import Declarer
    from specdef.mapping.relations import measure
    from specdef.mapping.views import Namer

    twin, frame, lengths = _fitting_twin(config, shapes, model_class)
    full = config.to_dict()
    real, small = (_inner(values, frame.text_config) for values in ({**full, **raw}, twin.config))
    namer = Namer((small, read_sizes(frame, small)), (real, read_sizes(frame, real)))
    candidates, told = Declarer(twin, measure(twin), frame, lengths, namer).pairs()
    frame = replace(frame, defaults=_defaults(frame, candidates, real, _inner(raw, frame.text_config)))
    outcomes = _proved(twin, frame, candidates)
    kept = [pair for pair in candidates if outcomes[_what(pair)].kept]
    refused = {_what(p): outcomes[_what(p)].said for p in candidates if not outcomes[_what(p)].kept}
    not_expressible = {one.what: one.reason for one in told}
    written = replace(
        frame, pairs=tuple(kept), exclusions=tuple({**refused, **not_expressible}.items()), made_by=_made_by()
    )
    if not kept:
        raise ArchitectureError(
            f"`map` auto must find a pair that holds to the bit in a small model of {config.model_type!r}; it finds "
            f"none ({_some({**refused, **not_expressible})}). {DECLARE}"
        )
    bound = resolve(raw, shapes, architecture_from(written))
    if not bound.pairs:
        raise ArchitectureError(
            "`map` auto must leave a pair for this checkpoint; it leaves none "
            f"({_some({one.what: one.reason for one in bound.withheld})}). {DECLARE}"
        )
    return MapReport(
        written=written,
        kept=tuple(Kept(pair, _what(pair), _said(outcomes[_what(pair)])) for pair in kept),
        refused=refused,
        not_expressible=not_expressible,
        withheld={e.what: e.reason for e in bound.withheld},
        num_pairs=len(bound.pairs),
    )


def _said(outcome: Outcome) -> str:
    return f"exact in {', '.join(outcome.exact)}" + (f" ({outcome.said})" if outcome.said else "")


def _some(found: Mapping[str, str]) -> str:
    return "; ".join(f"{what}: {reason}" for what, reason in list(found.items())[:2]) or "no relation between gradients"


def _made_by() -> str:
    import transformers

    from specdef import __version__

    return f"specdef {__version__} --map auto, transformers {transformers.__version__}"


def _inner(config: Mapping[str, Any], key: str | None) -> dict[str, Any]:
    return dict(config[key]) if key is not None and key in config else dict(config)


def _fitting_twin(
    config: Any, shapes: Shapes, model_class: Any
) -> tuple[Twin, WrittenMap, dict[tuple[str, str], tuple[int, ...]]]:
    """A twin with every kind of layer that the real model has, the frame of its map, and the real lengths."""
    from specdef.mapping.shrink import TWINS
    from specdef.mapping.twin import build_twin

    for layers in LAYERS:
        twin = build_twin(config, model_class, tuple(replace(sizes, layers=layers) for sizes in TWINS))
        frame = frame_of(twin)
        try:
            return twin, frame, _lengths(frame, shapes)
        except ArchitectureError:
            if layers == LAYERS[-1]:
                raise
    raise AssertionError


def frame_of(twin: Twin) -> WrittenMap:
    """The map of a twin without its pairs: stacks of layers, kinds of layer, names of sizes."""
    names = list(twin.shapes)
    stacks = sorted({m.group(1) for name in names if (m := re.match(r"(.+?)\.[0-9]+\..+\..+$", name))})
    stacks = [stack for stack in stacks if not re.search(r"\.[0-9]+(\.|$)", stack)]
    if not stacks:
        raise ArchitectureError(
            f"`map` auto must find layers by number in the tensors' names of {twin.config['model_type']!r}; it finds "
            f"none. {DECLARE}"
        )
    layers: dict[str, set[str]] = {}
    for name in names:
        split = split_layer(name, stacks)
        if split is not None:
            layers.setdefault(split[0], set()).add(split[1])
    kinds: dict[tuple[str, ...], str] = {}
    for path, rels in layers.items():
        stack = path.rpartition(".")[0].rpartition(".")[2]
        kinds.setdefault(tuple(sorted(rels)), f"{stack}{len(kinds)}")
    inner = "text_config" if isinstance(twin.config.get("text_config"), dict) else None
    sizes = _inner(twin.config, inner)
    keys = {size: key for size, known in ALIASES.items() for key in reversed(known) if isinstance(sizes.get(key), int)}
    return WrittenMap(
        model_type=twin.config["model_type"],
        stacks=tuple(stacks),
        kinds={kind: rels for rels, kind in kinds.items()},
        keys=keys,
        pairs=(),
        roots=tuple(sorted(name for name in names if split_layer(name, stacks) is None)),
        text_config=inner,
    )


def _lengths(frame: WrittenMap, shapes: Shapes) -> dict[tuple[str, str], tuple[int, ...]]:
    """Shapes of the real model by kind of layer and name in it.

    Raises:
        ArchitectureError: a layer is of no kind that the twin has.
    """
    from specdef.architectures.written import kinds_of_layers

    kinds = kinds_of_layers(frame, shapes)
    lengths = {}
    for name, shape in shapes.items():
        path = split_layer(name, frame.stacks)
        lengths["" if path is None else kinds[path[0]], name if path is None else path[1]] = tuple(shape)
    return lengths


def _defaults(
    frame: WrittenMap, pairs: Sequence[WrittenPair], full: Mapping[str, Any], raw: Mapping[str, Any]
) -> dict[str, int]:
    """Values of the keys the map reads, where config.json leaves them out because they are the class's own."""
    parts = {
        word
        for pair in pairs
        for slot in (*pair.producers, *pair.consumers)
        for size in (*slot.layout.parts, slot.layout.outer, slot.layout.repeat)
        for word in size.split("*")
    }
    wanted = (*frame.keys.values(), *parts)
    return {key: full[key] for key in wanted if isinstance(full.get(key), int) and key not in raw}


def bind(twin: Twin, frame: WrittenMap, pairs: Sequence[WrittenPair]) -> tuple[ResolvedPair, ...]:
    """Pairs bound to the twin's own tensors."""
    own = replace(frame, pairs=tuple(pairs), defaults={})
    return resolve(twin.config, twin.shapes, architecture_from(own)).pairs


def _proved(twin: Twin, frame: WrittenMap, pairs: Sequence[WrittenPair]) -> dict[str, Outcome]:
    """Every pair by itself in all layers at once; then all that hold, at once."""
    from specdef.mapping.proof import Outcome, prove

    if not pairs:
        return {}
    sets: dict[str, Sequence[ResolvedPair]] = {}
    outcomes: dict[str, Outcome] = {}
    for pair in pairs:
        bound = bind(twin, frame, [pair])
        if bound:
            sets[_what(pair)] = bound
        else:  # a head that the twin's configuration withholds
            outcomes[_what(pair)] = Outcome({}, "withheld: the output embedding is tied, or may have another reader")
    outcomes |= prove(twin, sets)
    held = [pair for what, bound in sets.items() if outcomes[what].kept for pair in bound]
    together = prove(twin, {"all": held})["all"] if held else Outcome({})
    if held and not together.kept:
        outcomes = {
            what: replace(o, exact={}, said=f"all pairs at once: {together.said}") for what, o in outcomes.items()
        }
    return outcomes


def _what(pair: WrittenPair) -> str:
    def side(slots: Sequence[Any]) -> str:
        names = dict.fromkeys(
            EXPERT.sub("*", s.tensor).removesuffix(".weight") + (" (1 + w)" if s.offset else "") for s in slots
        )
        return " + ".join(names)

    place = f"{pair.place}: " if pair.place else ""
    return f"{place}{side(pair.producers)} -> {side(pair.consumers)}"
