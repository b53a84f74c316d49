"""The command line: the application, its entry point, what happens on bad input and Ctrl-C. Nothing heavy imported."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from inspect import signature
from typing import Annotated, Any

import typer

from specdef.cli import (
    analysis,
    attack,
    certify,
    defend,
    inspect,
    lock,
    map,
    model,
    publish,
    report,
    run,
    runs,
    sign,
    similarity,
    undo,
)
from specdef.cli.kinds import ListingCommand
from specdef.cli.render import err_console, say_error
from specdef.core.atomic import remove_unfinished
from specdef.errors import SpecdefError

app = typer.Typer(name="specdef", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")


class _Interrupted(BaseException):
    """Ctrl-C, under a name typer does not swallow."""


def _interrupt(*_: Any) -> None:
    raise _Interrupted


def main() -> None:
    """Entry point: bad input exits with code 2 and one sentence, a failed check with 1."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app(prog_name="specdef")
    except SpecdefError as error:
        say_error(_of_process(_as_typed(str(error), sys.argv[1:])))
        sys.exit(2)
    except _Interrupted:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        remove_unfinished()
        err_console.print("Interrupted; nothing half-written was left behind.")
        sys.exit(130)


def _of_process(sentence: str) -> str:
    """A sentence with which of several processes says it, but for the first."""
    rank = os.environ.get("RANK", "0")
    return sentence if rank == "0" or os.environ.get("WORLD_SIZE", "1") == "1" else f"(process {rank}) {sentence}"


def _as_typed(sentence: str, arguments: Sequence[str]) -> str:
    """A sentence with the command's options as they are typed: `batch_size` of the library is `batch-size` here."""
    called = next((one for commands in GROUPS.values() for one in commands if one.__name__ in arguments[:1]), None)
    names = () if called is None else signature(called).parameters
    return re.sub(r"`(\w+)`", lambda found: found[0].replace("_", "-") if found[1] in names else found[0], sentence)


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


GROUPS = {
    "Lock": (lock.lock, lock.unlock, sign.sign, sign.verify, publish.publish),
    "Attack and certify": (
        attack.attack,
        undo.undo,
        runs.runs,
        certify.certify,
        report.report,
        report.compare,
        run.run,
    ),
    "Defend": (defend.defend,),
    "Analyse": (inspect.inspect, map.map, analysis.curvature, analysis.harness, similarity.similarity),
    "Models": (model.fetch, model.demo),
}
"""Panel of `specdef --help` -> its commands. A command's docstring ends with the example shown below its options."""

for _group, _commands in GROUPS.items():
    for _command in _commands:
        _help, _, _example = (_command.__doc__ or "").partition("\n\n")
        app.command(
            _command.__name__,
            cls=ListingCommand,
            help=_help,
            epilog=" ".join(_example.split()),
            rich_help_panel=_group,
        )(_command)
