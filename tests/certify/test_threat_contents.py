"""What every threat model tries, by name: leaving one attack out must be noticed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic

from specdef.attacks.base import Intervention, parse_intervention
from specdef.attacks.interventions.freeze import Freeze
from specdef.certify.certificate import Certificate
from specdef.certify.certify_study import certify_study
from specdef.certify.findings import CONTROLS, UNCOUNTED
from specdef.certify.store import Store
from specdef.errors import SpecdefError
from specdef.tasks.base import TaskSpec, make_task
from specdef.training.recipe import Recipe

MULTIPLIER = 2.0**20


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A lock that holds against everything: every threat model is tried to its end."""
    threats = ("T0", "T1", "T2", "T3", "T4")
    return synthetic.certify(tmp_path_factory.mktemp("held"), synthetic.holds, threats, multiplier=MULTIPLIER)


def tried(certificate: Certificate, threat: str) -> list[tuple[Intervention, ...]]:
    """Interventions of the attacks on the model under test, those that count for nothing included."""
    names = (threat, UNCOUNTED)
    return [row.attack.interventions for row in certificate.cells if row.threat_model in names]


@pytest.mark.parametrize(
    "attack",
    [
        "merge",
        "rebalance",
        "rebalance:form=svd",
        "inject-layers:factors=2",
        "inject-layers:factors=4",
        "channel-rates",
        "smallest-gradients:0.9",
        "smallest-gradients:0.5",
        "prune",
    ],
)
def test_t4_tries(held: Certificate, attack: str) -> None:
    assert (parse_intervention(attack),) in tried(held, "T4")


def test_t4_clips_tensor_by_tensor_and_scales_eps(held: Certificate) -> None:
    recipes = [row.attack.recipe for row in held.cells if row.threat_model in ("T4", UNCOUNTED, CONTROLS)]
    assert any(recipe.clip_each for recipe in recipes)
    assert any(recipe.eps == pytest.approx(1e-8 * MULTIPLIER) for recipe in recipes)


@pytest.mark.parametrize("recipe", [Recipe(clip_each=True), Recipe(max_grad_norm=None)])
def test_every_recipe_can_be_clipped_in_each_way(tmp_path: Path, recipe: Recipe) -> None:
    """Before, both ended the certificate among its cells: what is not clipped cannot be clipped tensor by tensor."""
    study = replace(synthetic.study(multiplier=4.0), recipe=recipe)
    found = certify_study(study, Store(tmp_path), synthetic.Pretended(synthetic.holds), threats=["T0", "T2", "T4"])
    ways = {(row.attack.recipe.max_grad_norm, row.attack.recipe.clip_each) for row in found.cells}
    assert ways == {(recipe.max_grad_norm, recipe.clip_each), (None, False), (1.0, True)}


def test_t3_freezes_what_the_lock_replaced(held: Certificate) -> None:
    frozen = {one.pattern for attack in tried(held, "T3") for one in attack if isinstance(one, Freeze)}
    names = synthetic.study().locked_modules
    assert "|".join(re.escape(name) for name in names) in frozen
    assert {r"^(?!.*embed)", r"^(?!.*mlp\.)"} <= frozen


def test_t3_tries_adapters_everywhere_and_on_some_layers(held: Certificate) -> None:
    assert (parse_intervention("lora"),) in tried(held, "T3")
    assert (parse_intervention("lora:targets=q_proj+v_proj"),) in tried(held, "T3")


def test_t2_tries_every_optimizer_clipping_batches_and_schedules(held: Certificate) -> None:
    recipes = [row.attack.recipe for row in held.cells if row.threat_model in ("T2", UNCOUNTED)]
    wanted = {"adamw", "sgd", "adafactor", "lion", "muon", "sophia", "adahessian", "kron", "soap", "lbfgs"}
    assert {recipe.optimizer for recipe in recipes} == wanted
    assert any(recipe.max_grad_norm is None for recipe in recipes)
    assert any(recipe.batch_size == 16 for recipe in recipes)
    assert any(recipe.gradient_accumulation_steps == 2 for recipe in recipes)
    assert any(recipe.schedule == "constant" and recipe.warmup == 0.0 for recipe in recipes)


def test_t2_tries_more_optimizers_on_a_classifier(tmp_path: Path) -> None:
    study = replace(synthetic.study(multiplier=4.0), model_kind="text-classifier")
    found = certify_study(study, Store(tmp_path), synthetic.Pretended(synthetic.holds), threats=["T0", "T2"])
    assert {"adadelta", "xmat", "kfac"} <= {row.attack.recipe.optimizer for row in found.cells}


def test_t1_searches_down_to_a_decade_below_the_multiplier_and_above_the_window(held: Certificate) -> None:
    rates = [row.attack.recipe.lr for row in held.cells if row.threat_model == "T1"]
    low, high = (held.unlocked.working_learning_rates[at] for at in (0, -1))
    assert min(rates) <= low / MULTIPLIER / 10 * 1.01
    assert max(rates) >= 3 * high


def test_one_working_rate_is_no_calibration(tmp_path: Path) -> None:
    def one_rate(cell: object) -> str:
        return "broken 20" if cell.attack.recipe.lr == 3e-4 else "stall 0.4"  # type: ignore[attr-defined]

    class Pretended(synthetic.Pretended):
        def run(self, cells: object) -> object:  # type: ignore[override]
            target = make_task(TaskSpec("facts")).target
            for cell in cells:  # type: ignore[attr-defined]
                yield cell, synthetic.result(one_rate(cell), target=target)

    with pytest.raises(SpecdefError, match=r"must reach 0\.6 within the utility budget at two learning rates or more"):
        certify_study(synthetic.study(), Store(tmp_path), Pretended(one_rate), threats=["T0"])  # type: ignore[arg-type]
    assert not (tmp_path / "certificate.json").exists()


def test_an_attack_the_undefended_model_withstands_counts_for_nothing(tmp_path: Path) -> None:
    """Left out of the verdict although it is the best score of all: an optimizer that teaches nobody anything."""

    def behaviour(cell: object) -> str:
        return "stall 0.59" if cell.attack.recipe.optimizer == "sgd" else "stall 0.3"  # type: ignore[attr-defined]

    found = synthetic.certify(tmp_path, behaviour, ("T0", "T2"), multiplier=4.0)
    sgd = [row for row in found.cells if row.attack.recipe.optimizer == "sgd"]
    assert {row.threat_model for row in sgd} >= {UNCOUNTED}
    worst = found.worst(found.threat_models["T2"])
    assert worst is not None
    assert replace(worst.recipe, lr=1.0).optimizer != "sgd"
