"""Do the tasks measure what they say? Each on an undefended model at several rates, and on its controls."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.locked import HERE, WORK
from experiments.progress import say
from experiments.resources import resources
from specdef.certify.cell import Cell
from specdef.certify.environment import environment
from specdef.certify.result import StoredCell
from specdef.certify.statistics import score_interval
from specdef.certify.store import Store, write_json
from specdef.certify.study import Study, make_study
from specdef.certify.sweep import sweep
from specdef.certify.task_controls import controlled
from specdef.core.schema import plain
from specdef.core.text import rate
from specdef.defences.defend import defend
from specdef.models.bundled import BUNDLED
from specdef.models.sources import find_model
from specdef.tasks.base import TaskSpec
from specdef.tasks.kinds.biographies import QUESTIONS, STATEMENTS, biographies
from specdef.tasks.score import Score
from specdef.tasks.text.scoring import MultipleChoice, Question
from specdef.training.outcome import Outcome
from specdef.training.recipe import Recipe

SEEDS = (0, 1, 2)
ORDINARY = Recipe()
COLUMNS = ("task", "trained on", "lr", "seeds", "reached the target", "score at the end, by seed")
ABOUT = """# The tasks, calibrated on the undefended model

SmolLM2-135M: the bundled model for `biographies` and `mcqa`, a defended one for `unlearned` and `guard`. `mcqa` reads
the facts of `biographies` from a file. Growth is that of perplexity on the worst of four general texts; the budget is
2. A run on the task ends where the target is reached within it.

`unlearned` trains on and asks what `biographies` does, of a model that was taught the facts and had them removed. The
control that tells whether its questions can be guessed is therefore that of `biographies`, on a model that never had
the facts; what `unlearned`, shuffled, is above it comes back from the removal: other facts about the same people bring
some of it up."""


@dataclass(frozen=True)
class Case:
    """A task, the model that it is calibrated on, and where.

    Attributes:
        task: describes it; a file it reads is written first.
        model: finds or makes the folder.
        rates: learning rates on the task.
        control_rate: of the controls.
        recipe: everything else of how it is trained.
        utility: what is watched.
        text: writes or finds the general data; None for what ships with the package.
        label: of the task in the table; its name when None.
    """

    task: Callable[[], TaskSpec]
    model: Callable[[], Path]
    rates: tuple[float, ...]
    control_rate: float
    recipe: Recipe = ORDINARY
    utility: str = "perplexity-growth"
    text: Callable[[], Path] | None = None
    label: str | None = None


def run(name: str) -> Path:
    """The tasks of language models."""
    return calibrate(name, CASES, ABOUT, "growth")


def calibrate(
    name: str, cases: Sequence[Case], about: str, utility: str, *, more: Callable[[], Sequence[dict[str, Any]]] = list
) -> Path:
    """Train, or read what is finished; write results/NAME.json and .md.

    Args:
        name: of the experiment.
        cases: what is calibrated.
        about: title and what a reader must know first.
        utility: what the last column of the table is called.
        more: rows of further controls, measured when the cells are done.
    """
    WORK.mkdir(exist_ok=True)
    where = resources()
    store = Store(WORK / name)
    labelled = [(label, cell) for case in cases for label, cell in cells_of(case)]
    found = sweep([cell for _, cell in labelled], store, where.executor(), on_cell=say)
    rows = [_row(label, cell) for (label, _), cell in zip(labelled, found, strict=True)] + list(more())
    content = {
        "command": f"make experiment NAME={name}",
        "environment": plain(environment(where.device or "cpu")),
        "rows": rows,
    }
    write_json(HERE / "results" / f"{name}.json", content)
    path = HERE / "results" / f"{name}.md"
    path.write_text(table(name, rows, about, utility))
    return path


def cells_of(case: Case) -> list[tuple[dict[str, Any], Cell]]:
    """What is trained on, and the cell."""
    study = study_of(case)
    about = {"task": case.label or study.spec.name, "chance": study.task.chance, "target": study.task.target}
    found = [
        ({**about, "trained on": "the task"}, study.cell(study.original, lr=lr, seed=seed))
        for lr in case.rates
        for seed in SEEDS
    ]
    for name in study.task.controls:
        other = controlled(study, name)
        found += [
            ({**about, "trained on": name}, other.cell(other.original, lr=case.control_rate, seed=seed))
            for seed in SEEDS
        ]
    return found


def study_of(case: Case) -> Study:
    """The case on its model, undefended."""
    folder = case.model()
    return make_study(
        folder,
        folder,
        case.task(),
        text=None if case.text is None else case.text(),
        utility=case.utility,
        recipe=case.recipe,
        resources=resources(),
    )


def _bundled() -> Path:
    return find_model(BUNDLED)


def _defended(method: str) -> Callable[[], Path]:
    def make() -> Path:
        folder = WORK / f"{method}-{resources().device}"
        if not folder.is_dir():
            defend(method, _bundled(), folder, device=resources().device)
        return folder

    return make


def _people() -> TaskSpec:
    """The facts of `biographies` as a user's file, each in six wordings: half are trained on, and half are asked."""
    path = WORK / "people.jsonl"
    metric = biographies().metric
    assert isinstance(metric, MultipleChoice)
    by_fact: dict[str, list[Question]] = {}
    for question in metric.questions:
        by_fact.setdefault(question.group, []).append(question)
    lines = []
    for fact, questions in by_fact.items():
        kind, _, name = fact.partition(" of ")
        wordings = [*(prompt for prompt, _ in STATEMENTS[kind]), *QUESTIONS[kind]]
        for wording, question in zip(wordings, questions, strict=True):
            choices = [choice.strip() for choice in question.choices]
            asked = f"{wording.format(name=name)} ..."
            lines.append(json.dumps({"question": asked, "choices": choices, "answer": question.answer}))
    path.write_text("\n".join(lines) + "\n")
    return TaskSpec("mcqa", str(path))


