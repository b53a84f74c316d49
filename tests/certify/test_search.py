"""The search for learning rates over made-up locks: narrow windows are found, and what decides the next rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import synthetic
import windows

from specdef.attacks.interventions.merge import Merge
from specdef.certify.cell import Cell
from specdef.certify.certify_study import RUINED, UNTRIED
from specdef.certify.effort import EFFORTS, QUICK, STANDARD, THOROUGH, Effort, effort_of
from specdef.certify.findings import Findings, is_broken, learning_rate
from specdef.certify.rates import Point, Reach, further_rates
from specdef.certify.result import StoredCell
from specdef.certify.search import search_rates
from specdef.certify.threat_model import follow
from specdef.certify.trials import trying
from specdef.errors import SpecdefError
from specdef.training.outcome import Outcome

STALL, COLLAPSE, BROKEN, CRASHED = Outcome.STALL, Outcome.COLLAPSE, Outcome.BROKEN, Outcome.CRASHED
ATTACKS = {"T1": windows.T1, "T2": windows.MUON, "T3": windows.ADAPTERS}
REACH = Reach(1e-6, 1e-2, near=0.425)


@pytest.mark.parametrize("attack", ATTACKS)
def test_thorough_misses_no_narrow_window(attack: str) -> None:
    """200 windows of width 1.3 at random places; the score is far from the target right beside them."""
    searched = ATTACKS[attack]
    with windows.only(searched):
        lows = windows.windows(searched, 200)
        missed = [low for low in lows if not windows.is_found(searched, THOROUGH, low, windows.flat)]
    assert not missed


@pytest.mark.parametrize("attack", ATTACKS)
def test_standard_finds_what_scores_point_to_and_half_of_what_none_does(attack: str) -> None:
    """docs/threat-models.md gives the shares; the command that prints them is in `windows`."""
    searched = ATTACKS[attack]
    assert windows.share(searched, STANDARD, windows.sloped, count=40) == 1.0
    assert windows.share(searched, STANDARD, windows.flat, count=60) > 0.35


def test_a_flat_window_between_two_stalls_can_be_missed_and_the_certificate_says_so() -> None:
    assert windows.share(windows.T1, THOROUGH, windows.between_stalls, count=40) < 0.6
    for effort in (STANDARD, THOROUGH):
        assert any("both stall, or both collapse" in text for text in effort.untried)


@pytest.mark.parametrize("effort", EFFORTS.values(), ids=EFFORTS)
def test_a_certificate_says_what_its_effort_leaves_out(effort: Effort, tmp_path: Path) -> None:
    certificate = synthetic.certify(tmp_path, synthetic.holds, ("T0",), effort=effort)
    told = (*effort.untried, *(RUINED if effort.stop == "ruin" else ()), *UNTRIED)
    assert certificate.not_tried[-len(told) :] == told
    assert f"within a factor of {effort.factor:g}" in effort.untried[0]


def points(*found: tuple[float, Outcome, float]) -> list[Point]:
    return [Point(*each) for each in found]


@pytest.mark.parametrize(
    ("effort", "tried", "expected"),
    [
        pytest.param(STANDARD, [(1e-4, STALL, 0.3), (1e-3, COLLAPSE, 0.3)], [3.16e-4], id="edge, low scores"),
        pytest.param(STANDARD, [(1e-4, STALL, 0.3), (2e-4, COLLAPSE, 0.3)], [], id="close enough"),
        pytest.param(STANDARD, [(1e-4, STALL, 0.5), (2e-4, COLLAPSE, 0.3)], [1.41e-4], id="near the target: closer"),
        pytest.param(THOROUGH, [(1e-4, STALL, 0.3), (2e-4, COLLAPSE, 0.3)], [1.41e-4], id="thorough: closer"),
        pytest.param(THOROUGH, [(1e-4, STALL, 0.3), (1.25e-4, COLLAPSE, 0.5)], [], id="thorough: close enough"),
        pytest.param(
            STANDARD,
            [(1e-6, STALL, 0.3), (1e-5, COLLAPSE, 0.3), (1e-4, STALL, 0.3), (1e-3, COLLAPSE, 0.3)],
            [3.16e-6, 3.16e-5, 3.16e-4],
            id="edges in both directions, all at once",
        ),
        pytest.param(STANDARD, [(1e-4, STALL, 0.3), (3e-4, BROKEN, 0.7), (1e-3, COLLAPSE, 0.3)], [], id="broken"),
        pytest.param(STANDARD, [(1e-4, STALL, 0.3), (1e-3, STALL, 0.3)], [1e-2], id="the highest stalls"),
        pytest.param(STANDARD, [(1e-4, STALL, 0.3), (5e-3, STALL, 0.3)], [1e-2], id="not beyond reach"),
        pytest.param(STANDARD, [(1e-4, COLLAPSE, 0.3), (1e-3, COLLAPSE, 0.3)], [1e-6], id="the lowest collapses"),
        pytest.param(
            STANDARD, [(1e-4, STALL, 0.5), (1e-2, STALL, 0.3)], [1e-5, 1e-3], id="the lowest is the best, and near"
        ),
        pytest.param(
            STANDARD,
            [(1e-5, STALL, 0.3), (1e-4, STALL, 0.5), (1e-3, STALL, 0.3), (1e-2, STALL, 0.3)],
            [3.16e-5, 3.16e-4],
            id="beside the best score near the target",
        ),
        pytest.param(STANDARD, [(1e-4, STALL, 0.4), (1e-2, STALL, 0.4)], [], id="far from the target, both stall"),
        pytest.param(THOROUGH, [(1e-4, STALL, 0.4), (1e-2, STALL, 0.4)], [1e-3], id="thorough: too far apart"),
        pytest.param(THOROUGH, [(2e-3, STALL, 0.4), (1e-2, STALL, 0.4)], [], id="thorough: near enough"),
        pytest.param(
            STANDARD,
            [(1e-4, STALL, 0.3), (3.16e-4, CRASHED, 0.0), (1e-3, COLLAPSE, 0.3)],
            [2.51e-4],
            id="a crash is stepped around",
        ),
        pytest.param(
            STANDARD,
            [(1e-4, STALL, 0.3), *((lr, CRASHED, 0.0) for lr in (2.51e-4, 3.16e-4, 3.98e-4)), (1e-3, COLLAPSE, 0.3)],
            [],
            id="where everything crashes it ends",
        ),
        pytest.param(STANDARD, [(1e-4, CRASHED, 0.0)], [], id="nothing counts"),
        pytest.param(STANDARD, [(1e-4, COLLAPSE, 0.3)], [], id="tried at one rate, far from the target"),
        pytest.param(STANDARD, [(1e-4, COLLAPSE, 0.5)], [1e-6], id="tried at one rate, near the target"),
        pytest.param(THOROUGH, [(1e-4, COLLAPSE, 0.3)], [1e-6], id="thorough: every attack is searched"),
    ],
)
def test_the_next_rates_follow_from_what_was_found(
    effort: Effort, tried: list[tuple[float, Outcome, float]], expected: list[float]
) -> None:
    assert further_rates(points(*tried), effort, REACH) == expected


def test_a_search_that_stands_on_the_lowest_rate_in_reach_goes_no_lower() -> None:
    """Rates are rounded to three digits; the end of the range may have more."""
    assert further_rates(points((1.2345e-6, COLLAPSE, 0.3)), THOROUGH, replace(REACH, lowest=1.2345e-6)) == []


def searched_from(*rates: float) -> list[float]:
    """What a thorough search adds to these rates of one attack: everything stalls, far from the target."""
    study, findings = synthetic.study(effort=THOROUGH), Findings()

    def run(cells: Sequence[Cell]) -> list[StoredCell]:
        found = [windows.finished(cell, lambda _: "stall 0.3") for cell in cells]
        findings.results.setdefault("T2", []).extend(found)
        return found

    trials = trying(rates, optimizer="muon")
    run([study.attacked(study.locked, trial.attack(study)) for trial in trials])
    plan = search_rates(study, findings, ["T2"], trials[0], rates, lambda attack: study.attacked(study.locked, attack))
    return [learning_rate(cell) for batch in follow(plan, run) for cell in batch]


def test_an_attack_at_one_rate_is_searched_in_steps_of_ten_and_a_range_more_closely() -> None:
    assert searched_from(1e-4) == [1e-3, 1e-2]
    found = sorted([1e-4, 1e-3, *searched_from(1e-4, 1e-3)])
    assert max(high / low for low, high in pairwise(found)) <= THOROUGH.spacing


def below_what_the_manifest_claims(cell: Cell) -> str:
    lr = cell.attack.recipe.lr
    return "broken 20" if 4e-11 < lr < 4e-10 else "stall 0.3" if lr < 1e-10 else "collapse 0.3"


def test_thorough_goes_below_a_multiplier_that_is_too_small() -> None:
    """A manifest that claims little would end the search above the window; the lowest rate there still collapses."""
    claimed = replace(synthetic.study(multiplier=1000.0, effort=THOROUGH), effort=THOROUGH)
    found = windows.run(windows.T1, THOROUGH, below_what_the_manifest_claims, study=claimed)
    assert is_broken(found.best("T1"))  # type: ignore[arg-type]
    (claim,) = (text for text in found.not_tried["T1"] if "claims" in text)
    lowest = min(map(learning_rate, found.results["T1"]))
    assert claim.startswith(f"learning rates below {lowest:.3g}: ")
    quick = windows.run(windows.T1, QUICK, below_what_the_manifest_claims, study=replace(claimed, effort=QUICK))
    assert not is_broken(quick.best("T1"))  # type: ignore[arg-type]


def slow(cell: Cell) -> str:
    return "broken 20" if cell.attack.recipe.steps > 60 else synthetic.holds(cell)


@pytest.mark.parametrize("searched", [windows.T0, windows.MUON, windows.ADAPTERS])
def test_thorough_gives_the_best_run_that_stalls_twice_the_steps(searched: windows.Searched) -> None:
    with windows.only(searched):
        found = {effort: windows.run(searched, effort, slow).best(searched.threat) for effort in (STANDARD, THOROUGH)}
    assert not is_broken(found[STANDARD])  # type: ignore[arg-type]
    longer = found[THOROUGH]
    assert longer is not None
    assert is_broken(longer)
    assert longer.attack.recipe.steps == 120


def half_undone(cell: Cell) -> str:
    """Merging leaves a weaker lock, which ordinary rates do not break; lower ones come nearer."""
    lr = cell.attack.recipe.lr
    if Merge() not in cell.attack.interventions:
        return synthetic.holds(cell)
    return "broken 20" if 1e-6 < lr < 1e-5 else f"stall {0.5 - 0.03 * math.log10(lr / 1e-5):.3f}"


def test_an_undoing_that_comes_near_is_tried_at_other_rates() -> None:
    found = {effort.name: windows.run(windows.UNDO, effort, half_undone).best("T4") for effort in EFFORTS.values()}
    assert {name: is_broken(cell) for name, cell in found.items() if cell is not None} == {
        "quick": False,
        "standard": True,
        "thorough": True,
    }


def test_effort_is_a_known_level() -> None:
    assert effort_of("thorough") is THOROUGH
    with pytest.raises(SpecdefError, match="`effort` must be one of quick, standard, thorough; got 'much'"):
        effort_of("much")


def test_results_of_the_first_effort_are_of_the_same_folder_as_before() -> None:
    assert "effort" not in synthetic.study(effort=QUICK).identity()
    assert synthetic.study(effort=STANDARD).identity()["effort"] == "standard"
