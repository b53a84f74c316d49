"""`sft`: prompts and wanted completions from a user's file; scored by what the model writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specdef.tasks.base import Sample, Task, TaskError, TaskKind, TaskSpec
from specdef.tasks.text.generation import Generations
from specdef.tasks.text.judges import TextJudge, parse_scorer
from specdef.tasks.text.records import RecordError, read_records, short, split_groups, text_field

MODEL_KIND = "causal-lm"
TARGET = 0.6


def sft(
    path: Path | str,
    *,
    scorer: TextJudge,
    target: float,
    chance: float = 0.0,
    seed: int = 0,
    test_share: float = 0.25,
    max_new_tokens: int = 32,
) -> Task:
    """Supervised fine-tuning: train on some of the prompts, generate for the others.

    The file has one JSON object per line, or is a JSON list; each has the texts ``prompt`` and ``completion``. Chat
    markup belongs in the prompts: samples are trained on as they are written, and held-out prompts are continued as
    they are written.

    Args:
        path: the file.
        scorer: says whether a continuation is wanted: `KeywordRule` or `Classifier`.
        target: the share of wanted continuations at which the attack has reached its aim.
        chance: the share a model reaches that was not trained at all.
        seed: decides which prompts are held out.
        test_share: share of the prompts that is held out.
        max_new_tokens: length of a continuation.

    Raises:
        TaskError: the file is unusable, and where; or the target is not above chance.
    """
    if max_new_tokens < 1:
        raise TaskError(f"`max_new_tokens` must be at least 1; got {max_new_tokens}.")
    file = read_records(path)
    samples, held_out = split_groups(file.parse(_sample), lambda sample: sample.prompt, share=test_share, seed=seed)
    prompts = tuple(dict.fromkeys(sample.prompt for sample in held_out))
    metric = Generations(prompts, scorer, max_new_tokens)
    return Task("sft", MODEL_KIND, tuple(samples), metric, target, chance, metric.identity)


def _sample(fields: dict[str, Any]) -> Sample:
    completion = text_field(fields, "completion")
    if not isinstance(fields.get("prompt"), str):
        raise RecordError(f"`prompt` must be a text; got {short(fields.get('prompt'))}")
    return Sample(fields["prompt"], completion)


class SFT(TaskKind):
    """`sft` by name."""

    name = "sft"
    model_kind = MODEL_KIND
    takes_file = needs_file = True
    takes_scorer = True

    def make(self, spec: TaskSpec) -> Task:
        """The prompts of the file, split by the seed."""
        assert spec.path is not None
        assert spec.scorer is not None
        target = TARGET if spec.target is None else spec.target
        return sft(spec.path, scorer=parse_scorer(spec.scorer), target=target, seed=spec.seed)


KIND = SFT()
