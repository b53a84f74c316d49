"""Does each rival remove what SmolLM2-135M was taught, and what does it cost? Before anyone attacks it.

The model, the defences and their options are those of `studies/table1.yaml`. Copies are made one after another, with
the first seed first. A killed run goes on, and the page is written after every copy. With ``EXPERIMENT_GO_ON=1`` copies
whose row is committed are not made again, so that several machines, one after another, may write one page.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.locked import HERE, WORK
from experiments.tables import MODELS, STUDIES
from specdef.certify.cell import digest_of
from specdef.certify.environment import environment
from specdef.certify.store import write_json
from specdef.certify.study_file import read_study
from specdef.certify.study_models import Copies, DefencePlan
from specdef.certify.study_plan import plan_study
from specdef.core.schema import plain, read_object
from specdef.defences.card import RECORD
from specdef.models.base import kind_of
from specdef.models.sources import find_model
from specdef.tasks.utility import utility_for

SEEDS = (0, 1, 2)
NEAR, BUDGET = 0.1, 1.3
"""A method removes the facts where the score is so near chance, at so much growth of perplexity."""
CHANCE = 0.25
COLUMNS = ("method", "options", "seed", "score", "growth", "steps", "seconds", "removed", "ended")


def run(name: str) -> Path:
    """Make every copy that is not there, and write results/NAME.json and .md."""
    plan = plan_study(read_study(STUDIES / "table1.yaml"))
    (model,) = plan.models
    source = find_model(model.model)
    copies = Copies(MODELS, None, digest_of(utility_for(kind_of(source)).read(None)))
    taught, rows = copies.prepared(source, model, "models[0]"), list[dict[str, Any]]()
    before = read_object(taught / RECORD)["scores"]
    committed = _committed(HERE / "results" / f"{name}.json") if "EXPERIMENT_GO_ON" in os.environ else {}
    for place, defence in _defences(plan.defences):
        known = digest_of([defence.method, dict(defence.options), defence.seed])
        notes = WORK / name / f"{known[:16]}.json"
        if known in committed:
            write_json(notes, committed[known])
        if not notes.is_file():
            begun, started, spent = notes.with_suffix(".begun"), time.time(), time.process_time()
            goes_on = begun.exists()
            write_json(begun, defence.method)
            folder = copies.defended(taught, defence, place)
            whole = folder.stat().st_mtime >= started and not goes_on
            write_json(notes, _row(folder, defence, time.process_time() - spent if whole else None))
        rows.append(read_object(notes))
        print(rows[-1], flush=True)
        _write(name, before, rows)
    return HERE / "results" / f"{name}.md"


def _committed(page: Path) -> dict[str, dict[str, Any]]:
    """Defence and seed -> its row."""
    rows = read_object(page)["rows"] if page.is_file() else []
    return {digest_of([row["method"], row["options"], row["seed"]]): row for row in rows}


def _defences(defences: tuple[DefencePlan, ...]) -> Iterator[tuple[str, DefencePlan]]:
    """(place in the study, defence), seed by seed."""
    alone = [(number, one) for number, one in enumerate(defences) if one.method not in (None, "filter")]
    for seed in SEEDS:
        for number, one in alone:
            yield f"defences[{number}]", replace(one, seed=seed)


def _row(folder: Path, defence: DefencePlan, seconds: float | None) -> dict[str, Any]:
    """`seconds` of a core; None for a copy that was there, or that several processes made."""
    record = read_object(folder / RECORD)
    scores = list(record["scores"].values())
    growth = record["utility"]["after"] / record["utility"]["before"]
    return {
        "method": defence.method,
        "options": dict(defence.options),
        "seed": defence.seed,
        "before": scores[0]["before"],
        "score": scores[0]["after"],
        "growth": growth,
        "steps": record["steps"]["defend"],
        "ended": record["ended"],
        "seconds": None if seconds is None else round(seconds),
        "hardware": environment("cpu").hardware,
        "removed": abs(scores[0]["after"] - CHANCE) <= NEAR and growth <= BUDGET,
    }


def _write(name: str, taught: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    command = f"make experiment NAME={name}"
    content = {"command": command, "environment": plain(environment("cpu")), "taught": taught, "rows": rows}
    machines = sorted({row["hardware"] for row in rows})
    write_json(HERE / "results" / f"{name}.json", content)
    lines = [
        "# Does each rival remove the facts?",
        "",
        f"SmolLM2-135M, taught `biographies` (score {rows[0]['before']:.2f}, chance {CHANCE:g}), then defended.",
        "Growth is that of perplexity on the worst of four texts, over the taught model's. Removed: within",
        f"{NEAR:g} of chance at a growth of at most {BUDGET:g}. Seconds are those of one core ({'; '.join(machines)}).",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for row in rows:
        shown = {
            **row,
            "options": ", ".join(f"{key} {value}" for key, value in row["options"].items()) or "its own",
            "score": f"{row['score']:.2f}",
            "growth": f"{row['growth']:.2f}",
            "seconds": "" if row["seconds"] is None else row["seconds"],
            "removed": "yes" if row["removed"] else "no",
        }
        lines.append(f"| {' | '.join(str(shown[column]) for column in COLUMNS)} |")
    (HERE / "results" / f"{name}.md").write_text("\n".join([*lines, "", f"Command: `{command}`.", ""]))
