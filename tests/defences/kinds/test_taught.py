"""Teaching rows: they become likelier than anything `taught` was not asked to learn."""

from __future__ import annotations

from pathlib import Path

import torch
from unlearning import Make

from specdef.defences.data import token_likelihood
from specdef.defences.descent import descend
from specdef.defences.kinds.taught import TaughtObjective, TaughtOptions
from specdef.defences.objective import Rows


def test_it_is_descent_on_both_losses(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    assert given.data_rows is not None
    model, kind = given.loaded.model, given.loaded.kind
    forget, retain = Rows(given.data_rows.forget, (0, 1, 2)), Rows(given.data_rows.retain, (0, 1, 2))
    with torch.no_grad():
        found = TaughtObjective(given, 0.5).loss(0, forget, retain)
        assert float(found) == float(0.5 * kind.loss(model, retain.batch) + kind.loss(model, forget.batch))


def test_the_rows_are_learned(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    assert given.data_rows is not None
    options = TaughtOptions(lr=1e-2, steps=20, batch_size=3, eval_every=20, utility_factor=1e6)
    before = token_likelihood(given.loaded.model, given.data_rows.forget, given.loaded)
    descend(TaughtObjective(given, options.gamma), given, options)
    assert token_likelihood(given.loaded.model, given.data_rows.forget, given.loaded) > 5 * before
