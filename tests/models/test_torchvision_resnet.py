"""torchvision's ResNets by renaming: the logits of an independent network that reads torchvision's own names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from specdef import fetch, lock, verify
from specdef.errors import CheckpointError
from specdef.models.bare_families import torchvision_resnet
from specdef.models.images import load_image_processor
from specdef.models.loading import load

State = dict[str, Tensor]
WIDTHS = [4, 8, 8, 16]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_resnet, "WIDTHS", WIDTHS)


def weights(name: str, labels: int = 5) -> State:
    """Random tensors under torchvision's names, in its shapes."""
    block, depths = torchvision_resnet.DEPTHS[name]
    draw = torch.Generator().manual_seed(0)
    state: State = {}

    def conv(key: str, out: int, into: int, size: int) -> None:
        state[f"{key}.weight"] = torch.randn(out, into, size, size, generator=draw) * (2 / into / size**2) ** 0.5

    def norm(key: str, width: int) -> None:
        for part, low in (("weight", 0.5), ("bias", -0.3), ("running_mean", -0.3), ("running_var", 0.5)):
            state[f"{key}.{part}"] = low + torch.rand(width, generator=draw)
        state[f"{key}.num_batches_tracked"] = torch.tensor(7)

    conv("conv1", WIDTHS[0], 3, 7)
    norm("bn1", WIDTHS[0])
    before = WIDTHS[0]
    for stage, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True), 1):
        out = width * (4 if block == "bottleneck" else 1)
        for number in range(depth):
            key = f"layer{stage}.{number}"
            sizes = ((width, before, 1), (width, width, 3), (out, width, 1))
            for at, (to, into, size) in enumerate(
                sizes if block == "bottleneck" else ((width, before, 3), (width, width, 3)), 1
            ):
                conv(f"{key}.conv{at}", to, into, size)
                norm(f"{key}.bn{at}", to)
            if number == 0 and (stage > 1 or before != out):
                conv(f"{key}.downsample.0", out, before, 1)
                norm(f"{key}.downsample.1", out)
            before = out
    state["fc.weight"], state["fc.bias"] = torch.randn(labels, before, generator=draw), torch.randn(labels)
    return state


def reference(state: State, x: Tensor) -> Tensor:
    """The network as torchvision runs it, in float64, by its names alone."""
    state = {name: tensor.double() for name, tensor in state.items()}

    def step(conv: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
        kernel = state[f"{conv}.weight"]
        x = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        mean, var, weight, bias = (
            state[f"{norm}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    x = functional.max_pool2d(step("conv1", "bn1", x, 2).relu(), 3, 2, 1)
    for stage in range(1, 5):
        number = 0
        while f"layer{stage}.{number}.conv1.weight" in state:
            key, stride = f"layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1
            convs = 3 if f"{key}.conv3.weight" in state else 2
            halving = 2 if convs == 3 else 1
            out = x
            for at in range(1, convs + 1):
                out = step(f"{key}.conv{at}", f"{key}.bn{at}", out, stride if at == halving else 1)
                out = out.relu() if at < convs else out
            around = f"{key}.downsample.0.weight" in state
            x = (out + (step(f"{key}.downsample.0", f"{key}.downsample.1", x, stride) if around else x)).relu()
            number += 1
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize("name", torchvision_resnet.DEPTHS)
def test_the_logits_are_torchvisions(name: str, tmp_path: Path) -> None:
    state = weights(name)
    torch.save(state, tmp_path / "weights.pth")
    folder = fetch(f"{name}:{tmp_path / 'weights.pth'}", tmp_path / "model")
    pixels = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = load(folder).double()(pixel_values=pixels).logits
    wanted = reference(state, pixels)
    assert found.shape == (2, 5)
    assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(wanted[0], wanted[1]), "the network tells images apart"


def test_the_folder_is_locked_and_reads_images_as_torchvision_does(tmp_path: Path) -> None:
    torch.save(weights("resnet18-torchvision"), tmp_path / "weights.pth")
    folder = fetch(f"resnet18-torchvision:{tmp_path / 'weights.pth'}", tmp_path / "model")
    processor = load_image_processor(folder)
    pixels = processor([torch.full((3, 300, 260), 255, dtype=torch.uint8).numpy()], return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 224, 224)
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    lock(folder, tmp_path / "locked")
    assert verify(tmp_path / "locked", original=folder).passed


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.save(weights("resnet18-torchvision"), tmp_path / "weights.pth")
    for name, tensor in (
        ("resnet34-torchvision", r"stages.0.layers.2.layer.0.convolution.weight of shape \[4, 4, 3, 3\]"),
        ("resnet20-cifar", "tensor"),
    ):
        with pytest.raises(CheckpointError, match=rf"`name` must be the architecture of .*; {name} has .*{tensor}"):
            fetch(f"{name}:{tmp_path / 'weights.pth'}", tmp_path / "model")
    with pytest.raises(
        CheckpointError, match=r"`name` must be drawn from .*resnet50-torchvision, .* for a file of weights"
    ):
        fetch(f"resnet101-torchvision:{tmp_path / 'weights.pth'}", tmp_path / "model")
    assert not (tmp_path / "model").exists()
