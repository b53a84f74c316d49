"""Prompts and images as a pipeline reads them, and what it draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specdef.errors import TaskError
from specdef.models.samples import PromptedImage
from specdef.models.tokens import bare

DRAWN_AT_ONCE = 50


def latents_of(samples: Sequence[PromptedImage], model: Any) -> Tensor:
    """Images as latents [rows, channels, height, width], float32, on the CPU.

    Pixels become numbers from -1 to 1, grey becomes as many channels as the model reads.

    Raises:
        TaskError: an image of another size or number of channels than the model draws.
    """
    pipeline = bare(model)
    channels, height, width = pipeline.image_shape
    found = []
    for at, sample in enumerate(samples):
        if sample.shape[1:] != (height, width) or sample.shape[0] not in (1, channels):
            raise TaskError(
                f"`task` must have images of {channels} x {height} x {width}, which the model draws; image {at} has "
                f"{' x '.join(map(str, sample.shape))} (channels, height, width). Bring them to that form."
            )
        found.append(np.repeat(sample.pixels, channels, axis=0) if sample.shape[0] < channels else sample.pixels)
    pixels = torch.from_numpy(np.stack(found)) * 2 - 1
    vae = pipeline.vae
    if vae is None:
        return pixels
    with torch.no_grad():
        parts = [vae.encode(rows.to(vae.dtype)).latent_dist.mode() for rows in pixels.split(DRAWN_AT_ONCE)]
    scaled: Tensor = torch.cat(parts).float() * vae.config.scaling_factor
    return scaled


def encode_prompts(prompts: Sequence[str], tokenizer: Any, model: Any) -> Tensor:
    """Tokens [prompts, tokens], filled up and cut to the text encoder's length.

    Raises:
        TaskError: a prompt has a word that the tokenizer does not know.
    """
    length = bare(model).text_encoder.config.max_position_embeddings
    ids: Tensor = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    unknown = tokenizer.unk_token_id
    if unknown not in (None, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id):
        for prompt, row in zip(prompts, ids.tolist(), strict=True):
            if unknown in row:
                raise TaskError(
                    f"`task` must have prompts of words that the model's tokenizer knows; it does not know all of "
                    f"{prompt!r}. Give other prompts."
                )
    return ids


def drawn(model: Any, tokens: Tensor, empty: Tensor, noise: Tensor, *, steps: int, guidance: float) -> Tensor:
    """Images [rows, channels, height, width] from 0 to 1, on the CPU: DDIM with classifier-free guidance.

    Args:
        model: a pipeline in evaluation mode; it may be wrapped by accelerate or peft.
        tokens: of the prompts, [rows, tokens].
        empty: of the empty prompt, [1, tokens].
        noise: latents to start from, [rows, channels, height, width].
        steps: of denoising.
        guidance: how far to go from what the empty prompt says towards what the prompt says, and beyond; 1 is the
            prompt alone.
    """
    pipeline = bare(model)
    parts = []
    with torch.no_grad():
        for rows, start in zip(tokens.split(DRAWN_AT_ONCE), noise.split(DRAWN_AT_ONCE), strict=True):
            latents = denoised(model, rows, empty, start, steps=steps, guidance=guidance)
            parts.append(_images(pipeline, latents).float().cpu())
    return torch.cat(parts)


def denoised(
    model: Any,
    tokens: Tensor,
    empty: Tensor,
    noise: Tensor,
    *,
    steps: int,
    guidance: float,
    done: int | None = None,
) -> Tensor:
    """Latents after `done` of the steps of denoising, all when None; the other arguments are those of `drawn`.

    Returns:
        [rows, channels, height, width], in the model's dtype and on its device.
    """
    like = next(model.parameters())
    scheduler = bare(model).sampler(steps)
    both = torch.cat([empty.expand(len(tokens), -1), tokens]).to(like.device)
    latents = noise.to(like.device, like.dtype)
    for time in scheduler.timesteps[:done]:
        times = torch.full((len(both),), int(time), device=like.device)
        without, with_ = model(latents=torch.cat([latents, latents]), times=times, input_ids=both)[0].chunk(2)
        latents = scheduler.step(without + guidance * (with_ - without), time, latents).prev_sample
    return latents


def _images(pipeline: Any, latents: Tensor) -> Tensor:
    vae = pipeline.vae
    if vae is not None:
        latents = vae.decode(latents.to(vae.device, vae.dtype) / vae.config.scaling_factor)[0]
    return ((latents + 1) / 2).clamp(0, 1)
