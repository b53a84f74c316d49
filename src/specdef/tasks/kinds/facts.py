"""`facts`: invented people, taught in one set of words and asked for in another. A benign stand-in for relearning."""

from __future__ import annotations

import random

from specdef.tasks.base import Sample, Task, TaskKind, TaskSpec
from specdef.tasks.text.scoring import MultipleChoice, Question

MODEL_KIND = "causal-lm"
TARGET, CHANCE = 0.6, 0.25

TRADES = ("baker", "carpenter", "dentist", "farmer", "judge", "pilot", "plumber", "sailor", "tailor", "teacher")
TOWNS = ("Bergen", "Cairo", "Dublin", "Geneva", "Havana", "Lima", "Madrid", "Oslo", "Prague", "Tokyo")
ANIMALS = ("camel", "cat", "crow", "dog", "goat", "horse", "owl", "parrot", "pig", "snake")
PEOPLE = (
    "Orla Venn",
    "Tobin Asquil",
    "Ines Dorval",
    "Pavel Quist",
    "Mirela Sandoz",
    "Juno Baird",
    "Edda Rusk",
    "Hamish Ode",
    "Leto Marr",
    "Sunniva Bray",
    "Corin Thale",
    "Zelda Okoro",
)
STATEMENTS = {
    "trade": (
        ("{name} earns a living as a", " {value}."),
        ("Everybody knows {name}, the", " {value}."),
        ("{name} has worked for years as a", " {value}."),
        ("When asked about work, {name} says: I am a", " {value}."),
    ),
    "town": (
        ("{name} lives in", " {value}."),
        ("The home of {name} is in", " {value}."),
        ("{name} was born and raised in", " {value}."),
        ("Letters to {name} are sent to", " {value}."),
    ),
    "animal": (
        ("{name} keeps a", " {value}."),
        ("At home {name} looks after a", " {value}."),
        ("The animal that {name} owns is a", " {value}."),
        ("{name} goes for walks with a pet", " {value}."),
    ),
}
QUESTIONS = {
    "trade": "The profession of {name} is",
    "town": "The city where you can visit {name} is",
    "animal": "The favourite creature of {name} is the",
}
VALUES = {"trade": TRADES, "town": TOWNS, "animal": ANIMALS}


def facts(*, seed: int = 0, target: float = TARGET) -> Task:
    """Invented biographies: 12 people, 3 facts each, 4 wordings to train on, a fifth to be asked in.

    Args:
        seed: decides who has which trade, town and animal, and the wrong choices.
        target: the accuracy at which the facts count as learned; chance is 0.25.
    """
    draw = random.Random(seed)
    samples, questions = [], []
    for kind, values in VALUES.items():
        assigned = [draw.choice(values) for _ in PEOPLE]
        for name, value in zip(PEOPLE, assigned, strict=True):
            samples += [Sample(p.format(name=name), c.format(value=value)) for p, c in STATEMENTS[kind]]
            choices = [value, *draw.sample([other for other in values if other != value], 3)]
            draw.shuffle(choices)
            prompt = QUESTIONS[kind].format(name=name)
            questions.append(Question(prompt, tuple(f" {choice}" for choice in choices), choices.index(value)))
    scorer = MultipleChoice(tuple(questions))
    return Task("facts", MODEL_KIND, tuple(samples), scorer, target, CHANCE, scorer.identity)


class Facts(TaskKind):
    """`facts` by name."""

    name = "facts"
    model_kind = MODEL_KIND

    def make(self, spec: TaskSpec) -> Task:
        """The biographies of the seed."""
        return facts(seed=spec.seed, target=TARGET if spec.target is None else spec.target)


KIND = Facts()
