"""The report as one HTML file: no script, nothing loaded from elsewhere, every value escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from specdef.certify.certificate import Certificate, CertifiedCell
from specdef.certify.findings import UNLOCKED
from specdef.certify.result import StoredCell
from specdef.certify.verdict_kinds import Slowed, Verdict, holds, is_outright
from specdef.core.text import rate
from specdef.report import phrases
from specdef.report.entries import Entry, PaperTable, paper_tables, slowed_from
from specdef.report.files import write_bytes
from specdef.report.form import number, plain, seconds
from specdef.report.html import document, facts, figure, grid, listing, row, section, table, text
from specdef.report.kind import LOOKS, Kind
from specdef.report.markdown import table_title
from specdef.report.outside import OUTSIDE, outside_budget
from specdef.report.provenance import provenance, recipe_text
from specdef.report.sentences import (
    LEGEND,
    cell_group,
    command,
    headline,
    not_tried,
    verdict_columns,
    verdict_rows,
    verdict_sentences,
)

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
        "target, utility within the budget.",
    ),
}


def write_page(certificate: Certificate, cells: Sequence[StoredCell], pngs: Mapping[str, bytes], path: Path) -> None:
    """Write the report page, whole or not at all.

    Args:
        certificate: what `read_certificate` gave.
        cells: what `read_cells` gave.
        pngs: file name -> PNG, shown in this order.
        path: the HTML file to write.
    """
    write_bytes(path, page(certificate, cells, pngs).encode())


def page(certificate: Certificate, cells: Sequence[StoredCell], pngs: Mapping[str, bytes]) -> str:
    """The report page as text; arguments as in `write_page`."""
    title = f"Certificate: {certificate.subject.name}"
    sections = [
        section("Verdict", _verdict(certificate)),
        section("Target reached outside the utility budget", _outside(certificate, cells)),
        section("Steps to the target by learning rate", _papers(certificate)),
        section("Pictures", "\n".join(figure(png, *CAPTIONS.get(name, (name, ""))) for name, png in pngs.items())),
        section("All cells", _all_cells(certificate, cells)),
        section("What was not tried", listing(not_tried(certificate))),
        section("How to reproduce", _reproduce(certificate)),
        section("Provenance", facts(provenance(certificate), "What was measured, where and with what")),
    ]
    return document(title, _first_words(certificate), sections)


def picture_words(name: str) -> str:
    """What a picture of a certificate shows."""
    return CAPTIONS[name][1]


def look(verdict: Verdict) -> str:
    """The style sheet's class of a verdict."""
    if is_outright(verdict):
        return "open"
    return "slow" if isinstance(verdict, Slowed) else "held" if holds(verdict) else "none"


def _first_words(certificate: Certificate) -> str:
    verdicts = certificate.verdicts
    classes = [look(verdict) for verdict in verdicts.values()]
    worst = next((name for name in ("open", "slow", "held") if name in classes), "none")
    badges = "".join(
        f'<li class="badge {look(verdict)}">{text(name)}: {text(phrases.verdict(verdict))}</li>'
        for name, verdict in verdicts.items()
    )
    return f'<p class="headline {worst}">{text(headline(certificate))}</p>\n<ul class="badges">{badges}</ul>'


def _verdict(certificate: Certificate) -> str:
    sentences = listing(verdict_sentences(certificate, name) for name in certificate.threat_models)
    caption = "The most successful attack of every threat model, beside the undefended model"
    return sentences + table(verdict_columns(certificate), verdict_rows(certificate), caption, look="verdict")


def _outside(certificate: Certificate, cells: Sequence[StoredCell]) -> str:
    found = outside_budget(certificate, cells)
    return f"<p>{text(OUTSIDE)}</p>\n{listing(found)}" if found else ""


def _papers(certificate: Certificate) -> str:
    tables = [_paper(table) for table in paper_tables(certificate)]
    return f'<p class="legend">{text(LEGEND)}</p>\n' + "\n".join(tables)


