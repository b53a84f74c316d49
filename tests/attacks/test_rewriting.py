"""Attacks that rewrite weights: key-free, function kept to the bit or to rounding, and they find what was locked."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pico
import pytest
import torch
from safetensors.torch import load_file, save_file

from specdef import inspect_model, lock
from specdef.architectures.resolve import ResolvedSlot
from specdef.attacks.base import INTERVENTIONS, RewriteReport, parse_intervention
from specdef.attacks.rewrites.factor_chain import chain_shapes, factor_chain
from specdef.attacks.rewrites.heads import balance_head
from specdef.attacks.rewriting import Rewriting
from specdef.certify.api import attack
from specdef.errors import SpecdefError
from specdef.training.recipe import Recipe

PAPER = {"preset": "paper", "multiplier": 1e4, "rank": 3, "num_matrices": 3}


def rewrite(folder: Path, out: Path, text: str) -> RewriteReport:
    report = parse_intervention(text).rewrite(folder, out)
    assert report is not None
    return report


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def run(family: str, folder: Path, out: Path, text: str) -> torch.Tensor:
    rewrite(folder, out, text)
    return pico.run(family, out)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "gpt_neox", "mixtral", "gemma2"])
@pytest.mark.parametrize("exponent", [4, 20, 40])
def test_rebalance_finds_every_scaled_channel_and_gives_back_the_original_bits(
    family: str, exponent: int, tmp_path: Path
) -> None:
    original = pico.build(family, tmp_path / "original")
    lock(original, tmp_path / "locked", preset="exact", multiplier=f"2^{exponent}")
    (tmp_path / "locked.specdef-key").unlink()
    (tmp_path / "locked" / "specdef_lock.json").unlink()  # neither key nor manifest is needed
    logits = run(family, tmp_path / "locked", tmp_path / "out", "rebalance")
    assert torch.equal(logits, pico.run(family, original))
    if exponent >= 20:
        assert not inspect_model(tmp_path / "out").verdict.locked
    before, locked, after = (weights(tmp_path / name) for name in ("original", "locked", "out"))
    for name, tensor in before.items():  # every scale is found to within a factor two: no weight is left 2^3 off
        ratio = (after[name].double() / tensor.double()).abs()
        alive = tensor != 0
        if exponent >= 20:
            assert float(ratio[alive].log2().abs().max()) <= 2, name
    assert any(not torch.equal(locked[name], before[name]) for name in before)


@pytest.mark.parametrize("channels", [40, 48])
def test_rebalance_finds_a_pair_scaled_as_a_whole(channels: int, tmp_path: Path) -> None:
    original = pico.build("llama", tmp_path / "original")
    lock(original, tmp_path / "locked", preset="exact", multiplier="2^20", pairs=["updown"], channels=channels)
    logits = run("llama", tmp_path / "locked", tmp_path / "out", "rebalance")
    assert torch.equal(logits, pico.run("llama", original))
    before, after = weights(original), weights(tmp_path / "out")
    for name, tensor in before.items():
        assert float((after[name].double() / tensor.double()).abs().log2().abs().max()) <= 4, name


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "phi3"])
def test_svd_rebalance_undoes_any_map_within_a_head(family: str, tmp_path: Path) -> None:
    """An ill-conditioned map between V and O, which no scaling of single channels undoes."""
    original = pico.build(family, tmp_path / "original")
    lock(original, tmp_path / "locked", preset="exact", multiplier="2^10", pairs=["vo"])
    logits = run(family, tmp_path / "locked", tmp_path / "out", "rebalance:form=svd")
    assert torch.allclose(logits, pico.run(family, original), atol=2e-5)
    from specdef.architectures.channels import channel_logs
    from specdef.checkpoint.reader import open_checkpoint
    from specdef.locks.recognise import resolve_locked

    checkpoint = open_checkpoint(tmp_path / "out", publishing=False)
    pairs = [pair for pair in resolve_locked(checkpoint).pairs if pair.kind == "vo"]
    for producer, consumer in channel_logs(checkpoint, pairs):
        assert float(abs(producer - producer.mean()).max()) < 4
        assert float(abs(consumer - consumer.mean()).max()) < 4


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_merge_gives_back_the_original_weights(family: str, tmp_path: Path) -> None:
    original = pico.build(family, tmp_path / "original")
    lock(original, tmp_path / "locked", **PAPER)
    report = rewrite(tmp_path / "locked", tmp_path / "out", "merge")
    before, after = weights(original), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.allclose(after[name], tensor, rtol=1e-5, atol=1e-6), name
    assert report.added_parameters < 0
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert not inspect_model(tmp_path / "out").verdict.locked


def test_merge_of_a_sharded_folder_mends_its_index(tmp_path: Path) -> None:
    original = pico.build("llama", tmp_path / "original")
    pico.shard(original)
    lock(original, tmp_path / "locked", **PAPER)
    rewrite(tmp_path / "locked", tmp_path / "out", "merge")
    index = "model.safetensors.index.json"
    assert (
        json.loads((tmp_path / "out" / index).read_text())["weight_map"]
        == json.loads((original / index).read_text())["weight_map"]
    )
    assert torch.allclose(pico.run("llama", tmp_path / "out"), pico.run("llama", original), atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("order", ["interleaved", "literal"])
def test_layer_injection_keeps_the_function_and_its_factors_train(family: str, order: str, tmp_path: Path) -> None:
    original = pico.build(family, tmp_path / "original")
    lock(original, tmp_path / "locked", **PAPER)
    logits = run(family, tmp_path / "locked", tmp_path / "out", f"inject-layers:factors=2,order={order}")
    wanted = pico.run(family, original)
    assert torch.allclose(logits, wanted, atol=1e-3 * float(wanted.abs().max()))
    from specdef.attacks.factored_linear import FactoredLinear
    from specdef.models.loading import load

    model = load(tmp_path / "out")
    found = [module for module in model.modules() if isinstance(module, FactoredLinear)]
    assert len(found) == 3
    assert all(len(module.chain) == (6 if order == "interleaved" else 4) for module in found)
    model(**pico.inputs(family)).logits.square().mean().backward()
    assert all(factor.grad is not None for module in found for factor in module.chain)


@pytest.mark.parametrize("shape", [(9, 6), (6, 9), (7, 7)])
@pytest.mark.parametrize("factors", [1, 2, 4])
def test_every_factor_has_the_root_of_the_norm(shape: tuple[int, int], factors: int) -> None:
    """Theorem 32's optimum: k + 1 factors of spectral norm M^(1/(k+1)), and their product is the layer."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(*shape, generator=generator, dtype=torch.float64)
    tall = w if shape[0] >= shape[1] else w.T
    u, s, vh = torch.linalg.svd(tall, full_matrices=False)
    scale = torch.where(torch.arange(len(s)) < 3, 1e6, 1.0).double()
    locked, c = (u * (s * scale)) @ vh, (u / scale) @ u.T
    norm = float(s[0] * 1e6)
    literal = factor_chain(locked, tall, c, factors, "literal")
    assert [m.shape for m in literal] == [torch.Size(x) for x in chain_shapes(tall.shape, "output", factors, "literal")]
    for factor in literal[:-1]:
        assert torch.linalg.matrix_norm(factor, 2).item() == pytest.approx(norm ** (1 / (factors + 1)), rel=1e-9)
    chain = factor_chain(locked, tall, c, factors, "interleaved")
    for damping in chain[1:-1:2]:
        wanted = (u * scale.pow(-1 / (factors + 1))) @ u.T
        assert torch.allclose(damping, wanted, atol=1e-9), "U diag((s/s~)^(1/n)) U^T"
    largest, x = 0.0, torch.eye(tall.shape[1], dtype=torch.float64)
    for matrix in chain:
        x = matrix @ x
        largest = max(largest, torch.linalg.matrix_norm(x, 2).item())
    assert torch.allclose(x, tall, atol=1e-8)
    assert largest <= 1.01 * norm ** (1 / (factors + 1)) * max(1.0, float(s[0])), "no activation beyond the root"
    x = torch.eye(tall.shape[1], dtype=torch.float64)
    partial = [x := matrix @ x for matrix in literal]
    assert max(torch.linalg.matrix_norm(p, 2).item() for p in partial) == pytest.approx(norm, rel=1e-9), (
        "factoring W~ alone leaves C in front of an activation as large as before"
    )


