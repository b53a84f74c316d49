"""Ways to say how like two sets of images are: embeddings of a model, feature maps of a convolutional one, LPIPS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from specdef.errors import SpecdefError
from specdef.models.images import encode_images, load_image_processor
from specdef.models.loading import load_whole, reason
from specdef.models.samples import LabelledImage

Images = npt.NDArray[np.float32]
"""[n, channels, height, width], from 0 to 1."""
Measure = Callable[[Images, Images], float]
"""(reference images, other images) -> how like they are; 1 for the same."""
HEAD = "classifier"
"""Of a classifier of images; what it reads is the embedding."""
FIRST_TOKEN = ("vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit")
"""Types of models whose first token stands for the image; of others all tokens are averaged."""
ROWS = 64
"""Images that a model reads at once."""
IMMA_SIZE, CLIP_SIZE = 64, 224
"""Height and width that IMMA's evaluation brings every image to, and the size that CLIP's preprocessing does."""
CLIP_MEAN, CLIP_SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LEAST_LPIPS = 32
"""Height and width that AlexNet's feature maps need."""


def embedding(folder: Path, as_imma: bool) -> Measure:
    """The mean cosine of all pairs of a reference image and another one, by the embeddings of a model.

    CLIP gives its projected image features, a classifier what its head reads, DINO and other vision transformers their
    first token, anything else the mean over tokens or over pixels. Source: Zheng et al. 2024, whose evaluation takes
    CLIP ViT-B/32 and DINO ViT-S/16.

    Raises:
        SpecdefError: transformers loads no such model from the folder, or it embeds no images.
    """
    model, processor = _loaded(folder)

    def embedded(images: Images) -> Tensor:
        pixels = _imma_pixels(images, model) if as_imma else _encoded(images, model, processor)
        with torch.inference_mode(), _named(folder):
            if not torch.equal(_embedded(model, pixels[:1]), _embedded(model, pixels[:1])):
                raise ValueError("it draws at random")
            return normalize(torch.cat([_embedded(model, rows) for rows in pixels.split(ROWS)]).double(), dim=-1)

    def measure(reference: Images, others: Images) -> float:
        return float((embedded(reference) @ embedded(others).T).mean())

    return measure


def perceptual(folder: Path, as_imma: bool) -> Measure:
    """1 minus half the distance of images in pairs, by the feature maps of a convolutional model.

    The distance is LPIPS without its learned weights (Zhang et al. 2018, "baseline"): at every stage the channels of a
    pixel are brought to length 1, squared differences are summed over channels and averaged over pixels. Here stages
    are averaged too, so that maps of numbers of one sign (after a ReLU) give 0 to 1.

    Args:
        folder: the model's.
        as_imma: False; that evaluation has no such measure.

    Raises:
        SpecdefError: the model gives no feature maps.
    """
    model, processor = _loaded(folder)

    def maps(images: Images) -> list[Tensor]:
        with torch.inference_mode(), _named(folder):
            given = model(pixel_values=_encoded(images, model, processor), output_hidden_states=True).hidden_states
        found = [normalize(states.double(), dim=1) for states in given or () if states.ndim == 4]
        if not found:
            raise SpecdefError(
                f"`measure` perceptual must have a convolutional model; {folder} gives no feature maps. "
                "Take embedding for it."
            )
        return found

    def measure(reference: Images, others: Images) -> float:
        apart = [
            torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in zip(maps(ours), maps(theirs), strict=True)])
            for ours, theirs in _paired(reference, others)
        ]
        return 1.0 - float(torch.cat(apart, dim=1).mean()) / 2

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

    def shown(images: Images) -> Tensor:
        pixels = imma_form(images) if as_imma else torch.from_numpy(images)
        if min(pixels.shape[2:]) < LEAST_LPIPS:
            raise SpecdefError(
                f"`measure` lpips must have pictures of at least {LEAST_LPIPS} x {LEAST_LPIPS} pixels; these are "
                f"{pixels.shape[2]} x {pixels.shape[3]}. Take perceptual."
            )
        return _coloured(pixels)

    def measure(reference: Images, others: Images) -> float:
        apart = 0.0
        with torch.inference_mode():
            for ours, theirs in _paired(reference, others):
                apart += len(ours) * float(network(shown(ours), shown(theirs)))
        return 1.0 - apart / len(reference)

    return measure


