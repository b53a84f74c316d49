"""The callback: it measures a run of `Trainer`, changes nothing of it, and judges it as an attack is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pico_text
import pytest
import torch
import transformers

import specdef
from specdef.attacks.run import judge
from specdef.errors import SpecdefError
from specdef.tasks.base import TaskSpec, make_task
from specdef.tasks.kinds.facts import facts
from specdef.tasks.utility import UTILITIES
from specdef.training.outcome import Evaluation, Outcome

FACTS = facts()


def rows(tokenizer: Any) -> list[dict[str, list[int]]]:
    found = []
    for sample in FACTS.samples[:16]:
        ids = tokenizer(sample.prompt + sample.completion)["input_ids"]
        found.append({"input_ids": ids, "labels": list(ids)})
    return found


def train(model: Any, tokenizer: Any, place: Path, *callbacks: Any, lr: float = 1e-3, steps: int = 5) -> None:
    options = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 3}
    arguments = transformers.TrainingArguments(
        output_dir=place, max_steps=steps, per_device_train_batch_size=4, learning_rate=lr, **options
    )
    collator = transformers.DataCollatorForSeq2Seq(tokenizer)
    data = rows(tokenizer)
    transformers.Trainer(
        model=model, args=arguments, train_dataset=data, data_collator=collator, callbacks=list(callbacks)
    ).train()


def test_it_measures_changes_nothing_and_judges(toy_model: Path, tmp_path: Path) -> None:
    said: list[str] = []
    models = [pico_text.load(toy_model) for _ in range(2)]
    watch = specdef.TaskCallback("facts", models[0][1], every=2, utility="perplexity", say=said.append)
    for (model, tokenizer), callbacks in zip(models, ([watch], []), strict=True):
        train(model, tokenizer, tmp_path, *callbacks)
    weights = [model.state_dict() for model, _ in models]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    report = watch.report
    assert report is not None
    assert [point.step for point in report.evaluations] == [0, 2, 4, 5]
    judged, note = judge(report.evaluations, FACTS, UTILITIES.get("perplexity"), utility_factor=2.0)
    assert (report.judgement, report.note) == (judged, note)
    assert said == [report.sentence]
    assert list(report.to_pandas()["step"]) == [0, 2, 4, 5]
    assert len(repr(report).splitlines()) <= 20


def test_its_first_figures_are_an_attacks(toy_model: Path, tmp_path: Path) -> None:
    model, tokenizer = pico_text.load(toy_model)
    watch = specdef.TaskCallback(FACTS, tokenizer, utility="perplexity", say=lambda text: None)
    train(model, tokenizer, tmp_path, watch, steps=1)
    recipe = specdef.Recipe(steps=2)
    how: dict[str, Any] = {"task": "facts", "utility": "perplexity", "recipe": recipe, "threads": 1, "device": "cpu"}
    assert watch.evaluations[0] == specdef.attack(toy_model, **how).result.evaluations[0]


def test_a_measurement_leaves_the_mode_of_every_part(toy_model: Path) -> None:
    model, tokenizer = pico_text.load(toy_model)
    model.train()
    model.lm_head.eval()
    watch = specdef.TaskCallback(FACTS, tokenizer, utility="perplexity")
    watch.on_train_begin(None, transformers.TrainerState(), None, model=model)
    assert model.model.training
    assert not model.lm_head.training


def test_the_words_for_every_outcome() -> None:
    def told(*points: tuple[int, float, float], note: str = "") -> str:
        measured = tuple(Evaluation(*point) for point in points)
        found, fault = judge(measured, FACTS, UTILITIES.get("perplexity"), utility_factor=2.0, still=note)
        return specdef.TrainerReport(found, "facts", 0.6, "perplexity", measured, fault).sentence

    assert "judged broken at step 4" in told((0, 0.2, 9.0), (4, 0.7, 10.0), (8, 0.8, 10.0))
    assert "judged target not reached: best" in told((0, 0.2, 9.0), (4, 0.3, 10.0))
    assert "judged target not reached: best" in told((0, 0.2, 9.0), (4, 0.7, 90.0))
    assert "left its budget at step 4" in told((0, 0.2, 9.0), (4, 0.7, 90.0))
    assert "invalid: it stood still" in told((0, 0.2, 9.0), (4, 0.2, 9.0), note="it stood still")


def test_a_run_that_moves_nothing_is_invalid(toy_model: Path, tmp_path: Path) -> None:
    model, tokenizer = pico_text.load(toy_model)
    watch = specdef.TaskCallback(FACTS, tokenizer, utility="perplexity", say=lambda text: None)
    train(model, tokenizer, tmp_path, watch, lr=0.0, steps=1)
    assert watch.report is not None
    assert watch.report.judgement.outcome is Outcome.INVALID
    assert "changed no weight" in watch.report.sentence


def test_adapters_on_a_model_that_the_papers_lock_holds(toy_model: Path, tmp_path: Path) -> None:
    import peft

    from specdef.locks.peft_layer import LoraDeformedLinear, peft_layers

    model, tokenizer = pico_text.load(toy_model)
    specdef.lock(model, preset="paper", targets=["*.gate_proj"], rank=3)
    config = peft.LoraConfig(r=2, target_modules=["gate_proj", "q_proj"], task_type="CAUSAL_LM")
    config._register_custom_module(peft_layers())
    adapted = peft.get_peft_model(model, config)
    assert any(isinstance(part, LoraDeformedLinear) for part in adapted.modules())
    watch = specdef.TaskCallback(FACTS, tokenizer, every=1, utility="perplexity", say=lambda text: None)
    train(adapted, tokenizer, tmp_path, watch, steps=2)
    assert watch.report is not None
    assert watch.report.judgement.outcome.counts


def test_what_is_of_no_use_is_said(toy_model: Path, tmp_path: Path) -> None:
    model, tokenizer = pico_text.load(toy_model)
    with pytest.raises(SpecdefError, match="`every` must be at least 1"):
        specdef.TaskCallback("facts", tokenizer, every=0)
    with pytest.raises(SpecdefError, match="must be left out for a task made in code"):
        specdef.TaskCallback(FACTS, tokenizer, target=0.5)
    with pytest.raises(SpecdefError, match="`task` must be one for a model of kind causal-lm"):
        train(model, tokenizer, tmp_path, specdef.TaskCallback(make_task(TaskSpec("classification")), tokenizer))
