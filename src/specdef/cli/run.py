"""run: a study file of models, defences, attacks and seeds, from the first model made to tables and a page."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from specdef.cli import options as given
from specdef.cli import parse
from specdef.cli.cells import cells_shown
from specdef.cli.dry_run import told
from specdef.cli.options import Workers, option
from specdef.cli.render import say
from specdef.errors import SpecdefError


def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study file, YAML.")],
    out: Annotated[Path | None, option("Folder of the study; the same command resumes or extends it.")] = None,
    workers: Workers = None,
    threads: given.Threads = None,
    device: given.Device = None,
    ray: given.Ray = None,
    gpus_per_cell: given.GpusPerCell = 0.0,
    formats: given.Formats = None,
    dry_run: Annotated[bool, option("Tell layers, cells, memory, hours; write nothing.", "--dry-run")] = False,
    devices_per_cell: given.DevicesPerCell = 1,
    tflops: Annotated[
        float | None, option("--dry-run: 10^12 operations a second that a device reaches (default 100).")
    ] = None,
) -> None:
    """Run a study file: models, defences, attacks and seeds, to tables, a picture and one page.

    Example: specdef run study.yaml --out results --formats tex,pdf
    """
    from specdef.certify.resources import Resources
    from specdef.certify.study_run import run_study
    from specdef.report.exports import check_formats, write_reports
    from specdef.report.plots import require_matplotlib

    resources = Resources(workers, threads, device, ray, gpus_per_cell, devices_per_cell=devices_per_cell)
    if dry_run:
        say(*told(study, devices_per_cell, tflops, workers))
        return
    if tflops is not None:
        raise SpecdefError(f"`tflops` must be given with --dry-run alone; got {tflops:g}. Leave it out.")
    if out is None:
        raise SpecdefError("`out` must be given: the study's folder. Only --dry-run writes nothing.")
    wanted = parse.words(formats) or ()
    check_formats(wanted)
    require_matplotlib()
    with cells_shown(f"loading the models of {study}", quiet=False) as watch:
        run_study(
            study,
            out,
            resources=resources,
            on_stage=watch.on_stage,
            on_cell=watch.on_cell,
            on_event=watch.on_event,
            command=shlex.join(["specdef", *sys.argv[1:]]),
        )
    say(*(f"Wrote {path}" for path in write_reports(out, wanted)))
