"""`own`: a user's data, one file to train on and another to be asked, scored as the user says."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from specdef.models.samples import Chat, Sample
from specdef.tasks.base import Metric, Task, TaskError, TaskKind, TaskSpec
from specdef.tasks.text.answers import Answers, Continuations, Likelihood, Patterns, commonest_share, lettered
from specdef.tasks.text.harness import PREFIX, harness_scorer, parse_harness
from specdef.tasks.text.judges import parse_scorer
from specdef.tasks.text.rows import Row, parse_fields, read_rows
from specdef.tasks.text.scoring import MultipleChoice, Question

MODEL_KIND = "causal-lm"
TARGET = 0.6
Made = tuple[Metric, float]
"""A metric, and the score of a model that knows nothing."""


def own(
    train: Path | str,
    evaluate: Path | str | None,
    *,
    scorer: str | None = None,
    target: float | None = None,
    fields: Mapping[str, str] | None = None,
    seed: int = 0,
    max_new_tokens: int = 32,
) -> Task:
    """Train on one file, ask another; for the forms see `read_rows`.

    Args:
        train: what the attacker trains on: all of it.
        evaluate: what is asked; None with a scorer that brings its own questions.
        scorer: what counts. ``exact``: the greedy continuation begins with the row's completion; ``normalised``: the
            same without case, punctuation and articles; ``pattern``: the row's own ``pattern`` is found in it;
            ``any:REGEX``, ``none:REGEX``, ``classifier:FOLDER:LABEL``: one rule for all rows; ``choice``: the right
            choice is likelier than the others; ``letter``: its letter is; ``loss``: exp(-held-out loss), which needs a
            target; ``lm-eval:TASK[:METRIC]``: what lm-eval reports for a task of its own or of a YAML file. When None:
            choice, pattern, normalised or loss, the first that all rows have what it needs for.
        target: the score at which the attack has reached its aim; 0.6 when None.
        fields: name that `read_rows` knows -> what the files call it.
        seed: decides how answers are mixed up in the control.
        max_new_tokens: length of a continuation that a pattern, rule or classifier judges.

    Raises:
        TaskError: a file is unusable, and where; the rows lack what the scorer needs; or the target does not lie
            above chance.
    """
    trained = read_rows(train, fields=fields, argument="train")
    asked = [] if evaluate is None else read_rows(evaluate, fields=fields, argument="eval")
    chosen = _default(asked) if scorer is None else scorer
    metric, chance = _made(chosen, asked, max_new_tokens)
    _need_target(chosen, target)
    samples = [_sample(row, chosen) for row in trained]
    controls = {} if chosen == "loss" or any(row.is_text for row in trained) else {"shuffled": _shuffled(samples, seed)}
    return Task(
        "own",
        MODEL_KIND,
        tuple(samples),
        metric,
        TARGET if target is None else target,
        chance,
        {"scorer": chosen, **metric.identity},  # type: ignore[attr-defined]
        {name: rows for name, rows in controls.items() if rows != tuple(samples)},
    )


def _made(scorer: str, rows: Sequence[Row], length: int) -> Made:
    if scorer.startswith(PREFIX):
        harness = harness_scorer(scorer)
        return harness, harness.chance
    return _SCORERS[scorer](rows, length) if scorer in _SCORERS else _rule(scorer, rows, length)


def _need_target(scorer: str | None, target: float | None) -> None:
    if scorer == "loss" and target is None:
        raise TaskError(
            "`target` must be given with scorer loss: the exp(-loss) to reach, such as 0.3 for 1.2 nats a token."
        )


def _default(rows: Sequence[Row]) -> str:
    if all(row.question is not None for row in rows):
        return "choice"
    if all(row.pattern is not None for row in rows):
        return "pattern"
    return "loss" if all(row.is_text for row in rows) else "normalised"


def _sample(row: Row, scorer: str) -> Sample | Chat:
    if scorer != "letter" or row.question is None:
        return row.sample
    question = lettered(row.question)
    return Sample(question.prompt, question.choices[question.answer])


def _shuffled(samples: Sequence[Sample | Chat], seed: int) -> tuple[Sample | Chat, ...]:
    """Every prompt with another one's completion, by chance."""
    completions = [sample.completion for sample in samples]
    random.Random(seed).shuffle(completions)
    return tuple(replace(sample, completion=one) for sample, one in zip(samples, completions, strict=True))


