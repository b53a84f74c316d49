"""An attack's JSON: the frozen names, and that nothing is lost or confused on the way there and back."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from attacks import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from specdef.attacks.base import INTERVENTIONS, Attack, Intervention
from specdef.attacks.interventions.anchor import Anchor
from specdef.attacks.interventions.channel_rates import ChannelRates
from specdef.attacks.interventions.energy_lora import EnergyLora
from specdef.attacks.interventions.freeze import Freeze
from specdef.attacks.interventions.inject_layers import InjectLayers
from specdef.attacks.interventions.lora import Lora
from specdef.attacks.interventions.lora_plus import LoraPlus
from specdef.attacks.interventions.merge import Merge
from specdef.attacks.interventions.rebalance import Rebalance
from specdef.attacks.interventions.sharpen import Sharpen
from specdef.attacks.interventions.smallest_gradients import SmallestGradients
from specdef.attacks.interventions.tensor_rates import TensorRates
from specdef.attacks.wire import attack_from_wire, attack_to_wire
from specdef.errors import SpecdefError
from specdef.training.outcome import StopRule
from specdef.training.recipe import Recipe

NAMES = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
PLAIN = st.integers(-9, 9) | st.booleans() | NAMES
KINDS: dict[str, st.SearchStrategy[Intervention]] = {
    "anchor": st.builds(
        Anchor,
        NAMES,
        st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        st.integers(0, 99) | st.just("all"),
    ),
    "channel-rates": st.just(ChannelRates()),
    "energy-lora": st.builds(EnergyLora, st.just("LORA"), st.integers(1, 64)),
    "freeze": NAMES.map(Freeze),
    "inject-layers": st.builds(
        InjectLayers,
        st.integers(1, 32),
        st.sampled_from(["interleaved", "literal"]),
        st.sampled_from(["fp32", "bf16", "fp64"]),
    ),
    "lora": st.builds(
        Lora,
        st.sampled_from(["LORA", "IA3", "VERA"]),
        st.integers(1, 64),
        st.lists(NAMES, min_size=1, max_size=3).map(tuple),
        st.dictionaries(NAMES, PLAIN, max_size=2),
    ),
    "lora-plus": st.builds(LoraPlus, st.just("LORA"), st.integers(1, 64), ratio=st.floats(1, 99)),
    "merge": st.just(Merge()),
    "prune": st.just(INTERVENTIONS.get("prune")()),
    "rebalance": st.builds(Rebalance, st.sampled_from(["axis", "svd"])),
    "sharpen": st.builds(
        Sharpen, st.floats(1.5, 1e6), st.integers(1, 99), st.integers(1, 99), st.integers(0, 2**31 - 1)
    ),
    "smallest-gradients": st.floats(0.001, 0.999).map(SmallestGradients),
    "tensor-rates": st.builds(TensorRates, NAMES, st.from_regex(r"[0-9a-f]{64}", fullmatch=True) | st.just("")),
}
RECIPES = st.builds(
    Recipe,
    lr=st.floats(1e-12, 1.0),
    optimizer=st.sampled_from(["adamw", "lion"]),
    max_grad_norm=st.sampled_from([1.0, 0.5]),
    retain_weight=st.floats(0, 0.5),
    gradient_accumulation_steps=st.integers(1, 4),
    clip_each=st.booleans(),
    eps=st.none() | st.floats(1e-12, 1.0),
    seed=st.integers(0, 2**32 - 1),
)


def all_kinds() -> st.SearchStrategy[list[Intervention]]:
    return st.lists(st.one_of(list(KINDS.values())), max_size=4)


def made(recipe: Recipe, interventions: list[Intervention], stop: StopRule, factor: float) -> Attack | None:
    """The attack; None where these do not go together."""
    try:
        return Attack(recipe, tuple(interventions), stop, factor)
    except SpecdefError:
        return None


ATTACKS = st.builds(made, RECIPES, all_kinds(), st.sampled_from(get_args(StopRule)), st.floats(1.01, 100)).filter(
    lambda one: one is not None
)


def test_every_kind_is_drawn() -> None:
    assert KINDS.keys() == set(INTERVENTIONS.names())


@settings(max_examples=400, deadline=None)
@given(ATTACKS, ATTACKS)
def test_attacks_come_back_as_they_were_and_no_two_look_alike(attack: Attack, other: Attack) -> None:
    written = json.loads(json.dumps(attack_to_wire(attack)))
    back = attack_from_wire(written)
    assert back == attack
    assert attack_to_wire(back) == written
    assert (attack_to_wire(other) == written) == (attack == other)


PLAIN_FIELDS = {"adapter": None, "freeze": None, "stop": "budget", "utility_factor": 2.0}
MERGE = {"kind": "merge", "options": {}}


@pytest.mark.parametrize(
    ("interventions", "fields"),
    [
        ((), {}),
        ((Merge(),), {"rewrite": MERGE}),
        ((Rebalance("svd"),), {"rewrite": {"kind": "rebalance", "options": {"form": "svd"}}}),
        ((InjectLayers(4),), {"rewrite": {"kind": "inject-layers", "options": {"factors": 4}, "version": 2}}),
        (
            (Sharpen(8.0, 3, 2),),
            {"rewrite": {"kind": "sharpen", "options": {"multiplier": 8.0, "top_k": 3, "matrices": 2}}},
        ),
        ((Lora(),), {"adapter": {"kind": "LORA", "r": 8, "targets": ["all"], "options": {}}}),
        ((Freeze("embed"),), {"freeze": "embed"}),
        ((SmallestGradients(0.9),), {"freeze": "gradients:0.9"}),
        ((ChannelRates(), Merge()), {"rewrite": MERGE, "channel_rates": True}),
        (
            (Merge(), Rebalance("svd")),
            {
                "interventions": [
                    {"name": "merge", "version": 1, "options": {}},
                    {"name": "rebalance", "version": 1, "options": {"form": "svd"}},
                ]
            },
        ),
    ],
)
def test_the_names_of_version_1_are_frozen(interventions: tuple[Intervention, ...], fields: dict[str, Any]) -> None:
    """As the code before interventions wrote them; what it could not say goes into a list."""
    found = attack_to_wire(Attack(Recipe(lr=1e-5), interventions))
    recipe = found.pop("recipe")
    assert found == {**PLAIN_FIELDS, **fields}
    assert recipe == {
        "optimizer": "adamw",
        "lr": 1e-05,
        "steps": 60,
        "batch_size": 8,
        "accumulation": 1,
        "warmup": 0.1,
        "schedule": "linear",
        "clip": 1.0,
        "weight_decay": 0.01,
        "precision": "fp32",
        "general_share": 0.25,
        "eval_every": 10,
        "seed": 0,
    }


def test_fields_added_later_are_left_out_at_their_defaults_only() -> None:
    written = attack_to_wire(Attack(Recipe(eps=1e-3, clip_each=True), stop="paper"))
    assert written["recipe"]["eps"] == 1e-3
    assert written["recipe"]["clip_each"] is True
    assert written["stop"] == "paper"


def test_a_raised_version_makes_another_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    before = attack_to_wire(Attack(interventions=(Merge(),)))
    monkeypatch.setattr(Merge, "version", 2)
    assert attack_to_wire(Attack(interventions=(Merge(),))) != before


def test_another_packages_kind_goes_into_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    toys.install(monkeypatch)
    attack = Attack(interventions=(toys.NormsOnly(factor=2.0), Merge()))
    written = attack_to_wire(attack)
    entry = {"name": "norms-only", "version": 3, "options": {"factor": 2.0}}
    assert written["interventions"] == [{"name": "merge", "version": 1, "options": {}}, entry]
    assert attack_from_wire(written) == attack
    monkeypatch.undo()
    INTERVENTIONS._loaded.pop("norms-only")
    with pytest.raises(SpecdefError, match=r"`intervention` must be one of .*; got 'norms-only'"):
        attack_from_wire(written)


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": {"lr": 1e-3, "colour": "red"}},
        {"recipe": None},
        {"stop": "never"},
        {"utility_factor": "2"},
        {"adapter": {"kind": "LORA"}},
        {"adapter": "LORA"},
        {"freeze": 3},
        {"freeze": "gradients:many"},
        {"rewrite": "merge"},
        {"rewrite": {"kind": "mend", "options": {}}},
        {"rewrite": {"kind": "merge", "options": {"hard": True}}},
        {"interventions": [{"name": "merge"}]},
        {"interventions": [7]},
        {"interventions": {"name": "merge"}},
        {"unheard_of": True},
    ],
)
def test_json_that_is_no_attack_is_refused_in_words(change: dict[str, Any]) -> None:
    with pytest.raises(SpecdefError, match=r"^`[a-z_ -]+` (of an attack )?must "):
        attack_from_wire({**attack_to_wire(Attack()), **change})
