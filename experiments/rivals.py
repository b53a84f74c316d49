"""Table 1: defences against relearning, by learning rate, on a model small enough for all of them (stories260k).

The undefended model was taught the rows of `stories`; every defence makes it forget them, and every attacker teaches
them again. `studies/table1.yaml` is the same study on SmolLM2-135M, for a night.
"""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

from experiments import stories, tables
from experiments.locked import HERE, WORK
from specdef.certify.study_file import parse_study
from specdef.core.schema import digest, read_object
from specdef.defences.card import RECORD
from specdef.tasks.text.rows import read_rows

TAUGHT = {"steps": 200, "lr": 2e-4, "gamma": 1.0, "utility_factor": 2.0}
FORGETS: dict[str, dict[str, Any]] = {
    "grad-diff": {"lr": 3e-5, "gamma": 10.0, "steps": 400},
    "npo": {"lr": 3e-5, "gamma": 10.0, "steps": 400},
    "npo-sam": {"lr": 2e-5, "gamma": 8.0, "beta": 0.3, "rho": 0.003, "steps": 600},
    "simnpo": {"lr": 1e-4, "gamma": 3.0, "beta": 1.0, "delta": 6.0, "steps": 200},
    "tar": {
        **{"lr": 1e-4, "steps": 100, "tamper_weight": 1.0, "retain_weight": 1.0},
        **{"attack_lr": [3e-4], "attack_steps": 4, "attack_every": 2},
    },
}
"""Method -> the options that brought the score nearest to chance within the utility budget; `LOG.md` has the sweep."""
REMEMBERS: dict[str, dict[str, Any]] = {
    "elm": {
        **{"lr": 1e-3, "steps": 200, "eta": 10.0, "retain_weight": 10.0, "fluent_weight": 0.0, "layers": [1, 2, 3]},
        **{"novice": "t300", "expert": "t400"},
    },
    "rep-noise": {"lr": 3e-5, "alpha": 4.0, "beta": 1e-2, "steps": 200},
    "rmu": {"lr": 3e-3, "coefficient": 30.0, "alpha": 30.0, "layer": 3, "steps": 200},
    "rr": {"lr": 5e-3, "steps": 100},
}
"""The same of methods that no options of the sweep made forget: they are made once, and shown."""
LOCKS = {"exact 2^20": {"preset": "exact"}, "ladder": {"preset": "ladder"}, "paper 1e4": {"preset": "paper"}}
"""On top of the model that was never taught: a lock keeps what a model knows."""
SEEDS, EVERY = (0, 1, 2), 20
RATES = (3e-8, 3e-7, 3e-5, 1e-4, 3e-4, 1e-3)
"""The ordinary ones, and two far below, where a lock may train as the undefended model does."""
BY_RATE = [{"lr": rate} for rate in RATES]


def run(name: str) -> Path:
    """Make every defence with three seeds, attack each at every rate, write tables and a picture."""
    stories.model()
    # JSON is YAML.
    tables.run_file(name, parse_study(json.dumps(_study()).encode()))
    (HERE / "results" / f"{name}-made.md").write_text(_made())
    return HERE / "results" / f"{name}.md"


def _study() -> dict[str, Any]:
    base, made = never_taught(), [one for method in {**FORGETS, **REMEMBERS} for one in defences(method)]
    locks = [locked(base, {**options, "label": label}) for label, options in LOCKS.items()]
    title = "Table 1: defences against relearning, by learning rate (stories260k)"
    return written(title, [base, *made, *locks], BY_RATE)


def written(
    title: str, defended: list[Any], attacks: list[dict[str, Any]], seeds: tuple[int, ...] = (0,)
) -> dict[str, Any]:
    """A study of defences of the taught model."""
    ours = rows()
    return {
        "specdef_study": 1,
        "title": title,
        "models": [
            {
                "model": str(WORK / "stories260k"),
                "label": "stories260k, taught",
                "prepare": {"method": "taught", **TAUGHT, **ours},
            }
        ],
        "tasks": [{"train": ours["forget"], "eval": ours["eval"], "target": 0.6}],
        "text": str(WORK / "stories.txt"),
        "defences": defended,
        "attacks": attacks,
        "seeds": list(seeds),
        "recipe": {"steps": 60, "eval_every": 5},
    }


def defences(method: str) -> list[dict[str, Any]]:
    """A method's entries of a study: one a seed."""
    options = {**FORGETS, **REMEMBERS}[method]
    seeds = SEEDS if method in FORGETS else SEEDS[:1]
    return [
        {
            "method": method,
            "seed": seed,
            "label": f"{method}, seed {seed}",
            "eval_every": EVERY,
            **options,
            **rows(),
        }
        for seed in seeds
    ]


def never_taught() -> dict[str, Any]:
    """The entry of the model that was never taught."""
    return {"method": "filter", "base": str(WORK / "stories260k"), "label": "filter (never taught)", **rows()}


def locked(entry: dict[str, Any], lock: dict[str, Any]) -> dict[str, Any]:
    """The entry of a lock on top of another defence."""
    return {"chain": [entry, lock], "label": f"{entry['label'].removesuffix(' (never taught)')}, {lock['label']}"}


def rows() -> dict[str, str]:
    """Files of what is forgotten, and of what is asked."""
    return {"forget": str(WORK / "stories-train.jsonl"), "eval": str(WORK / "stories-eval.jsonl")}


def made() -> list[tuple[dict[str, Any], Path]]:
    """(record, folder) of the taught model and of every defence of it, without those that stand on another's copy.

    In the order of methods, then of seeds.
    """
    folders = [folder for folder in tables.MODELS.iterdir() if (folder / RECORD).is_file()]
    ours = digest([list(astuple(row.sample)) for row in read_rows(WORK / "stories-train.jsonl")])
    found = [
        (record, folder)
        for record, folder in ((read_object(folder / RECORD), folder) for folder in folders)
        if record["data"].get("forget") == ours and folder.name.startswith(record["method"])
    ]
    return sorted(found, key=lambda one: (one[0]["method"], one[0]["seed"]))


def _made() -> str:
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
    for record, _ in made():
        score, likely = (change["after"] for change in record["scores"].values())
        growth, steps = record["utility"]["after"], record["steps"]["defend"]
        cells = (record["method"], record["seed"], f"{score:.2f}", f"{likely:.2g}", f"{growth:.2f}", steps)
        lines.append(f"| {' | '.join(map(str, (*cells, record['ended'])))} |")
    return "\n".join(lines) + "\n"
