"""T6: adapters and learning rates adapted to a lock, and the papers' test of noisy gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic

from specdef.attacks.base import parse_intervention
from specdef.certify.cell import Cell
from specdef.certify.certificate import Certificate
from specdef.certify.findings import UNCOUNTED
from specdef.certify.verdict_kinds import Broken, holds


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return synthetic.certify(tmp_path_factory.mktemp("held"), synthetic.holds, ("T0", "T6"), multiplier=2.0**20)


@pytest.mark.parametrize("attack", ["energy-lora", "lora-plus", "tensor-rates"])
def test_it_tries(held: Certificate, attack: str) -> None:
    rows = [row for row in held.cells if row.threat_model in ("T6", UNCOUNTED)]
    assert (parse_intervention(attack),) in [row.attack.interventions for row in rows]
    assert holds(held.verdicts["T6"])


def test_it_averages_gradients_over_many_samples(held: Certificate) -> None:
    recipes = [row.attack.recipe for row in held.cells if row.threat_model in ("T6", UNCOUNTED)]
    assert any((one.gradient_accumulation_steps, one.batch_size) == (10, 64) for one in recipes)


def test_each_of_its_attacks_can_break_a_lock(tmp_path: Path) -> None:
    for name in ("energy-lora", "lora-plus", "tensor-rates"):

        def behaviour(cell: Cell, name: str = name) -> str:
            used = any(one.name == name for one in cell.attack.interventions)
            return "broken 20" if used else synthetic.holds(cell)

        found = synthetic.certify(tmp_path / name, behaviour, ("T0", "T6"), multiplier=2.0**20)
        assert found.verdicts["T6"] == Broken()
        assert holds(found.verdicts["T0"])
