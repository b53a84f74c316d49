"""From relations between sums to a declaration: which side feeds which, of what kind, and what its sizes are called."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from specdef.architectures.spec import PairKind
from specdef.architectures.written import (
    EXPERT,
    WrittenLayout,
    WrittenMap,
    WrittenPair,
    WrittenSlot,
    channels,
    kinds_of_layers,
    split_layer,
)
from specdef.mapping.relations import End, Relation, Sums, find, vector
from specdef.mapping.twin import Twin
from specdef.mapping.views import Namer

INNER_NAMES = ("hidden", "q_width", "kv_width", "head_dim", "v_head_dim", "num_heads", "num_kv_heads")
"""Widths of attention; whatever else lies between two linears is an MLP's."""


@dataclass(frozen=True)
class Refusal:
    """A relation that the gradients show and the map does not hold, with the reason."""

    what: str
    reason: str


@dataclass
class Declarer:
    """Reads pairs off one twin, and names their sizes so that they are right for the real model.

    Attributes:
        twin: whose sums are measured.
        sums: of it.
        frame: the map without pairs.
        lengths: (kind of layer, name in the layer), or ("", name) outside the layers -> shape in the real model.
        namer: of lengths.
    """

    twin: Twin
    sums: Sums
    frame: WrittenMap
    lengths: Mapping[tuple[str, str], tuple[int, ...]]
    namer: Namer

    def pairs(self) -> tuple[list[WrittenPair], list[Refusal]]:
        """Candidates, and what was found and cannot be said in this form."""
        found: list[WrittenPair] = []
        refused: list[Refusal] = []
        used: set[tuple[str, int]] = set()
        layers: dict[str, dict[str, list[str]]] = {}
        for name in self.twin.ids:
            path = split_layer(name, self.frame.stacks)
            if path is not None:
                layers.setdefault(self._kinds[path[0]], {}).setdefault(path[0], []).append(name)
        for kind, members in layers.items():
            counts: Counter[WrittenPair] = Counter()
            said: dict[Refusal, None] = {}
            for names in members.values():
                for relation in self._relations(names, used):
                    pair = self._pair(relation, kind)
                    if isinstance(pair, Refusal):
                        said[pair] = None
                    else:
                        counts[pair] += 1
            for pair, count in counts.items():
                if pair.per == "expert" or count == len(members):
                    found.append(pair)
                else:
                    said[Refusal(_what(pair), f"holds in {count} of {len(members)} layers of this kind")] = None
            refused += said
        for relation in self._relations(list(self.twin.ids), used, outside=True):
            pair = self._pair(relation, "")
            (refused if isinstance(pair, Refusal) else found).append(pair)  # type: ignore[arg-type]
        return _labelled(found), list(dict.fromkeys(refused))

    @functools.cached_property
    def _kinds(self) -> dict[str, str]:
        """Layer of the twin -> its kind."""
        return kinds_of_layers(self.frame, self.twin.shapes)

    def _relations(self, names: Sequence[str], used: set[tuple[str, int]], outside: bool = False) -> list[Relation]:
        """Relations between the axes of some tensors: of whole axes first, then of their parts and groups."""
        relations: list[Relation] = []
        whole = self._ends(names)
        offset = [replace(end, offset=1.0) for end in whole if len(self.twin.shapes[end.tensor]) == 1]
        rounds = [whole, [*whole, *offset]]
        if not outside:
            rounds.append([*whole, *self._views(names)])
        for ends in rounds:
            groups: dict[int, list[End]] = {}
            for end in ends:
                if (end.tensor, end.axis) not in used:
                    groups.setdefault(self._channels(end), []).append(end)
            for group in groups.values():
                vectors: dict[End, Tensor] = {end: self._vector(end) for end in group}
                for relation in find(vectors):
                    read = Counter((end.tensor, end.axis, end.layout) for end in relation.powers)
                    if max(read.values()) == 1:  # else a shift of two biases, not a scale
                        relations.append(relation)
                        used |= {(end.tensor, end.axis) for end in relation.powers}
        return relations

    def _channels(self, end: End) -> int:
        return channels(end.layout, *self.namer.twin)

    def _vector(self, end: End) -> Tensor:
        return vector(end, self.sums, *self.namer.twin)

    def _real(self, name: str, axis: int) -> int:
        path = split_layer(name, self.frame.stacks)
        key = ("", name) if path is None else (self._kinds[path[0]], path[1])
        shape = self.lengths.get(key, ())
        return shape[axis] if axis < len(shape) else -1

    def _ends(self, names: Iterable[str]) -> list[End]:
        """Whole axes."""
        ends = []
        for name in names:
            for axis, length in enumerate(self.twin.shapes[name]):
                layout = self.namer.whole(length, self._real(name, axis)) or WrittenLayout((str(length),))
                ends.append(End(name, axis, layout))
        return ends

    def _views(self, names: Iterable[str]) -> list[End]:
        return [
            End(name, axis, layout)
            for name in names
            for axis, length in enumerate(self.twin.shapes[name])
            for layout in self.namer.views(length, self._real(name, axis))
        ]

    def _pair(self, relation: Relation, kind: str) -> WrittenPair | Refusal:
        """A relation as a pair, or why it is none."""
        sides = [[e for e, p in relation.powers.items() if p * sign > 0] for sign in (1, -1)]
        what = " -> ".join(" + ".join(sorted({self._short(e) for e in side})) or "nothing" for side in sides)
        if not all(sides):
            return Refusal(what, "its scale alone changes nothing")
        orders = [min(self.twin.order[e.tensor] for e in side) for side in sides]
        if orders[0] == orders[1] and not self._feeds(sides[0], sides[1]) and self._feeds(sides[1], sides[0]):
            orders = [1, 0]
        elif orders[0] == orders[1] and self._feeds(sides[0], sides[1]):
            orders = [0, 1]
        producers, consumers = sides if orders[0] < orders[1] else sides[::-1]
        what = " -> ".join(" + ".join(sorted({self._short(e) for e in side})) for side in (producers, consumers))
        powers = [sorted({abs(relation.powers[e]) for e in side}) for side in (producers, consumers)]
        reason = self._refusal(producers, consumers, powers, orders)
        if reason is not None:
            return Refusal(what, reason)
        slots = [
            sorted({self._slot(e) for e in side}, key=lambda s: (s.tensor.endswith("bias"), s.tensor, s.axis))
            for side in (producers, consumers)
        ]
        outside = split_layer(producers[0].tensor, self.frame.stacks) is None
        single = "{expert}" in slots[0][0].tensor
        return WrittenPair(
            self._pair_kind(producers, consumers, outside),
            tuple(slots[0]),
            tuple(slots[1]),
            per="model" if outside else "expert" if single else "layer",
            degree=powers[1][0],
            place=kind if len(self.frame.kinds) > 1 and not outside else "",
        )

    def _refusal(
        self, producers: Sequence[End], consumers: Sequence[End], powers: Sequence[Sequence[int]], orders: Sequence[int]
    ) -> str | None:
        """Why a relation cannot be declared."""
        ends = [*producers, *consumers]
        layers = {None if p is None else p[0] for e in ends for p in (split_layer(e.tensor, self.frame.stacks),)}
        if len(layers) > 1:
            return "its ends lie in different layers"
        if orders[0] == orders[1]:
            return "both ends belong to one module, so neither feeds the other"
        if len(powers[0]) > 1 or powers[0] != [1] or len(powers[1]) > 1:
            return f"powers {powers[0]} and {powers[1]} are not one degree"
        for end in consumers:
            shape = self.twin.shapes[end.tensor]
            if len(shape) == 1:
                return f"{self._short(end)} is a vector: no pair kind scales a vector against what feeds it"
            if end.axis == (1 if end.tensor in self.twin.transposed else 0):
                return f"{self._short(end)} makes channels, it does not read them (query -> key, or a depthwise kernel)"
        for end in ends:
            real = self._real(end.tensor, end.axis)
            if real < 0:
                return f"the checkpoint does not hold {end.tensor}"
            if all(part.isdigit() for part in end.layout.parts) and real != self.twin.shapes[end.tensor][end.axis]:
                return f"the width of {self._short(end)} has no name in config.json"
        experts = {frozenset(EXPERT.findall(e.tensor)) for e in producers}
        if experts != {frozenset()} and (
            len(experts) > 1 or experts != {frozenset(EXPERT.findall(e.tensor)) for e in consumers}
        ):
            return "its ends lie in different experts"
        return None

    def _feeds(self, makers: Sequence[End], readers: Sequence[End]) -> bool:
        """Whether one side makes channels and the other reads them: experts of one module are run in one call."""

        def out(end: End) -> int:
            return 1 if end.tensor in self.twin.transposed else 0

        two = all(len(self.twin.shapes[end.tensor]) == 2 for end in (*makers, *readers))
        return two and all(e.axis == out(e) for e in makers) and all(e.axis != out(e) for e in readers)

    def _short(self, end: End) -> str:
        path = split_layer(end.tensor, self.frame.stacks)
        name = end.tensor if path is None else path[1]
        return name.removesuffix(".weight") + (" (1 + w)" if end.offset else "")

    def _slot(self, end: End) -> WrittenSlot:
        path = split_layer(end.tensor, self.frame.stacks)
        return WrittenSlot(end.tensor if path is None else path[1], end.axis, end.layout, end.offset)

    def _pair_kind(self, producers: Sequence[End], consumers: Sequence[End], outside: bool) -> PairKind:
        dimensions = [len(self.twin.shapes[end.tensor]) for end in (*producers, *consumers)]
        if max(dimensions) > 3:
            return "conv"
        if all(len(self.twin.shapes[end.tensor]) == 1 for end in producers):
            return "head" if outside else "norm"
        layout = next(end.layout for end in producers if len(self.twin.shapes[end.tensor]) > 1)
        words = {word for part in (layout.outer, layout.parts[layout.index]) for word in part.split("*")}
        if words & set(INNER_NAMES):
            return "vo"
        return "updown" if len(layout.parts) > 1 or self._has_gate(producers) else "fc"

    def _has_gate(self, producers: Sequence[End]) -> bool:
        """Whether another matrix beside the producer makes as many channels from the same input."""
        main = next(end for end in producers if len(self.twin.shapes[end.tensor]) > 1)
        stem = main.tensor.removesuffix(".weight").rpartition(".")[0] + "."
        shape = self.twin.shapes[main.tensor]
        return any(n != main.tensor and n.startswith(stem) and self.twin.shapes[n] == shape for n in self.twin.ids)


def _what(pair: WrittenPair) -> str:
    return " -> ".join(
        " + ".join(slot.tensor.removesuffix(".weight") for slot in side) for side in (pair.producers, pair.consumers)
    )


def _labelled(pairs: Sequence[WrittenPair]) -> list[WrittenPair]:
    """Pairs of one kind in one kind of layer told apart by their producer's module."""
    counts = Counter((pair.kind, pair.place, pair.per) for pair in dict.fromkeys(pairs))
    return [
        replace(pair, label=pair.producers[0].tensor.rpartition(".")[0].replace(".{expert}", "").replace(".", "_"))
        if pair.kind == "norm" or counts[pair.kind, pair.place, pair.per] > 1
        else pair
        for pair in dict.fromkeys(pairs)
    ]
