"""compare and report: pages, tables and pictures from stored results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specdef.cli import parse
from specdef.cli.options import Formats, Results, option
from specdef.cli.render import say


def compare(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Results folders, all of `certify` or all of `attack`."),
    ],
    out: Annotated[Path, option("The HTML file to write.")],
) -> None:
    """Set several certificates, or folders of attacks, side by side in one page: what each came to, and what differs.

    Example: specdef compare exact paper --out compared.html
    """
    from specdef.report.compare import write_comparison

    say(write_comparison(folders, out))


def report(folder: Results, formats: Formats = None) -> None:
    """Write the tables, pictures and page of a certificate, study or folder of attacks again, from stored results.

    Example: specdef report results --formats tex,pdf
    """
    from specdef.report.exports import write_reports

    say(*(f"Wrote {path}" for path in write_reports(folder, parse.words(formats) or ())))
