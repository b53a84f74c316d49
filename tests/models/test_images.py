"""Images as tensors: size, grey, normalisation, the folder's own processor, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pico
import pytest
import torch
import transformers

from specdef.errors import CheckpointError, TaskError
from specdef.models.base import LoadedModel, kind_of
from specdef.models.images import encode_images, image_logits, load_image_processor
from specdef.models.samples import LabelledImage

RAMP = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = pico.build("vit", tmp_path_factory.mktemp("images") / "vit")
    return kind_of(folder).load(folder)


def test_bytes_and_floats_are_the_same_image_and_plain_json() -> None:
    whole = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    image = LabelledImage.of(whole, 3)
    assert np.array_equal(image.pixels, whole.astype(np.float32) / np.float32(255))
    assert LabelledImage(**json.loads(json.dumps(vars(image)))).data == image.data
    assert np.array_equal(LabelledImage.of(RAMP, 0).pixels, RAMP), "floats keep every bit"


def test_grey_small_images_are_repeated_enlarged_and_normalised(vit: LoadedModel) -> None:
    """8 x 8 grey for a model of 16 x 16 in three channels: every pixel a block of 2 x 2, from -1 to 1."""
    found = encode_images([LabelledImage.of(RAMP, 0)], vit.model, None)
    assert found.shape == (1, 3, 16, 16)
    wanted = torch.from_numpy((RAMP[0] - 0.5) / 0.5)
    for channel in found[0]:
        assert torch.equal(channel[::2, ::2], wanted)
        assert torch.equal(channel[1::2, 1::2], wanted)


def test_what_does_not_fit_by_a_whole_factor_is_set_in_black(vit: LoadedModel) -> None:
    found = encode_images([LabelledImage.of(np.ones((3, 5, 7), np.float32), 0)], vit.model, None)
    assert found.shape == (1, 3, 16, 16)
    assert found[0, 0, 3:13, 1:15].min() == 1
    assert (found == 1).sum() == 3 * 10 * 14
    assert (found == -1).sum() == 3 * (256 - 140)


def test_a_model_of_any_size_is_given_64_at_least(tmp_path: Path) -> None:
    folder = pico.build("resnet", tmp_path / "model")
    model = kind_of(folder).load(folder).model
    assert encode_images([LabelledImage.of(RAMP, 0)], model, None).shape == (1, 3, 64, 64)
    assert encode_images([LabelledImage.of(np.ones((1, 70, 80), np.float32), 0)], model, None).shape == (1, 3, 70, 80)


@pytest.mark.parametrize(
    ("shapes", "fault"),
    [
        ([(3, 17, 16)], "`task` must have images of at most 16 x 16 pixels .*; got 3 channels of 17 x 16"),
        ([(2, 8, 8)], "`task` must have images of 1 channel or 3, which the model reads; got 2 channels of 8 x 8"),
        (
            [(1, 8, 8), (1, 8, 9)],
            "`task` must have images of one size; it has 1 channel of 8 x 8 and 1 channel of 8 x 9",
        ),
    ],
)
def test_images_the_model_cannot_read_are_refused(shapes: list[tuple[int, ...]], fault: str, vit: LoadedModel) -> None:
    images = [LabelledImage.of(np.zeros(shape, np.float32), 0) for shape in shapes]
    with pytest.raises(TaskError, match=fault):
        encode_images(images, vit.model, None)


def test_the_folders_processor_decides(tmp_path: Path, vit: LoadedModel) -> None:
    pytest.importorskip("PIL")
    settings = {"size": {"height": 16, "width": 16}, "image_mean": [0.25] * 3, "image_std": [0.5] * 3}
    transformers.ViTImageProcessor(**settings).save_pretrained(tmp_path)
    processor = load_image_processor(tmp_path)
    image = LabelledImage.of(np.full((1, 8, 8), 255, np.uint8), 0)
    found = encode_images([image], vit.model, processor)
    assert found.shape == (1, 3, 16, 16)
    assert torch.allclose(found, torch.full_like(found, 1.5))
    assert image_logits(vit.model, processor, [image, image]).shape == (2, 7)


def test_a_processor_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    assert load_image_processor(tmp_path) is None
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "NoSuchProcessor"}')
    with pytest.raises(CheckpointError, match=r"must have an image processor that transformers loads, or none; .*"):
        load_image_processor(tmp_path)
