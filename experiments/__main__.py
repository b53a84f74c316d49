"""`make experiment NAME=table4`: run one experiment by the name of its configuration."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from experiments import crosscheck, runner, utility
from experiments.locked import HERE
from experiments.toy import run as toy
from specdef.errors import SpecdefError


def main() -> None:
    known = ["crosscheck", *toy.NAMES, *sorted(path.stem for path in (HERE / "configs").glob("*.json"))]
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in known:
        print(f"`NAME` must be one of {', '.join(known)}; got {name!r}.", file=sys.stderr)
        sys.exit(2)
    try:
        path = _runner(name)(name)
    except SpecdefError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    print(path.read_text())


def _runner(name: str) -> Callable[[str], Path]:
    if name == "crosscheck":
        return crosscheck.run
    if name in toy.NAMES:
        return toy.run
    config = json.loads((HERE / "configs" / f"{name}.json").read_text())
    return utility.run if config.get("kind") == "utility" else runner.run


if __name__ == "__main__":
    main()
