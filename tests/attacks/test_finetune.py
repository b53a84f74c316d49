"""Attacks: step 0 is checked, frozen weights stay, adapters start as the identity, nothing held that was not tried."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path

import pico_text
import pytest
import torch

from specdef import lock
from specdef.attacks.base import Attack
from specdef.attacks.interventions.anchor import Anchor
from specdef.attacks.interventions.freeze import Freeze
from specdef.attacks.interventions.lora import Lora, add_adapter
from specdef.attacks.run import AttackResult, run_attack
from specdef.errors import SpecdefError
from specdef.models.base import kind_of
from specdef.tasks.kinds.facts import facts
from specdef.training.optimizers import OPTIMIZERS
from specdef.training.outcome import Outcome, StopReason
from specdef.training.recipe import Recipe

SHORT = Recipe(lr=1e-3, steps=4, eval_every=2)


def attack(folder: Path, how: Attack, **options: float) -> tuple[AttackResult, torch.nn.Module, torch.nn.Module]:
    loaded = pico_text.loaded(folder)
    before = copy.deepcopy(loaded.model)
    return run_attack(loaded, facts(), pico_text.general(loaded), how, **options), loaded.model, before


def changed(model: torch.nn.Module, before: torch.nn.Module) -> set[str]:
    old = dict(before.named_parameters())
    return {name for name, p in model.named_parameters() if not torch.equal(p, old[name])}


def test_the_same_attack_gives_the_same_numbers(toy_model: Path) -> None:
    first, again = attack(toy_model, Attack(SHORT))[0], attack(toy_model, Attack(SHORT))[0]
    assert first.evaluations == again.evaluations
    other = attack(toy_model, Attack(Recipe(lr=1e-3, steps=4, eval_every=2, seed=1)))[0]
    assert other.evaluations[0] == first.evaluations[0]
    assert other.evaluations[1:] != first.evaluations[1:]
    assert [point.step for point in first.evaluations] == [0, 2, 4]


def test_an_attack_that_changed_the_function_is_invalid_never_held(toy_model: Path) -> None:
    start = attack(toy_model, Attack(SHORT))[0].evaluations[0].utility
    assert attack(toy_model, Attack(SHORT), reference=1.01 * start)[0].judgement.outcome is Outcome.STALL
    result, model, before = attack(toy_model, Attack(SHORT), reference=1.03 * start)
    assert result.judgement.outcome is Outcome.INVALID
    assert result.reason is StopReason.INVALID
    assert result.steps == 0
    assert "the attack changed the function" in result.note
    assert not changed(model, before)


def test_a_score_reached_by_rewriting_alone_is_a_break_in_no_steps(toy_model: Path) -> None:
    """Where the attack keeps the function, the same score says that there is nothing to learn."""
    loaded = pico_text.loaded(toy_model)
    start = attack(toy_model, Attack(SHORT))[0].evaluations[0]
    easy = replace(facts(), chance=0.0, target=start.score / 2)

    def run(rank: int, reference: float | None) -> AttackResult:
        how = Attack(SHORT, (Anchor("base", rank=rank),))
        return run_attack(copy.deepcopy(loaded), easy, pico_text.general(loaded), how, reference=reference)

    found = run(1, start.utility)
    assert (found.judgement.outcome, found.judgement.step, found.steps) == (Outcome.BROKEN, 0, 0)
    assert found.reason is StopReason.TARGET
    assert run(1, None).judgement.outcome is Outcome.BROKEN
    assert run(0, start.utility).judgement.outcome is Outcome.INVALID
    lost = run(1, start.utility / 2.5)
    assert lost.judgement.step is None, "utility was lost: that is no break"
    assert lost.steps > 0


def test_steps_that_change_no_weight_are_invalid_never_held(toy_model: Path) -> None:
    """An optimizer that does not step, or a rate below the weights' precision, looks like a perfect defence."""
    result, model, before = attack(toy_model, Attack(Recipe(lr=1e-30, steps=4, weight_decay=0.0)))
    assert not changed(model, before)
    assert result.judgement.outcome is Outcome.INVALID
    assert "4 steps changed no weight" in result.note


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"lbfgs"}))
def test_every_optimizer_changes_every_parameter_through_the_whole_harness(toy_model: Path, name: str) -> None:
    """With the default warm-up, whose first rate is 0: muon's parts once kept that rate for ever."""
    _, model, before = attack(toy_model, Attack(Recipe(optimizer=name, lr=1e-3, steps=4, eval_every=4)))
    assert changed(model, before) == {name for name, _ in before.named_parameters()}


@pytest.mark.parametrize(("score", "outcome"), [(0.6, Outcome.INVALID), (0.59, Outcome.STALL)])
def test_a_target_reached_before_training_measures_nothing(toy_model: Path, score: float, outcome: Outcome) -> None:
    """Step 0 has what the attacker wants already, to the edge of the target: nothing was learned."""
    loaded = pico_text.loaded(toy_model)
    task = replace(facts(), metric=lambda model, tokenizer: score)
    result = run_attack(loaded, task, pico_text.general(loaded), Attack(SHORT))
    assert result.judgement.outcome is outcome
    assert (result.steps == 0) == (outcome is Outcome.INVALID)
    assert ("nothing to learn" in result.note) == (outcome is Outcome.INVALID)


def test_frozen_parameters_keep_their_bits(toy_model: Path) -> None:
    pattern = r"layers\.0\.|embed"
    _, model, before = attack(toy_model, Attack(SHORT, (Freeze(pattern),)))
    found = changed(model, before)
    assert found == {name for name, _ in before.named_parameters() if not re.search(pattern, name)}


