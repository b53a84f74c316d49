"""Filtering: a base that never saw the rows, or fresh weights that never do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pico
import pico_text
import pytest
import torch
from unlearning import Make

from specdef.defences.base import DataRows
from specdef.defences.defend import defend
from specdef.defences.kinds.filter import KIND, FilterObjective, FilterOptions, without
from specdef.errors import SpecdefError
from specdef.models.samples import Sample
from specdef.models.tokens import start_token


def test_the_bases_weights_are_taken_as_they_are(toy_model: Path, tmp_path: Path) -> None:
    base = pico_text.write_model(tmp_path / "base", seed=7)
    report = defend("filter", toy_model, tmp_path / "out", options={"base": str(base)}, data={"task": "facts"})
    a, b = (pico_text.load(folder)[0].state_dict() for folder in (base, tmp_path / "out"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert report.applied.ended == "the weights are those of the base"


def test_a_base_of_another_architecture_is_refused(toy_model: Path, tmp_path: Path) -> None:
    pico.build("llama", tmp_path / "base", num_hidden_layers=1)
    pico_text.write_tokenizer(tmp_path / "base")
    with pytest.raises(SpecdefError, match="`base` must have the tensors of the given model, and no others"):
        defend(
            "filter",
            toy_model,
            tmp_path / "out",
            options={"base": str(tmp_path / "base")},
            data={"task": "facts"},
        )
    assert not (tmp_path / "out").exists()


def test_rows_that_contain_one_to_forget_are_left_out(toy_model: Path) -> None:
    loaded = pico_text.loaded(toy_model)
    kept = (Sample("", "it is said that Orla owns a cat here"), Sample("", "Orla owns a dog"), Sample("", "cat"))
    rows = loaded.kind.encode(kept, loaded)
    forget = loaded.kind.encode((Sample("Orla owns", " a cat"),), loaded)
    clean, dropped = without(rows, forget, start_token(loaded.processor))
    assert dropped == 1
    assert torch.equal(clean[0], rows[0][1:])
    assert torch.equal(clean[1], rows[1][1:])


def test_a_text_to_forget_is_found_inside_others(toy_model: Path) -> None:
    """A text alone is encoded behind a start token, which is no part of what is searched for."""
    loaded = pico_text.loaded(toy_model)
    start = start_token(loaded.processor)
    kept = (Sample("it is said that", " Orla owns a cat here"), Sample("", "Orla owns a dog"))
    rows = loaded.kind.encode(kept, loaded)
    forget = loaded.kind.encode((Sample("", " Orla owns a cat"),), loaded)
    assert forget[0][0, 0] == start
    assert without(rows, forget, start)[1] == 1
    ids = rows[0][:, 1:]
    blocks = (ids, ids, rows[2][:, 1:])
    assert without(blocks, forget, start)[1] == 1, "general text has no start token at all"


def test_fresh_weights_see_no_row_to_forget(toy_model: Path, given_for: Make) -> None:
    """Two runs that differ in the rows to forget alone come to the same weights; the given ones play no part."""
    found = []
    for scale in (1.0, 3.0):
        given = given_for(toy_model)
        assert given.data_rows is not None
        with torch.no_grad():
            for parameter in given.loaded.model.parameters():
                parameter.mul_(scale)
        if scale > 1:
            other = given.loaded.kind.encode((Sample("Something", " else"),) * 3, given.loaded)
            given = replace(given, data_rows=DataRows(other, given.data_rows.retain))
        KIND.apply(given, FilterOptions(steps=3, eval_every=3))
        found.append({name: value.clone() for name, value in given.loaded.model.state_dict().items()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    fresh = given_for(toy_model)
    FilterObjective(fresh)
    start = fresh.loaded.model.state_dict()
    assert any(not torch.equal(start[name], found[0][name]) for name in start)


def test_nothing_left_to_keep_is_refused(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    assert given.data_rows is not None
    given = replace(given, data_rows=DataRows(given.data_rows.forget, given.data_rows.forget))
    with pytest.raises(SpecdefError, match="`retain` must have rows without any to forget"):
        KIND.apply(given, FilterOptions(steps=3))