def _asked(rows: Sequence[Row], scorer: str) -> tuple[Sample | Chat, ...]:
    if any(row.is_text for row in rows):
        raise TaskError(
            f"`eval` must have something to answer in every row with scorer {scorer}; one is plain text alone."
        )
    return tuple(row.sample for row in rows)


def _questions(rows: Sequence[Row], scorer: str) -> list[Question]:
    found = [row.question for row in rows if row.question is not None]
    if len(found) < len(rows):
        raise TaskError(
            f"`eval` must have choices in every row with scorer {scorer}; {len(rows) - len(found)} have none."
        )
    return found


def _choices(questions: Sequence[Question]) -> Made:
    return MultipleChoice(tuple(questions)), sum(1 / len(one.choices) for one in questions) / len(questions)


def _answers(rows: Sequence[Row], length: int, *, normalised: bool) -> Made:
    samples = _asked(rows, "normalised" if normalised else "exact")
    answers = tuple(sample.completion for sample in samples)
    return Continuations(samples, Answers(answers, normalised)), commonest_share(answers)


def _pattern(rows: Sequence[Row], length: int) -> Made:
    patterns = [row.pattern for row in rows if row.pattern is not None]
    if len(patterns) < len(rows):
        raise TaskError(
            f"`eval` must have `pattern` in every row; {len(rows) - len(patterns)} of {len(rows)} have none."
        )
    return Continuations(_asked(rows, "pattern"), Patterns(tuple(patterns)), length), 0.0


def _loss(rows: Sequence[Row], length: int) -> Made:
    return Likelihood(tuple(row.sample for row in rows)), 0.0


def _rule(scorer: str, rows: Sequence[Row], length: int) -> Made:
    return Continuations(_asked(rows, scorer), parse_scorer(scorer), length), 0.0


_SCORERS: dict[str, Callable[[Sequence[Row], int], Made]] = {
    "exact": partial(_answers, normalised=False),
    "normalised": partial(_answers, normalised=True),
    "pattern": _pattern,
    "loss": _loss,
    "choice": lambda rows, length: _choices(_questions(rows, "choice")),
    "letter": lambda rows, length: _choices(list(map(lettered, _questions(rows, "letter")))),
}


class Own(TaskKind):
    """`own` by name."""

    name = "own"
    model_kind = MODEL_KIND
    takes_file = True

    def check(self, spec: TaskSpec) -> None:
        """Both files are given, and the scorer is one."""
        brings = spec.scorer is not None and spec.scorer.startswith(PREFIX)
        if brings and spec.eval is not None:
            raise TaskError(f"`eval` must be left out with scorer {spec.scorer}, which brings its own questions.")
        if spec.path is None or (spec.eval is None and not brings):
            missing = "train" if spec.path is None else "eval"
            raise TaskError(f"`{missing}` must be given: task own trains on one file and asks another.")
        parse_fields(spec.fields)
        if brings:
            parse_harness(str(spec.scorer))
        elif spec.scorer is not None and spec.scorer not in _SCORERS:
            if ":" not in spec.scorer:
                raise TaskError(
                    f"`scorer` must be one of {', '.join(_SCORERS)}, any:REGEX, none:REGEX, classifier:FOLDER:LABEL "
                    f"or lm-eval:TASK; got {spec.scorer!r}."
                )
            parse_scorer(spec.scorer)
        _need_target(spec.scorer, spec.target)

    def make(self, spec: TaskSpec) -> Task:
        """All of one file to train on, all of the other to be asked."""
        assert spec.path is not None
        return own(
            spec.path,
            spec.eval,
            scorer=spec.scorer,
            target=spec.target,
            fields=parse_fields(spec.fields),
            seed=spec.seed,
        )


KIND = Own()
