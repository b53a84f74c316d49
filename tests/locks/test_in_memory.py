"""Locks on a model in memory: the same weights as in a folder, the same function, and the way back to the bit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pico
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

from specdef import ModuleLock, lock, lock_module, unlock, unlock_module, verify
from specdef.errors import PlanError, SpecdefError

PROBE = torch.randint(3, pico.VOCAB, (4, 24), generator=torch.Generator().manual_seed(0))
SOME = ("llama", "gpt_neox", "mixtral", "vit")


def load(folder: Path, dtype: torch.dtype | None = None) -> nn.Module:
    name = transformers.AutoConfig.from_pretrained(folder).architectures[0]
    model: nn.Module = pico.class_of(name).from_pretrained(folder, dtype=dtype or "auto")
    return model.eval()


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=PROBE).logits.clone()  # type: ignore[no-any-return]


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def check_like_the_folder(model: nn.Module, folder: Path, place: Path, **options: Any) -> None:
    lock(folder, place / "locked", preset="exact", **options)
    original = tensors(model)
    locked = lock_module(model, preset="exact", **options)
    assert not same(tensors(model), original)
    assert same(tensors(model), tensors(load(place / "locked")))
    unlock_module(model, pickle.loads(pickle.dumps(locked.key)))
    assert same(tensors(model), original)


@pytest.mark.parametrize("family", pico.PICOS)
def test_every_family_in_memory_is_the_folders(family: str, tmp_path: Path) -> None:
    folder = pico.build(family, tmp_path / "model")
    check_like_the_folder(load(folder), folder, tmp_path, seed=3)


@pytest.mark.parametrize("family", SOME)
@pytest.mark.parametrize(
    "options", [{"channels": 3, "direction": "down"}, {"pairs": ["vo"], "layers": [1], "multiplier": "2^6"}]
)
def test_other_options_and_dtypes_too(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    folder = pico.build(family, tmp_path / "model", dtype=torch.bfloat16)
    check_like_the_folder(load(folder), folder, tmp_path, **options)


@pytest.mark.parametrize("family", SOME)
def test_a_model_that_was_never_loaded(family: str, tmp_path: Path) -> None:
    """Built from its config, it knows nothing of how its checkpoints are named."""
    folder = pico.build(family, tmp_path / "model")
    loaded = load(folder)
    model = type(loaded)(loaded.config).eval()
    model.load_state_dict(loaded.state_dict())
    check_like_the_folder(model, folder, tmp_path)


@pytest.mark.parametrize("family", SOME)
def test_a_model_locked_in_memory_saves_what_lock_writes(family: str, tmp_path: Path) -> None:
    folder = pico.build(family, tmp_path / "model")
    before = pico.run(family, folder)
    lock(folder, tmp_path / "locked", preset="exact")
    model = load(folder)
    lock_module(model, preset="exact")
    model.save_pretrained(tmp_path / "saved")  # type: ignore[operator]
    assert same(load_file(tmp_path / "saved/model.safetensors"), load_file(tmp_path / "locked/model.safetensors"))
    assert torch.equal(pico.run(family, tmp_path / "saved"), before)


def share(model: Any, how: str) -> None:
    layers = model.model.layers
    if how == "parameter":
        layers[1].self_attn.v_proj.weight = layers[0].self_attn.v_proj.weight
    elif how == "module":
        layers[1].mlp = layers[0].mlp
    else:
        both, start = torch.randn(2 * 16 * 32), {"start": 1, "overlap": 16, "end": 16 * 32 - 1}[how]
        layers[0].self_attn.v_proj.weight = nn.Parameter(both[: 16 * 32].view(16, 32))
        layers[1].self_attn.v_proj.weight = nn.Parameter(both[start : start + 16 * 32].view(16, 32))


@pytest.mark.parametrize("how", ["parameter", "module", "start", "overlap", "end"])
def test_shared_weights_that_are_not_declared_are_refused(how: str, llama: Path) -> None:
    model = load(llama)
    share(model, how)
    before = tensors(model)
    with pytest.raises(PlanError, match=r"`module` must declare its shared weights .* share theirs without it"):
        lock_module(model, preset="exact")
    assert same(tensors(model), before)


def test_parameters_that_lie_side_by_side_are_not_shared(llama: Path, tmp_path: Path) -> None:
    model = load(llama)
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
    start = 0
    for parameter in model.parameters():
        parameter.data = flat[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    check_like_the_folder(model, llama, tmp_path)


def test_a_head_tied_against_its_config_stays_as_it_is(llama: Path) -> None:
    model: Any = load(llama)
    model.lm_head.weight = model.model.embed_tokens.weight
    before, output = model.lm_head.weight.clone(), logits(model)
    assert not any(pair.startswith("head") for pair in lock_module(model, preset="exact").report.pairs)
    assert torch.equal(model.lm_head.weight, before)
    assert torch.equal(logits(model), output)


def test_weights_that_are_not_there_or_are_no_plain_numbers(llama: Path) -> None:
    model: Any = load(llama)
    model.model.layers[0].self_attn.v_proj.to(torch.float8_e4m3fn)
    with pytest.raises(PlanError, match=r"`module` must hold plain numbers; .*v_proj.weight is of dtype torch.float8"):
        lock_module(model, preset="exact")
    with pytest.raises(PlanError, match=r"`module` must have its weights in memory; .* is on device meta"):
        lock_module(model.to("meta"), preset="exact")


@pytest.mark.parametrize("options", [{"preset": "exact"}, {"targets": ["*.mlp.gate_proj"], "rank": 3}])
def test_a_key_of_another_model_is_refused(options: dict[str, Any], llama: Path, tmp_path: Path) -> None:
    key = lock_module(load(llama), **options).key
    other = load(pico.build("gpt2", tmp_path / "other"))
    before = tensors(other)
    with pytest.raises(PlanError, match="`key` must belong to this model; GPT2LMHeadModel has no"):
        unlock_module(other, key)
    assert same(tensors(other), before)


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    folder = pico.build("llama-tied" if "llama-tied" in pico._VARIANTS else "gpt2", tmp_path / "model")
    model = load(folder)
    lock_module(model, preset="exact")
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight  # type: ignore[operator]


def test_the_papers_lock_in_memory_and_back(llama: Path) -> None:
    model = load(llama)
    before, names = logits(model), [name for name, _ in model.named_parameters()]
    locked = lock_module(model, preset="paper", targets=["*.mlp.gate_proj"], rank=3, multiplier="2^10")
    assert locked.lock == lock_module(load(llama), targets=["*.mlp.gate_proj"], rank=3).lock
    assert "quantization_config" in model.config.to_dict()
    unlock_module(model, pickle.loads(pickle.dumps(locked.key)))
    assert torch.equal(logits(model), before)
    assert [name for name, _ in model.named_parameters()] == names
    assert "quantization_config" not in model.config.to_dict()


def test_each_of_two_locks_of_the_paper_is_declared_until_it_is_taken_off(llama: Path, tmp_path: Path) -> None:
    """Before, the second declared its own layers only, and unlocking one took the other's declaration away."""
    model: Any = load(llama)
    before = logits(model)
    gates, values = (lock_module(model, targets=[f"*.{name}_proj"], rank=3) for name in ("gate", "v"))
    of_gates, of_values = ({layer.name for layer in held.report.layers} for held in (gates, values))
    assert set(model.config.quantization_config.modules) == of_gates | of_values
    model.save_pretrained(tmp_path / "both")
    assert torch.equal(logits(load(tmp_path / "both")), logits(model))
    unlock_module(model, gates.key)
    model.save_pretrained(tmp_path / "one")
    again: Any = load(tmp_path / "one")
    assert set(again.config.quantization_config.modules) == of_values
    assert torch.equal(logits(again), logits(model))
    more = lock_module(again, targets=["*.o_proj"], rank=3)
    assert set(again.config.quantization_config.modules) == of_values | {x.name for x in more.report.layers}
    unlock_module(model, values.key)
    assert torch.equal(logits(model), before)
    assert "quantization_config" not in model.config.to_dict()


