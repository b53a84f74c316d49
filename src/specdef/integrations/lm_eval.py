"""Tasks of the Language Model Evaluation Harness, run on a model folder. The one file that imports lm_eval."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from specdef.core.text import did_you_mean
from specdef.errors import SpecdefError
from specdef.models.loading import load, load_tokenizer


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
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    folder = Path(folder)
    model = load(folder)
    tokenizer = load_tokenizer(folder)
    with _quiet():
        manager = TaskManager(include_path=None if include_path is None else str(include_path))
        _refuse_unknown(tasks, manager.all_tasks)
        try:
            found = simple_evaluate(
                model=_wrapped(model, tokenizer, batch_size),
                tasks=list(tasks),
                task_manager=manager,
                limit=limit,
                log_samples=False,
                bootstrap_iters=0,
            )
        except Exception as error:  # whatever a task file makes the harness raise
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise SpecdefError(f"`tasks` must run on local files; {', '.join(tasks)} did not ({reason}).") from error
    return _flat(found["results"] if found else {})


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


def _wrapped(model: Any, tokenizer: Any, batch_size: int) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def _refuse_unknown(tasks: Sequence[str], known: Sequence[str]) -> None:
    for name in tasks:
        if name not in known:
            hint = did_you_mean(name, known, cutoff=0.6)
            raise SpecdefError(f"`tasks` must be names of harness tasks; {name!r} is none.{hint}")


def _flat(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    found = {}
    for task, metrics in results.items():
        for metric, value in metrics.items():
            name, _, chosen = metric.partition(",")
            if chosen and isinstance(value, int | float):
                found[f"{task}/{name if chosen == 'none' else metric}"] = float(value)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the harness's log below errors."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
