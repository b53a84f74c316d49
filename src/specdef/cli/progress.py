"""What is shown while one thing is worked on: bars on a terminal, plain lines where the output is piped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.cli.heartbeat import heartbeat
from specdef.cli.render import err_console, safe

if TYPE_CHECKING:
    from specdef.training.outcome import Evaluation


@contextmanager
def bytes_bar(label: str, folder: Path, *, quiet: bool) -> Iterator[Any]:
    """A progress bar over the bytes of a folder's shards; nothing where there is no terminal for it."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    total = sum(path.stat().st_size for path in folder.glob("*.safetensors") if path.is_file())
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    hidden = quiet or not err_console.is_terminal
    with Progress(*columns, console=err_console, disable=hidden, transient=True) as bar:
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


Shown = tuple["Callable[[Evaluation], None]", "Callable[[int, float], None]"]


@contextmanager
def steps_bar(total: int, *, quiet: bool, start: str = "loading") -> Iterator[Shown]:
    """Of one attack: what to call after an evaluation, which is a line, and after a step, which moves a bar below.

    Where there is no terminal for a bar, the step is a line whenever nothing was printed for some seconds.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[pace]}"))
    hidden, latest = quiet or not err_console.is_terminal, [f"still at work: {start}"]
    with (
        Progress(*columns, console=err_console, transient=True, disable=hidden) as bar,
        heartbeat(lambda: latest[0], hidden=quiet or err_console.is_terminal) as say,
    ):
        task = bar.add_task(safe(start), total=total, pace="")
        if hidden and not quiet:
            say(start)
        started: list[float] = []

        def on_step(step: int, loss: float) -> None:
            speed = pace(step, total, time.monotonic() - started[0])
            latest[0] = ", ".join(filter(None, [f"step {step}/{total}: loss {loss:.3f}", speed]))
            bar.update(task, completed=step, description=f"step {step}/{total}, loss {loss:.3f}", pace=speed)

        def on_evaluation(point: Evaluation) -> None:
            started.append(time.monotonic())
            latest[0] = f"still at work: after step {point.step}/{total}"
            speed = pace(point.step, total, started[-1] - started[0])
            bar.update(task, completed=point.step, description=f"step {point.step}/{total}", pace=speed)
            parts = [f"step {point.step}/{total}: score {point.score:.3f}, utility {point.utility:.4g}"]
            parts += [] if point.loss is None else [f"loss {point.loss:.3f}"]
            parts += [speed] if speed else []
            if not quiet:
                say(", ".join(parts))

        yield on_evaluation, on_step
