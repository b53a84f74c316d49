"""A callback for transformers' `Trainer`: score and utility of a task during a run of the user's own, and its verdict.

The model is measured and the run judged by the functions that judge attacks, `specdef.attacks.run`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from specdef.attacks.run import judge, measure, stillness
from specdef.core.results import Records, brief
from specdef.errors import SpecdefError
from specdef.models.base import LoadedModel, find_kind
from specdef.models.memory import config_of, require_transformers
from specdef.tasks.base import Task, check_kind, make_task, parse_task
from specdef.tasks.utility import UtilityData, utility_for
from specdef.training.loop import weight_checksums
from specdef.training.outcome import Evaluation, Judgement, Outcome, evaluation_rows

NOT_REACHED = "target not reached"
"""Never that it held: a run of the user's own has no undefended model that the target was reached on."""


@dataclass(frozen=True, repr=False)
class TrainerReport(Records):
    """How a run of `Trainer` would have been judged as an attack.

    Attributes:
        judgement: as of an attack: outcome, steps to the target, best score inside the utility budget.
        task: its name.
        target: the score at which an attack has reached its aim.
        utility: name of the utility.
        evaluations: every measurement, step 0 first.
        note: why the run says nothing, or "".
    """

    judgement: Judgement
    task: str
    target: float
    utility: str
    evaluations: tuple[Evaluation, ...]
    note: str = ""

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        found, end = self.judgement, self.evaluations[-1]
        if not found.outcome.counts:
            return f"As an attack this run would be invalid: {self.note}."
        how = f"broken at step {found.step}" if found.outcome is Outcome.BROKEN else NOT_REACHED
        lost = "" if found.diverged_at is None else f"; {self.utility} left its budget at step {found.diverged_at}"
        return (
            f"As an attack this run would be judged {how}: best score {found.best.score:.3f} of {self.target:g} within "
            f"the budget; at the end score {end.score:.3f}, {self.utility} {brief(end.utility)}{lost}."
        )

    def summary(self) -> dict[str, str]:
        """See `Result`."""
        start, end = self.evaluations[0], self.evaluations[-1]
        return {
            "verdict": self.sentence,
            "task": f"{self.task}, target {self.target:g}",
            "score": f"{start.score:.3f} -> {end.score:.3f}",
            self.utility: f"{brief(start.utility)} -> {brief(end.utility)}",
            "evaluations": brief(len(self.evaluations)),
        }

    def records(self) -> list[dict[str, Any]]:
        """A row an evaluation."""
        return evaluation_rows(self.evaluations)


class TaskCallback(TrainerCallback):  # type: ignore[misc]
    """Measures a task every so many steps of a `Trainer`, and says at the end how the run would have been judged.

    It changes nothing of the run: not the weights, not the mode, not the random state. Give one to one run.

    Args:
        task: such as ``biographies`` or ``mcqa:FILE``, or a task made in code.
        tokenizer: of the model.
        every: steps between measurements; the first and the last step are always measured.
        target: score to reach; the task's own when None. Only for a task given by name.
        scorer: what counts as success in task sft. Only for a task given by name.
        task_seed: decides the task's draws. Only for a task given by name.
        text: general data, a file as the utility reads it; what ships with the package when None.
        utility: the ordinary one for this kind of model when None.
        utility_factor: how much of its utility a useful model may lose.
        say: called with the verdict in one sentence.

    Raises:
        SpecdefError: the task does not exist, its file is unusable, or `every` is below 1.
    """

    def __init__(
        self,
        task: str | Task,
        tokenizer: Any,
        *,
        every: int = 10,
        target: float | None = None,
        scorer: str | None = None,
        task_seed: int = 0,
        text: Path | str | None = None,
        utility: str | None = None,
        utility_factor: float = 2.0,
        say: Callable[[str], None] = print,
    ) -> None:
        if every < 1:
            raise SpecdefError(f"`every` must be at least 1; got {every}.")
        if isinstance(task, str):
            task = make_task(parse_task(task, seed=task_seed, target=target, scorer=scorer))
        elif target is not None or scorer is not None or task_seed:
            raise SpecdefError(
                "`target`, `scorer` and `task_seed` must be left out for a task made in code: it has them."
            )
        self.task = task
        self.evaluations: list[Evaluation] = []
        self.report: TrainerReport | None = None
        self._processor, self._every, self._factor, self._say = tokenizer, every, utility_factor, say
        self._text, self._utility_name = None if text is None else Path(text), utility
        self._general: UtilityData | None = None
        self._start: list[int] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Prepare the general data for the model and measure step 0.

        Raises:
            SpecdefError: the model is of no kind, or of another than the task is for.
        """
        base = model.get_base_model() if hasattr(model, "get_base_model") else model  # a PEFT model wraps it
        require_transformers(base)
        kind = find_kind(config_of(base))
        if kind is None:
            raise SpecdefError(f"`model` must be of a kind that has tasks; got a {type(base).__name__}.")
        check_kind(self.task, kind)
        utility = utility_for(kind, self._utility_name)
        loaded = LoadedModel(model, self._processor, kind)
        self.evaluations, self.report = [], None
        with _undisturbed(model):
            self._general = utility.prepare(utility.read(self._text), loaded)
        self._start = weight_checksums(model)
        self._measure(model, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Measure where it is due."""
        if state.global_step % self._every == 0:
            self._measure(model, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Measure the last step and judge the run."""
        assert self._general is not None
        if self.evaluations[-1].step != state.global_step:
            self._measure(model, state.global_step)
        still = stillness(state.global_step, weight_checksums(model) != self._start)
        utility = self._general.utility
        judgement, note = judge(self.evaluations, self.task, utility, utility_factor=self._factor, still=still)
        measured = tuple(self.evaluations)
        self.report = TrainerReport(judgement, self.task.name, self.task.target, utility.name, measured, note)
        if state.is_world_process_zero:
            self._say(self.report.sentence)

    def _measure(self, model: Any, step: int) -> None:
        assert self._general is not None
        with _undisturbed(model):
            self.evaluations.append(measure(model, self._processor, self.task, self._general, step=step))


@contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """Evaluation mode, and the mode of every part and the random state back afterwards."""
    modes = [(part, part.training) for part in model.modules()]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        model.eval()
        try:
            yield
        finally:
            for part, training in modes:
                part.training = training
