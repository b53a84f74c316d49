"""Commands that measure: attack, certify, runs, report. Parse, one library call, print."""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from specdef.errors import SpecdefError

if TYPE_CHECKING:
    from specdef.certify.result import StoredCell
    from specdef.training.recipe import Recipe

out_console, err_console = Console(), Console(stderr=True)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model folder, a hub id, or smollm2-135m.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
TaskName = Annotated[str, typer.Option("--task", help="facts, unlearned, guard, mcqa:FILE or sft:FILE.")]
ScorerName = Annotated[
    str | None,
    typer.Option("--scorer", help="For sft: any:REGEX, none:REGEX or classifier:FOLDER:LABEL over generated text."),
]
Steps = Annotated[int, typer.Option(help="Optimizer steps: the attacker's budget.")]
BatchSize = Annotated[int, typer.Option(help="Task samples per forward pass.")]
EvalEvery = Annotated[int, typer.Option(help="Steps between evaluations.")]
RetainWeight = Annotated[float, typer.Option(help="Weight of general text in the loss.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16 (weights too) or bf16-master (float32 weights).")]
UtilityFactor = Annotated[float, typer.Option(help="Perplexity may grow by this factor and still count as useful.")]
TextFile = Annotated[Path | None, typer.Option("--text", help="General text, UTF-8 (default: the bundled prose).")]
Target = Annotated[float | None, typer.Option(help="Score to reach (default: the task's).")]
TaskSeed = Annotated[int, typer.Option(help="Decides the task's draws, such as the train/test split.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda (default: the GPU where there is one).")]
Threads = Annotated[int | None, typer.Option(help="CPU threads per attack; part of a result's identity.")]


def attack(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for results; finished attacks in it are kept.")],
    task: TaskName = "facts",
    optimizer: Annotated[str, typer.Option(help="adamw, sgd, adafactor, lion, muon, sophia, and so on.")] = "adamw",
    lr: Annotated[float, typer.Option(help="Learning rate at the top of the schedule.")] = 1e-4,
    steps: Steps = 60,
    seed: Annotated[int, typer.Option(help="Decides the order of samples and every other draw.")] = 0,
    batch_size: BatchSize = 8,
    gradient_accumulation_steps: Annotated[int, typer.Option(help="Forward passes per optimizer step.")] = 1,
    warmup: Annotated[float, typer.Option(help="Share of the steps over which the learning rate rises.")] = 0.1,
    schedule: Annotated[str, typer.Option(help="linear, cosine or constant.")] = "linear",
    max_grad_norm: Annotated[str, typer.Option(help="Largest gradient norm, or none.")] = "1.0",
    weight_decay: Annotated[float, typer.Option(help="Decoupled weight decay.")] = 0.01,
    precision: Precision = "fp32",
    retain_weight: RetainWeight = 0.25,
    eval_every: EvalEvery = 10,
    lora: Annotated[str | None, typer.Option(help="Adapters, such as rank=8,targets=all.")] = None,
    freeze: Annotated[str | None, typer.Option(help="Regular expression of parameters left untrained.")] = None,
    train_smallest_gradients: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Train this share of the tensors, those with small gradients.")
    ] = None,
    rewrite: Annotated[
        str | None,
        typer.Option(help="Rewrite the weights first: merge, rebalance, inject-layers:factors=2, prune, sharpen."),
    ] = None,
    channel_rates: Annotated[
        bool, typer.Option("--channel-rates", help="A learning rate per channel, from the scales in the weights.")
    ] = False,
    clip_each: Annotated[bool, typer.Option("--clip-each", help="Clip every tensor's gradient by itself.")] = False,
    eps: Annotated[float | None, typer.Option(help="Of the optimizer's denominator (default: its own).")] = None,
    early_stop: Annotated[bool, typer.Option("--early-stop", help="Stop when the utility budget is left.")] = False,
    utility_factor: UtilityFactor = 2.0,
    original: Annotated[str | None, typer.Option(help="The undefended model; step 0 is checked against it.")] = None,
    text: TextFile = None,
    target: Target = None,
    scorer: ScorerName = None,
    task_seed: TaskSeed = 0,
    threads: Threads = None,
    device: Device = None,
    json_: Json = False,
) -> None:
    """Fine-tune MODEL once, as an attacker would, and say how far it got: steps, score and utility."""
    from specdef.certify.api import attack as attack_model
    from specdef.training.recipe import Recipe

    recipe = Recipe(
        optimizer=optimizer,
        lr=lr,
        steps=steps,
        batch_size=batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        warmup=warmup,
        schedule=schedule,  # type: ignore[arg-type]
        max_grad_norm=_norm(max_grad_norm),
        weight_decay=weight_decay,
        precision=precision,  # type: ignore[arg-type]
        retain_weight=retain_weight,
        eval_every=eval_every,
        seed=seed,
        clip_each=clip_each,
        eps=eps,
    )

    given = {"lora": lora, "freeze": freeze, "smallest-gradients": train_smallest_gradients}
    interventions = [f"{name}:{text}" for name, text in given.items() if text is not None]
    interventions += [] if rewrite is None else [rewrite]
    interventions += ["channel-rates"] if channel_rates else []

    def show(point: Any) -> None:
        loss = "" if point.loss is None else f", loss {point.loss:.3f}"
        err_console.print(f"step {point.step}: score {point.score:.3f}, perplexity {point.utility:.4g}{loss}")

    stored = attack_model(
        model,
        out,
        task=task,
        recipe=recipe,
        interventions=interventions,
        early_stop=early_stop,
        utility_factor=utility_factor,
        original=original,
        text=text,
        target=target,
        scorer=scorer,
        task_seed=task_seed,
        threads=threads,
        device=device,
        progress=None if json_ else show,
    )
    if json_:
        typer.echo(json.dumps(asdict(stored), indent=1))
        return
    out_console.print(escape(_sentence(stored)), soft_wrap=True)
    out_console.print(escape(f"Result: {out}/cells/{stored.key}.json"), soft_wrap=True)


