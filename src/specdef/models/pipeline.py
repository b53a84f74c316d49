"""Pipelines of diffusers as models: the one file that imports diffusers.

What is trained, attacked and locked of a pipeline are its U-Net and its text encoder. The VAE, where there is one, only
translates between images and latents; without one, the latents are the pixels, from -1 to 1.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specdef.checkpoint.layout import DECLARED, PIPELINE_CONFIG, load_config
from specdef.core.text import shown
from specdef.errors import CheckpointError
from specdef.models.loading import quiet, reason

MIN_TOKENS = 3
"""Of a prompt, padding included. With one token attention has nothing to choose from: queries and keys of
cross-attention get no gradient, and any lock on them would look perfect."""


class Pipeline(nn.Module):
    """U-Net and text encoder; tensors are named as in the folder, ``unet.`` and ``text_encoder.``.

    Attributes:
        unet: predicts noise, or velocity, as the scheduler says.
        text_encoder: makes the context of a prompt.
        scheduler: how much noise each time has.
        vae: translates images; None where latents are pixels. Not a part of what is trained.
        index: content of ``model_index.json``.
    """

    def __init__(self, unet: Any, text_encoder: Any, scheduler: Any, vae: Any, index: dict[str, Any]) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder
        self.scheduler, self.index = scheduler, index
        self._beside = {"vae": vae}

    @property
    def vae(self) -> Any:
        """See the class."""
        return self._beside["vae"]

    def forward(self, latents: Tensor, times: Tensor, input_ids: Tensor) -> tuple[Tensor]:
        """The U-Net's prediction [rows, channels, height, width].

        Args:
            latents: noisy, [rows, channels, height, width].
            times: whole numbers [rows], 0 for almost no noise.
            input_ids: the prompts' tokens [rows, tokens].
        """
        context = self.text_encoder(input_ids)[0]
        return (self.unet(latents, times, context, return_dict=False)[0],)

    def get_input_embeddings(self) -> nn.Module:
        """The text encoder's, by whose presence the house knows a model inside wrappers."""
        found: nn.Module = self.text_encoder.get_input_embeddings()
        return found

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a latent."""
        size = self.unet.config.sample_size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return int(self.unet.config.in_channels), int(height), int(width)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.latent_shape
        if self.vae is None:
            return channels, height, width
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return int(self.vae.config.in_channels), factor * height, factor * width

    def sampler(self, steps: int) -> Any:
        """DDIM over this many steps: the same noise makes the same image."""
        from diffusers import DDIMScheduler

        found = DDIMScheduler.from_config(self.scheduler.config)
        found.set_timesteps(steps)
        return found

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the components that `load_pipeline` reads, but for the tokenizer."""
        folder = Path(folder)
        parts = {"unet": self.unet, "text_encoder": self.text_encoder, "scheduler": self.scheduler, "vae": self.vae}
        with quiet_diffusers():
            for name, part in parts.items():
                if part is not None:
                    part.save_pretrained(folder / name)
        known = {*parts, "tokenizer"}
        gone = [name for name, value in self.index.items() if isinstance(value, list) and name not in known]
        index = {**self.index, **{name: [None, None] for name in gone}}
        (folder / PIPELINE_CONFIG).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def load_pipeline(folder: Path, *, dtype: torch.dtype | None = None) -> Pipeline:
    """A pipeline folder's U-Net, text encoder, scheduler and VAE, in evaluation mode, from local files only.

    Args:
        folder: a pipeline of diffusers with a `UNet2DConditionModel` and a CLIP text encoder.
        dtype: of the loaded weights; the stored one when None.

    Raises:
        CheckpointError: diffusers is missing, or a component is missing, of another class, or cannot be loaded.
    """
    components = load_config(folder)["components"]
    _check_components(folder, components)
    import diffusers
    from transformers import CLIPTextModel

    index = json.loads((folder / PIPELINE_CONFIG).read_text(encoding="utf-8"))
    chosen = {} if dtype is None else {"torch_dtype": dtype}
    local = {"local_files_only": True}
    try:
        with quiet_diffusers():
            scheduler = getattr(diffusers, index["scheduler"][1]).from_pretrained(folder / "scheduler", **local)
            unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet", **chosen, **local)
            text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype or "auto", **local)
            vae = None
            if "vae" in components:
                vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae", **chosen, **local).eval()
    except Exception as error:  # whatever a stranger's config makes diffusers raise
        raise _unloadable(folder, error) from error
    return Pipeline(unet.eval(), text.eval(), scheduler, vae, index).eval()


