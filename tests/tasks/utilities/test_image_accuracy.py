"""Accuracy on images: agreement with the undefended model, or a file's labels, and what is mixed into training."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pico
import pytest

from specdef.models.base import LoadedModel, kind_of
from specdef.models.samples import LabelledImage
from specdef.tasks.base import TaskError
from specdef.tasks.images.read import read_images
from specdef.tasks.utilities.image_accuracy import KIND, lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico.build("vit", tmp_path_factory.mktemp("accuracy") / "model")


@pytest.fixture
def loaded(folder: Path) -> LoadedModel:
    return kind_of(folder).load(folder)


def turned(loaded: LoadedModel) -> LoadedModel:
    """The model with its labels in another order."""
    for part in (loaded.model.classifier.weight, loaded.model.classifier.bias):
        part.data = part.data.roll(1, 0)
    return loaded


def noise(count: int) -> Any:
    """Images of noise [count, 8, 8], in bytes."""
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8), dtype=np.uint8)


def write(path: Path, labels: list[int], number: int = 8) -> Path:
    images = noise(len(labels))
    images[number:] = images[0]
    np.savez(path, images=images, labels=labels)
    return path


def test_without_labels_it_is_agreement_with_the_undefended_model(folder: Path, loaded: LoadedModel) -> None:
    content = KIND.read(None)
    assert KIND.prepare(content, loaded).measure(loaded.model) == 1.0
    defended = turned(kind_of(folder).load(folder))
    beside = KIND.prepare(content, defended, original=lambda: loaded)
    assert beside.measure(loaded.model) == 1.0
    assert beside.measure(defended.model) == 0.0, "a defence that changed the function is seen at step 0"


def test_what_is_measured_is_not_trained_on(loaded: LoadedModel) -> None:
    found = KIND.prepare(KIND.read(None), loaded)
    assert found.retained is not None
    measured = loaded.kind.encode(found.measured.rows, loaded)
    rows = [{row.numpy().tobytes() for row in half[0]} for half in (measured, found.retained)]
    assert list(map(len, rows)) == [120, 120]
    assert rows[0].isdisjoint(rows[1])


def test_labels_of_a_file_are_the_labels(folder: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    content = KIND.read(write(tmp_path / "data.npz", [0, 0, 1, 1, 2, 2, 3, 3]))
    found = KIND.prepare(content, loaded, original=lambda: turned(kind_of(folder).load(folder)))
    labels = {row.data: row.label for row in read_images(tmp_path / "data.npz", argument="text", every_class=False)}
    assert len(found.measured.rows) == 4
    assert all(labels[row.data] == row.label for row in found.measured.rows)
    assert found.retained is not None
    left = {**labels}
    for row in found.measured.rows:
        del left[row.data]
    assert sorted(found.retained[1].tolist()) == sorted(left.values())


@pytest.mark.parametrize("turn", [False, True], ids=["one label after the other", "the labels in turn"])
def test_a_sorted_file_is_measured_on_all_of_its_labels(turn: bool, tmp_path: Path) -> None:
    labels = [n % 10 if turn else n // 200 for n in range(2000)]
    np.savez(tmp_path / "data.npz", images=noise(2000), labels=labels)
    for half in KIND._halves(KIND.read(tmp_path / "data.npz")):
        counts = Counter(row.label for row in half)
        assert sum(counts.values()) == 512
        assert len(counts) == 10
        assert max(counts.values()) < 2 * min(counts.values())


def test_an_image_with_two_labels_is_not_trained_on_where_it_is_measured(loaded: LoadedModel, tmp_path: Path) -> None:
    same, one, other = (LabelledImage.of(image[None], 0) for image in noise(3))
    content = lines([same, replace(same, label=1), replace(one, label=1), replace(other, label=2)])
    found = KIND.prepare(content, loaded)
    assert [row.label for row in found.measured.rows] == [0, 1]
    assert found.retained is not None
    assert found.retained[1].tolist() == [2]


def test_data_that_shows_nothing_is_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"`text` must be images of two labels or more, .* all of them have label 0"):
        KIND.prepare(KIND.read(write(tmp_path / "data.npz", [0] * 8)), loaded)
    content = KIND.read(write(tmp_path / "data.npz", [0] * 8, number=1))
    with pytest.raises(TaskError, match=r"`text` must have at least two different images; it has 1"):
        KIND.check(content, None)
    (tmp_path / "bad.npz").write_bytes(b"PK")
    with pytest.raises(TaskError, match=r"`text` must be a readable npz file"):
        KIND.read(tmp_path / "bad.npz")


def test_a_model_whose_numbers_are_not_finite_has_no_utility(loaded: LoadedModel) -> None:
    found = KIND.prepare(KIND.read(None), loaded)
    loaded.model.classifier.weight.data[:] = math.nan
    assert math.isnan(found.measure(loaded.model))
    with pytest.raises(TaskError, match=r"`model` must give finite numbers for general images"):
        KIND.prepare(KIND.read(None), loaded)


def test_the_content_is_text_and_always_the_same() -> None:
    assert KIND.read(None) == KIND.read(None)
    assert json.loads(KIND.read(None).splitlines()[0])["shape"] == [1, 8, 8]


def test_general_images_need_no_image_of_every_class(tmp_path: Path) -> None:
    """They may be those of the classes that a defence keeps."""
    content = KIND.read(write(tmp_path / "some.npz", [0, 2, 6, 2] * 2))
    assert {KIND.parse(line).label for line in content.splitlines()} == {0, 2, 6}
