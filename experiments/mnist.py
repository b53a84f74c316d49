"""A ResNet-18 that tells digits apart, a quarter as wide as the usual one, and the images it is attacked with.

The images come from the data bundle beside the repository (`../shared/data`): MNIST, Fashion-MNIST, and the test half
of KMNIST, which is all there is of it here.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.locked import HERE, WORK
from specdef.core.atomic import write_file
from specdef.core.folders import new_folder
from specdef.errors import SpecdefError
from specdef.models.images import PROCESSOR_FILE
from specdef.tasks.images.idx import read_idx_pair

SHARED = HERE.parents[1] / "shared" / "data"
WIDTHS = [16, 32, 64, 128]
"""Of the four stages: a quarter of ResNet-18's."""
IMAGES, EPOCHS, ROWS, LR = 12_000, 4, 64, 2e-3
"""MNIST's training images that are used, passes over them, images a step, peak learning rate."""
A_CLASS = 500
"""Images of every class an attacker has."""
GENERAL = 2048
"""Of MNIST's test half: half of them are measured, half are mixed into training."""
PIXELS = {"do_resize": False, "do_rescale": True, "do_normalize": True, "image_mean": [0.5], "image_std": [0.5]}
"""How the model reads images: as large as they are, from -1 to 1."""


def base_model() -> Path:
    """The model's folder; trained where it does not exist, from where a killed run stood."""
    folder = WORK / "resnet18-mnist"
    if folder.is_dir():
        return folder
    import torch

    WORK.mkdir(exist_ok=True)
    part = WORK / "resnet18-mnist.part"
    torch.manual_seed(0)
    model = _model()
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=0.01)
    pixels, labels = _arrays("mnist/train-images-idx3-ubyte.gz")
    data = (torch.tensor(pixels[:IMAGES, None] / 127.5 - 1, dtype=torch.float32), torch.tensor(labels[:IMAGES]).long())
    done = 0
    if part.exists():
        state = torch.load(part, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epoch"]
    for epoch in range(done, EPOCHS):
        _epoch(model, optimizer, data, epoch)
        held = io.BytesIO()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}, held)
        write_file(part, held.getvalue())
    with new_folder(folder) as made:
        model.eval().save_pretrained(made)
        (made / PROCESSOR_FILE).write_text(json.dumps({"image_processor_type": "ViTImageProcessor", **PIXELS}))
    part.unlink()
    return folder


def _model() -> Any:
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(
        ResNetConfig(
            num_channels=1,
            embedding_size=WIDTHS[0],
            hidden_sizes=WIDTHS,
            depths=[2, 2, 2, 2],
            layer_type="basic",
            num_labels=10,
        )
    )


def _epoch(model: Any, optimizer: Any, data: tuple[Any, Any], epoch: int) -> None:
    import torch

    model.train()
    for step, chosen in enumerate(_order(len(data[1]), epoch)):
        for group in optimizer.param_groups:
            group["lr"] = LR * (1 + math.cos(math.pi * (epoch + step * ROWS / IMAGES) / EPOCHS)) / 2
        loss = torch.nn.functional.cross_entropy(model(pixel_values=data[0][chosen]).logits, data[1][chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def _order(count: int, epoch: int) -> Iterator[npt.NDArray[Any]]:
    order = np.random.default_rng(epoch).permutation(count)
    for start in range(0, count - ROWS + 1, ROWS):
        yield order[start : start + ROWS]


def general(without: int | None = None) -> Path:
    """Digits with their labels, as a file: what the model must still do; one class may be left out."""
    pixels, labels = (array[:GENERAL] for array in _arrays("mnist/t10k-images-idx3-ubyte.gz"))
    if without is None:
        return _written("digits", pixels, labels)
    kept = labels != without
    return _written(f"digits-without-{without}", pixels[kept], labels[kept])


def fashion() -> Path:
    """Clothes with their labels, as a file: the first of every class of the training half."""
    return _written("fashion", *_first(*_arrays("fashion-mnist/train-images-idx3-ubyte.gz")))


def kuzushiji() -> Path:
    """Old Japanese letters with their labels, as a file: the first of every class of the test half."""
    folder = SHARED / "kmnist-test"
    with np.load(folder / "kmnist-test-imgs.npz") as images, np.load(folder / "kmnist-test-labels.npz") as labels:
        return _written("kmnist", *_first(images["arr_0"], labels["arr_0"]))


def _arrays(name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    path = SHARED / name
    if not path.exists():
        raise SpecdefError(f"`NAME` must be an experiment whose data is there; {path.name} is not beside the checkout.")
    return read_idx_pair(path)


def _first(pixels: npt.NDArray[Any], labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == label)[:A_CLASS] for label in range(10)]))
    return pixels[chosen], labels[chosen]


def _written(name: str, pixels: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Path:
    path = WORK / f"{name}.npz"
    if not path.exists():
        WORK.mkdir(exist_ok=True)
        held = io.BytesIO()
        np.savez_compressed(held, images=pixels, labels=labels)
        write_file(path, held.getvalue())
    return path
