"""fetch and demo: the bundled real models, and what the library does to it in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specdef.cli.options import Out, option
from specdef.cli.render import err_console, out_console, safe, say
from specdef.errors import SpecdefError


def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="smollm2-135m, minilm, or resnet20-cifar:FILE.")],
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
    steps: Annotated[int, option("Fine-tuning steps on each model.")] = 12,
) -> None:
    """Lock the bundled model, check it, and fine-tune both copies side by side.

    Example: specdef demo --out demo
    """
    from specdef.demo import run_demo

    if steps < 1:
        raise SpecdefError(f"`steps` must be at least 1; got {steps}.")
    if not run_demo(out, out_console, steps=steps):
        raise typer.Exit(1)
