"""Targets reached outside the utility budget: no success by the rule, and yet what some attackers would call one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from specdef.certify.result import StoredCell
from specdef.report.entries import UNLOCKED, number
from specdef.report.sentences import label, plain, shortened
from specdef.training.outcome import Outcome

OUTSIDE = (
    "These runs scored at or above the target, but only while general text was predicted worse than the utility budget "
    "allows. They are counted as held; whoever does not mind the lost utility would count them as broken."
)


def outside_budget(certificate: Mapping[str, Any], cells: Sequence[StoredCell]) -> list[str]:
    """The held cells that reached the target at the price of utility, each where it cost least.

    Args:
        certificate: what `read_certificate` gave.
        cells: what `read_cells` gave; a cell without a result file cannot be told.
    """
    files = {cell.key: cell for cell in cells}
    rows = {row["cell"]: row for row in certificate["cells"]}
    said = [_sentence(row, files[key], certificate["task"]["target"]) for key, row in rows.items() if key in files]
    return [sentence for sentence in said if sentence is not None]


def _sentence(row: Mapping[str, Any], cell: StoredCell, target: float) -> str | None:
    reached = [point for point in cell.result.evaluations if point.score >= target]
    if row["outcome"] not in (Outcome.COLLAPSE.value, Outcome.STALL.value) or not reached:
        return None
    cheapest = min(reached, key=lambda point: point.utility)
    start = cell.result.evaluations[0].utility
    ratio = "perplexity not finite"
    if math.isfinite(cheapest.utility) and start:
        ratio = f"{number(cheapest.utility / start)} times the perplexity of step 0"
    name = "undefended model" if row["threat_model"] == UNLOCKED else row["threat_model"]
    return plain(
        f"{name}: {shortened(label(row['attack']))}, seed {row['seed']} (cell {row['cell']}): score "
        f"{number(cheapest.score)} at step {cheapest.step}, {ratio}"
    )
