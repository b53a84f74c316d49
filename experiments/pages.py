"""The pages of the committed certificates, made again from their results, which stay as they are.

``python -m experiments.pages`` writes them where they are committed; ``python -m experiments.pages DIR`` lays the
certificates out in DIR as `specdef certify` does, with a page of each and one that compares them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from specdef.certify.certificate_file import read_cells, read_certificate
from specdef.report.compare import write_comparison
from specdef.report.heatmaps import heat_map
from specdef.report.page import HEATMAP
from specdef.report.write import write_report, write_report_of

CERTIFICATES = Path(__file__).parent / "results" / "certificates"
LATER = Path(__file__).parent / "results" / "biographies"
"""Those of today's rules: each is a results folder by itself."""
NAMES = ("unlocked", "paper", "exact")


def write_committed() -> None:
    """Write the pages beside the committed certificates; all share one folder of cells."""
    for name in NAMES:
        certificate = read_certificate(CERTIFICATES, name=f"{name}.json")
        cells = read_cells(CERTIFICATES, certificate)
        write_report_of(certificate, cells, CERTIFICATES / name, files="../cells")
    for name in NAMES:
        write_report(LATER / name)
    heat_map([read_certificate(LATER / name) for name in NAMES], LATER / HEATMAP)
    write_comparison([LATER / name for name in NAMES], LATER / "compare.html")


def write_apart(out: Path) -> None:
    """Write a results folder for every certificate into `out`, and a page that compares them."""
    for name in NAMES:
        shutil.copytree(CERTIFICATES / "cells", out / name / "cells")
        shutil.copy(CERTIFICATES / f"{name}.json", out / name / "certificate.json")
        write_report(out / name)
        shutil.copytree(LATER / name, out / f"biographies-{name}")
    write_comparison([out / name for name in NAMES], out / "compare.html")


if __name__ == "__main__":
    write_apart(Path(sys.argv[1])) if len(sys.argv) > 1 else write_committed()
