"""One cell, start to end: a pure function of its configuration, run in a process of its own."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from specdef.attacks.finetune import AttackResult, run_attack, text_blocks
from specdef.certify.grid import Cell, cell_from_json
from specdef.models import load
from specdef.tasks.facts import bundled_prose
from specdef.tasks.registry import make_task
from specdef.training.perplexity import read_text


def run_cell(data: Mapping[str, Any]) -> dict[str, Any]:
    """Attack the cell's model.

    Args:
        data: `Cell.to_json`.

    Returns:
        JSON data: ``result`` (the same on every run) and ``measured`` (seconds and memory, which are not).
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    cell = cell_from_json(data)
    torch.set_num_threads(cell.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    started = time.perf_counter()
    result = attack_cell(cell)
    measured = {
        "seconds": round(time.perf_counter() - started, 3),
        "train_seconds": round(result.train_seconds, 3),
        "peak_memory_bytes": _peak_memory(cell.device),
    }
    return {"result": result_to_json(result), "measured": measured}


def attack_cell(cell: Cell) -> AttackResult:
    """Load the cell's model and attack it in this process."""
    import torch
    from transformers import AutoTokenizer

    folder = Path(cell.subject.path)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = load(folder, dtype=torch.float32).to(cell.device)
    text = bundled_prose() if cell.text is None else read_text(Path(cell.text))
    return run_attack(
        model,
        tokenizer,
        make_task(cell.task),
        text_blocks(text, tokenizer),
        cell.attack,
        reference_perplexity=cell.reference_perplexity,
    )


def result_to_json(result: AttackResult) -> dict[str, Any]:
    """A result as JSON data without the times; infinite numbers become null."""
    judgement = result.judgement
    return {
        "outcome": judgement.outcome.value,
        "step": judgement.step,
        "best": _evaluation(judgement.best),
        "diverged_at": judgement.diverged_at,
        "recovered": judgement.recovered,
        "reason": result.reason.value,
        "steps": result.steps,
        "trained_parameters": result.trained,
        "note": result.note,
        "evaluations": [_evaluation(point) for point in result.evaluations],
    }


def _evaluation(point: Any) -> dict[str, Any]:
    import math

    return {
        name: (None if isinstance(value, float) and not math.isfinite(value) else value)
        for name, value in asdict(point).items()
    }


def _peak_memory(device: str) -> int:
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
