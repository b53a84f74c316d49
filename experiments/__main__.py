"""`make experiment NAME=table4`: run one experiment by the name of its configuration."""

from __future__ import annotations

import json
import sys

from experiments import runner, utility
from experiments.locked import HERE
from specdef.errors import SpecdefError


def main() -> None:
    known = sorted(path.stem for path in (HERE / "configs").glob("*.json"))
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in known:
        print(f"`NAME` must be one of {', '.join(known)}; got {name!r}.", file=sys.stderr)
        sys.exit(2)
    config = json.loads((HERE / "configs" / f"{name}.json").read_text())
    try:
        path = utility.run(name) if config.get("kind") == "utility" else runner.run(name)
    except SpecdefError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    print(path.read_text())


if __name__ == "__main__":
    main()
