"""Which slices of a model can be scaled against each other, from sums of weight times gradient.

If scaling slice P[c] by a and C[c] by a^-d leaves the function alone, the derivative of any loss L by a is nought at
a = 1, so sum(P[c] * dL/dP[c]) = d * sum(C[c] * dL/dC[c]). Every axis of every tensor gives a vector of such sums,
channel by channel and loss by loss; a set of axes that scale against each other is a linear relation between their
vectors with small whole numbers as coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from specdef.architectures.spec import Dims
from specdef.architectures.written import WrittenLayout, positions
from specdef.mapping.twin import Twin, in_float64

PASSES = 8
"""Backward passes; three tell equal vectors apart, sums over many consumers need more equations than axes."""
NOUGHT = 1e-7
"""Singular values, of vectors of length 1, below which there is a relation."""
MAX_DEGREE = 4


@dataclass(frozen=True)
class End:
    """An axis of a saved tensor, read in one way.

    Attributes:
        tensor: its name.
        axis: of it.
        layout: how its positions are channels.
        offset: what the model adds to the stored number.
    """

    tensor: str
    axis: int
    layout: WrittenLayout
    offset: float = 0.0


@dataclass(frozen=True)
class Relation:
    """Ends that scale against each other: end -> the exponent of the factor on its channels."""

    powers: Mapping[End, int]


@dataclass(frozen=True)
class Sums:
    """Sums of weight times gradient.

    Attributes:
        weighted: tensor -> weight times gradient [passes, *shape], float64.
        plain: one-dimensional tensor -> gradient [passes, length], for weights that the model adds 1 to.
    """

    weighted: Mapping[str, Tensor]
    plain: Mapping[str, Tensor]


def measure(twin: Twin) -> Sums:
    """Random linear losses on varied inputs, each with one backward pass in float64."""
    found: list[Tensor] = []
    values = twin.values()
    for seed in range(PASSES):
        twin.model.zero_grad(set_to_none=True)
        with in_float64():
            said = twin.outputs(seed)
            weights = torch.randn(said.shape, generator=torch.Generator().manual_seed(seed), dtype=said.dtype)
            (weights * said).sum().backward()
        found.append(twin.gradients())
    twin.model.zero_grad(set_to_none=True)
    gradients = torch.stack(found)
    weighted = {name: (values * gradients)[:, ids] for name, ids in twin.ids.items()}
    plain = {name: gradients[:, ids] for name, ids in twin.ids.items() if ids.ndim == 1}
    return Sums(weighted, plain)


def vector(end: End, sums: Sums, config: Mapping[str, object], dims: Dims) -> Tensor:
    """An end's sums, channel by channel [channels, passes]."""
    values = sums.weighted[end.tensor]
    if end.offset:
        values = values + end.offset * sums.plain[end.tensor]
    axis = end.axis + 1
    along = torch.movedim(values, axis, 1).flatten(2).sum(2).T if values.ndim > 2 else values.T  # [length, passes]
    return along[torch.tensor([list(found) for found in positions(end.layout, config, dims)])].sum(dim=1)


def find(vectors: Mapping[End, Tensor]) -> list[Relation]:
    """Relations between vectors of equal shape, in a form in which each end stands in as few as can be.

    Args:
        vectors: end -> its sums [channels, passes].
    """
    alive = {end: v.reshape(-1) for end, v in vectors.items() if float(v.abs().max()) > 0}
    largest = max((float(v.norm()) for v in alive.values()), default=0.0)
    ends = [end for end, v in alive.items() if float(v.norm()) > 1e-10 * largest]
    if len(ends) < 2:
        return []
    rows = torch.stack([alive[end] for end in ends])
    norms = rows.norm(dim=1)
    if len(ends) > rows.shape[1]:  # fewer equations than ends: every relation might be chance
        return []
    left, singular, _ = torch.linalg.svd(rows / norms[:, None], full_matrices=False)
    null = left[:, singular < NOUGHT].T  # [relations, ends]
    if not len(null):
        return []
    return [relation for row in _reduced(null / norms) if (relation := _whole_numbers(row, norms, ends)) is not None]


def _reduced(rows: Tensor) -> Tensor:
    """Reduced row-echelon form."""
    rows, done = rows / rows.abs().max(dim=1, keepdim=True).values, 0
    for column in range(rows.shape[1]):
        if done == len(rows):
            break
        best = done + int(rows[done:, column].abs().argmax())
        if float(rows[best, column].abs()) < 1e-5:
            continue
        rows[[done, best]] = rows[[best, done]]
        rows[done] = rows[done] / rows[done, column]
        others = torch.arange(len(rows)) != done
        rows[others] = rows[others] - rows[others, column : column + 1] * rows[done]
        done += 1
    return rows[:done]


def _whole_numbers(row: Tensor, norms: Tensor, ends: Sequence[End]) -> Relation | None:
    """A relation, its coefficients divided by the smallest; None where they are no small whole numbers."""
    shares = row.abs() * norms
    kept = (shares > 1e-4 * float(shares.max())) & (row.abs() > 1e-3 * float(row.abs().max()))
    least = float(row[kept].abs().min())
    scaled = row / least
    whole = scaled.round()
    if bool(((scaled - whole).abs()[kept] > 1e-3).any()) or float(whole[kept].abs().max()) > MAX_DEGREE:
        return None
    return Relation({end: int(whole[i]) for i, end in enumerate(ends) if bool(kept[i])})
