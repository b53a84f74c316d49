"""Pictures, a small judge of pictures with random weights, and a classifier that says what it is told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

DRAW = np.random.default_rng(0)
Images = np.ndarray[Any, Any]


def images(rows: int, size: int = 8, channels: int = 1) -> Images:
    """Multiples of 1/255, so that a PNG keeps them."""
    return (DRAW.integers(0, 256, (rows, channels, size, size)) / 255).astype(np.float32)


class Says(torch.nn.Module):
    """Gives every image in turn a label by its own, in the order they are asked."""

    def __init__(self, labels: Sequence[int], rule: Callable[[int], int]) -> None:
        super().__init__()
        self.still = torch.nn.Parameter(torch.zeros(1))
        self.given, self.at = [rule(label) for label in labels], 0
        self.config = SimpleNamespace(num_channels=1)

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        chosen = self.given[self.at : self.at + len(pixel_values)]
        self.at += len(pixel_values)
        return SimpleNamespace(logits=torch.nn.functional.one_hot(torch.tensor(chosen), 10).float())


def made_judge(place: Path, size: int) -> Path:
    """A classifier of images with random weights."""
    from specdef.models.cifar_resnet import CifarResNetConfig, CifarResNetForImageClassification

    torch.manual_seed(0)
    config = CifarResNetConfig(depths=[1, 1], hidden_sizes=[4, 6], num_channels=1, image_size=size, num_labels=3)
    CifarResNetForImageClassification(config).eval().save_pretrained(place)
    return place


def tiny(place: Path, kind: str, **changes: Any) -> Path:
    """A model of transformers with random weights, for images of 8 x 8."""
    import transformers as hf

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**small, "image_size": 8, "patch_size": 4, **changes}
    text = {**small, "vocab_size": 9, "bos_token_id": 0, "eos_token_id": 1}
    torch.manual_seed(0)
    made: Any = {
        "clip": lambda: hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)),
        "clip-vision": lambda: hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**vision, projection_dim=6)),
        "siglip": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**vision)),
        "vit": lambda: hf.ViTModel(hf.ViTConfig(**vision)),
        "mae": lambda: hf.ViTMAEModel(hf.ViTMAEConfig(**vision)),
        "resnet": lambda: hf.ResNetModel(
            hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")
        ),
    }[kind]()
    made.eval().save_pretrained(place)
    return place
