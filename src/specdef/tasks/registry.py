"""Tasks by name: a small serialisable description, and the task it stands for."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specdef.tasks.facts import facts
from specdef.tasks.task import Task, TaskError

TASKS = ("facts",)


@dataclass(frozen=True)
class TaskSpec:
    """A task as data.

    Attributes:
        name: one of `TASKS`.
        path: the file the task reads, for those that read one.
        seed: decides the task's draws (train/test split, wrong choices), never the training.
        target: the score to reach; the task's own when None.
        options: further arguments of the task.
    """

    name: str
    path: str | None = None
    seed: int = 0
    target: float | None = None
    options: dict[str, Any] = field(default_factory=dict)


def make_task(spec: TaskSpec) -> Task:
    """The task of a description.

    Raises:
        TaskError: unknown name, or what the task itself says of its file.
    """
    arguments: dict[str, Any] = {"seed": spec.seed, **spec.options}
    if spec.target is not None:
        arguments["target"] = spec.target
    if spec.name in _WITH_FILE:
        if spec.path is None:
            raise TaskError(f"Task {spec.name} must be given a file; write {spec.name}:FILE.")
        return _WITH_FILE[spec.name](Path(spec.path), **arguments)
    if spec.name in _PLAIN:
        return _PLAIN[spec.name](**arguments)
    near = difflib.get_close_matches(spec.name, TASKS, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise TaskError(f"`task` must be one of {', '.join(TASKS)}; got {spec.name!r}.{hint}")


def parse_task(text: str, *, seed: int = 0, target: float | None = None) -> TaskSpec:
    """Read ``facts`` or ``mcqa:FILE``."""
    name, _, path = text.partition(":")
    return TaskSpec(name, path or None, seed, target)


_PLAIN: dict[str, Callable[..., Task]] = {"facts": facts}
_WITH_FILE: dict[str, Callable[..., Task]] = {}
