"""Table 2: what a lock alone does to utility. No training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.locked import HERE, locked_copy
from specdef.certify.environment import environment
from specdef.certify.run_cell import reference_perplexity
from specdef.certify.store import write_json
from specdef.certify.study import make_study
from specdef.core.schema import plain
from specdef.errors import SpecdefError
from specdef.models.loading import load, load_tokenizer
from specdef.models.sources import find_model
from specdef.tasks.base import parse_task


def run(name: str) -> Path:
    """Run configs/NAME.json; write results/NAME.json and results/NAME.md."""
    config = json.loads((HERE / "configs" / f"{name}.json").read_text())
    original = find_model(config["model"])
    rows: list[dict[str, Any]] = []
    for entry in config["locks"]:
        try:
            folder = original if entry.get("preset") is None else locked_copy(original, entry)
        except SpecdefError as error:
            rows.append({"lock": entry["label"], "refused": str(error)})
            continue
        study = make_study(folder, original, parse_task(config["task"]))
        score = study.task.metric(load(folder), load_tokenizer(folder))
        row = {"lock": entry["label"], "perplexity": reference_perplexity(study.cell(study.locked)), "score": score}
        if config["harness"]:
            from specdef.integrations.lm_eval import evaluate_harness

            row["harness"] = evaluate_harness(folder, config["harness"])
        rows.append(row)
        print(row, flush=True)
    content = {"experiment": name, "command": f"make experiment NAME={name}", "environment": plain(environment("cpu"))}
    write_json(HERE / "results" / f"{name}.json", {**content, "config": config, "rows": rows})
    path = HERE / "results" / f"{name}.md"
    path.write_text(_table(name, config, rows))
    return path


def _table(name: str, config: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    start = rows[0]
    lines = [
        f"# {config['title']}",
        "",
        "| lock | perplexity | change | score before training | change |",
        "|---" * 5 + "|",
    ]
    for row in rows:
        if "refused" in row:
            lines.append(f"| {row['lock']} | refused: {row['refused']} | | | |")
            continue
        change = row["perplexity"] - start["perplexity"]
        shift = row["score"] - start["score"]
        lines.append(f"| {row['lock']} | {row['perplexity']:.6f} | {change:+.2g} | {row['score']:.3f} | {shift:+.3f} |")
    return "\n".join([*lines, "", f"Command: `make experiment NAME={name}`.", ""])
