"""`specdef demo`: lock the bundled model, check it, ruin it, break it, undo it; one page shows what happened."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from specdef.attacks.base import Attack
from specdef.attacks.run import run_attack
from specdef.certify.run_cell import keep_freed_memory
from specdef.checkpoint.digests import file_digest
from specdef.core.folders import new_folder
from specdef.core.text import counted, rate
from specdef.locks.base import Check
from specdef.locks.lock import LockReport, lock
from specdef.locks.unlock import unlock
from specdef.locks.verify import verify
from specdef.models.base import kind_of
from specdef.models.bundled import BUNDLED
from specdef.models.loading import load, load_tokenizer
from specdef.models.sources import find_model
from specdef.report.demo_page import PAGE, Part, demo_page
from specdef.report.plots import plot_curves, require_matplotlib
from specdef.tasks.base import Task
from specdef.tasks.text.flowers import flowers
from specdef.tasks.utility import UTILITIES
from specdef.training.outcome import Evaluation
from specdef.training.recipe import Recipe

ORDINARY, LOW = 3e-4, 1e-7
UTILITY, BUDGET, ROWS = "perplexity", 2.0, 3
"""What is watched, how often the start's it may be, and on how many rows of prose: enough to see a ruin."""
PROMPT = "The capital of France is"
FREE, RUINED, BROKEN = f"original, lr {rate(ORDINARY)}", f"locked, lr {rate(ORDINARY)}", f"locked, lr {rate(LOW)}"
MODEL, LOCKED, RESTORED = "original", "locked", "restored"


@dataclass(frozen=True)
class _Run:
    """One of the three attacks: what a curve is called, the model and the learning rate."""

    label: str
    model: Path
    lr: float


def run_demo(out: Path, console: Console, *, steps: int = 12) -> bool:
    """Run the demonstration and leave its folder behind.

    Args:
        out: the folder to create: ``locked``, the key, the pictures and ``index.html``.
        console: where progress and results are printed.
        steps: fine-tuning steps of each attack.

    Returns:
        Whether every check of the locked model passed and the restored files are the original's.

    Raises:
        SpecdefError: `out` exists, or the bundled model or matplotlib is not installed.
    """
    started = time.perf_counter()
    require_matplotlib()
    keep_freed_memory()
    with new_folder(out) as folder:
        console.print(f"[bold]1. Fetch[/bold] {BUNDLED} (SmolLM2-135M-Instruct, float32)")
        original = find_model(BUNDLED)
        locked = folder / LOCKED
        console.print("[bold]2. Lock[/bold] preset exact: every pair in every layer, multiplier 2^20")
        report = lock(original, locked)
        console.print(f"   {report.num_values:,} weights changed by powers of two; key beside the folder")
        console.print("[bold]3. Verify[/bold]")
        checks = verify(locked, original=original).checks
        for check in checks:
            console.print(f"   {'ok  ' if check.passed else 'FAIL'} {check.name}: {check.detail}", soft_wrap=True)
        console.print("[bold]4. Generate[/bold] the same sentence from both")
        written = {name: _generate(model) for name, model in ((MODEL, original), (LOCKED, locked))}
        for name, text in written.items():
            console.print(f"   {name:9s} {text!r}")
        runs = (_Run(FREE, original, ORDINARY), _Run(RUINED, locked, ORDINARY), _Run(BROKEN, locked, LOW))
        console.print(f"[bold]5. Fine-tune[/bold] on invented flowers, AdamW, {counted(steps, 'step')} each")
        curves = {run.label: _fine_tune(run, steps, console) for run in runs}
        console.print("[bold]6. Unlock[/bold] with the key")
        same = _restored(locked, folder / RESTORED, original)
        console.print(f"   {'ok  ' if same else 'FAIL'} every file of the original, byte for byte")
        parts = [
            _function(report, checks, written),
            _ruin(folder, curves, steps),
            _breach(folder, curves),
            _undone(report, same),
        ]
        seconds = time.perf_counter() - started
        (folder / PAGE).write_text(demo_page(parts, seconds=seconds), encoding="utf-8")
    console.print(
        f"Open {out}/{PAGE} (took {seconds:.0f} s). The locked model and its key lie beside it.", soft_wrap=True
    )
    return all(check.passed for check in checks) and same


