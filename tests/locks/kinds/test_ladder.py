"""The ladder lock on tiny checkpoints: same function to the bit, rungs apart, back to the byte, seen by verify."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pico
import pico_text
import pytest
import torch
import transformers
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from specdef import inspect_model, lock, lock_module, unlock, unlock_module, verify
from specdef.architectures.resolve import resolve
from specdef.checkpoint.reader import open_checkpoint
from specdef.errors import CheckpointError, PlanError, SpecdefError
from specdef.locks.kinds.ladder import prepare
from specdef.locks.kinds.ladder.check import unmatched
from specdef.locks.kinds.ladder.inputs import folder_inputs, loaded
from specdef.locks.kinds.ladder.measure import Measured, PairMeasure, measure
from specdef.locks.kinds.ladder.options import LadderOptions
from specdef.locks.kinds.ladder.plan import LadderPlan, plan_ladder
from specdef.locks.manifest import read_manifest

CONSTANT = 5
"""The hidden channel that `_with_constant_channel` makes the same for every token."""


def _hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def _with_constant_channel(model: Path) -> Path:
    """A tiny model whose residual stream carries a large constant in one channel, as real models do."""
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"][:, CONSTANT] = 3.0
    for layer in range(2):
        for module in ("self_attn.o_proj", "mlp.down_proj"):
            weights[f"model.layers.{layer}.{module}.weight"][CONSTANT] = 0.0
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    return model


def _measured(model: Path) -> Measured:
    checkpoint = open_checkpoint(model)
    module = loaded(model)
    inputs = folder_inputs(model, module, checkpoint.config, None)
    return measure(module, resolve(checkpoint.config, checkpoint.shapes).pairs, inputs.tensors)


def _plan(model: Path, **options: object) -> LadderPlan:
    checkpoint = open_checkpoint(model)
    pairs = resolve(checkpoint.config, checkpoint.shapes).pairs
    return plan_ladder(checkpoint, pairs, _measured(model), LadderOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", pico.FAMILIES)
def test_every_family_keeps_every_bit_and_comes_back(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = pico.build(family, tmp_path / "model", dtype=dtype)
    report = lock(model, tmp_path / "locked", preset="ladder")
    assert report.key is not None
    before, after = load_file(model / "model.safetensors"), load_file(tmp_path / "locked" / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(pico.run(family, model), pico.run(family, tmp_path / "locked"))
    result = verify(tmp_path / "locked", original=model)
    assert result.passed, result.checks
    unlock(tmp_path / "locked", tmp_path / "back", report.key)
    assert _hashes(model) == _hashes(tmp_path / "back")


def test_a_wrong_consumer_is_caught(tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model")
    lock(model, tmp_path / "locked", preset="ladder")
    before, after = (load_file(folder / "model.safetensors") for folder in (model, tmp_path / "locked"))
    name = "model.layers.1.self_attn.o_proj.weight"
    assert not torch.equal(before[name], after[name])
    save_file({**after, name: before[name]}, tmp_path / "locked" / "model.safetensors", {"format": "pt"})
    checks = {check.name: check.passed for check in verify(tmp_path / "locked", original=model).checks}
    assert checks == {"integrity": False, "lock": False, "function": False}


def test_the_most_constant_channel_carries_the_factor(tmp_path: Path) -> None:
    """The norms read the same in one channel for every token: it is hot in every layer's two norms."""
    model = _with_constant_channel(pico.build("llama", tmp_path / "model"))
    plan = _plan(model)
    hot = {channel.pair: channel for channel in plan.channels if channel.side == "consumer"}
    for pair in ("norm.0.attention", "norm.0.mlp", "norm.1.attention", "norm.1.mlp"):
        assert hot[pair].channel == CONSTANT
        assert hot[pair].constancy is not None
        assert hot[pair].constancy > 3