@pytest.mark.parametrize("component", ["down_proj", "v_proj"])
def test_the_literal_chain_keeps_the_defenders_compensation_in_its_dtype(
    component: str, llama: Path, tmp_path: Path
) -> None:
    """It is the last to be applied where it stands on the output side, the first where it stands on the input's."""
    lock(llama, tmp_path / "locked", preset="paper", rank=2, multiplier="2^6", layers=[0], components=[component])
    rewrite(tmp_path / "locked", tmp_path / "out", "inject-layers:factors=2,order=literal,dtype=bf16")
    ((module, entry),) = json.loads((tmp_path / "locked" / "config.json").read_text())["quantization_config"][
        "modules"
    ].items()
    stored = load_file(tmp_path / "out" / "model.safetensors")
    chain = [stored[f"{module}.weight"], *(stored[f"{module}.factors.{number}"] for number in range(3))]
    kept = 3 if entry["side"] == "output" else 0
    assert [matrix.dtype for matrix in chain] == [
        torch.float32 if number == kept else torch.bfloat16 for number in range(4)
    ]


def test_a_convolution_is_no_chain(tmp_path: Path) -> None:
    lock(pico.build("resnet", tmp_path / "resnet"), tmp_path / "locked", preset="paper", rank=2, num_matrices=1)
    with pytest.raises(SpecdefError, match=r"`model` must hold linear layers .*; \S+ is a convolution\. Use merge\."):
        rewrite(tmp_path / "locked", tmp_path / "out", "inject-layers")


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_layer_injection_into_a_bfloat16_lock_keeps_the_function(family: str, tmp_path: Path) -> None:
    """There rounding noise dominates some directions of W~, which a careless split would lose."""
    original = pico.build(family, tmp_path / "original", dtype=torch.bfloat16)
    lock(original, tmp_path / "locked", **PAPER)
    wanted = pico.run(family, tmp_path / "locked").float()
    report = rewrite(tmp_path / "locked", tmp_path / "out", "inject-layers:factors=2")
    assert report.function_error is not None
    assert report.function_error < 1e-4
    logits = pico.run(family, tmp_path / "out").float()
    assert float((logits - wanted).norm() / wanted.norm()) < 2 * torch.finfo(torch.bfloat16).eps


