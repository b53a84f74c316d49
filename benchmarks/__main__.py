"""Run benchmarks in turn, each in its own process: those that are named, or all."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> None:
    names = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(names)} (default: all)")
    chosen = parser.parse_args().names
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"NAME must be any of {', '.join(names)}; got {unknown[0]}")
    for name in chosen or names:
        print(f"\n== {name} ==", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.bench_{name}"], check=True)


if __name__ == "__main__":
    main()
