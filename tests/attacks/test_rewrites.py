"""The algorithms of rewritings by themselves: what they plan, what they say, and what they refuse."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pico
import pytest
import torch
from safetensors.torch import load_file, save_file

from specdef import lock
from specdef.architectures.resolve import ResolvedSlot
from specdef.attacks.rewrites.compensated import compensated_modules, relative_difference, stored_layer
from specdef.attacks.rewrites.factor_chain import chain_shapes, factor_chain, plan_chains
from specdef.attacks.rewrites.heads import balance_head, plan_heads
from specdef.attacks.rewrites.lazy_tensors import Together, tensor_bytes
from specdef.attacks.rewrites.scales import _pair_edits, _Typical, plan_scales
from specdef.checkpoint.reader import Checkpoint, open_checkpoint
from specdef.errors import SpecdefError

VALUE = "model.layers.0.self_attn.v_proj"
OUTPUT = "model.layers.0.self_attn.o_proj"


def opened(folder: Path) -> Checkpoint:
    return open_checkpoint(folder, publishing=False)


@pytest.fixture(scope="module")
def injected(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inject lock of one wide and one tall matrix."""
    folder = tmp_path_factory.mktemp("injected") / "locked"
    lock(llama, folder, preset="paper", multiplier=1e3, rank=3, layers=[0], components=["v_proj", "down_proj"])
    return folder


@pytest.fixture(scope="module")
def folded(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folded") / "locked"
    lock(llama, folder, preset="exact", pairs=["vo"], channels=2)
    return folder


def _edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config["quantization_config"])
        (folder / "config.json").write_text(json.dumps(config))

    return edit


def _weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return edit


def _drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[f"{VALUE}.compensation"]


def _narrow(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{VALUE}.weight"] = tensors[f"{VALUE}.weight"].bfloat16()


WHOLE = "Get the folder whole."
LISTED = "`quantization_config.modules` in config.json must list every locked layer; got"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            _edit(lambda q: q.update(quant_method="gptq")),
            "`model` must hold layers with a compensation beside them; {0} has none. Use rebalance for channels "
            "that are scaled.",
        ),
        (
            _edit(lambda q: q.update(factored={"a": {}})),
            "`model` must hold layers as the lock left them; those of {0} were replaced by inject-layers. Start from "
            "the published folder.",
        ),
        (
            _edit(lambda q: q.update(version=9)),
            "`quantization_config.version` must be 1; got 9. Use the specdef version that locked it.",
        ),
        (_edit(lambda q: q["modules"].pop(VALUE)), f"{LISTED} tensor {VALUE}.compensation, which it does not list."),
        (
            _weights(_drop),
            f"Tensor {VALUE}.compensation must exist; the checkpoint does not hold it. Get it whole.",
        ),
        (
            _edit(lambda q: q["modules"][VALUE].update(transposed=True)),
            f"`quantization_config.modules['{VALUE}']` must describe a matrix of this family; its weight has shape "
            f"[16, 32], transposed is True. {WHOLE}",
        ),
        (
            _weights(lambda tensors: tensors.update({f"{VALUE}.compensation": torch.eye(31)})),
            f"Tensor {VALUE}.compensation must be float32 of shape [32, 32], as config.json says; it is F32 of shape "
            f"[31, 31]. {WHOLE}",
        ),
        (
            _weights(_narrow),
            f"Tensor {VALUE}.weight must be float32, as config.json says; it is BF16. {WHOLE}",
        ),
    ],
    ids=range(8),
)
def test_a_compensated_folder_that_is_none(
    change: Callable[[Path], None], sentence: str, injected: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(injected, tmp_path / "locked"))
    change(folder)
    with pytest.raises(SpecdefError) as caught:
        compensated_modules(opened(folder))
    assert str(caught.value) == sentence.format(folder)


