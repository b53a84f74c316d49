"""Table 2: what a lock alone does to utility. No training: a study without attacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.heading import heading
from experiments.locked import HERE, WORK
from specdef.certify.run_cell import reference_utility
from specdef.certify.store import write_json
from specdef.certify.study import make_study
from specdef.certify.study_faults import StudyError
from specdef.certify.study_file import StudyFile
from specdef.certify.study_models import Copies
from specdef.certify.study_plan import plan_study
from specdef.core.schema import plain
from specdef.models.base import kind_of
from specdef.models.sources import find_model

HARNESS = {"table2-full": ("arc_challenge", "winogrande", "hellaswag", "mmlu")}
"""Tasks of the LM Evaluation Harness, where a machine can hold it."""


def run(name: str, study: StudyFile) -> Path:
    """Measure every defended model; write results/NAME.json and results/NAME.md."""
    plan = plan_study(study)
    original = find_model(plan.models[0].model)
    copies = Copies(WORK / "cells-store" / "models", None, "")
    rows: list[dict[str, Any]] = []
    for number, defence in enumerate(plan.defences):
        try:
            folder = copies.defended(original, defence, f"defences[{number}]")
        except StudyError as error:
            rows.append({"lock": defence.label, "refused": str(error)})
            continue
        made = make_study(folder, original, plan.tasks[0].spec, utility=study.utility)
        loaded = kind_of(folder).load(folder)
        score = float(made.task.metric(loaded.model, loaded.processor))
        row = {"lock": defence.label, "perplexity": reference_utility(made.cell(made.locked)), "score": score}
        if name in HARNESS:
            from specdef.integrations.lm_eval import evaluate_harness

            row["harness"] = evaluate_harness(folder, list(HARNESS[name]))
        rows.append(row)
        print(row, flush=True)
    write_json(HERE / "results" / f"{name}.json", {**heading(name), "study": plain(study), "rows": rows})
    path = HERE / "results" / f"{name}.md"
    path.write_text(_table(name, study.title, rows))
    return path


def _table(name: str, title: str, rows: list[dict[str, Any]]) -> str:
    start = rows[0]
    lines = [f"# {title}", "", "| lock | perplexity | change | score before training | change |", "|---" * 5 + "|"]
    for row in rows:
        if "refused" in row:
            lines.append(f"| {row['lock']} | refused: {row['refused']} | | | |")
            continue
        change = row["perplexity"] - start["perplexity"]
        shift = row["score"] - start["score"]
        lines.append(f"| {row['lock']} | {row['perplexity']:.6f} | {change:+.2g} | {row['score']:.3f} | {shift:+.3f} |")
    return "\n".join([*lines, "", f"Command: `make experiment NAME={name}`.", ""])
