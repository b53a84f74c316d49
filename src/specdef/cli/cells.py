"""What is shown while cells run: one live panel on a terminal, a line at least every ten seconds in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.cli.board import Board, described, time_left
from specdef.cli.heartbeat import heartbeat
from specdef.cli.render import err_console, safe

if TYPE_CHECKING:
    from specdef.certify.events import CellEvent
    from specdef.certify.result import StoredCell

SHOWN = 12
"""Running cells in the panel; the others are counted."""


@dataclass
class Watch:
    """What `certify_model` and `run_study` call while they work."""

    board: Board
    say: Callable[[str], None]
    quiet: bool
    stage: str
    title: str

    def on_stage(self, name: str) -> None:
        """Another stage begins."""
        from specdef.report import phrases

        self.board.clear()
        self.stage, self.title = name, phrases.stage(name)
        if not self.quiet and not err_console.is_terminal:
            self.say(f"stage: {self.title}")

    def on_event(self, event: CellEvent) -> None:
        """A cell said where it is."""
        self.board.take(event, time.monotonic())

    def on_cell(self, cell: StoredCell, done: int, total: int) -> None:
        """A cell finished."""
        from specdef.cli.runs import sentence

        self.board.finish(cell.key, time.monotonic())
        if not self.quiet:
            left = "" if total else " (run ahead)"
            if done < total:
                left = f" ({done} of {total} done{time_left(self.board.left(time.monotonic()))})"
            self.say(f"{cell.attack.label}, seed {cell.attack.recipe.seed}: {sentence(cell)}{left}")

    def line(self) -> str:
        """All of it in one line, for a log."""
        running = [f"{one.event.label}: {described(one.event)}" for one in self.board.running()]
        if not self.board.cells():
            return f"still at work: {self.stage}"
        return "; ".join([f"{self.stage}: {self.board.summary(time.monotonic())}", *running])

    def __rich__(self) -> Any:
        """The panel."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        now, running = time.monotonic(), self.board.running()
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("attack", ratio=1, no_wrap=True, overflow="ellipsis")
        for name in ("step", "loss", "score", "seconds"):
            table.add_column(name, justify="right", no_wrap=True)
        for one in running[:SHOWN]:
            event = one.event
            step = f"{event.step}/{event.steps}" if event.step else str(event.phase)
            numbers = ("" if found is None else f"{found:.3f}" for found in (event.loss, event.score))
            table.add_row(safe(event.label), step, *numbers, f"{one.spent(now):.0f}")
        model = f"{running[0].event.model}: " if running else ""
        more = f" ({len(running) - SHOWN} more run)" if len(running) > SHOWN else ""
        head = Text(model + self.board.summary(now) + more if self.board.cells() else "preparing")
        return Panel(Group(head, table) if running else head, title=safe(self.title), title_align="left")


@contextmanager
def cells_shown(start: str, *, quiet: bool) -> Iterator[Watch]:
    """Show how cells go on.

    Args:
        start: what is said at once.
        quiet: show nothing.
    """
    from rich.live import Live

    watch = Watch(Board(), lambda text: None, quiet, start, start)
    with ExitStack() as stack:
        watch.say = stack.enter_context(heartbeat(watch.line, hidden=quiet or err_console.is_terminal))
        if not quiet and err_console.is_terminal:
            stack.enter_context(
                Live(watch, console=err_console, refresh_per_second=2, transient=True, get_renderable=lambda: watch)
            )
        elif not quiet:
            watch.say(start)
        yield watch
