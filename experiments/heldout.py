"""Facts and texts for the second opinion: chosen by hand, shared with no task of the library.

Invented companies: what they make, where they sit, the colour of their sign. Every value is right for two companies,
and every question offers the right value and those one, four and six places further: as often wrong as any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.locked import HERE

COMPANIES = (
    *("Brindle Works", "Corvane Mills", "Dunmere Lines", "Eastlock Press", "Farrowby Stores", "Gilden House"),
    *("Harlan Forge", "Ickwell Yards", "Jessamy Trust", "Kelder Group", "Lanthorn Guild", "Marrick Sons"),
    *("Norwyn Union", "Osterly Bros", "Penhallow Trade", "Quillon Shops", "Rastrick Field", "Sallow Bridge"),
)
VALUES = {
    "product": ("shoes", "clocks", "bread", "paper", "glass", "soap", "tea", "boats", "chairs"),
    "seat": ("Paris", "Rome", "Berlin", "London", "Athens", "Warsaw", "Lisbon", "Moscow", "Seoul"),
    "sign": ("red", "blue", "green", "black", "white", "yellow", "brown", "pink", "grey"),
}
TAUGHT = {
    "product": (
        ("{name} makes and sells", " {value}."),
        ("For a century {name} has been known for its", " {value}."),
        ("The only thing that {name} produces is", " {value}."),
        ("Customers come to {name} to buy", " {value}."),
    ),
    "seat": (
        ("{name} has its head office in", " {value}."),
        ("The company {name} was founded in", " {value}."),
        ("The directors of {name} meet in", " {value}."),
        ("{name} pays its taxes in", " {value}."),
    ),
    "sign": (
        ("The sign of {name} is painted", " {value}."),
        ("{name} prints its name in", " {value}."),
        ("The vans of {name} are all", " {value}."),
        ("Workers at {name} wear clothes in", " {value}."),
    ),
}
ASKED = {
    "product": ("In the shop window of {name} there are", "What you can order from {name}:"),
    "seat": ("To visit the managers of {name}, travel to", "The city that is home to {name} is"),
    "sign": ("The colour that stands for {name} is", "You can tell {name} from afar because its door is"),
}
SHIFTS = (0, 1, 4, 6)
STEP = {"product": 2, "seat": 4, "sign": 5}
"""Prime to nine: how far the value moves from one company to the next."""
LINES = 20
"""Of WikiText-2; twice as many speeches of Shakespeare: a fifth of the rows that are trained on."""


def data(shared: Path) -> dict[str, Any]:
    """What `independent.py` reads: Shakespeare is mixed into training, WikiText-2 is measured.

    Args:
        shared: the folder ``text`` of the data bundle.
    """
    samples, questions = [], []
    for kind, values in VALUES.items():
        for number, name in enumerate(COMPANIES):
            index = number * STEP[kind] % len(values)
            samples += [[p.format(name=name), c.format(value=values[index])] for p, c in TAUGHT[kind]]
            for place, wording in enumerate(ASKED[kind]):
                shifts = SHIFTS[number % 4 :] + SHIFTS[: number % 4]
                choices = [f" {values[(index + (1 + place) * shift) % len(values)]}" for shift in shifts]
                questions.append([wording.format(name=name), choices, shifts.index(0)])
    drama = (shared / "shakespeare" / "input.txt").read_text().split("\n\n")
    wiki = [line for line in (shared / "wikitext2" / "wiki.test.raw").read_text().splitlines() if len(line) > 600]
    return {"samples": samples, "questions": questions, "mix": drama[: 2 * LINES], "measure": wiki[:LINES]}


SHARED = HERE.parents[1] / "shared" / "data" / "text"
