"""A file of weights alone, whose architecture the user names: as a folder, it is locked and unlocked as any other."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from specdef import fetch, inspect_model, lock, unlock, verify
from specdef.errors import CheckpointError
from specdef.models.bare_families import cifar_resnet
from specdef.models.cifar_resnet import CifarResNetConfig, CifarResNetForImageClassification
from specdef.models.loading import load

NAME = "resnet20-cifar"


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar_resnet, "WIDTHS", [4, 4, 8])
    monkeypatch.setitem(cifar_resnet.DEPTHS, NAME, 1)


def weights() -> dict[str, torch.Tensor]:
    """As published: behind ``module.``, a head called linear, no counts of batches."""
    torch.manual_seed(0)
    model = CifarResNetForImageClassification(CifarResNetConfig([1, 1, 1], [4, 4, 8], num_labels=5))
    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1, 0.3)
            nn.init.normal_(part.bias, 0, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 2)
    state = {name.replace("classifier", "linear"): tensor for name, tensor in model.state_dict().items()}
    return {f"module.{name}": tensor for name, tensor in state.items() if "batches" not in name}


@pytest.mark.parametrize("form", ["torch", "nested", "safetensors"])
def test_every_form_gives_the_same_folder(form: str, tmp_path: Path) -> None:
    file, state = tmp_path / "weights.th", weights()
    if form == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    else:
        torch.save({"state_dict": state, "best": 91.5} if form == "nested" else state, file)
    folder = fetch(f"{NAME}:{file}", tmp_path / "model")
    written = load_file(folder / "model.safetensors")
    for name, tensor in state.items():
        short = name.removeprefix("module.").replace("linear", "classifier")
        assert torch.equal(written[short], tensor), name
    assert len(written) == len(state) + 7, "and a count of batches for every BatchNorm"


def reference(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The paper's network in float64, from the published names."""
    state = {name.removeprefix("module."): tensor.double() for name, tensor in state.items()}

    def normed(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, var, weight, bias = (state[f"{name}.{p}"][:, None, None] for p in STATISTICS)
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    x = normed("bn1", nn.functional.conv2d(x, state["conv1.weight"], padding=1)).relu()
    for stage in (1, 2, 3):
        block, stride = f"layer{stage}.0", 1 if stage == 1 else 2
        out = normed(f"{block}.bn1", nn.functional.conv2d(x, state[f"{block}.conv1.weight"], None, stride, 1)).relu()
        out = normed(f"{block}.bn2", nn.functional.conv2d(out, state[f"{block}.conv2.weight"], padding=1))
        around = torch.zeros_like(out)
        start = (out.shape[1] - x.shape[1]) // 2
        around[:, start : start + x.shape[1]] = x[:, :, ::stride, ::stride]
        x = (out + around).relu()
    return x.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


STATISTICS = ("running_mean", "running_var", "weight", "bias")


def test_the_network_is_the_papers(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "weights.th")
    model = load(fetch(f"{NAME}:{tmp_path / 'weights.th'}", tmp_path / "model")).double()
    pixels = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.allclose(model(pixel_values=pixels).logits, reference(weights(), pixels), rtol=1e-12, atol=1e-12)


def test_it_is_locked_verified_inspected_and_unlocked(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "weights.th")
    folder = fetch(f"{NAME}:{tmp_path / 'weights.th'}", tmp_path / "model")
    report = lock(folder, tmp_path / "locked", multiplier="2^20", channels=4)
    assert report.strength["pairs"] == {"conv": 3}
    pixels = torch.randn(4, 3, 8, 8)
    for mode in (True, False):
        found = [load(place).train(mode)(pixel_values=pixels).logits for place in (folder, tmp_path / "locked")]
        assert torch.equal(*found)
    assert verify(tmp_path / "locked", original=folder).passed
    assert inspect_model(tmp_path / "locked", spectra=False).family == "CIFAR ResNet"
    unlock(tmp_path / "locked", tmp_path / "back")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    after = load_file(tmp_path / "locked" / "model.safetensors")
    before = load_file(folder / "model.safetensors")
    wrong = after | {name: before[name] for name in before if "layer2.0.conv2" in name}
    save_file(wrong, tmp_path / "locked" / "model.safetensors", {"format": "pt"})
    assert [check.passed for check in verify(tmp_path / "locked", original=folder).checks] == [False] * 3


class Code:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


@pytest.mark.parametrize(
    ("held", "fault"),
    [
        (
            pickle.dumps(Code()),
            r"alone; .* cannot be read without running what it holds|must be followed by a readable",
        ),
        (b"", "must be followed by a readable file of weights; .* is not"),
        (b"PK\x03\x04 and no more", "must be followed by a readable file of weights; .* is not"),
        ([1, 2], "must be followed by a file that holds a state_dict; .* holds something else"),
        ({"conv1.weight": Code()}, "cannot be read without running what it holds"),
        ({"conv1.weight": torch.ones(4, 3, 3, 3)}, "must be the architecture of .* has tensor bn1.bias of shape "),
        (
            weights() | {"module.bn1.bias": torch.ones(4, dtype=torch.int64)},
            "ordinary float tensors; bn1.bias of .*int64",
        ),
        (weights() | {"module.bn1.bias": torch.ones(4).to_sparse()}, "ordinary float tensors; bn1.bias of"),
        (weights() | {"module.bn1.bias": torch.ones(4, device="meta")}, "ordinary float tensors; bn1.bias of"),
        (weights() | {"module.bn1.bias": torch.ones(4).half()}, "one type of numbers; .* has float16, float32"),
        (weights() | {"bn1.bias": torch.ones(4)}, "names a tensor once; .* has bn1.bias twice"),
        (weights() | {"module.classifier.bias": torch.ones(5)}, "names a tensor once; .* has classifier.bias twice"),
        (
            weights() | {"module.linear.bias": torch.tensor(1.0)},
            "has tensor classifier.bias of shape .* has one of shape",
        ),
        (weights() | {"extra": torch.ones(2)}, r"has no tensor extra, the file has one of shape \[2\]"),
    ],
)
def test_what_is_no_such_file_is_refused(
    held: Any, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "weights.th"
    if isinstance(held, bytes):
        file.write_bytes(held)
    else:
        torch.save(held, file)
    with pytest.raises(CheckpointError, match=f"`name` .*{fault}"):
        fetch(f"{NAME}:{file}", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert "run" not in capsys.readouterr().out.split()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_numbers_keep_their_type_and_every_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(1)
    given = {name: torch.randn_like(tensor, dtype=dtype) for name, tensor in weights().items()}
    torch.save(given, tmp_path / "weights.th")
    written = load_file(fetch(f"{NAME}:{tmp_path / 'weights.th'}", tmp_path / "model") / "model.safetensors")
    assert torch.equal(written["conv1.weight"], given["module.conv1.weight"])
    assert written["bn1.running_var"].dtype is dtype


def test_an_unknown_architecture_or_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"`name` must be drawn from resnet20-cifar, .*; got 'resnet21-cifar'"):
        fetch("resnet21-cifar:x.th", tmp_path / "model")
    with pytest.raises(
        CheckpointError, match=r"`name` must be followed by a file of weights, .*none.th does not exist"
    ):
        fetch(f"{NAME}:{tmp_path / 'none.th'}", tmp_path / "model")
