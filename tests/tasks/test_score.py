"""What scores are made of."""

from __future__ import annotations

import numpy as np
import pytest

from specdef.tasks.score import Score, as_score, share


def test_the_error_is_over_groups_and_not_over_questions() -> None:
    """Ten wordings of one fact are one piece of evidence."""
    right = [True] * 10 + [False] * 10 + [True] * 10 + [False] * 10
    apart, together = share(right, range(40)), share(right, [index // 10 for index in range(40)])
    assert apart.value == together.value == 0.5
    assert apart.error == pytest.approx(np.std(right, ddof=1) / 40**0.5)
    assert together.error == pytest.approx(np.std([1, 0, 1, 0], ddof=1) / 2)
    assert together.by_group == (1.0, 0.0, 1.0, 0.0)


def test_one_group_and_a_bare_number_say_nothing_of_their_error() -> None:
    assert share([True, False], ["a", "a"]).error is None
    assert as_score(0.5) == Score(0.5)
    assert as_score(0.5).error is None
    assert as_score(found := share([True], ["a"])) is found


def test_every_question_has_a_group_and_shares_have_four_decimals() -> None:
    with pytest.raises(ValueError, match="zip"):
        share([True, False], ["a"])
    assert share([True, False, False], ["a", "a", "a"]).by_group == (0.3333,)


def test_what_groups_add_has_the_score_as_its_mean() -> None:
    found = share([True, True, True, False], ["a", "a", "a", "b"])
    assert found.by_group == (1.125, 0.375)
    assert np.mean(found.by_group) == found.value == 0.75
