"""Who judges what the small text-to-image model draws: a small ResNet, and the images both are trained on.

Fashion-MNIST in ``../shared/data``, padded to 32x32 and halved. The judge sees nothing that the model drew.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.locked import HERE
from specdef.core.folders import new_folder
from specdef.tasks.images.idx import read_idx_pair

DATA = HERE.parents[1] / "shared" / "data" / "fashion-mnist"
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
SIZE = 16
EPOCHS, BATCH, RATE = 4, 128, 3e-3


def images(part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """``train`` or ``t10k``: pixels [images, 1, 16, 16] from -1 to 1, float32, and classes [images]."""
    pixels, labels = read_idx_pair(DATA / f"{part}-images-idx3-ubyte.gz")
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2))).astype(np.float32)
    halved = padded.reshape(len(padded), SIZE, 2, SIZE, 2).mean((2, 4))
    return torch.from_numpy(halved / 127.5 - 1).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))


def train_judge(place: Path) -> None:
    """A ResNet for CIFAR of one block a stage, on the training images: the folder ``judge``."""
    train_classifier(place / "judge", small_resnet, seed=0)


def train_classifier(folder: Path, make: Callable[[dict[str, Any]], Any], *, seed: int) -> None:
    """A classifier of the training images: the seed decides its first weights and its batches."""
    torch.manual_seed(seed)
    labels = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: at for at, name in enumerate(CLASSES)}}
    model = make({"num_channels": 1, "image_size": SIZE, **labels}).train()
    pixels, classes = images("train")
    steps = EPOCHS * len(pixels) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(pixels), (BATCH,), generator=torch.Generator().manual_seed(step + seed * steps))
        model(pixels[rows], labels=classes[rows]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    with new_folder(folder) as unfinished:
        model.eval().save_pretrained(unfinished)


def small_resnet(sizes: dict[str, Any]) -> Any:
    """Untrained."""
    from specdef.models.cifar_resnet import CifarResNetConfig, CifarResNetForImageClassification

    return CifarResNetForImageClassification(CifarResNetConfig(depths=[1, 1, 1], **sizes))


def small_vit(sizes: dict[str, Any]) -> Any:
    """A vision transformer of three layers on patches of 4 x 4; untrained."""
    from transformers import ViTConfig, ViTForImageClassification

    width = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    return ViTForImageClassification(ViTConfig(**width, patch_size=4, **sizes))


def judged(place: Path, pixels: torch.Tensor, name: str = "judge") -> torch.Tensor:
    """The judge's class, or another classifier's, of images [images, 1, 16, 16] from -1 to 1."""
    from specdef.models.loading import load

    judge: Any = load(place / name)
    with torch.no_grad():
        return torch.cat([judge(rows).logits.argmax(-1) for rows in pixels.split(500)])


def judge_accuracy(place: Path, name: str = "judge") -> float:
    """Share of the held-out images that the judge, or another classifier, labels rightly."""
    pixels, classes = images("t10k")
    return float((judged(place, pixels, name) == classes).double().mean())


def accuracy(place: Path, drawn: torch.Tensor) -> dict[str, Any]:
    """Share of samples [classes, rows, 16, 16] that the judge gives the class that was asked for."""
    found = judged(place, drawn.reshape(-1, 1, SIZE, SIZE)).view(len(CLASSES), -1)
    right = (found == torch.arange(len(CLASSES)).unsqueeze(1)).double()
    by_class = {name: float(share) for name, share in zip(CLASSES, right.mean(1), strict=True)}
    return {"class accuracy of samples": float(right.mean()), "by class": by_class}