def test_the_measure_is_the_gradient_and_the_spread(tmp_path: Path) -> None:
    """Against sums over numbers read off the model itself, in float64 where they are summed."""
    model = pico.build("llama", tmp_path / "model")
    checkpoint = open_checkpoint(model)
    pairs = resolve(checkpoint.config, checkpoint.shapes).pairs
    module = loaded(model)
    inputs = folder_inputs(model, module, checkpoint.config, None).tensors
    found = measure(module, pairs, inputs, seed=3)
    assert all(parameter.grad is None for parameter in module.parameters())
    read = []
    handle = module.get_submodule("model.layers.1.mlp.down_proj").register_forward_pre_hook(
        lambda _module, args: read.append(args[0].detach())
    )
    logits = module(**inputs).logits.flatten(0, 1)
    handle.remove()
    generator = torch.Generator().manual_seed(3)
    classes = torch.multinomial(torch.log_softmax(logits, -1).detach().exp(), 1, generator=generator).squeeze(1)
    torch.nn.functional.cross_entropy(logits, classes).backward()
    rest = read[0][:, 1:].reshape(-1, read[0].shape[-1]).double()
    pair = found.pairs["updown.1"]
    assert pair.constancy is not None
    expected = (rest.mean(0).abs() / rest.std(0, correction=0)).numpy()
    np.testing.assert_allclose(pair.constancy, expected, rtol=1e-6)
    layer = module.get_submodule("model.layers.1.mlp")
    down, up = layer.down_proj.weight.grad, layer.up_proj.weight.grad
    np.testing.assert_allclose(pair.consumer, down.abs().sum(0).numpy(), rtol=1e-4)
    np.testing.assert_allclose(pair.producer, up.abs().sum(1).numpy(), rtol=1e-4)
    total = sum(float(parameter.grad.abs().sum()) for parameter in module.parameters())
    assert found.total == pytest.approx(total, rel=1e-4)


def test_a_value_channel_is_as_constant_as_its_least_constant_reader(tmp_path: Path) -> None:
    """Grouped-query attention: two query heads read one value channel, each weighs the tokens in its own way."""
    model = pico.build("llama", tmp_path / "model")
    checkpoint = open_checkpoint(model)
    pair = next(pair for pair in resolve(checkpoint.config, checkpoint.shapes).pairs if pair.id == "vo.0")
    module = loaded(model)
    read = []
    module.get_submodule("model.layers.0.self_attn.o_proj").register_forward_pre_hook(
        lambda _module, args: read.append(args[0].detach())
    )
    module(**folder_inputs(model, module, checkpoint.config, None).tensors)
    rest = read[0][:, 1:].reshape(-1, read[0].shape[-1]).double()
    each = (rest.mean(0).abs() / rest.std(0, correction=0)).numpy()
    constancy = _measured(model).pairs["vo.0"].constancy
    assert constancy is not None
    for channel in range(pair.size):
        readers = list(pair.consumers[0].indices(channel))
        assert len(readers) == 2
        assert constancy[channel] == pytest.approx(each[readers].min(), rel=1e-6)


def test_levels_fall_evenly_from_layer_to_layer(tmp_path: Path) -> None:
    """Recomputed on the locked model itself: the gradients of the hot sides are what the plan says they are.

    But for the one weight of a column that another rung's row crosses.
    """
    model = pico.build("llama", tmp_path / "model")
    plan = _plan(model, multiplier=2.0**40, margin=4.0)
    lock(model, tmp_path / "locked", preset="ladder", multiplier="2^40", margin=4.0)
    locked = _measured(tmp_path / "locked")
    for channel in plan.channels:
        sums = getattr(locked.pairs[channel.pair], channel.side)
        assert np.log2(sums[channel.channel]) == pytest.approx(channel.level, abs=0.2)
    by_layer = [{c.level for c in plan.channels if c.layer == layer} for layer in (None, 1, 0)]
    assert min(by_layer[0]) > max(by_layer[1])
    assert min(by_layer[1]) > max(by_layer[2])
    lowest = [c.level for c in plan.channels if c.layer == 0]
    assert all(abs(level - plan.model_level - 4.0) <= 0.51 for level in lowest)
    assert {c.exponent for c in plan.channels if c.pair == "head"} == {40}
    assert all(c.exponent <= 40 for c in plan.channels)


