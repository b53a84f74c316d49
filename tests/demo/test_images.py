"""The demonstration on images, short: what it writes, what it says, and that its data is what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from specdef.demo import images
from specdef.demo.images import ASKED, GENERAL, TRAINED, ResNetDigits, VitDigits, drawn
from specdef.demo.run import run_demo
from specdef.models.base import kind_of
from specdef.report.demo_page import PAGE
from specdef.tasks.images.digits import digits


def test_digits_are_as_many_of_each_and_the_seed_decides() -> None:
    found = digits(30, seed=3)
    assert np.bincount([image.label for image in found]).tolist() == [30] * 10
    assert found == digits(30, seed=3)
    assert {image.data for image in found}.isdisjoint(image.data for image in digits(30, seed=4))
    means = np.stack([np.mean([image.pixels for image in found if image.label == label], 0) for label in range(10)])
    right = 0
    for image in digits(10, seed=5):
        right += int(np.argmin(((means - image.pixels) ** 2).sum((1, 2, 3)))) == image.label
    assert right > 50, "even the nearest mean reads half of them: what is drawn is a figure"


def test_no_image_is_learned_and_asked(tmp_path: Path) -> None:
    parts = [{image.data for image in drawn(part)} for part in (TRAINED, ASKED, GENERAL)]
    assert len(set.union(*parts)) == sum(map(len, parts))


def test_every_digit_is_measured_and_mixed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The halves of general data are every other row: digits in order would be measured even and mixed in odd."""
    monkeypatch.setattr(VitDigits, "training", replace(VitDigits.training, steps=2, eval_every=2))
    story = VitDigits()
    folder = story.fetch(tmp_path, Console(record=True))
    general = story.general(kind_of(folder).load(folder))
    assert {row.label for row in general.measured.rows} == set(range(10))
    assert general.retained is not None
    assert set(general.retained[1].tolist()) == set(range(10))


def test_a_short_demonstration_from_beginning_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "OF_EACH", {TRAINED: 8, ASKED: 2, GENERAL: 4})
    for story in (VitDigits, ResNetDigits):
        monkeypatch.setattr(story, "training", replace(story.training, steps=4, eval_every=4))
    console = Console(record=True, width=200)
    assert run_demo(tmp_path / "out", console, (VitDigits(), ResNetDigits()), steps=3)
    said = console.export_text()
    assert said.count("ok   function: ") == 2
    assert said.count("every file of the original, byte for byte") == 2
    assert "locked, lr 1e-7: step 3: score 0." in said
    page = (tmp_path / "out" / PAGE).read_text()
    assert "<h2>A tiny ResNet: the key restores the original</h2>" in page
    assert page.count("<img") == 5, "the images, and two curves of each model"
    for name in ("vit", "resnet"):
        assert (tmp_path / "out" / name / "locked" / "model.safetensors").is_file()
        assert (tmp_path / "out" / name / "locked.specdef-key").is_file()
