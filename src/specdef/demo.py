"""`specdef demo`: lock the bundled model, check it, fine-tune both copies a few steps, show what happened."""

from __future__ import annotations

import time
from itertools import zip_longest
from pathlib import Path

from rich.console import Console
from rich.table import Table

from specdef.attacks.base import Attack
from specdef.attacks.run import run_attack
from specdef.core.folders import new_folder
from specdef.core.text import counted
from specdef.locks.lock import lock
from specdef.locks.verify import verify
from specdef.models.base import kind_of
from specdef.models.bundled import BUNDLED
from specdef.models.loading import load, load_tokenizer
from specdef.models.sources import find_model
from specdef.report.plots import plot_curves, require_matplotlib
from specdef.tasks.kinds.facts import facts
from specdef.tasks.utility import utility_for
from specdef.training.outcome import Evaluation
from specdef.training.recipe import Recipe

LEARNING_RATE = 3e-4
PROMPT = "The capital of France is"


def run_demo(out: Path, console: Console, *, steps: int = 12) -> bool:
    """Run the demonstration and leave its folder behind.

    Args:
        out: the folder to create: ``locked``, the key, and ``curves.png``.
        console: where progress and results are printed.
        steps: fine-tuning steps on each model.

    Returns:
        Whether every check of the locked model passed.

    Raises:
        SpecdefError: `out` exists, or the bundled model or matplotlib is not installed.
    """
    started = time.perf_counter()
    require_matplotlib()
    with new_folder(out) as folder:
        console.print(f"[bold]1. Fetch[/bold] {BUNDLED} (SmolLM2-135M-Instruct, float32)")
        original = find_model(BUNDLED)
        locked = folder / "locked"
        console.print("[bold]2. Lock[/bold] preset exact: every pair in every layer, multiplier 2^20")
        report = lock(original, locked)
        console.print(f"   {report.num_values:,} weights changed by powers of two; key beside the folder")
        console.print("[bold]3. Verify[/bold]")
        verified = verify(locked, original=original)
        for check in verified.checks:
            console.print(f"   {'ok  ' if check.passed else 'FAIL'} {check.name}: {check.detail}", soft_wrap=True)
        console.print("[bold]4. Generate[/bold] the same sentence from both")
        models = {"original": original, "locked": locked}
        for name, model in models.items():
            console.print(f"   {name:9s} {_generate(model)!r}")
        console.print(
            f"[bold]5. Fine-tune[/bold] both on invented facts, AdamW, lr {LEARNING_RATE:g}, {counted(steps, 'step')}"
        )
        runs = {name: _fine_tune(name, model, steps, console) for name, model in models.items()}
        console.print(_table(runs))
        plot_curves(
            {name: [(point.step, point.score, point.utility) for point in points] for name, points in runs.items()},
            folder / "curves.png",
            title=f"SmolLM2-135M, AdamW at {LEARNING_RATE:g}: unlocked and fold lock 2^20",
            left_label="share of questions on the facts answered rightly",
            right_label=utility_for(kind_of(original)).unit,
        )
    console.print(
        f"Wrote {out}/locked, {out}/locked.specdef-key and {out}/curves.png in {time.perf_counter() - started:.0f} s.\n"
        "Utility: growth of perplexity on the worst of four texts. An ordinary learning rate ruins the "
        "locked model; a lower one, 5.6e-8, breaks the lock: see README, 'What it does not stop'.",
        soft_wrap=True,
    )
    return verified.passed


def _generate(folder: Path) -> str:
    tokenizer, model = load_tokenizer(folder), load(folder)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    generated = model.generate(ids, max_new_tokens=14, do_sample=False)  # type: ignore[operator]
    return str(tokenizer.decode(generated[0]))


def _fine_tune(name: str, folder: Path, steps: int, console: Console) -> list[Evaluation]:
    """Score on the facts and utility on general text, before training and three times during it."""
    import torch

    loaded = kind_of(folder).load(folder, dtype=torch.float32)
    attack = Attack(Recipe(lr=LEARNING_RATE, steps=steps, eval_every=max(1, steps // 3)))
    utility = utility_for(loaded.kind)

    def show(point: Evaluation) -> None:
        console.print(f"   {name:9s} step {point.step}: score {point.score:.2f}, {utility.written(point.utility)}")

    general = utility.prepare(utility.read(None), loaded)
    return run_attack(loaded, facts(), general, attack, progress=show).evaluations


def _table(runs: dict[str, list[Evaluation]]) -> Table:
    table = Table()
    table.add_column("step", justify="right")
    for name in runs:
        table.add_column(f"{name}: score", justify="right")
        table.add_column("utility", justify="right")
    for points in zip_longest(*runs.values()):
        steps = {str(point.step) for point in points if point is not None}
        cells = [(f"{p.score:.2f}", f"{p.utility:.4g}") if p is not None else ("", "") for p in points]
        table.add_row("/".join(sorted(steps)), *(text for cell in cells for text in cell))
    return table
