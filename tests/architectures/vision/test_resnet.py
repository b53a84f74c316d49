"""ResNet under the exact lock: the same numbers in evaluation and in training, for 4-D weights, by every verb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pico
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from specdef import inspect_model, lock, unlock, verify
from specdef.errors import PlanError

PICOS = ("resnet", "resnet-bottleneck")
PIXELS = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def load(folder: Path) -> Any:
    return transformers.ResNetForImageClassification.from_pretrained(folder, dtype="auto")


def trained_outputs(folder: Path) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits of a pass in training mode, and the running statistics after it."""
    model = load(folder).train()
    logits = model(pixel_values=PIXELS.to(model.dtype)).logits.detach()
    return logits, {name: buffer for name, buffer in model.named_buffers() if "running" in name}


@pytest.fixture(scope="module", params=PICOS)
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    place = tmp_path_factory.mktemp(request.param)
    model = pico.build(request.param, place / "model")
    lock(model, place / "locked", multiplier="2^20", channels=3)
    return request.param, model, place / "locked"


def test_training_mode_sees_the_same_numbers_to_the_bit(folders: tuple[str, Path, Path]) -> None:
    """BatchNorm takes the batch's statistics from the convolution's output, which no lock scales."""
    _, model, locked = folders
    (logits, statistics), (same, others) = trained_outputs(model), trained_outputs(locked)
    assert torch.equal(logits, same)
    assert statistics.keys() == others.keys()
    assert all(torch.equal(statistics[name], others[name]) for name in statistics)
    state = load(model).eval()
    assert not torch.equal(state(pixel_values=PIXELS).logits, logits), "the two modes differ in the first place"


@pytest.mark.parametrize("direction", ["up", "down"])
def test_bfloat16_and_both_directions(direction: str, tmp_path: Path) -> None:
    model = pico.build("resnet", tmp_path / "model", dtype=torch.bfloat16)
    lock(model, tmp_path / "locked", multiplier="2^20", channels=8, direction=direction)
    assert torch.equal(pico.run("resnet", model), pico.run("resnet", tmp_path / "locked"))
    assert torch.equal(trained_outputs(model)[0], trained_outputs(tmp_path / "locked")[0])


def test_rows_of_the_normalization_grow_and_columns_of_the_kernel_shrink(folders: tuple[str, Path, Path]) -> None:
    _, model, locked = folders
    before, after = load_file(model / "model.safetensors"), load_file(locked / "model.safetensors")
    block = "resnet.encoder.stages.0.layers.0.layer."
    grown = after[block + "0.normalization.weight"] == before[block + "0.normalization.weight"] * 2**20
    assert int(grown.sum()) == 3
    assert torch.equal(
        after[block + "0.normalization.bias"][grown], before[block + "0.normalization.bias"][grown] * 2**20
    )
    kernel, old = after[block + "1.convolution.weight"], before[block + "1.convolution.weight"]
    assert torch.equal(kernel[:, grown], old[:, grown] / 2**20)
    assert torch.equal(kernel[:, ~grown], old[:, ~grown])
    unchanged = [name for name in before if "running" in name or "shortcut" in name or "0.convolution" in name]
    assert all(torch.equal(before[name], after[name]) for name in unchanged if "layer.1" not in name)


def test_a_wrong_pair_is_caught(folders: tuple[str, Path, Path], tmp_path: Path) -> None:
    """The kernel's output channels divided in place of its input channels, as a wrong axis would."""
    name, model, locked = folders
    before, after = load_file(model / "model.safetensors"), load_file(locked / "model.safetensors")
    kernel = "resnet.encoder.stages.0.layers.0.layer.1.convolution.weight"
    columns = (after[kernel] != before[kernel]).any(0).any(-1).any(-1)
    wrong = before[kernel].clone()
    wrong[columns] /= 2**20
    for part in locked.iterdir():
        (tmp_path / part.name).write_bytes(part.read_bytes())
    save_file({**after, kernel: wrong}, tmp_path / "model.safetensors", {"format": "pt"})
    checks = {check.name: check.passed for check in verify(tmp_path, original=model).checks}
    assert checks == {"integrity": False, "lock": False, "function": False}, name


def test_inspect_sees_the_lock_and_the_spectra_of_kernels(folders: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, model, locked = folders
    found = inspect_model(locked)
    assert "Looks locked (fold, about 2^20)" in found.verdict.sentence
    assert "Does not look locked" in inspect_model(model).verdict.sentence
    kernel = "resnet.encoder.stages.1.layers.0.layer.0.convolution.weight"
    spectrum = next(tensor for tensor in inspect_model(model).tensors if tensor.name == kernel)
    matrix = load_file(model / "model.safetensors")[kernel].double()
    assert spectrum.shape == tuple(matrix.shape)
    assert spectrum.top[0] == pytest.approx(float(torch.linalg.svdvals(matrix.flatten(1))[0]), rel=1e-9), name
    unlock(locked, tmp_path / "back")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_channels_with_subnormal_weights_are_passed_over(tmp_path: Path) -> None:
    model = pico.build("resnet", tmp_path / "model")
    state = load_file(model / "model.safetensors")
    kernel = "resnet.encoder.stages.0.layers.0.layer.1.convolution.weight"
    state[kernel][:, :7] *= 2.0**-115
    state[kernel][:, 0, 0, 0] = 0
    save_file(state, model / "model.safetensors", {"format": "pt"})
    lock(model, tmp_path / "locked", pairs=["conv"], layers=[0])
    after = load_file(tmp_path / "locked" / "model.safetensors")
    assert (after[kernel] != state[kernel]).any(0).any(-1).any(-1).tolist() == [False] * 7 + [True]
    with pytest.raises(PlanError, match=r"Pair conv.0.first must have 2 channels that 2\^20 \(up\) scales exactly"):
        lock(model, tmp_path / "more", pairs=["conv"], layers=[0], channels=2)


def test_formats_with_blocks_are_refused(tmp_path: Path) -> None:
    model = pico.build("resnet", tmp_path / "model")
    with pytest.raises(
        PlanError, match=r"`runtimes` must be formats without blocks for ResNet, whose weights are conv"
    ):
        lock(model, tmp_path / "locked", runtimes=("q8_0",), multiplier="2^4")
    report = lock(model, tmp_path / "half", runtimes=("bf16",))
    assert report.exactness["runtimes"]["planned_for"] == ["bf16"]
