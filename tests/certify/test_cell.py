"""What a cell is named after: the first results' names stay, other kinds and utilities say what they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from specdef.attacks.base import Attack
from specdef.certify.cell import Cell, CellConfig, Subject, cell_from_json, subject_of
from specdef.errors import SpecdefError
from specdef.tasks.base import TaskSpec
from specdef.training.recipe import Recipe

FIRST = Attack(Recipe(lr=1e-5))
"""The attack of the first results: a learning rate is always written, so another default changes no name."""
CELL = Cell(Subject("/here", "a"), TaskSpec("facts"), "b", None, "c", FIRST, reference=2.5)
PLAIN = CellConfig("m", "facts", "t", "x", Attack(), 43.5, 1, "cpu")


def test_other_kinds_and_utilities_are_said_beside_the_first_fields() -> None:
    assert PLAIN.to_wire()["reference_perplexity"] == 43.5
    assert not {"model_kind", "utility", "original", "reference"} & PLAIN.to_wire().keys()
    other = replace(PLAIN, model_kind="other", utility="accuracy", original="o")
    assert other.to_wire()["utility"] == {"name": "accuracy", "reference": 43.5, "original": "o"}
    assert "reference_perplexity" not in other.to_wire()


def test_every_configuration_comes_back_and_has_a_key_of_its_own() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"model": "n"},
        {"task": "guard"},
        {"task_digest": "u"},
        {"text_digest": "y"},
        {"attack": Attack(stop="paper")},
        {"reference": None},
        {"threads": 2},
        {"device": "cuda"},
        {"model_kind": "other"},
        {"utility": "accuracy"},
        {"original": "o"},
        {"changed": True},
        {"format": 2},
    ]
    configs = [replace(PLAIN, **change) for change in changes]
    for config in configs:
        assert CellConfig.from_wire(json.loads(json.dumps(config.to_wire()))) == config
    assert len({config.key for config in configs}) == len(configs)
    assert {name for change in changes for name in change} == set(CellConfig.__dataclass_fields__)


@pytest.mark.parametrize("missing", ["model", "attack", "format", "threads"])
def test_a_configuration_that_is_not_whole_is_refused(missing: str) -> None:
    data = PLAIN.to_wire()
    del data[missing]
    with pytest.raises(SpecdefError, match="`config` must be as this version writes it"):
        CellConfig.from_wire(data)


def test_a_folder_without_weights_is_blamed_on_the_argument_it_was_given_as(tmp_path: Path) -> None:
    for argument in ("model", "original"):
        with pytest.raises(SpecdefError, match=f"`{argument}` must be a folder with .safetensors files"):
            subject_of(tmp_path, argument=argument)


def test_a_language_models_cell_is_named_as_in_the_first_results() -> None:
    assert CELL.key == "9290f4188d928873"
    assert set(CELL.identity()) == {
        *("format", "model", "task", "task_digest", "text_digest", "attack"),
        *("reference_perplexity", "threads", "device"),
    }
    assert CELL.identity()["reference_perplexity"] == 2.5


@pytest.mark.parametrize(
    "changes",
    [{"model_kind": "text-classifier"}, {"utility": "accuracy"}, {"original": Subject("/there", "d")}],
)
def test_another_kind_utility_or_original_is_another_cell(changes: dict[str, object]) -> None:
    other = replace(CELL, **changes)  # type: ignore[arg-type]
    assert other.key != CELL.key
    assert other.identity()["utility"]["reference"] == 2.5
    assert replace(other, reference=3.0).key != other.key
    again = json.loads(json.dumps(other.identity()))
    assert CellConfig.from_wire(again) == other.config
    assert cell_from_json(json.loads(json.dumps(other.to_json()))) == other


def test_where_the_undefended_model_lies_is_no_part_of_the_name() -> None:
    first, second = (replace(CELL, original=Subject(path, "d")) for path in ("/there", "/elsewhere"))
    assert first.key == second.key
    assert replace(CELL, original=Subject("/there", "e")).key != first.key


@pytest.mark.parametrize("missing", ["attack", "utility", "device"])
def test_a_configuration_that_lacks_a_part_is_refused(missing: str) -> None:
    data = replace(CELL, utility="accuracy").identity()
    data.pop(missing)
    with pytest.raises(SpecdefError, match=r"`config` must be as this version writes it; it is not"):
        CellConfig.from_wire(data)
