"""The heat map of certificates: outcome by learning rate and multiplier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specdef.certify.certificate import Certificate
from specdef.certify.certified_cell import CertifiedCell
from specdef.certify.findings import UNLOCKED
from specdef.core.text import rate
from specdef.errors import SpecdefError
from specdef.report import phrases
from specdef.report.entries import (
    LOST_ALL,
    LOST_SOME,
    REGAINED,
    Entry,
    but_rate,
    entries_of,
    ordinary_attack,
    slowed_from,
)
from specdef.report.form import number, plain, power, spread
from specdef.report.kind import COLORS, LIGHT_TEXT, Kind
from specdef.report.plots import load_pyplot

MARKS = (
    f"{LOST_SOME} utility lost in some seeds",
    f"{LOST_ALL} utility lost in all seeds",
    f"{REGAINED} utility regained",
    "2/3: seeds that reached the target",
)
Column = tuple[float, str, str]
"""Multiplier, method and the model's digest."""


def heat_map(certificates: Sequence[Certificate], path: Path) -> None:
    """Outcome of full fine-tuning with the ordinary recipe, rate by multiplier; each cell also says it in words.

    Args:
        certificates: of one undefended model and task, each with its own multiplier or method.
        path: the PNG to write.

    Raises:
        SpecdefError: no certificates, or certificates that cannot be compared.
    """
    columns = _columns(certificates)
    names = sorted(columns)
    rates = sorted({entry.lr for entries in columns.values() for entry in entries})
    pyplot = load_pyplot()
    size = (1.2 + 1.3 * max(len(names), 3), 3.1 + 0.5 * max(len(rates), 2))
    figure, axes = pyplot.subplots(figsize=size, layout="constrained")
    for x, name in enumerate(names):
        for entry in columns[name]:
            _square(pyplot, axes, (x, rates.index(entry.lr)), entry, undefended=name[1] == UNLOCKED)
    if not names:
        axes.text(0, 0, "no such cells", ha="center", va="center")
    axes.set_xticks(range(len(names)), _column_labels(names), fontsize=9)
    axes.set_yticks(range(len(rates)), [rate(lr) for lr in rates])
    axes.set(xlim=(-0.5, max(len(names), 1) - 0.5), ylim=(-0.5, max(len(rates), 1) - 0.5))
    axes.set(xlabel="multiplier of the lock", ylabel="learning rate")
    axes.tick_params(length=0)
    axes.set_facecolor("#f7f7f7")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=COLORS[kind], label=phrases.in_legend(kind)) for kind in Kind]
    handles.append(pyplot.Rectangle((0, 0), 1, 1, facecolor="#f7f7f7", edgecolor="#999999", label="not tried"))
    handles += [pyplot.Rectangle((0, 0), 1, 1, alpha=0, label=text) for text in MARKS]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    axes.set_title(
        f"{_optimizer(certificates[0])}, all weights; target {number(certificates[0].task.target)}", fontsize=10
    )
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _optimizer(certificate: Certificate) -> str:
    name = certificate.ordinary.optimizer
    return "AdamW" if name == "adamw" else name


def _columns(certificates: Sequence[Certificate]) -> dict[Column, list[Entry]]:
    """The entries of every multiplier; the cells of the undefended model are the first column."""
    if not certificates:
        raise SpecdefError("`certificates` must hold at least one certificate; got none. Certify a model first.")
    first = _common(certificates[0])
    rows: dict[Column, dict[str, CertifiedCell]] = {}
    steps: dict[Column, float | None] = {}
    for certificate in certificates:
        subject = certificate.subject
        if _common(certificate) != first:
            raise SpecdefError(
                "`certificates` must be of one undefended model, task and recipe; got "
                f"{plain(subject.name)} with others. Draw them apart."
            )
        locked = (certificate.multiplier, subject.method, subject.digest)
        for row in drawn_cells(certificate):
            column = (1.0, UNLOCKED, "") if certificate.is_unlocked or row.undefended else locked
            rows.setdefault(column, {})[row.cell] = row
            steps[column] = None if column[1] == UNLOCKED else slowed_from(certificate, row.threat_model)
    return {
        column: list(entries_of(found.values(), slowed_from=steps[column]).values()) for column, found in rows.items()
    }


def drawn_cells(certificate: Certificate) -> list[CertifiedCell]:
    """The cells of a certificate that a heat map shows: full fine-tuning with the ordinary recipe on the task."""
    ordinary = ordinary_attack(certificate)
    return [row for row in certificate.cells if row.attacks_task and but_rate(row.attack) == ordinary]


def is_comparable(certificates: Sequence[Certificate]) -> bool:
    """Whether certificates are of one undefended model, task, budget and recipe."""
    return all(_common(certificate) == _common(certificates[0]) for certificate in certificates)


def _common(certificate: Certificate) -> tuple[Any, ...]:
    recipe = sorted((name, value) for name, value in certificate.recipe.items() if name not in ("lr", "seed"))
    return certificate.original.digest, certificate.task.digest, certificate.utility.factor, recipe


def _column_labels(columns: Sequence[Column]) -> list[str]:
    """Multiplier and method; the digest's first digits where two models share both."""
    labels = ["unknown" if method == "unknown" else f"{power(alpha)}\n{method}" for alpha, method, _ in columns]
    shared = {text for text in labels if labels.count(text) > 1}
    return [
        f"{text}\n{plain(digest[:8])}" if text in shared else text
        for text, (_, _, digest) in zip(labels, columns, strict=True)
    ]


def _square(pyplot: Any, axes: Any, at: tuple[int, int], entry: Entry, *, undefended: bool) -> None:
    (x, y), kind = at, entry.kind
    axes.add_patch(pyplot.Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=COLORS[kind], lw=0))
    first = "reached" if undefended and entry.broken else phrases.SHORT[kind]
    if entry.steps is not None:
        second = f"{spread(entry.steps, entry.steps_std, len(entry.broken))} steps"
    elif entry.valid and entry.score is not None:
        second = f"score {entry.score:.2g}"
    else:
        second = ""
    if 0 < len(entry.broken) < len(entry.rows):
        first += f" {len(entry.broken)}/{len(entry.rows)}"
    text = "\n".join(filter(None, [first + entry.marks, second]))
    axes.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if kind in LIGHT_TEXT else "black")
