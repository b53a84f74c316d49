"""What a user asks for, read and refused before a model is fetched or anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from specdef.errors import SpecdefError
from specdef.models.base import MODEL_KINDS
from specdef.tasks.base import TASKS, TaskSpec, make_task, parse_task
from specdef.tasks.utility import UTILITIES, refuse_missing_text, utility_for


def asked_task(
    task: TaskSpec | str | None, *, seed: int = 0, target: float | None = None, scorer: str | None = None
) -> TaskSpec | None:
    """A task as it was asked for; None where the model's kind decides. Its file is read to be checked.

    Raises:
        SpecdefError: the task, its file, target or scorer cannot be used.
    """
    if seed < 0:
        raise SpecdefError(f"`task_seed` must be 0 or more; got {seed}.")
    if target is not None and not 0 < target <= 1:
        raise SpecdefError(f"`target` must lie above 0 and be at most 1; got {target:g}.")
    if task is None:
        if scorer is not None:
            raise SpecdefError(
                f"`scorer` must be given with `task`, such as sft:FILE, or with `train`; got {scorer!r}."
            )
        return None
    spec = task if isinstance(task, TaskSpec) else parse_task(task, seed=seed, target=target, scorer=scorer)
    make_task(spec)
    return spec


def refuse_utility(
    spec: TaskSpec | None, *, utility: str | None, text: Path | str | None, utility_factor: float = 2.0
) -> None:
    """Check a utility and its general text as far as it needs no model: `make_study` checks the rest, and this again.

    Raises:
        SpecdefError: they cannot be used.
    """
    if not utility_factor > 1:
        raise SpecdefError(f"`utility_factor` must be above 1; got {utility_factor!r}.")
    watched = None if utility is None else UTILITIES.get(utility)
    if spec is not None:
        watched = utility_for(MODEL_KINDS.get(TASKS.get(spec.name).model_kind), utility)
    if text is None:
        return
    if watched is not None:
        watched.read(Path(text))
    else:
        refuse_missing_text(text)
