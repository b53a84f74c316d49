"""A user's attacks in a certificate: read with the place of every fault, tried, controlled, and counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import synthetic

from specdef.attacks.base import parse_intervention
from specdef.certify.attack_plan import AttackPlan
from specdef.certify.cell import Cell
from specdef.certify.effort import THOROUGH
from specdef.certify.findings import CONTROLS
from specdef.certify.own_attacks import read_attack, read_attacks
from specdef.certify.study_faults import StudyError
from specdef.certify.trials import Trial
from specdef.certify.verdict_kinds import Broken, NotMeasured, holds
from specdef.training.recipe import Recipe

GOOD = """
- {label: momentum, optimizer: sgd, lr: 0.1, optimizer_options: {momentum: 0.95}}
- {lr: 1.0e-3, interventions: ["lora:rank=4"]}
"""


def given(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "also.yaml"
    path.write_text(text)
    return path


def test_a_list_and_a_studys_mapping_read_alike(tmp_path: Path) -> None:
    first = read_attacks(given(tmp_path, GOOD), Recipe())
    again = read_attacks(given(tmp_path, "attacks:" + GOOD.replace("\n-", "\n  -")), Recipe())
    assert first == again
    assert [one.label for one in first] == ["momentum", "adamw, lr 1e-3, lora rank=4 on all"]
    assert first[0].changes == {"optimizer": "sgd", "lr": 0.1, "optimizer_options": {"momentum": 0.95}}
    assert first[1].interventions == (parse_intervention("lora:rank=4"),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "`also` must be a list of attacks"),
        ("attacks: 3", "`also` must be a list of attacks"),
        ("{a: [", "`also` must be YAML"),
        ("[{lr: fast}]", r"`also\[0\].lr` must be a number"),
        ("[{lr: -1}]", r"`also\[0\].lr` must be a number above 0"),
        ("[{speed: 1}]", r"`also\[0\].speed` must be left out: there is no such name"),
        ("[{optimizer: sgd, optimizer_options: {betas: 1}}]", r"`also\[0\].betas` must be a setting of optimizer sgd"),
        ("[{interventions: [loar]}]", r"`also\[0\].interventions\[0\]"),
        ("[{early_stop: true}]", r"`also\[0\].early_stop` must be left out"),
        ("[{lr: 1.0e-3}, {lr: 1.0e-3}]", r"`also\[1\]` must differ from the others"),
    ],
)
def test_a_fault_is_said_of_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(StudyError, match=f"^{said}"):
        read_attacks(given(tmp_path, text), Recipe())


def test_a_file_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="`also` must be a readable file"):
        read_attacks(tmp_path / "none.yaml", Recipe())


def test_an_attack_is_tried_longer_than_it_says_itself(tmp_path: Path) -> None:
    """Before, one of 300 steps was tried again with twice the ordinary 60."""
    also = (AttackPlan("slow", {"steps": 300, "lr": 1e-3}),)
    found = synthetic.certify(tmp_path, synthetic.holds, ("T0",), also=also, effort=THOROUGH)
    tried = {row.attack.recipe.steps for row in found.cells if row.threat_model == "YOURS"}
    assert tried == {300, 300 * THOROUGH.longer}


MUON = AttackPlan("muon", {"optimizer": "muon", "lr": 3e-6})


def muon_breaks(cell: Cell) -> str:
    """A lock that holds against all but muon at one rate; the undefended model falls to everything."""
    recipe = cell.attack.recipe
    if recipe.optimizer != "muon" or recipe.lr != MUON.changes["lr"]:
        return synthetic.holds(cell)
    return "broken 20"


def test_an_attack_of_ones_own_is_tried_and_has_a_verdict(tmp_path: Path) -> None:
    alone = synthetic.certify(tmp_path / "alone", muon_breaks, ("T0",))
    found = synthetic.certify(tmp_path / "also", muon_breaks, ("T0",), also=(MUON,))
    assert tuple(alone.verdicts) == ("T0",)
    assert tuple(found.verdicts) == ("T0", "YOURS")
    assert holds(found.verdicts["T0"])
    assert found.verdicts["YOURS"] == Broken()
    assert not any("YOURS" in what for what in (*alone.not_tried, *found.not_tried))


def test_an_attack_that_fails_without_a_lock_says_nothing(tmp_path: Path) -> None:
    def useless(cell: Cell) -> str:
        return "stall 0.3" if cell.attack.recipe.optimizer == "muon" else synthetic.holds(cell)

    found = synthetic.certify(tmp_path, useless, ("T0",), also=(MUON,))
    assert found.verdicts["YOURS"] == NotMeasured()
    assert [row.attack.recipe.optimizer for row in found.cells if row.threat_model == CONTROLS] == ["muon"]


def test_a_window_far_below_the_given_rate_is_found(tmp_path: Path) -> None:
    """Under a lock an attack works at its rate over the multiplier or in between, as T1's does."""

    def low(cell: Cell) -> str:
        recipe = cell.attack.recipe
        if recipe.optimizer != "muon":
            return synthetic.holds(cell)
        return "collapse 0.3" if recipe.lr > 3e-8 else "broken 20" if recipe.lr > 1e-8 else "stall 0.3"

    found = synthetic.certify(tmp_path, low, ("T0",), also=(MUON,))
    assert found.verdicts["YOURS"] == Broken()
    tried = [row.attack.recipe.lr for row in found.cells if row.threat_model == "YOURS"]
    assert min(tried) < 1e-8 < 3e-8 < max(tried)
    assert any(1e-8 < lr <= 3e-8 for lr in tried)


def test_settings_of_the_ordinary_optimizer_are_not_another_ones() -> None:
    made = synthetic.study()
    made = replace(made, recipe=replace(made.recipe, optimizer_options={"betas": (0.9, 0.95)}))
    assert Trial({"optimizer": "sgd", "lr": 0.1}).attack(made).recipe.optimizer_options == ()
    assert dict(Trial({"lr": 0.1}).attack(made).recipe.optimizer_options) == {"betas": (0.9, 0.95)}


@pytest.mark.parametrize(
    "text", ["{lr: 1.0e-3, steps: 7}", "[{lr: 1.0e-3, steps: 7}]", "attacks: [{lr: 1.0e-3, steps: 7}]"]
)
def test_one_attack_alone_reads_in_every_form(tmp_path: Path, text: str) -> None:
    plan = read_attack(given(tmp_path, text), Recipe())
    assert (plan.changes, plan.interventions, plan.stop) == ({"lr": 1e-3, "steps": 7}, (), "budget")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{lr: 1.0e-3}, {lr: 1.0e-4}]", "`recipe` must be one attack, .*holds 2"),
        ("[]", "`recipe` must be one attack, .*holds 0"),
        ("3", "`recipe` must be a mapping"),
        ("{a: [", "`recipe` must be YAML"),
        ("{lr: fast}", r"`recipe.lr` must be a number"),
        ("[{lr: -1}]", r"`recipe.lr` must be a number above 0"),
        ("{interventions: [loar]}", r"`recipe.interventions\[0\]"),
    ],
)
def test_a_fault_of_one_attack_is_said_of_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(StudyError, match=f"^{said}"):
        read_attack(given(tmp_path, text), Recipe())
