"""Runs an experiment given as data: locks x attacks x seeds. Resumable; every finished cell is a file.

configs/table4.json runs here; configs/table4-full.json is the same at the paper's scale.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.locked import HERE, WORK, locked_copy
from specdef.attacks.lora import parse_adapter
from specdef.certify.environment import environment
from specdef.certify.grid import Cell
from specdef.certify.machine import Machine
from specdef.certify.run_cell import reference_perplexity
from specdef.certify.store import Store, StoredCell, write_json
from specdef.certify.study import make_study
from specdef.certify.sweep import sweep
from specdef.certify.threats import without_seed
from specdef.certify.verdict import attack_of, judge_threat
from specdef.models import BUNDLED, find_model
from specdef.prepare import prepare
from specdef.tasks.registry import parse_task
from specdef.training.loop import Recipe


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
    task = parse_task(config["task"], target=config.get("target"))
    recipe = Recipe(**config["recipe"])
    store = Store(WORK / "cells-store")
    rows: list[Row] = []
    reference: float | None = None
    for entry in config["locks"]:
        folder = original if entry.get("preset") is None else locked_copy(original, entry)
        study = make_study(folder, original, task, recipe=recipe, machine=machine or Machine())
        if folder == original:
            reference = reference_perplexity(study.cell(study.original))
        cells = [
            _cell(study, attack, seed, None if folder == original else reference, config.get("stop", "budget"))
            for attack in config["attacks"]
            for seed in config["seeds"]
        ]
        found = sweep(cells, store, study.machine.executor(), on_cell=_say)
        rows.append(Row(entry["label"], _entries(found, reference)))
        _write(name, config, rows, reference, study.machine.device or "cpu")
    return HERE / "results" / f"{name}.md"


def _prepared(config: Mapping[str, Any]) -> Path:
    """The model a task needs, made once: guarded, or with facts removed."""
    options = dict(config["prepare"])
    folder = WORK / str(config["model"])
    if not folder.is_dir():
        WORK.mkdir(exist_ok=True)
        prepare(options.pop("kind"), find_model(BUNDLED), folder, **options)
    return folder


def _cell(study: Any, attack: Mapping[str, Any], seed: int, reference: float | None, stop: str) -> Cell:
    changes = dict(attack)
    lora, freeze = changes.pop("lora", None), changes.pop("freeze", None)
    adapter = None if lora is None else parse_adapter(lora)
    return study.cell(
        study.locked, adapter=adapter, freeze=freeze, reference=reference, stop=stop, seed=seed, **changes
    )


def _entries(cells: Sequence[StoredCell], reference: float | None) -> list[dict[str, Any]]:
    """One entry per attack: mean over seeds."""
    groups: dict[str, list[StoredCell]] = {}
    for cell in cells:
        groups.setdefault(without_seed(cell), []).append(cell)
    entries = []
    for group in groups.values():
        verdict = judge_threat(group, unlocked_steps=None, reference=reference, not_tried=())
        entries.append({"attack": attack_of(group[0]).label, **verdict.to_json()})
    return entries


def _write(name: str, config: Any, rows: Sequence[Row], reference: float | None, device: str) -> None:
    content = {
        "experiment": name,
        "command": f"make experiment NAME={name}",
        "config": config,
        "reference_perplexity": reference,
        "environment": environment(device),
        "rows": [{"lock": row.label, "entries": row.entries} for row in rows],
    }
    write_json(HERE / "results" / f"{name}.json", content)
    (HERE / "results" / f"{name}.md").write_text(table(name, config, rows))


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


def _entry(entry: Mapping[str, Any]) -> str:
    if entry["score"] is None:
        return "invalid"
    dagger = {"none": "", "some": "†", "all": "‡"}[entry["diverged"]]
    steps = "—" if entry["steps"] is None else f"{entry['steps']:.0f} ± {entry['steps_std']:.0f}"
    return f"{steps} ({entry['score']:.2f}){dagger}"


def _say(cell: StoredCell, done: int, total: int) -> None:
    print(f"[{done}/{total}] {attack_of(cell).label}: {cell.result['outcome']}", flush=True)