def certify(
    locked: Annotated[str, typer.Argument(metavar="LOCKED", help="The model under test, locked or not.")],
    original: Annotated[str, typer.Option(help="The undefended model.")],
    out: Annotated[Path, typer.Option(help="Results folder; a killed run goes on where it was.")],
    task: TaskName = "facts",
    threats: Annotated[str, typer.Option(help="Threat models, in order: any of T0,T1,T2,T3,T4.")] = "T0,T1",
    multiplier: Annotated[float | None, typer.Option(help="Alpha, where no manifest names it.")] = None,
    window: Annotated[str | None, typer.Option(help="Ordinary learning rates, such as 3e-5,1e-4,3e-4,1e-3.")] = None,
    steps: Steps = 60,
    batch_size: BatchSize = 8,
    retain_weight: RetainWeight = 0.25,
    eval_every: EvalEvery = 10,
    precision: Precision = "fp32",
    utility_factor: UtilityFactor = 2.0,
    text: TextFile = None,
    target: Target = None,
    scorer: ScorerName = None,
    task_seed: TaskSeed = 0,
    cells: Annotated[Path | None, typer.Option(help="Folder of finished cells shared by several certificates.")] = None,
    workers: Annotated[int | None, typer.Option(help="Attacks at once (default: what cores and memory allow).")] = None,
    threads: Threads = None,
    device: Device = None,
    find_multiplier: Annotated[
        bool,
        typer.Option("--find-multiplier", help="LOCKED is the unlocked model: find the smallest 2^e that holds."),
    ] = False,
    ray: Annotated[str | None, typer.Option(help="auto, HOST:PORT of a Ray cluster, or local.")] = None,
    gpus_per_cell: Annotated[float, typer.Option(help="Share of a GPU per attack, on Ray.")] = 0.0,
    json_: Json = False,
) -> None:
    """Attack LOCKED under named threat models; write certificate.json, tables, heat maps and one HTML page."""
    from specdef.certify.api import certify_model
    from specdef.certify.resources import Machine
    from specdef.report.certificate import verdict_table
    from specdef.training.recipe import Recipe

    recipe: Recipe = Recipe(
        steps=steps,
        batch_size=batch_size,
        retain_weight=retain_weight,
        eval_every=eval_every,
        precision=precision,  # type: ignore[arg-type]
    )
    options: dict[str, Any] = {
        "task": task,
        "threats": _names(threats),
        "recipe": recipe,
        "window": _rates(window),
        "text": text,
        "target": target,
        "scorer": scorer,
        "task_seed": task_seed,
        "utility_factor": utility_factor,
        "machine": Machine(workers, threads, device, ray, gpus_per_cell),
        "command": shlex.join(["specdef", *sys.argv[1:]]),
    }
    with _cells_bar(quiet=json_) as (on_stage, on_cell):
        if find_multiplier:
            if multiplier is not None or cells is not None:
                raise SpecdefError("`multiplier` and `cells` must be left out with --find-multiplier: it sets them.")
            _find_multiplier(locked, out, {**options, "on_cell": on_cell, "on_stage": on_stage}, json_)
            return
        certificate = certify_model(
            locked,
            out,
            original=original,
            multiplier=multiplier,
            cells=cells,
            on_cell=on_cell,
            on_stage=on_stage,
            **options,
        )
    if json_:
        typer.echo(json.dumps(certificate.content, indent=1))
        return
    out_console.print(verdict_table(certificate.content))
    out_console.print(escape(f"Wrote {out}/certificate.json, certificate.md and index.html"), soft_wrap=True)