def lie(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config["quantization_config"])
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("kind", ["merge", "inject-layers"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q: q["modules"].clear(), "must list every locked layer"),
        (lambda q: q["modules"].popitem(), "must list every locked layer"),
        (lambda q: q.update(version=9), "`quantization_config.version` must be 1; got 9"),
        (lambda q: next(iter(q["modules"].values())).update(form="low_rank"), "must list every locked layer"),
        (lambda q: next(iter(q["modules"].values())).update(transposed=True), "must describe a matrix of this family"),
        (lambda q: next(iter(q["modules"].values())).update(dtype="bfloat16"), "must be bfloat16 of shape"),
        (lambda q: next(iter(q["modules"].values())).update(weight_dtype="float64"), "must be float64, as config.json"),
        (lambda q: q["modules"].update({"model.norm": next(iter(q["modules"].values()))}), "must exist"),
    ],
)
def test_a_config_that_contradicts_the_tensors_is_refused(
    kind: str, change: Callable[[dict[str, Any]], None], message: str, llama: Path, tmp_path: Path
) -> None:
    lock(llama, tmp_path / "locked", **PAPER)
    lie(tmp_path / "locked", change)
    with pytest.raises(SpecdefError, match=message):
        rewrite(tmp_path / "locked", tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()


def test_a_folder_already_rewritten_is_refused(llama: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "locked", **PAPER)
    rewrite(tmp_path / "locked", tmp_path / "chains", "inject-layers")
    for kind in ("merge", "inject-layers"):
        with pytest.raises(SpecdefError, match="were replaced by inject-layers"):
            rewrite(tmp_path / "chains", tmp_path / "again", kind)
    from specdef.models.loading import load

    def first(q: dict[str, Any]) -> dict[str, Any]:
        return dict.__getitem__(q["factored"], next(iter(q["factored"])))

    for change, message in (
        (lambda q: q.update(version=1), "`quantization_config.version` must be 2; got 1"),
        (
            lambda q: first(q).update(shapes=[[32, 16]], dtypes=["float32"]),
            "must be a chain of",
        ),
        (lambda q: first(q).update(shapes=[[32.5, 32]]), "must list the shapes and dtypes"),
    ):
        folder = tmp_path / f"lie{message[:4].strip('`')}{len(message)}"
        shutil.copytree(tmp_path / "chains", folder)
        lie(folder, change)
        with pytest.raises(SpecdefError, match=message):
            load(folder)


def test_weights_that_are_not_finite_are_refused(llama: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "locked", **PAPER)
    path = tmp_path / "locked" / "model.safetensors"
    found = load_file(path)
    name = next(name for name in found if ".compensation" in name).replace("compensation", "weight")
    found[name][0, 0] = torch.nan
    save_file(found, path, metadata={"format": "pt"})
    for kind in ("merge", "inject-layers"):
        with pytest.raises(SpecdefError, match="Weights must be finite"):
            rewrite(tmp_path / "locked", tmp_path / "out", kind)
        assert not (tmp_path / "out").exists()


def test_rebalance_leaves_compensated_layers_alone(llama: Path, tmp_path: Path) -> None:
    """The rows of W~ are not what the next layer reads: balancing them would change the function."""
    axis = {"preset": "paper", "multiplier": "2^14", "rank": 3, "basis": "axis", "layers": [0, 1]}
    lock(llama, tmp_path / "locked", components=["v_proj"], **axis)
    for text in ("rebalance:form=svd", "rebalance", "prune"):
        with pytest.raises(SpecdefError, match=r"v->o pairs|none stands out"):
            rewrite(tmp_path / "locked", tmp_path / "out", text)


def test_svd_rebalance_of_heads_wider_than_the_model(tmp_path: Path) -> None:
    original = pico.build("gemma2", tmp_path / "original")  # head_dim 16 is fine; made wider below
    logits = run("gemma2", original, tmp_path / "out", "rebalance:form=svd")
    assert torch.allclose(logits, pico.run("gemma2", original), atol=1e-4)
    slots = [ResolvedSlot("v", 0, lambda c: (c,)), ResolvedSlot("o", 1, lambda c: (c,))]
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "v": torch.randn(8, 5, generator=generator, dtype=torch.float64),
        "o": torch.randn(5, 8, generator=generator, dtype=torch.float64),
    }
    before = tensors["o"] @ tensors["v"]
    balance_head(tensors, slots[:1], slots[1:], range(8))
    assert torch.allclose(tensors["o"] @ tensors["v"], before, atol=1e-12)


