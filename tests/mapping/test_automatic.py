"""The automatic map: what it finds of declared families and of undeclared ones, and that bits decide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pico
import pytest
import torch
from transformers import AutoConfig

from specdef.architectures.registry import architecture_of
from specdef.architectures.resolve import ResolvedPair, ResolvedSlot, resolve
from specdef.architectures.written import architecture_from
from specdef.checkpoint.reader import open_checkpoint
from specdef.core.schema import convert, plain
from specdef.errors import ArchitectureError
from specdef.mapping.automatic import MapReport, automatic_map, map_checkpoint
from specdef.mapping.proof import prove, scale
from specdef.mapping.source import family_source
from specdef.mapping.twin import Twin, build_twin

DAILY = ("llama", "gemma2", "gpt2", "opt", "phi3", "qwen3_moe", "bert")
OTHERS = sorted(set(pico.PICOS) - set(DAILY))
NESTED = ("resnet", "resnet-cifar", "resnet-bottleneck", "resnet-bare")
"""Layers in stages of different widths, which no written map can say."""


def _mapped(name: str, folder: Path, **changes: Any) -> tuple[Path, MapReport]:
    pico.build(name, folder, **changes)
    return folder, map_checkpoint(open_checkpoint(folder))


def _places(slots: tuple[ResolvedSlot, ...], size: int) -> frozenset[tuple[Any, ...]]:
    return frozenset((s.tensor, s.axis, s.offset, tuple(tuple(s.indices(c)) for c in range(size))) for s in slots)


def _what(pair: ResolvedPair) -> tuple[Any, ...]:
    return _places(pair.producers, pair.size), _places(pair.consumers, pair.size), pair.degree, pair.kind


def _declared_are_found(name: str, folder: Path) -> None:
    folder, report = _mapped(name, folder)
    checkpoint = open_checkpoint(folder)
    declared = resolve(checkpoint.config, checkpoint.shapes).pairs
    found = resolve(checkpoint.config, checkpoint.shapes, architecture_from(report.written)).pairs
    known = {_what(pair) for pair in found}
    assert [pair.id for pair in declared if _what(pair) not in known] == []
    assert len({pair.id for pair in found}) == len(found)


@pytest.mark.parametrize("name", DAILY)
def test_every_declared_pair_is_among_what_the_probe_finds(name: str, tmp_path: Path) -> None:
    _declared_are_found(name, tmp_path / "model")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OTHERS if name not in NESTED])
def test_every_declared_pair_of_the_other_families_is_found_too(name: str, tmp_path: Path) -> None:
    _declared_are_found(name, tmp_path / "model")


def test_names_and_shapes_alone_are_no_proof(tmp_path: Path) -> None:
    """Gemma 1 binds to Llama's map, every tensor and shape of it, and its norms multiply by 1 + weight."""
    folder, report = _mapped("gemma", tmp_path / "model")
    checkpoint = open_checkpoint(folder)
    bound = resolve(checkpoint.config, checkpoint.shapes, architecture_of({"model_type": "llama"}))
    assert {pair.kind for pair in bound.pairs} >= {"norm", "vo", "updown"}

    twin = build_twin(AutoConfig.from_pretrained(folder), pico.class_of("GemmaForCausalLM"))
    pairs = resolve(twin.config, twin.shapes, architecture_of({"model_type": "llama"})).pairs
    sets = {kind: [pair for pair in pairs if pair.kind == kind] for kind in ("norm", "vo", "updown")}
    outcomes = prove(twin, sets)
    assert {kind: outcome.kept for kind, outcome in outcomes.items()} == {"norm": False, "vo": True, "updown": True}
    assert "outputs change in float32" in outcomes["norm"].said

    norms = [one.pair for one in report.kept if one.pair.kind == "norm"]
    assert [slot.offset for pair in norms for slot in pair.producers] == [1.0, 1.0]


@pytest.fixture(scope="module")
def twin() -> Twin:
    config = pico.class_of("LlamaConfig")(**pico.DECODER)
    return build_twin(config, pico.class_of("LlamaForCausalLM"))


def test_a_pair_without_one_of_its_readers_is_refused(twin: Twin) -> None:
    pairs = resolve(twin.config, twin.shapes).pairs
    norm = next(pair for pair in pairs if pair.kind == "norm")
    lacking = replace(norm, consumers=norm.consumers[:-1])
    outcomes = prove(twin, {"whole": [norm], "lacking": [lacking]})
    assert outcomes["whole"].kept
    assert outcomes["whole"].exact == {"float32": True, "bfloat16": True}
    assert not outcomes["lacking"].kept


