"""The report as one HTML file: no script, nothing loaded from elsewhere, every value escaped."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from specdef.certify.result import StoredCell
from specdef.certify.verdict_kinds import Slowed, Verdict, holds, is_outright
from specdef.report.certificate import table_title
from specdef.report.entries import UNLOCKED, Entry, Kind, PaperTable, Row, number, paper_tables, rate, slowed_from
from specdef.report.files import write_bytes
from specdef.report.outside import OUTSIDE, outside_budget
from specdef.report.sentences import (
    LEGEND,
    VERDICT_COLUMNS,
    command,
    headline,
    label,
    not_tried,
    plain,
    provenance,
    recipe_text,
    seconds,
    shortened,
    verdict_of,
    verdict_rows,
    verdict_sentences,
)
from specdef.report.style import CSS

HEATMAP, TRAJECTORIES = "heatmap.png", "trajectories.png"
CAPTIONS = {
    HEATMAP: (
        "How full fine-tuning with AdamW ended, by learning rate and multiplier",
        "Each square says the outcome of its most successful seed and the steps to the target, or the best score "
        "within the utility budget. Empty squares were not tried.",
    ),
    TRAJECTORIES: (
        "Score against utility for every cell",
        "Each line is a cell, from step 0 at ratio 1. An attack succeeds in the upper left: score at or above the "
        "target, perplexity within the budget.",
    ),
}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
KIND_CLASS = {
    Kind.BROKEN: "open",
    Kind.REGAINED: "open",
    Kind.SLOWED: "slow",
    Kind.COLLAPSE: "held",
    Kind.STALL: "held",
    Kind.INVALID: "none",
    Kind.CRASHED: "none",
}


def write_page(
    certificate: Mapping[str, Any], cells: Sequence[StoredCell], pngs: Mapping[str, bytes], path: Path
) -> None:
    """Write the report page, whole or not at all.

    Args:
        certificate: what `read_certificate` gave.
        cells: what `read_cells` gave.
        pngs: file name -> PNG, shown in this order.
        path: the HTML file to write.
    """
    write_bytes(path, page(certificate, cells, pngs).encode())


def page(certificate: Mapping[str, Any], cells: Sequence[StoredCell], pngs: Mapping[str, bytes]) -> str:
    """The report page as text; arguments as in `write_page`."""
    title = f"Certificate: {certificate['subject']['name']}"
    sections = [
        f"<header><h1>{_text(title)}</h1>{_first_words(certificate)}</header>",
        _section("Verdict", _verdict(certificate)),
        _section("Target reached outside the utility budget", _outside(certificate, cells)),
        _section("Steps to the target by learning rate", _papers(certificate)),
        _section("Pictures", "\n".join(_figure(name, png) for name, png in pngs.items())),
        _section("All cells", _all_cells(certificate, cells)),
        _section("What was not tried", _list(not_tried(certificate))),
        _section("How to reproduce", _reproduce(certificate)),
        _section("Provenance", _provenance(certificate)),
    ]
    body = "\n".join(filter(None, sections))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    return escape(plain(value))


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{_text(title)}</h2>\n{content}\n</section>" if content else ""


def _class(verdict: Verdict) -> str:
    if is_outright(verdict):
        return "open"
    return "slow" if isinstance(verdict, Slowed) else "held" if holds(verdict) else "none"


def _first_words(certificate: Mapping[str, Any]) -> str:
    verdicts = {name: verdict_of(entry) for name, entry in certificate["threat_models"].items()}
    classes = [_class(verdict) for verdict in verdicts.values()]
    worst = next((name for name in ("open", "slow", "held") if name in classes), "none")
    badges = "".join(
        f'<li class="badge {_class(verdict)}">{_text(name)}: {_text(verdict.to_wire())}</li>'
        for name, verdict in verdicts.items()
    )
    return f'<p class="headline {worst}">{_text(headline(certificate))}</p>\n<ul class="badges">{badges}</ul>'


def _verdict(certificate: Mapping[str, Any]) -> str:
    sentences = _list(verdict_sentences(certificate, name) for name in certificate["threat_models"])
    caption = "The most successful attack of every threat model, beside the undefended model"
    return sentences + _table(VERDICT_COLUMNS, verdict_rows(certificate), caption, look="verdict")


def _outside(certificate: Mapping[str, Any], cells: Sequence[StoredCell]) -> str:
    found = outside_budget(certificate, cells)
    return f"<p>{_text(OUTSIDE)}</p>\n{_list(found)}" if found else ""


def _papers(certificate: Mapping[str, Any]) -> str:
    tables = [_paper(table) for table in paper_tables(certificate)]
    return f'<p class="legend">{_text(LEGEND)}</p>\n' + "\n".join(tables)


def _paper(table: PaperTable) -> str:
    heading = f"<h3>{_text(table_title(table))}</h3>\n"
    if not table.entries:
        return f"{heading}<p>No cells were run.</p>"
    head = "".join(f'<th scope="col">{rate(lr)}</th>' for lr in table.rates)
    rows = []
    for attack in table.attacks:
        found = [table.entries.get((attack, lr)) for lr in table.rates]
        values = "".join(_paper_entry(entry, undefended=table.name == UNLOCKED) for entry in found)
        rows.append(f'<tr><th scope="row">{_text(shortened(plain(attack)))}</th>{values}</tr>')
    caption = "Rows: attacks. Columns: learning rates."
    return (
        f'{heading}<div class="scroll" tabindex="0"><table class="paper"><caption><span>{caption}</span></caption>'
        f'<thead><tr><th scope="col">attack</th>{head}</tr></thead>\n<tbody>'
        + "\n".join(rows)
        + "</tbody></table></div>"
    )


def _paper_entry(entry: Entry | None, *, undefended: bool) -> str:
    if entry is None:
        return "<td></td>"
    words = {Kind.REGAINED: "broken, utility regained"}
    word, look = words.get(entry.kind, entry.kind.value), KIND_CLASS[entry.kind]
    if undefended and entry.valid:
        word, look = "reached" if entry.broken else "not reached", "none"
    small = ", ".join([*([word] if entry.valid else []), *entry.notes])
    return f'<td class="{look}">{_text(entry.main)}<small>{_text(small)}</small></td>'


def _figure(name: str, png: bytes) -> str:
    title, caption = CAPTIONS.get(name, (name, ""))
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{_text(title)}">'
        f"<figcaption><strong>{_text(title)}.</strong> {_text(caption)}</figcaption></figure>"
    )


def _all_cells(certificate: Mapping[str, Any], cells: Sequence[StoredCell]) -> str:
    files = {cell.key: cell for cell in cells}
    groups: dict[str, list[Row]] = {}
    for row in certificate["cells"]:
        groups.setdefault(row["threat_model"], []).append(row)
    parts = []
    missing = len({row["cell"] for row in certificate["cells"]} - set(files))
    if missing:
        parts.append(f'<p class="note">The result files of {missing} cells are not in this folder; their evaluations '
                     "are missing below.</p>")  # fmt: skip
    for name, rows in groups.items():
        heading = "Undefended model" if name == UNLOCKED else name
        compared = slowed_from(certificate, name)
        parts.append(f"<h3>{_text(heading)} ({len(rows)} cells)</h3>")
        parts += [_cell(row, files.get(row["cell"]), compared) for row in rows]
    return "\n".join(parts)


def _cell(row: Row, cell: StoredCell | None, compared: float | None) -> str:
    kind = Entry("", row["lr"], (row,), compared).kind
    word, look = kind.name.lower(), KIND_CLASS[kind]
    if row["threat_model"] == UNLOCKED and row["step"] is not None:
        word, look = "reached", "none"
    summary = f"{shortened(label(row['attack']), 90)}, seed {row['seed']}"
    facts = [f"Cell {row['cell']}.", f"Attack: {label(row['attack'])}."]
    if row["step"] is not None:
        facts.append(f"Target reached at step {row['step']}.")
    elif row["best_score"] is not None:
        facts.append(f"Best score within the utility budget: {number(row['best_score'])}.")
    if row["diverged_at"] is not None:
        facts.append(f"Utility lost at step {row['diverged_at']}{', regained later' if row['recovered'] else ''}.")
    if row["note"]:
        facts.append(f"Note: {row['note']}.")
    rest = ""
    if cell is not None:
        facts.append(
            f"Ended: {cell.result.reason.value if cell.result.reason else cell.result.note}. "
            f"Training took {seconds(cell.measured.train_seconds)}."
        )
        rest = _evaluations(cell)
    return (
        f'<details><summary><span class="badge {look}">{_text(word)}</span> {_text(summary)}'
        f"</summary>\n<p>{_text(' '.join(facts))}</p>\n{rest}</details>"
    )


def _evaluations(cell: StoredCell) -> str:
    if not cell.result.evaluations:
        return "<p>No evaluations.</p>"

    def shown(value: float | None) -> str:
        return "—" if value is None else number(value)

    rows = [
        (
            str(point.step),
            number(point.score),
            number(point.utility) if math.isfinite(point.utility) else "not finite",
            shown(point.loss),
        )
        for point in cell.result.evaluations
    ]
    return _table(("step", "score", "perplexity", "loss of the step"), rows, "Evaluations")


def _reproduce(certificate: Mapping[str, Any]) -> str:
    found = command(certificate)
    said = (
        f"<pre><code>{_text(found)}</code></pre>"
        if found
        else "<p>The command was not recorded; the recipe and the digests below decide every result.</p>"
    )
    return f"{said}\n<p>Ordinary recipe: {_text(recipe_text(certificate))}. Attacks are named by their difference.</p>"


def _provenance(certificate: Mapping[str, Any]) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{_text(name)}</th><td class="value">{_text(value)}</td></tr>'
        for name, value in provenance(certificate)
    )
    caption = "What was measured, where and with what"
    return f'<table class="provenance"><caption><span>{caption}</span></caption>\n<tbody>{rows}</tbody></table>'


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str, *, look: str = "") -> str:
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in columns)
    lines = []
    for first, *rest in rows:
        values = "".join(f"<td>{_text(value)}</td>" for value in rest)
        lines.append(f'<tr><th scope="row">{_text(first)}</th>{values}</tr>')
    return (
        f'<div class="scroll" tabindex="0"><table class="{look}"><caption><span>{_text(caption)}</span></caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>" + "\n".join(lines) + "</tbody></table></div>"
    )


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(item)}</li>" for item in items) + "</ul>"
