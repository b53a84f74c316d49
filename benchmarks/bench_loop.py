"""The training loop against a bare torch loop on the same work: steps per second and peak memory, in one run.

Each child process trains SmolLM2-135M for a few steps in one of the two ways; children alternate A B B A, so that a
drifting machine slows both. The bare loop has the same batches, optimizer, schedule and clipping, and nothing else.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time

STEPS, ROUNDS = 8, 3


def child(way: str) -> None:
    """Train in one way; print steps per second and peak memory in bytes."""
    import torch
    from transformers import get_linear_schedule_with_warmup

    from specdef.models.base import kind_of
    from specdef.models.bundled import BUNDLED
    from specdef.models.sources import find_model
    from specdef.tasks.kinds.facts import facts
    from specdef.tasks.utility import utility_for
    from specdef.training.batches import batches
    from specdef.training.loop import make_trainer
    from specdef.training.recipe import Recipe

    folder = find_model(BUNDLED)
    loaded = kind_of(folder).load(folder, dtype=torch.float32)
    model, kind = loaded.model, loaded.kind
    task = kind.encode(facts().samples, loaded)
    utility = utility_for(kind)
    general = utility.prepare(utility.read(None), loaded).retained
    assert general is not None
    recipe = Recipe(lr=1e-5, steps=STEPS + 1)
    if way == "specdef":
        step = make_trainer(loaded, recipe, task, general).step
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=True)
        schedule = get_linear_schedule_with_warmup(optimizer, 1, STEPS + 1)
        rows, texts = batches(task, 8, 0, kind), batches(general, 2, 1, kind)
        model.train()

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            for source, weight in ((rows, 0.75), (texts, 0.25)):
                ids, labels, mask = next(source)
                logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
                (weight * loss).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            return float(loss.detach())

    step()
    started = time.perf_counter()
    for _ in range(STEPS):
        step()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"steps_per_second": STEPS / seconds, "peak": peak}))


def main() -> None:
    """Alternate the two ways and print the ratios."""
    found: dict[str, list[dict[str, float]]] = {"bare": [], "specdef": []}
    for turn in range(ROUNDS):
        for way in ("bare", "specdef") if turn % 2 == 0 else ("specdef", "bare"):
            command = [sys.executable, "-m", "benchmarks.bench_loop", way]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[way].append(json.loads(output.splitlines()[-1]))
    pairs = zip(found["specdef"], found["bare"], strict=True)
    speed = [ours["steps_per_second"] / bare["steps_per_second"] for ours, bare in pairs]
    memory = max(run["peak"] for run in found["specdef"]) / max(run["peak"] for run in found["bare"])
    per_second = statistics.median(run["steps_per_second"] for run in found["specdef"])
    print(f"steps per second: {per_second:.3f}; over the bare loop, by round: {[round(ratio, 3) for ratio in speed]}")
    print(f"median ratio {statistics.median(speed):.3f} (goal 0.95); peak memory ratio {memory:.3f} (goal 1.05)")


if __name__ == "__main__":
    child(sys.argv[1]) if len(sys.argv) > 1 else main()
