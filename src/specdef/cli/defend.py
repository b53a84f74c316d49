"""defend: a model with a defence other than a lock."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from specdef.cli import parse
from specdef.cli.options import Given, Json, Model, Out, Seed
from specdef.cli.render import err_console, print_json, say


def defend(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="guard or unlearned.")],
    model: Model,
    out: Out,
    given: Given = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Write a defended copy of MODEL: one that refuses a topic (guard), one with facts removed (unlearned).

    Example: specdef defend unlearned smollm2-135m unlearned -o steps=100
    """
    from specdef.defences.prepare import prepare
    from specdef.models.sources import find_model

    readers: dict[str, Any] = {"steps": int, "lr": float}
    options = {name: readers[name](value) for name, value in parse.pairs(given).items()}

    def show(stage: str, point: Any) -> None:
        err_console.print(f"{stage} step {point.step}: score {point.score:.3f}, perplexity {point.perplexity:.4g}")

    done = prepare(
        method,  # type: ignore[arg-type]
        find_model(model),
        out,
        seed=seed,
        progress=None if json_ else show,
        **options,
    )
    if json_:
        print_json(asdict(done))
        return
    say(
        f"{done.score_name}: {done.score_before:.3f} -> {done.score_after:.3f}; perplexity "
        f"{done.perplexity_before:.4g} -> {done.perplexity_after:.4g}. Wrote {out}"
    )
