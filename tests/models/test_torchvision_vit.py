"""torchvision's vision transformers by renaming: the logits of an independent network that reads its own names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from specdef import fetch, lock, unlock, verify
from specdef.errors import CheckpointError
from specdef.models.bare_families import torchvision_vit
from specdef.models.images import load_image_processor
from specdef.models.loading import load

State = dict[str, Tensor]
NAME, PATCH, WIDTH, INNER, HEADS, LAYERS, LABELS = "vit-b-16-torchvision", 16, 12, 20, 3, 2, 5


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(torchvision_vit.SIZES, NAME, torchvision_vit.Size(LAYERS, HEADS, WIDTH, INNER, PATCH))


def weights(pixels: int = 224, *, inner: tuple[str, str] = ("mlp.0", "mlp.3"), head: str = "heads.head") -> State:
    """Random tensors under torchvision's names, in its shapes."""
    draw = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw) / shape[-1] ** 0.5

    state = {
        "class_token": some(1, 1, WIDTH),
        "conv_proj.weight": some(WIDTH, 3, PATCH, PATCH) / PATCH,
        "conv_proj.bias": some(WIDTH),
        "encoder.pos_embedding": some(1, (pixels // PATCH) ** 2 + 1, WIDTH),
        f"{head}.weight": some(LABELS, WIDTH),
        f"{head}.bias": some(LABELS),
    }
    norms = [f"encoder.layers.encoder_layer_{i}.ln_{j}" for i in range(LAYERS) for j in (1, 2)]
    for norm in (*norms, "encoder.ln"):
        state[f"{norm}.weight"], state[f"{norm}.bias"] = 1 + some(WIDTH), some(WIDTH)
    for i in range(LAYERS):
        layer = f"encoder.layers.encoder_layer_{i}"
        state[f"{layer}.self_attention.in_proj_weight"] = some(3 * WIDTH, WIDTH)
        state[f"{layer}.self_attention.in_proj_bias"] = some(3 * WIDTH)
        for name, out, into in (
            ("self_attention.out_proj", WIDTH, WIDTH),
            (inner[0], INNER, WIDTH),
            (inner[1], WIDTH, INNER),
        ):
            state[f"{layer}.{name}.weight"], state[f"{layer}.{name}.bias"] = some(out, into), some(out)
    return state


def reference(state: State, pixels: Tensor) -> Tensor:
    """The network as torchvision runs it, in float64, by its names alone, torch's own attention within."""
    state = {name: tensor.double() for name, tensor in state.items()}

    def of(name: str) -> tuple[Tensor, Tensor]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def normed(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (WIDTH,), *of(name), eps=1e-6)

    weight, bias = of("conv_proj")
    patches = functional.conv2d(pixels, weight, bias, stride=PATCH).flatten(2).transpose(1, 2)
    x = torch.cat([state["class_token"].expand(len(pixels), -1, -1), patches], dim=1) + state["encoder.pos_embedding"]
    for i in range(LAYERS):
        layer = f"encoder.layers.encoder_layer_{i}"
        attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, dtype=torch.float64)
        names = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
        attention.load_state_dict({name: state[f"{layer}.self_attention.{name}"] for name in names})
        read = normed(f"{layer}.ln_1", x)
        x = x + attention(read, read, read, need_weights=False)[0]
        hidden = functional.gelu(functional.linear(normed(f"{layer}.ln_2", x), *of(f"{layer}.mlp.0")))
        x = x + functional.linear(hidden, *of(f"{layer}.mlp.3"))
    return functional.linear(normed("encoder.ln", x)[:, 0], *of("heads.head"))


def made(state: State, place: Path) -> Path:
    torch.save(state, place / "weights.pth")
    return fetch(f"{NAME}:{place / 'weights.pth'}", place / "model")


@pytest.mark.parametrize("pixels", [224, 384])
def test_the_logits_are_torchvisions(pixels: int, tmp_path: Path) -> None:
    folder = made(weights(pixels), tmp_path)
    images = torch.randn(2, 3, pixels, pixels, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = load(folder).double()(pixel_values=images).logits
        wanted = reference(weights(pixels), images)
    assert found.shape == (2, LABELS)
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(wanted[0], wanted[1], atol=1e-3), "the network tells images apart"


@pytest.mark.parametrize(
    "changed", [{"inner": ("mlp.linear_1", "mlp.linear_2")}, {"head": "heads"}], ids=["before 0.13", "a new head"]
)
def test_other_names_of_the_same_tensors(changed: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    usual, other = made(weights(), tmp_path / "usual"), made(weights(**changed), tmp_path)  # type: ignore[arg-type]
    assert (usual / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_the_folder_is_locked_to_the_bit_and_unlocked(tmp_path: Path) -> None:
    folder = made(weights(), tmp_path)
    report = lock(folder, tmp_path / "locked")
    assert {"norm", "vo"} == set(report.strength["pairs"])
    images = torch.randn(3, 3, 224, 224)
    for mode in (True, False):
        first, second = (load(place).train(mode)(pixel_values=images).logits for place in (folder, tmp_path / "locked"))
        assert torch.equal(first, second)
    assert verify(tmp_path / "locked", original=folder).passed
    unlock(tmp_path / "locked", tmp_path / "back")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("pixels", [224, 384])
def test_images_are_read_as_torchvision_does(pixels: int, tmp_path: Path) -> None:
    processor = load_image_processor(made(weights(pixels), tmp_path))
    image = np.full((3, 600, 520), 255, dtype=np.uint8)
    image[:, :, :20] = 0  # at 256 of 520 pixels this edge is 10 wide, and the crop takes 16 from either side
    read = processor([image], return_tensors="pt")["pixel_values"]
    assert read.shape == (1, 3, pixels, pixels)
    assert processor.resample == (2 if pixels == 224 else 3)
    assert processor.do_convert_rgb
    assert read[0, :, 0, -1].tolist() == pytest.approx(
        [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rel=1e-5
    )
    assert (read[0, 0, 0, 0] < 0) == (pixels == 384), "the edge is cut off of images of the usual size alone"


@pytest.mark.parametrize(
    ("name", "changed", "tensor"),
    [
        ("vit-b-32-torchvision", {}, "tensor"),
        (
            NAME,
            {"encoder.pos_embedding": torch.ones(1, 7, WIDTH)},
            r"position_embeddings of shape .*, the file has one of shape \[1, 7, 12\]",
        ),
        (
            NAME,
            {"encoder.layers.encoder_layer_0.self_attention.in_proj_bias": torch.ones(3 * WIDTH + 1)},
            "no tensor encoder.layers.encoder_layer_0.self_attention.in_proj_bias, the file has one of shape",
        ),
        (
            NAME,
            {"encoder.layers.encoder_layer_1.self_attention.in_proj_weight": torch.tensor(1.0)},
            "no tensor encoder.layers.encoder_layer_1.self_attention.in_proj_weight, the file has one of shape",
        ),
        (NAME, {"heads.head.bias": torch.tensor(1.0)}, "tensor classifier.bias of shape .*, the file has one of shape"),
        (NAME, {"heads.pre_logits.weight": torch.ones(2, 2)}, "no tensor heads.pre_logits.weight, the file has one"),
    ],
)
def test_another_architecture_is_refused(name: str, changed: State, tensor: str, tmp_path: Path) -> None:
    torch.save(weights() | changed, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=rf"`name` must be the architecture of .*; {name} has .*{tensor}"):
        fetch(f"{name}:{tmp_path / 'weights.pth'}", tmp_path / "model")
    assert not (tmp_path / "model").exists()


PUBLISHED = {
    ("vit-b-16-torchvision", 224): 86_567_656,
    ("vit-b-32-torchvision", 224): 88_224_232,
    ("vit-l-16-torchvision", 224): 304_326_632,
    ("vit-l-32-torchvision", 224): 306_535_400,
    ("vit-h-14-torchvision", 518): 633_470_440,
}
"""Numbers of the pretrained models, from torchvision's table; heads, which no number tells, are 64 wide, h-14's 80."""


@pytest.mark.parametrize(("name", "pixels"), PUBLISHED)
def test_sizes_are_those_of_the_published_models(name: str, pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    size = torchvision_vit.SIZES[name]
    with torch.device("meta"):
        positions = torch.empty(1, (pixels // size.patch) ** 2 + 1, size.width)
        model = torchvision_vit.make(name, {torchvision_vit.POSITIONS: positions})
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name, pixels]
    assert size.width / size.heads == (80 if "h-14" in name else 64)
