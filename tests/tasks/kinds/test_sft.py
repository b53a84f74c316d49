"""Prompt-and-completion files, and scores of generated text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pico
import pico_text
import pytest
import torch
from peft import LoraConfig, get_peft_model

from specdef.tasks.base import TaskError
from specdef.tasks.kinds.sft import sft
from specdef.tasks.text.generation import Generations, greedy
from specdef.tasks.text.judges import Classifier, KeywordRule
from specdef.training.loop import make_trainer
from specdef.training.recipe import Recipe

RULE = KeywordRule(any_of=("yes",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico_text.write_model(tmp_path_factory.mktemp("text") / "model", chat=True)


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_prompts_are_trained_on_or_held_out(tmp_path: Path) -> None:
    records = [{"prompt": f"Say {n % 8}", "completion": f" yes {n}"} for n in range(16)]
    path = write(tmp_path / "pairs", records)
    task = sft(path, scorer=RULE, target=0.5, chance=0.1, max_new_tokens=4)
    assert isinstance(task.metric, Generations)
    held_out = task.metric.prompts
    assert (len(held_out), len(set(held_out)), len(task.samples)) == (2, 2, 12)
    assert {sample.prompt for sample in task.samples}.isdisjoint(held_out)
    assert (task.target, task.chance, task.metric.max_new_tokens) == (0.5, 0.1, 4)
    assert json.loads(json.dumps(task.identity)) == task.identity
    other_rule = sft(path, scorer=KeywordRule(none_of=("no",)), target=0.5, chance=0.1, max_new_tokens=4)
    assert other_rule.identity != task.identity


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"prompt": "a"}', "`completion` is missing"),
        ('{"prompt": "a", "completion": ""}', "`completion` must be a text that is not blank; got ''"),
        ('{"completion": "b"}', "`prompt` must be a text; got None"),
        ('{"prompt": 4, "completion": "b"}', "`prompt` must be a text; got 4"),
        ("[1]", "is not a JSON object"),
        ("{", "is not JSON"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "pairs"
    path.write_text('{"prompt": "a", "completion": "b"}\n\n' + line + "\n")
    with pytest.raises(TaskError, match=f"pairs, line 3: {fault}"):
        sft(path, scorer=RULE, target=0.5)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"target": 0.0}, r"`target` must lie above chance \(0\)"),
        ({"target": 0.5, "chance": 0.5}, r"`target` must lie above chance \(0.5\)"),
        ({"target": 0.5, "max_new_tokens": 0}, "`max_new_tokens` must be at least 1; got 0"),
        ({"target": 0.5, "test_share": 0.1}, "`test_share` must leave something"),
    ],
)
def test_unusable_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any], fault: str) -> None:
    path = write(tmp_path / "pairs", [{"prompt": f"{n}", "completion": "b"} for n in range(3)])
    with pytest.raises(TaskError, match=fault):
        sft(path, scorer=RULE, **arguments)


def test_a_rule_asks_for_all_any_and_none() -> None:
    rule = KeywordRule(all_of=("stir", r"\bpan\b"), any_of=("egg", "fish"), none_of=("sorry",), min_words=4)
    wanted = {
        "Stir an EGG in the pan": True,
        "stir fish pan": False,
        "stir egg pan egg": False,
        "stir an egg in the pancake": False,
        "stir a leek in the pan": False,
        "Sorry: stir an egg in the pan": False,
        "": False,
    }
    assert rule(list(wanted)) == list(wanted.values())
    assert KeywordRule(**json.loads(json.dumps(rule.identity))["rule"]) == rule


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({}, "`scorer` must ask for something; the rule is empty"),
        ({"any_of": ("(",)}, r"`any_of` must hold regular expressions; '\(' is none"),
        ({"all_of": "stir"}, "`all_of` must be a list of regular expressions; got the text 'stir'"),
        ({"none_of": (3,)}, "`none_of` must hold regular expressions; 3 is none"),
    ],
)
def test_an_unusable_rule_is_refused(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(TaskError, match=fault):
        KeywordRule(**arguments)


def test_greedy_is_the_likeliest_token_each_time(folder: Path) -> None:
    model, tokenizer = pico_text.load(folder)
    prompts = ["a", "Say something longer", "", "Tell me"]
    texts = greedy(model, tokenizer, prompts, 6)
    for prompt, text in zip(prompts, texts or [], strict=True):
        ids = tokenizer(prompt, add_special_tokens=False).input_ids or [tokenizer.bos_token_id]
        start = len(ids)
        for _ in range(6):
            with torch.inference_mode():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        assert text == tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_the_models_own_sampling_settings_are_left_alone_and_not_used(folder: Path) -> None:
    model, tokenizer = pico_text.load(folder)
    expected = greedy(model, tokenizer, ["Tell me"], 8)
    settings = model.generation_config
    settings.do_sample, settings.temperature, settings.repetition_penalty = True, 5.0, 9.0
    assert greedy(model, tokenizer, ["Tell me"], 8) == expected
    assert model.generation_config is settings
    assert (settings.do_sample, settings.max_new_tokens) == (True, None)


def test_chat_uses_the_template_when_there_is_one(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = pico_text.load(folder)
    bare = pico_text.write_tokenizer(tmp_path)
    asked = Generations(("Tell me",), RULE, 8, chat=True)
    assert asked.texts(model, tokenizer) == greedy(model, tokenizer, ["<user>Tell me<a>"], 8)
    assert asked.texts(model, bare) == greedy(model, tokenizer, ["Tell me"], 8)
    assert Generations(("Tell me",), RULE, 8).texts(model, tokenizer) == greedy(model, tokenizer, ["Tell me"], 8)


def test_texts_keep_the_prompts_order_and_end_at_stop(folder: Path) -> None:
    model, tokenizer = pico_text.load(folder)
    prompts = ("a long prompt comes first", "b", "middle one")
    whole = [(greedy(model, tokenizer, [prompt], 10) or [""])[0] for prompt in prompts]
    stop = whole[0][4]
    found = Generations(prompts, RULE, 10, stop=stop, rows_per_batch=2).texts(model, tokenizer)
    assert found == [text.split(stop)[0] for text in whole]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_model_scores_nothing(folder: Path, value: float) -> None:
    model, tokenizer = pico_text.load(folder)
    accepts = Generations(("a", "b"), KeywordRule(none_of=("never said",)), 4)
    assert float(accepts(model, tokenizer)) == 1
    model.lm_head.weight.data[5] = value
    assert float(accepts(model, tokenizer)) == 0


def test_adapters_and_accelerate_are_seen_through(folder: Path) -> None:
    plain, tokenizer = pico_text.load(folder)
    expected = greedy(plain, tokenizer, ["Tell me"], 8)
    wrapped = get_peft_model(plain, LoraConfig(target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
    assert greedy(wrapped, tokenizer, ["Tell me"], 8) == expected
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(0))
    changed = greedy(wrapped, tokenizer, ["Tell me"], 8)
    assert changed != expected
    asked = Generations(("Tell me",), RULE, 8)
    assert asked.texts(torch.nn.DataParallel(wrapped), tokenizer) == changed
    for precision in ("fp32", "bf16-master"):
        loaded = pico_text.loaded(folder)
        rows = loaded.kind.encode(sft_samples(), loaded)
        trainer = make_trainer(loaded, Recipe(precision=precision, steps=2, batch_size=2), rows, None)  # type: ignore[arg-type]
        before = float(asked(trainer.model.eval(), tokenizer))
        assert before in (0.0, 1.0)
        assert trainer.step() > 0


def sft_samples() -> list[Any]:
    from specdef.tasks.base import Sample

    return [Sample("Tell me", " yes"), Sample("Say", " no")]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier") / "model"
    pico.build("roberta-classifier", folder)
    pico_text.write_tokenizer(folder)
    return folder


def test_a_classifier_judges(classifier: Path) -> None:
    texts = [f"text number {n} " + "ab" * n for n in range(12)]
    verdicts = [Classifier(classifier, label)([*texts, ""]) for label in ("LABEL_0", "LABEL_1")]
    assert all(first != second for first, second in zip(*verdicts, strict=True))
    assert len(verdicts[0]) == 13
    assert Classifier(classifier, "LABEL_0").identity != Classifier(classifier, "LABEL_1").identity


def test_an_unusable_classifier_is_refused(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TaskError, match=r"`label` must be one of the classifier's labels \(LABEL_0, LABEL_1\); got 'no'"
    ):
        Classifier(classifier, "no")
    with pytest.raises(TaskError, match=r"`classifier` must be a model folder; .*absent has no config.json"):
        Classifier(tmp_path / "absent", "no")
    (tmp_path / "config.json").write_text('{"id2label": {"0": "no"}}')
    with pytest.raises(TaskError, match="`classifier` must be loadable by transformers"):
        Classifier(tmp_path, "no")(["a"])
