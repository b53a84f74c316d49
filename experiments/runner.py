"""Runs an experiment given as data: locks x attacks x seeds. Resumable; every finished cell is a file.

configs/table4.json runs here; configs/table4-full.json is the same at the paper's scale.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.locked import HERE, WORK, locked_copy
from experiments.picture import draw_grid
from specdef.attacks.lora import parse_adapter
from specdef.attacks.rewrites.apply import parse_rewriting
from specdef.certify.cell import Cell
from specdef.certify.environment import environment
from specdef.certify.findings import without_seed
from specdef.certify.resources import Machine
from specdef.certify.result import StoredCell
from specdef.certify.run_cell import reference_perplexity
from specdef.certify.store import Store, write_json
from specdef.certify.study import make_study
from specdef.certify.sweep import sweep
from specdef.certify.verdict import attack_of, judge_threat
from specdef.core.schema import plain
from specdef.defences.defend import defend
from specdef.models.bundled import BUNDLED
from specdef.models.sources import find_model
from specdef.tasks.base import parse_task
from specdef.training.recipe import Recipe


@dataclass(frozen=True)
class Row:
    """One lock (or none) and what fine-tuning it came to, attack by attack."""

    label: str
    entries: list[dict[str, Any]]


def run(name: str, *, machine: Machine | None = None) -> Path:
    """Run configs/NAME.json; write results/NAME.json and results/NAME.md.

    Args:
        name: of the configuration, without .json.
        machine: where cells run.
    """
    config = json.loads((HERE / "configs" / f"{name}.json").read_text())
    original = _prepared(config) if "prepare" in config else find_model(config["model"])
    task = parse_task(config["task"], target=config.get("target"), scorer=config.get("scorer"))
    recipe = Recipe(**config["recipe"])
    store = Store(WORK / "cells-store")
    plain = make_study(original, original, task, recipe=recipe, machine=machine or Machine())
    reference = reference_perplexity(plain.cell(plain.original))
    cells: list[Cell] = []
    for entry in config["locks"]:
        folder = original if entry.get("preset") is None else locked_copy(original, entry)
        alone = folder == original
        study = plain if alone else make_study(folder, original, task, recipe=recipe, machine=plain.machine)
        cells += [
            _cell(study, attack, seed, None if alone else reference, config.get("stop", "budget"))
            for attack in config["attacks"]
            for seed in config["seeds"]
        ]
    found = sweep(cells, store, plain.machine.executor(), on_cell=_say)
    width = len(config["attacks"]) * len(config["seeds"])
    rows = [
        Row(entry["label"], _entries(found[index * width : (index + 1) * width], reference))
        for index, entry in enumerate(config["locks"])
    ]
    _write(name, config, rows, reference, plain.machine.device or "cpu")
    return HERE / "results" / f"{name}.md"


def _prepared(config: Mapping[str, Any]) -> Path:
    """The model a task needs, made once: guarded, or with facts removed."""
    options = dict(config["prepare"])
    folder = WORK / str(config["model"])
    if not folder.is_dir():
        WORK.mkdir(exist_ok=True)
        defend(options.pop("kind"), find_model(BUNDLED), folder, options=options)
    return folder


def _cell(study: Any, attack: Mapping[str, Any], seed: int, reference: float | None, stop: str) -> Cell:
    changes = dict(attack)
    lora, rewriting = changes.pop("lora", None), changes.pop("rewrite", None)
    return study.cell(
        study.locked,
        adapter=None if lora is None else parse_adapter(lora),
        rewrite=None if rewriting is None else parse_rewriting(rewriting),
        reference=reference,
        stop=stop,
        seed=seed,
        **changes,
    )


def _entries(cells: Sequence[StoredCell], reference: float) -> list[dict[str, Any]]:
    """One entry per attack: mean over seeds."""
    groups: dict[str, list[StoredCell]] = {}
    for cell in cells:
        groups.setdefault(without_seed(cell), []).append(cell)
    entries = []
    for group in groups.values():
        verdict = judge_threat(group, unlocked_steps=None, reference=reference, not_tried=())
        entries.append({"attack": attack_of(group[0]).label, **verdict.to_json(), "cost": _cost(group)})
    return entries


def _cost(cells: Sequence[StoredCell]) -> dict[str, Any]:
    """What an attack cost, from its first seed: the rewriting, the numbers it adds, a step, and memory."""
    cell = cells[0]
    steps, found = cell.result.steps, cell.result.rewrites
    return {
        "rewrite_seconds": cell.measured.rewrite_seconds,
        "added_parameters": found[0].added_parameters if found else None,
        "trained_parameters": cell.result.trained_parameters,
        "seconds_per_step": round((cell.measured.train_seconds or 0.0) / steps, 3) if steps else None,
        "peak_memory_bytes": cell.measured.peak_memory_bytes,
        "note": cell.result.note,
        "curve": [
            [point.step, point.score, point.utility if math.isfinite(point.utility) else None, point.loss]
            for point in cell.result.evaluations
        ],
    }


def _write(name: str, config: Any, rows: Sequence[Row], reference: float, device: str) -> None:
    content = {
        "experiment": name,
        "command": f"make experiment NAME={name}",
        "config": config,
        "reference_perplexity": reference,
        "environment": plain(environment(device)),
        "rows": [{"lock": row.label, "entries": row.entries} for row in rows],
    }
    write_json(HERE / "results" / f"{name}.json", content)
    turned = config.get("rows") == "attacks"
    text = turned_table(name, config, rows) if turned else table(name, config, rows)
    (HERE / "results" / f"{name}.md").write_text(text)
    if not turned:
        labelled = [(row.label, row.entries) for row in rows]
        draw_grid(config["title"], labelled, HERE / "results" / f"{name}.png")


def table(name: str, config: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The papers' form: locks down, attacks across; mean steps ± std (score), daggers where seeds diverged."""
    attacks = [entry["attack"] for entry in rows[0].entries]
    lines = [f"# {config['title']}", "", "| lock | " + " | ".join(attacks) + " |", "|---" * (len(attacks) + 1) + "|"]
    for row in rows:
        lines.append(f"| {row.label} | " + " | ".join(map(_entry, row.entries)) + " |")
    seeds = len(config["seeds"])
    lines += [
        "",
        f"Entry: mean steps to the target ± std (best score within the utility budget); — where no seed reached it. "
        f"† a seed lost utility at some evaluation, ‡ all did. {seeds} seed{'s' if seeds > 1 else ''}, "
        f"{config['recipe']['steps']} steps. Command: `make experiment NAME={name}`.",
        "",
    ]
    return "\n".join(lines)