def test_the_gradients_of_a_locked_model_and_their_squares_are_finite(tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model")
    lock(model, tmp_path / "locked", preset="ladder", multiplier="2^60")
    module = loaded(tmp_path / "locked")
    loss = (
        module(**folder_inputs(model, module, open_checkpoint(model).config, None).tensors).logits.logsumexp(-1).mean()
    )
    loss.backward()
    assert all((parameter.grad**2).isfinite().all() for parameter in module.parameters())


def test_verify_counts_missing_rungs(tmp_path: Path) -> None:
    """A manifest that claims one rung more, or another size, than the weights hold."""
    model = pico.build("llama", tmp_path / "model")
    lock(model, tmp_path / "locked", preset="ladder")
    checkpoint, original = open_checkpoint(tmp_path / "locked"), open_checkpoint(model)
    manifest = read_manifest(tmp_path / "locked")
    from specdef.locks.kinds.ladder import KIND

    strength = dict(manifest.strength)
    assert KIND.check(checkpoint, strength, original).passed
    exponents = dict(strength["exponents"])
    for wrong in ([*exponents["vo"], 40], [exponents["vo"][0] - 1, *exponents["vo"][1:]]):
        claimed = {**strength, "exponents": {**exponents, "vo": wrong}}
        assert KIND.check(checkpoint, claimed, original).passed is False
    far = {**strength, "exponents": {**exponents, "vo": [58] * len(exponents["vo"]) + [57]}}
    assert KIND.check(checkpoint, far, None).passed is False


@given(
    st.lists(st.integers(-12, 12), max_size=6), st.lists(st.integers(-12, 12), max_size=6), st.sampled_from([0, 1, 5])
)
@example([30, 24], [27, 33], 8)  # the nearest to 30 is the only one near 24
def test_as_few_claims_as_can_be_stay_unmatched(claimed: list[int], found: list[int], tolerance: int) -> None:
    """Beside the largest matching, of a library. A greedy one called SmolLM2's own ladder damaged."""
    near = csr_matrix([[abs(a - b) <= tolerance for b in [*found, 99]] for a in [*claimed, -99]])
    most = int((maximum_bipartite_matching(near, "column") >= 0).sum())
    assert len(unmatched(claimed, found, tolerance)) == len(claimed) - most


def test_the_unlocked_model_is_no_ladder(tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model")
    lock(model, tmp_path / "locked", preset="ladder")
    strength = read_manifest(tmp_path / "locked").strength
    from specdef.locks.kinds.ladder import KIND

    assert KIND.check(open_checkpoint(model), strength, None).passed is False
    assert KIND.check(open_checkpoint(model), strength, open_checkpoint(model)).passed is False


def test_inspect_tells_a_ladder_from_a_fold(tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model")
    lock(model, tmp_path / "ladder", preset="ladder")
    lock(model, tmp_path / "fold", preset="exact", multiplier="2^30")
    for name in ("ladder", "fold"):
        sign = inspect_model(tmp_path / name).verdict.sign
        assert sign is not None
        assert sign.lock == name


def test_a_model_in_memory_is_locked_and_unlocked_to_the_bit(tmp_path: Path) -> None:
    module = loaded(pico.build("llama", tmp_path / "model"))
    ids = torch.arange(3, 40).view(1, -1)
    before, weights = module(ids).logits, {name: value.clone() for name, value in module.state_dict().items()}
    locked = lock_module(module, preset="ladder")
    assert any(not torch.equal(weights[name], value) for name, value in module.state_dict().items())
    assert torch.equal(module(ids).logits, before)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    unlock_module(module, locked.key)
    assert all(torch.equal(weights[name], value) for name, value in module.state_dict().items())


def test_the_plan_is_the_same_each_time(tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model")
    first, second = _plan(model), _plan(model)
    assert first == second


def test_rungs_stay_off_channels_that_cannot_be_scaled(tmp_path: Path) -> None:
    """The most constant channel holds a subnormal weight, which no power of two keeps: another one is taken."""
    model = _with_constant_channel(pico.build("llama", tmp_path / "model"))
    weights = load_file(model / "model.safetensors")
    weights["model.layers.0.mlp.gate_proj.weight"][0, CONSTANT] = 1e-40
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    hot = {channel.pair: channel.channel for channel in _plan(model).channels if channel.side == "consumer"}
    assert hot["norm.0.attention"] == CONSTANT
    assert hot["norm.0.mlp"] != CONSTANT


def test_the_manifest_says_what_was_read_and_where_the_lock_is_exact(tmp_path: Path) -> None:
    """A folder without a tokenizer is read random tokens; Gemma's norms are exact in the dtype they are stored in."""
    for family, dtype, exact_in in (
        ("llama", torch.bfloat16, ["bfloat16", "float32"]),
        ("gemma2", torch.bfloat16, ["bfloat16"]),
        ("gemma2", torch.float32, ["float32"]),
    ):
        model = pico.build(family, tmp_path / f"{family}-{dtype}", dtype=dtype)
        report = lock(model, tmp_path / "out", preset="ladder", dry_run=True)
        assert report.exactness["exact_in"] == exact_in
        assert report.strength["measured_on"] == "248 random tokens"
        runtimes = report.exactness["runtimes"]
        assert runtimes["survives"] == ["f32", "bf16"]
        kinds = {name: why.partition(":")[0] for name, why in runtimes["breaks"].items()}
        every = ", ".join(sorted(report.strength["exponents"]))
        assert kinds == {"f16-cache": "vo", **dict.fromkeys(("f16", "q8_0", "q4_k", "int8", "int8-dynamic"), every)}
    assert lock(pico.build("vit", tmp_path / "vit"), tmp_path / "out", preset="ladder", dry_run=True).strength[
        "measured_on"
    ] == ("4 random images")


def test_norms_that_config_has_loaded_in_bfloat16_are_exact_there_too(tmp_path: Path) -> None:
    """Before, a float32 Gemma that transformers loads in bfloat16 was given factors that only float32 holds."""
    model = pico.build("gemma2", tmp_path / "model")
    config = model / "config.json"
    config.write_text(config.read_text().replace('"float32"', '"bfloat16"'))
    report = lock(model, tmp_path / "locked", preset="ladder")
    assert report.exactness["bit_exact"]
    assert torch.equal(pico.run("gemma2", model), pico.run("gemma2", tmp_path / "locked"))


def test_pairs_and_layers_restrict_the_rungs(tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model")
    report = lock(model, tmp_path / "locked", preset="ladder", pairs=["vo", "updown"], layers=[1])
    assert set(report.strength["exponents"]) == {"vo", "updown"}
    assert report.strength["num_layers"] == 1


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model")
    half = pico.build("llama", tmp_path / "half", dtype=torch.float16)
    (tmp_path / "text.txt").write_text("Some text.\n")
    refused: list[tuple[Path, dict[str, object], str]] = [
        (half, {}, "float32 or bfloat16"),
        (model, {"multiplier": "1000"}, "power of two"),
        (model, {"multiplier": "2^61"}, "at most 2\\^60"),
        (model, {"margin": -1.0}, "`margin` must lie between"),
        (model, {"pairs": ["fc"]}, "`pairs` must be drawn"),
        (model, {"layers": [7]}, "`layers` must lie"),
        (model, {"calibration": str(tmp_path / "none.txt")}, "`calibration` must be a UTF-8 text file"),
        (model, {"calibration": str(tmp_path / "text.txt")}, "`calibration` must be left out"),
        (model, {"channels": 2}, "`channels` is no option of lock ladder"),
    ]
    for folder, options, message in refused:
        with pytest.raises(SpecdefError, match=message):
            lock(folder, tmp_path / "out", preset="ladder", **options)  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists()
    with pytest.raises(PlanError, match="`calibration` must be left out"):
        lock_module(loaded(model), preset="ladder", calibration="text.txt")


def test_a_classifier_without_a_padding_token_is_measured(tmp_path: Path) -> None:
    """Before, transformers' ValueError: it takes such a model one text at a time."""
    model = pico.build("llama-classifier", tmp_path / "model", pad_token_id=None)
    lock(model, tmp_path / "locked", preset="ladder")
    assert verify(tmp_path / "locked", original=model).passed


def test_an_encoder_decoder_is_given_a_text_on_both_sides(tmp_path: Path) -> None:
    """Before, transformers' ValueError: T5 has no decoder inputs of its own."""
    config = {"vocab_size": pico.VOCAB, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4}
    model = tmp_path / "model"
    transformers.T5ForConditionalGeneration(transformers.T5Config(**config)).save_pretrained(model)
    pico_text.write_tokenizer(model)
    report = lock(model, tmp_path / "locked", preset="ladder", map="auto")
    assert report.strength["measured_on"] == "512 tokens of the bundled prose"
    assert verify(tmp_path / "locked", original=model).passed


def test_a_model_that_does_not_run_is_one_sentence(tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model")
    checkpoint, module = open_checkpoint(model), loaded(model)
    pairs = resolve(checkpoint.config, checkpoint.shapes).pairs
    with pytest.raises(CheckpointError, match=r"Model LlamaForCausalLM cannot be loaded and run by transformers \("):
        measure(module, pairs, {"pixels": torch.zeros(1)})


def test_a_model_beyond_the_machines_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = pico.build("llama", tmp_path / "model")
    needed = 8 * sum(tensor.numel() for tensor in load_file(model / "model.safetensors").values())
    monkeypatch.setattr(prepare, "physical_memory", lambda: needed)
    lock(model, tmp_path / "fits", preset="ladder")
    monkeypatch.setattr(prepare, "physical_memory", lambda: needed - 1)
    with pytest.raises(PlanError, match="`preset` ladder must hold the model and its gradients in memory") as caught:
        lock(model, tmp_path / "out")
    assert "preset exact, which reads a tensor at a time" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_model_whose_gradients_are_not_finite_is_refused(tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model")
    checkpoint = open_checkpoint(model)
    pairs = resolve(checkpoint.config, checkpoint.shapes).pairs
    broken = dataclasses.replace(_measured(model), total=float("nan"))
    with pytest.raises(PlanError) as caught:
        plan_ladder(checkpoint, pairs, broken, LadderOptions())
    assert str(caught.value) == (
        "`model` must have finite outputs and gradients on the calibration text; their sum is nan. Repair its weights, "
        "or give another `calibration`."
    )


def test_a_channel_that_teaches_nothing_is_no_rung(tmp_path: Path) -> None:
    """No gradient, no level: a factor there would be as hot as nobody knows."""
    model = pico.build("llama", tmp_path / "model")
    checkpoint = open_checkpoint(model)
    pairs = [pair for pair in resolve(checkpoint.config, checkpoint.shapes).pairs if pair.id == "updown.0"]
    sums = np.zeros(pairs[0].size)
    sums[7] = 1.0
    measured = Measured({"updown.0": PairMeasure(None, sums, sums)}, 1.0)
    assert [c.channel for c in plan_ladder(checkpoint, pairs, measured, LadderOptions()).channels] == [7]


def test_remarks_are_how_hot_how_constant_where_it_runs_and_what_is_not_covered(tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model")
    said = lock(model, tmp_path / "locked", preset="ladder", dry_run=True).remarks
    assert [part.split()[0] for part in said] == [said[0].split()[0], "What", "By", "Parameters"]
    assert "powers of two above the level at which the whole model trains; measured on" in said[0]
    assert said[1].startswith("What the hot channels carry is constant: mean over standard deviation ")
    assert said[2].endswith(" For a runtime that it damages, use preset exact with `--runtimes`.")
    assert said[3] == "Parameters in no pair, such as the embeddings, train as before: no exact lock covers them."
