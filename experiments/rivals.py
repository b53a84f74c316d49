"""Table 1: defences against relearning, by learning rate, on a model small enough for all of them (stories260k).

The undefended model was taught the rows of `stories`; every defence makes it forget them, and every attacker teaches
them again. `studies/table1.yaml` is the same study on SmolLM2-135M, for a night.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from experiments import stories, tables
from experiments.locked import HERE, WORK
from specdef.certify.study_file import parse_study
from specdef.core.schema import read_object
from specdef.defences.card import RECORD

TAUGHT = {"steps": 200, "lr": 2e-4, "gamma": 1.0, "utility_factor": 2.0}
METHODS: dict[str, dict[str, Any]] = {
    "grad-diff": {"lr": 3e-5, "gamma": 10.0, "steps": 800, "eval_every": 20},
    "npo": {"lr": 3e-5, "gamma": 10.0, "steps": 800, "eval_every": 20},
}
"""Method -> the options that brought the score nearest to chance within the utility budget; see `LOG.md`."""
LOCKS = {"exact 2^20": {"preset": "exact"}, "ladder": {"preset": "ladder"}, "paper 1e4": {"preset": "paper"}}
"""On top of the model that was never taught: a lock keeps what a model knows."""
SEEDS = (0, 1, 2)
RATES = (3e-5, 1e-4, 3e-4, 1e-3)


def run(name: str) -> Path:
    """Make every defence with three seeds, attack each at every rate, write tables and a picture."""
    stories.model()
    tables.run_file(name, parse_study(yaml.safe_dump(_study(), sort_keys=False).encode()))
    (HERE / "results" / f"{name}-made.md").write_text(_made(name))
    return HERE / "results" / f"{name}.md"


def _study() -> dict[str, Any]:
    rows = {"forget": str(WORK / "stories-train.jsonl"), "eval": str(WORK / "stories-eval.jsonl")}
    asked = {"train": rows["forget"], "eval": rows["eval"], "target": 0.6}
    base = {"method": "filter", "base": str(WORK / "stories260k"), "label": "filter (never taught)", **rows}
    made = [
        {"method": method, "seed": seed, "label": f"{method}, seed {seed}", **options, **rows}
        for method, options in METHODS.items()
        for seed in SEEDS
    ]
    locks = [{**options, "label": label} for label, options in LOCKS.items()]
    return {
        "specdef_study": 1,
        "title": "Table 1: defences against relearning, by learning rate (stories260k)",
        "models": [
            {
                "model": str(WORK / "stories260k"),
                "label": "stories260k, taught",
                "prepare": {"method": "taught", **TAUGHT, **rows},
            }
        ],
        "tasks": [asked],
        "text": str(WORK / "stories.txt"),
        "defences": [base, *made, *({"chain": [base, lock], "label": f"filter, {lock['label']}"} for lock in locks)],
        "attacks": [{"lr": rate} for rate in RATES],
        "seeds": [0],
        "recipe": {"steps": 60, "eval_every": 5},
    }


def _made(name: str) -> str:
    """What every defence did before anyone attacked it."""
    lines = [
        "# The defences before any attack",
        "",
        "Score on the taught rows (chance 0.25, taught 1.00), geometric mean probability of their tokens, growth of",
        "perplexity over the taught model's (budget 1.3), steps kept. One process, one thread.",
        "",
        "| method | seed | score | probability | growth | steps | ended |",
        "|---|---|---|---|---|---|---|",
    ]
    for folder in sorted((WORK / "studies" / name / "models").iterdir()):
        record = read_object(folder / RECORD) if (folder / RECORD).is_file() else {}
        if record.get("method") not in METHODS:
            continue
        score, likely = (change["after"] for change in record["scores"].values())
        growth, steps = record["utility"]["after"], record["steps"]["defend"]
        cells = (record["method"], record["seed"], f"{score:.2f}", f"{likely:.2g}", f"{growth:.2f}", steps)
        lines.append(f"| {' | '.join(map(str, (*cells, record['ended'])))} |")
    return "\n".join(lines) + "\n"