MAKERS: dict[str, Callable[[Path, bool], Measure]] = {"embedding": embedding, "perceptual": perceptual, "lpips": lpips}
"""Name -> what makes the measure, of a folder and of whether pixels are scaled as IMMA does."""


def _loaded(folder: Path) -> tuple[Any, Any]:
    """A model that reads images, in evaluation mode and float32, and its image processor or None."""
    try:
        model: Any = load_whole(folder, dtype=torch.float32)
        processor = load_image_processor(folder)
    except SpecdefError as error:
        raise SpecdefError(f"`measure` must name a model that can be loaded. {error}") from error
    if getattr(model, "main_input_name", "") != "pixel_values" and not hasattr(model, "get_image_features"):
        raise SpecdefError(
            f"`measure` must name a model that reads images; {folder} holds a {type(model).__name__}. Take CLIP, DINO "
            "or a classifier of images."
        )
    return model, processor


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """The user's sentence for a model that does not read these images, or gives nothing to compare."""
    try:
        yield
    except SpecdefError:
        raise
    except Exception as error:  # whatever a stranger's model makes torch or transformers raise
        raise SpecdefError(
            f"`measure` must name a model that reads these pictures and embeds them; {folder} does not "
            f"({reason(error)}). Take CLIP, DINO or a classifier of images."
        ) from error


def _embedded(model: Any, pixels: Tensor) -> Tensor:
    """[images, dimensions] of images as the model reads them [images, channels, height, width]."""
    if hasattr(model, "get_image_features"):
        given = model.get_image_features(pixel_values=pixels)
        found: Tensor = given if isinstance(given, Tensor) else given.pooler_output
        return found
    read: list[Tensor] = []
    head = getattr(model, HEAD, None)
    handle = None if head is None else head.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    try:
        given = model(pixel_values=pixels)
    finally:
        if handle is not None:
            handle.remove()
    if read:
        return read[0].flatten(1)
    states: Tensor = given.last_hidden_state if getattr(given, "image_embeds", None) is None else given.image_embeds
    if states.ndim == 3:
        return states[:, 0] if model.config.model_type in FIRST_TOKEN else states.mean(1)
    return states if states.ndim == 2 else states.mean((2, 3))


def _encoded(images: Images, model: Any, processor: Any) -> Tensor:
    """Images as the model reads them."""
    return encode_images([LabelledImage.of(image, 0) for image in images], model, processor, argument="measure")


def _imma_pixels(images: Images, model: Any) -> Tensor:
    """Images as IMMA's evaluation gives them to CLIP and to DINO alike: its pixels from 0 to 1 are taken for pixels
    from -1 to 1, then CLIP's preprocessing follows."""
    pixels = (imma_form(images) + 1) / 2
    config = getattr(model.config, "vision_config", model.config)
    size = getattr(config, "image_size", None) or CLIP_SIZE
    large = interpolate(pixels, (size, size), mode="bicubic", antialias=True)
    return (large - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_SPREAD).view(3, 1, 1)


def imma_form(images: Images) -> Tensor:
    """Images in colour, of 64 x 64 pixels: [n, 3, 64, 64]."""
    size = (IMMA_SIZE, IMMA_SIZE)
    return interpolate(_coloured(torch.from_numpy(images)), size, mode="bilinear", antialias=True)


def _coloured(pixels: Tensor) -> Tensor:
    return pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels


def _paired(reference: Images, others: Images) -> Iterator[tuple[Images, Images]]:
    """Both in pairs, in order, so many at once.

    Raises:
        SpecdefError: they are not as many.
    """
    if len(reference) != len(others):
        raise SpecdefError(
            "`reference` must hold as many pictures as `undefended` and `defended` for a measure of pairs; it has "
            f"{len(reference)}, one of them {len(others)}. Remove some, or take embedding."
        )
    for start in range(0, len(reference), ROWS):
        yield reference[start : start + ROWS], others[start : start + ROWS]
