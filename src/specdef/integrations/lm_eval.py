"""Tasks of the Language Model Evaluation Harness, run on a model folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specdef.errors import SpecdefError
from specdef.models.loading import load, load_tokenizer
from specdef.tasks.text.harness import run_tasks


def evaluate_harness(
    folder: Path | str,
    tasks: Sequence[str],
    *,
    include_path: Path | str | None = None,
    limit: int | None = None,
    batch_size: int = 8,
) -> dict[str, float]:
    """Run harness tasks on a model, from local files only.

    Args:
        folder: a causal language model with its tokenizer, locked or not.
        tasks: names of harness tasks or groups. Built-in tasks need their data sets in the local cache.
        include_path: a folder with further task files (YAML); they may run code, so give only ones you trust.
        limit: examples per task; all when None.
        batch_size: rows per forward pass.

    Returns:
        ``task/metric`` -> value, such as ``arc_easy/acc`` and ``arc_easy/acc_stderr``. A filter other than ``none`` is
        part of the metric's name, as in ``gsm8k/exact_match,strict-match``.

    Raises:
        SpecdefError: lm-eval is not installed, a task is unknown or cannot be run, or the folder is unusable.
    """
    check_harness(tasks, include_path=include_path, limit=limit)
    folder = Path(folder)
    model, tokenizer = load(folder), load_tokenizer(folder)
    include = None if include_path is None else str(include_path)
    return _flat(run_tasks(model, tokenizer, list(tasks), include=include, limit=limit, batch_size=batch_size))


def check_harness(tasks: Sequence[str], *, include_path: Path | str | None = None, limit: int | None = None) -> None:
    """Refuse what no model makes right, before one is looked for.

    Raises:
        SpecdefError: no task, a limit below 1, no such folder, or lm-eval is not installed.
    """
    if isinstance(tasks, str) or not tasks:
        raise SpecdefError(f"`tasks` must be a list of harness tasks with at least one name; got {tasks!r}.")
    if limit is not None and limit < 1:
        raise SpecdefError(f"`limit` must be at least 1, or none; got {limit}.")
    if include_path is not None and not Path(include_path).is_dir():
        raise SpecdefError(f"`include_path` must be a folder of task files; {include_path} is none.")
    if importlib.util.find_spec("lm_eval") is None:
        raise SpecdefError("Harness tasks need lm-eval. Run `pip install specdef[harness]`.")


def _flat(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    found = {}
    for task, metrics in results.items():
        for metric, value in metrics.items():
            name, _, chosen = metric.partition(",")
            if chosen and isinstance(value, int | float):
                found[f"{task}/{name if chosen == 'none' else metric}"] = float(value)
    return found