def empty_pipeline(folder: Path) -> Pipeline:
    """The same without weights, on torch's meta device; `folder` may hold configurations alone.

    Raises:
        CheckpointError: as `load_pipeline`.
    """
    components = load_config(folder)["components"]
    _check_components(folder, components)
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    index = json.loads((folder / PIPELINE_CONFIG).read_text(encoding="utf-8"))
    try:
        with quiet_diffusers(), torch.device("meta"):
            unet = diffusers.UNet2DConditionModel.from_config(components["unet"])
            text = CLIPTextModel(CLIPTextConfig.from_dict(components["text_encoder"]))
    except Exception as error:  # whatever a stranger's config makes diffusers raise
        raise _unloadable(folder, error) from error
    return Pipeline(unet, text, None, None, index).eval()


def declare_layers(model: Any, entry: dict[str, Any]) -> None:
    """Let a model of diffusers write, with `save_pretrained`, that some of its layers are not the library's own.

    Args:
        model: a component of a pipeline.
        entry: the ``quantization_config`` of its config.json.
    """
    from diffusers.quantizers.auto import DiffusersAutoQuantizer

    model.hf_quantizer = DiffusersAutoQuantizer.from_config(entry, pre_quantized=True)
    model.register_to_config(quantization_config=model.hf_quantizer.quantization_config)


def declare_nothing(model: Any) -> None:
    """Take back `declare_layers`."""
    from diffusers.configuration_utils import FrozenDict

    model._internal_dict = FrozenDict({key: value for key, value in model.config.items() if key != DECLARED})
    vars(model).pop("hf_quantizer", None)


def _unloadable(folder: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"Pipeline {folder} cannot be loaded by diffusers ({reason(error)}). Repair its components.")


def _check_components(folder: Path, components: dict[str, dict[str, Any]]) -> None:
    if importlib.util.find_spec("diffusers") is None:
        raise CheckpointError("A pipeline needs diffusers. Run `pip install specdef[diffusion]`.")
    for name in ("unet", "text_encoder", "scheduler", "tokenizer"):
        if name not in components:
            raise CheckpointError(
                f"`model` must be a pipeline with unet, text_encoder, scheduler and tokenizer; {PIPELINE_CONFIG} of "
                f"{shown(folder)} names no {name}. Give a text-to-image pipeline."
            )
    wanted = (("unet", "_class_name", "UNet2DConditionModel"), ("text_encoder", "model_type", "clip_text_model"))
    for name, key, value in wanted:
        if (found := components[name].get(key)) != value:
            raise CheckpointError(
                f"`{key}` of component {name} must be {value}; {shown(folder / name)} says {found!r}. "
                "Give a pipeline of Stable Diffusion's form."
            )
    tokens = components["text_encoder"].get("max_position_embeddings", 77)
    if not isinstance(tokens, int) or tokens < MIN_TOKENS:
        raise CheckpointError(
            f"`max_position_embeddings` of component text_encoder must be {MIN_TOKENS} or more; "
            f"{shown(folder / 'text_encoder')} says {tokens!r}: attention to fewer tokens trains no query."
        )


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Hold back the logs and progress bars of diffusers and transformers, and put the caller's settings back."""
    from diffusers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with quiet():
            yield
    finally:
        logging.set_verbosity(verbosity)
