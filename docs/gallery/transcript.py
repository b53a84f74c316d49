"""Run a script of the gallery in an empty folder and write down what a user would see.

``python -m docs.gallery.transcript publisher`` writes ``publisher.txt`` beside ``publisher.sh``; likewise of a script
in Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

GALLERY = Path(__file__).parent
MARKS = {".sh": "$ ", ".py": ">>> "}
"""What stands before a line that does something, by the script's language."""
_ECHO = """
import ast, sys
source, names, shown = open(sys.argv[1], encoding="utf-8").read(), {"__name__": "__main__"}, 0
for statement in ast.parse(source).body:
    print(*source.splitlines()[shown : statement.end_lineno], sep="\\n", flush=True)
    shown = statement.end_lineno
    exec(compile(ast.Module([statement], []), sys.argv[1], "exec"), names)
"""
"""Python's `bash -v`."""


def transcript(script: Path, folder: Path) -> str:
    """What a terminal shows when a script runs: its lines, commands marked, each with its output below.

    Args:
        script: of bash or Python; every line is one command, a comment, or empty.
        folder: where it runs; it stands in the text as ``DIR``.

    Raises:
        RuntimeError: a command failed; its output is in the message.
    """
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    python = script.suffix == ".py"
    shell = [sys.executable, "-u", "-c", _ECHO] if python else ["bash", "-euv", "-o", "pipefail"]
    done = subprocess.run(
        [*shell, str(script.resolve())],
        cwd=folder,
        env=os.environ | {"PATH": path, "COLUMNS": "100", "TERM": "dumb", "TQDM_DISABLE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    text = "\n".join(_marked(done.stdout, script)).replace(str(folder.resolve()), "DIR") + "\n"
    if done.returncode:
        raise RuntimeError(f"{script.name} ended with {done.returncode}:\n{text}")
    return text


def commands(script: Path) -> list[str]:
    """The lines of a script that do something."""
    return [line for line in script.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def _marked(output: str, script: Path) -> list[str]:
    """The lines of an output; those that bash echoed are commands, but for comments and empty lines."""
    waiting = script.read_text(encoding="utf-8").splitlines()
    found = []
    for line in output.splitlines():
        echoed = bool(waiting) and line == waiting[0]
        if echoed:
            waiting.pop(0)
        is_command = echoed and line and not line.startswith("#")
        found.append(MARKS[script.suffix] + line if is_command else line.rstrip())
    return found


if __name__ == "__main__":
    for name in sys.argv[1:]:
        script = next(path for ending in MARKS if (path := GALLERY / f"{name}{ending}").exists())
        with tempfile.TemporaryDirectory() as place:
            script.with_suffix(".txt").write_text(transcript(script, Path(place)), encoding="utf-8")
