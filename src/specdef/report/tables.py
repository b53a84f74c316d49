"""Tables for the terminal."""

from __future__ import annotations

import math
from collections import defaultdict

from rich.table import Table

from specdef.analysis.inspect import InspectReport, TensorSpectrum
from specdef.architectures.channels import PairImbalance

MOST_ROWS = 12


def inspection_tables(report: InspectReport) -> list[Table]:
    """The tables `specdef inspect` prints: spectra by matrix, channel scales by kind of pair."""
    tables = [_spectra(report.tensors)] if report.tensors else []
    return [*tables, _scales(report.pairs)]


def _spectra(tensors: tuple[TensorSpectrum, ...]) -> Table:
    shown = sorted(tensors, key=lambda t: -max(t.jump, 1e-9))[:MOST_ROWS]
    table = Table(title=f"Spectra: the {len(shown)} of {len(tensors)} matrices with the largest jump")
    table.add_column("matrix", overflow="fold")
    for name in ("shape", "largest two singular values", "condition", "jump"):
        table.add_column(name, justify="right")
    for t in shown:
        condition = "-" if t.condition is None else "inf" if math.isinf(t.condition) else f"{t.condition:.3g}"
        where = t.component if t.layer is None else f"{t.layer}: {t.component}"
        top = " ".join(f"{s:.3g}" for s in t.top[:2])
        table.add_row(where, "x".join(map(str, t.shape)), top, condition, f"{t.jump:.3g}")
    return table


def _scales(pairs: tuple[PairImbalance, ...]) -> Table:
    table = Table(title="Channel scales across compensable pairs (powers of two)")
    for name in ("pairs", "number", "spread", "largest opposite deviation", "scaled channels", "exponents"):
        table.add_column(name, justify="left" if name == "pairs" else "right")
    by_kind: dict[str, list[PairImbalance]] = defaultdict(list)
    for pair in pairs:
        by_kind[pair.kind].append(pair)
    for kind, group in by_kind.items():
        exponents = sorted({channel.exponent for pair in group for channel in pair.scaled})
        table.add_row(
            kind,
            str(len(group)),
            f"{max(pair.spread for pair in group):.2f}",
            f"{max(pair.largest for pair in group):.2f}",
            str(sum(len(pair.scaled) for pair in group)),
            f"{exponents[0]} to {exponents[-1]}" if exponents else "-",
        )
    return table