def test_bfloat16_factors_change_the_function_more_and_say_so(tmp_path: Path) -> None:
    original = pico.build("llama", tmp_path / "original")
    lock(original, tmp_path / "locked", **PAPER)
    wanted = pico.run("llama", original)
    errors = {}
    for dtype in ("fp32", "bf16"):
        logits = run("llama", tmp_path / "locked", tmp_path / dtype, f"inject-layers:factors=2,dtype={dtype}")
        errors[dtype] = float((logits - wanted).norm() / wanted.norm())
    assert errors["fp32"] < 1e-4 < errors["bf16"]


def test_prune_zeroes_what_stands_out_and_nothing_else(tmp_path: Path) -> None:
    original = pico.build("llama", tmp_path / "original")
    lock(original, tmp_path / "locked", preset="exact", multiplier="2^20")
    rewrite(tmp_path / "locked", tmp_path / "out", "prune")
    locked, after = weights(tmp_path / "locked"), weights(tmp_path / "out")
    changed = {name for name in locked if not torch.equal(locked[name], after[name])}
    assert changed
    for name in changed:
        assert set(after[name][locked[name] != after[name]].tolist()) == {0.0}
        assert "norm" in name or "v_proj" in name or "up_proj" in name
    assert not torch.allclose(pico.run("llama", tmp_path / "out"), pico.run("llama", original), atol=1e-3)