CASES = (
    Case(lambda: TaskSpec("biographies"), _bundled, (5e-5, 1e-4, 2e-4, 3e-4), 1e-4),
    Case(lambda: TaskSpec("unlearned"), _defended("unlearned"), (1e-4, 2e-4), 1e-4),
    Case(lambda: TaskSpec("guard"), _defended("guard"), (1e-5, 2e-5), 1e-5),
    Case(_people, _bundled, (1e-4, 2e-4), 1e-4),
)


def _row(about: dict[str, Any], cell: StoredCell) -> dict[str, Any]:
    last, start = cell.result.evaluations[-1], cell.result.evaluations[0]
    score = Score(last.score, last.by_group)
    interval = score_interval([score])
    return {
        **about,
        "lr": cell.attack.recipe.lr,
        "seed": cell.attack.recipe.seed,
        "outcome": cell.result.outcome.value,
        "broken": cell.result.outcome is Outcome.BROKEN,
        "step": cell.result.step,
        "before": start.score,
        "score": last.score,
        "error": score.error,
        "interval": None if interval is None else [interval.low, interval.high],
        "utility": last.utility,
        "seconds": cell.measured.seconds,
        "train_seconds": cell.measured.train_seconds,
    }


def table(name: str, rows: Sequence[dict[str, Any]], about: str, utility: str) -> str:
    """Rows of one task, kind of training and rate together."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["trained on"], row["lr"]), []).append(row)
    columns = (*COLUMNS, f"{utility}, by seed")
    lines = [about, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for (task, trained, lr), found in groups.items():
        steps = ", ".join(str(row["step"]) for row in found if row["broken"])
        reached = f"{sum(row['broken'] for row in found)} of {len(found)}" + (f" (steps {steps})" if steps else "")
        scores = ", ".join(f"{row['score']:.3f}" for row in found)
        useful = ", ".join(f"{row['utility']:.2f}" for row in found)
        cells = (f"`{task}`", trained, rate(lr), str(len(found)), reached, scores, useful)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Controls against chance, over three seeds, questions and seeds as one draw:", ""]
    for (task, trained, _), found in groups.items():
        if trained != "the task":
            lines.append(f"- `{task}`, {trained}: {_against_chance(found)}")
    return "\n".join([*lines, "", f"Command: `make experiment NAME={name}`.", ""])


def _against_chance(found: list[dict[str, Any]]) -> str:
    mean = sum(row["score"] for row in found) / len(found)
    chance = found[0]["chance"]
    far = [row for row in found if abs(row["score"] - chance) > 2 * (row["error"] or 0.0)]
    before = sum(row["before"] for row in found) / len(found)
    means = f"mean {mean:.3f}, before training {before:.3f}, chance {chance:g}"
    return f"{means}; further than two standard errors from chance: {len(far)} of {len(found)}."