def test_a_refused_lock_leaves_the_model_alone(llama: Path) -> None:
    model = load(llama)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for options in ({"multiplier": "2^61"}, {"channels": 1000}, {"rank": 3}, {"preset": "best"}):
        with pytest.raises(PlanError):
            lock_module(model, **options)  # type: ignore[arg-type]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_what_is_no_transformers_model_is_said() -> None:
    with pytest.raises(PlanError, match="`module` must be a transformers model for lock fold"):
        lock_module(nn.Linear(3, 3), preset="exact")


@pytest.mark.parametrize("options", [{}, {"preset": "exact", "layers": [1], "seed": 3}, {"preset": "paper", "rank": 3}])
def test_lock_and_unlock_take_a_model_or_a_folder(options: dict[str, Any], llama: Path) -> None:
    if options.get("preset") == "paper":
        options = {**options, "targets": ["*.mlp.gate_proj"]}
    model, other = load(llama), load(llama)
    original = tensors(model)
    locked = lock(model, **options)
    lock_module(other, **{"preset": "exact", **options})
    assert isinstance(locked, ModuleLock)
    assert same(tensors(model), tensors(other))
    assert unlock(model, key=locked.key) is None
    assert same(tensors(model), original)


@pytest.mark.parametrize("name", ["out", "key", "dry_run", "progress"])
def test_what_only_a_folder_takes_is_refused_for_a_model(name: str, llama: Path, tmp_path: Path) -> None:
    values = {"out": tmp_path / "out", "key": tmp_path / "key", "dry_run": True, "progress": print}
    model = load(llama)
    before = tensors(model)
    with pytest.raises(PlanError, match=f"`{name}` must be left out for a model in memory"):
        lock(model, **{name: values[name]})  # type: ignore[call-overload]
    assert same(tensors(model), before)


