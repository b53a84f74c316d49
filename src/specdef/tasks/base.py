"""A task: what the attacker trains on, and a score in [0, 1] that says how far the attack got.

A kind of task is one file of `specdef.tasks.kinds`; a `TaskSpec` describes one task as data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import astuple, dataclass, field, replace
from typing import Any, ClassVar

from specdef.core.registry import Registry
from specdef.errors import TaskError as TaskError
from specdef.models.base import ModelKind
from specdef.models.samples import Labelled as Labelled
from specdef.models.samples import Sample as Sample
from specdef.tasks.score import Score

Metric = Callable[[Any, Any], float | Score]
"""(model in evaluation mode, its processor) -> score in [0, 1]; 0 when the model's numbers are not finite."""


@dataclass(frozen=True)
class TaskSpec:
    """A task as data.

    Attributes:
        name: of a kind of task.
        path: the file it reads, or trains on; None for a task that needs none.
        seed: decides the task's draws (train/test split, wrong choices), never the training.
        target: the score to reach; the task's own when None.
        scorer: what counts as success in generated text, where the task asks for it.
        control: name of the task's control to train on; None trains on the task itself.
        eval: the file it asks, where that is another than `path`.
        fields: what the files call what the task reads, as in ``prompt=q,completion=a``.
    """

    name: str
    path: str | None = None
    seed: int = 0
    target: float | None = None
    scorer: str | None = None
    control: str | None = None
    eval: str | None = None
    fields: str | None = None

    @property
    def label(self) -> str:
        """The task's name, and its control's."""
        return self.name if self.control is None else f"{self.name}, control {self.control}"

    @property
    def written(self) -> str:
        """The task as a user writes it; of a user's two files, the one that is trained on."""
        return self.name if self.path is None else f"{self.name}:{self.path}"


@dataclass(frozen=True)
class Task:
    """What an attacker wants.

    Args:
        name: shown in tables.
        model_kind: name of the kind of model it is for.
        samples: what the attacker trains on, in a form that kind encodes: dataclasses of JSON data.
        metric: measures a model.
        target: the score at which the attack has reached its aim.
        chance: the score of a model that knows nothing.
        identity: everything the score depends on, as JSON data; it enters the hash of every cell.
        controls: name -> other samples to train on, after which the score must still be `chance`: what a model gains
            from the form of the task, and not from what is to be learned.

    Raises:
        TaskError: nothing to train on, or a target at or below chance.
    """

    name: str
    model_kind: str
    samples: tuple[Any, ...]
    metric: Metric
    target: float
    chance: float
    identity: dict[str, Any] = field(default_factory=dict)
    controls: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.samples:
            raise TaskError(f"Task {self.name} must have at least one sample to train on; it has none.")
        if not 0 <= self.chance < self.target <= 1:
            raise TaskError(
                f"`target` must lie above chance ({self.chance:g}) and be at most 1; got {self.target:g}. "
                "A score that guessing reaches says nothing."
            )

    def control(self, name: str) -> Task:
        """The same task with a control's samples.

        Raises:
            TaskError: it has no such control.
        """
        if name not in self.controls:
            raise TaskError(
                f"`control` must be one that task {self.name} has ({', '.join(self.controls) or 'none'}); got {name!r}."
            )
        return replace(self, samples=self.controls[name], controls={})

    def fingerprint(self) -> dict[str, Any]:
        """Everything a run on this task depends on, as JSON data."""
        samples = [list(astuple(sample)) for sample in self.samples]
        return {"name": self.name, "samples": samples, "score": self.identity, "target": self.target}


