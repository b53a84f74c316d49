"""Subnormal numbers on a CPU: a training step, undefended and locked, with and without flushing them.

Hot gradients fill the clipped norm and push all others towards numbers below 1e-38, on which many CPUs are slow. One
child process a model; it alternates steps with and without `torch.set_flush_denormal`, so that drift slows both.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = 6
RATES = {"unlocked": 1e-4, "exact": 1e-7, "ladder": 2e-19}
"""Learning rates at which each is neither ruined nor left as it is."""


def child(folder: str, lr: float) -> None:
    """Train with and without flushing in turn; print the seconds of either."""
    import torch

    from specdef.models.base import kind_of
    from specdef.tasks.kinds.facts import facts
    from specdef.training.loop import make_trainer
    from specdef.training.recipe import Recipe

    torch.set_num_threads(1)
    loaded = kind_of(Path(folder)).load(Path(folder), dtype=torch.float32)
    task = loaded.kind.encode(facts().samples, loaded)
    step = make_trainer(loaded, Recipe(lr=lr, steps=2 * STEPS + 1, retain_weight=0.0), task, None).step
    step()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(2 * STEPS):
        flush = turn % 4 in (1, 2)
        torch.set_flush_denormal(flush)
        started = time.perf_counter()
        step()
        seconds[flush].append(time.perf_counter() - started)
    print(json.dumps({"plain": statistics.median(seconds[False]), "flushed": statistics.median(seconds[True])}))


def main() -> None:
    """Lock, train each, and print the ratios."""
    from specdef import lock
    from specdef.models.bundled import BUNDLED
    from specdef.models.sources import find_model

    with tempfile.TemporaryDirectory() as scratch:
        for name, lr in RATES.items():
            folder = find_model(BUNDLED)
            if name != "unlocked":
                folder = Path(scratch) / name
                lock(find_model(BUNDLED), folder, preset=name)
            command = [sys.executable, "-m", "benchmarks.bench_denormals", str(folder), str(lr)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found = json.loads(output.splitlines()[-1])
            ratio = found["plain"] / found["flushed"]
            print(f"{name}: a step takes {found['plain']:.2f} s, {ratio:.2f} times one that flushes subnormals")


if __name__ == "__main__":
    child(sys.argv[1], float(sys.argv[2])) if len(sys.argv) > 1 else main()
