"""What the rows and columns of a matrix were multiplied by, from the matrix and the one it was made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

SAMPLED = 256
"""Entries of a row or column that its factor is estimated from, at most."""
SWEEPS = 4
"""Alternations between rows and columns; where nothing but factors differs, one is enough."""
LEAST = 2.0**-10
"""Factors nearer to 1 than this, as log2, are no change of variables."""
MOST_SPREAD = 0.5
"""How far the entries of a channel may lie from its factor, as log2 (median): beyond, they share none."""
SURE = 4.0
"""A factor must be this many times its spread: the median of what training changes lies nearer to 1."""


@dataclass(frozen=True)
class Factors:
    """Factors of a matrix [m, n] as log2: of its rows [m] and of its columns [n]. Those of most rows are 0.

    Only the sum of a row's and a column's is determined: a factor of the whole matrix is written to its columns.
    """

    rows: Floats
    columns: Floats

    @property
    def count(self) -> int:
        """How many rows and columns have one."""
        return int(np.count_nonzero(self.rows) + np.count_nonzero(self.columns))

    def undo(self, matrix: Floats) -> Floats:
        """The matrix divided by its factors, in float64; exact where they are powers of two."""
        wide = matrix.astype(np.float64)
        return np.asarray(wide / np.exp2(self.rows)[:, None] / np.exp2(self.columns))


def channel_factors(found: Floats, base: Floats) -> Factors:
    """The positive factors that turn rows and columns of `base` into those of `found`, where they are clear.

    Math: found = diag(r) (base + D) diag(c) with a D that is small beside most entries. Then
    log2 |found / base| = log2 r + log2 c + noise of median 0, and rows and columns are fitted in turn by medians
    (Tukey's median polish), which a minority of changed entries does not move. A factor counts where the entries of
    its channel agree on it; within twice their spread of a power of two, it is that power.

    Args:
        found: the matrix [m, n].
        base: what it was made of [m, n].
    """
    rows, columns = np.zeros(len(found)), np.zeros(found.shape[1])
    some_rows, some_columns = _sample(len(rows)), _sample(len(columns))
    wide = _logs(found[:, some_columns], base[:, some_columns])  # every row, some of its entries
    tall = _logs(found[some_rows], base[some_rows])
    for _ in range(SWEEPS):
        more = _median(wide - rows[:, None] - columns[some_columns])
        rows += more
        other = _median((tall - rows[some_rows, None] - columns).T)
        columns += other
        if not more.any() and not other.any():
            break
    whole = float(_median(rows[None])[0])
    rows, columns = rows - whole, columns + whole
    across = _median(np.abs(wide - rows[:, None] - columns[some_columns]))
    along = _median(np.abs(tall - rows[some_rows, None] - columns).T)
    return Factors(_clear(rows, across), _clear(columns, along))


def powers_of_two(found: Floats, base: Floats) -> npt.NDArray[np.bool_]:
    """Where entries are those of `base` times a power of two other than 1, exactly."""
    (mantissa, exponent), (other, power) = np.frexp(found), np.frexp(base)
    return np.asarray((mantissa == other) & (exponent != power))


def _sample(size: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, size - 1, min(size, SAMPLED)).astype(np.int64))


def _logs(found: Floats, base: Floats) -> Floats:
    """log2 |found / base|; not a number where either is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log2(np.abs(found.astype(np.float64))) - np.log2(np.abs(base.astype(np.float64)))
    return np.asarray(np.where(np.isfinite(logs), logs, np.nan))


def _median(values: Floats) -> Floats:
    """The lower median of every row's numbers, one of them itself: the mean of two powers' logs is none; 0 without."""
    if values.size and not np.isnan(values).any():
        middle = (values.shape[1] - 1) // 2
        return np.asarray(np.partition(values, middle, axis=1)[:, middle])
    ordered = np.sort(values, axis=1)  # what is no number comes last
    known = np.count_nonzero(~np.isnan(values), axis=1)
    lower = ordered[np.arange(len(ordered)), np.maximum(known - 1, 0) // 2]
    return np.asarray(np.where(known > 0, lower, 0.0))


def _clear(logs: Floats, spread: Floats) -> Floats:
    """The factors that their channel's entries agree on; 0 for the others."""
    clear = (np.abs(logs) > np.maximum(SURE * spread, LEAST)) & (spread < MOST_SPREAD)
    power = np.rint(logs)
    near = (power != 0) & (np.abs(logs - power) <= np.maximum(2 * spread, LEAST))
    return np.asarray(np.where(clear, np.where(near, power, logs), 0.0))
