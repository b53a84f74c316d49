"""Text-to-image pipelines of diffusers: draw what a prompt says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.checkpoint.layout import PIPELINE_TYPE
from specdef.errors import CheckpointError
from specdef.models.base import Batch, LoadedModel, ModelKind

if TYPE_CHECKING:
    import torch
    from torch import nn

FEW = 4
"""Probes of a pipeline, whose outputs are whole images."""


class Diffusion(ModelKind):
    """Samples are `specdef.models.samples.PromptedImage`.

    Rows, and a batch, are latents [rows, channels, height, width], tokens [rows, tokens], noise like the latents and
    times [rows], as a share of all times. Encoded rows have noise and times of their own, which depend on a row's
    number alone, for measuring; a batch is given new ones, drawn from torch's generator. The processor is the
    tokenizer.
    """

    name = "diffusion"
    head_names = ("conv_out",)
    has_likelihood = False
    default_task = "concept"
    default_utility = "denoising-loss"

    def matches(self, config: Mapping[str, Any]) -> bool:
        """A pipeline of diffusers that has a U-Net; what else it needs is said when it is loaded."""
        components = config.get("components")
        return config.get("model_type") == PIPELINE_TYPE and isinstance(components, Mapping) and "unet" in components

    def load_processor(self, folder: Path) -> Any:
        """The tokenizer."""
        from specdef.models.loading import load_tokenizer

        return load_tokenizer(folder / "tokenizer")

    def module(self, folder: Path, *, dtype: torch.dtype | None = None) -> nn.Module:
        """The pipeline without its tokenizer."""
        from specdef.models.pipeline import load_pipeline

        return load_pipeline(folder, dtype=dtype)

    def load(self, folder: Path, *, dtype: torch.dtype | None = None) -> LoadedModel:
        """The pipeline and its tokenizer.

        Raises:
            CheckpointError: a component is missing or cannot be loaded.
        """
        model = self.module(folder, dtype=dtype)
        return LoadedModel(model, self.load_processor(folder), self)

    def save(self, loaded: LoadedModel, folder: Path) -> None:
        """The pipeline with its tokenizer."""
        loaded.model.save_pretrained(folder)
        loaded.processor.save_pretrained(folder / "tokenizer")

    def encode(self, samples: Sequence[Any], loaded: LoadedModel) -> Batch:
        """Latents, tokens, noise and times.

        Raises:
            TaskError: an image of another size than the model draws, or a prompt with a word that it does not know.
        """
        import torch

        from specdef.models.prompted import encode_prompts, latents_of

        latents = latents_of(samples, loaded.model)
        tokens = encode_prompts([sample.prompt for sample in samples], loaded.processor, loaded.model)
        draw = torch.Generator().manual_seed(0)
        noise = torch.randn(latents.shape, generator=draw)
        return latents, tokens, noise, torch.rand(len(latents), generator=draw)

    def batch(self, rows: Batch, chosen: Sequence[int]) -> Batch:
        """The rows with noise and times drawn anew."""
        import torch

        latents, tokens, noise, times = (tensor[list(chosen)] for tensor in rows)
        return latents, tokens, torch.randn_like(noise), torch.rand_like(times)

    def predicted(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """What the U-Net says of a batch, and what it should: both [rows, channels, height, width].

        Raises:
            CheckpointError: the scheduler asks for another prediction than noise or velocity.
        """
        from specdef.models.tokens import bare

        pipeline = bare(model)
        like = next(model.parameters())
        latents, tokens, noise, shares = (tensor.to(like.device) for tensor in batch)
        latents, noise = latents.to(like.dtype), noise.to(like.dtype)
        scheduler = pipeline.scheduler
        times = (shares * scheduler.config.num_train_timesteps).long()
        noisy = scheduler.add_noise(latents, noise, times)
        kind = scheduler.config.prediction_type
        if kind == "epsilon":
            wanted = noise
        elif kind == "v_prediction":
            wanted = scheduler.get_velocity(latents, noise, times)
        else:
            raise CheckpointError(
                f"`prediction_type` of component scheduler must be epsilon or v_prediction; it is {kind}."
            )
        return model(latents=noisy, times=times, input_ids=tokens)[0], wanted

    def row_losses(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean squared error of every row's prediction; a row is one target."""
        import torch

        found, wanted = self.predicted(model, batch)
        wide = found if found.dtype == torch.float64 else found.float()
        losses = (wide - wanted.to(wide.dtype)).square().flatten(1).mean(1)
        return losses, torch.ones_like(losses)

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Mean squared error of the predicted noise, or velocity."""
        losses, _ = self.row_losses(model, batch)
        return losses.mean()

    def num_targets(self, batch: Batch) -> int:
        """Rows."""
        return len(batch[0])

    def probes(
        self, config: Mapping[str, Any], num: int = 16, seed: int = 0, *, length: int = 48
    ) -> dict[str, torch.Tensor]:
        """Noise, times and random tokens: at most `FEW`.

        Raises:
            CheckpointError: the components' configurations give no usable sizes.
        """
        import torch

        draw = torch.Generator().manual_seed(seed)
        num = min(num, FEW)
        try:
            unet, text, scheduler = (config["components"][name] for name in ("unet", "text_encoder", "scheduler"))
            size = unet["sample_size"]
            height, width = size if isinstance(size, list) else (size, size)
            tokens = (num, min(length, text["max_position_embeddings"]))
            return {
                "latents": torch.randn((num, unet["in_channels"], height, width), generator=draw),
                "times": torch.randint(scheduler["num_train_timesteps"], (num,), generator=draw),
                "input_ids": torch.randint(text["vocab_size"], tokens, generator=draw),
            }
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"The components of a pipeline must give usable sizes; they do not ({error!r}). Repair their configs."
            ) from error

    def divergence(self, reference: torch.Tensor, other: torch.Tensor) -> float:
        """Half the mean squared difference: the KL divergence, nats a number, of normal distributions around both."""
        return float((reference.double() - other.double()).square().mean()) / 2


KIND = Diffusion()