def _generate(folder: Path) -> str:
    tokenizer, model = load_tokenizer(folder), load(folder)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    generated = model.generate(ids, max_new_tokens=14, do_sample=False)  # type: ignore[operator]
    return str(tokenizer.decode(generated[0]))


def _fine_tune(run: _Run, steps: int, console: Console, task: Task | None = None) -> list[Evaluation]:
    """Score on the flowers and utility on general text, before training and three times during it.

    A run ends where the target is reached or the model is ruined: what follows would show nothing new.
    """
    import torch

    loaded = kind_of(run.model).load(run.model, dtype=torch.float32)
    attack = Attack(Recipe(lr=run.lr, steps=steps, eval_every=max(1, steps // 3)), early_stop=True)
    utility = UTILITIES.get(UTILITY)

    def show(point: Evaluation) -> None:
        words = f"score {point.score:.2f}, {utility.written(point.utility)}"
        console.print(f"   {run.label}: step {point.step}: {words}", highlight=False)

    general = utility.prepare(utility.read(None), loaded)
    general = replace(general, measured=general.measured[:ROWS])
    return run_attack(loaded, task or flowers(), general, attack, progress=show).evaluations


def _restored(locked: Path, out: Path, original: Path) -> bool:
    """Unlock, and whether every file is the original's; the restored copy is not kept."""
    unlock(locked, out)
    names = sorted(path.name for path in original.iterdir() if path.is_file())
    same = names == sorted(path.name for path in out.iterdir()) and all(
        file_digest(out / name) == file_digest(original / name) for name in names
    )
    shutil.rmtree(out)
    return same


def _function(report: LockReport, checks: Sequence[Check], written: Mapping[str, str]) -> Part:
    lines = [f"{report.num_values:,} weights were multiplied by powers of two; what is written stays the same."]
    lines += [f"{name} writes: {text}" for name, text in written.items()]
    lines += [f"{'Passed' if check.passed else 'FAILED'}: {check.name}: {check.detail}" for check in checks]
    return Part("The locked model computes what the original does", lines)


def _ruin(folder: Path, curves: Mapping[str, Sequence[Evaluation]], steps: int) -> Part:
    start, end = curves[RUINED][0], curves[RUINED][-1]
    text = (
        f"After at most {counted(steps, 'step')} at lr {rate(ORDINARY)}: the original's {_ended(curves[FREE])}; "
        f"the locked one's {_ended(curves[RUINED])}."
    )
    title = "Ordinary fine-tuning ruins it" if end.utility > BUDGET * start.utility else "It was not ruined"
    return Part(title, [text], _drawn(folder / "ordinary.png", curves, (FREE, RUINED)))


def _breach(folder: Path, curves: Mapping[str, Sequence[Evaluation]]) -> Part:
    start, end = curves[BROKEN][0], curves[BROKEN][-1]
    text = f"After {counted(end.step, 'step')} at lr {rate(LOW)} the locked model's {_ended(curves[BROKEN])}."
    if end.score >= flowers().target and end.utility <= BUDGET * start.utility:
        title = "A lower learning rate opens it"
        text += (
            " It learns as an unlocked model does, and stays of use. A lock is friction, not security: the committed "
            "certificates say how many steps it costs."
        )
    else:
        title = "In so few steps the lower learning rate does not open it"
        text += " Give more `--steps`."
    return Part(title, [text], _drawn(folder / "lower.png", curves, (FREE, BROKEN)))


def _undone(report: LockReport, same: bool) -> Part:
    key = "no key" if report.key is None else report.key.name
    text = f"With the private key ({key}) every file of the original came back, byte for byte."
    return Part("The key restores the original", [text if same else "FAILED: a file differs from the original."])


def _ended(points: Sequence[Evaluation]) -> str:
    first, last = points[0], points[-1]
    utility = f"its perplexity from {first.utility:.4g} to {last.utility:.4g}"
    return f"score went from {first.score:.2f} to {last.score:.2f}, {utility}"


def _drawn(path: Path, curves: Mapping[str, Sequence[Evaluation]], labels: Sequence[str]) -> bytes:
    plot_curves(
        {label: [(point.step, point.score, point.utility) for point in curves[label]] for label in labels},
        path,
        title="SmolLM2-135M, exact lock 2^20, AdamW",
        first_label="questions answered rightly",
        second_label=UTILITIES.get(UTILITY).unit,
    )
    return path.read_bytes()