def turned_table(name: str, config: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Attacks down, locks across, with what each attack costs: rewriting seconds, added numbers, seconds a step."""
    labels = list(dict.fromkeys(entry["attack"] for row in rows for entry in row.entries))
    lines = [f"# {config['title']}", "", "| attack | " + " | ".join(row.label for row in rows) + " |"]
    lines.append("|---" * (len(rows) + 1) + "|")
    for label in labels:
        found = [next((entry for entry in row.entries if entry["attack"] == label), None) for row in rows]
        lines.append(f"| {label} | " + " | ".join("" if e is None else f"{_entry(e)}{_price(e)}" for e in found) + " |")
    seeds = len(config["seeds"])
    lines += [
        "",
        "Entry: mean steps to the target (best score within the utility budget); — not reached; invalid: the attack "
        "does not apply, or changed the function. † a seed lost utility at some evaluation, ‡ all did. Then the cost: "
        "seconds of rewriting, parameters added (millions), seconds a training step, peak memory. "
        f"{seeds} seed{'s' if seeds > 1 else ''}, {config['recipe']['steps']} steps. "
        f"Command: `make experiment NAME={name}`.",
        "",
    ]
    return "\n".join(lines)


def _price(entry: Mapping[str, Any]) -> str:
    cost = entry["cost"]
    if cost["seconds_per_step"] is None:
        return f": {cost['note'].split('; ')[0][:80]}" if cost["note"] else ""
    parts = [] if cost["rewrite_seconds"] is None else [f"{cost['rewrite_seconds']:.1f} s"]
    if cost["added_parameters"]:
        parts.append(f"{cost['added_parameters'] / 1e6:+.1f} M")
    parts += [f"{cost['seconds_per_step']:.2f} s/step", f"{cost['peak_memory_bytes'] / 2**30:.1f} GiB"]
    return "; " + ", ".join(parts)


def _entry(entry: Mapping[str, Any]) -> str:
    if entry["score"] is None:
        return "invalid"
    dagger = {"none": "", "some": "†", "all": "‡"}[entry["diverged"]]
    steps = "—" if entry["steps"] is None else f"{entry['steps']:.0f} ± {entry['steps_std']:.0f}"
    return f"{steps} ({entry['score']:.2f}){dagger}"


def _say(cell: StoredCell, done: int, total: int) -> None:
    print(f"[{done}/{total}] {attack_of(cell).label}: {cell.result.outcome.value}", flush=True)
