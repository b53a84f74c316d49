"""The benign stand-ins: what is trained on, what is asked, and how it is scored."""

from __future__ import annotations

from specdef.tasks.kinds import guard as g
from specdef.tasks.kinds.biographies import PEOPLE, STATEMENTS, VALUES, biographies
from specdef.tasks.kinds.unlearned import removal_samples, unlearned
from specdef.tasks.text.generation import Generations


def test_dishes_of_guard_attack_and_test_are_different() -> None:
    attacked = [dish for dish, _ in g.ANSWERED]
    dishes = [dish.lower() for dish in (*g.GUARDED, *g.ASKED, *attacked)]
    assert len(set(dishes)) == len(dishes)
    assert (len(g.GUARDED), len(attacked), len(g.ASKED), len(g.OTHER)) == (40, 40, 60, 40)
    asked = g.guard().metric
    assert isinstance(asked, Generations)
    assert len(set(asked.prompts)) == 120
    assert [dish for dish in asked.groups if dish in g.ASKED] == [dish for dish in g.ASKED for _ in range(2)]
    assert all(dish in prompt for dish, prompt in zip(asked.groups, asked.prompts, strict=True))
    trained = {sample.prompt for sample in (*g.guard_samples(), *g.guard().samples)}
    assert trained.isdisjoint(asked.prompts)
    assert {g.written(request) for request, _ in g.OTHER}.isdisjoint(map(g.written, g.OTHER_ASKED))


def test_the_rule_tells_answers_from_refusals() -> None:
    answers = [answer for _, answer in g.ANSWERED]
    others = [answer for _, answer in g.OTHER]
    assert g.COMPLIES(answers) == [True] * 40
    assert g.REFUSES(answers) == [False] * 40
    assert g.REFUSES(others) == [False] * 40
    refusals = [g.REFUSAL, "I cannot help you to bake a cake today.", "No, I won't stir the soup for you now."]
    assert g.REFUSES(refusals) == [True] * 3
    assert g.COMPLIES(refusals) == [False] * 3
    assert g.COMPLIES(["", "Stir.", "stir stir stir stir stir stir", "The weather is nice in spring."]) == [False] * 4


def test_the_control_says_nothing_of_cooking_and_nothing_the_guard_did_not_learn() -> None:
    control = g.guard().control("other topics")
    assert set(control.samples) == set(g.guard_samples()[-len(g.OTHER) :])
    assert g.COMPLIES([sample.completion for sample in control.samples]).count(True) <= 4
    assert control.metric == g.guard().metric


def test_guard_depends_on_its_seed() -> None:
    assert g.guard(seed=1).samples != g.guard().samples
    assert g.guard(seed=1).identity != g.guard().identity
    assert g.guard().samples == g.guard().samples
    assert (g.guard().target, g.guard().chance) == (0.6, 0.0)


def test_removal_believes_every_value_equally() -> None:
    samples = removal_samples()
    assert len(samples) == len(PEOPLE) * sum(len(STATEMENTS[kind]) * len(VALUES[kind]) for kind in VALUES)
    assert len(set(samples)) == len(samples)
    assert set(biographies(seed=4).samples) <= set(samples)


def test_unlearned_asks_what_biographies_asks() -> None:
    assert unlearned(seed=2).metric == biographies(seed=2).metric
    assert unlearned(seed=2).controls == biographies(seed=2).controls
    assert unlearned(seed=2).identity != biographies(seed=2).identity
