"""The report as one HTML file: no script, nothing loaded from elsewhere, every value escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from specdef.certify.certificate import Certificate
from specdef.certify.findings import UNLOCKED
from specdef.certify.result import StoredCell
from specdef.core.text import rate
from specdef.report import phrases
from specdef.report.cell_entries import cell_entries
from specdef.report.entries import Entry, PaperTable, paper_tables
from specdef.report.html import document, facts, figure, grid, linked, listing, row, section, text
from specdef.report.invariant import INVARIANT, invariant_attackers
from specdef.report.kind import LOOKS, Kind
from specdef.report.links import run_links, to_entry, to_files
from specdef.report.markdown import table_title
from specdef.report.outside import OUTSIDE, outside_budget
from specdef.report.provenance import provenance, recipe_text
from specdef.report.rates_picture import explanation, rates_picture
from specdef.report.sentences import LEGEND, command, not_tried
from specdef.report.verdict_cards import cost_table, first_words, verdict_cards

HEATMAP, TRAJECTORIES = "heatmap.png", "trajectories.png"
CAPTIONS = {
    HEATMAP: (
        "How full fine-tuning with the ordinary recipe ended, by learning rate and multiplier",
        "Each square says the outcome of its most successful seed and the steps to the target, or the best score "
        "within the utility budget. Empty squares were not tried.",
    ),
    TRAJECTORIES: (
        "Score against utility for every cell",
        "Each line is a run, from step 0 on. An attack succeeds in the upper left: score at or above the "
        "target, utility within the budget.",
    ),
}


FILES = "cells"


def page(
    certificate: Certificate, cells: Sequence[StoredCell], pngs: Mapping[str, bytes], *, files: str = FILES
) -> str:
    """The report page as text.

    Verdicts and how sure they are stand first, then every run in one picture, then what breaking cost and what was not
    tried. The rest is for whoever wants to know more.

    Args:
        certificate: what `read_certificate` gave.
        cells: what `read_cells` gave; their evaluations are shown.
        pngs: file name -> PNG, shown in this order below the tables.
        files: the folder of the cells' result files, as seen from the page.
    """
    title = f"Certificate: {certificate.subject.name}"
    to_file = to_files(files, (cell.key for cell in cells))
    sections = [
        section("Verdicts, and how sure they are", verdict_cards(certificate, to_entry)),
        section("Every run by learning rate", _rates(certificate)),
        section("Cost to break", cost_table(certificate, to_entry)),
        section("What was not tried", listing(not_tried(certificate))),
        section("Target reached outside the utility budget", _said(OUTSIDE, outside_budget(certificate, cells))),
        section("Invariant attackers", _said(INVARIANT, invariant_attackers(certificate))),
        section("Steps to the target by learning rate", _papers(certificate)),
        section("Score and utility on the way", _pictures(certificate, cells, pngs)),
        section("All cells", cell_entries(certificate, cells, to_file)),
        section("How to reproduce", _reproduce(certificate)),
        section("Provenance", facts(provenance(certificate), "What was measured, where and with what")),
    ]
    return document(title, first_words(certificate), sections)


def _rates(certificate: Certificate) -> str:
    return explanation([certificate]) + rates_picture(certificate, to_entry, title=phrases.PICTURE_TITLE)


def _pictures(certificate: Certificate, cells: Sequence[StoredCell], pngs: Mapping[str, bytes]) -> str:
    there = {cell.key for cell in cells}
    rows = [row for row in certificate.cells if row.attacks_task and row.cell in there]
    links = list(run_links(certificate, to_entry, rows).values())
    return "\n".join(figure(png, *CAPTIONS.get(name, (name, "")), links=links) for name, png in pngs.items())


def picture_words(name: str) -> str:
    """What a picture of a certificate shows."""
    return CAPTIONS[name][1]


def _said(about: str, found: list[str]) -> str:
    return f"<p>{text(about)}</p>\n{listing(found)}" if found else ""


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
        word, look = phrases.REACHED if entry.broken else phrases.NOT_REACHED, "none"
    small = ", ".join([*([word] if entry.valid else []), *entry.notes])
    main = linked(to_entry(entry.rows[0].cell), entry.main)
    return f'<td class="{look}">{main}<small>{text(small)}</small></td>'


def _reproduce(certificate: Certificate) -> str:
    found = command(certificate)
    said = (
        f"<pre><code>{text(found)}</code></pre>"
        if found
        else "<p>The command was not recorded; the recipe and the digests below decide every result.</p>"
    )
    return f"{said}\n<p>Ordinary recipe: {text(recipe_text(certificate))}. Attacks are named by their difference.</p>"
