"""Bad options of an attack, said before a model is fetched or anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from specdef.errors import SpecdefError
from specdef.models.base import MODEL_KINDS
from specdef.tasks.base import make_task, parse_task
from specdef.tasks.utility import UTILITIES, utility_for


def refuse_early(
    *,
    task: str | None,
    task_seed: int,
    target: float | None,
    scorer: str | None,
    utility: str | None,
    text: Path | str | None,
    utility_factor: float = 2.0,
) -> None:
    """Check what can be checked without a model: `make_study` checks the rest, and this again.

    Raises:
        SpecdefError: the task, its file, target or scorer, the utility or the general text cannot be used.
    """
    if not utility_factor > 1:
        raise SpecdefError(f"`utility_factor` must be above 1; got {utility_factor!r}.")
    if target is not None and not 0 < target <= 1:
        raise SpecdefError(f"`target` must lie above 0 and be at most 1; got {target:g}.")
    if task is None and scorer is not None:
        raise SpecdefError(f"`scorer` must be left out without `task`; got {scorer!r}. Add `task`, such as sft:FILE.")
    watched = None if utility is None else UTILITIES.get(utility)
    if task is not None:
        made = make_task(parse_task(task, seed=task_seed, target=target, scorer=scorer))
        watched = utility_for(MODEL_KINDS.get(made.model_kind), utility)
    if text is None:
        return
    if watched is not None:
        watched.read(Path(text))
    elif not Path(text).exists():
        raise SpecdefError(f"`text` must be a UTF-8 text file; {text} does not exist.")
