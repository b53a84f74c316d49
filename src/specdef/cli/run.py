"""run: a study file of models, defences, attacks and seeds, from the first model made to tables and a page."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from specdef.cli import options as given
from specdef.cli import parse
from specdef.cli.cells import cells_shown
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
    dry_run: Annotated[bool, option("Tell cells, memory and hours; run and write nothing.", "--dry-run")] = False,
    devices_per_cell: Annotated[int, option("--dry-run: devices that share one attack.")] = 1,
    tflops: Annotated[float, option("--dry-run: 10^12 operations a second that a device reaches.")] = 100.0,
) -> None:
    """Run a study file: models, defences, attacks and seeds, to tables, a picture and one page.

    Example: specdef run study.yaml --out results --formats tex,pdf
    """
    from specdef.certify.resources import Resources
    from specdef.certify.study_run import run_study
    from specdef.report.exports import check_formats, write_reports

    if dry_run:
        say(*_told(study, devices_per_cell, tflops, workers or 1))
        return
    if out is None:
        raise SpecdefError("`out` must be given: the study's folder. Only --dry-run writes nothing.")
    wanted = parse.words(formats) or ()
    check_formats(wanted)
    with cells_shown(f"loading the models of {study}", quiet=False) as watch:
        run_study(
            study,
            out,
            resources=Resources(workers, threads, device, ray, gpus_per_cell),
            on_stage=watch.on_stage,
            on_cell=watch.on_cell,
            on_event=watch.on_event,
            command=shlex.join(["specdef", *sys.argv[1:]]),
        )
    say(*(f"Wrote {path}" for path in write_reports(out, wanted)))


def _told(study: Path, devices: int, tflops: float, workers: int) -> Iterator[str]:
    """What a study takes, line by line."""
    from specdef.certify.forecast import ANSWERS, ASKED, GIB, ROW, forecast

    found = forecast(study, devices=devices, tflops=tflops, workers=workers)
    for one in found.models:
        shapes, memory = one.shapes, one.memory
        parts = {name: value / GIB for name, value in asdict(memory).items()}
        yield f"{one.label}: {shapes.parameters / 1e9:.2f} billion weights in {shapes.layers} layers, {one.cells} cells"
        yield f"  memory of a device: {memory.total / GIB:.1f} GiB, with {devices} to a cell"
        yield "  of it " + ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
    at_once = f"{workers} at a time" if workers > 1 else "one at a time"
    yield f"{found.cells} cells, {at_once}, on {workers * devices} devices in all"
    yield f"{found.device_hours:.1f} device hours, {found.hours:.1f} hours at {tflops:g} TFLOP/s a device"
    yield (
        "Assumed: every weight trained, FSDP2 over the devices of a cell, activation checkpointing, fused attention, "
        f"rows of {ROW} tokens, {ANSWERS} answers of {ASKED} tokens to a question; no time for loading and locking, no "
        "attack that stops early."
    )
