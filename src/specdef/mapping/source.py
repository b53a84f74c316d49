"""An automatic map as a file of `architectures/text`, for a person to review."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from specdef.architectures.written import WrittenLayout, WrittenMap, WrittenPair, WrittenSlot

NAMED = {
    WrittenLayout(("hidden",)): "HIDDEN",
    WrittenLayout(("kv_width",)): "KV",
    WrittenLayout(("intermediate",)): "INTERMEDIATE",
    WrittenLayout(("head_dim",), outer="num_kv_heads", repeat="group"): "QUERY_GROUPS",
}
"""Layouts that `spec` has a name for."""
_HEADER = '''"""{title}: found by `specdef map`, to be reviewed by a person.

{made_by}. Every pair below was scaled in a small random model of the configuration, in float32 and bfloat16, and kept
every bit of the output. What the review must add: names of linears for the inject lock, what attackers aim at
(`PartNames`), exclusions in words of its own, and a builder in tests/pico.py.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from specdef.architectures.spec import {names}
from specdef.architectures.written import {helpers}

'''


def family_source(written: WrittenMap) -> str:
    """The Python text of a family's file."""
    layouts = {slot.layout for pair in written.pairs for slot in (*pair.producers, *pair.consumers)}
    others = sorted((layout for layout in layouts if layout not in NAMED), key=repr)
    called = {**NAMED, **{layout: f"layout_{number}" for number, layout in enumerate(others)}}
    return (
        _header(written, layouts, bool(others)) + _frame(written) + _pairs(written, called, others) + _family(written)
    )


def _header(written: WrittenMap, layouts: Iterable[WrittenLayout], own: bool) -> str:
    names = {"Architecture", "Config", "Dims", "Pair", "Slot", *(NAMED[one] for one in layouts if one in NAMED)}
    names |= {"Exclusion"} if written.exclusions else set()
    helpers = ["WrittenMap", "places", *(["WrittenLayout", "channels", "layout_from"] if own else [])]
    return _HEADER.format(
        title=written.model_type,
        made_by=written.made_by,
        names=", ".join(sorted(names, key=_constants_first)),
        helpers=", ".join(sorted(helpers, key=lambda name: (name.islower(), name))),
    )


def _frame(written: WrittenMap) -> str:
    kinds = "".join(
        f"        {_q(kind)}: (\n{_lines(map(_q, rels), 12)}        ),\n" for kind, rels in written.kinds.items()
    )
    return (
        f"FRAME = WrittenMap(\n    model_type={_q(written.model_type)},\n    stacks={_tuple(written.stacks)},\n"
        f"    kinds={{\n{kinds}    }},\n    keys={_mapping(written.keys)},\n    pairs=(),\n)\n"
        '"""Which tensors a layer holds, and what the configuration calls its sizes."""\n\n\n'
    )


def _pairs(written: WrittenMap, called: Mapping[WrittenLayout, str], others: Sequence[WrittenLayout]) -> str:
    own = "".join(f"    {called[layout]} = layout_from({_layout(layout)}, config)\n" for layout in others)
    pairs = "".join(_pair(pair, called) for pair in written.pairs)
    return f"def _pairs(config: Config, dims: Dims) -> Sequence[Pair]:\n{own}    return (\n{pairs}    )\n\n\n"


def _family(written: WrittenMap) -> str:
    pattern = "|".join(stack.replace(".", r"\.") for stack in written.stacks)
    entries = [
        f"name={_q(written.model_type)}",
        f"model_types=({_q(written.model_type)},)",
        'prefixes=("",)',
        'layer_stem="{layer}."',
        rf'layer_pattern=r"(?:{pattern})\.[0-9]{{1,6}}"',
        "pairs=_pairs",
        "places=functools.partial(places, FRAME)",
        "linears={}",
        "inject_default=()",
        'others=tuple("{layer}." + name for names in FRAME.kinds.values() for name in names)',
        f"roots=(\n{_lines(map(_q, written.roots), 8)}    )",
        f"config_defaults={_mapping(written.defaults)}",
    ]
    if written.exclusions:
        said = (f"Exclusion({_q(what)}, {_q(reason)})" for what, reason in written.exclusions)
        entries.append(f"exclusions=(\n{_lines(said, 8)}    )")
    if written.text_config is not None:
        entries.append(f"text_config={_q(written.text_config)}")
    return f"FAMILY = Architecture(\n{_lines(entries, 4)})\n\nFAMILIES = (FAMILY,)\n"


def _q(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _tuple(items: Sequence[str]) -> str:
    return "(" + ", ".join(map(_q, items)) + ("," if len(items) == 1 else "") + ")"


def _mapping(items: Mapping[str, str | int]) -> str:
    return "{" + ", ".join(f"{_q(name)}: {json.dumps(value)}" for name, value in items.items()) + "}"


def _lines(items: Iterable[str], indent: int) -> str:
    return "".join(" " * indent + item + ",\n" for item in items)


def _constants_first(name: str) -> tuple[bool, str]:
    return not name.isupper(), name


def _layout(layout: WrittenLayout) -> str:
    text = f"WrittenLayout({_tuple(layout.parts)}"
    text += "" if layout.outer == "1" else f", outer={_q(layout.outer)}"
    text += "" if layout.index == 0 else f", index={layout.index}"
    text += "" if layout.repeat == "1" else f", repeat={_q(layout.repeat)}"
    return text + ")"


def _pair(pair: WrittenPair, called: Mapping[WrittenLayout, str]) -> str:
    first = pair.producers[0].layout
    size = {"HIDDEN": "d.hidden", "KV": "d.kv_width", "INTERMEDIATE": "d.intermediate"}.get(called[first])
    entries = [
        _q(pair.kind),
        f"(\n{_lines((_slot(one, pair, called) for one in pair.producers), 16)}            )",
        f"(\n{_lines((_slot(one, pair, called) for one in pair.consumers), 16)}            )",
        f"lambda d: {size}" if size else f"functools.partial(channels, {_layout(first)}, config)",
    ]
    usual = {"per": "layer", "degree": 1, "label": "", "place": ""}
    given = {name: getattr(pair, name) for name in usual}
    entries += [f"{name}={json.dumps(value)}" for name, value in given.items() if value != usual[name]]
    return f"        Pair(\n{_lines(entries, 12)}        ),\n"


def _slot(slot: WrittenSlot, pair: WrittenPair, called: Mapping[WrittenLayout, str]) -> str:
    name = slot.tensor if pair.per == "model" else "{layer}." + slot.tensor
    offset = f", offset={slot.offset}" if slot.offset else ""
    return f"Slot({_q(name)}, {slot.axis}, {called[slot.layout]}{offset})"
