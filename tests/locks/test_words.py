"""What a lock says of itself, word by word: in its manifest, its card, its remarks, and where it has too few "
"channels."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pico
import pytest
import torch
from torch import nn

from specdef import inspect_model, lock, lock_module
from specdef.errors import PlanError
from specdef.locks.deformed_linear import DeformedLinear
from specdef.locks.entry import LayerEntry
from specdef.locks.kinds.fold import choose
from specdef.locks.kinds.fold.choose import _too_few
from specdef.locks.kinds.fold.options import FoldOptions
from specdef.locks.kinds.inject import memory
from specdef.locks.runtimes import survival

WEAK = (
    "This lock is weak: it scales one kind of pair, vo. Whoever leaves its matrices alone trains the rest at ordinary "
    "rates, because every other gradient is what it was."
)
PLAN = "Plan for those that you need with `--runtimes NAME,...`; `specdef verify OUT --runtime NAME` measures."
CACHE = "a cache in the model's own dtype is exact; a float16 or fp8 cache"


@pytest.mark.parametrize(
    ("direction", "cache"), [("up", "overflows on scaled value channels"), ("down", "loses scaled value channels")]
)
def test_of_a_fold_lock(direction: str, cache: str, llama: Path, tmp_path: Path) -> None:
    report = lock(llama, tmp_path / "locked", preset="exact", pairs=["vo"], direction=direction, channels=2, layers=[1])
    assert report.strength == {
        "multiplier": "2^20",
        "exponent": 20,
        "direction": direction,
        "channels_per_pair": 2,
        "pairs": {"vo": 1},
        "num_layers": 1,
    }
    runtimes = report.exactness["runtimes"]
    assert runtimes["survives"] == ["f32", "bf16"]
    assert list(runtimes["breaks"]) == ["f16-cache", "f16", "q8_0", "q4_k", "int8", "int8-dynamic"]
    assert {**report.exactness, "runtimes": None} == {
        "runtimes": None,
        "bit_exact": True,
        "closeness": "bit-identical",
        "stored_dtypes": ["F32"],
        "exact_in": ["bfloat16", "float32"],
        "not_claimed_in": ["float16"],
        "kv_cache": f"{CACHE} {cache}",
        "quantisation": "quantising the locked model afterwards damages the channels it divides",
        "headroom": {"F32": "at most 2^60 either way; every touched weight checked exact and normal"},
        "left_out": {},
    }
    assert (report.out, report.key) == (tmp_path / "locked", tmp_path / "locked.specdef-key")
    assert report.remarks[:2] == (WEAK, "Leave out `pairs` to lock every kind this model has.")
    assert report.remarks[2:] == (f"{survival(runtimes)} {PLAN}",)
    assert report.num_values == 2 * 32 + 2 * 2 * 32  # two rows of V, two columns of each of the two heads that read it
    card = (tmp_path / "locked" / "SPECDEF_LOCK.md").read_text()
    assert card.startswith(
        "# This model is locked by specdef\n\nIts function is the original's (bit-identical) in transformers. "
        "Other runtimes and formats are named below, by rule; `specdef verify DIR --runtime NAME` measures one. "
        "Fine-tuning it as usual is made to diverge. "
        "Method `fold`, "
        "multiplier 2^20.\n\n- Function claimed in: bfloat16, float32. Not claimed in: float16.\n"
        f"- A cache in the model's own dtype is exact; a float16 or fp8 cache {cache}.\n"
        "- Quantising the locked model afterwards damages the channels it divides.\n"
        "- Runs as the original, by rule, in: f32, bf16. Damaged in: f16-cache, f16, q8_0, q4_k, int8, "
        "int8-dynamic.\n\nA lock raises the cost"
    )


def test_of_an_inject_lock(llama: Path, tmp_path: Path) -> None:
    report = lock(
        llama, tmp_path / "locked", preset="paper", rank=3, layers=[1], components=["v_proj"], multiplier="1e3"
    )
    module = "model.layers.1.self_attn.v_proj"
    assert report.strength == {
        "multiplier": "1000",
        "top_k": 3,
        "basis": "svd",
        "form": "dense",
        "matrices": [module],
        "compensation_dtype": "float32",
        "extra_ratio": 2.0,  # [32, 32] beside [16, 32]
    }
    error = report.exactness["function_error"]
    assert 0 < error < 1e-4
    assert report.exactness == {
        "bit_exact": False,
        "closeness": f"within {error:.1e} relative per locked layer",
        "function_error": error,
        "stored_dtypes": ["float32"],
        "exact_in": ["float32"],
        "not_claimed_in": [],
        "kv_cache": "activations outside the locked layers keep their range, so any cache the model allows works",
        "quantisation": "quantising the locked layers destroys the function; loading needs `import specdef`",
    }
    assert report.remarks == (
        "Compensation adds 200.0% of the locked matrices' own parameters.",
        "Runs in transformers after `import specdef` only; without it the folder is refused. A runtime that "
        "reads weights by name leaves the compensation out and computes nonsense.",
    )
    card = (tmp_path / "locked" / "SPECDEF_LOCK.md").read_text()
    assert "\n- Function claimed in: float32. Not claimed in: any other dtype.\n" in card
    for spectra, found, exponent in ((True, "spectral jumps", 10), (False, "compensation tensors", None)):
        sign = inspect_model(tmp_path / "locked", spectra=spectra).verdict.sign
        assert sign is not None
        assert (sign.lock, sign.exponent, sign.found) == ("inject", exponent, f"{found} in 1 matrices")
        assert (sign.tensors, sign.layers) == ((f"{module}.weight",), (1,))


def test_a_fold_lock_of_every_pair_says_who_trains_it_and_what_lasts_longer(llama: Path, tmp_path: Path) -> None:
    """A weak one has worse to say, and one planned for runtimes has no ladder that would run there."""
    stronger = (
        "Whoever lowers the learning rate far enough trains this lock. Preset `ladder` held at every rate tried on a "
        "language model (docs/results.md); to plan, it runs the model once."
    )
    assert lock(llama, tmp_path / "a", preset="exact", dry_run=True).remarks[-1] == stronger
    for options in (
        {"preset": "exact", "pairs": ["vo"]},
        {"preset": "exact", "runtimes": ["f16-cache"]},
        {"preset": "ladder"},
        {"preset": "paper", "rank": 2},
    ):
        assert stronger not in lock(llama, tmp_path / "a", dry_run=True, **options).remarks


def test_a_family_with_one_kind_of_pair_says_why_there_is_no_other(tmp_path: Path) -> None:
    model = pico.build("bert", tmp_path / "model")
    assert lock(model, tmp_path / "locked", preset="exact").remarks[:2] == (
        WEAK,
        "This BERT model has no other exact pair: LayerNorm -> its readers (post-norm: its output is also the residual "
        "stream of the next block); intermediate.dense -> output.dense under GELU (GELU is not homogeneous; "
        "offered where "
        "the config says ReLU); query -> key (exact without rotary embeddings, but no pair kind specdef plans: "
        "left out "
        "until it is measured); prediction head (its GELU and its tied decoder leave no pair; a fine-tuner replaces it "
        "anyway).",
    )


@pytest.mark.parametrize(
    ("fitting", "hint"),
    [
        ({3, 5, 25, 30}, "Nearest multipliers that fit: 2^5 and 2^25."),
        ({1}, "Nearest multipliers that fit: 2^1."),
        ({60}, "Nearest multipliers that fit: 2^60."),
        ({0, 20, 61}, "No multiplier fits; leave this kind out with `pairs`, or convert the model to float32."),
    ],
)
def test_too_few_channels_name_what_fits(fitting: set[int], hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither beyond 2^60 nor below 2."""

    def usable(checkpoint: object, where: object, signed: list[tuple[Any, int]], *_rest: Any) -> Any:
        return np.array([True, signed[0][1] in fitting, False])

    monkeypatch.setattr(choose, "usable_channels", usable)
    slots = [SimpleNamespace(tensor=name) for name in ("v", "v", "o")]
    pair: Any = SimpleNamespace(id="vo.3", producers=slots[:2], consumers=slots[2:], slots=slots, degree=1)
    checkpoint: Any = SimpleNamespace(config={})
    where: Any = {name: ("model.safetensors", SimpleNamespace(dtype="F32")) for name in "vo"}
    found = _too_few(checkpoint, where, pair, FoldOptions(channels=2), 20, [0, 1, 2])
    assert isinstance(found, PlanError)
    assert str(found) == (
        "Pair vo.3 must have 2 channels that 2^20 (up) scales exactly; it has fewer in v, o (overflow, "
        "subnormals, zero "
        f"channels or an offset). {hint}"
    )


