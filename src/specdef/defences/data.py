"""What a defence is to remove and what it is to keep, as a user names it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from specdef.core.schema import digest
from specdef.defences.base import DataRows, Measure
from specdef.errors import TaskError
from specdef.models.base import Batch, LoadedModel
from specdef.models.samples import Chat, Sample
from specdef.tasks.base import Task, TaskSpec, check_kind, given_task, make_task
from specdef.tasks.text.rows import parse_fields, read_rows
from specdef.tasks.utility import UtilityData


@dataclass(frozen=True)
class DataSpec:
    """What to forget and what to keep, as given; nothing is read yet.

    Attributes:
        forget: a file of rows, in the forms of `read_rows`; the task's training samples when None.
        retain: the same, of what is to be kept; general text when None.
        task: whose score says whether the rows are forgotten.
        fields: what the files call what is read.
    """

    forget: str | None = None
    retain: str | None = None
    task: TaskSpec | None = None
    fields: str | None = None

    @property
    def given(self) -> str | None:
        """Name of the first argument that was given."""
        return next((name for name in ("forget", "retain", "task") if getattr(self, name) is not None), None)


@dataclass(frozen=True)
class DefenceData:
    """What to forget and what to keep, as samples.

    Attributes:
        forget: samples of a kind of model.
        retain: the same; None for general text.
        task: whose score says whether the rows are forgotten.
        shared: how many samples are in both.
    """

    forget: tuple[Any, ...]
    retain: tuple[Any, ...] | None
    task: Task | None
    shared: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of them, a sentence each."""
        if not self.shared:
            return ()
        return (f"{self.shared} of {len(set(self.forget))} rows to forget are among those to keep as well.",)

    @property
    def digests(self) -> dict[str, str]:
        """Of each part, by name."""
        parts: dict[str, Any] = {"forget": _plain(self.forget)}
        if self.retain is not None:
            parts["retain"] = _plain(self.retain)
        if self.task is not None:
            parts["task"] = self.task.fingerprint()
        return {name: digest(part) for name, part in parts.items()}

    def measures(self, loaded: LoadedModel, rows: DataRows) -> tuple[Measure, ...]:
        """The task's score, where there is one, and how likely a token to be forgotten is, where that is known."""

        def likely(model: Any, processor: Any) -> float:
            return token_likelihood(model, rows.forget, loaded)

        found = () if self.task is None else (Measure(f"score of {self.task.name}", self.task.metric),)
        if not loaded.kind.has_likelihood:
            return found
        return *found, Measure("geometric mean probability of a token to forget", likely)


TEXTS = "causal-lm"
"""The kind of model that files of rows are for."""
NAMES = ("forget", "retain", "task", "eval", "fields")
"""What a user may say of the data, by the names of the command line."""


def named_data(given: Mapping[str, str | None], *, seed: int = 0) -> DataSpec:
    """The data of arguments as a user types them: a task by its name, or a file of questions on the forget rows.

    Args:
        given: any of `NAMES`; None is as if it were left out.
        seed: decides the task's draws.

    Raises:
        TaskError: another name, `eval` with a task, or without rows to forget.
    """
    said = {name: value for name, value in given.items() if value is not None}
    for name, value in said.items():
        if name not in NAMES:
            raise TaskError(f"`data` must have any of {', '.join(NAMES)}; got {name!r}.")
        if not isinstance(value, str):
            raise TaskError(f"`{name}` must be a text; got {value!r}.")
    forget, retain, task, asked, fields = (said.get(name) for name in NAMES)
    if asked is None:
        return DataSpec(forget, retain, given_task(task, seed=seed), fields)
    if forget is None:
        raise TaskError(f"`eval` must be given with `forget`, whose rows it asks about; got {asked!r} alone.")
    if task is not None:
        raise TaskError(f"`eval` must be left out with `task`, which asks questions of its own; got {asked!r}.")
    return DataSpec(forget, retain, given_task(None, train=forget, evaluate=asked, fields=fields, seed=seed), fields)


def read_data(spec: DataSpec) -> DefenceData:
    """Read what a user named.

    Raises:
        TaskError: nothing to forget is given, a file is unusable (and where), or both files say the same.
    """
    fields = parse_fields(spec.fields)
    task = None if spec.task is None else make_task(spec.task)
    if spec.forget is not None:
        forget = _read(spec.forget, fields, "forget")
    elif task is not None:
        forget = task.samples
    else:
        raise TaskError(
            "`forget` must be a file of rows to forget, or `task` a task whose samples they are; got neither."
        )
    retain = None if spec.retain is None else _read(spec.retain, fields, "retain")
    shared = len(set(forget) & set(retain or ()))
    if retain is not None and shared == len(set(retain)):
        raise TaskError(
            f"`retain` must have rows that are not to be forgotten; all {shared} of {spec.retain} are among them. "
            "Give other rows, or leave it out to keep general text."
        )
    return DefenceData(forget, retain, task, shared)


def encode(data: DefenceData, loaded: LoadedModel, general: UtilityData) -> DataRows:
    """The samples for one model.

    Raises:
        TaskError: a sample cannot be encoded, the task or a file is for another kind of model, or there is nothing to
            keep.
    """
    for name, samples in (("forget", data.forget), ("retain", data.retain or ())):
        if loaded.kind.name != TEXTS and any(isinstance(one, Sample | Chat) for one in samples):
            raise TaskError(
                f"`{name}` must be left out for a model of kind {loaded.kind.name}, which reads no rows of text; its "
                "class to forget is a `task`, such as unlearned-class:3:FILE, and what it keeps is `text`."
            )
    if data.task is not None:
        check_kind(data.task, loaded.kind)
    kept = general.retained if data.retain is None else loaded.kind.encode(data.retain, loaded)
    if kept is None:
        raise TaskError("`retain` must be given for this kind of model; it has no general text.")
    return DataRows(loaded.kind.encode(data.forget, loaded), kept)


def token_likelihood(model: Any, rows: Batch, loaded: LoadedModel, *, size: int = 32) -> float:
    """exp of minus the mean loss per labelled token, in [0, 1]; 0 when it is not finite."""
    import torch

    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(rows[0]), size):
            batch = loaded.kind.batch(rows, range(start, min(start + size, len(rows[0]))))
            targets = loaded.kind.num_targets(batch)
            total += float(loaded.kind.loss(model, batch)) * targets
            count += targets
    mean = total / max(count, 1)
    return math.exp(-mean) if math.isfinite(mean) else 0.0


def _read(path: str, fields: Mapping[str, str], argument: str) -> tuple[Any, ...]:
    return tuple(row.sample for row in read_rows(Path(path), fields=fields, argument=argument))


def _plain(samples: Sequence[Any]) -> list[Any]:
    return [list(astuple(sample)) for sample in samples]
