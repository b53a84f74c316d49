"""defend: a model with a defence other than a lock."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specdef.cli import kinds
from specdef.cli.options import Device, Given, Json, Model, Out, Seed, names_of, option
from specdef.cli.render import err_console, number, print_json, safe, say

if TYPE_CHECKING:
    from specdef.training.outcome import Evaluation


def defend(
    method: Annotated[
        str,
        typer.Argument(
            metavar="METHOD",
            help=f"One of {kinds.METHODS}.",
            autocompletion=names_of("specdef.defences.base", "DEFENCES"),
        ),
    ],
    model: Model,
    out: Out,
    forget: Annotated[str | None, option("File of rows to remove (default: the task's own).", metavar="FILE")] = None,
    retain: Annotated[str | None, option("File of rows to keep (default: general text).", metavar="FILE")] = None,
    task: Annotated[str | None, option("Task whose score says what is left, such as biographies.")] = None,
    evaluate: Annotated[
        str | None, option("File of questions on the rows to remove, instead of a task.", "--eval", metavar="FILE")
    ] = None,
    fields: Annotated[str | None, option("What the files call what is read, as in prompt=q,completion=a.")] = None,
    given: Given = None,
    seed: Seed = 0,
    text: Annotated[Path | None, option("General text, UTF-8 (default: the bundled prose).")] = None,
    device: Device = None,
    json_: Json = False,
) -> None:
    """Write a defended copy of MODEL, such as one with the rows of a file removed (npo, rmu, ...).

    Example: specdef defend rmu model defended --forget people.jsonl --eval questions.jsonl
    """
    from specdef.defences.defend import defend as defend_model
    from specdef.defences.options import parse_pairs

    def show(stage: str, point: Evaluation) -> None:
        loss = "" if point.loss is None else f", loss {number(point.loss)}"
        line = f"{stage} step {point.step}: score {point.score:.3f}, utility {number(point.utility)}{loss}"
        err_console.print(safe(line), soft_wrap=True, highlight=False)

    done = defend_model(
        method,
        model,
        out,
        options=parse_pairs(given or ()),
        seed=seed,
        text=text,
        device=device,
        progress=None if json_ else show,
        data={"forget": forget, "retain": retain, "task": task, "eval": evaluate, "fields": fields},
    )
    if json_:
        print_json(asdict(done))
        return
    for name, change in {**done.scores, done.utility_name: done.utility}.items():
        say(f"{name}: {number(change.before)} -> {number(change.after)}")
    if done.applied.ended:
        say(f"Training ended: {done.applied.ended}.")
    for note in done.notes:
        say(note)
    say(f"Wrote {out}")