def test_an_unlocked_folder_and_one_that_lists_nothing_are_none(llama: Path, injected: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecdefError, match="must hold layers with a compensation beside them"):
        compensated_modules(opened(llama))
    folder = Path(shutil.copytree(llama, tmp_path / "empty"))
    config = json.loads((injected / "config.json").read_text())
    config["quantization_config"]["modules"] = {}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpecdefError) as caught:
        compensated_modules(opened(folder))
    assert str(caught.value) == f"{LISTED} none."


@pytest.mark.parametrize("part", ["weight", "compensation"])
def test_numbers_that_are_not_finite_are_named(part: str, injected: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(injected, tmp_path / "locked"))
    _weights(lambda tensors: tensors[f"{VALUE}.{part}"][0, 0].fill_(math.inf) and None)(folder)
    checkpoint = opened(folder)
    with pytest.raises(SpecdefError) as caught:
        stored_layer(checkpoint, VALUE, compensated_modules(checkpoint)[VALUE])
    assert str(caught.value) == f"Weights must be finite; tensor {VALUE}.{part} holds NaN or infinity."


@pytest.mark.parametrize(("order", "length"), [("interleaved", 6), ("literal", 4)])
@pytest.mark.parametrize(("dtype", "name", "stored"), [("bf16", "bfloat16", "BF16"), ("fp64", "float64", "F64")])
def test_a_plan_of_chains_says_what_it_changes(
    order: str, length: int, dtype: str, name: str, stored: str, injected: Path
) -> None:
    checkpoint = opened(injected)
    modules = compensated_modules(checkpoint)
    plan = plan_chains(checkpoint, factors=2, order=order, dtype=dtype)
    assert (plan.tensors, plan.detail) == (2, f"2 layers replaced by chains of {length} trainable matrices")
    assert plan.config is not None
    quantization = plan.config["quantization_config"]
    assert {key: quantization[key] for key in ("needs", "version", "modules")} == {
        "needs": "specdef",
        "version": 2,
        "modules": {},
    }
    assert {**plan.config, "quantization_config": None} == {**checkpoint.config, "quantization_config": None}
    (edits,) = plan.edits.values()
    gained = 0
    for module, entry in modules.items():
        shape = checkpoint.shapes[f"{module}.weight"]
        shapes = chain_shapes((shape[0], shape[1]), entry.side, 2, order)
        tensors = [edits.replaced[f"{module}.weight"]]
        tensors += [edits.added[f"{module}.factors.{number}"] for number in range(length - 1)]
        kept = {"output": length - 1, "input": 0}[entry.side] if order == "literal" else None
        dtypes = [
            checkpoint.locate()[f"{module}.compensation"][1].dtype if n == kept else stored for n in range(length)
        ]
        assert [tensor.shape for tensor in tensors] == list(shapes)
        assert [tensor.dtype for tensor in tensors] == dtypes
        assert quantization["factored"][module]["shapes"] == shapes
        assert quantization["factored"][module]["dtypes"] == tuple(
            entry.dtype if n == kept else name for n in range(length)
        )
        gained += sum(math.prod(shape) for shape in shapes)
        gained -= math.prod(shape) + math.prod(checkpoint.shapes[f"{module}.compensation"])
        assert f"{module}.compensation" in edits.dropped
        assert all(
            len(tensor.data()) == math.prod(tensor.shape) * {"BF16": 2, "F32": 4, "F64": 8}[tensor.dtype]
            for tensor in tensors
        )
    assert plan.added_parameters == gained
    assert len(plan.errors) == 2
    assert max(plan.errors) < (1e-9 if dtype == "fp64" else 1)
    assert min(plan.errors) > (0 if dtype == "fp64" else 1e-4)


@pytest.mark.parametrize(
    ("wanted", "found", "difference"), [([3.0, 4.0], [3.0, 4.5], 0.1), ([0.0], [0.0], 0.0), ([1.0], [1.0], 0.0)]
)
def test_relative_difference(wanted: list[float], found: list[float], difference: float) -> None:
    assert relative_difference(torch.tensor(found), torch.tensor(wanted, dtype=torch.float64)) == difference