def test_sharpen_multiplies_singular_values_and_keeps_the_function(tmp_path: Path) -> None:
    original = pico.build("llama", tmp_path / "original")
    logits = run("llama", original, tmp_path / "out", "sharpen:multiplier=4,rank=2,num_matrices=2")
    assert torch.allclose(logits, pico.run("llama", original), atol=1e-4)
    before, after = weights(original), weights(tmp_path / "out")
    sharpened = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(sharpened) == 2
    for name in sharpened:
        ratio = torch.linalg.svdvals(after[name].double()) / torch.linalg.svdvals(before[name].double())
        assert torch.allclose(ratio[:2], torch.full((2,), 4.0, dtype=torch.float64), rtol=1e-3)
        assert torch.allclose(ratio[2:], torch.ones(len(ratio) - 2, dtype=torch.float64), rtol=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mend", "`intervention` must be one of anchor, channel-rates, "),
        ("merge:factors=2", "`factors` must be left out with merge, which takes no options; got '2'"),
        (
            "inject-layers:factors",
            "`inject-layers` must have options such as factors=1,order=interleaved,dtype=fp32",
        ),
        ("inject-layers:factors=two", "`factors` must be a number; got 'two'"),
        ("inject-layers:factors=0", "`factors` must lie between 1 and 32; got 0"),
        ("inject-layers:order=up", "`order` must be one of interleaved, literal; got 'up'"),
        ("inject-layers:dtype=int8", "`dtype` must be one of fp32, bf16, fp64; got 'int8'"),
        ("rebalance:form=head", "`form` must be one of axis, svd; got 'head'"),
        ("merge", "must hold layers with a compensation beside them"),
        ("rebalance", "must hold channels scaled apart on their two sides; none stands out"),
        ("prune", "must hold channels that look scaled up; none stands out"),
        ("sharpen:multiplier=nan", "`multiplier` must be a finite number; got nan"),
        ("sharpen:multiplier=0.5,num_matrices=2,rank=2", "`multiplier` must be a finite number above 1"),
    ],
)
def test_what_cannot_be_rewritten_is_said_and_nothing_is_left(
    text: str, message: str, llama: Path, tmp_path: Path
) -> None:
    with pytest.raises(SpecdefError, match=message.replace("[", r"\[").replace("(", r"\(")):
        rewrite(llama, tmp_path / "out", text)
    assert not list(tmp_path.iterdir())


def test_options_at_their_defaults_do_not_change_an_attack() -> None:
    kinds = [kind for kind in INTERVENTIONS if issubclass(kind, Rewriting)]
    assert {kind.name for kind in kinds} >= {"merge", "rebalance", "inject-layers", "prune", "sharpen"}
    for kind in kinds:
        if not all(option.compare for option in dataclasses.fields(kind)):
            continue  # it reads a file, and is nothing without
        text = ",".join(f"{option.name}={option.default}" for option in dataclasses.fields(kind))
        assert kind.parse(text) == kind.parse("") == kind()
        assert kind.parse(text).to_wire() == kind().to_wire()
    assert parse_intervention("inject-layers:factors=3").label == "inject-layers (factors 3)"
    assert math.isclose(parse_intervention("sharpen:multiplier=8").multiplier, 8)


def test_two_rewritings_follow_each_other(toy_model: Path, tmp_path: Path) -> None:
    """Sharpened and merged again: the weights are the original's, and both are on record."""
    recipe = Recipe(lr=1e-3, steps=2, eval_every=1)
    both = ["sharpen:multiplier=8,rank=2,num_matrices=2", "merge"]
    found = attack(toy_model, tmp_path, recipe=recipe, interventions=both, threads=1)
    plain = attack(toy_model, tmp_path, recipe=recipe, threads=1)
    assert [facts.kind for facts in found.result.rewrites] == ["sharpen", "merge"]
    assert found.attack.label.startswith("sharpen (multiplier 8.0, num_matrices 2, rank 2), then merge, then adamw")
    for ours, wanted in zip(found.result.evaluations, plain.result.evaluations, strict=True):
        assert math.isclose(ours.utility, wanted.utility, rel_tol=1e-3)
    with pytest.raises(SpecdefError, match="must hold no injected layers"):
        attack(toy_model, tmp_path, recipe=recipe, interventions=["sharpen:num_matrices=2,rank=2", "sharpen:seed=1"])
