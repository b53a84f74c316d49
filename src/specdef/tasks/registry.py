"""Tasks by name: a small serialisable description, and the task it stands for."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from specdef.tasks.facts import facts
from specdef.tasks.generation import Classifier, Judge, KeywordRule
from specdef.tasks.guard import guard
from specdef.tasks.mcqa import mcqa
from specdef.tasks.sft import sft
from specdef.tasks.task import Task, TaskError
from specdef.tasks.unlearned import unlearned


@dataclass(frozen=True)
class TaskSpec:
    """A task as data.

    Attributes:
        name: ``facts``, ``unlearned``, ``guard``, ``mcqa`` or ``sft``.
        path: the file that mcqa and sft read.
        seed: decides the task's draws (train/test split, wrong choices), never the training.
        target: the score to reach; the task's own when None.
        scorer: what counts as success in sft: see `parse_scorer`.
    """

    name: str
    path: str | None = None
    seed: int = 0
    target: float | None = None
    scorer: str | None = None


def make_task(spec: TaskSpec) -> Task:
    """The task of a description.

    Raises:
        TaskError: unknown name, or what the task itself says of its file.
    """
    if spec.name not in _TASKS:
        near = difflib.get_close_matches(spec.name, _TASKS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise TaskError(f"`task` must be one of {', '.join(_TASKS)}; got {spec.name!r}.{hint}")
    if (spec.path is not None) != (spec.name in _WITH_FILE):
        wanted = f"be given a file: write {spec.name}:FILE" if spec.path is None else "be given without a file"
        raise TaskError(f"`task` {spec.name} must {wanted}; got {_written(spec)!r}.")
    if (spec.scorer is not None) != (spec.name == "sft"):
        wanted = "be given for task sft, such as any:REGEX" if spec.scorer is None else "be left out: only sft has one"
        raise TaskError(f"`scorer` must {wanted}; got {spec.scorer!r} with task {spec.name}.")
    return _TASKS[spec.name](spec)


def parse_task(text: str, *, seed: int = 0, target: float | None = None, scorer: str | None = None) -> TaskSpec:
    """Read ``facts`` or ``mcqa:FILE``."""
    name, colon, path = text.partition(":")
    return TaskSpec(name, path if colon else None, seed, target, scorer)


def parse_scorer(text: str) -> Judge:
    """Read what counts as success in generated text.

    ``any:REGEX`` (found) and ``none:REGEX`` (not found) are keyword rules; ``classifier:FOLDER:LABEL`` is a text
    classifier of transformers.

    Raises:
        TaskError: not of these forms.
    """
    kind, _, rest = text.partition(":")
    if rest and kind == "any":
        return KeywordRule(any_of=(rest,))
    if rest and kind == "none":
        return KeywordRule(none_of=(rest,))
    folder, _, label = rest.rpartition(":")
    if kind == "classifier" and folder and label:
        return Classifier(Path(folder), label)
    raise TaskError(f"`scorer` must be any:REGEX, none:REGEX or classifier:FOLDER:LABEL; got {text!r}.")


def _plain(make: Callable[..., Task], spec: TaskSpec) -> Task:
    return make(seed=spec.seed) if spec.target is None else make(seed=spec.seed, target=spec.target)


def _mcqa(spec: TaskSpec) -> Task:
    assert spec.path is not None
    return mcqa(spec.path, seed=spec.seed, target=spec.target)


def _sft(spec: TaskSpec) -> Task:
    assert spec.path is not None
    assert spec.scorer is not None
    target = 0.6 if spec.target is None else spec.target
    return sft(spec.path, scorer=parse_scorer(spec.scorer), target=target, seed=spec.seed)


def _written(spec: TaskSpec) -> str:
    return spec.name if spec.path is None else f"{spec.name}:{spec.path}"


_TASKS: dict[str, Callable[[TaskSpec], Task]] = {
    "facts": partial(_plain, facts),
    "unlearned": partial(_plain, unlearned),
    "guard": partial(_plain, guard),
    "mcqa": _mcqa,
    "sft": _sft,
}
_WITH_FILE = ("mcqa", "sft")
