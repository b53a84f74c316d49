"""The three ways to build a lock of one weight: Construction 1 with a dense or a rank-k C, and scaled rows or columns.

Each is planned once and then built for every dtype C might be stored in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from specdef.errors import PlanError
from specdef.linalg.closeness import StoredLock
from specdef.linalg.compensation import Side
from specdef.linalg.multiplier import format_multiplier
from specdef.linalg.rank import refuse_low_rank
from specdef.linalg.svd import TopK, top_k_svd

Build = Callable[[torch.dtype], StoredLock]
"""dtype of C -> the lock as stored."""


@dataclass(frozen=True)
class Request:
    """What to build.

    Attributes:
        source: W [out, in], widened to float64.
        read_dtype: what W was stored in; its rounding is no direction to scale.
        rank: k, the number of directions to scale.
        multiplier: alpha.
        stored_dtype: dtype of W~.
        generator: for the SVD's start block.
    """

    source: Tensor
    read_dtype: torch.dtype
    rank: int
    multiplier: float
    stored_dtype: torch.dtype
    generator: torch.Generator | None = None

    def leading(self) -> TopK:
        """The k leading singular triplets, which must be there."""
        top = top_k_svd(self.source, self.rank, generator=self.generator)
        refuse_low_rank(self.source, top.s, self.read_dtype)
        return top

    def store(self, deformed: Tensor) -> Tensor:
        """W~ as stored, if the dtype holds it."""
        locked = deformed.to(self.stored_dtype).contiguous()
        if torch.isfinite(locked).all():
            return locked
        largest, limit = deformed.abs().max().item(), torch.finfo(self.stored_dtype).max
        raise PlanError(
            f"`multiplier` must keep W~ inside {str(self.stored_dtype)[6:]} (at most {limit:.4g}); "
            f"got {format_multiplier(self.multiplier)}, which makes an entry {largest:.4g}. "
            f"Use at most about {self.multiplier * limit / largest / 2:.2g}."
        )


def dense(request: Request) -> Build:
    """Construction 1 with C solved against the rounded W~, on the side where pinv(W~) is a one-sided inverse."""
    source, top = request.source, request.leading()
    locked = request.store(source + (request.multiplier - 1) * (top.u * top.s) @ top.vh)
    living_rows, living_columns = (int(source.any(dim=dim).sum()) for dim in (1, 0))
    if living_rows >= living_columns:
        side: Side = "output"
        exact = _solve_left(locked.double(), source)
    else:
        side = "input"
        exact = _solve_left(locked.double().T, source.T).T.contiguous()
    return lambda dtype: StoredLock(locked, {"compensation": exact.to(dtype)}, side, "dense")


def _solve_left(locked: Tensor, source: Tensor) -> Tensor:
    """C = source pinv(locked), so that C locked = source, for a locked [m, n] whose living columns are independent."""
    q, r = torch.linalg.qr(locked)
    pivots = r.diagonal().abs()
    if r.shape[0] == r.shape[1] and pivots.min() > 1e-13 * pivots.max():
        solved: Tensor = torch.linalg.solve_triangular(r, source, upper=True, left=False) @ q.T
    else:  # a column of zeros in W is one in W~ too
        solved = source @ torch.linalg.pinv(locked, rtol=1e-14)
    return solved


def low_rank(request: Request) -> Build:
    """C = I + U diag(1/alpha - 1) U^T on the shorter side, and W~ = C^-1 W for U as stored."""
    source, top = request.source, request.leading()
    output = source.shape[0] <= source.shape[1]
    basis = top.u if output else top.vh.T
    side: Side = "output" if output else "input"

    def build(dtype: torch.dtype) -> StoredLock:
        stored = basis.to(dtype).contiguous()
        scale = torch.full((request.rank,), 1 / request.multiplier - 1, dtype=dtype, device=source.device)
        wide = stored.double()
        inner = torch.diag(1 / scale.double()) + wide.T @ wide
        tall = source if output else source.T
        deformed = tall - wide @ torch.linalg.solve(inner, wide.T @ tall)  # Woodbury: (I + U D U^T)^-1 W
        locked = request.store(deformed if output else deformed.T)
        return StoredLock(locked, {"compensation_basis": stored, "compensation_scale": scale}, side, "low_rank")

    return build


def axis(request: Request) -> Build:
    """The k rows or columns of largest norm scaled, whichever hold more."""
    source, k = request.source, request.rank
    rows, columns = (torch.linalg.vector_norm(source, dim=dim) for dim in (1, 0))
    by_row = _energy(rows, k) >= _energy(columns, k)
    norms = rows if by_row else columns
    index = torch.sort(norms, descending=True, stable=True).indices[:k].sort().values
    if not norms[index].all():
        lines = "rows" if by_row else "columns"
        raise PlanError(
            f"`rank` must be at most {int((norms > 0).sum())}, the {lines} of this weight that are not zero; got {k}. "
            "Lower it or choose another matrix."
        )
    factors = torch.ones_like(norms).index_fill(0, index, request.multiplier)
    locked = request.store(source * (factors[:, None] if by_row else factors))
    side: Side = "output" if by_row else "input"

    def build(dtype: torch.dtype) -> StoredLock:
        factor = torch.full((k,), 1 / request.multiplier, dtype=dtype, device=source.device)
        return StoredLock(locked, {"compensation_index": index, "compensation_factor": factor}, side, "diagonal")

    return build


def _energy(norms: Tensor, k: int) -> float:
    return norms.square().topk(k).values.sum().item() if k <= len(norms) else -1.0
