"""attack and undo: what an attacker does to a published model, once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from specdef.cli import options as given
from specdef.cli import parse
from specdef.cli.kinds import UNDOING
from specdef.cli.options import Json, Model, Out, option
from specdef.cli.progress import steps_bar
from specdef.cli.render import err_console, print_json, safe, say
from specdef.cli.runs import plot_run, sentence
from specdef.errors import SpecdefError


def attack(
    model: Model,
    out: Annotated[Path, option("Folder for results; finished attacks in it are kept.", panel=given.OUTPUT)],
    optimizer: given.Optimizer = "adamw",
    lr: given.LearningRate = 1e-4,
    steps: given.Steps = 60,
    seed: given.TrainingSeed = 0,
    batch_size: given.BatchSize = 8,
    gradient_accumulation_steps: given.Accumulation = 1,
    warmup: given.Warmup = 0.1,
    schedule: given.Schedule = "linear",
    max_grad_norm: given.MaxGradNorm = "1.0",
    clip_each: given.ClipEach = False,
    weight_decay: given.WeightDecay = 0.01,
    eps: given.Eps = None,
    optimizer_option: given.OptimizerOptions = None,
    precision: given.Precision = "fp32",
    retain_weight: given.RetainWeight = 0.25,
    threads: given.Threads = None,
    device: given.Device = None,
    lora: given.Lora = None,
    freeze: given.Freeze = None,
    train_smallest_gradients: given.SmallestGradients = None,
    channel_rates: given.ChannelRates = False,
    rewrite: given.Rewrite = None,
    intervention: given.Interventions = None,
    task: given.TaskName = None,
    train: given.Train = None,
    eval_: given.Eval = None,
    fields: given.Fields = None,
    task_seed: given.TaskSeed = 0,
    target: given.Target = None,
    scorer: given.ScorerName = None,
    text: given.TextFile = None,
    utility: given.UtilityName = None,
    utility_factor: given.UtilityFactor = 2.0,
    eval_every: given.EvalEvery = 10,
    early_stop: given.EarlyStop = False,
    original: given.Original = None,
    plot: given.Plot = None,
    json_: Json = False,
) -> None:
    """Fine-tune MODEL once, as an attacker would, and say how far it got: steps, score and utility.

    Example: specdef attack locked --out runs --lr 1e-4 --original smollm2-135m --plot run.png
    """
    from specdef.certify.api import attack as attack_model
    from specdef.certify.result import cell_to_wire
    from specdef.report.plots import refuse_plot_path
    from specdef.report.runs_page import write_runs
    from specdef.tasks.base import given_task
    from specdef.training.recipe import Recipe

    if plot is not None:
        refuse_plot_path(plot)
    if freeze is not None and train_smallest_gradients is not None:
        raise SpecdefError("`freeze` must be left out with `train-smallest-gradients`; it freezes the other tensors.")
    share = parse.share(train_smallest_gradients, "train-smallest-gradients")
    rates = "" if channel_rates else None
    flags = {"lora": lora, "freeze": freeze, "smallest-gradients": share, "channel-rates": rates}
    named = [f"{name}:{value}" for name, value in flags.items() if value is not None]
    recipe = Recipe(
        optimizer=optimizer,
        lr=lr,
        steps=steps,
        batch_size=batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        warmup=warmup,
        schedule=schedule,  # type: ignore[arg-type]
        max_grad_norm=parse.norm(max_grad_norm),
        weight_decay=weight_decay,
        precision=precision,  # type: ignore[arg-type]
        retain_weight=retain_weight,
        eval_every=eval_every,
        seed=seed,
        clip_each=clip_each,
        eps=eps,
        optimizer_options=parse.settings(optimizer_option),
    )
    spec = given_task(task, train=train, evaluate=eval_, fields=fields, seed=task_seed, target=target, scorer=scorer)
    with steps_bar(steps, quiet=json_, start=f"loading {model}") as (progress, on_step):
        stored = attack_model(
            model,
            out,
            task=spec,
            recipe=recipe,
            interventions=[*named, *parse.rewrites(rewrite), *(intervention or ())],
            early_stop=early_stop,
            utility=utility,
            utility_factor=utility_factor,
            original=original,
            text=text,
            target=target,
            scorer=scorer,
            task_seed=task_seed,
            threads=threads,
            device=device,
            progress=progress,
            on_step=on_step,
        )
    if plot is not None:
        plot_run(stored, plot)
    written = write_runs(out)
    if json_:
        print_json(cell_to_wire(stored))
    else:
        say(
            sentence(stored),
            f"Result: {out}/cells/{stored.key}.json",
            f"Page: {written[-1]}",
            *([] if plot is None else [f"Picture: {plot}"]),
        )


def undo(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"How, NAME[:name=value,...]; NAME is one of {UNDOING}.")],
    locked: Model,
    out: Out,
    json_: Json = False,
) -> None:
    """Undo a lock in the weights without its key, as an attacker would.

    Example: specdef undo rebalance:form=svd locked undone
    """
    from specdef.certify.api import undo as undo_lock

    with err_console.status(f"undoing: {safe(kind)}"):
        done = undo_lock(kind, locked, out)
    if json_:
        print_json(asdict(done))
        return
    say(
        f"{done.detail}; {done.tensors} tensors written in {done.seconds:.1f} s, parameters "
        f"{done.added_parameters:+,}. Relative difference of a layer at most {done.function_error:.1e}. "
        f"No key was used; what it takes to know: {done.knowledge}. Wrote {out}"
    )
