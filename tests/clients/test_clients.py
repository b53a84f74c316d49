"""The runtimes themselves, on tiny models: their formats load, an exact lock runs there, and what breaks is seen."""

from __future__ import annotations

from pathlib import Path

import pico
import pytest

from specdef import lock
from specdef.errors import SpecdefError
from specdef.runtimes.base import RUNTIMES
from specdef.runtimes.compare import InRuntime, in_runtimes, parse_runtime

WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
INSTALLED = {name: pytest.mark.skipif(not RUNTIMES.get(name).available, reason=name) for name in RUNTIMES.names()}


def _measured(tmp_path: Path, family: str, runtime: str, **options: object) -> list[InRuntime]:
    model = pico.build(family, tmp_path / "model", **WIDE)
    lock(model, tmp_path / "locked", **options)  # type: ignore[call-overload]
    return in_runtimes(tmp_path / "locked", model, [parse_runtime(runtime)], num_prompts=4)


@INSTALLED["llama.cpp"]
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_llama_cpp_computes_what_transformers_computes(family: str, tmp_path: Path) -> None:
    """In float32 with a float32 cache the unlocked model is the same to rounding, so the GGUF file is right."""
    found = _measured(tmp_path, family, "llama.cpp:f32+f32-cache,bf16+f32-cache")
    assert found[0].own is not None
    assert found[0].own < 1e-6
    assert [one.passed for one in found] == [True, True]


@INSTALLED["llama.cpp"]
def test_a_large_multiplier_is_seen_to_break_llama_cpp(tmp_path: Path) -> None:
    found = _measured(tmp_path, "llama", "llama.cpp:f32,q8_0")
    assert [one.passed for one in found] == [False, False]


@INSTALLED["llama.cpp"]
def test_a_plan_within_the_budget_gives_the_same_quantised_model(tmp_path: Path) -> None:
    found = _measured(tmp_path, "llama", "llama.cpp:f32,q8_0", runtimes=["f16-cache", "q8_0"])
    assert [one.passed for one in found] == [True, True]
    assert found[1].found is not None
    assert found[1].found.same == 4


@INSTALLED["llama.cpp"]
def test_llama_cpp_refuses_a_family_that_is_not_converted(tmp_path: Path) -> None:
    model = pico.build("gpt2", tmp_path / "model")
    with pytest.raises(SpecdefError, match=r"`runtime` llama\.cpp must get a model of llama, mistral, qwen2"):
        in_runtimes(model, None, [parse_runtime("llama.cpp:f32")])


@INSTALLED["torchao"]
def test_torchao_loads_and_costs_something(tmp_path: Path) -> None:
    (found,) = _measured(tmp_path, "llama", "torchao:int8", multiplier="2^2")
    assert found.own is not None
    assert found.own > 0
    assert found.found is not None
    assert found.found.kl is not None


@INSTALLED["onnxruntime"]
def test_onnx_runtime_runs_an_exact_lock(tmp_path: Path) -> None:
    (found,) = _measured(tmp_path, "llama", "onnxruntime:f32")
    assert found.passed is True