def test_a_wrong_degree_is_refused(twin: Twin) -> None:
    pair = next(pair for pair in resolve(twin.config, twin.shapes).pairs if pair.kind == "updown")
    assert not prove(twin, {"": [replace(pair, degree=2)]})[""].kept


def test_one_bit_of_one_output_is_enough_to_refuse(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared is every bit, not nearness."""
    pair = next(pair for pair in resolve(twin.config, twin.shapes).pairs if pair.kind == "updown")
    whole = Twin.outputs
    calls = []

    def off_by_one_bit(self: Twin, seed: int) -> torch.Tensor:
        said = whole(self, seed)
        calls.append(seed)
        if len(calls) == 8:  # the last of the scaled model's in the first dtype
            said = said.clone()
            said.view(-1)[0] = torch.nextafter(said.view(-1)[0], torch.tensor(torch.inf))
        return said

    monkeypatch.setattr(Twin, "outputs", off_by_one_bit)
    outcome = prove(twin, {"": [pair]})[""]
    assert outcome.exact["float32"] is False
    assert not outcome.kept


def test_the_twin_is_as_it_was_after_a_proof(twin: Twin) -> None:
    before = twin.values()
    prove(twin, {"": resolve(twin.config, twin.shapes).pairs})
    assert torch.equal(twin.values(), before)


def test_scaling_touches_the_slots_of_a_pair_and_nothing_else(twin: Twin) -> None:
    pair = next(pair for pair in resolve(twin.config, twin.shapes).pairs if pair.kind == "vo")
    values = twin.values()
    changed = scale(twin, values, [pair]) != values
    own = torch.zeros_like(changed)
    for slot in pair.slots:
        own[twin.ids[slot.tensor].reshape(-1)] = True
    assert bool(changed.any())
    assert not bool((changed & ~own).any())


def test_the_map_is_found_on_other_widths_than_it_is_bound_to(tmp_path: Path) -> None:
    folder, report = _mapped("gemma", tmp_path / "model", hidden_size=40, intermediate_size=72, head_dim=12)
    assert report.num_pairs == 9
    shapes = open_checkpoint(folder).shapes
    assert shapes["model.layers.0.mlp.up_proj.weight"] == (72, 40)


def test_layers_of_different_make_are_told_apart(tmp_path: Path) -> None:
    folder, report = _mapped("qwen3_moe-mixed", tmp_path / "model")
    assert len(report.written.kinds) == 2
    checkpoint = open_checkpoint(folder)
    pairs = resolve(checkpoint.config, checkpoint.shapes, architecture_from(report.written)).pairs
    assert len(pairs) == len(resolve(checkpoint.config, checkpoint.shapes).pairs)


def test_a_layer_that_no_twin_shows_is_refused(tmp_path: Path) -> None:
    pico.build("gemma", tmp_path / "model")
    checkpoint = open_checkpoint(tmp_path / "model")
    shapes = {**checkpoint.shapes, "model.layers.1.mlp.stranger.weight": (32, 32)}
    config = AutoConfig.from_pretrained(tmp_path / "model")
    with pytest.raises(ArchitectureError, match=r"Layer model\.layers\.1 must hold the tensors .* mlp\.stranger"):
        automatic_map(config, checkpoint.config, shapes, pico.class_of("GemmaForCausalLM"))


def test_what_the_form_cannot_say_is_reported_and_not_forced(tmp_path: Path) -> None:
    """BERT has no rotary embeddings, so query rows scale against key rows."""
    report = _mapped("bert", tmp_path / "model")[1]
    what = next(what for what in report.not_expressible if "query" in what)
    assert "key" in what
    assert "makes channels" in report.not_expressible[what]
    assert {one.pair.kind for one in report.kept} == {"vo"}


def test_a_written_map_survives_json(tmp_path: Path) -> None:
    report = _mapped("gemma", tmp_path / "model")[1]
    assert convert(plain(report.written), type(report.written)) == report.written


@pytest.mark.parametrize("name", ["gemma", "phi3", "qwen3_moe-mixed"])
def test_the_written_file_declares_the_same_pairs(name: str, tmp_path: Path) -> None:
    folder, report = _mapped(name, tmp_path / "model")
    names: dict[str, Any] = {}
    exec(compile(family_source(report.written), "family.py", "exec"), names)
    checkpoint = open_checkpoint(folder)
    (family,) = names["FAMILIES"]
    by_file = resolve(checkpoint.config, checkpoint.shapes, family).pairs
    by_data = resolve(checkpoint.config, checkpoint.shapes, architecture_from(report.written)).pairs
    assert list(map(_what, by_file)) == list(map(_what, by_data))
