"""curvature and harness: how sharp a model's loss is, and how well it still answers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from specdef.cli import parse
from specdef.cli.evaluation import TaskName
from specdef.cli.options import Device, Json, Model, Seed, option
from specdef.cli.render import err_console, print_json, say
from specdef.errors import SpecdefError


def curvature(
    model: Model,
    task: TaskName = None,
    params: Annotated[str | None, option("Regular expression of the parameters (default: all).")] = None,
    num_eigenvalues: Annotated[int, option("Eigenvalues at each end of the spectrum.")] = 1,
    kind: Annotated[str, option("hessian or gauss-newton.")] = "hessian",
    samples: Annotated[int, option("Task samples the loss is a mean over.")] = 16,
    dtype: Annotated[str, option("fp32 or fp64.")] = "fp32",
    tolerance: Annotated[float, option("Relative accuracy asked of each eigenvalue.")] = 1e-3,
    device: Device = "cpu",
    seed: Seed = 0,
    plot: Annotated[Path | None, option("Write a PNG of the spectral density.")] = None,
    json_: Json = False,
) -> None:
    """Measure the extreme eigenvalues of MODEL's loss: how sharp a lock made it.

    Example: specdef curvature locked --params v_proj --num-eigenvalues 2
    """
    from specdef.report.plots import plot_density, refuse_plot_path

    if plot is not None:
        refuse_plot_path(plot)
    from specdef.analysis.curvature.measure import measure_curvature
    from specdef.tasks.base import parse_task

    with err_console.status("measuring curvature") as status:
        found = measure_curvature(
            model,
            task=None if task is None else parse_task(task),
            kind=kind,  # type: ignore[arg-type]
            params=params,
            num_eigenvalues=num_eigenvalues,
            num_samples=samples,
            dtype=dtype,  # type: ignore[arg-type]
            device=device or "cpu",
            density=plot is not None,
            tolerance=tolerance,
            seed=seed,
            progress=lambda stage: status.update(f"measuring the {stage}"),
        )
    if plot is not None:
        plot_density(found, plot)
    if json_:
        print_json(asdict(found))
        return
    say(
        f"{found.kind} of the loss ({found.loss:.4g} nats per token) by {found.dimension:,} parameters: "
        f"sigma_1 = {found.sigma_1:.6g}. {found.products} products, {found.seconds:.0f} s."
    )
    for end, entries in (("largest", found.largest), ("smallest", found.smallest)):
        for entry in entries:
            say(f"{end}: {entry.value:.6g} (residual {entry.residual:.1e})")


def harness(
    model: Model,
    tasks: Annotated[str, option("Tasks of lm-eval, such as arc_easy,winogrande.")],
    include: Annotated[Path | None, option("Folder with your own task files (YAML).")] = None,
    limit: Annotated[int | None, option("Examples per task.")] = None,
    json_: Json = False,
) -> None:
    """Measure a model's utility with tasks of the LM Evaluation Harness, from local files.

    Example: specdef harness locked --tasks arc_easy --limit 100
    """
    from specdef.integrations.lm_eval import check_harness, evaluate_harness
    from specdef.models.sources import find_model

    if include is not None and not include.is_dir():
        raise SpecdefError(f"`include` must be a folder of task files; {include} is none.")
    names = parse.words(tasks) or []
    check_harness(names, limit=limit)
    found = evaluate_harness(find_model(model), names, include_path=include, limit=limit)
    if json_:
        print_json(found)
        return
    for name, value in found.items():
        say(f"{name}: {value:.4f}")
