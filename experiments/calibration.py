"""Does the task measure what it says? The unlocked model on `biographies` at two rates, and on its controls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.locked import HERE, WORK
from specdef.certify.cell import Cell
from specdef.certify.environment import environment
from specdef.certify.executors.local import LocalExecutor
from specdef.certify.resources import Resources
from specdef.certify.result import StoredCell
from specdef.certify.statistics import score_interval
from specdef.certify.store import Store, write_json
from specdef.certify.study import Study, make_study
from specdef.certify.sweep import sweep
from specdef.certify.task_controls import controlled
from specdef.core.schema import plain
from specdef.core.text import rate
from specdef.models.bundled import BUNDLED
from specdef.models.sources import find_model
from specdef.tasks.base import TaskSpec
from specdef.tasks.score import Score
from specdef.training.recipe import Recipe

RATES, SEEDS = (1e-4, 3e-4), (0, 1, 2)
CONTROL_RATE, CONTROL_SEEDS = 1e-4, (0, 1)


def run(name: str) -> Path:
    """Train, or read what is finished; write results/calibration.json and .md."""
    folder = find_model(BUNDLED)
    study = make_study(
        folder,
        folder,
        TaskSpec("biographies"),
        utility="perplexity-growth",
        recipe=Recipe(),
        resources=Resources(2, 1, "cpu"),
    )
    cells = cells_of(study)
    store = Store(WORK / name)
    found = sweep([cell for _, cell in cells], store, LocalExecutor(2))
    rows = [_row(label, cell) for (label, _), cell in zip(cells, found, strict=True)]
    content = {"command": f"make experiment NAME={name}", "environment": plain(environment("cpu")), "rows": rows}
    write_json(HERE / "results" / f"{name}.json", content)
    path = HERE / "results" / f"{name}.md"
    path.write_text(_table(study, rows))
    return path


def cells_of(study: Study) -> list[tuple[str, Cell]]:
    """What is trained on, and the cell."""
    found = [("the facts", study.cell(study.original, lr=lr, seed=seed)) for lr in RATES for seed in SEEDS]
    for name in study.task.controls:
        other = controlled(study, name)
        found += [(name, other.cell(other.original, lr=CONTROL_RATE, seed=seed)) for seed in CONTROL_SEEDS]
    return found


def _row(label: str, cell: StoredCell) -> dict[str, Any]:
    last, start = cell.result.evaluations[-1], cell.result.evaluations[0]
    score = Score(last.score, last.by_group)
    interval = score_interval([score])
    return {
        "trained on": label,
        "lr": cell.attack.recipe.lr,
        "seed": cell.attack.recipe.seed,
        "outcome": cell.result.outcome.value,
        "step": cell.result.step,
        "before": start.score,
        "score": last.score,
        "error": score.error,
        "interval": None if interval is None else [interval.low, interval.high],
        "growth": last.utility,
        "seconds": cell.measured.seconds,
        "train_seconds": cell.measured.train_seconds,
    }


def _table(study: Study, rows: list[dict[str, Any]]) -> str:
    lines = [
        "# The task, calibrated on the unlocked model",
        "",
        f"SmolLM2-135M, task `biographies` ({len(study.task.samples)} samples, 66 facts, 396 questions), target "
        f"{study.task.target:g}, chance {study.task.chance:g}. Growth is that of the worst of four general texts; the "
        f"budget is {study.utility_factor:g}. A run on the facts ends where the target is reached within it.",
        "",
        "| trained on | lr | seed | outcome | steps | score at the end (95 % interval) | growth |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        low, high = row["interval"]
        lines.append(
            f"| {row['trained on']} | {rate(row['lr'])} | {row['seed']} | {row['outcome']} | {row['step'] or '—'} | "
            f"{row['score']:.3f} ({low:.3f} to {high:.3f}) | {row['growth']:.2f} |"
        )
    controls = [row for row in rows if row["trained on"] != "the facts"]
    far = [row for row in controls if abs(row["score"] - study.task.chance) > 2 * row["error"]]
    lines += ["", f"Controls further than two standard errors from chance: {len(far)} of {len(controls)}."]
    return "\n".join([*lines, "", "Command: `make experiment NAME=calibration`.", ""])