def test_of_modules_in_memory(llama: Path) -> None:
    from specdef.models.loading import load

    found = lock_module(load(llama), preset="exact")
    assert (found.lock, found.key.lock, found.report.exponent) == ("fold", "fold", 20)
    tight = nn.Sequential(nn.Linear(8, 8))
    assert lock_module(tight, targets=["0"], rank=2).lock == "inject"
    with pytest.raises(PlanError, match=r"relative error of the layer within 1\.0e-20"):
        lock_module(nn.Sequential(nn.Linear(8, 8)), targets=["0"], rank=2, tolerance=1e-20)


def test_a_module_is_locked_with_the_generator_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    real = memory.deform
    monkeypatch.setattr(
        memory, "deform", lambda *a, **options: given.append(options["generator"]) or real(*a, **options)
    )
    generator = torch.Generator()
    lock_module(nn.Sequential(nn.Linear(8, 8)), targets=["0"], rank=2, generator=generator)
    assert given == [generator]


@pytest.mark.parametrize("form", ["dense", "low_rank", "diagonal"])
def test_a_locked_layer_is_made_where_it_is_asked_for(form: str) -> None:
    entry = LayerEntry("output", form, "svd", "float64", "bfloat16", 3)  # type: ignore[arg-type]
    made = DeformedLinear(5, 7, entry, bias_dtype=torch.float16, device="meta")
    assert all(tensor.is_meta for tensor in (*made.parameters(), *made.buffers()))
    assert made.bias is not None
    assert (made.bias.dtype, made.bias.shape, made.weight.dtype, made.weight.shape) == (
        torch.float16,
        (7,),
        torch.bfloat16,
        (7, 5),
    )
