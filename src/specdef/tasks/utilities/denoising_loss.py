"""Denoising loss: how well a pipeline still takes the noise out of images that nobody asked it to forget."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from specdef.errors import TaskError
from specdef.models.base import Batch, LoadedModel, ModelKind
from specdef.models.samples import PromptedImage
from specdef.tasks.images.concept_file import read_concept
from specdef.tasks.utility import Cost, UtilityData

ROWS = 256
"""General images, of which every other is measured and the rest mixed into training."""
ROWS_PER_BATCH = 32


class DenoisingLoss(Cost):
    """Mean squared error of the predicted noise, or velocity, on general images with fixed noise and times.

    The general images are those of the other classes of a concept's file, the one that task `concept` reads. The
    budget is how often the start's loss it may be.
    """

    name = "denoising-loss"
    unit = "denoising loss of general images"
    model_kinds = ("diffusion",)

    def read(self, path: Path | None) -> str:
        """One JSON object a line: an image in base64, its form and its prompt.

        Raises:
            TaskError: no file: none ships with the package that would fit every pipeline.
        """
        if path is None:
            raise TaskError(
                "`text` must be given for a pipeline: the file of a concept, whose other classes are general images."
            )
        found = read_concept(path, argument="text")
        rows = found.prompted(lambda label: label != found.concept)
        chosen = random.Random(0).sample(rows, min(ROWS, len(rows)))
        return "\n".join(json.dumps(asdict(row)) for row in chosen)

    def check(self, content: str, processor: Any) -> None:
        """There must be an image to measure and one to train on."""
        if len(_rows(content)) < 2:
            raise TaskError("`text` must have two different images or more of other classes than the concept.")

    def prepare(
        self, content: str, loaded: LoadedModel, *, original: Callable[[], LoadedModel] | None = None
    ) -> UtilityData:
        """Every other image is measured."""
        self.check(content, loaded.processor)
        rows = _rows(content)
        measured = _Measured(loaded.kind, loaded.kind.encode(rows[0::2], loaded))
        return UtilityData(self, measured, loaded.kind.encode(rows[1::2], loaded))

    def measure(self, model: Any, data: UtilityData) -> float:
        """The loss; infinite when it is not finite."""
        import torch

        kind, rows = data.measured.kind, data.measured.rows
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(rows[0]), ROWS_PER_BATCH):
                batch = tuple(part[start : start + ROWS_PER_BATCH] for part in rows)
                total += float(kind.loss(model, batch)) * kind.num_targets(batch)
        loss = total / len(rows[0])
        return loss if math.isfinite(loss) else math.inf


@dataclass(frozen=True)
class _Measured:
    kind: ModelKind
    rows: Batch


def _rows(content: str) -> list[PromptedImage]:
    """The different images of what `read` gave."""
    rows = [json.loads(line) for line in content.splitlines()]
    return list(dict.fromkeys(PromptedImage(**{**row, "shape": tuple(row["shape"])}) for row in rows))


KIND = DenoisingLoss()
