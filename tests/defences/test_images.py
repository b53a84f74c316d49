"""A class removed from a classifier of images, by the methods that need a loss alone, and taught again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from specdef import attack
from specdef.defences.defend import defend
from specdef.defences.descent import _restore, _state
from specdef.demo.images import VitDigits
from specdef.errors import SpecdefError, TaskError
from specdef.models.base import kind_of
from specdef.tasks.images.digits import digits
from specdef.training.recipe import Recipe

TASK = "unlearned-class:3"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViT that reads digits."""
    place = tmp_path_factory.mktemp("reader")
    story = VitDigits()
    return story.fetch(place, Console(record=True))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every digit but 3: what must be kept, and the utility."""
    kept = [image for image in digits(40, seed=7) if image.label != 3]
    order = np.random.default_rng(0).permutation(len(kept))
    path = tmp_path_factory.mktemp("kept") / "others.npz"
    np.savez(path, images=np.stack([kept[at].pixels for at in order]), labels=[kept[at].label for at in order])
    return path


@pytest.mark.parametrize(
    ("method", "options"), [("grad-diff", {"lr": 3e-4, "gamma": 3.0}), ("npo", {"lr": 1e-3, "beta": 1.0})]
)
def test_a_class_is_removed_and_taught_again(
    method: str, options: dict[str, float], model: Path, others: Path, tmp_path: Path
) -> None:
    given = {"steps": 60, "batch_size": 16, "eval_every": 20, **options}
    report = defend(method, model, tmp_path / "out", options=given, text=others, data={"task": TASK})
    score = report.scores["score of unlearned-class"]
    assert score.before > 0.9
    assert score.after < 0.65, "nearer chance (0.5) than the target that says it is known (0.8)"
    assert report.utility.after > 0.8, "the other digits are kept"
    record = json.loads((tmp_path / "out" / "specdef_defence.json").read_text())
    assert "score of unlearned-class" in record["scores"]
    recipe = Recipe(lr=1e-3, steps=40, batch_size=16, eval_every=20)
    found = attack(
        tmp_path / "out",
        tmp_path / "runs",
        original=model,
        task=TASK,
        text=others,
        recipe=recipe,
        threads=1,
        device="cpu",
    ).result
    assert found.evaluations[-1].score > 0.8


def test_what_batchnorm_counts_is_kept_with_the_weights() -> None:
    """Running means of later, worse steps in a kept state made another function of it (0.85 for 0.87 on digits)."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    model(rows)
    kept = _state(model)
    model.eval()
    before = model(rows)
    model.train()
    model(5 * rows + 1)
    _restore(model, kept)
    model.eval()
    assert torch.equal(model(rows), before)


def test_row_losses_of_classifiers_are_whose_mean_the_loss_is(model: Path) -> None:
    loaded = kind_of(model).load(model)
    loaded.model.double()
    batch = loaded.kind.encode([replace(image, label=2) for image in digits(2)], loaded)
    losses, counts = loaded.kind.row_losses(loaded.model, batch)
    assert torch.equal(counts, torch.ones(20, dtype=losses.dtype))
    assert losses.mean().item() == pytest.approx(loaded.kind.loss(loaded.model, batch).item(), rel=1e-12)


def test_files_of_texts_are_refused(model: Path, others: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    for data in ({"forget": str(rows)}, {"task": TASK, "retain": str(rows)}):
        name = "forget" if "forget" in data else "retain"
        with pytest.raises(TaskError, match=rf"`{name}` must be left out for a model of kind image-classifier"):
            defend("npo", model, tmp_path / "out", text=others, data=data)
    with pytest.raises(SpecdefError, match=r"`method` rmu must be given a model of kind causal-lm"):
        defend("rmu", model, tmp_path / "out", text=others, data={"task": TASK})
    assert not (tmp_path / "out").exists()
