"""Without lm-eval, its adapter says what to install. What it does with it: tests/harness (`make test-harness`)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from specdef.errors import SpecdefError
from specdef.integrations.lm_eval import evaluate_harness
from specdef.tasks.base import given_task
from specdef.tasks.text.harness import HarnessTask


def test_a_missing_harness_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SpecdefError, match=r"need lm-eval. Run `pip install specdef\[harness\]`"):
        evaluate_harness(tmp_path, ["colours"])


def test_a_scorer_without_the_harness_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SpecdefError, match=r"`scorer` must be one that is installed; lm-eval:arc_easy needs lm-eval"):
        given_task(None, train="train.jsonl", scorer="lm-eval:arc_easy")
    with pytest.raises(SpecdefError, match="`scorer` must name a task file that exists"):
        given_task(None, train="train.jsonl", scorer=f"lm-eval:{tmp_path}/none.yaml")
    for bad in ("lm-eval:", "lm-eval::acc"):
        with pytest.raises(SpecdefError, match="`scorer` must be lm-eval:TASK or lm-eval:TASK:METRIC"):
            given_task(None, train="train.jsonl", scorer=bad)
    with pytest.raises(SpecdefError, match="`eval` must be left out with scorer lm-eval:arc_easy"):
        given_task(None, train="train.jsonl", evaluate="eval.jsonl", scorer="lm-eval:arc_easy")
    with pytest.raises(SpecdefError, match="`eval` must be given"):
        given_task(None, train="train.jsonl", scorer="exact")


class Colours:
    """A harness task's object, with three choices a question."""

    OUTPUT_TYPE = "multiple_choice"

    def doc_to_choice(self, doc: Any) -> list[str]:
        return ["red", "green", "blue"]


def answered(*samples: tuple[int, float, Any], reported: float) -> dict[str, Any]:
    rows = [{"doc_id": number, "acc": part, "filtered_resps": found} for number, part, found in samples]
    return {"results": {"colours": {"alias": "c", "acc,none": reported}}, "samples": {"colours": rows}}


def test_a_share_is_what_is_reported_with_every_questions_part() -> None:
    scorer = HarnessTask("colours", "acc", Colours(), ("a", "b"))
    assert scorer.chance == pytest.approx(1 / 3)
    fine = [(-1.0, False)]
    score = scorer._score(answered((1, 0.0, fine), (0, 1.0, fine), reported=0.5))
    assert (score.value, score.by_group) == (0.5, (1.0, 0.0))
    unlike = scorer._score(answered((0, 1.0, fine), (1, 0.0, fine), reported=0.7))
    assert (unlike.value, unlike.by_group) == (0.7, None), "a metric that is no mean has no error that is known"
    lost = scorer._score(answered((0, 1.0, [(math.nan, False)]), (1, 1.0, fine), reported=1.0))
    assert (lost.value, lost.by_group) == (0.5, (0.0, 1.0))
    with pytest.raises(SpecdefError, match=r"`scorer` must be a share from 0 to 1; acc of colours is 12\.5"):
        scorer._score(answered((0, 12.5, fine), reported=12.5))
