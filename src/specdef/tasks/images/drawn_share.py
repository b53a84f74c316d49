"""The share of drawn images that an independent classifier gives a label."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.checkpoint.digests import file_digest
from specdef.errors import TaskError
from specdef.models.base import LoadedModel, kind_of
from specdef.models.samples import LabelledImage
from specdef.models.tokens import bare
from specdef.tasks.images.labels import predicted
from specdef.tasks.score import Score, share

if TYPE_CHECKING:
    from torch import Tensor

JUDGE_KIND = "image-classifier"
Watch = Callable[["Tensor"], None]
_WATCH: ContextVar[Watch | None] = ContextVar("_WATCH", default=None)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Let `watch` see the images [n, channels, height, width], from 0 to 1, of every score; no score depends on it."""
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


@dataclass(frozen=True)
class DrawnShare:
    """Images are drawn from the same noise whenever a model is scored.

    Attributes:
        prompts: asked for in turn.
        label: what the classifier is to say.
        classifier: its folder.
        drawn: how many images.
        steps: of denoising.
        guidance: see `specdef.models.prompted.drawn`.
        seed: of the noise.
    """

    prompts: tuple[str, ...]
    label: int
    classifier: Path
    drawn: int
    steps: int
    guidance: float
    seed: int

    def __call__(self, model: Any, processor: Any) -> Score:
        """Score a pipeline; 0 when a pixel is not finite."""
        labels = self.labels(model, processor)
        right = [False] * self.drawn if labels is None else [label == self.label for label in labels]
        return share(right, range(self.drawn))

    def labels(self, model: Any, processor: Any) -> list[int] | None:
        """What the classifier says of each drawn image; None when a pixel is not finite."""
        import torch

        from specdef.models.prompted import drawn, encode_prompts

        asked = [self.prompts[at % len(self.prompts)] for at in range(self.drawn)]
        tokens = encode_prompts([*asked, ""], processor, model)
        noise = torch.randn((self.drawn, *bare(model).latent_shape), generator=torch.Generator().manual_seed(self.seed))
        images = drawn(model, tokens[:-1], tokens[-1:], noise, steps=self.steps, guidance=self.guidance)
        if (watch := _WATCH.get()) is not None:
            watch(images)
        if not bool(images.isfinite().all()):
            return None
        judge = _judge(self.classifier)
        return predicted(judge.model, judge.processor, [LabelledImage.of(image, 0) for image in images.numpy()])

    @property
    def identity(self) -> dict[str, Any]:
        """Everything the score depends on, as JSON data: the classifier by its files, not by its place."""
        files = sorted(path for path in self.classifier.iterdir() if path.suffix in (".json", ".safetensors"))
        return {
            "judge": {path.name: file_digest(path) for path in files},
            "prompts": list(self.prompts),
            "label": self.label,
            "drawn": self.drawn,
            "steps": self.steps,
            "guidance": self.guidance,
            "seed": self.seed,
        }

    def check(self, labels: int) -> None:
        """Refuse a classifier of another kind, or with another number of labels.

        Raises:
            TaskError: it is one.
        """
        judge = _judge(self.classifier)
        found = judge.model.config.num_labels
        if found != labels:
            raise TaskError(
                f"`path` must name a classifier with as many labels as prompts, {labels}; "
                f"{self.classifier} has {found}."
            )


@lru_cache(maxsize=1)
def _judge(folder: Path) -> LoadedModel:
    kind = kind_of(folder, argument="path")
    if kind.name != JUDGE_KIND:
        raise TaskError(f"`path` must name a classifier of images; {folder} is of kind {kind.name}.")
    return kind.load(folder)
