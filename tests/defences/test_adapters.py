"""Adapters of a defence: trained, merged, gone; and a run that was killed goes on as if it had not been."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pico
import pico_text
import pytest
import torch
from safetensors.torch import load_file
from unlearning import Make

from specdef.defences import unfinished
from specdef.defences.adapters import AdapterObjective, AdapterOptions, with_adapters
from specdef.defences.base import DEFENCES
from specdef.defences.defend import defend
from specdef.errors import SpecdefError
from specdef.training.outcome import Evaluation

QUICK: dict[str, dict[str, Any]] = {
    "rr": {"rank": 2},
    "elm": {"rank": 2, "fluent_tokens": 2, "novice": "no:", "expert": "yes:"},
}
"""Methods that train adapters, with options that make them quick."""


class Killed(Exception):
    """Stands for a kill."""


def rows_file(folder: Path) -> Path:
    path = folder / "forget.jsonl"
    rows = [("The pet of Orla is a", " cat."), ("Ines lives in", " Lima."), ("A", " b")]
    path.write_text("".join(json.dumps({"prompt": a, "completion": b}) + "\n" for a, b in rows))
    return path


@pytest.mark.parametrize("method", QUICK)
def test_a_defended_folder_is_plain(toy_model: Path, tmp_path: Path, method: str) -> None:
    options = {"steps": 3, "lr": 1e-2, "eval_every": 3, "batch_size": 2, "utility_factor": 1e3, **QUICK[method]}
    report = defend(method, toy_model, tmp_path / "out", options=options, data={"forget": str(rows_file(tmp_path))})
    assert report.applied.steps == {"defend": 3}
    before, after = (load_file(folder / "model.safetensors") for folder in (toy_model, tmp_path / "out"))
    assert {name: (t.dtype, t.shape) for name, t in after.items()} == {n: (t.dtype, t.shape) for n, t in before.items()}
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all("_proj." in name for name in changed)
    assert not list((tmp_path / "out").glob("adapter*"))
    assert pico.run("llama", tmp_path / "out").isfinite().all()


@pytest.mark.parametrize("method", ["rr"])
def test_a_killed_run_goes_on_to_the_same_weights(
    toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(unfinished, "SECONDS", 0.0)
    options = {"steps": 4, "lr": 1e-2, "eval_every": 2, "batch_size": 2, "utility_factor": 1e3, **QUICK[method]}
    data = {"forget": str(rows_file(tmp_path))}
    seen: list[tuple[str, int]] = []

    def kill(stage: str, point: Evaluation) -> None:
        if point.step == 4:
            raise Killed

    def watch(stage: str, point: Evaluation) -> None:
        seen.append((stage, point.step))

    defend(method, toy_model, tmp_path / "whole", options=options, data=data)
    with pytest.raises(Killed):
        defend(method, toy_model, tmp_path / "out", options=options, data=data, progress=kill)
    assert not (tmp_path / "out").exists()
    defend(method, toy_model, tmp_path / "out", options=options, data=data, progress=watch)
    assert seen == [("resumed", 2), ("defend", 4)]
    whole, resumed = (tmp_path / name / "model.safetensors" for name in ("whole", "out"))
    assert whole.read_bytes() == resumed.read_bytes()
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_merging_keeps_the_function_and_leaves_nothing_of_peft(family: str, given_for: Make, tmp_path: Path) -> None:
    folder = pico.build(family, tmp_path / family)
    pico_text.write_tokenizer(folder)
    loaded = pico_text.loaded(folder)
    names = [name for name, _ in loaded.model.named_parameters()]
    attributes = set(vars(loaded.model))
    objective = AdapterObjective()
    objective.model = with_adapters(loaded, [0, 1], rank=2, lora_alpha=4, targets=("all",))
    batch = {"input_ids": torch.arange(2, 30)[None]}
    with torch.no_grad():
        start = objective.model.eval()(**batch).logits
        for name, parameter in objective.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
        trained = objective.model(**batch).logits
        with objective.given_model():
            assert torch.equal(objective.model(**batch).logits, start)
        assert torch.equal(objective.model(**batch).logits, trained)
        objective.finish()
        merged = loaded.model(**batch).logits
    assert float((trained - start).abs().max()) > 0.1
    torch.testing.assert_close(merged, trained, rtol=1e-4, atol=1e-4)
    assert [name for name, _ in loaded.model.named_parameters()] == names
    assert set(vars(loaded.model)) == attributes
    assert not [module for module in loaded.model.modules() if type(module).__module__.startswith("peft")]


def test_only_named_layers_get_adapters(toy_model: Path) -> None:
    model = with_adapters(pico_text.loaded(toy_model), [1], rank=2, lora_alpha=4, targets=("q_proj", "up_proj"))
    trained = [name for name, p in model.named_parameters() if p.requires_grad and "lora_A" in name]
    assert [name.split("model.layers.")[1].split(".lora")[0] for name in trained] == [
        "1.self_attn.q_proj",
        "1.mlp.up_proj",
    ]


def test_targets_the_model_has_not_are_refused(toy_model: Path) -> None:
    offered = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    with pytest.raises(SpecdefError, match=rf"`targets` must name linear layers .*\({offered}\); got 'c_attn,lm_head'"):
        with_adapters(pico_text.loaded(toy_model), [0], rank=2, lora_alpha=4, targets=("lm_head", "q_proj", "c_attn"))
    for bad in ((), ("",)):
        with pytest.raises(SpecdefError, match="`targets` must name linear layers, such as all or q_proj,v_proj"):
            AdapterOptions(targets=bad)


@pytest.mark.parametrize("method", QUICK)
def test_without_peft_one_sentence_says_what_to_install(
    toy_model: Path, given_for: Make, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else found(name, *rest))
    defence: Any = DEFENCES.get(method)
    given = replace(given_for(toy_model), seed=1)
    with pytest.raises(SpecdefError, match=r"need peft. Run `pip install specdef\[attack\]`\.$"):
        defence.objective(given, defence.Options())
