"""Ways to say how like two sets of images are: embeddings of a model, feature maps of a convolutional one, LPIPS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from specdef.errors import SpecdefError
from specdef.models.images import encode_images, load_image_processor
from specdef.models.loading import load, reason
from specdef.models.samples import LabelledImage

Images = npt.NDArray[np.float32]
"""[n, channels, height, width], from 0 to 1."""
HEAD = "classifier"
"""Of a classifier of images; what it reads is the embedding."""
Measure = Callable[[Images, Images], float]
"""(reference images, other images) -> how like they are; 1 for the same."""
ROWS = 64
"""Images that a model reads at once."""
IMMA_SIZE = 64
"""Height and width that IMMA's evaluation brings every image to."""


def embedding(folder: Path, as_imma: bool) -> Measure:
    """The mean cosine of all pairs of a reference image and another one, by the embeddings of a model.

    CLIP gives its projected image features, a model with a first token that token (DINO), a classifier what its head
    reads. Source: Zheng et al. 2024, whose evaluation takes CLIP ViT-B/32 and DINO ViT-S/16.

    Raises:
        SpecdefError: transformers loads no such model from the folder.
    """
    model, processor = _loaded(folder)

    def measure(reference: Images, others: Images) -> float:
        found = [
            torch.nn.functional.normalize(_embedded(model, _encoded(images, model, processor, as_imma)), dim=-1)
            for images in (reference, others)
        ]
        return float((found[0] @ found[1].T).mean())

    return measure


def perceptual(folder: Path, as_imma: bool) -> Measure:
    """1 minus half the distance of images in pairs, by the feature maps of a convolutional model.

    The distance is LPIPS without its learned weights (Zhang et al. 2018, "baseline"): at every stage the channels of a
    pixel are brought to length 1, squared differences are summed over channels and averaged over pixels. Here stages
    are averaged too, so that it is at most 2.

    Raises:
        SpecdefError: the model gives no feature maps, or `as_imma`: that evaluation has no such measure.
    """
    if as_imma:
        raise SpecdefError("`as-imma` must be left out with perceptual: IMMA's evaluation has embeddings and lpips.")
    model, processor = _loaded(folder)

    def maps(images: Images) -> list[Tensor]:
        with torch.inference_mode():
            given = model(_encoded(images, model, processor, as_imma), output_hidden_states=True).hidden_states
        found = [torch.nn.functional.normalize(states, dim=1) for states in given or () if states.ndim == 4]
        if not found:
            raise SpecdefError(
                f"`measure` perceptual must have a convolutional model; {folder} gives no feature maps. "
                "Take embedding for it."
            )
        return found

    def measure(reference: Images, others: Images) -> float:
        pairs = _paired(reference, others)
        stages = zip(*map(maps, pairs), strict=True)
        apart = [(a - b).square().sum(1).mean() for a, b in stages]
        return 1.0 - float(torch.stack(apart).mean()) / 2

    return measure


def lpips(folder: Path, as_imma: bool) -> Measure:
    """1 minus LPIPS (AlexNet) of images in pairs, through torchmetrics; larger is more alike, as IMMA reports it.

    Source: Zhang et al. 2018. Its backbone's weights are torchvision's; they must be in torch's cache or downloadable.
    `as_imma` leaves pixels between 0 and 1, where the network expects them from -1 to 1.

    Raises:
        SpecdefError: a package or the weights are missing.
    """
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        network = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=not as_imma)
    except Exception as error:  # no package, no torchvision, no weights: torchmetrics raises several kinds
        raise SpecdefError(
            f"`measure` lpips must have torchmetrics, torchvision and AlexNet's weights ({reason(error)}). Run "
            "`pip install specdef[lpips]`, once with a network, or take perceptual."
        ) from error

    def measure(reference: Images, others: Images) -> float:
        pairs = [_coloured(_resized(images, as_imma)) for images in _paired(reference, others)]
        with torch.inference_mode():
            return 1.0 - float(network(*pairs))

    return measure


MAKERS: dict[str, Callable[[Path, bool], Measure]] = {"embedding": embedding, "perceptual": perceptual, "lpips": lpips}
"""Name -> what makes the measure, of a folder and of whether pixels are scaled as IMMA does."""


def _loaded(folder: Path) -> tuple[Any, Any]:
    """A model that reads images, in evaluation mode and float32, and its image processor or None."""
    model = load(folder, dtype=torch.float32)
    if getattr(model, "main_input_name", "") != "pixel_values" and not hasattr(model, "get_image_features"):
        raise SpecdefError(
            f"`measure` must name a model that reads images; {folder} holds a {type(model).__name__}. Take CLIP, DINO "
            "or a classifier of images."
        )
    return model, load_image_processor(folder)


def _embedded(model: Any, pixels: Tensor) -> Tensor:
    """[images, dimensions] of encoded images [images, channels, height, width]."""
    found = []
    with torch.inference_mode():
        for rows in pixels.split(ROWS):
            if hasattr(model, "get_image_features"):
                given = model.get_image_features(pixel_values=rows)
                found.append(given if isinstance(given, Tensor) else given.pooler_output)
            elif (head := getattr(model, HEAD, None)) is not None:
                read: list[Tensor] = []
                handle = head.register_forward_pre_hook(lambda _, given, read=read: read.append(given[0]))
                model(pixel_values=rows)
                handle.remove()
                found.append(read[0].flatten(1))
            else:
                states = model(pixel_values=rows).last_hidden_state
                found.append(states[:, 0] if states.ndim == 3 else states.mean((2, 3)))
    return torch.cat(found).float()


def _encoded(images: Images, model: Any, processor: Any, as_imma: bool) -> Tensor:
    """Images as the model reads them."""
    shown = _resized(images, as_imma).numpy()
    if as_imma:  # its evaluation takes pixels from 0 to 1 for pixels from -1 to 1
        shown = (shown + 1) / 2
    return encode_images([LabelledImage.of(image, 0) for image in shown], model, processor, argument="measure")


def _resized(images: Images, as_imma: bool) -> Tensor:
    pixels = torch.from_numpy(images)
    size = (IMMA_SIZE, IMMA_SIZE)
    return torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True) if as_imma else pixels


def _coloured(pixels: Tensor) -> Tensor:
    return pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels


def _paired(reference: Images, others: Images) -> tuple[Images, Images]:
    """Both in pairs, in order.

    Raises:
        SpecdefError: they are not as many.
    """
    if len(reference) != len(others):
        raise SpecdefError(
            f"`reference` must hold as many pictures as the others for a measure of pairs; it has {len(reference)}, "
            f"they have {len(others)}. Remove some, or take embedding."
        )
    return reference, others
