"""The whole report of a results folder. Reads results, never changes them."""

from __future__ import annotations

from pathlib import Path

from specdef.certify.certificate_file import read_cells, read_certificate
from specdef.core.folders import scratch_folder
from specdef.report.files import write_bytes
from specdef.report.heatmaps import heat_map
from specdef.report.markdown import markdown
from specdef.report.page import HEATMAP, TRAJECTORIES, page
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
    cells = read_cells(folder, certificate)
    with scratch_folder(None) as temporary:
        first, second = temporary / HEATMAP, temporary / TRAJECTORIES
        heat_map([certificate], first)
        trajectories(certificate, cells, second)
        pngs = {path.name: path.read_bytes() for path in (first, second)}
    content = {
        MARKDOWN: markdown(certificate, cells).encode(),
        **pngs,
        PAGE: page(certificate, cells, pngs).encode(),
    }
    for name, data in content.items():
        write_bytes(folder / name, data)
    return [folder / name for name in content]
