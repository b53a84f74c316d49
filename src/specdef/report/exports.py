"""Results in the forms of papers and spreadsheets: CSV, LaTeX, SVG, PDF. Reads results, never changes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from specdef.certify.certificate import Certificate
from specdef.certify.certificate_file import CERTIFICATE, read_cells, read_certificate
from specdef.certify.result import StoredCell
from specdef.certify.store import stored_cells
from specdef.certify.study_results import RESULTS, StudyResults, Table, read_results, results_to_csv
from specdef.core.folders import scratch_folder
from specdef.errors import SpecdefError
from specdef.report.files import write_bytes
from specdef.report.heatmaps import heat_map
from specdef.report.latex import latex_table
from specdef.report.run_table import runs_csv, runs_latex
from specdef.report.runs_page import draw_runs, write_runs_of
from specdef.report.score_picture import Panel, draw_scores
from specdef.report.sentences import headline, verdict_columns, verdict_rows
from specdef.report.study import write_study
from specdef.report.study_picture import draw_study
from specdef.report.study_view import grid, legend, steps_text, table_title
from specdef.report.trajectories import trajectories
from specdef.report.write import write_report_of

FORMATS = ("csv", "tex", "svg", "pdf")
Draw = Callable[[Path], None]


def write_reports(folder: Path | str, formats: Sequence[str] = ()) -> list[Path]:
    """Write the report of a folder again, and its tables and pictures in further forms.

    Args:
        folder: of a certificate, a study, or single attacks.
        formats: any of `FORMATS`. csv and tex are tables, svg and pdf pictures.

    Returns:
        The files written. Those of a further form are made before the first is written.

    Raises:
        SpecdefError: an unknown format, no results, matplotlib is missing, or the disk is full.
    """
    check_formats(formats)
    folder = Path(folder)
    if (folder / RESULTS).is_file():
        return [*write_study(folder), *_write(folder, formats, *_of_study(folder, read_results(folder)))]
    if (folder / CERTIFICATE).is_file():
        certificate = read_certificate(folder)
        cells = read_cells(folder, certificate)
        return [
            *write_report_of(certificate, cells, folder),
            *_write(folder, formats, *_of_certificate(certificate, cells)),
        ]
    cells = stored_cells(folder)
    texts = {"runs.csv": partial(runs_csv, cells), "runs.tex": partial(runs_latex, cells)}
    return [*write_runs_of(cells, folder), *_write(folder, formats, texts, {"runs": partial(draw_runs, cells)})]


def check_formats(formats: Sequence[str]) -> None:
    """Raise SpecdefError unless every name is one of `FORMATS`."""
    for name in formats:
        if name not in FORMATS:
            raise SpecdefError(f"`formats` must be any of {', '.join(FORMATS)}; got {name!r}.")


Texts = Mapping[str, Callable[[], str]]
"""File name -> what makes its content."""
Pictures = Mapping[str, Draw]
"""File name without its ending -> what draws it."""


def _of_study(folder: Path, results: StudyResults) -> tuple[Texts, Pictures]:
    texts = {"results.csv": partial(results_to_csv, results), "study.tex": partial(study_latex, results)}
    if not any(row.entries for table in results.tables for row in table.rows):
        return texts, {}
    curves = partial(draw_scores, study_panels(folder, results), title=results.title)
    return texts, {"picture": partial(draw_study, results), "curves": curves}


def _of_certificate(certificate: Certificate, cells: Sequence[StoredCell]) -> tuple[Texts, Pictures]:
    texts = {"cells.csv": partial(runs_csv, cells), "certificate.tex": partial(certificate_latex, certificate)}
    return texts, {
        "heatmap": partial(heat_map, [certificate]),
        "trajectories": partial(trajectories, certificate, cells),
    }


def _write(folder: Path, formats: Sequence[str], texts: Texts, pictures: Pictures) -> list[Path]:
    wanted = {f".{name}" for name in formats}
    content = {name: make().encode() for name, make in texts.items() if Path(name).suffix in wanted}
    with scratch_folder(None) as temporary:
        for stem, draw in pictures.items():
            for suffix in sorted(wanted & {".svg", ".pdf"}):
                draw(temporary / f"{stem}{suffix}")
                content[f"{stem}{suffix}"] = (temporary / f"{stem}{suffix}").read_bytes()
    for name, data in content.items():
        write_bytes(folder / name, data)
    return [folder / name for name in content]


def study_latex(results: StudyResults) -> str:
    """A table for every model and task of a study, in the papers' form."""
    return "\n".join(_latex(table, results) for table in results.tables)


def _latex(table: Table, results: StudyResults) -> str:
    columns, names, lines = grid(table, results.rows)
    first = "attack" if results.rows == "attacks" else "defence"
    rows = [[name, *map(steps_text, line)] for name, line in zip(names, lines, strict=True)]
    return latex_table([first, *columns], rows, f"{results.title}: {table_title(table)}. {legend(results)}")


def study_panels(folder: Path, results: StudyResults) -> dict[str, Panel]:
    """Score against step for `draw_scores`: a panel for every attack, a line for every defence.

    Args:
        folder: of the study; it holds the finished cells.
        results: its results.
    """
    cells = {cell.key: cell for cell in stored_cells(folder)}
    panels: dict[str, dict[str, list[StoredCell]]] = {}
    for table in results.tables:
        head = f"{table_title(table)}: " if len(results.tables) > 1 else ""
        for row in table.rows:
            for entry in row.entries:
                found = [cells[key] for key in entry.cells if key in cells and cells[key].result.evaluations]
                panels.setdefault(f"{head}{entry.attack}", {})[row.defence] = found
    return {name: {defence: found for defence, found in lines.items() if found} for name, lines in panels.items()}


def certificate_latex(certificate: Certificate) -> str:
    """The verdicts of a certificate."""
    return latex_table(verdict_columns(certificate), verdict_rows(certificate), headline(certificate))
