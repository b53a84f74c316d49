"""Image classifiers: look at an image, give it one of a few labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.errors import TaskError
from specdef.models.base import Batch, LoadedModel, class_name, is_multimodal
from specdef.models.classifier import Classifier, refuse_other_heads

if TYPE_CHECKING:
    import torch


class ImageClassifier(Classifier):
    """Samples are `specdef.models.samples.LabelledImage`.

    A batch is pixels [rows, channels, height, width] and labels [rows]. The processor is the folder's image processor,
    None where it has none: see `specdef.models.images.encode_images`.
    """

    name = "image-classifier"
    head_names = ("classifier",)
    default_task = "images"
    default_utility = "image-accuracy"

    def matches(self, config: Mapping[str, Any]) -> bool:
        """A class of transformers that is named as a classifier of images and reads nothing else."""
        return class_name(config).endswith("ForImageClassification") and not is_multimodal(config)

    def load_processor(self, folder: Path) -> Any:
        """The image processor, None where the folder has none."""
        from specdef.models.images import load_image_processor

        return load_image_processor(folder)

    def load(self, folder: Path, *, dtype: torch.dtype | None = None) -> LoadedModel:
        """The model and its image processor.

        Raises:
            CheckpointError: it has fewer than two labels, or gives several labels at once.
        """
        from specdef.models.loading import load

        processor = self.load_processor(folder)
        model: Any = load(folder, dtype=dtype)
        refuse_other_heads(model, folder)
        return LoadedModel(model, processor, self)

    def encode(self, samples: Sequence[Any], loaded: LoadedModel) -> Batch:
        """Pixels as the model reads them, and labels.

        Raises:
            TaskError: a label that the model has not, or an image that it cannot read.
        """
        import torch

        from specdef.models.images import encode_images

        labels = loaded.model.config.num_labels
        wrong = next((at for at, sample in enumerate(samples) if not 0 <= sample.label < labels), None)
        if wrong is not None:
            raise TaskError(
                f"`task` must have labels that the model has, from 0 to {labels - 1}; image {wrong} has "
                f"{samples[wrong].label}. Give other images, or a model with more labels."
            )
        pixels = encode_images(samples, loaded.model, loaded.processor)
        return pixels, torch.tensor([sample.label for sample in samples])

    def batch(self, rows: Batch, chosen: Sequence[int]) -> Batch:
        """Images are of one size, so nothing is cut off."""
        return tuple(tensor[list(chosen)] for tensor in rows)

    def predictions(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and labels of every image.

        Raises:
            TaskError: one image alone, in training, leaves BatchNorm a single number to take the spread of.
        """
        like = next(model.parameters())
        pixels, labels = batch
        try:
            logits: torch.Tensor = model(pixel_values=pixels.to(like.device, like.dtype)).logits
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise TaskError(
                "`batch_size` must leave two images or more in a batch of this model, whose BatchNorm takes their "
                "spread; it leaves one, of the task or of the general images mixed in. Raise it."
            ) from error
        return logits, labels.to(like.device)


KIND = ImageClassifier()
