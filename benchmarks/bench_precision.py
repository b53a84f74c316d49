"""One attack on SmolLM2-135M in each precision: seconds a step and an evaluation, and what share evaluation has.

Each child process trains a few steps and evaluates once in one precision; children alternate A B C C B A. The share is
that of an ordinary attack: 60 steps, an evaluation before the first and after every tenth. A CPU without AVX-512 has no
bfloat16 arithmetic: a step takes minutes there, and only float32 is measured.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

STEPS, ROUNDS = 6, 2
PRECISIONS = ("fp32", "bf16-master", "bf16")
ATTACK_STEPS, EVALUATIONS = 60, 7
GOAL = 0.15
WIDE = ("AVX512", "SVE256")
"""What torch calls CPUs whose vector units have bfloat16, or can take its place at little cost."""


def child(precision: str) -> None:
    """Print seconds of a step and of an evaluation."""
    import torch

    from specdef.attacks.run import measure
    from specdef.models.base import kind_of
    from specdef.models.bundled import BUNDLED
    from specdef.models.sources import find_model
    from specdef.tasks.base import TaskSpec, make_task
    from specdef.tasks.utility import utility_for
    from specdef.training.loop import make_trainer
    from specdef.training.recipe import Recipe

    folder = find_model(BUNDLED)
    loaded = kind_of(folder).load(folder, dtype=torch.float32)
    task = make_task(TaskSpec(loaded.kind.default_task))
    utility = utility_for(loaded.kind)
    general = utility.prepare(utility.read(None), loaded)
    recipe = Recipe(lr=1e-5, steps=STEPS + 1, precision=precision)  # type: ignore[arg-type]
    trainer = make_trainer(loaded, recipe, loaded.kind.encode(task.samples, loaded), general.retained)
    trainer.step()
    started = time.perf_counter()
    for _ in range(STEPS):
        trainer.step()
    step = (time.perf_counter() - started) / STEPS
    started = time.perf_counter()
    trainer.model.eval()
    measure(trainer.model, loaded.processor, task, general, step=STEPS)
    print(json.dumps({"step": step, "evaluation": time.perf_counter() - started}))


def main() -> None:
    """Alternate the precisions and print the ratios."""
    from torch.backends.cpu import get_cpu_capability

    capability = get_cpu_capability()
    chosen = PRECISIONS if capability in WIDE else PRECISIONS[:1]
    if chosen != PRECISIONS:
        print(f"{', '.join(PRECISIONS[1:])}: left out, torch finds {capability} here, which has no bfloat16 arithmetic")
    found: dict[str, list[dict[str, float]]] = {precision: [] for precision in chosen}
    for turn in range(ROUNDS):
        for precision in chosen if turn % 2 == 0 else reversed(chosen):
            command = [sys.executable, "-m", "benchmarks.bench_precision", precision]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[precision].append(json.loads(output.splitlines()[-1]))
    attacks = {}
    for precision, runs in found.items():
        step, evaluation = (statistics.median(run[part] for run in runs) for part in ("step", "evaluation"))
        attacks[precision] = ATTACK_STEPS * step + EVALUATIONS * evaluation
        share = EVALUATIONS * evaluation / attacks[precision]
        print(
            f"{precision}: {step:.2f} s a step, {evaluation:.1f} s an evaluation; of an attack of {ATTACK_STEPS} steps "
            f"{share:.0%} is evaluation (goal {GOAL:.0%}); time over fp32's {attacks[precision] / attacks['fp32']:.2f}"
        )


if __name__ == "__main__":
    child(sys.argv[1]) if len(sys.argv) > 1 else main()
