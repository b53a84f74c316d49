"""The locked convolution: the original's numbers within its dtype, whatever its stride, padding and dilation."""

from __future__ import annotations

import copy
from pathlib import Path

import pico
import pytest
import torch
from torch import nn

from specdef import inspect_model, lock, lock_module, unlock, unlock_module, verify
from specdef.attacks.base import INTERVENTIONS
from specdef.errors import PlanError, SpecdefError
from specdef.linalg.deform import deform
from specdef.locks.deformed_conv import DeformedConv2d

FORMS = [("dense", "svd"), ("low_rank", "svd"), ("dense", "axis")]


def _conv(**changes: object) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 8, (3, 2), **changes).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(("form", "basis"), FORMS)
@pytest.mark.parametrize(
    "changes", [{}, {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}, {"bias": False, "padding": 1}]
)
def test_it_computes_what_the_convolution_does(form: str, basis: str, changes: dict[str, object]) -> None:
    conv = _conv(**changes)
    made = deform(conv.weight.detach().flatten(1), 2, 2.0**6, form=form, basis=basis)  # type: ignore[arg-type]
    locked = DeformedConv2d.from_conv(conv, made)
    x = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(1))
    assert locked.weight.shape == conv.weight.shape
    torch.testing.assert_close(locked(x), conv(x), rtol=1e-4, atol=1e-5)
    assert float((locked.weight - conv.weight).detach().norm()) > float(conv.weight.detach().norm())


def test_on_the_output_side_the_compensation_is_a_convolution_of_one_by_one() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 24, 3, bias=False)
    made = deform(conv.weight.detach().flatten(1), 2, 100.0)
    assert made.side == "output"
    x = torch.randn(2, 2, 6, 6)
    stretched = nn.functional.conv2d(x.double(), made.weight.double().reshape(conv.weight.shape))
    mixed = nn.functional.conv2d(stretched, made.tensors["compensation"].double()[:, :, None, None])
    torch.testing.assert_close(DeformedConv2d.from_conv(conv, made)(x), mixed.float())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"in_channels": 4, "out_channels": 8, "groups": 2}, "groups 2"),
        ({"padding": "same"}, "padding 'same'"),
        ({"padding": 1, "padding_mode": "reflect"}, "padding_mode reflect"),
    ],
)
def test_a_convolution_that_is_no_matrix_on_patches_is_refused(changes: dict[str, object], said: str) -> None:
    sizes = {"in_channels": 3, "out_channels": 8, "kernel_size": 3, **changes}
    model = nn.Sequential(nn.Conv2d(**sizes))  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=rf"`targets` must be convolutions without groups.*module 0.*{said}"):
        lock_module(model, targets=["0"], rank=2)
    assert type(model[0]) is nn.Conv2d


def test_a_module_in_memory_is_locked_and_gets_its_convolution_back() -> None:
    model = nn.Sequential(_conv(), nn.Flatten()).eval()
    before, x = copy.deepcopy(model), torch.randn(2, 3, 5, 5)
    locked = lock_module(model, targets=["0"], rank=2)
    assert type(model[0]) is DeformedConv2d
    torch.testing.assert_close(model(x), before(x), rtol=1e-4, atol=1e-5)
    model.half()  # moves the bias alone: W~ and C would lose their last digits
    assert model[0].weight.dtype == torch.float32
    unlock_module(model, locked.key)
    assert torch.equal(model[0].weight, before[0].weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["resnet", "resnet-cifar", "resnet-bottleneck"])
def test_a_folder_of_convolutions_locks_loads_unlocks_and_is_merged(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = pico.build(family, tmp_path / "model", dtype=dtype)
    report = lock(model, tmp_path / "locked", preset="paper", rank=3, num_matrices=2, multiplier="2^10")
    assert len(report.strength["matrices"]) == 2
    result = verify(tmp_path / "locked", original=model)
    assert result.passed, result.checks
    sign = inspect_model(tmp_path / "locked").verdict.sign
    assert sign is not None
    assert (sign.lock, len(sign.tensors)) == ("inject", 2)
    assert report.key is not None
    unlock(tmp_path / "locked", tmp_path / "back", report.key)
    assert {p.name: p.read_bytes() for p in (tmp_path / "back").iterdir()} == {
        p.name: p.read_bytes() for p in model.iterdir()
    }
    INTERVENTIONS.get("merge")().rewrite(tmp_path / "locked", tmp_path / "merged")
    assert torch.allclose(pico.run(family, tmp_path / "merged").float(), pico.run(family, model).float(), atol=0.1)
    with pytest.raises(SpecdefError, match=r"is a convolution\. Use merge"):
        INTERVENTIONS.get("inject-layers")().rewrite(tmp_path / "locked", tmp_path / "chains")
