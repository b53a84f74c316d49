"""Utilities by name, and by the kind of model they are of."""

from __future__ import annotations

import pytest

from specdef.models.base import MODEL_KINDS
from specdef.tasks.base import TaskError
from specdef.tasks.utility import UTILITIES, utility_for


def test_every_kind_of_model_has_a_default_that_is_of_it() -> None:
    for kind in MODEL_KINDS:
        assert kind.name in utility_for(kind).model_kinds
    assert [utility.name for utility in UTILITIES] == list(UTILITIES.names())


def test_a_utility_of_another_kind_is_refused() -> None:
    sentence = (
        r"`utility` must be one that a model of kind causal-lm has \(perplexity, perplexity-growth\); got 'accuracy'"
    )
    with pytest.raises(TaskError, match=sentence):
        utility_for(MODEL_KINDS.get("causal-lm"), "accuracy")
