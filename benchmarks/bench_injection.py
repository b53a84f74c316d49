"""What layer injection adds to a training step: seconds and peak memory against k, as ratios within one run.

The paper's lock of five matrices at 1e4; each k in a process of its own, twice, in the order up and down.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STEPS, LAYERS = 5, (0, 1, 2, 3, 5)


def child(folder: Path) -> None:
    """Train a folder for a few steps; print seconds a step, peak memory and parameters."""
    import torch

    from specdef.models.base import kind_of
    from specdef.tasks.kinds.facts import facts
    from specdef.tasks.utility import utility_for
    from specdef.training.loop import make_trainer
    from specdef.training.recipe import Recipe

    loaded = kind_of(folder).load(folder, dtype=torch.float32)
    model = loaded.model
    utility = utility_for(loaded.kind)
    general = utility.prepare(utility.read(None), loaded).retained
    samples = loaded.kind.encode(facts().samples, loaded)
    trainer = make_trainer(loaded, Recipe(lr=1e-12, steps=STEPS + 2), samples, general)
    trainer.step()
    started = time.perf_counter()
    for _ in range(STEPS):
        trainer.step()
    seconds = (time.perf_counter() - started) / STEPS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "parameters": sum(p.numel() for p in model.parameters())}))


def main() -> None:
    """Make the folders, time each, and fit a line through k."""
    from specdef import lock
    from specdef.attacks.interventions.inject_layers import InjectLayers

    with tempfile.TemporaryDirectory() as scratch:
        locked = Path(scratch) / "k0"
        lock("smollm2-135m", locked, preset="paper")
        folders = {0: locked}
        for k in LAYERS[1:]:
            folders[k] = Path(scratch) / f"k{k}"
            InjectLayers(factors=k).rewrite(locked, folders[k])
        found: dict[int, list[dict[str, float]]] = {k: [] for k in LAYERS}
        for k in (*LAYERS, *reversed(LAYERS)):
            command = [sys.executable, "-m", "benchmarks.bench_injection", str(folders[k])]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[k].append(json.loads(output.splitlines()[-1]))
    base = statistics.mean(run["seconds"] for run in found[0])
    ratios = [statistics.mean(run["seconds"] for run in found[k]) / base for k in LAYERS]
    slope, intercept = np.polyfit(LAYERS, ratios, 1)
    residual = max(abs(ratio - slope * k - intercept) for k, ratio in zip(LAYERS, ratios, strict=True))
    for k, ratio in zip(LAYERS, ratios, strict=True):
        memory = max(run["peak"] for run in found[k]) / max(run["peak"] for run in found[0])
        grown = found[k][0]["parameters"] / found[0][0]["parameters"]
        print(f"k = {k}: {ratio:.3f} x the locked model's step, {memory:.3f} x peak memory, {grown:.3f} x parameters")
    print(f"step time over k: {intercept:.3f} + {slope:.3f} k, largest residual {residual:.3f}")


if __name__ == "__main__":
    child(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
