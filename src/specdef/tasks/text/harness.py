"""Tasks of the Language Model Evaluation Harness: run as they are, or as the scorer of a user's own task.

The one file that imports lm_eval.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specdef.core.text import did_you_mean
from specdef.errors import TaskError
from specdef.models.loading import reason
from specdef.tasks.score import Score

PREFIX = "lm-eval:"
PREFERRED = ("acc", "exact_match")
"""The metric where the user names none and the task has several."""
_PLACES = ("dataset_path", "dataset_name", "dataset_kwargs", "metadata", "custom_dataset")
"""What a task's configuration says of where its questions lie; the questions themselves are digested."""


def parse_harness(scorer: str) -> tuple[str, str | None]:
    """Task, by its name or its YAML file, and metric of ``lm-eval:TASK[:METRIC]``; None takes the task's.

    Raises:
        TaskError: no task is named, the file is not there, or lm-eval is not installed.

    Example:
        >>> parse_harness("lm-eval:") # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        specdef.errors.TaskError: `scorer` must be lm-eval:TASK or lm-eval:TASK:METRIC; got 'lm-eval:'.
    """
    task, _, metric = scorer.removeprefix(PREFIX).partition(":")
    if not task:
        raise TaskError(f"`scorer` must be {PREFIX}TASK or {PREFIX}TASK:METRIC; got {scorer!r}.")
    if _is_file(task) and not Path(task).is_file():
        raise TaskError(f"`scorer` must name a task file that exists; {task} does not.")
    if importlib.util.find_spec("lm_eval") is None:
        raise TaskError(
            f"`scorer` must be one that is installed; {scorer} needs lm-eval. Run `pip install specdef[harness]`."
        )
    return task, metric or None


def _is_file(task: str) -> bool:
    return Path(task).suffix in (".yaml", ".yml")


def harness_scorer(scorer: str) -> HarnessTask:
    """The scorer that a text names; its questions are read from local files, or as the user's HF settings allow.

    Raises:
        TaskError: the task or the metric is unknown, it is a group, or its data cannot be read.
    """
    given, metric = parse_harness(scorer)
    file = Path(given) if _is_file(given) else None
    name = given if file is None else _name_in(file)
    from lm_eval.tasks import TaskManager, get_task_dict

    with _quiet():
        manager = TaskManager(include_path=None if file is None else str(file.parent))
        _refuse_unknown([name], manager.all_tasks, argument="scorer")
        try:
            task = get_task_dict([name], manager)[name]
            metrics = [metric for metric, how in task.aggregation().items() if getattr(how, "__name__", "") == "mean"]
            questions = list(task.eval_docs)
        except Exception as error:  # whatever a task file makes the harness raise
            raise TaskError(f"`scorer` must be one task on local files; {given} is not ({reason(error)}).") from error
    return HarnessTask(name, _metric(metric, metrics, name), task, tuple(questions))


