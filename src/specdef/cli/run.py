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
from specdef.cli.options import Workers, option
from specdef.cli.render import say
from specdef.errors import SpecdefError


def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study file, YAML.")],
    out: Annotated[Path | None, option("Folder of the study; the same command resumes or extends it.")] = None,
    workers: Workers = None,
    threads: given.Threads = None,
    device: given.Device = None,
    formats: given.Formats = None,
    dry_run: Annotated[
        bool, option("Resolve every layer and attack on the models' configurations; no weights.", "--dry-run")
    ] = False,
) -> None:
    """Run a study file: models, defences, attacks and seeds, to tables, a picture and one page.

    Example: specdef run study.yaml --out results --formats tex,pdf
    """
    from specdef.certify.resources import Resources
    from specdef.certify.study_run import run_study
    from specdef.report.exports import check_formats, write_reports

    wanted = parse.words(formats) or ()
    check_formats(wanted)
    if dry_run:
        show_dry_run(study)
        return
    if out is None:
        raise SpecdefError("`out` must be given: the folder of the study. Only `--dry-run` needs none.")
    with cells_shown(f"loading the models of {study}", quiet=False) as watch:
        run_study(
            study,
            out,
            resources=Resources(workers, threads, device),
            on_stage=watch.on_stage,
            on_cell=watch.on_cell,
            on_event=watch.on_event,
            command=shlex.join(["specdef", *sys.argv[1:]]),
        )
    say(*(f"Wrote {path}" for path in write_reports(out, wanted)))


def show_dry_run(study: Path) -> None:
    """What a study would do, line by line."""
    from specdef.certify.study_dry_run import dry_run

    found = dry_run(study)
    for model in found.models:
        say(f"{model.label}: {model.layers} layers, {model.parameters:,} parameters, random in bfloat16")
        for label, parts in model.defences.items():
            counted = ", ".join(f"{number} {name}" for name, number in parts.items())
            say(f"  {label}: {counted or 'known once it is made'}" if label != "none" else "  none")
        for label, trained in model.attacks.items():
            say(f"  {label}: {trained:,} numbers trained")
    say(*(f"Not here yet: {sentence}" for sentence in found.missing))
    say(f"{found.title}: {found.runs:,} runs. Nothing was written.")
