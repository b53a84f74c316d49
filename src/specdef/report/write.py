"""The whole report of a results folder. Reads results, never changes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from specdef.certify.certificate import Certificate
from specdef.certify.certificate_file import read_cells, read_certificate
from specdef.certify.result import StoredCell
from specdef.core.folders import scratch_folder
from specdef.report.files import write_bytes
from specdef.report.heatmaps import heat_map
from specdef.report.markdown import markdown
from specdef.report.page import FILES, HEATMAP, TRAJECTORIES, page
from specdef.report.trajectories import trajectories

MARKDOWN, PAGE = "certificate.md", "index.html"


def write_report(folder: Path) -> list[Path]:
    """Write certificate.md, heatmap.png, trajectories.png and index.html into a results folder.

    Args:
        folder: holds certificate.json, and the result files in ``cells``.

    Returns:
        The files written. Everything is made before the first is written.

    Raises:
        SpecdefError: the certificate or a result file is malformed, matplotlib is missing, or the disk is full.
    """
    certificate = read_certificate(folder)
    return write_report_of(certificate, read_cells(folder, certificate), folder)


def write_report_of(
    certificate: Certificate, cells: Sequence[StoredCell], folder: Path, *, files: str = FILES
) -> list[Path]:
    """Write the files of `write_report` for a certificate that was read, wherever it lies.

    Args:
        certificate: what `read_certificate` gave.
        cells: what `read_cells` gave.
        folder: where the files are written.
        files: the folder of the cells' result files, as seen from `folder`.

    Returns:
        The files written. Everything is made before the first is written.
    """
    with scratch_folder(None) as temporary:
        first, second = temporary / HEATMAP, temporary / TRAJECTORIES
        heat_map([certificate], first)
        trajectories(certificate, cells, second)
        pngs = {path.name: path.read_bytes() for path in (first, second)}
    content = {
        MARKDOWN: markdown(certificate, cells).encode(),
        **pngs,
        PAGE: page(certificate, cells, {TRAJECTORIES: pngs[TRAJECTORIES]}, files=files).encode(),
    }
    for name, data in content.items():
        write_bytes(folder / name, data)
    return [folder / name for name in content]