def _find_multiplier(model: str, out: Path, options: dict[str, Any], as_json: bool) -> None:
    from specdef.certify.multiplier_search import find_multiplier

    found = find_multiplier(model, out, **options)
    if as_json:
        typer.echo(json.dumps({**asdict(found), "sentence": found.sentence}, indent=1))
        return
    for exponent, verdicts in found.tried.items():
        out_console.print(f"2^{exponent}: " + ", ".join(f"{name} {verdict}" for name, verdict in verdicts.items()))
    out_console.print(f"[bold]{found.sentence}[/bold] Wrote {escape(str(out))}/multiplier.json")


def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Results of attack or certify.")], json_: Json = False
) -> None:
    """List every finished attack in a results folder."""
    from specdef.certify.result import cell_to_wire
    from specdef.certify.store import stored_cells
    from specdef.certify.verdict import attack_of

    cells = stored_cells(folder)
    if json_:
        typer.echo(json.dumps([cell_to_wire(cell) for cell in cells], indent=1))
        return
    table = Table(box=None)
    for name in ("cell", "model", "attack", "seed", "outcome", "step", "best score", "perplexity", "seconds"):
        table.add_column(name, justify="right" if name in ("seed", "step", "best score", "seconds") else "left")
    for cell in cells:
        best = cell.result.best
        table.add_row(
            cell.key,
            cell.config["model"][:8],
            escape(attack_of(cell).label),
            str(cell.attack.recipe.seed),
            cell.result.outcome.value,
            _number(cell.result.step),
            _number(best.score if best else None),
            _number(best.utility if best else None),
            _number(cell.measured.seconds),
        )
    out_console.print(table)


def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Results of certify.")]) -> None:
    """Write the Markdown tables, heat maps and HTML page of a certificate again, from its stored results."""
    from specdef.report.write import write_report

    for path in write_report(folder):
        out_console.print(escape(str(path)), soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (attack, certify, runs, report):
        app.command()(command)


def _norm(text: str) -> float | None:
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise SpecdefError(f"`max-grad-norm` must be a number above 0, or none; got {text!r}.") from None


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _rates(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise SpecdefError(f"`window` must be learning rates such as 3e-5,1e-4; got {text!r}.") from None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _sentence(cell: StoredCell) -> str:
    result = cell.result
    if result.is_broken:
        text = f"Broken at step {result.step}"
    elif not result.counts:
        return f"{result.outcome.value.capitalize()}: {result.note.rstrip('.')}. This says nothing about the defence."
    else:
        text = result.outcome.value.capitalize() + f" after {result.steps} steps"
    start, best = result.evaluations[0], result.best
    assert best is not None
    text += f": best score {best.score:.3f} within the utility budget (from {start.score:.3f})"
    if math.isfinite(best.utility):
        text += f", perplexity {start.utility:.4g} -> {best.utility:.4g}"
    if result.diverged_at is not None:
        text += f"; utility lost at step {result.diverged_at}"
        text += ", regained later" if result.recovered else ", not regained"
    return text + "."


@contextmanager
def _cells_bar(*, quiet: bool) -> Iterator[tuple[Any, Any]]:
    """Progress over the cells of each batch, and a line per finished cell, with the time left in the batch."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from specdef.certify.verdict import attack_of

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=err_console, disable=quiet, transient=True) as bar:
        task = bar.add_task("starting", total=None, left="")
        started: list[float] = [time.monotonic()]
        finished: list[int] = [0]

        def on_stage(name: str) -> None:
            started[0], finished[0] = time.monotonic(), 0
            bar.update(task, description=name, completed=0, total=None, left="")

        def on_cell(cell: StoredCell, done: int, total: int) -> None:
            finished[0] += 1
            each = (time.monotonic() - started[0]) / finished[0]
            minutes = math.ceil(each * (total - done) / 60)
            bar.update(task, completed=done, total=total, left=f"about {minutes} min left in this batch")
            if not quiet:
                label = f"{attack_of(cell).label}, seed {cell.attack.recipe.seed}"
                bar.console.print(escape(f"{label}: {_sentence(cell)}"), soft_wrap=True)

        yield on_stage, on_cell
