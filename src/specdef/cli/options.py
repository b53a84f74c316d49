"""Options that several commands share, and those of `attack`, declared once with their help and panel."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from specdef.cli import kinds


def option(help: str, *names: str, panel: str | None = None, **more: Any) -> Any:
    """An option's declaration."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


def names_of(module: str, registry: str) -> Callable[[str], list[str]]:
    """Shell completion with the names of a registry, which is imported only then."""

    def complete(incomplete: str) -> list[str]:
        found = getattr(importlib.import_module(module), registry)
        return [name for name in found.names() if name.startswith(incomplete)]

    return complete


TRAINING, PARTS, REWRITING, EVALUATION, OUTPUT = (
    "Training",
    "Adapters and freezing",
    "Rewriting",
    "Evaluation",
    "Output",
)
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model folder, a hub id, smollm2-135m or minilm.")]
Locked = Annotated[Path, typer.Argument(metavar="LOCKED", help="The locked folder.")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="The folder to create.")]
Results = Annotated[Path, typer.Argument(metavar="DIR", help="Results of attack, certify or run.")]
Json = Annotated[bool, option("Print one JSON object instead of text.", "--json", panel=OUTPUT)]
Seed = Annotated[int, option("Decides every random draw.")]
Given = Annotated[
    list[str] | None, option("An option of the chosen kind, name=value; may be given again.", "--option", "-o")
]
Exclude = Annotated[
    list[str] | None, option("Leave files out of OUT, by name or pattern such as '*.bin'; may be given again.")
]
Runtimes = Annotated[
    str | None, option("exact: what it must run in, of f32,bf16,f16-cache,f16,q8_0,q4_k,int8,int8-dynamic.")
]
Map = Annotated[
    str | None,
    option("auto: find the pairs of an undeclared family, and prove them (see specdef map).", metavar="auto"),
]
Multiplier = Annotated[str | None, option("Alpha, such as 2^20 or 1e4.")]
Preset = Annotated[
    str | None,
    option("exact, ladder, paper, or a lock by name (default ladder for language models, else exact)."),
]

# Training
RecipeFile = Annotated[
    Path | None,
    option(
        "YAML file of one attack, as in a study's `attacks`; what is typed beside it wins.",
        "--recipe",
        metavar="FILE",
        panel=TRAINING,
    ),
]
Optimizer = Annotated[str, option("adamw, sgd, adafactor, lion, muon, sophia, and so on.", panel=TRAINING)]
LearningRate = Annotated[float, option("Learning rate at the top of the schedule.", "--lr", panel=TRAINING)]
Steps = Annotated[int, option("Optimizer steps: the attacker's budget.", panel=TRAINING)]
TrainingSeed = Annotated[int, option("Decides the order of samples and every other draw.", "--seed", panel=TRAINING)]
BatchSize = Annotated[int, option("Task samples per forward pass.", panel=TRAINING)]
Accumulation = Annotated[
    int, option("Forward passes per optimizer step.", "--gradient-accumulation-steps", panel=TRAINING)
]
Warmup = Annotated[float, option("Share of the steps over which the learning rate rises.", panel=TRAINING)]
Schedule = Annotated[str, option("linear, cosine or constant.", panel=TRAINING)]
MaxGradNorm = Annotated[str, option("Largest gradient norm, or none.", panel=TRAINING)]
ClipEach = Annotated[bool, option("Clip every tensor's gradient by itself.", "--clip-each", panel=TRAINING)]
WeightDecay = Annotated[float, option("Decoupled weight decay.", panel=TRAINING)]
Eps = Annotated[float | None, option("Of the optimizer's denominator (default: its own).", panel=TRAINING)]
OptimizerOptions = Annotated[
    list[str] | None,
    option("A setting of the optimizer, such as betas=0.9,0.95; may be given again.", "--option", "-o", panel=TRAINING),
]
Precision = Annotated[str, option("fp32, bf16 (weights too) or bf16-master (float32 weights).", panel=TRAINING)]
RetainWeight = Annotated[float, option("Weight of general text in the loss.", panel=TRAINING)]
Threads = Annotated[int | None, option("CPU threads per attack; part of a result's identity.", panel=TRAINING)]
Device = Annotated[str | None, option("cpu or cuda (default: the GPU where there is one).", panel=TRAINING)]

# Adapters, freezing, rewriting
Lora = Annotated[str | None, option("Adapters, such as r=8,targets=all.", panel=PARTS)]
Freeze = Annotated[str | None, option("Regular expression of parameters left untrained.", panel=PARTS)]
SmallestGradients = Annotated[
    float | None,
    option("Train only this share of the tensors, those with the smallest gradients.", metavar="SHARE", panel=PARTS),
]
ChannelRates = Annotated[
    bool, option("A learning rate per channel, from the scales in the weights.", "--channel-rates", panel=PARTS)
]
Rewrite = Annotated[
    list[str] | None,
    option(
        f"Rewrite the weights first, NAME[:name=value,...]: {kinds.REWRITING}; may be given again.",
        "--rewrite",
        panel=REWRITING,
        autocompletion=names_of("specdef.attacks.base", "INTERVENTIONS"),
    ),
]
Interventions = Annotated[
    list[str] | None,
    option(
        "Anything else an attacker does, NAME[:name=value,...]; may be given again.",
        "--intervention",
        panel=REWRITING,
        autocompletion=names_of("specdef.attacks.base", "INTERVENTIONS"),
    ),
]

# Running
RUNNING = "Running"
Workers = Annotated[int | None, option("Attacks at once (default: what cores and memory allow).", panel=RUNNING)]
Ray = Annotated[str | None, option("auto, HOST:PORT of a Ray cluster, or local.", panel=RUNNING)]
GpusPerCell = Annotated[float, option("Share of a GPU per attack, on Ray.", panel=RUNNING)]
DevicesPerCell = Annotated[
    int, option("Processes, each with a GPU where there are some, that make an attack together.", panel=RUNNING)
]

# Output
Plot = Annotated[
    Path | None, option("Write a picture of the run: FILE.png, .svg or .pdf.", metavar="FILE", panel=OUTPUT)
]
Track = Annotated[
    str | None, option("Note every evaluation in tracking of OUT too: tensorboard or wandb.", panel=OUTPUT)
]
Images = Annotated[
    bool, option("Keep what a pipeline draws at every evaluation, as PNG in drawn of OUT.", panel=OUTPUT)
]
Formats = Annotated[str | None, option("Further forms: any of csv,tex (tables) and svg,pdf (pictures).", panel=OUTPUT)]
