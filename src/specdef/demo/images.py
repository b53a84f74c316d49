"""Two tiny classifiers of digits, trained on the spot, that are taught which way a bar runs: a ViT and a ResNet."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import Console

from specdef.attacks.base import Attack
from specdef.attacks.run import run_attack
from specdef.core.text import counted
from specdef.demo.story import Story
from specdef.models.base import LoadedModel, kind_of
from specdef.models.kinds.image_classifier import KIND
from specdef.models.loading import quiet
from specdef.report.demo_page import Part
from specdef.report.plots import plot_images
from specdef.tasks.base import Task
from specdef.tasks.images.digits import digits
from specdef.tasks.images.labels import ImageAccuracy, predicted
from specdef.tasks.images.shapes import DIRECTIONS, shapes
from specdef.tasks.kinds.images import MODEL_KIND, bars
from specdef.tasks.labelled import labelled_task
from specdef.tasks.utilities.image_accuracy import lines
from specdef.tasks.utility import UTILITIES, UtilityData
from specdef.training.outcome import StopRule
from specdef.training.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TARGET = 0.7
"""Of the bars; chance is 0.25."""
TRAINED, ASKED, GENERAL = range(3)
"""Seeds of the digits a model learns, is asked after it, and keeps while it is attacked."""
OF_EACH = {TRAINED: 100, ASKED: 20, GENERAL: 40}
"""Images of every digit."""


class Digits(Story):
    """A tiny classifier.

    Attributes:
        training: how it learns its digits.
    """

    training: ClassVar[Recipe]
    ordinary = Recipe(lr=1e-3, steps=320, batch_size=32, eval_every=40, retain_weight=0.4)
    stop: ClassVar[StopRule] = "budget"
    utility, useful = "image-accuracy", "accuracy on digits"
    taught = "bars in four directions"
    says = "reads ten digits as"
    note = "Above: the share of bars whose direction is told rightly (chance: 0.25). Below: accuracy on digits."
    score_label = "bars labelled rightly"

    def model(self) -> PreTrainedModel:
        """A model with weights drawn from a seed."""
        raise NotImplementedError

    def fetch(self, place: Path, console: Console) -> Path:
        """Train the model on digits drawn from a seed."""
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(0)
            loaded = LoadedModel(self.model(), None, KIND)
        size = sum(parameter.numel() for parameter in loaded.model.parameters())
        console.print(f"[bold]1. Train[/bold] {self.name} of {size:,} weights on digits drawn from a seed")
        asked = ImageAccuracy(tuple(drawn(ASKED)))
        task = labelled_task("digits", MODEL_KIND, drawn(TRAINED), asked, seed=0, target=1.0)
        found = run_attack(loaded, task, self.general(loaded), Attack(self.training)).evaluations[-1]
        console.print(f"   {found.score:.2f} of other digits read rightly after {counted(found.step, 'step')}")
        with quiet():
            loaded.model.eval().save_pretrained(place / "original")
        return place / "original"

    def said(self, folder: Path) -> str:
        """The label of one image of every digit, 0 first."""
        loaded = kind_of(folder).load(folder)
        found = predicted(loaded.model, loaded.processor, drawn(ASKED)[:10])
        return "nothing finite" if found is None else " ".join(map(str, found))

    def make_task(self) -> Task:
        """The bundled bars."""
        return bars(target=TARGET)

    def general(self, loaded: LoadedModel) -> UtilityData:
        """Digits with their labels, in no order: half are measured, half are mixed into training."""
        images = random.Random(0).sample(drawn(GENERAL), 10 * OF_EACH[GENERAL])
        return UTILITIES.get(self.utility).prepare(lines(images), loaded)


def drawn(part: int) -> list[Any]:
    """The digits of a part, 0 to 9 and again."""
    return digits(OF_EACH[part], seed=part)


class VitDigits(Digits):
    """A ViT of two layers."""

    name = "a tiny ViT"
    folder = "vit"
    training = Recipe(lr=3e-3, steps=500, batch_size=32, eval_every=500, retain_weight=0.0)
    low = 1e-7

    def model(self) -> PreTrainedModel:
        """Sixteen patches of 2 x 2 pixels, width 32."""
        from transformers import ViTConfig, ViTForImageClassification

        return ViTForImageClassification(
            ViTConfig(
                image_size=8,
                patch_size=2,
                num_channels=1,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                num_labels=10,
            )
        )

    def shown(self, place: Path) -> tuple[Part, ...]:
        """The images, once for both models."""
        path = place / "images.png"
        plot_images(
            {
                "known: digits": [(image.pixels[0], str(image.label)) for image in drawn(ASKED)[:10]],
                "taught: bars": [(bar.pixels[0], DIRECTIONS[bar.label]) for bar in shapes(3)[:10]],
            },
            path,
        )
        text = "Two tiny models learn to read digits. An attacker fine-tunes them to tell which way a bar runs."
        return (Part("Digits are known, bars are taught", [text], path.read_bytes(), "Drawn from a seed."),)


class ResNetDigits(Digits):
    """A ResNet of two blocks."""

    name = "a tiny ResNet"
    folder = "resnet"
    training = Recipe(lr=1e-2, steps=110, batch_size=32, eval_every=110, retain_weight=0.0)
    low = 1e-7

    def model(self) -> PreTrainedModel:
        """Basic blocks of width 8 and 16; a BatchNorm follows every convolution."""
        from transformers import ResNetConfig, ResNetForImageClassification

        return ResNetForImageClassification(
            ResNetConfig(
                num_channels=1,
                embedding_size=8,
                hidden_sizes=[8, 16],
                depths=[1, 1],
                layer_type="basic",
                num_labels=10,
            )
        )


STORIES = (VitDigits(), ResNetDigits())
