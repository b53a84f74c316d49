"""The mark of an outcome in a page's pictures: a shape and a colour of its own, on light and dark ground."""

from __future__ import annotations

from specdef.report.kind import Kind

SHAPES = {
    Kind.BROKEN: "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0 -12 0z",
    Kind.REGAINED: "M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0 -11 0z",
    Kind.SLOWED: "M0 -7L7 0L0 7L-7 0z",
    Kind.COLLAPSE: "M-6.5 -5L6.5 -5L0 6.5z",
    Kind.STALL: "M-5 -5L5 -5L5 5L-5 5z",
    Kind.INVALID: "M-6 0L6 0",
    Kind.CRASHED: "M-5 -5L5 5M-5 5L5 -5",
}
"""Paths around the point a mark stands at."""
FILLED = {Kind.BROKEN, Kind.SLOWED, Kind.COLLAPSE}
"""Kinds whose shape is filled; the others are drawn as lines."""
LIGHT = {
    Kind.BROKEN: "#c04f00",
    Kind.REGAINED: "#a8437f",
    Kind.SLOWED: "#8a6100",
    Kind.COLLAPSE: "#0072b2",
    Kind.STALL: "#1f6fa8",
    Kind.INVALID: "#6e7781",
    Kind.CRASHED: "#3d444d",
}
"""Colours on light ground: those of pictures, dark enough to be seen on white."""
DARK = {
    Kind.BROKEN: "#ff8f57",
    Kind.REGAINED: "#e6a3c8",
    Kind.SLOWED: "#f0c44c",
    Kind.COLLAPSE: "#56b4e9",
    Kind.STALL: "#9fd4f7",
    Kind.INVALID: "#9aa5b1",
    Kind.CRASHED: "#d0d7de",
}
"""Colours on dark ground."""
RING = "M-9.5 0a9.5 9.5 0 1 0 19 0a9.5 9.5 0 1 0 -19 0z"


def mark_class(kind: Kind) -> str:
    """The style sheet's class of a mark."""
    return f"mark-{kind.name.lower()}"


def shape(kind: Kind, *, ringed: bool = False) -> str:
    """A mark's paths, around the origin."""
    ring = f'<path class="ring" d="{RING}"/>' if ringed else ""
    return f'{ring}<path class="{"full" if kind in FILLED else "line"}" d="{SHAPES[kind]}"/>'


def sample(kind: Kind) -> str:
    """A mark as a legend has it."""
    return (
        f'<svg class="sample {mark_class(kind)}" width="20" height="20" viewBox="-10 -10 20 20" aria-hidden="true">'
        f"{shape(kind)}</svg>"
    )


def ring_sample() -> str:
    """The ring around a mark, as a legend has it."""
    return (
        '<svg class="sample" width="20" height="20" viewBox="-10 -10 20 20" aria-hidden="true">'
        f'<path class="ring" d="{RING}"/></svg>'
    )


def mark_style() -> str:
    """The style of every mark, on light and dark ground."""

    def rules(colors: dict[Kind, str]) -> str:
        return " ".join(f".{mark_class(kind)} {{ color: {color}; }}" for kind, color in colors.items())

    return f"{rules(LIGHT)}\n@media (prefers-color-scheme: dark) {{ {rules(DARK)} }}\n"