def _name_in(file: Path) -> str:
    found = re.search(r"^task:\s*[\"']?([^\s\"'#]+)", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    if found is None:
        raise TaskError(f"`scorer` must name a file of one harness task; {file} has no line `task: NAME`.")
    return found[1]


def _metric(wanted: str | None, metrics: Sequence[str], task: str) -> str:
    if wanted is None:
        wanted = next((one for one in PREFERRED if one in metrics), metrics[0] if len(metrics) == 1 else None)
    if wanted is None or wanted not in metrics:
        got = "none was named" if wanted is None else f"got {wanted}"
        offered = ", ".join(metrics) or "it has none"
        raise TaskError(f"`scorer` must name a metric of {task} that is a mean over its questions: {offered}; {got}.")
    return wanted


@dataclass(frozen=True)
class HarnessTask:
    """The share that the harness reports for a task on the model as it is, with every question's part in it.

    Attributes:
        name: of the task.
        metric: of the task; a share, the higher the better.
        task: the harness's object.
        questions: what is asked.
        batch_size: rows per forward pass.
    """

    name: str
    metric: str
    task: Any = field(repr=False, compare=False)
    questions: tuple[Any, ...] = field(repr=False)
    batch_size: int = 8

    @property
    def identity(self) -> dict[str, Any]:
        """Task, metric, the harness's version, and digests of the configuration and the questions."""
        from importlib.metadata import version

        from blake3 import blake3

        def digest(value: Any) -> str:
            return blake3(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()

        config = {name: value for name, value in self.task.dump_config().items() if name not in _PLACES}
        return {
            "judge": "lm-eval",
            "task": self.name,
            "metric": self.metric,
            "version": version("lm_eval"),
            "config": digest(config),
            "questions": digest(self.questions),
        }

    @property
    def chance(self) -> float:
        """What guessing scores: one in the number of choices; 0 where a text is generated."""
        if self.task.OUTPUT_TYPE != "multiple_choice":
            return 0.0
        return sum(1 / len(self.task.doc_to_choice(one)) for one in self.questions) / len(self.questions)

    def __call__(self, model: Any, tokenizer: Any) -> Score:
        """The share, with every question as a group of its own: the error is then the harness's own."""
        from lm_eval.evaluator import evaluate

        with _quiet():
            try:
                found = evaluate(
                    _wrapped(model, tokenizer, self.batch_size),
                    {self.name: self.task},
                    bootstrap_iters=0,
                    log_samples=True,
                )
            except Exception as error:
                raise TaskError(f"`scorer` must run on this model; {self.name} did not ({reason(error)}).") from error
        assert found is not None
        return self._score(found)

    def _score(self, found: Mapping[str, Any]) -> Score:
        reported = next(
            float(value) for name, value in found["results"][self.name].items() if name.partition(",")[0] == self.metric
        )
        each: dict[int, float] = {}
        for sample in found["samples"][self.name]:
            part = sample[self.metric]
            each.setdefault(sample["doc_id"], float(part) if _is_finite(sample["filtered_resps"]) else 0.0)
        parts = tuple(each[number] for number in sorted(each))
        value = sum(parts) / len(parts)
        if any(not _is_finite(sample["filtered_resps"]) for sample in found["samples"][self.name]):
            return Score(value, parts)
        if not 0 <= reported <= 1:
            raise TaskError(f"`scorer` must be a share from 0 to 1; {self.metric} of {self.name} is {reported:g}.")
        return Score(reported, parts if math.isclose(value, reported, abs_tol=1e-9) else None)


def _is_finite(found: Any) -> bool:
    """Whether no number in what a model answered is NaN or infinite: such a model knows nothing."""
    if isinstance(found, list | tuple):
        return all(map(_is_finite, found))
    return not isinstance(found, float) or math.isfinite(found)


def run_tasks(
    model: Any, tokenizer: Any, tasks: list[str], *, include: str | None, limit: int | None, batch_size: int
) -> dict[str, dict[str, Any]]:
    """What the harness reports for tasks on a model in memory, task -> ``metric,filter`` -> value.

    Args:
        model: a causal language model.
        tokenizer: its own.
        tasks: names of harness tasks or groups.
        include: a folder with further task files.
        limit: examples per task; all when None.
        batch_size: rows per forward pass.

    Raises:
        TaskError: a task is unknown or cannot be run.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    with _quiet():
        manager = TaskManager(include_path=include)
        _refuse_unknown(tasks, manager.all_tasks)
        try:
            found = simple_evaluate(
                model=_wrapped(model, tokenizer, batch_size),
                tasks=tasks,
                task_manager=manager,
                limit=limit,
                log_samples=False,
                bootstrap_iters=100,  # 0 leaves out every error, not only those that are drawn
            )
        except Exception as error:  # whatever a task file makes the harness raise
            names = ", ".join(tasks)
            raise TaskError(f"`tasks` must run on local files; {names} did not ({reason(error)}).") from error
    return dict(found["results"]) if found else {}


def _wrapped(model: Any, tokenizer: Any, batch_size: int) -> Any:
    """A model in memory as the harness takes it."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def _refuse_unknown(tasks: Sequence[str], known: Sequence[str], *, argument: str = "tasks") -> None:
    """Raise TaskError unless the harness knows every name."""
    for name in tasks:
        if name not in known:
            hint = did_you_mean(name, known, cutoff=0.6)
            raise TaskError(f"`{argument}` must be names of harness tasks; {name!r} is none.{hint}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the harness's log below errors, its warnings and its bars, which would break up a panel of ours."""
    from tqdm import tqdm

    logger, begin = logging.getLogger("lm_eval"), tqdm.__init__
    level = logger.level

    def hidden(bar: Any, *arguments: Any, **options: Any) -> None:
        begin(bar, *arguments, **{**options, "disable": True})

    logger.setLevel(logging.ERROR)
    tqdm.__init__ = hidden
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
        tqdm.__init__ = begin