def _paper(found: PaperTable) -> str:
    heading = f"<h3>{text(table_title(found))}</h3>\n"
    if not found.entries:
        return f"{heading}<p>No cells were run.</p>"
    rows = []
    for attack in found.attacks:
        entries = [found.entries.get((attack, lr)) for lr in found.rates]
        cells = [_paper_entry(entry, undefended=found.name == UNLOCKED) for entry in entries]
        rows.append(row(phrases.attack_without_rate(attack), cells))
    columns = ("attack", *map(rate, found.rates))
    return heading + grid(columns, rows, "Rows: attacks. Columns: learning rates.", look="paper")


def _paper_entry(entry: Entry | None, *, undefended: bool) -> str:
    if entry is None:
        return "<td></td>"
    words = {Kind.REGAINED: "broken, utility regained"}
    word, look = words.get(entry.kind, phrases.kind(entry.kind)), LOOKS[entry.kind]
    if undefended and entry.valid:
        word, look = "reached" if entry.broken else "not reached", "none"
    small = ", ".join([*([word] if entry.valid else []), *entry.notes])
    return f'<td class="{look}">{text(entry.main)}<small>{text(small)}</small></td>'


def _all_cells(certificate: Certificate, cells: Sequence[StoredCell]) -> str:
    files = {cell.key: cell for cell in cells}
    groups: dict[str, list[CertifiedCell]] = {}
    for one in certificate.cells:
        groups.setdefault(one.threat_model, []).append(one)
    parts = []
    missing = len({one.cell for one in certificate.cells} - set(files))
    if missing:
        parts.append(f'<p class="note">The result files of {missing} cells are not in this folder; their evaluations '
                     "are missing below.</p>")  # fmt: skip
    for name, rows in groups.items():
        compared = slowed_from(certificate, name)
        parts.append(f"<h3>{text(cell_group(name))} ({len(rows)} cells)</h3>")
        parts += [_cell(certificate, one, files.get(one.cell), compared) for one in rows]
    return "\n".join(parts)


def _cell(certificate: Certificate, found: CertifiedCell, cell: StoredCell | None, compared: float | None) -> str:
    kind = Entry((found,), compared).kind
    word, look = phrases.SHORT[kind], LOOKS[kind]
    if found.undefended and found.step is not None:
        word, look = "reached", "none"
    attack = phrases.attack(found.attack)
    summary = f"{attack}, seed {found.attack.recipe.seed}"
    said = [f"Cell {found.cell}.", f"Attack: {plain(found.attack.label)}."]
    if found.step is not None:
        said.append(f"Target reached at step {found.step}.")
    elif found.best is not None:
        said.append(f"Best score within the utility budget: {number(found.best.score)}.")
    if found.diverged_at is not None:
        said.append(f"Utility lost at step {found.diverged_at}{', regained later' if found.recovered else ''}.")
    if found.note:
        said.append(f"Note: {found.note}.")
    rest = ""
    if cell is not None:
        said.append(
            f"Ended: {cell.result.reason.value if cell.result.reason else cell.result.note}. "
            f"Training took {seconds(cell.measured.train_seconds)}."
        )
        rest = _evaluations(certificate, cell)
    return (
        f'<details><summary><span class="badge {look}">{text(word)}</span> {text(summary)}'
        f"</summary>\n<p>{text(' '.join(said))}</p>\n{rest}</details>"
    )


def _evaluations(certificate: Certificate, cell: StoredCell) -> str:
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
    return table(("step", "score", certificate.utility.name, "loss of the step"), rows, "Evaluations")


def _reproduce(certificate: Certificate) -> str:
    found = command(certificate)
    said = (
        f"<pre><code>{text(found)}</code></pre>"
        if found
        else "<p>The command was not recorded; the recipe and the digests below decide every result.</p>"
    )
    return f"{said}\n<p>Ordinary recipe: {text(recipe_text(certificate))}. Attacks are named by their difference.</p>"
