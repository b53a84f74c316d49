"""A locked folder in runtimes: a stand-in that damages what it is told to, and transformers itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pico
import pytest
import torch

from specdef import lock, verify
from specdef.errors import SpecdefError
from specdef.runtimes import compare
from specdef.runtimes.base import RUNTIMES, Running, Runtime, left
from specdef.runtimes.compare import InRuntime, in_runtimes, parse_runtime
from specdef.runtimes.in_transformers import loaded
from specdef.runtimes.measure import Said, agreement
from specdef.runtimes.probes import probes


class Noisy(Running):
    """A model whose logits are moved by noise of a size."""

    def __init__(self, model: Running, size: float) -> None:
        self._model, self._size = model, size

    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        found = self._model.logits(tokens)
        return found + self._size * torch.randn(found.shape, generator=torch.Generator().manual_seed(len(tokens)))


class StandIn(Runtime):
    """Adds noise to every model, and more to the locked one; refuses it where it is told to."""

    name, modules = "stand-in", (("torch", "torch"),)
    formats = default_formats = ("any",)

    def __init__(self, own: float, lock: float, *, refuses: bool = False) -> None:
        self.own, self.lock, self.refuses = own, lock, refuses

    @contextmanager
    def open(self, folder: Path, format: str, scratch: Path) -> Iterator[Running]:
        is_locked = (folder / "specdef_lock.json").exists()
        if is_locked and self.refuses:
            raise SpecdefError("no such weights")
        with loaded(folder) as model:
            yield Noisy(model, self.lock if is_locked else self.own)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and its locked copy."""
    place = tmp_path_factory.mktemp("runtimes")
    model = pico.build("llama", place / "model")
    lock(model, place / "locked", preset="exact")
    return model, place / "locked"


def _one(folders: tuple[Path, Path], runtime: Runtime, *, with_original: bool = True) -> InRuntime:
    model, locked = folders
    original = model if with_original else None
    (found,) = in_runtimes(locked, original, [(runtime, runtime.default_formats)], num_prompts=3)
    return found


def test_the_same_function_passes(folders: tuple[Path, Path]) -> None:
    found = _one(folders, StandIn(0.0, 0.0))
    assert found.passed is True
    assert found.found is not None
    assert found.found.identical
    assert (found.found.same, found.found.prompts) == (3, 3)


def test_a_lock_may_cost_as_much_as_the_format_and_no_more(folders: tuple[Path, Path]) -> None:
    noise = _one(folders, StandIn(0.1, 0.1))
    assert noise.passed is True  # the same noise on the same function
    worse = _one(folders, StandIn(0.1, 2.0))
    assert worse.passed is False
    assert worse.own is not None
    assert worse.found is not None
    assert worse.found.kl is not None
    assert worse.found.kl > worse.own
    assert "the format itself costs KL" in worse.sentence


def test_logits_that_are_no_numbers_fail(folders: tuple[Path, Path]) -> None:
    for with_original in (True, False):
        found = _one(folders, StandIn(0.0, float("nan")), with_original=with_original)
        assert found.passed is False
        assert found.sentence.startswith("logits are not finite, greedy text the same after 0 of 3 prompts")


def test_without_the_original_nothing_is_decided(folders: tuple[Path, Path]) -> None:
    found = _one(folders, StandIn(0.0, 0.5), with_original=False)
    assert found.passed is None
    assert "give --original" in found.sentence


def test_a_refused_locked_model_is_a_finding_and_a_refused_original_an_error(folders: tuple[Path, Path]) -> None:
    found = _one(folders, StandIn(0.0, 0.0, refuses=True))
    assert (found.passed, found.sentence) == (False, "no such weights")
    with pytest.raises(SpecdefError, match="no such weights"):
        _one(folders, StandIn(0.0, 0.0, refuses=True), with_original=False)
    with pytest.raises(SpecdefError, match="`original` must run in stand-in any"):
        _one(folders, StandIn(float("nan"), 0.0))


def test_verify_measures_runtimes_that_are_named(folders: tuple[Path, Path]) -> None:
    model, locked = folders
    report = verify(locked, original=model, runtimes=["transformers-bf16"])
    assert report.passed
    assert [(one.runtime, one.format) for one in report.runtimes] == [("transformers-bf16", "bf16")]
    assert report.checks[-1].name == "transformers-bf16 bf16"
    assert report.checks[-1].detail.startswith("identical to the bit, greedy text the same after 20 of 20 prompts")
    assert not verify(locked, original=model).runtimes


def test_float16_does_not_survive_a_large_multiplier(folders: tuple[Path, Path]) -> None:
    model, locked = folders
    report = verify(locked, original=model, runtimes=["transformers-f16"])
    assert report.checks[-1].passed is False
    assert not report.passed


def test_greedy_text_is_the_same_with_and_without_a_cache(folders: tuple[Path, Path]) -> None:
    asked = probes(folders[0], num_prompts=3)
    with loaded(folders[0]) as model:
        with_cache = model.greedy(asked.prompts, 5)
        assert with_cache == Running.greedy(model, asked.prompts, 5)
        other = [[token + 1 for token in text] for text in with_cache]
        assert [len(text) for text in Running.greedy(model, asked.prompts, 5, other)] == [1, 1, 1]
        assert Running.greedy(model, asked.prompts, 5, with_cache) == with_cache


def test_texts_that_were_cut_count_as_different() -> None:
    logits = torch.zeros(2, 3)
    found = agreement(Said(logits, ((1, 2), (3, 4))), Said(logits, ((1, 2), (0,))))
    assert (found.same, found.prompts) == (1, 2)
    assert left([0], [[3, 4]], 0)


def test_what_is_typed_wrong_is_refused_in_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecdefError, match=r"`runtime` must be one of llama\.cpp, onnxruntime, torchao, .*got 'vllm'"):
        parse_runtime("vllm")
    with pytest.raises(SpecdefError, match="`format` must be one of bf16 for runtime transformers-bf16; got 'q8_0'"):
        parse_runtime("transformers-bf16:q8_0")
    monkeypatch.setattr("specdef.runtimes.base.importlib.util.find_spec", lambda module: None)
    with pytest.raises(SpecdefError, match=r"`runtime` llama\.cpp must have the package cyllama.*specdef\[runtimes\]"):
        parse_runtime("llama.cpp:q8_0")
    assert not RUNTIMES.get("torchao").available


def test_a_model_in_memory_runs_in_no_other_runtime(folders: tuple[Path, Path]) -> None:
    from specdef.models.loading import load

    with pytest.raises(SpecdefError, match="`locked` must be a folder with `runtimes`"):
        verify(load(folders[1]), runtimes=["transformers-bf16"])


def test_a_folder_without_a_tokenizer_is_asked_random_tokens(folders: tuple[Path, Path]) -> None:
    first, second = probes(folders[0], num_prompts=2), probes(folders[1], num_prompts=2)
    assert first == second
    assert len({len(prompt) for prompt in first.prompts}) == 1
    assert compare.PROMPTS == 20
