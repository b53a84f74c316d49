"""What is done to the models of a demonstration, and what the page says of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from specdef.attacks.base import Attack
from specdef.attacks.run import run_attack
from specdef.certify.run_cell import keep_freed_memory
from specdef.checkpoint.digests import file_digest
from specdef.core.folders import new_folder
from specdef.core.text import counted, rate
from specdef.demo.story import Story
from specdef.locks.base import Check
from specdef.locks.lock import LockReport, lock
from specdef.locks.unlock import unlock
from specdef.locks.verify import verify
from specdef.models.base import kind_of
from specdef.report.demo_page import PAGE, Part, demo_page
from specdef.report.plots import plot_curves, require_matplotlib
from specdef.tasks.utility import UTILITIES
from specdef.training.outcome import Evaluation

BUDGET = 2.0
"""How far utility may go: `Utility.within`."""
MODEL, LOCKED, RESTORED = "original", "locked", "restored"
Curves = Mapping[str, Sequence[Evaluation]]
"""What a run is called -> its evaluations."""


def run_demo(out: Path, console: Console, stories: Sequence[Story], *, steps: int | None = None) -> bool:
    """Run the demonstration and leave its folder behind.

    Args:
        out: the folder to create: of every model the ``locked`` one, the key and the pictures, and ``index.html``.
        console: where progress and results are printed.
        stories: a model each.
        steps: fine-tuning steps of each attack; the story's own when None.

    Returns:
        Whether every check of the locked models passed and the restored files are the originals'.

    Raises:
        SpecdefError: `out` exists, or a model or matplotlib is not installed.
    """
    started = time.perf_counter()
    require_matplotlib()
    keep_freed_memory()
    parts: list[Part] = []
    good = True
    with new_folder(out) as folder:
        for story in stories:
            place = folder / story.folder
            place.mkdir(exist_ok=True)
            told, passed = _tell(story, place, console, steps or story.ordinary.steps)
            parts += story.shown(place)
            parts += told if len(stories) == 1 else [_named(part, story) for part in told]
            good = good and passed
        seconds = time.perf_counter() - started
        (folder / PAGE).write_text(demo_page(parts, seconds=seconds), encoding="utf-8")
    console.print(
        f"Open {out}/{PAGE} (took {seconds:.0f} s). What was locked lies beside it, with its keys.", soft_wrap=True
    )
    return good


def _tell(story: Story, place: Path, console: Console, steps: int) -> tuple[list[Part], bool]:
    """One model from beginning to end: the parts of the page, and whether every check passed."""
    original = story.fetch(place, console)
    locked = place / LOCKED
    console.print("[bold]2. Lock[/bold] preset exact: every pair in every layer, multiplier 2^20")
    report = lock(original, locked, preset="exact")
    console.print(f"   {report.num_values:,} weights changed by powers of two; key beside the folder")
    console.print("[bold]3. Verify[/bold]")
    checks = verify(locked, original=original).checks
    for check in checks:
        console.print(f"   {'ok  ' if check.passed else 'FAIL'} {check.name}: {check.detail}", soft_wrap=True)
    console.print("[bold]4. Ask[/bold] both the same")
    said = {name: story.said(model) for name, model in ((MODEL, original), (LOCKED, locked))}
    for name, text in said.items():
        console.print(f"   {name:9s} {text!r}")
    runs = ((story.free, original), (story.ruined, locked), (story.broken, locked))
    console.print(f"[bold]5. Fine-tune[/bold] on {story.taught}, AdamW, {counted(steps, 'step')} each")
    rates = {story.broken: story.low}
    curves = {
        label: _fine_tune(story, label, model, rates.get(label, story.ordinary.lr), steps, console)
        for label, model in runs
    }
    console.print("[bold]6. Unlock[/bold] with the key")
    same = _restored(locked, place / RESTORED, original)
    console.print(f"   {'ok  ' if same else 'FAIL'} every file of the original, byte for byte")
    parts = [
        _function(story, report, checks, said),
        _ruin(story, place, curves, steps),
        _breach(story, place, curves),
        _undone(report, same),
    ]
    return parts, same and all(check.passed for check in checks)


def _named(part: Part, story: Story) -> Part:
    """A part whose title says which model it is of.

    Example:
        >>> from specdef.demo.text import Flowers
        >>> _named(Part("It was not ruined", []), Flowers()).title
        'SmolLM2-135M: it was not ruined'
    """
    name = story.name[0].upper() + story.name[1:]
    return replace(part, title=f"{name}: {part.title[0].lower()}{part.title[1:]}")


def _fine_tune(story: Story, label: str, model: Path, lr: float, steps: int, console: Console) -> list[Evaluation]:
    """Score on the task and utility on general data, before training and several times during it.

    A run ends where the target is reached: what follows would show nothing new. `Story.stop` says whether also at a
    ruin.
    """
    import torch

    loaded = kind_of(model).load(model, dtype=torch.float32)
    often = max(1, steps * story.ordinary.eval_every // story.ordinary.steps)
    attack = Attack(replace(story.ordinary, lr=lr, steps=steps, eval_every=often), stop=story.stop)
    utility = UTILITIES.get(story.utility)

    def show(point: Evaluation) -> None:
        words = f"score {point.score:.2f}, {utility.written(point.utility)}"
        console.print(f"   {label}: step {point.step}: {words}", highlight=False)

    return run_attack(loaded, story.task, story.general(loaded), attack, progress=show).evaluations


def _restored(locked: Path, out: Path, original: Path) -> bool:
    """Unlock, and whether every file is the original's; the restored copy is not kept."""
    unlock(locked, out)
    names = sorted(path.name for path in original.iterdir() if path.is_file())
    same = names == sorted(path.name for path in out.iterdir()) and all(
        file_digest(out / name) == file_digest(original / name) for name in names
    )
    shutil.rmtree(out)
    return same


