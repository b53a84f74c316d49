"""Run benchmarks in turn, each in its own process: those that are named, or all. Each leaves results/NAME.txt."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from specdef.certify.environment import environment
from specdef.core.atomic import write_file

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def main() -> None:
    names = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(names)} (default: all)")
    chosen = parser.parse_args().names
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"NAME must be any of {', '.join(names)}; got {unknown[0]}")
    RESULTS.mkdir(exist_ok=True)
    for name in chosen or names:
        print(f"\n== {name} ==", flush=True)
        printed = measured(name)
        write_file(RESULTS / f"{name}.txt", f"{heading(name)}\n\n{printed}".encode())


def measured(name: str) -> str:
    """What a benchmark prints, shown as it comes. Its standard error is shown and not kept."""
    command, printed = [sys.executable, "-u", "-m", f"benchmarks.bench_{name}"], list[str]()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            printed.append(line.rstrip() + "\n")
    if process.returncode:
        sys.exit(process.returncode)
    return "".join(printed)


def heading(name: str) -> str:
    """The command, and what it ran on."""
    found = environment("cpu")
    libraries = ", ".join(f"{library} {version}" for library, version in found.libraries.items())
    return f"python -m benchmarks {name}\ncommit {found.commit}; {found.hardware}; Python {found.python}; {libraries}"


if __name__ == "__main__":
    main()