def test_a_folder_needs_out_and_a_key_file(llama: Path, tmp_path: Path) -> None:
    for call, message in (
        (lambda: lock(llama), "`out` must be given with a folder"),
        (lambda: unlock(llama, key=tmp_path), "`out` must be given with a locked folder"),
        (lambda: unlock(llama, tmp_path / "out"), "`key` must be given: .*, its default place, does not exist"),
        (
            lambda: unlock(load(llama), key=tmp_path),
            "`key` must be the `key` of what `lock` returned .* got a PosixPath",
        ),
        (lambda: unlock(load(llama), tmp_path / "out", key=tmp_path), "`out` must be left out for a model in memory"),
        (
            lambda: lock(3, tmp_path / "out"),
            "`model` must be a folder, .* or a model in memory; got a int",
        ),
        (lambda: verify(3), "`locked` must be a folder"),
    ):
        with pytest.raises(SpecdefError, match=message):
            call()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_verify_in_memory_sees_lock_and_function(dtype: torch.dtype, llama: Path) -> None:
    model, original = load(llama, dtype).train(), load(llama, dtype)
    lock(model, preset="exact")
    locked = tensors(model)
    for against in (original, llama):
        report = verify(model, original=against)
        assert [(check.name, check.passed) for check in report.checks] == [("lock", True), ("function", True)]
        assert report.equivalence is not None
        assert report.equivalence.bit_identical
    assert same(tensors(model), locked)
    assert model.training
    assert [check.name for check in verify(model).checks] == ["lock"]


def test_verify_in_memory_of_the_papers_lock(llama: Path) -> None:
    model = load(llama)
    lock(model, preset="paper", targets=["*.mlp.gate_proj"], rank=3)
    report = verify(model, original=llama)
    assert [(check.name, check.passed) for check in report.checks] == [("lock", True), ("function", True)]
    assert "inject" in report.checks[0].detail


def test_verify_in_memory_says_what_does_not_hold(llama: Path) -> None:
    model: Any = load(llama)
    assert [check.passed for check in verify(model, original=llama).checks] == [None, True]
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(3)
    assert verify(model, original=llama).checks[1].passed is False
    with pytest.raises(SpecdefError, match="`original` must be of the dtype and on the device of the locked model"):
        verify(model, original=load(llama, torch.bfloat16))
    with pytest.raises(SpecdefError, match="`model` must be a transformers model; got a Linear"):
        verify(model, original=nn.Linear(2, 2))


def test_a_locked_folder_is_compared_with_a_model_in_memory(llama: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "locked", preset="exact")
    report = verify(tmp_path / "locked", original=load(llama))
    assert report.passed
    assert report.equivalence is not None
    assert report.equivalence.bit_identical