def _function(story: Story, report: LockReport, checks: Sequence[Check], said: Mapping[str, str]) -> Part:
    lines = [f"{report.num_values:,} weights were multiplied by powers of two; what is computed stays the same."]
    lines += [f"The {name} {story.says}: {text}" for name, text in said.items()]
    lines += [f"{'Passed' if check.passed else 'FAILED'}: {check.name}: {check.detail}" for check in checks]
    return Part("The locked model computes what the original does", lines)


def _ruin(story: Story, place: Path, curves: Curves, steps: int) -> Part:
    end = curves[story.ruined][-1]
    text = (
        f"After at most {counted(steps, 'step')} at lr {rate(story.ordinary.lr)}: the original's "
        f"{_ended(story, curves[story.free])}; the locked one's {_ended(story, curves[story.ruined])}."
    )
    title = "It was not ruined"
    if not _useful(story, curves[story.ruined]):
        learned = end.score >= story.task.target
        title = (
            "Ordinary fine-tuning teaches it, and ruins it otherwise" if learned else "Ordinary fine-tuning ruins it"
        )
    return Part(title, [text], _drawn(story, place / "ordinary.png", curves, (story.free, story.ruined)), story.note)


def _breach(story: Story, place: Path, curves: Curves) -> Part:
    end = curves[story.broken][-1]
    low = rate(story.low)
    text = f"After {counted(end.step, 'step')} at lr {low} the locked model's {_ended(story, curves[story.broken])}."
    if end.score >= story.task.target and _useful(story, curves[story.broken]):
        title = "A lower learning rate opens it"
        text += f" It learns, and stays of use{_cost(story, curves)}. A lock is friction, not security."
    else:
        title = "In so few steps the lower learning rate does not open it"
        text += " Give more `--steps`."
    return Part(title, [text], _drawn(story, place / "lower.png", curves, (story.free, story.broken)), story.note)


def _useful(story: Story, points: Sequence[Evaluation]) -> bool:
    return UTILITIES.get(story.utility).within(points[0].utility, points[-1].utility, BUDGET)


def _cost(story: Story, curves: Curves) -> str:
    """What the lock cost the attacker, where the undefended model was opened too."""
    free, low = curves[story.free], curves[story.broken]
    if free[-1].score < story.task.target or not _useful(story, free):
        return ""
    return f": in {counted(low[-1].step, 'step')}, where the unlocked model took {free[-1].step} at the ordinary rate"


def _undone(report: LockReport, same: bool) -> Part:
    key = "no key" if report.key is None else report.key.name
    text = f"With the private key ({key}) every file of the original came back, byte for byte."
    return Part("The key restores the original", [text if same else "FAILED: a file differs from the original."])


def _ended(story: Story, points: Sequence[Evaluation]) -> str:
    first, last = points[0], points[-1]
    utility = f"its {story.useful} from {first.utility:.4g} to {last.utility:.4g}"
    return f"score went from {first.score:.2f} to {last.score:.2f}, {utility}"


def _drawn(story: Story, path: Path, curves: Curves, labels: Sequence[str]) -> bytes:
    plot_curves(
        {label: [(point.step, point.score, point.utility) for point in curves[label]] for label in labels},
        path,
        title=f"{story.name[0].upper()}{story.name[1:]}, exact lock 2^20, AdamW",
        first_label=story.score_label,
        second_label=story.useful,
    )
    return path.read_bytes()
