"""How fast the command line answers `--help` and every kind of bad argument: the slowest of five tries each."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHILD = "from specdef.cli.main import main; main()"
CASES = {
    "--help": ["--help"],
    "lock --help": ["lock", "--help"],
    "unknown verb": ["lokc"],
    "missing argument": ["lock"],
    "unknown option": ["lock", "MODEL", "OUT", "--bad"],
    "no such model": ["lock", "nowhere", "OUT"],
    "multiplier 1e4": ["lock", "MODEL", "OUT", "--multiplier", "1e4"],
    "layer out of range": ["lock", "MODEL", "OUT", "--layers", "99"],
    "unknown pair": ["lock", "MODEL", "OUT", "--pairs", "xyz"],
    "paper, rank 0": ["lock", "MODEL", "OUT", "--preset", "paper", "--rank", "0"],
    "paper, rank 9999": ["lock", "MODEL", "OUT", "--preset", "paper", "--rank", "9999"],
    "paper, unknown basis": ["lock", "MODEL", "OUT", "--preset", "paper", "--basis", "foo"],
    "paper, unknown component": ["lock", "MODEL", "OUT", "--preset", "paper", "--components", "xyz"],
    "unknown option of a lock": ["lock", "MODEL", "OUT", "-o", "strength=2"],
    "undo --help": ["undo", "--help"],
    "unknown kind of undoing": ["undo", "prune", "MODEL", "OUT"],
    "no such key": ["unlock", "MODEL", "OUT", "--key", "nowhere"],
    "plot as gif": ["inspect", "MODEL", "--plot", "x.gif"],
    "unknown bundled model": ["fetch", "gpt-5", "OUT"],
}


def main() -> None:
    """Measure and print."""
    from benchmarks.bench_lock import build

    with tempfile.TemporaryDirectory() as work:
        model = Path(work) / "model"
        build(model, 0.001, num_shards=1)
        for name, arguments in CASES.items():
            filled = [a.replace("MODEL", str(model)).replace("OUT", f"{work}/out") for a in arguments]
            worst = 0.0
            for _ in range(5):
                started = time.perf_counter()
                result = subprocess.run([sys.executable, "-c", CHILD, *filled], capture_output=True, check=False)
                worst = max(worst, time.perf_counter() - started)
            print(f"{name:26s} {worst:5.2f} s  exit {result.returncode}")


if __name__ == "__main__":
    main()