class TaskKind(ABC):
    """A kind of task: it makes tasks from descriptions.

    Attributes:
        name: as the registry spells it.
        model_kind: name of the kind of model its tasks are for.
        takes_file: whether a task may be given a file, as in ``name:FILE``.
        needs_file: whether it must be.
        takes_scorer: whether a task must be told what counts as success.
    """

    name: ClassVar[str]
    model_kind: ClassVar[str]
    takes_file: ClassVar[bool] = False
    needs_file: ClassVar[bool] = False
    takes_scorer: ClassVar[bool] = False

    @abstractmethod
    def make(self, spec: TaskSpec) -> Task:
        """The task of a description that `check` accepts.

        Raises:
            TaskError: what the task says of its file or target.
        """

    def check(self, spec: TaskSpec) -> None:
        """Refuse a file or scorer that is missing or has no place here.

        Raises:
            TaskError: it is so.
        """
        if spec.eval is not None or spec.fields is not None:
            name = "eval" if spec.eval is not None else "fields"
            raise TaskError(f"`{name}` must be given with `train`, and be left out with task {self.name}.")
        if spec.path is None and self.needs_file:
            raise TaskError(f"`task` {self.name} must be given a file: write {self.name}:FILE; got {spec.written!r}.")
        if spec.path is not None and not (self.takes_file or self.needs_file):
            raise TaskError(f"`task` {self.name} must be given without a file; got {spec.written!r}.")
        if (spec.scorer is not None) != self.takes_scorer:
            wanted = "be given with" if self.takes_scorer else "be left out with"
            example = ": write any:REGEX, for example" if self.takes_scorer else ""
            raise TaskError(f"`scorer` must {wanted} task {self.name}{example}; got {spec.scorer!r}.")


TASKS: Registry[TaskKind] = Registry("task", "specdef.tasks.kinds", "specdef.tasks", error=TaskError)


def make_task(spec: TaskSpec) -> Task:
    """The task of a description.

    Raises:
        TaskError: unknown name, or what the task itself says of its file.
    """
    task = check_task(spec).make(spec)
    return task if spec.control is None else task.control(spec.control)


def check_task(spec: TaskSpec) -> TaskKind:
    """The kind of a description; no file is read yet.

    Raises:
        TaskError: unknown name, or a file or scorer is missing or has no place.
    """
    kind = TASKS.get(spec.name)
    kind.check(spec)
    return kind


def check_kind(task: Task | TaskKind, kind: ModelKind) -> None:
    """Refuse a task for another kind of model.

    Raises:
        TaskError: it is one.
    """
    if task.model_kind != kind.name:
        offered = ", ".join(other.name for other in TASKS if other.model_kind == kind.name) or "none there is"
        raise TaskError(
            f"`task` must be one for a model of kind {kind.name} ({offered}); got {task.name}, which is for a model of "
            f"kind {task.model_kind}."
        )


def parse_task(text: str, *, seed: int = 0, target: float | None = None, scorer: str | None = None) -> TaskSpec:
    """Read ``biographies`` or ``mcqa:FILE``."""
    name, colon, path = text.partition(":")
    return TaskSpec(name, path if colon else None, seed, target, scorer)


def given_task(
    task: str | None,
    *,
    train: str | None = None,
    evaluate: str | None = None,
    fields: str | None = None,
    seed: int = 0,
    target: float | None = None,
    scorer: str | None = None,
) -> TaskSpec | None:
    """The task a user asks for: one by its name, or their own files; None where they ask for none.

    Args:
        task: such as ``biographies`` or ``mcqa:FILE``.
        train: a file of theirs to train on.
        evaluate: a file of theirs that is asked.
        fields: what their files call what is read.
        seed: decides the task's draws.
        target: score to reach.
        scorer: what counts as success.

    Raises:
        TaskError: both are asked for, or one file lacks the other, or the kind refuses what is given.
    """
    if train is None and task is None:
        for name, value in (("eval", evaluate), ("fields", fields)):
            if value is not None:
                raise TaskError(f"`{name}` must be given with `train`, the file to train on; got {value!r}.")
        return None
    if train is not None and task is not None:
        raise TaskError(f"`task` must be left out with `train`, which is a task of its own; got {task!r}.")
    spec = parse_task(task or OWN, seed=seed, target=target, scorer=scorer)
    spec = replace(spec, path=spec.path if train is None else train, eval=evaluate, fields=fields)
    check_task(spec)
    return spec


OWN = "own"
"""The kind of task that a user's own files make."""