def test_what_is_computed_together_is_computed_once_and_let_go() -> None:
    calls: list[int] = []

    def make() -> dict[str, torch.Tensor]:
        calls.append(1)
        left = torch.zeros(1)  # which nobody asks for
        return {"a": torch.tensor([[1.0, 2.0]]).T, "b": torch.tensor([3.0], dtype=torch.float64), "left": left}

    together = Together(make, ["a", "b"])
    first, second = together.writer("a", "F32"), together.writer("b", "BF16")
    assert calls == []
    assert first() == np.array([1.0, 2.0], np.float32).tobytes()
    assert together._tensors is not None
    assert together._tensors.keys() == {"b", "left"}
    assert second() == tensor_bytes(torch.tensor([3.0], dtype=torch.bfloat16)) == b"\x40\x40"
    assert (calls, together._tensors) == ([1], {})


def test_a_plan_of_heads_says_what_it_changes(folded: Path) -> None:
    plan = plan_heads(opened(folded))
    assert (plan.tensors, plan.config, plan.added_parameters) == (4, None, 0)
    assert plan.detail == "2 v->o products factored anew, head by head"
    (edits,) = plan.edits.values()
    assert sorted(edits.replaced) == sorted(
        f"model.layers.{layer}.self_attn.{side}_proj.weight" for layer in (0, 1) for side in "vo"
    )
    for tensor in edits.replaced.values():
        assert len(tensor.data()) == 4 * math.prod(tensor.shape)
    assert len(plan.errors) == 4  # two heads a layer
    assert 0 < max(plan.errors) < 1e-5


def test_heads_are_compared_as_they_are_stored(tmp_path: Path) -> None:
    """Rounding to bfloat16 is an error that counts; in float64 there would be none."""
    lock(
        pico.build("llama", tmp_path / "model", torch.bfloat16),
        tmp_path / "locked",
        preset="exact",
        pairs=["vo"],
        channels=2,
    )
    plan = plan_heads(opened(tmp_path / "locked"))
    (edits,) = plan.edits.values()
    for tensor in edits.replaced.values():
        tensor.data()
    assert min(plan.errors) > 1e-4


def test_heads_with_numbers_that_are_not_finite(folded: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folded, tmp_path / "locked"))
    _weights(lambda tensors: tensors[f"{OUTPUT}.weight"][0, 0].fill_(math.nan) and None)(folder)
    edits = plan_heads(opened(folder)).edits["model.safetensors"]
    with pytest.raises(SpecdefError) as caught:
        edits.replaced[f"{OUTPUT}.weight"].data()
    assert str(caught.value) == f"Weights must be finite; tensor {OUTPUT}.weight holds NaN or infinity."


def test_a_model_without_such_pairs_has_no_heads_to_factor(tmp_path: Path) -> None:
    axis = {"preset": "paper", "multiplier": "2^14", "rank": 3, "basis": "axis", "layers": [0, 1]}
    lock(pico.build("llama", tmp_path / "model"), tmp_path / "locked", components=["v_proj"], **axis)  # type: ignore[arg-type]
    with pytest.raises(SpecdefError) as caught:
        plan_heads(opened(tmp_path / "locked"))
    assert str(caught.value) == "`form` svd needs v->o pairs; the family Llama declares none. Use axis."


