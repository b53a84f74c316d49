"""The tables, the picture and the page of a study, from its stored results. Reads results, never changes them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from specdef.certify.study_results import read_results, results_to_csv
from specdef.report.files import write_bytes
from specdef.report.study_markdown import study_markdown
from specdef.report.study_page import study_page
from specdef.report.study_picture import draw_study
from specdef.report.write import write_report

MARKDOWN, TABLE, PICTURE, PAGE = "study.md", "results.csv", "picture.png", "index.html"


def write_study(folder: Path | str) -> list[Path]:
    """Write study.md, results.csv, picture.png and index.html into the folder of a study, and its certificates' pages.

    Args:
        folder: holds the results that `run_study` wrote.

    Returns:
        The files written. Everything of the study itself is made before the first is written.

    Raises:
        SpecdefError: there are no results, matplotlib is missing, or the disk is full.
    """
    folder = Path(folder)
    results = read_results(folder)
    content = {MARKDOWN: study_markdown(results).encode(), TABLE: results_to_csv(results).encode()}
    picture = None
    if any(row.entries for table in results.tables for row in table.rows):
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary, PICTURE)
            draw_study(results, path)
            picture = path.read_bytes()
        content[PICTURE] = picture
    content[PAGE] = study_page(results, picture).encode()
    pages = [path for name in results.certificates for path in write_report(folder / name)]
    for name, data in content.items():
        write_bytes(folder / name, data)
    return [*(folder / name for name in content), *pages]
