"""T5: who holds the public base weights. What is tried, in which order, when it stops, and what it must be given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pico
import pytest
import synthetic

from specdef import certify_model, lock
from specdef.attacks.base_weights import weights_digest
from specdef.attacks.interventions.anchor import Anchor
from specdef.attacks.interventions.tensor_rates import TensorRates
from specdef.certify.attack_plan import AttackPlan
from specdef.certify.cell import Cell, Subject
from specdef.certify.certificate import Certificate
from specdef.certify.findings import CONTROLS, UNCOUNTED
from specdef.certify.study import base_of
from specdef.certify.study_file import parse_study
from specdef.certify.study_plan import plan_study
from specdef.certify.verdict_kinds import Broken, Undone, Verdict, holds
from specdef.errors import SpecdefError

BASE = Subject("/nowhere/base", "e" * 64)


def certified(folder: Path, behaviour: synthetic.Behaviour, threats: tuple[str, ...] = ("T0", "T5")) -> Certificate:
    return synthetic.certify(folder, behaviour, threats, multiplier=2.0**20, base=BASE)


def ranks(certificate: Certificate) -> list[int | str]:
    """Ranks of the anchors tried on the model under test, in order."""
    rows = [row for row in certificate.cells if row.threat_model in ("T5", UNCOUNTED) and row.attack.recipe.seed == 0]
    return [one.rank for row in rows for one in row.attack.interventions if isinstance(one, Anchor)]


def falls_at(*wanted: int | str) -> synthetic.Behaviour:
    """A defence that holds until the base weights are used at one of some ranks."""

    def behaviour(cell: Cell) -> str:
        found = [one.rank for one in cell.attack.interventions if isinstance(one, Anchor)]
        return "broken 20" if set(found) & set(wanted) else synthetic.holds(cell)

    return behaviour


EVERY = [0, 1, 4, 16, 64, "all"]


@pytest.mark.parametrize(
    ("behaviour", "tried", "verdict"),
    [
        (falls_at(0), EVERY[:1], Undone),
        (falls_at(4), EVERY[:3], Undone),
        (falls_at("all"), EVERY, Undone),
        (falls_at(0, "all"), EVERY[:1], Undone),
        (synthetic.holds, EVERY, None),
        (synthetic.unlocked, [], Broken),
    ],
    ids=["a lock", "a difference of low rank", "any other", "whatever comes first", "holds", "open already"],
)
def test_it_goes_on_until_the_defence_falls(
    behaviour: synthetic.Behaviour, tried: list[int | str], verdict: type[Verdict] | None, tmp_path: Path
) -> None:
    certificate = certified(tmp_path, behaviour)
    assert ranks(certificate) == tried
    found = certificate.verdicts["T5"]
    assert holds(found) if verdict is None else isinstance(found, verdict)
    skipped = certificate.threat_models["T5"].not_tried
    if verdict is Undone:
        assert len([what for what in skipped if what.endswith(": already broken")]) == len(EVERY) - len(tried) + 1
    if verdict is Broken:
        assert skipped == ("the base weights: ordinary fine-tuning breaks the model as it is",)


def test_a_held_defence_is_tried_at_the_best_rate_of_the_undefended_model(tmp_path: Path) -> None:
    certificate = certified(tmp_path, synthetic.holds)
    rows = [row for row in certificate.cells if row.threat_model == "T5"]
    assert {row.attack.recipe.lr for row in rows} == {3e-4}
    assert any(
        isinstance(one, TensorRates) and one.digest == BASE.digest for row in rows for one in row.attack.interventions
    )
    assert BASE.path not in (tmp_path / "certificate.json").read_text(), "where the base lies is nobody's business"
    assert BASE.digest in (tmp_path / "certificate.json").read_text()
    controls = [row for row in certificate.cells if row.threat_model == CONTROLS]
    assert not any(isinstance(one, Anchor) for row in controls for one in row.attack.interventions)


def test_every_cell_knows_where_the_base_lies(tmp_path: Path) -> None:
    """Those of further seeds too, which are made again from results: these hold the base's digest alone."""
    asked: list[tuple[int, str]] = []

    def behaviour(cell: Cell) -> str:
        asked.extend(
            (cell.attack.recipe.seed, one.base) for one in cell.attack.interventions if isinstance(one, Anchor)
        )
        return falls_at(0)(cell)

    certified(tmp_path, behaviour)
    assert asked == [(seed, BASE.path) for seed in (0, 1, 2)]


