"""Gradient difference: ascent on one mean, descent on the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from unlearning import Make, rows

from specdef.defences.descent import descend
from specdef.defences.kinds.grad_diff import GradDiffObjective, GradDiffOptions
from specdef.errors import SpecdefError


def test_it_is_the_difference_of_the_losses_that_training_sees(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    forget, retain = rows(given)
    model, kind = given.loaded.model, given.loaded.kind
    with torch.no_grad():
        found = GradDiffObjective(given, 0.5).loss(0, forget, retain)
        assert float(found) == float(0.5 * kind.loss(model, retain.batch) - kind.loss(model, forget.batch))


def test_without_a_bound_the_utility_budget_ends_it(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    before = {name: value.clone() for name, value in given.loaded.model.state_dict().items()}
    options = GradDiffOptions(lr=3e-3, gamma=0.0, steps=40, eval_every=2, utility_factor=1.05)
    applied = descend(GradDiffObjective(given, 0.0), given, options)
    points = applied.evaluations["defend"]
    kept = applied.steps["defend"]
    assert applied.ended == f"utility stayed outside its budget; the state after {kept} steps is kept"
    assert [point.utility > 1.05 for point in points[-4:]] == [False, True, True, True]
    assert kept == points[-4].step > 0
    assert given.utility.measure(given.loaded.model, given.data) == points[-4].utility
    assert any(not torch.equal(before[name], value) for name, value in given.loaded.model.state_dict().items())


def test_a_weight_below_zero_is_refused() -> None:
    with pytest.raises(SpecdefError, match="`gamma` must be 0 or more; got -1"):
        GradDiffOptions(gamma=-1.0)
