"""Options of a defence: typed, and every fault said of the option it is in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from specdef.defences.base import Applied, Defence, Given, NoOptions
from specdef.defences.options import make_options, options_to_json, parse_pairs
from specdef.errors import SpecdefError


@dataclass(frozen=True)
class Options:
    steps: int = 1
    lr: float = 0.5
    layers: tuple[int, ...] = ()
    limit: float | None = 1.0
    exact: bool = False
    note: str = ""


class Toy(Defence):
    name = "toy"
    summary = ""
    Options = Options

    def apply(self, given: Given, options: Any) -> Applied:
        raise AssertionError


def test_texts_become_what_the_option_is() -> None:
    given = parse_pairs(["steps=40", "lr=2e-4", "layers=1, 2", "limit=none", "exact=true", "note=a=b"])
    assert make_options(Toy(), given) == Options(40, 2e-4, (1, 2), None, True, "a=b")
    assert make_options(Toy(), {}) == Options()
    assert make_options(Toy(), {"steps": 2, "layers": [3]}) == Options(steps=2, layers=(3,))
    assert options_to_json(Options(layers=(1,)))["layers"] == [1]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"steps": "many"}, "`steps` must be an integer in defence toy; got 'many'."),
        ({"steps": 1.5}, "`steps` must be an integer in defence toy; got 1.5."),
        ({"lr": [1]}, r"`lr` must be a number in defence toy; got \[1\]."),
        ({"limit": "low"}, "`limit` must be a number or none in defence toy; got 'low'."),
        ({"exact": "perhaps"}, "`exact` must be true or false in defence toy; got 'perhaps'."),
        ({"note": 3}, "`note` must be a text in defence toy; got 3."),
        ({"layer": 1}, r"must be one of steps, lr, layers, limit, exact, note; got 'layer'. Did you mean 'layers'\?"),
    ],
)
def test_faults_name_the_option(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(SpecdefError, match=fault):
        make_options(Toy(), given)


def test_a_defence_without_options_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "Options", NoOptions)
    with pytest.raises(SpecdefError, match="`option` of defence toy must be left out: it has none; got 'steps'"):
        make_options(Toy(), {"steps": 1})


@pytest.mark.parametrize(
    ("pairs", "fault"),
    [
        (["steps"], "`option` must be name=value, such as steps=40; got 'steps'"),
        (["=3"], "`option` must be name=value"),
        (["steps=1", "steps=2"], "`option` steps must be given once"),
    ],
)
def test_malformed_pairs_are_refused(pairs: list[str], fault: str) -> None:
    with pytest.raises(SpecdefError, match=fault):
        parse_pairs(pairs)
