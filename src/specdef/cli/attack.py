"""attack: one run of fine-tuning, as an attacker would do it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specdef.cli import evaluation, parse
from specdef.cli import options as given
from specdef.cli.attack_file import asked_attack
from specdef.cli.options import Json, Model, option
from specdef.cli.progress import steps_bar
from specdef.cli.render import print_json, say, say_note
from specdef.cli.runs import plot_run, sentence
from specdef.core.processes import launched_rank, left_alone
from specdef.errors import SpecdefError


def attack(
    context: typer.Context,
    model: Model,
    out: Annotated[Path, option("Folder for results; finished attacks in it are kept.", panel=given.OUTPUT)],
    recipe: given.RecipeFile = None,
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
    early_stop: evaluation.EarlyStop = False,
    original: evaluation.Original = None,
    plot: given.Plot = None,
    track: given.Track = None,
    images: given.Images = False,
    json_: Json = False,
) -> None:
    """Fine-tune MODEL once, as an attacker would, and say how far it got: steps, score and utility.

    Example: specdef attack locked --out runs --lr 1e-4 --original smollm2-135m --plot run.png
    """
    from specdef.certify.api import attack as attack_model
    from specdef.certify.drawn_images import DRAWN
    from specdef.certify.result import cell_to_wire
    from specdef.report.classes import class_shares
    from specdef.report.plots import can_plot, refuse_plot_path
    from specdef.report.runs_page import write_runs
    from specdef.tasks.base import given_task
    from specdef.training.tracking import TRACKING

    if plot is not None:
        refuse_plot_path(plot)
    if freeze is not None and train_smallest_gradients is not None:
        raise SpecdefError("`freeze` must be left out with `train-smallest-gradients`; it freezes the other tensors.")
    share = parse.share(train_smallest_gradients, "train-smallest-gradients")
    rates = "" if channel_rates else None
    flags = {"lora": lora, "freeze": freeze, "smallest-gradients": share, "channel-rates": rates}
    named = [f"{name}:{value}" for name, value in flags.items() if value is not None]
    values = {
        "optimizer": optimizer,
        "lr": lr,
        "steps": steps,
        "batch_size": batch_size,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "warmup": warmup,
        "schedule": schedule,
        "max_grad_norm": parse.norm(max_grad_norm),
        "weight_decay": weight_decay,
        "precision": precision,
        "retain_weight": retain_weight,
        "eval_every": eval_every,
        "seed": seed,
        "clip_each": clip_each,
        "eps": eps,
        "optimizer_options": parse.settings(optimizer_option),
    }
    named += [*parse.rewrites(rewrite), *(intervention or ())]
    made, interventions, stops = asked_attack(context, recipe, values, named, early_stop=early_stop)
    spec = given_task(task, train=train, evaluate=eval_, fields=fields, seed=task_seed, target=target, scorer=scorer)
    if left_alone():
        say_note("accelerate launch --cpu starts one process, whatever --num_processes says; torchrun starts several.")
    finished = {path.stem for path in (out / "cells").glob("*.json")}
    with steps_bar(made.steps, quiet=json_ or launched_rank() > 0, start=f"loading {model}") as (progress, on_step):
        stored = attack_model(
            model,
            out,
            task=spec,
            recipe=made,
            interventions=interventions,
            early_stop=stops,
            utility=utility,
            utility_factor=utility_factor,
            original=original,
            text=text,
            target=target,
            scorer=scorer,
            task_seed=task_seed,
            threads=threads,
            device=device,
            track=track,
            images=images,
            progress=progress,
            on_step=on_step,
        )
    if launched_rank() > 0:
        return  # the first of several processes says and draws what all of them did
    if plot is not None:
        plot_run(stored, plot)
    beside = [f"Page: {write_runs(out)[-1]}" if can_plot() else "No page: it needs `pip install specdef[plot]`."]
    beside += [] if plot is None else [f"Picture: {plot}"]
    drawn, before = out / DRAWN / stored.key, "this attack had been finished before."
    if track is not None:
        beside += [f"Not tracked: {before}" if stored.key in finished else f"Tracking: {out}/{TRACKING}"]
    if images:
        beside += [f"Images: {drawn}" if drawn.is_dir() else f"No images drawn: {before} Name another OUT."]
    if json_:
        print_json(cell_to_wire(stored))
    else:
        by_class = [found.sentence for found in class_shares(stored)]
        say(sentence(stored), *by_class, f"Result: {out}/cells/{stored.key}.json", *beside)
