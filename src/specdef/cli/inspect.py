"""inspect: whether a model looks locked, where and how strongly."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from specdef.cli.options import Json, Model, option
from specdef.cli.render import err_console, out_console, print_json, safe, say
from specdef.errors import SpecdefError

if TYPE_CHECKING:
    from specdef.analysis.baseline import Unusual
    from specdef.analysis.inspect import InspectReport


def inspect(
    model: Model,
    json_: Json = False,
    plot: Annotated[Path | None, option("Write a PNG of spectra and channel scales.")] = None,
    baseline: Annotated[
        list[str] | None, option("An unlocked model of the family to compare with; may be given again.")
    ] = None,
    rank: Annotated[int, option("Singular values reported per matrix.")] = 5,
    spectra: Annotated[bool, option("Compute singular values (slow).", "--spectra/--no-spectra")] = True,
) -> None:
    """Measure spectra and channel scales; say whether the model looks locked, where and how strongly.

    Example: specdef inspect locked --baseline smollm2-135m --plot spectra.png
    """
    from specdef.analysis.baseline import compare_with_baseline
    from specdef.analysis.inspect import inspect_model
    from specdef.report.plots import plot_inspection, refuse_plot_path
    from specdef.report.tables import inspection_tables

    if rank < 1:
        raise SpecdefError(f"`rank` must be at least 1; got {rank}.")
    if plot is not None:
        refuse_plot_path(plot)
    with err_console.status("inspecting") as status:

        def measure(folder: str) -> InspectReport:
            return inspect_model(
                folder,
                top_k=rank,
                spectra=spectra,
                progress=lambda done, total: status.update(f"inspecting {safe(folder)}: {done}/{total}"),
            )

        report = measure(model)
        found = compare_with_baseline(report, [measure(other) for other in baseline]) if baseline else []
    if plot is not None:
        plot_inspection(report, plot)
    if json_:
        unusual = {"unusual": [asdict(item) | {"excess": item.excess} for item in found]} if baseline else {}
        print_json(asdict(report) | {"sentence": report.verdict.sentence} | unusual)
        return
    for table in inspection_tables(report):
        out_console.print(table)
    out_console.print(f"[bold]{safe(report.verdict.sentence)}[/bold]")
    if baseline:
        _print_unusual(found)


def _print_unusual(found: list[Unusual]) -> None:
    from specdef.analysis.baseline import NOTABLE

    notable = [item for item in found if item.excess >= NOTABLE]
    if not notable:
        say("Nothing lies far outside the baseline's range.")
    for item in notable[:8]:
        say(
            f"Unusual: {item.name}, {item.feature} 2^{item.value:.1f}; the baseline has 2^{item.low:.1f} to "
            f"2^{item.high:.1f}"
        )
    if len(notable) > 8:
        say(f"and {len(notable) - 8} more (see --json).")