@pytest.mark.parametrize(("v_width", "o_width"), [(9, 7), (3, 7), (9, 3)])
def test_a_balanced_head_has_the_product_and_the_roots_of_its_values(v_width: int, o_width: int) -> None:
    """Columns side by side of two query heads that share V; the rows of another head stay."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "v": torch.randn(8, v_width, generator=generator, dtype=torch.float64),
        "o": torch.randn(o_width, 16, generator=generator, dtype=torch.float64),
    }
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    producers = [ResolvedSlot("v", 0, lambda channel: (channel,))]
    consumers = [ResolvedSlot("o", 1, lambda channel: (channel, channel + 8))]
    balance_head(tensors, producers, consumers, range(4))
    wide = {name: torch.cat([held[:, :4], held[:, 8:12]]) for name, held in (("b", before["o"]), ("a", tensors["o"]))}
    product = wide["b"] @ before["v"][:4]
    torch.testing.assert_close(wide["a"] @ tensors["v"][:4], product, rtol=0, atol=1e-12)
    values = torch.nn.functional.pad(torch.linalg.svdvals(product), (0, 4))
    for factor in (tensors["v"][:4], wide["a"]):
        found = torch.linalg.svdvals(factor)
        torch.testing.assert_close(found, values.sqrt()[: len(found)], rtol=0, atol=1e-7)
    assert torch.equal(tensors["v"][4:], before["v"][4:])
    assert torch.equal(tensors["o"][:, 4:8], before["o"][:, 4:8])


def test_a_plan_of_scales_says_what_it_changes(folded: Path, llama: Path) -> None:
    plan = plan_scales(opened(folded))
    assert (plan.tensors, plan.config, plan.added_parameters) == (4, None, 0)
    assert plan.detail == "12 rows and columns scaled back by powers of two"  # 2 of V, 2 x 2 of O, in two layers
    with pytest.raises(SpecdefError) as caught:
        plan_scales(opened(llama))
    assert str(caught.value) == (
        f"`model` must hold channels scaled apart on their two sides; none stands out in {llama}."
    )


def test_a_channel_is_scaled_back_on_both_of_its_sides() -> None:
    """The producers by 2^-e, the consumers by 2^(e degree), each exponent by itself, offsets kept."""
    pair = SimpleNamespace(
        degree=2,
        producers=[SimpleNamespace(tensor="p", axis=0, offset=1.0, indices=lambda c: (c,))],
        consumers=[SimpleNamespace(tensor="c", axis=1, offset=0.0, indices=lambda c: (c + 10, c))],
    )
    found = _pair_edits(pair, np.array([0, 3, -1, 3]))  # type: ignore[arg-type]
    assert [(e.tensor, e.axis, e.indices, e.exponent, e.offset) for e in found] == [
        ("p", 0, (2,), 1, 1.0),
        ("c", 1, (2, 12), -2, 0.0),
        ("p", 0, (1, 3), -3, 1.0),
        ("c", 1, (1, 3, 11, 13), 6, 0.0),
    ]


def test_tensors_of_zeros_say_nothing_of_how_far_a_pair_lies_apart(tmp_path: Path) -> None:
    tensors = {"zeros": torch.zeros(4, 3), "eights": torch.full((4, 3), -8.0), "gain": torch.full((4,), 3.0)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    zeros, eights, gain = (SimpleNamespace(tensor=name, offset=0.0) for name in tensors)
    gain.offset = 1.0
    typical = _Typical(opened(tmp_path), [])
    for producer, consumer, degree, apart in (
        (eights, zeros, 1, 3.0),
        (gain, eights, 2, 0.5),
        (zeros, eights, 1, -3.0),
    ):
        pair: Any = SimpleNamespace(producers=[producer], consumers=[consumer], degree=degree)
        assert typical.apart(pair) == apart


def test_no_factor_between_amplifies() -> None:
    """A direction that the stored W~ has lost to rounding: the last factor gives it back, no other."""
    w, locked = torch.diag(torch.tensor([1.0, 1.0, 1.0])).double(), torch.diag(torch.tensor([1e3, 1.0, 1e-2])).double()
    chain = factor_chain(locked, w, torch.eye(3, dtype=torch.float64), 2, "interleaved")
    assert max(float(torch.linalg.matrix_norm(damping, 2)) for damping in chain[1:-1:2]) == pytest.approx(1.0)
    assert torch.allclose(torch.linalg.multi_dot(chain[::-1]), w)
