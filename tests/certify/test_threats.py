"""What the threat models find and what they overlook, over results that are made up."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import synthetic

from specdef.attacks.base import INTERVENTIONS
from specdef.attacks.base_weights import HoldsBase
from specdef.attacks.interventions.lora import Lora
from specdef.certify.cell import Cell
from specdef.certify.certificate_file import read_cells
from specdef.certify.effort import QUICK, STANDARD, THOROUGH, Effort
from specdef.certify.findings import CONTROLS, UNCOUNTED
from specdef.certify.threats.t2 import ORDINARY_LR
from specdef.certify.verdict_kinds import Broken, holds
from specdef.training.outcome import Outcome
from specdef.training.recipe import Recipe

EXACT = 2.0**20


def only_between(low: float, high: float, *, adapter: bool = False, optimizer: str = "adamw") -> synthetic.Behaviour:
    """A lock that one kind of attack breaks, in a window of learning rates, and that holds against everything else."""

    def behaviour(cell: Cell) -> str:
        recipe = cell.attack.recipe
        if (any(isinstance(one, Lora) for one in cell.attack.interventions), recipe.optimizer) != (adapter, optimizer):
            return synthetic.holds(cell)
        return "collapse 0.5" if recipe.lr > high else "broken 20" if recipe.lr > low else "stall 0.4"

    return behaviour


@pytest.mark.parametrize(
    ("threat", "behaviour"),
    [
        ("T3", only_between(5e-8, 3e-7, adapter=True)),
        ("T2", only_between(1e-6, 1e-5, optimizer="muon")),
        ("T2", only_between(1e-8, 6e-8, optimizer="muon")),
    ],
)
def test_a_window_narrower_than_the_grid_is_found(threat: str, behaviour: synthetic.Behaviour, tmp_path: Path) -> None:
    """The grid alone steps over it, as ours did over LoRA at 1e-7 on the fold lock."""
    threats = ("T0", "T1", threat)
    found = synthetic.certify(tmp_path / "found", behaviour, threats, multiplier=EXACT)
    assert found.verdicts[threat] == Broken()
    assert holds(found.verdicts["T1"])
    blind = replace(QUICK, factor=float("inf"))
    overlooked = synthetic.certify(tmp_path / "overlooked", behaviour, threats, multiplier=EXACT, effort=blind)
    assert holds(overlooked.verdicts[threat])


@pytest.mark.parametrize(("effort", "factor"), [(QUICK, 5), (STANDARD, 2), (THOROUGH, 1.25)])
def test_a_lock_that_holds_is_searched_to_the_end(effort: Effort, factor: float, tmp_path: Path) -> None:
    """Of no optimizer are two neighbouring rates left, a stall and a collapse, with more than the factor between."""
    certificate = synthetic.certify(tmp_path, synthetic.holds, ("T2",), multiplier=EXACT, effort=effort)
    assert holds(certificate.verdicts["T2"])
    for name in ORDINARY_LR.keys() - {"adamw"}:
        rows = [row for row in certificate.cells if row.threat_model != CONTROLS]
        found = {row.attack.recipe.lr: row.outcome for row in rows if row.attack.recipe.optimizer == name}
        edges = [
            high / low
            for low, high in pairwise(sorted(found))
            if (found[low], found[high]) == (Outcome.STALL, Outcome.COLLAPSE)
        ]
        assert edges or effort is QUICK
        assert all(ratio <= factor for ratio in edges), name


def test_adapters_at_lower_rates_count_where_adapters_work_on_the_undefended_model(tmp_path: Path) -> None:
    """At those rates the undefended model learns nothing: they are meant for a lock, and say something about it."""

    certificate = synthetic.certify(tmp_path, synthetic.holds, ("T3",), multiplier=EXACT)
    adapters = [row for row in certificate.cells if any(isinstance(one, Lora) for one in row.attack.interventions)]
    assert {row.threat_model for row in adapters if row.attack.recipe.lr < 1e-5} == {"T3"}
    assert not any("lower rates" in reason for reason in certificate.threat_models["T3"].not_tried)


def test_clipping_and_batches_count_at_a_rate_at_which_only_the_lock_could_learn(tmp_path: Path) -> None:
    """The best rate found is far below those at which the undefended model learns, which is asked at one of its own."""

    def behaviour(cell: Cell) -> str:
        return "stall 0.5" if cell.attack.recipe.lr < 1e-6 else "collapse 0.3"

    certificate = synthetic.certify(tmp_path, behaviour, ("T0", "T1", "T2"), multiplier=EXACT)
    changed = [row for row in certificate.cells if _changes_the_batch(row.attack.recipe)]
    tried = [row for row in changed if row.threat_model == "T2"]
    asked = [row for row in changed if row.threat_model == CONTROLS]
    assert {row.attack.recipe.batch_size for row in tried} == {8, 16}
    assert all(row.attack.recipe.lr < 1e-6 for row in tried)
    assert [row.attack.recipe.lr for row in asked] == [certificate.unlocked.working_learning_rates[0]] * 4
    assert {row.threat_model for row in changed} == {"T2", CONTROLS}


def _changes_the_batch(recipe: Recipe) -> bool:
    ordinary = Recipe()
    names = ("max_grad_norm", "batch_size", "gradient_accumulation_steps", "schedule")
    return recipe.optimizer == ordinary.optimizer and any(
        getattr(recipe, name) != getattr(ordinary, name) for name in names
    )


def test_the_undefended_model_is_not_asked_to_undo_a_lock(tmp_path: Path) -> None:
    """There is nothing to undo in it: its control is the same training without what needs a lock."""
    certificate = synthetic.certify(tmp_path, synthetic.holds, ("T0", "T4"), multiplier=EXACT)
    assert holds(certificate.verdicts["T4"])
    cells = read_cells(tmp_path, certificate)
    original = [cell for cell in cells if cell.config["model"] == "a" * 64]
    locked = [cell for cell in cells if cell.config["model"] != "a" * 64]
    assert not any(one.needs_lock for cell in original for one in cell.attack.interventions)
    kinds = {one.name for cell in locked for one in cell.attack.interventions if one.needs_lock}
    assert kinds == {kind.name for kind in INTERVENTIONS if kind.needs_lock and not issubclass(kind, HoldsBase)}
    assert any(cell.attack.interventions for cell in original), "what trains a part of the weights is tried on it"


def test_an_attack_that_fails_without_a_lock_counts_for_nothing(tmp_path: Path) -> None:
    """The undefended model of these results learns at 1e-4, 3e-4 and 1e-3 only: two optimizers' own."""
    certificate = synthetic.certify(tmp_path, synthetic.holds, ("T0", "T2"), multiplier=EXACT)
    groups = {row.cell: row.threat_model for row in certificate.cells}
    uncounted = [cell for cell in read_cells(tmp_path, certificate) if groups[cell.key] == UNCOUNTED]
    assert uncounted
    assert all(cell.config["model"] != "a" * 64 for cell in uncounted)
    reasons = certificate.threat_models["T2"].not_tried
    assert any(reason.endswith("fails on the undefended model as well, so it says nothing") for reason in reasons)


@pytest.mark.parametrize("others", [30, 50])
def test_stages_are_left_out_only_for_an_attack_that_other_seeds_confirm(others: int, tmp_path: Path) -> None:
    """Batches of 16 break the lock at one rate in 50 steps, 30 undefended: not slowed, were it not for other seeds."""
    rates = list[float]()

    def behaviour(cell: Cell) -> str:
        recipe = cell.attack.recipe
        if recipe.batch_size != 16 or recipe.lr != [*rates, recipe.lr][0]:
            return "stall 0.3"
        rates.append(recipe.lr)
        return "broken 50" if recipe.seed == 0 else f"broken {others}"

    found = synthetic.certify(tmp_path, behaviour, threats=("T0", "T2"))
    left_out = "sgd: already broken" in found.threat_models["T2"].not_tried
    assert left_out is isinstance(found.verdicts["T2"], Broken) is (others == 30)