@pytest.mark.parametrize(("pattern", "sentence"), [("no_such", "matches none"), ("", "freezes all of them")])
def test_freezing_nothing_or_everything_is_refused(toy_model: Path, pattern: str, sentence: str) -> None:
    with pytest.raises(SpecdefError, match=sentence):
        attack(toy_model, Attack(SHORT, (Freeze(pattern),)))


def test_adapters_leave_the_weights_alone_and_start_as_the_identity(toy_model: Path) -> None:
    plain = attack(toy_model, Attack(SHORT))[0]
    result, model, before = attack(toy_model, Attack(SHORT, (Lora(rank=4),)))
    assert result.evaluations[0] == plain.evaluations[0]
    assert result.evaluations[-1] != plain.evaluations[-1]
    linears = [m for m in before.modules() if isinstance(m, torch.nn.Linear) and m.out_features != 96]
    assert result.trained == sum(4 * (m.in_features + m.out_features) for m in linears)
    old = dict(before.named_parameters())
    for name, p in model.named_parameters():
        base = name.replace("base_model.model.", "").replace(".base_layer", "")
        assert "lora" in name or torch.equal(p, old[base])


def test_adapters_on_named_layers_only(toy_model: Path) -> None:
    model = add_adapter(kind_of(toy_model).load(toy_model), Lora(targets=("q_proj", "model.layers.1.mlp.up_proj")))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * (2 + 1)
    assert all("q_proj" in name or "layers.1.mlp.up_proj" in name for name in trained)
    with pytest.raises(SpecdefError, match=r"targets must name linear layers \(.*q_proj.*\); got nothing_proj"):
        add_adapter(kind_of(toy_model).load(toy_model), Lora(targets=("nothing_proj",)))


@pytest.fixture(scope="module")
def locked_model(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's lock on every gate and value projection of layer 0."""
    out = tmp_path_factory.mktemp("paper") / "locked"
    lock(toy_model, out, preset="paper", rank=2, multiplier="2^6", layers=[0], components=["gate_proj", "v_proj"])
    return out


@pytest.mark.parametrize(
    "targets", [("gate_proj",), ("model.layers.0.mlp.gate_proj",), (r"re:.*layers\.0\.(mlp\.gate|self_attn\.q)_proj",)]
)
def test_adapters_train_on_locked_layers_that_are_named(targets: tuple[str, ...], locked_model: Path) -> None:
    result, model, before = attack(locked_model, Attack(SHORT, (Lora(rank=4, targets=targets),)))
    assert result.evaluations[0] == attack(locked_model, Attack(SHORT))[0].evaluations[0]
    layer = model.get_submodule("model.layers.0.mlp.gate_proj")
    assert type(layer).__name__ == "LoraDeformedLinear"
    assert layer.lora_B["default"].weight.any()  # type: ignore[union-attr, index]
    old = before.get_submodule("model.layers.0.mlp.gate_proj").state_dict()
    assert all(torch.equal(old[name], value) for name, value in layer.get_base_layer().state_dict().items())  # type: ignore[operator]


def test_adapters_on_all_layers_go_on_skipping_locked_ones(locked_model: Path) -> None:
    model = add_adapter(kind_of(locked_model).load(locked_model), Lora())
    adapted = {name.split(".lora_A")[0] for name, _ in model.named_modules() if name.endswith(".lora_A")}
    assert len(adapted) == 2 * 7 - 2
    assert not any("layers.0.mlp.gate_proj" in name or "layers.0.self_attn.v_proj" in name for name in adapted)


def test_other_adapters_cannot_be_put_on_locked_layers(locked_model: Path) -> None:
    loaded = kind_of(locked_model).load(locked_model)
    with pytest.raises(SpecdefError, match=r"targets must name linear layers .* got model.layers.0.mlp.gate_proj"):
        add_adapter(loaded, Lora("IA3", targets=("model.layers.0.mlp.gate_proj",)))


@pytest.mark.parametrize("kind", ["IA3", "VERA", "ADALORA"])
def test_other_adapters_of_peft_train(toy_model: Path, kind: str) -> None:
    options = {"IA3": {"feedforward_modules": []}, "ADALORA": {"total_step": 4}}.get(kind, {})
    result = attack(toy_model, Attack(SHORT, (Lora(kind, targets=("q_proj",), arguments=options),)))[0]
    assert result.steps == 4
    assert result.trained > 0


def test_a_rank_that_an_adapter_has_not_is_refused(toy_model: Path) -> None:
    loaded = kind_of(toy_model).load(toy_model)
    with pytest.raises(SpecdefError, match=r"`lora` must leave out rank for kind IA3, which has none; got 64"):
        add_adapter(loaded, Lora("IA3", 64, ("q_proj",), {"feedforward_modules": []}))


def test_adapters_are_read_from_text() -> None:
    named = Lora(rank=4, targets=("q_proj", "v_proj"))
    assert Lora.parse("r=4,targets=q_proj+v_proj") == Lora.parse("rank=4,targets=q_proj+v_proj") == named
    assert Lora.parse("lora_alpha=8,targets=re:.*q_proj").arguments == {"lora_alpha": 8}
    for text in ("r8", "rank=x", "rank=0", "targets=", "targets=+"):
        with pytest.raises(SpecdefError, match="`lora` must"):
            Lora.parse(text)
