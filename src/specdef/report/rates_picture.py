"""The first picture of a page: every cell of a certificate at its learning rate, a row for each threat model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from specdef.certify.certificate import Certificate
from specdef.certify.certified_cell import CertifiedCell
from specdef.certify.findings import UNLOCKED
from specdef.certify.threat_model import ordinary_threats
from specdef.core.text import rate
from specdef.report import phrases
from specdef.report.entries import Entry, rows_of, slowed_from
from specdef.report.form import number
from specdef.report.html import text
from specdef.report.kind import Kind
from specdef.report.links import Link
from specdef.report.marks import mark_class, ring_sample, sample, shape

LANE = 20
"""Height of a line of marks, in pixels."""
APART = 0.055
"""Marks nearer than this share of the width stand above each other: seen apart on a screen 400 pixels wide."""
EDGE = 0.05
"""Share of the width left free at either side."""
MOST_LABELS = 7


@dataclass(frozen=True)
class Scale:
    """A logarithmic axis of learning rates.

    Attributes:
        low: the power of ten at its left.
        high: the power of ten at its right.
    """

    low: int
    high: int

    def at(self, lr: float) -> float:
        """Where a learning rate stands, from 0 at the left to 1 at the right."""
        return EDGE + (1 - 2 * EDGE) * (math.log10(lr) - self.low) / (self.high - self.low)

    @property
    def powers(self) -> range:
        """The powers of ten on it."""
        return range(self.low, self.high + 1)


@dataclass(frozen=True)
class Mark:
    """A cell in a row of the picture.

    Attributes:
        cell: its row in the certificate.
        kind: how it ended.
        ringed: whether the row's verdict names it.
    """

    cell: CertifiedCell
    kind: Kind
    ringed: bool

    @property
    def lr(self) -> float:
        """Its learning rate."""
        return self.cell.attack.recipe.lr


@dataclass(frozen=True)
class Row:
    """A row: its heading in words, and its marks; None where the threat model was not tried."""

    title: str
    marks: tuple[Mark, ...] | None


def scale_of(certificates: Iterable[Certificate]) -> Scale:
    """An axis on which every cell of some certificates has its place."""
    rates = [row.attack.recipe.lr for one in certificates for row in one.cells if row.attack.recipe.lr > 0]
    low = math.floor(math.log10(min(rates, default=1e-5)))
    return Scale(low, max(math.ceil(math.log10(max(rates, default=1e-5))), low + 1))


def rows(certificate: Certificate) -> list[Row]:
    """The undefended model, then every threat model with the cells its verdict is read from, then what is left."""
    found = [Row(phrases.row_title(UNLOCKED, certificate.unlocked), _marks(certificate, UNLOCKED))]
    for name, verdict in certificate.threat_models.items():
        found.append(Row(phrases.row_title(name, verdict), _marks(certificate, name)))
    found += [
        Row(phrases.row_title(name), None) for name in ordinary_threats() if name not in certificate.threat_models
    ]
    drawn = {mark.cell.cell for row in found for mark in row.marks or ()}
    left = dict.fromkeys(row.threat_model for row in certificate.cells if row.attacks_task and row.cell not in drawn)
    return found + [Row(phrases.titled(name), _marks(certificate, name)) for name in left]


def _marks(certificate: Certificate, name: str) -> tuple[Mark, ...]:
    verdict = certificate.unlocked if name == UNLOCKED else certificate.threat_models.get(name)
    ringed = None if verdict is None else verdict.cell
    compared = slowed_from(certificate, name)
    cells = [row for row in rows_of(certificate, name) if row.attack.recipe.lr > 0]
    marks = [Mark(row, Entry((row,), compared).kind, row.cell == ringed) for row in cells]
    order = list(Kind)
    return tuple(sorted(marks, key=lambda mark: (not mark.ringed, order.index(mark.kind), mark.lr)))


def lanes(marks: Sequence[Mark], scale: Scale) -> list[int]:
    """The line every mark stands on, 0 the lowest: the first where it touches no other."""
    taken: list[list[float]] = []
    found = []
    for mark in marks:
        x = scale.at(mark.lr)
        free = (index for index, line in enumerate(taken) if all(abs(x - other) >= APART for other in line))
        lane = next(free, len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append(x)
        found.append(lane)
    return found


def rates_picture(certificate: Certificate, link: Link, *, title: str, scale: Scale | None = None) -> str:
    """The picture as part of a page; `explanation` stands above it.

    Args:
        certificate: whose cells are drawn.
        link: where a mark leads.
        title: what the picture is called.
        scale: the axis, where several pictures share one.
    """
    scale = scale or scale_of([certificate])
    body = "\n".join(_row(row, scale, link) for row in rows(certificate))
    caption = f"<figcaption><strong>{text(title)}</strong></figcaption>"
    return f'<figure class="rates">\n{caption}\n{body}\n{_axis(scale)}\n</figure>'


def explanation(certificates: Iterable[Certificate]) -> str:
    """How the pictures of some certificates are read, and what every mark in them means."""
    seen = {mark.kind for one in certificates for row in rows(one) for mark in row.marks or ()}
    legend = [f"<li>{sample(kind)} {text(phrases.in_picture(kind))}</li>" for kind in Kind if kind in seen]
    legend.append(f"<li>{ring_sample()} {text(phrases.RINGED)}</li>")
    return f'<p class="legend">{text(phrases.PICTURE)}</p>\n<ul class="marks">{"".join(legend)}</ul>'


def _row(row: Row, scale: Scale, link: Link) -> str:
    title = f'<p class="row">{text(row.title)}</p>'
    if not row.marks:
        return title + (f'<p class="row none">{text(phrases.NO_CELLS)}</p>' if row.marks is not None else "")
    where = lanes(row.marks, scale)
    height = LANE * (max(where) + 1) + 4
    lines = "".join(
        f'<line class="grid" x1="{_percent(scale, power)}" x2="{_percent(scale, power)}" y1="0" y2="{height}"/>'
        for power in scale.powers
    )
    drawn = sorted(zip(row.marks, where, strict=True), key=lambda pair: (pair[0].lr, pair[1]))
    marks = "\n".join(_mark(mark, scale, height - 2 - LANE * (lane + 0.5), link) for mark, lane in drawn)
    return (
        f'{title}\n<svg class="lanes" role="group" aria-label="{text(row.title)}" width="100%" height="{height}">'
        f"{lines}\n{marks}</svg>"
    )


def _mark(mark: Mark, scale: Scale, y: float, link: Link) -> str:
    cell = mark.cell
    said = text(phrases.mark_title(cell, mark.kind))
    target = link(cell.cell)
    href = "" if target is None else f' href="{escape(target)}"'
    return (
        f'<a class="{mark_class(mark.kind)}"{href}><title>{said}</title>'
        f'<svg x="{100 * scale.at(mark.lr):.3f}%" y="{number(y)}" width="1" height="1" overflow="visible">'
        f'<rect class="touch" x="-10" y="-10" width="20" height="20"/>{shape(mark.kind, ringed=mark.ringed)}</svg></a>'
    )


def _axis(scale: Scale) -> str:
    every = math.ceil(len(scale.powers) / MOST_LABELS)
    labels = "".join(
        f'<text x="{_percent(scale, power)}" y="14" text-anchor="middle">{text(rate(10.0**power))}</text>'
        for power in scale.powers
        if (power - scale.low) % every == 0
    )
    return (
        f'<svg class="axis" role="img" aria-label="{text(phrases.axis(scale.low, scale.high))}" width="100%" '
        f'height="20">{labels}</svg>\n<p class="axis" aria-hidden="true">{text(phrases.AXIS)}</p>'
    )


def _percent(scale: Scale, power: int) -> str:
    return f"{100 * scale.at(10.0**power):.3f}%"
