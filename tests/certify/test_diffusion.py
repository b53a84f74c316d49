"""A pipeline from lock to result: one cell for the undefended model, the lock, adapters and the lock undone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pico_diffusion
import pytest
from typer.testing import CliRunner

from specdef import attack, lock
from specdef.certify import resources
from specdef.certify.cell_result import CellResult
from specdef.cli.main import app
from specdef.errors import SpecdefError
from specdef.tasks.base import TaskSpec
from specdef.training.outcome import Outcome
from specdef.training.recipe import Recipe

RECIPE = Recipe(lr=3e-3, steps=20, batch_size=8, eval_every=20, retain_weight=0.25)


@dataclass(frozen=True)
class Folders:
    original: Path
    locked: Path
    concept: Path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    place = tmp_path_factory.mktemp("diffusion")
    original = pico_diffusion.build(place / "original", odd=False)
    lock(original, place / "locked", multiplier="2^20")
    return Folders(original, place / "locked", pico_diffusion.write_concept(place))


def attacked(folders: Folders, folder: Path, out: Path, *interventions: str, **given: Any) -> CellResult:
    arguments: dict[str, Any] = {"recipe": RECIPE, "threads": 1, "device": "cpu", "text": folders.concept, **given}
    task = TaskSpec("concept", str(folders.concept), target=0.7)
    return attack(folder, out, original=folders.original, task=task, interventions=interventions, **arguments).result


def test_as_many_cells_run_at_once_as_memory_holds_pipelines(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, weights in folders of components counted for nothing, and every core was given a cell."""
    weights = sum(path.stat().st_size for path in folders.original.rglob("*.safetensors"))
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(resources, "physical_memory", lambda: 4 * weights / 2 * resources.BYTES_PER_PARAMETER)
    assert resources.Resources(device="cpu").for_model(folders.original).workers == 3


def test_a_pipeline_learns_the_concept_and_a_lock_keeps_what_it_draws(folders: Folders, tmp_path: Path) -> None:
    plain = attacked(folders, folders.original, tmp_path)
    assert plain.outcome == Outcome.BROKEN
    assert (plain.evaluations[0].score, plain.evaluations[-1].score) == (0.0, 1.0)
    one = Recipe(lr=3e-3, steps=1, warmup=0.0, batch_size=8, eval_every=1, retain_weight=0.25)
    first = attacked(folders, folders.original, tmp_path, recipe=one).evaluations
    locked = attacked(folders, folders.locked, tmp_path, recipe=one).evaluations
    undone = attacked(folders, folders.locked, tmp_path, "rebalance", recipe=one).evaluations
    assert locked[0] == first[0], "the lock keeps score and utility at step 0, to the bit"
    assert locked[1].utility != pytest.approx(first[1].utility, rel=1e-2), "it changes what a step does"
    assert undone[1].utility == pytest.approx(first[1].utility, rel=1e-2), "rebalance takes it away"


def test_the_papers_lock_keeps_what_it_draws_and_merge_takes_it_away(folders: Folders, tmp_path: Path) -> None:
    place = tmp_path / "inject"
    lock(folders.original, place, preset="paper", rank=3, share=1.0, multiplier=1e4)
    one = Recipe(lr=3e-3, steps=1, warmup=0.0, batch_size=8, eval_every=1, retain_weight=0.25)
    first = attacked(folders, folders.original, tmp_path, recipe=one).evaluations
    locked = attacked(folders, place, tmp_path, recipe=one).evaluations
    merged = attacked(folders, place, tmp_path, "merge", recipe=one).evaluations
    for found in (locked, merged):
        assert found[0].utility == pytest.approx(first[0].utility, rel=1e-3)
    assert locked[1].utility != pytest.approx(first[1].utility, rel=1e-2)
    assert merged[1].utility == pytest.approx(first[1].utility, rel=1e-2)


def test_adapters_beside_attention_learn_the_concept(folders: Folders, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    recipe = Recipe(lr=1e-2, steps=20, batch_size=8, eval_every=20, retain_weight=0.25)
    found = attacked(folders, folders.original, tmp_path, "lora:rank=4,targets=to_q+to_k+to_v", recipe=recipe)
    assert found.outcome == Outcome.BROKEN
    assert found.trained_parameters < 5000


def test_bad_input_is_one_sentence(folders: Folders, tmp_path: Path) -> None:
    """An error of this class ends the command line in exit 2."""

    def said(task: str, *arguments: str | Path) -> str:
        given = ["attack", str(folders.original), "--out", str(tmp_path / "out"), "--threads", "1", "--task", task]
        error = CliRunner().invoke(app, [*given, *map(str, arguments)]).exception
        assert isinstance(error, SpecdefError), error
        assert not (tmp_path / "out").exists()
        return str(error)

    concept = f"concept:{folders.concept}"
    assert "`text` must be given for a pipeline: the file of a concept" in said(concept)
    assert "`task` concept must be given a file" in said("concept", "--text", folders.concept)
    (tmp_path / "wide").mkdir()
    wide = pico_diffusion.write_concept(tmp_path / "wide")
    np.savez(tmp_path / "wide" / "images.npz", images=np.zeros((4, 8, 9), np.uint8), labels=[0, 1, 0, 1])
    text = ("--text", folders.concept)
    assert "images of 1 x 8 x 8, which the model draws; image 0 has 1 x 8 x 9" in said(f"concept:{wide}", *text)
    odd = pico_diffusion.write_concept(tmp_path / "wide", prompts=["a picture of a bar", "a picture of a boat"])
    assert "`task` must have prompts of words that the model's tokenizer knows" in said(f"concept:{odd}", *text)


def test_images_from_the_command_line_are_named_where_they_lie(folders: Folders, tmp_path: Path) -> None:
    """An attack that was finished without them draws none afterwards, and says so."""
    pytest.importorskip("PIL.Image")

    def said(out: Path, *more: str) -> str:
        concept = folders.concept
        arguments = ["attack", folders.original, "--out", out, "--task", f"concept:{concept}", "--text", concept]
        steps = [
            "--steps",
            "1",
            "--warmup",
            "0",
            "--eval-every",
            "1",
            "--target",
            "0.9",
            "--threads",
            "1",
            "--device",
            "cpu",
        ]
        found = CliRunner().invoke(app, [*map(str, arguments), *steps, *more])
        assert found.exit_code == 0, found.output
        return " ".join(found.stdout.split())

    assert "Images: " in said(tmp_path / "a", "--images")
    (place,) = tmp_path.glob("a/drawn/*")
    assert sorted(path.name for path in place.iterdir()) == ["step-00000", "step-00001"]
    assert f"Images: {place}" in said(tmp_path / "a", "--images")
    assert "drawn" not in said(tmp_path / "b")
    assert "No images drawn: this attack had been finished before. Name another OUT." in said(
        tmp_path / "b", "--images"
    )
