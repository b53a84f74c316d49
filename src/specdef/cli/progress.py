"""What is shown while a command works: bars on a terminal, plain lines where the output is piped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.cli.render import err_console, safe

if TYPE_CHECKING:
    from specdef.certify.result import StoredCell
    from specdef.training.outcome import Evaluation


@contextmanager
def bytes_bar(label: str, folder: Path, *, quiet: bool) -> Iterator[Any]:
    """A progress bar over the bytes of a folder's shards."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    total = sum(path.stat().st_size for path in folder.glob("*.safetensors") if path.is_file())
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err_console, disable=quiet, transient=True) as bar:
        task = bar.add_task("planning", total=total)
        yield lambda count: bar.update(task, advance=count, description=label)


def pace(done: int, total: int, seconds: float) -> str:
    """How fast steps go and how long the rest takes at that speed; nothing before the first step.

    Example:
        >>> pace(20, 60, 40.0)
        '0.5 steps/s, 80 s left'
        >>> pace(0, 60, 1.0), pace(60, 60, 12.0), pace(10, 60, 600.0)
        ('', '5 steps/s', '0.0167 steps/s, 50 min left')
    """
    if done < 1 or seconds <= 0:
        return ""
    speed = f"{done / seconds:.3g} steps/s"
    left = math.ceil(seconds / done * (total - done))
    if left == 0:
        return speed
    return f"{speed}, {left} s left" if left < 600 else f"{speed}, {math.ceil(left / 60)} min left"


@contextmanager
def steps_bar(total: int, *, quiet: bool) -> Iterator[tuple[Callable[[Evaluation], None], Callable[[int], None]]]:
    """Of one attack: what to call after an evaluation, which is a line, and after a step, which moves a bar below."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[pace]}"))
    hidden = quiet or not err_console.is_terminal
    with Progress(*columns, console=err_console, transient=True, disable=hidden) as bar:
        task = bar.add_task("loading", total=total, pace="")
        started: list[float] = []

        def on_step(step: int) -> None:
            speed = pace(step, total, time.monotonic() - started[0])
            bar.update(task, completed=step, description=f"step {step}/{total}", pace=speed)

        def on_evaluation(point: Evaluation) -> None:
            started.append(time.monotonic())
            on_step(point.step)
            if quiet:
                return
            speed = pace(point.step, total, started[-1] - started[0])
            parts = [f"step {point.step}/{total}: score {point.score:.3f}, utility {point.utility:.4g}"]
            parts += [] if point.loss is None else [f"loss {point.loss:.3f}"]
            parts += [speed] if speed else []
            err_console.print(", ".join(parts), soft_wrap=True, highlight=False)

        yield on_evaluation, on_step


@contextmanager
def cells_bar(*, quiet: bool) -> Iterator[tuple[Any, Any]]:
    """Progress over the cells of each batch, and a line per finished cell, with the time left in the batch."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from specdef.cli.runs import sentence

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=err_console, disable=quiet, transient=True) as bar:
        task = bar.add_task("starting", total=None, left="")
        started: list[float] = [time.monotonic()]
        finished: list[int] = [0]

        def on_stage(name: str) -> None:
            started[0], finished[0] = time.monotonic(), 0
            bar.update(task, description=safe(name), completed=0, total=None, left="")

        def on_cell(cell: StoredCell, done: int, total: int) -> None:
            finished[0] += 1
            each = (time.monotonic() - started[0]) / finished[0]
            minutes = math.ceil(each * (total - done) / 60)
            bar.update(task, completed=done, total=total, left=f"about {minutes} min left in this batch")
            if not quiet:
                label = f"{cell.attack.label}, seed {cell.attack.recipe.seed}"
                bar.console.print(safe(f"{label}: {sentence(cell)}"), soft_wrap=True, highlight=False)

        yield on_stage, on_cell
