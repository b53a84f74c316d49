"""Experiments that are study files: `studies/NAME.yaml`, run by the library. Every finished cell is a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments import utility
from experiments.locked import HERE, WORK, anywhere
from experiments.progress import say
from specdef.certify.resources import Resources
from specdef.certify.store import write_json
from specdef.certify.study_file import StudyFile, read_study
from specdef.certify.study_results import StudyResults
from specdef.certify.study_run import run_study
from specdef.core.schema import plain
from specdef.report.study_markdown import study_markdown
from specdef.report.study_picture import draw_study

STUDIES = HERE / "studies"
SHARED = WORK / "cells-store"
"""Defended models and finished cells, of all experiments together."""
MODELS = SHARED / "models"


def names() -> list[str]:
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def run(name: str, *, resources: Resources | None = None) -> Path:
    """Run studies/NAME.yaml; write results/NAME.json, .md and .png.

    Args:
        name: of the study file, without .yaml.
        resources: where cells run.
    """
    study = read_study(STUDIES / f"{name}.yaml")
    if not study.attacks:
        return utility.run(name, study)
    return run_file(name, study, resources=resources)


def run_file(name: str, study: StudyFile, *, resources: Resources | None = None) -> Path:
    """The same for a study that is made in code."""
    results = run_study(
        study,
        WORK / "studies" / name,
        shared=SHARED,
        resources=resources,
        on_cell=say,
        on_stage=lambda stage: print(stage, flush=True),
        command=f"make experiment NAME={name}",
    )
    _write(name, study, results)
    return HERE / "results" / f"{name}.md"


def _write(name: str, study: StudyFile, results: StudyResults) -> None:
    (table,) = results.tables
    content = {
        "experiment": name,
        "command": results.command,
        "study": plain(study),
        "reference": table.reference,
        "environment": plain(results.environment),
        "rows": [{"lock": row.defence, "entries": plain(row.entries)} for row in table.rows],
    }
    small = json.loads(anywhere(json.dumps(content)), object_hook=_small)
    write_json(HERE / "results" / f"{name}.json", small)
    (HERE / "results" / f"{name}.md").write_text(study_markdown(results))
    if results.rows == "defences":
        draw_study(results, HERE / "results" / f"{name}.png")


def _small(found: dict[str, Any]) -> dict[str, Any]:
    """Without the score of every group of questions: a hundred numbers an evaluation, which stay in the cells."""
    return {name: value for name, value in found.items() if name != "by_group"}
