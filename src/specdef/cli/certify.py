"""certify and report: every attack of the named threat models, and what held."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specdef.cli import evaluation, parse
from specdef.cli import options as given
from specdef.cli.cells import cells_shown
from specdef.cli.options import Json, Multiplier, option
from specdef.cli.render import out_console, print_json, safe, say
from specdef.errors import SpecdefError

if TYPE_CHECKING:
    from specdef.certify.certificate import Certificate


def certify(
    locked: Annotated[str, typer.Argument(metavar="LOCKED", help="The model under test, locked or not.")],
    original: Annotated[str, option("The undefended model.")],
    out: Annotated[Path, option("Results folder; a killed run goes on where it was.")],
    threats: Annotated[str | None, option("Threat models, such as T0,T1,T4 (default: T0,T1).")] = None,
    base: Annotated[str | None, option("The public base weights, for T5 (default: ORIGINAL, of a lock).")] = None,
    multiplier: Multiplier = None,
    find_multiplier: Annotated[
        bool, option("LOCKED is the unlocked model: find the smallest 2^e that holds.", "--find-multiplier")
    ] = False,
    also: Annotated[Path | None, option("YAML file of further attacks, as in a study's `attacks`.")] = None,
    effort: Annotated[str, option("How closely, widely and long is searched: quick, standard, thorough.")] = "standard",
    minutes: Annotated[
        float | None, option("Begin no batch of cells after so long; judge the threat models done.")
    ] = None,
    window: Annotated[str | None, option("Ordinary learning rates, such as 3e-5,1e-4,3e-4,1e-3.")] = None,
    steps: given.Steps = 60,
    batch_size: given.BatchSize = 8,
    retain_weight: given.RetainWeight = 0.25,
    optimizer: given.Optimizer = "adamw",
    optimizer_option: given.OptimizerOptions = None,
    precision: given.Precision = "fp32",
    task: evaluation.TaskName = None,
    train: evaluation.Train = None,
    eval_: evaluation.Eval = None,
    fields: evaluation.Fields = None,
    task_seed: evaluation.TaskSeed = 0,
    target: evaluation.Target = None,
    scorer: evaluation.ScorerName = None,
    text: evaluation.TextFile = None,
    utility: evaluation.UtilityName = None,
    utility_factor: evaluation.UtilityFactor = 2.0,
    eval_every: evaluation.EvalEvery = 10,
    cells: Annotated[
        Path | None, option("Folder of finished cells shared by several certificates.", panel=given.RUNNING)
    ] = None,
    workers: given.Workers = None,
    threads: given.Threads = None,
    device: given.Device = None,
    ray: given.Ray = None,
    gpus_per_cell: given.GpusPerCell = 0.0,
    devices_per_cell: given.DevicesPerCell = 1,
    json_: Json = False,
) -> None:
    """Attack LOCKED under named threat models; write certificate.json, tables, heat maps and one HTML page.

    Example: specdef certify locked --original smollm2-135m --out results --threats T0,T1,T4
    """
    from specdef.certify.api import certify_model
    from specdef.certify.resources import Resources
    from specdef.linalg.multiplier import parse_multiplier
    from specdef.report.plots import require_matplotlib
    from specdef.tasks.base import given_task
    from specdef.training.recipe import Recipe

    rates = parse.rates(window)
    alpha = None if multiplier is None else parse_multiplier(multiplier)
    if find_multiplier and (alpha is not None or cells is not None or minutes is not None):
        raise SpecdefError("`multiplier`, `cells` and `minutes` must be left out with --find-multiplier: it sets them.")
    if find_multiplier and original != locked:
        raise SpecdefError(f"`original` must be LOCKED, the unlocked model, with --find-multiplier; got {original}.")
    options: dict[str, Any] = {
        "task": given_task(
            task, train=train, evaluate=eval_, fields=fields, seed=task_seed, target=target, scorer=scorer
        ),
        "threats": parse.words(threats),
        "effort": effort,
        "also": also,
        "base": base,
        "recipe": Recipe(
            optimizer=optimizer,
            optimizer_options=parse.settings(optimizer_option),
            steps=steps,
            batch_size=batch_size,
            retain_weight=retain_weight,
            eval_every=eval_every,
            precision=precision,  # type: ignore[arg-type]
        ),
        "window": rates,
        "text": text,
        "target": target,
        "scorer": scorer,
        "task_seed": task_seed,
        "utility": utility,
        "utility_factor": utility_factor,
        "resources": Resources(workers, threads, device, ray, gpus_per_cell, devices_per_cell=devices_per_cell),
        "command": shlex.join(["specdef", *sys.argv[1:]]),
    }
    require_matplotlib()
    with cells_shown(f"loading {locked} and {original}", quiet=json_) as watch:
        options |= {"on_stage": watch.on_stage, "on_cell": watch.on_cell, "on_event": watch.on_event}
        if find_multiplier:
            _find_multiplier(locked, out, options, json_)
            return
        certificate = certify_model(
            locked, out, original=original, multiplier=alpha, cells=cells, minutes=minutes, **options
        )
    _say_certificate(certificate, out, json_)


def _say_certificate(certificate: Certificate, out: Path, as_json: bool) -> None:
    from specdef.certify.certificate_file import certificate_to_wire
    from specdef.report.markdown import verdict_table
    from specdef.report.write import write_report

    write_report(out)
    if as_json:
        print_json(certificate_to_wire(certificate))
        return
    out_console.print(verdict_table(certificate))
    say(f"Wrote {out}/certificate.json, certificate.md and index.html")


def _find_multiplier(model: str, out: Path, options: dict[str, Any], as_json: bool) -> None:
    from specdef.certify.multiplier_search import find_multiplier
    from specdef.report import phrases
    from specdef.report.write import write_report

    found = find_multiplier(model, out, **options)
    for exponent in found.tried:
        write_report(out / f"2^{exponent}")
    if as_json:
        print_json(found.to_wire())
        return
    for exponent, verdicts in found.tried.items():
        say(f"2^{exponent}: " + ", ".join(f"{name} {phrases.verdict(verdict)}" for name, verdict in verdicts.items()))
    out_console.print(f"[bold]{safe(found.sentence)}[/bold] Wrote {safe(out)}/multiplier.json", soft_wrap=True)
