"""The committed certificates, derived again from their committed cells by the code of today: nothing is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from specdef.attacks.wire import recipe_from_wire
from specdef.certify.cell import Cell, CellConfig, Subject, digest_of
from specdef.certify.certificate import Certificate, certify_study
from specdef.certify.result import FinishedCell
from specdef.certify.store import Store
from specdef.certify.study import MultiplierSource, Study
from specdef.tasks.base import TaskSpec, make_task

COMMITTED = Path(__file__).parents[2] / "experiments" / "results" / "certificates"
NAMES = ("exact", "paper", "unlocked")
VERDICTS = {
    "exact": ["held by collapse", "broken", "broken", "broken", "undone in 1.0 seconds with no training"],
    "paper": ["held by collapse", "broken", "broken", "broken", "undone in 0.6 seconds with no training"],
    "unlocked": ["broken"] * 5,
}


class Refusing:
    """An executor that must not be asked for anything."""

    def run(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, FinishedCell]]:
        asked = [(cell.attack.label, cell.subject.path) for cell in cells]
        raise AssertionError(f"cells that are not committed: {asked}")


def committed(name: str) -> dict[str, Any]:
    return dict(json.loads((COMMITTED / f"{name}.json").read_text()))


def study_of(certificate: dict[str, Any]) -> Study:
    """The study behind a certificate; its models are known by their digests alone."""
    spec = TaskSpec(certificate["task"]["name"])
    task = make_task(spec)
    assert digest_of(task.fingerprint()) == certificate["task"]["digest"]
    names = ("original", "subject")
    original, locked = (Subject(certificate[part]["name"], certificate[part]["digest"]) for part in names)
    return Study(
        original=original,
        locked=locked,
        method=certificate["subject"]["method"],
        multiplier=certificate["multiplier"],
        multiplier_source=MultiplierSource(certificate["multiplier_source"]),
        locked_modules=("model.layers.0.mlp.up_proj",) if certificate["subject"]["method"] == "inject" else (),
        spec=spec,
        task=task,
        task_digest=certificate["task"]["digest"],
        text=None,
        text_digest=certificate["utility"]["text_digest"],
        recipe=recipe_from_wire(certificate["recipe"]),
        utility_factor=certificate["utility"]["factor"],
    )


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Certificate]:
    """(name, the certificate as committed, the one derived again)."""
    old = committed(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(COMMITTED / "cells", folder / "shared")
    store = Store(folder / "out", cells=folder / "shared")
    return request.param, old, certify_study(study_of(old), store, Refusing(), threats=list(old["threat_models"]))


def test_the_verdicts_come_out_the_same(pair: tuple[str, Any, Certificate]) -> None:
    name, old, new = pair
    assert list(new.verdicts.values()) == VERDICTS[name]
    for threat, entry in old["threat_models"].items():
        found = new.content["threat_models"][threat]
        numbers = (
            "cell",
            "steps",
            "steps_std",
            "score",
            "utility",
            "seeds",
            "seeds_broken",
            "num_cells",
            "num_invalid",
        )
        assert {key: found[key] for key in numbers} == {key: entry[key] for key in numbers}, threat
        assert list(found["not_tried"]) == entry["not_tried"], threat


def test_every_stage_asks_for_the_committed_cells_in_their_order(pair: tuple[str, Any, Certificate]) -> None:
    _, old, new = pair
    assert [(row["threat_model"], row["cell"]) for row in new.content["cells"]] == [
        (row["threat_model"], row["cell"]) for row in old["cells"]
    ]


def test_every_committed_cell_is_named_by_its_configuration() -> None:
    paths = sorted((COMMITTED / "cells").glob("*.json"))
    assert len(paths) == 81
    for path in paths:
        data = json.loads(path.read_text())["config"]
        config = CellConfig.from_wire(data)
        assert config.to_wire() == data
        assert config.key == path.stem
