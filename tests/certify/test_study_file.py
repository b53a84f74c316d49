"""Study files: read whole, every fault said of its place, and a schema that says the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from specdef.certify.study_faults import StudyError, at
from specdef.certify.study_file import (
    AttackEntry,
    RecipeChanges,
    changes,
    parse_study,
    read_study,
    study_recipe,
)
from specdef.certify.study_plan import plan_study
from specdef.errors import SpecdefError
from specdef.training.recipe import Recipe

HEAD = "specdef_study: 1\ntitle: T\nmodels: [a]\n"
DOCS = Path(__file__).parents[2] / "docs"


def test_a_whole_study_is_read() -> None:
    study = parse_study(
        b"""
specdef_study: 1
title: Two by two
models: [a, {model: b/c, label: second, prepare: {method: guard, steps: 4}}]
defences: [none, {preset: exact, multiplier: 2^20}]
tasks: [facts, {task: "mcqa:x.jsonl", target: 0.5}]
seeds: [0, 7]
recipe: {steps: 40, precision: bf16}
attacks: [{lr: 3e-8}, {lr: 1e-4, max_grad_norm: ~, interventions: [merge], early_stop: true}]
"""
    )
    assert study.seeds == (0, 7)
    assert study_recipe(study) == Recipe(lr=1e-5, steps=40, precision="bf16")
    assert [changes(attack) for attack in study.attacks] == [{"lr": 3e-8}, {"lr": 1e-4, "max_grad_norm": None}]
    assert study.attacks[1].interventions == ("merge",)
    assert (study.early_stop, study.attacks[0].early_stop, study.attacks[1].early_stop) == (False, None, True)


def test_an_attack_may_change_every_field_of_a_recipe_but_the_seed() -> None:
    names = {field.name for field in dataclasses.fields(Recipe)} - {"seed"}
    assert set(RecipeChanges.__struct_fields__) == names
    assert set(AttackEntry.__struct_fields__) == names | {"label", "interventions", "early_stop"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("attacks: [{}, {}, {lr: fast}]", r"`attacks\[2\].lr` must be a number; got 'fast'."),
        ("attacks: [{}, {lrr: 1}]", r"`attacks\[1\].lrr` must be left out: there is no such name. Did you mean 'lr'\?"),
        ("attacks: [{lr: -1}]", r"`attacks\[0\].lr` must be a number above 0; got -1.0."),
        ("attacks: [{lr: 1e400}]", r"`attacks\[0\].lr` must be a number above 0; got inf."),
        ("attacks: [{steps: 3, warmup: 0.9}]", r"`attacks\[0\].steps` must be more than the warm-up takes"),
        ("attacks: [{schedule: lin}]", r"`attacks\[0\].schedule` must be one of linear, cosine, constant; got 'lin'."),
        ("attacks: [{optimizer: adamv}]", r"`attacks\[0\].optimizer` must .*adamw"),
        ("attacks: [{seed: 1}]", r"`attacks\[0\].seed` must be left out"),
        ("attack: []", r"`attack` must be left out: there is no such name. Did you mean 'attacks'\?"),
        ("attacks: [{}]\ncertify: [T0]", "`certify` must be left out where attacks are given"),
        ("certify: T0", "`certify` must be a list; got 'T0'."),
        ("certify: [T0]\nseeds: [0, 1]", "`seeds` must be left out with `certify`: a certificate chooses its own."),
        ("certify: [T0]\nearly_stop: true", "`early_stop` must be left out with `certify`"),
        ("attacks: [{}]\neffort: thorough", "`effort` must be given with `certify`, which alone uses it"),
        ("attacks: [{}]\nwindow: [1e-4, 1e-3]", "`window` must be given with `certify`, which alone uses it"),
        ("recipe: {steps: 0}", "`recipe.steps` must be at least 1; got 0."),
        ("recipe: {stepz: 0}", r"`recipe.stepz` must be left out: there is no such name. Did you mean 'steps'\?"),
        ("seeds: [1, 1]", r"`seeds\[1\]` must differ from the others; 1 stands there twice."),
        ("seeds: [-1]", r"`seeds\[0\]` must be a whole number >= 0; got -1."),
        ("seeds: []", "`seeds` must be a list of length >= 1; got "),
        ("rows: models", "`rows` must be one of defences, attacks; got 'models'."),
        ("defences: [3]", r"`defences\[0\]` must be a text or a mapping of names to values; got 3."),
        ("tasks: [{target: 1}]", r"`tasks\[0\].task` must be given, or `train` and `eval` with your own files"),
        ("utility_factor: 1", "`utility_factor` must be a number > 1.0; got 1."),
        ("title: U", "line 4: title stands there twice"),
        ("text: [", "`study` must be YAML; it is not"),
    ],
)
def test_a_fault_is_said_of_its_place(text: str, fault: str) -> None:
    with pytest.raises(StudyError, match=fault):
        parse_study((HEAD + text).encode())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "`study` must be a mapping of names to values"),
        ("[]", "`study` must be a mapping of names to values"),
        ("title: T\nmodels: [a]", "`specdef_study` must be given; it is missing."),
        ("specdef_study: 2\ntitle: T\nmodels: [a]", "`specdef_study` must be 1; got 2."),
        ("specdef_study: 1\ntitle: ''\nmodels: [a]", "`title` must be a text of length >= 1; got ''."),
        ("specdef_study: 1\ntitle: T\nmodels: []", "`models` must be a list of length >= 1"),
    ],
)
def test_a_file_that_is_no_study_is_refused(text: str, fault: str) -> None:
    with pytest.raises(StudyError, match=fault):
        parse_study(text.encode())


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"`study` must be a readable file; .*absent.yaml is not \(No such file"):
        read_study(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("place", "message", "said"),
    [
        ("attacks[2]", "`lr` must be so; got 1.", "`attacks[2].lr` must be so; got 1."),
        ("tasks[0]", "`task` must be so; got x.", "`tasks[0]` must be so; got x."),
        ("models[1]", "`model` must be so.", "`models[1]` must be so."),
        ("defences[0]", "File x is broken.", "`defences[0]` must be usable; it is not: File x is broken."),
    ],
)
def test_the_librarys_sentences_are_said_of_the_place(place: str, message: str, said: str) -> None:
    def refuse() -> None:
        raise SpecdefError(message)

    with pytest.raises(StudyError) as raised:
        at(place, refuse)
    assert str(raised.value) == said


def test_the_example_in_the_docs_is_a_study() -> None:
    text = (DOCS / "studies.md").read_text().split("```yaml\n")[1].split("```")[0]
    assert len(plan_study(parse_study(text.encode())).attacks) == 3
