"""Commands around measuring: prepare a model, undo a lock in the weights, measure utility and curvature."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from specdef.cli.measuring import Json, Model, TaskName, err_console, out_console


def defend(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A defence, such as guard or unlearned.")],
    model: Model,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to create.")],
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="name=value; may be given again.")] = None,
    seed: Annotated[int, typer.Option(help="Decides every draw.")] = 0,
    text: Annotated[Path | None, typer.Option(help="General text (default: the bundled prose).")] = None,
    json_: Json = False,
) -> None:
    """Apply a defence to MODEL and write the defended model."""
    from specdef.defences.defend import defend as defend_model
    from specdef.defences.options import parse_pairs

    def show(stage: str, point: Any) -> None:
        err_console.print(f"{stage} step {point.step}: score {point.score:.3f}")

    done = defend_model(
        method,
        model,
        out,
        options=parse_pairs(option or []),
        seed=seed,
        text=text,
        progress=None if json_ else show,
    )
    if json_:
        typer.echo(json.dumps(asdict(done), indent=1))
        return
    for name, change in [*done.scores.items(), (done.utility_name, done.utility)]:
        out_console.print(escape(f"{name}: {change.before:.4g} -> {change.after:.4g}"), soft_wrap=True)
    out_console.print(escape(f"Wrote {out}"), soft_wrap=True)


def harness(
    model: Model,
    tasks: Annotated[str, typer.Option(help="Tasks of lm-eval, such as arc_easy,winogrande.")],
    include: Annotated[Path | None, typer.Option(help="Folder with your own task files (YAML).")] = None,
    limit: Annotated[int | None, typer.Option(help="Examples per task.")] = None,
    json_: Json = False,
) -> None:
    """Measure a model's utility with tasks of the LM Evaluation Harness, from local files."""
    from specdef.integrations.lm_eval import evaluate_harness
    from specdef.models.sources import find_model

    found = evaluate_harness(
        find_model(model),
        [name.strip() for name in tasks.split(",") if name.strip()],
        include_path=include,
        limit=limit,
    )
    if json_:
        typer.echo(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        out_console.print(f"{name}: {value:.4f}")


def undo(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="merge, rebalance or inject-layers.")],
    locked: Model,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to create.")],
    factors: Annotated[int | None, typer.Option(help="inject-layers: layers added to each locked matrix.")] = None,
    order: Annotated[str | None, typer.Option(help="inject-layers: interleaved or literal (Theorem 32).")] = None,
    dtype: Annotated[str | None, typer.Option(help="inject-layers: fp32, bf16 or fp64.")] = None,
    form: Annotated[str | None, typer.Option(help="rebalance: axis or svd.")] = None,
    json_: Json = False,
) -> None:
    """Undo a lock in the weights without its key, as an attacker would."""
    from specdef.certify.api import undo as undo_lock

    given = {"factors": factors, "order": order, "dtype": dtype, "form": form}
    options = {name: value for name, value in given.items() if value is not None}
    with err_console.status(f"undoing: {escape(kind)}"):
        done = undo_lock(kind, locked, out, **options)
    if json_:
        typer.echo(json.dumps(asdict(done), indent=1))
        return
    out_console.print(
        escape(
            f"{done.detail}; {done.tensors} tensors written in {done.seconds:.1f} s, parameters "
            f"{done.added_parameters:+,}. Relative difference of a layer at most {done.function_error:.1e}. "
            f"No key was used; what it takes to know: {done.knowledge}. Wrote {out}"
        ),
        soft_wrap=True,
    )


def curvature(
    model: Model,
    task: TaskName = "facts",
    params: Annotated[str | None, typer.Option(help="Regular expression of the parameters (default: all).")] = None,
    k: Annotated[int, typer.Option(help="Eigenvalues at each end of the spectrum.")] = 1,
    kind: Annotated[str, typer.Option(help="hessian or gauss-newton.")] = "hessian",
    samples: Annotated[int, typer.Option(help="Task samples the loss is a mean over.")] = 16,
    dtype: Annotated[str, typer.Option(help="fp32 or fp64.")] = "fp32",
    tolerance: Annotated[float, typer.Option(help="Relative accuracy asked of each eigenvalue.")] = 1e-3,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Of the start vectors.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Write a PNG of the spectral density.")] = None,
    json_: Json = False,
) -> None:
    """Measure the extreme eigenvalues of MODEL's loss: how sharp a lock made it."""
    if plot is not None:
        from specdef.report.plots import refuse_plot_path

        refuse_plot_path(plot)
    from specdef.analysis.curvature.measure import measure_curvature
    from specdef.tasks.base import parse_task

    with err_console.status("measuring curvature") as status:
        found = measure_curvature(
            model,
            task=parse_task(task),
            kind=kind,  # type: ignore[arg-type]
            params=params,
            k=k,
            num_samples=samples,
            dtype=dtype,  # type: ignore[arg-type]
            device=device,
            density=plot is not None,
            tolerance=tolerance,
            seed=seed,
            progress=lambda stage: status.update(f"measuring the {stage}"),
        )
    if plot is not None:
        from specdef.report.plots import plot_density

        plot_density(found, plot)
    if json_:
        typer.echo(json.dumps(asdict(found), indent=1))
        return
    out_console.print(
        f"{found.kind} of the loss ({found.loss:.4g} nats per token) by {found.dimension:,} parameters: "
        f"sigma_1 = {found.sigma_1:.6g}. {found.products} products, {found.seconds:.0f} s.",
        soft_wrap=True,
    )
    for end, entries in (("largest", found.largest), ("smallest", found.smallest)):
        for entry in entries:
            out_console.print(f"{end}: {entry.value:.6g} (residual {entry.residual:.1e})")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (defend, harness, undo, curvature):
        app.command()(command)
