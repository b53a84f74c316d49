"""Bars and users' images: what is trained on, what is asked, what chance reaches, and the score's error."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from specdef.models.samples import LabelledImage
from specdef.tasks.base import TaskError, TaskSpec, make_task
from specdef.tasks.images.labels import ImageAccuracy
from specdef.tasks.images.shapes import shapes, waves
from specdef.tasks.kinds.images import bars, image_file


class Fixed(torch.nn.Module):
    """Gives every image in turn the next of some labels."""

    def __init__(self, labels: list[int], value: float = 1.0) -> None:
        super().__init__()
        self.still = torch.nn.Parameter(torch.zeros(1))
        self.labels, self.value, self.at = labels, value, 0
        self.config = SimpleNamespace(num_channels=1)

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        chosen = self.labels[self.at : self.at + len(pixel_values)]
        self.at += len(pixel_values)
        return SimpleNamespace(logits=self.value * torch.nn.functional.one_hot(torch.tensor(chosen), 9).float())


def asked(task: Any) -> tuple[LabelledImage, ...]:
    assert isinstance(task.metric, ImageAccuracy)
    return task.metric.rows


def write(path: Path, labels: list[int], *, same: bool = False) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4), dtype=np.uint8)
    np.savez(path, images=images[:1].repeat(len(labels), 0) if same else images, labels=labels)
    return path


def test_every_direction_is_asked_as_often_and_never_an_image_that_was_trained_on() -> None:
    task = bars()
    assert np.bincount([image.label for image in asked(task)]).tolist() == [25] * 4
    assert np.bincount([image.label for image in task.samples]).tolist() == [60] * 4
    assert {image.data for image in task.samples}.isdisjoint(image.data for image in asked(task))
    assert (task.chance, task.target, task.model_kind) == (0.25, 0.8, "image-classifier")
    assert make_task(TaskSpec("images", path="shapes")) == make_task(TaskSpec("images"))


def test_a_bar_runs_as_its_label_says() -> None:
    """Summed along its own direction a bar stands out; along the others it does not."""
    for image in shapes(8):
        pixels = image.pixels[0]
        flipped = pixels[:, ::-1]
        lines = [
            pixels.mean(1).max(),
            pixels.mean(0).max(),
            max(np.diagonal(pixels, offset).mean() for offset in range(-4, 5)),
            max(np.diagonal(flipped, offset).mean() for offset in range(-4, 5)),
        ]
        assert int(np.argmax(lines)) == image.label


def test_the_seed_decides() -> None:
    assert bars(seed=1).fingerprint() == bars(seed=1).fingerprint() != bars(seed=2).fingerprint()
    assert not np.array_equal(waves(1, seed=1)[0], waves(1, seed=2)[0])


def test_the_score_is_the_share_with_its_standard_error() -> None:
    rows = tuple(shapes(5))
    wanted = [row.label for row in rows]
    score = ImageAccuracy(rows)(Fixed(wanted[:15] + [8] * 5), None)
    assert score.value == 0.75
    assert score.error == pytest.approx(math.sqrt(0.75 * 0.25 / 19))
    assert ImageAccuracy(rows)(Fixed([0] * 20), None).value == ImageAccuracy(rows).chance == 0.25
    assert ImageAccuracy(rows)(Fixed(wanted, math.nan), None).value == 0, "numbers that are not finite score nothing"


def test_a_file_is_split_so_that_every_class_is_asked_as_often(tmp_path: Path) -> None:
    task = image_file(write(tmp_path / "data.npz", [0] * 40 + [1] * 12 + [2] * 20), seed=1)
    assert np.bincount([image.label for image in asked(task)]).tolist() == [3, 3, 3]
    assert len(task.samples) == 72 - 9
    assert {image.data for image in task.samples}.isdisjoint(image.data for image in asked(task))
    assert task.chance == pytest.approx(1 / 3)
    named = make_task(TaskSpec("images", path=str(tmp_path / "data.npz"), seed=1))
    assert named.fingerprint() == task.fingerprint()


def test_the_control_keeps_the_images_and_moves_the_labels(tmp_path: Path) -> None:
    for task in (bars(), image_file(write(tmp_path / "data.npz", [0, 1, 2] * 9))):
        shuffled = task.control("shuffled").samples
        assert [image.data for image in shuffled] == [image.data for image in task.samples]
        assert sorted(image.label for image in shuffled) == sorted(image.label for image in task.samples)
        assert shuffled != task.samples


@pytest.mark.parametrize(
    ("labels", "same", "fault"),
    [
        ([0] * 8, False, "must have images of two classes or more; .* has one"),
        ([0] * 8 + [1], False, "must have two different images or more of every class, .* has one of class 1"),
        ([0] * 4 + [1] * 4, True, "must have two different images or more of every class"),
    ],
)
def test_a_file_that_teaches_nothing_is_refused(labels: list[int], same: bool, fault: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=rf"`path` {fault}"):
        image_file(write(tmp_path / "data.npz", labels, same=same))
    with pytest.raises(TaskError, match=r"`target` must lie above chance"):
        bars(target=0.25)
