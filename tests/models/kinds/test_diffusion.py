"""Pipelines as a kind of model: loss, rows, prompts, what is drawn, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pico_diffusion
import pytest
import torch

from specdef.errors import CheckpointError, TaskError
from specdef.models.base import LoadedModel, kind_of
from specdef.models.prompted import drawn, encode_prompts
from specdef.models.samples import PromptedImage

PROMPTS = ("a picture of a bar", "a picture of a dot")
SAMPLES = [
    PromptedImage.of(np.random.default_rng(at).integers(0, 256, (1, 8, 8), dtype=np.uint8), PROMPTS[at % 2])
    for at in range(3)
]


@pytest.fixture(scope="module")
def folder(pipeline: Path) -> Path:
    return pipeline


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return kind_of(folder).load(folder)


def test_the_loss_is_the_error_of_the_predicted_velocity(loaded: LoadedModel) -> None:
    latents, tokens, noise, shares = batch = loaded.kind.encode(SAMPLES, loaded)
    assert torch.equal(latents[0], torch.from_numpy(SAMPLES[0].pixels) * 2 - 1)
    assert tokens.tolist()[0] == [0, 3, 4, 5, 3, 6, 1, 1]
    times = (shares * 1000).long()
    alphas = loaded.model.scheduler.alphas_cumprod[times].view(-1, 1, 1, 1)
    noisy = alphas.sqrt() * latents + (1 - alphas).sqrt() * noise
    velocity = alphas.sqrt() * noise - (1 - alphas).sqrt() * latents
    said = loaded.model.unet(noisy, times, loaded.model.text_encoder(tokens)[0]).sample
    wanted = (said - velocity).square().mean()
    assert torch.allclose(loaded.kind.loss(loaded.model, batch), wanted, rtol=1e-5)
    rows, counts = loaded.kind.row_losses(loaded.model, batch)
    assert torch.allclose(rows.mean(), wanted, rtol=1e-5)
    assert counts.tolist() == [1, 1, 1]
    assert loaded.kind.num_targets(batch) == 3


def test_the_scheduler_says_what_is_predicted(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    file = copy / "scheduler" / "scheduler_config.json"

    def with_kind(kind: str) -> LoadedModel:
        file.write_text(json.dumps({**json.loads(file.read_text()), "prediction_type": kind}))
        return kind_of(copy).load(copy)

    loaded = with_kind("epsilon")
    batch = loaded.kind.encode(SAMPLES, loaded)
    assert torch.equal(loaded.kind.predicted(loaded.model, batch)[1], batch[2])  # type: ignore[attr-defined]
    other = with_kind("sample")
    with pytest.raises(CheckpointError, match=r"`prediction_type` .* must be epsilon or v_prediction; it is sample"):
        other.kind.loss(other.model, batch)


def test_rows_keep_their_noise_and_batches_are_given_new(loaded: LoadedModel) -> None:
    rows, again = (loaded.kind.encode(SAMPLES, loaded) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(rows, again, strict=True))
    torch.manual_seed(0)
    first, second = (loaded.kind.batch(rows, [2, 0]) for _ in range(2))
    torch.manual_seed(0)
    same = loaded.kind.batch(rows, [2, 0])
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert torch.equal(first[0], rows[0][[2, 0]])
    assert torch.equal(first[1], rows[1][[2, 0]])
    assert not torch.equal(first[2], second[2])
    assert not torch.equal(first[3], second[3])


def test_queries_and_keys_of_cross_attention_are_trained(loaded: LoadedModel) -> None:
    """With a context of one token they would not be, and a lock on them would look perfect."""
    batch = loaded.kind.encode(SAMPLES, loaded)

    def gradient(tokens: torch.Tensor) -> float:
        loaded.model.zero_grad()
        loaded.kind.loss(loaded.model, (batch[0], tokens, *batch[2:])).backward()
        attention = loaded.model.unet.mid_block.attentions[0].transformer_blocks[0].attn2
        return sum(float(part.weight.grad.abs().sum()) for part in (attention.to_q, attention.to_k))

    assert batch[1].shape[1] >= 3
    many, one = gradient(batch[1]), gradient(batch[1][:, :1])
    assert many > 1e-3
    assert one < 1e-6 * many


def test_the_same_noise_makes_the_same_image(loaded: LoadedModel) -> None:
    ids = encode_prompts([*PROMPTS, ""], loaded.processor, loaded.model)
    noise = pico_diffusion.noise(2)
    given: Any = {"steps": 3, "guidance": 2.0}
    found = drawn(loaded.model, ids[:2], ids[2:], noise, **given)
    assert found.shape == (2, 1, 8, 8)
    assert 0 <= found.min() < found.max() <= 1
    assert torch.equal(found, drawn(loaded.model, ids[:2], ids[2:], noise, **given))
    other = drawn(loaded.model, ids[:2].flip(0), ids[2:], noise, **given)
    assert not torch.equal(found, other), "the prompt decides"
    plain = drawn(loaded.model, ids[:2], ids[2:], noise, steps=3, guidance=1.0)
    assert not torch.equal(found, plain), "guidance decides"
    empty = ids[2:].expand(2, -1)
    assert torch.allclose(
        drawn(loaded.model, empty, ids[2:], noise, **given),
        drawn(loaded.model, empty, ids[2:], noise, steps=3, guidance=1),
    )


def test_a_pipeline_is_written_and_read_back(loaded: LoadedModel, tmp_path: Path) -> None:
    loaded.kind.save(loaded, tmp_path / "model")
    again = kind_of(tmp_path / "model").load(tmp_path / "model")
    batch = loaded.kind.encode(SAMPLES, loaded)
    assert all(torch.equal(a, b) for a, b in zip(batch, again.kind.encode(SAMPLES, again), strict=True))
    assert torch.equal(loaded.kind.loss(loaded.model, batch), again.kind.loss(again.model, batch))


@pytest.mark.parametrize("shape", [(1, 8, 9), (3, 8, 8)])
def test_an_image_of_another_form_is_refused(shape: tuple[int, int, int], loaded: LoadedModel) -> None:
    odd = PromptedImage.of(np.zeros(shape, np.uint8), PROMPTS[0])
    with pytest.raises(TaskError, match=r"`task` must have images of 1 x 8 x 8, which the model draws; image 3 has "):
        loaded.kind.encode([*SAMPLES, odd], loaded)


def test_a_word_that_the_tokenizer_lacks_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(TaskError, match=r"words that the model's tokenizer knows; .* all of 'a picture of a boat'"):
        encode_prompts(["a picture of a boat"], loaded.processor, loaded.model)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (
            "text_encoder/config.json",
            {"max_position_embeddings": 2},
            "must be 3 or more; .* says 2: .* trains no query",
        ),
        (
            "text_encoder/config.json",
            {"model_type": "t5"},
            "of component text_encoder must be clip_text_model; .* 't5'",
        ),
        ("unet/config.json", {"_class_name": "UNet3D"}, "of component unet must be UNet2DConditionModel; .* 'UNet3D'"),
        ("unet/config.json", {"block_out_channels": 3}, "cannot be loaded by diffusers"),
    ],
)
def test_another_component_is_refused(
    file: str, change: dict[str, Any], said: str, folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    (copy / file).write_text(json.dumps({**json.loads((copy / file).read_text()), **change}))
    with pytest.raises(CheckpointError, match=said):
        kind_of(copy).load(copy)
