"""Probing: run a model on inputs drawn from a seed, and compare what two models say to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.errors import CheckpointError
from specdef.models.loading import load

if TYPE_CHECKING:
    import torch
    from torch import nn


PIXELS = 64
"""Height and width of images for models that take any size, as ResNets do: they shrink them 32-fold, to 2 x 2."""


class Probing:
    """How the functions of two models are compared. It works for any model of tokens or pixels; a kind may override it.

    Nothing here needs a tokenizer: `verify` must work on a folder that holds a config and weights alone.
    """

    def probes(
        self, config: Mapping[str, Any], num: int = 16, seed: int = 0, *, length: int = 48
    ) -> dict[str, torch.Tensor]:
        """Inputs that exercise a model: seeded random tokens, or random pixels for a vision model.

        Args:
            config: the parsed ``config.json``.
            num: how many sequences or images.
            seed: of the draws.
            length: tokens per sequence, shortened to what the model allows.

        Returns:
            ``input_ids`` [num, length], with ``decoder_input_ids`` [num, length] for an encoder-decoder, or
            ``pixel_values`` [num, channels, height, width].

        Raises:
            CheckpointError: the config gives no usable sizes.
        """
        import torch

        generator = torch.Generator().manual_seed(seed)
        inner = config.get("text_config", config)
        try:
            if "vocab_size" not in inner and ("image_size" in inner or "num_channels" in inner):
                size = inner.get("image_size", PIXELS)
                height, width = size if isinstance(size, list) else (size, size)
                pixels = (num, inner.get("num_channels", 3), height, width)
                return {"pixel_values": torch.randn(pixels, generator=generator)}
            longest = inner.get("max_position_embeddings") or length + 2
            tokens = (num, max(1, min(length, longest - 2)))
            vocabulary = _vocabulary(inner)
            found = {"input_ids": torch.randint(vocabulary, tokens, generator=generator)}
            if inner.get("is_encoder_decoder"):
                found["decoder_input_ids"] = torch.randint(vocabulary, tokens, generator=generator)
            return found
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"config.json must give usable sizes (vocab_size or image_size); it does not ({error!r}). Repair it."
            ) from error

    def module(self, folder: Path, *, dtype: torch.dtype | None = None) -> nn.Module:
        """The model of a folder in evaluation mode, without what reads raw samples; the stored dtype when None.

        Raises:
            CheckpointError: it cannot be loaded.
        """
        return load(folder, dtype=dtype)

    def outputs(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What the model says to the probes: logits, or hidden states where it has no head; [..., classes]."""
        found: torch.Tensor = model(**inputs)[0]
        return found

    def divergence(self, reference: torch.Tensor, other: torch.Tensor) -> float:
        """Mean KL divergence of the other outputs from the reference's, nats per output."""
        return kl_divergence(reference, other)


def _vocabulary(config: Mapping[str, Any]) -> int:
    """How many tokens a model knows; published configurations leave out what is the default of their class.

    Raises:
        KeyError, ValueError, AttributeError: neither the configuration nor its class says.
    """
    if "vocab_size" not in config and "model_type" in config:
        from transformers import AutoConfig

        config = {"vocab_size": AutoConfig.for_model(config["model_type"]).vocab_size}
    tokens: int = config["vocab_size"]
    return tokens


def kl_divergence(reference: torch.Tensor, other: torch.Tensor) -> float:
    """Mean over positions of KL(softmax(reference) || softmax(other)), nats, in float64.

    Args:
        reference: logits [..., classes].
        other: logits of the same shape.
    """
    import torch

    total, count = 0.0, 0
    for ours, theirs in zip(reference.flatten(0, -2).split(256), other.flatten(0, -2).split(256), strict=True):
        log_p = torch.log_softmax(ours.double(), dim=-1)
        log_q = torch.log_softmax(theirs.double(), dim=-1)
        total += float((log_p.exp() * (log_p - log_q)).sum())
        count += len(ours)
    return total / max(count, 1)
