"""Commands in forks of a process that has imported the command line and nothing heavy, as a process of their own has.

A process for every command would spend most of its time importing the same again.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import NamedTuple

HEAVY = ("torch", "transformers", "matplotlib", "scipy")


class Done(NamedTuple):
    """What a command left behind: as `subprocess.run` gives it, what it imported of `HEAVY`, and CPU seconds."""

    returncode: int
    stdout: str
    stderr: str
    heavy: list[str]
    seconds: float


class Forks:
    """Runs commands one after another."""

    def __init__(self, server: subprocess.Popen[str], place: Path) -> None:
        self._server, self._place = server, place

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> Done:
        """Run ``specdef ARGUMENTS`` in a folder (else this one), with the environment as it is now."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        order = {
            "arguments": [*map(str, arguments)],
            "cwd": str(cwd or Path.cwd()),
            "environment": dict(os.environ),
            "place": str(self._place),
        }
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        said = (self._place / name for name in ("stdout", "stderr"))
        stdout, stderr = (path.read_bytes().decode() for path in said)
        return Done(answer["code"], stdout, stderr, json.loads((self._place / "heavy").read_text()), answer["seconds"])


@contextmanager
def forks(*ahead: str) -> Iterator[Forks]:
    """A process to fork from, until the end of the block; `ahead`: commands that it has refused before."""
    command = [sys.executable, __file__, *ahead]
    with (
        tempfile.TemporaryDirectory() as place,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
    ):
        yield Forks(server, Path(place))


def _command(order: dict[str, object], place: Path) -> None:
    """In the fork: run the command and leave with its exit code."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code = 1
    try:
        os.environ.clear()
        os.environ.update(order["environment"])  # type: ignore[call-overload]
        os.chdir(order["cwd"])  # type: ignore[arg-type]
        sys.argv = ["specdef", *order["arguments"]]  # type: ignore[misc]
        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        (place / "heavy").write_text(json.dumps([name for name in HEAVY if name in sys.modules]))
        os._exit(code)


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, which a command of its own would not see
    from specdef.cli.main import main

    for refused in sys.argv[1:]:
        with (
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
            suppress(SystemExit),
        ):
            sys.argv = ["specdef", *refused.split()]
            main()
    gc.freeze()
    for line in sys.stdin:
        wanted = json.loads(line)
        before = _spent()
        pid = os.fork()
        if pid == 0:
            _command(wanted, Path(wanted["place"]))
        _, status = os.waitpid(pid, 0)
        answer = {"code": os.waitstatus_to_exitcode(status), "seconds": _spent() - before}
        print(json.dumps(answer), flush=True)
