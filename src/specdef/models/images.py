"""Images as tensors, and what a classifier says of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specdef.errors import CheckpointError, TaskError
from specdef.models.loading import is_fault, quiet, reason
from specdef.models.probing import PIXELS
from specdef.models.samples import LabelledImage, Pixels
from specdef.models.tokens import bare

if TYPE_CHECKING:
    import torch

PROCESSOR_FILE = "preprocessor_config.json"
PROCESSOR_FILES = (PROCESSOR_FILE, "processor_config.json")
"""The second is what transformers 5 writes for a processor of images and text."""
MEAN, SPREAD = 0.5, 0.5
"""Without an image processor: pixels from 0 to 1 become (pixel - MEAN) / SPREAD, from -1 to 1, as ViT's own does."""


def load_image_processor(folder: Path) -> Any:
    """The image processor of a model folder, from local files only; None where the folder has none.

    Raises:
        CheckpointError: it has one that transformers cannot load.
    """
    if not any((folder / name).exists() for name in PROCESSOR_FILES):
        return None
    from transformers import AutoImageProcessor

    try:
        with quiet():
            return AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except BaseException as error:  # whatever a stranger's file makes transformers raise
        if not is_fault(error):
            raise
        raise CheckpointError(
            f"Model {folder} must have an image processor that transformers loads, or none; it has another "
            f"({reason(error)}). Repair or remove its {PROCESSOR_FILE}."
        ) from error


def encode_images(
    images: Sequence[LabelledImage], model: Any, processor: Any, *, argument: str = "task"
) -> torch.Tensor:
    """Images as the model reads them: [images, channels, height, width], float32, on the CPU.

    The folder's image processor decides size and normalisation. Without one, pixels are normalised to lie from -1 to 1,
    grey becomes as many channels as the model reads, and an image smaller than the model's is enlarged by the largest
    whole factor that fits, every pixel repeated, and set in the middle of black. A model that takes any size (ResNet)
    is given at least `PIXELS` in height and width.

    Raises:
        TaskError: an image of another size or number of channels than the others or than the model can read.
        CheckpointError: the processor fails.
    """
    import torch

    config = bare(model).config
    config = getattr(config, "vision_config", config)  # of CLIP
    channels = getattr(config, "num_channels", 3)
    found: list[Pixels] = []
    for image in images:
        if image.shape != images[0].shape:
            raise TaskError(
                f"`{argument}` must have images of one size; it has {_written(images[0].shape)} and "
                f"{_written(image.shape)}. Bring them to one size."
            )
        if image.shape[0] not in (1, channels):
            raise TaskError(
                f"`{argument}` must have images of 1 channel or {channels}, which the model reads; got "
                f"{_written(image.shape)}. Give other images, or another model."
            )
        found.append(np.repeat(image.pixels, channels, axis=0) if image.shape[0] < channels else image.pixels)
    if processor is not None:
        return _processed(found, processor, argument)
    pixels = torch.from_numpy(np.stack(found))
    size = getattr(config, "image_size", None) or tuple(max(PIXELS, length) for length in pixels.shape[2:])
    height, width = size if isinstance(size, Sequence) else (size, size)
    return (_placed(pixels, height, width, argument) - MEAN) / SPREAD


def _placed(pixels: torch.Tensor, height: int, width: int, argument: str) -> torch.Tensor:
    """Images enlarged by the largest whole factor that fits, in the middle of black."""
    import torch

    factor = min(height // pixels.shape[2], width // pixels.shape[3])
    if factor < 1:
        raise TaskError(
            f"`{argument}` must have images of at most {height} x {width} pixels for a model of that size without an "
            f"image processor; got {_written(pixels.shape[1:])}. Resize them, or add the model's {PROCESSOR_FILE}."
        )
    large = pixels.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    down, across = height - large.shape[2], width - large.shape[3]
    return torch.nn.functional.pad(large, (across // 2, across - across // 2, down // 2, down - down // 2))


def image_logits(
    model: Any, processor: Any, images: Sequence[LabelledImage], *, rows_per_batch: int = 64
) -> torch.Tensor:
    """What a classifier in evaluation mode says of some images: logits [images, labels] in float32, on the CPU.

    Raises:
        TaskError: as `encode_images`.
    """
    import torch

    like = next(model.parameters())
    found = []
    for start in range(0, len(images), rows_per_batch):
        pixels = encode_images(images[start : start + rows_per_batch], model, processor)
        with torch.inference_mode():
            logits = model(pixel_values=pixels.to(like.device, like.dtype)).logits
        found.append(logits.float().cpu())
    return torch.cat(found)


def _processed(images: Sequence[Pixels], processor: Any, argument: str) -> torch.Tensor:
    import torch

    model = "model" if argument == "task" else argument
    whole = [np.rint(pixels * 255).astype(np.uint8) for pixels in images]
    try:
        found = processor(whole, return_tensors="pt", input_data_format="channels_first")["pixel_values"]
    except BaseException as error:  # whatever a stranger's settings make it raise
        if not is_fault(error):
            raise
        raise CheckpointError(
            f"`{model}` must have an image processor that reads arrays of bytes; its {type(processor).__name__} fails "
            f"({reason(error)}). Repair or remove its {PROCESSOR_FILE}."
        ) from error
    return torch.as_tensor(found, dtype=torch.float32)


def _written(shape: Sequence[int]) -> str:
    """A shape in words.

    Example:
        >>> _written((3, 8, 8))
        '3 channels of 8 x 8'
    """
    channels, height, width = shape
    return f"{channels} channel{'s' if channels != 1 else ''} of {height} x {width}"