def test_an_attack_of_the_users_own_knows_where_its_base_lies(tmp_path: Path) -> None:
    asked: list[tuple[int, str]] = []

    def behaviour(cell: Cell) -> str:
        asked.extend(
            (cell.attack.recipe.seed, one.base) for one in cell.attack.interventions if isinstance(one, Anchor)
        )
        return falls_at(0)(cell)

    own = AttackPlan("mine", {"lr": 3e-4}, (Anchor("/nowhere/theirs", "f" * 64),))
    synthetic.certify(tmp_path, behaviour, ("T0",), multiplier=2.0**20, also=(own,))
    assert {seed for seed, _ in asked} == {0, 1, 2}
    assert {place for _, place in asked} == {"/nowhere/theirs"}


def test_a_certificate_without_it_says_so(tmp_path: Path) -> None:
    certificate = synthetic.certify(tmp_path, synthetic.holds, ("T0",))
    assert {"threat model T5", "threat model T6"} <= set(certificate.not_tried)


def test_it_is_refused_without_base_weights(tmp_path: Path) -> None:
    with pytest.raises(SpecdefError) as caught:
        synthetic.certify(tmp_path, synthetic.holds, ("T0", "T5"))
    assert str(caught.value) == (
        "`base` must be given with threat model T5: the public base weights. Only a lock's are known to be the "
        "undefended model's."
    )
    assert not list((tmp_path / "cells").iterdir())


def test_base_weights_without_it_are_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = {"original": "nothing", "threats": ["T0", "T4"], "base": "nothing"}
    with pytest.raises(SpecdefError) as caught:
        certify_model("nothing", tmp_path / "out", **options)
    assert str(caught.value) == "`base` must be given with threat model T5, which uses it; got T0, T4."
    text = "specdef_study: 1\ntitle: One\nmodels: [smollm2-135m]\nbase: smollm2-135m\ncertify: [{}]\n"
    with pytest.raises(SpecdefError, match="`base` must be given where `certify` lists T5, which uses it"):
        plan_study(parse_study(text.format("T0").encode()))
    assert plan_study(parse_study(text.format("T5").encode())).study.base == "smollm2-135m"


def test_of_a_lock_the_base_is_the_undefended_model_and_of_nothing_else(tmp_path: Path) -> None:
    model = pico.build("llama", tmp_path / "model")
    study = replace(synthetic.study(), original=Subject(str(model), "a" * 64))
    for method in ("fold", "inject", "ladder"):
        assert base_of(replace(study, method=method), None) == Subject(str(model), weights_digest(model))
    for method in ("none", "unknown"):
        assert base_of(replace(study, method=method), None) is None
    other = pico.build("llama", tmp_path / "other", seed=1)
    assert base_of(study, other) == Subject(str(other), weights_digest(other)) != base_of(study, None)


def test_the_threats_cell_is_the_one_a_user_would_run(tmp_path: Path) -> None:
    """Named by the same digest, so that nothing is run twice."""
    model = pico.build("llama", tmp_path / "model")
    lock(model, tmp_path / "locked", preset="exact")
    study = replace(synthetic.study(), original=Subject(str(model), "a" * 64))
    base = base_of(study, None)
    assert base is not None
    ours, theirs = (
        study.cell(study.locked, interventions=(how,)) for how in (Anchor(base.path, base.digest), Anchor(str(model)))
    )
    assert ours.key == theirs.key
