"""Interventions: what may be put together, how options are read, and that labels are for people only."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest

from specdef.attacks.base import INTERVENTIONS, Attack, Intervention, parse_intervention
from specdef.attacks.interventions.channel_rates import ChannelRates
from specdef.attacks.interventions.freeze import Freeze
from specdef.attacks.interventions.inject_layers import InjectLayers
from specdef.attacks.interventions.lora import Lora
from specdef.attacks.interventions.merge import Merge
from specdef.attacks.interventions.prune import Prune
from specdef.attacks.interventions.sharpen import Sharpen
from specdef.attacks.interventions.smallest_gradients import SmallestGradients
from specdef.attacks.wire import attack_to_wire
from specdef.certify.cell import digest_of
from specdef.errors import SpecdefError
from specdef.training.recipe import Recipe


@dataclass(frozen=True)
class Toy(Intervention):
    name: ClassVar[str] = "toy"
    count: int = 2
    loud: bool = False
    form: Literal["round", "square"] = "round"
    parts: tuple[str, ...] = ()


def test_every_kind_is_named_as_its_module_and_imports_nothing_heavy() -> None:
    assert {kind.name: kind for kind in INTERVENTIONS}.keys() == set(INTERVENTIONS.names())
    code = (
        "import sys; from specdef.attacks.base import INTERVENTIONS; from specdef.certify.threat_model import THREATS\n"
        "list(INTERVENTIONS); list(THREATS)\n"
        "assert not {'torch', 'transformers', 'peft'} & sys.modules.keys(), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_order_in_which_interventions_are_given_says_nothing() -> None:
    """Weights are rewritten before the model is changed, and the model before an optimizer exists."""
    first = Attack(interventions=(ChannelRates(), Freeze("x"), Merge()))
    again = Attack(interventions=(Merge(), ChannelRates(), Freeze("x")))
    assert first == again
    assert first.interventions == (Merge(), Freeze("x"), ChannelRates())
    assert first.rewrites == (Merge(),)
    both = (Sharpen(), Merge())
    assert Attack(interventions=both).rewrites == both, "but two rewritings follow each other as given"
    assert Attack(interventions=both) != Attack(interventions=both[::-1])


def test_what_an_attack_is_follows_from_its_interventions() -> None:
    assert Attack().keeps_function
    assert not Attack().undoes
    assert not Attack(interventions=(Prune(), Freeze("x"))).keeps_function
    assert Attack(interventions=(Merge(), Freeze("x"))).undoes
    assert not Attack(interventions=(Prune(),)).undoes


@pytest.mark.parametrize(
    ("interventions", "message"),
    [
        ((Lora(), Freeze("x")), "`freeze` must be left out with lora: each of them says what is trained"),
        ((SmallestGradients(0.5), Freeze("x")), "`freeze` must be left out with smallest-gradients"),
        ((Freeze("x"), Freeze("y")), "`freeze` must be left out with freeze"),
        ((ChannelRates(), Lora()), "`channel-rates` must be given with training of the weights; got lora"),
        ((Merge(), Merge()), "`merge` must be given once; got it twice"),
    ],
)
def test_what_cannot_be_put_together_is_refused(interventions: tuple[Intervention, ...], message: str) -> None:
    with pytest.raises(SpecdefError, match=message):
        Attack(interventions=interventions)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Attack(stop=True), "`stop` must be one of budget, ruin, paper; got True"),  # type: ignore[arg-type]
        (lambda: Attack(utility_factor=1.0), "`utility_factor` must be above 1; got 1.0"),
        (
            lambda: Attack(Recipe(optimizer="sgd"), (ChannelRates(),)),
            "`channel-rates` must be given with optimizer adamw",
        ),
        (lambda: ChannelRates().attach(None, None, None), "`channel-rates` must be given the model's folder"),
        (lambda: Freeze("("), "`freeze` must be a regular expression"),
        (lambda: Freeze("gradients:0.5"), "To train the tensors with the smallest gradients, use smallest-gradients"),
        (lambda: Freeze.from_options({}), "`pattern` must be given with freeze; it is missing"),
        (lambda: SmallestGradients(1.0), "`smallest-gradients` must have a share between 0 and 1"),
        (lambda: Lora(targets=()), "`lora` must have targets, such as all or q_proj"),
        (lambda: Lora.parse("targets=re:("), "`lora` targets must be a regular expression after re:"),
        (lambda: Lora.parse("lora_alpha=NaN"), "`lora` options must be finite; got NaN"),
        (lambda: parse_intervention("lorra"), r"`intervention` must be one of .*; got 'lorra'\. Did you mean 'lora'"),
        (lambda: InjectLayers(factors=2.0), "`factors` must be of type int; got 2.0"),  # type: ignore[arg-type]
        (lambda: Toy.parse("count=two"), "`count` must be a number; got 'two'"),
        (lambda: Toy.parse("loud=yes"), "`loud` must be true or false; got 'yes'"),
        (lambda: Toy.parse("form=oval"), "`form` must be one of round, square; got 'oval'"),
        (
            lambda: Toy.parse("quiet=1"),
            "`quiet` must be left out with toy, which takes count, loud, form, parts",
        ),
        (lambda: Merge.parse("x"), "`merge` must be given without options; got 'x'"),
    ],
)
def test_bad_input_is_said(make: Any, message: str) -> None:
    with pytest.raises(SpecdefError, match=message):
        make()


def test_options_are_read_as_typed_and_left_out_at_their_defaults() -> None:
    assert Toy.parse("count=3,loud=true,form=square") == Toy(3, True, "square")
    assert Toy.parse("count=2") == Toy()
    assert Toy(3, parts=("a",)).options() == {"count": 3, "parts": ["a"]}
    assert Toy.from_options({"count": 3, "parts": ["a"]}) == Toy(3, parts=("a",))
    assert Toy(3).label == "toy (count 3)"


def test_a_label_is_no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    attacks = [Attack(interventions=(one,)) for one in (Merge(), Prune(), Freeze("x"), Lora(), ChannelRates())]
    before = [digest_of(attack_to_wire(attack)) for attack in attacks]
    for kind in INTERVENTIONS:
        monkeypatch.setattr(kind, "label", property(lambda self: "the same words"))
    assert len({attack.label for attack in attacks}) == 2
    assert [digest_of(attack_to_wire(attack)) for attack in attacks] == before
    assert len(set(before)) == len(attacks)
