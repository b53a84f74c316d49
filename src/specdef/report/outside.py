"""Targets reached outside the utility budget: no success by the rule, and yet what some attackers would call one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from specdef.certify.certificate import Certificate
from specdef.certify.certified_cell import CertifiedCell
from specdef.certify.result import StoredCell
from specdef.report import phrases
from specdef.report.form import number, plain
from specdef.training.outcome import Outcome

OUTSIDE = (
    "These runs scored at or above the target, but only while more utility was lost than the budget allows. They are "
    "counted as held; whoever does not mind the lost utility would count them as broken."
)


def outside_budget(certificate: Certificate, cells: Sequence[StoredCell]) -> list[str]:
    """The held cells that reached the target at the price of utility, each where it cost least.

    Args:
        certificate: what `read_certificate` gave.
        cells: what `read_cells` gave; a cell without a result file cannot be told.
    """
    files = {cell.key: cell for cell in cells}
    rows = {row.cell: row for row in certificate.cells if row.attacks_task}
    said = [_sentence(certificate, row, files[key]) for key, row in rows.items() if key in files]
    return [sentence for sentence in said if sentence is not None]


def _sentence(certificate: Certificate, row: CertifiedCell, cell: StoredCell) -> str | None:
    reached = [point for point in cell.result.evaluations if point.score >= certificate.task.target]
    if row.outcome not in (Outcome.COLLAPSE, Outcome.STALL) or not reached:
        return None
    utility = certificate.utility
    finite = [point for point in reached if math.isfinite(point.utility)]
    cheapest = min(finite or reached, key=lambda point: -point.utility if utility.higher_is_better else point.utility)
    start = cell.result.evaluations[0].utility
    value = f"{utility.name} not finite"
    if finite and start:
        value = f"{number(cheapest.utility / start)} times the {utility.name} of step 0"
    name = "undefended model" if row.undefended else row.threat_model
    return plain(
        f"{name}: {phrases.attack(row.attack)}, seed {row.attack.recipe.seed} (cell {row.cell}): score "
        f"{number(cheapest.score)} at step {cheapest.step}, {value}"
    )
