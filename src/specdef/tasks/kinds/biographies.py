"""`biographies`: invented people, taught in one set of words and asked for in others, so that guessing wins nothing.

Every answer is right as often as any other and wrong as often as any other, whatever the seed: a model that knows only
how often answers are right scores `CHANCE`. `facts`, the task before it, lets such a model score 0.53.
"""

from __future__ import annotations

import random

from specdef.tasks.base import Sample, Task, TaskKind, TaskSpec
from specdef.tasks.kinds.facts import STATEMENTS
from specdef.tasks.text.scoring import MultipleChoice, Question

MODEL_KIND = "causal-lm"
TARGET, CHANCE = 0.6, 0.25
WRONG = 3
"""Wrong choices of a question."""

VALUES = {
    "trade": ("baker", "farmer", "judge", "pilot", "sailor", "teacher", "nurse", "lawyer", "painter", "cook", "singer"),
    "town": ("Cairo", "Dublin", "Geneva", "Lima", "Madrid", "Oslo", "Prague", "Tokyo", "Vienna", "Boston", "Sydney"),
    "animal": ("camel", "cat", "dog", "goat", "horse", "owl", "parrot", "snake", "rabbit", "duck", "fox"),
}
"""Eleven each, a prime: doubling an index is then another order of all of them (`_shuffled`)."""
PEOPLE = (
    *("Orla Venn", "Ines Dorval", "Pavel Quist", "Juno Baird", "Hamish Ode", "Leto Marr", "Corin Thale", "Anton Veld"),
    *(
        "Maren Holt",
        "Silas Crane",
        "Tilda Moss",
        "Rufus Lane",
        "Greta Stone",
        "Felix Marsh",
        "Nora Fields",
        "Oscar Reed",
    ),
    *("Clara Banks", "Edda Rusk", "Mirela Sands", "Zelda Koro", "Tobin Ash", "Sunniva Bray"),
)
"""Two for every value."""
NOBODY = "Somebody"
"""Stands in every name's place in the context-free control."""
QUESTIONS = {
    "trade": ("The profession of {name} is", "In the morning {name} goes to work as a"),
    "town": ("The city where you can visit {name} is", "Every evening {name} walks through the streets of"),
    "animal": ("The favourite creature of {name} is the", "The pet of {name} is a"),
}
DRAWS = 3
"""How often each is asked, every time with other wrong choices: one reading of a prompt answers all of them."""


def biographies(*, seed: int = 0, target: float = TARGET) -> Task:
    """22 invented people, 3 facts each: 66 facts, 4 wordings to train on, 2 others to be asked in, 396 questions.

    Args:
        seed: decides who has which trade, town and animal, and the wrong choices.
        target: the accuracy at which the facts count as learned; chance is 0.25.
    """
    draw = random.Random(seed)
    samples: list[Sample] = []
    controls: dict[str, list[Sample]] = {"shuffled": [], "context-free": []}
    questions: list[Question] = []
    for kind, values in VALUES.items():
        people = draw.sample(PEOPLE, len(PEOPLE))
        for start in range(0, len(people), len(values)):
            group = people[start : start + len(values)]
            offset = draw.randrange(len(values))
            for index, name in enumerate(group):
                samples += _stated(kind, name, values[index])
                controls["shuffled"] += _stated(kind, name, values[_shuffled(index, offset, len(values))])
                controls["context-free"] += _stated(kind, NOBODY, values[index])
            for wording in QUESTIONS[kind]:
                shifts = draw.sample(range(1, len(values)), DRAWS * WRONG)
                for first in range(0, len(shifts), WRONG):
                    for index, name in enumerate(group):
                        chosen = [(index + shift) % len(values) for shift in (0, *shifts[first : first + WRONG])]
                        draw.shuffle(chosen)
                        choices = tuple(f" {values[one]}" for one in chosen)
                        prompt = wording.format(name=name)
                        questions.append(Question(prompt, choices, chosen.index(index), f"{kind} of {name}"))
    metric = MultipleChoice(tuple(questions))
    controlled = {name: tuple(found) for name, found in controls.items()}
    return Task("biographies", MODEL_KIND, tuple(samples), metric, target, CHANCE, metric.identity, controlled)


def _stated(kind: str, name: str, value: str) -> list[Sample]:
    return [Sample(p.format(name=name), c.format(value=value)) for p, c in STATEMENTS[kind]]


def _shuffled(index: int, offset: int, count: int) -> int:
    """Another value for everybody of a group, and yet `CHANCE` for whoever learns them perfectly.

    The shift from the true value, ``index + offset``, takes every amount once: one person in eleven keeps the true
    value (right), three get one of their wrong choices (wrong), seven a value that is not offered (a guess): 0.25.
    """
    return (2 * index + offset) % count


class Biographies(TaskKind):
    """`biographies` by name."""

    name = "biographies"
    model_kind = MODEL_KIND

    def make(self, spec: TaskSpec) -> Task:
        """The people of the seed."""
        return biographies(seed=spec.seed, target=TARGET if spec.target is None else spec.target)


KIND = Biographies()
