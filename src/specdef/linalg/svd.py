"""Leading singular triplets of a large matrix, with a residual that is measured and not assumed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from specdef.errors import SpecdefError

OVERSAMPLING = 8
BLOCK = 16
CHUNK_ELEMENTS = 2**23
"""Elements of the matrix widened to float64 at a time: 64 MiB."""
FULL_SIZE = 256
"""Short side up to which the full SVD is the cheaper one."""
PROBE_STEPS = 6
REFINEMENTS = 4
MAX_PROJECTIONS = 6
PROJECTED = 1e-3
"""A projection that removed components no larger than this left the rest orthogonal to working precision."""


@dataclass(frozen=True)
class TopK:
    """The k leading singular triplets, ``a ~ u diag(s) vh``.

    Attributes:
        u: left singular vectors, orthonormal columns [m, k], float64.
        s: singular values [k], descending, float64.
        vh: right singular vectors, orthonormal rows [k, n], float64.
        residual: max(||a v - u s||_F, ||a^T u - v s||_F) / s_1 in float64, at least the spectral-norm residual.
        method: "lanczos", or "full" where the full decomposition was cheaper or the iteration did not converge.
        iterations: passes over the matrix and back; 0 for "full".
    """

    u: Float[Tensor, "m k"]
    s: Float[Tensor, " k"]
    vh: Float[Tensor, "k n"]
    residual: float
    method: Literal["lanczos", "full"]
    iterations: int


def top_k_svd(
    a: Float[Tensor, "m n"],
    k: int,
    *,
    tol: float = 1e-6,
    generator: torch.Generator | None = None,
    max_iterations: int = 400,
) -> TopK:
    """Leading k singular triplets by block Golub-Kahan-Lanczos with thick restarts.

    Math: Q spans left and P right Krylov blocks with a^T Q = P B^T; the singular triplets of the small B give the
    Ritz triplets of a. Both bases are orthonormalised twice against every kept block. The last Rayleigh-Ritz step
    and the residual are computed in float64, so float32 input reaches residuals below 1e-6. Because a Krylov space
    can miss copies of a repeated singular value, a second iteration from a fresh random block then looks for a larger
    one in a - u s vh; whatever it finds joins the start block and the iteration is repeated.
    (Golub, Luk, Overton 1981; thick restart: Baglama, Reichel 2005, SIAM J. Sci. Comput. 27.)

    Args:
        a: matrix [m, n]; bfloat16 and float16 are widened to float32 first. Stays on its device.
        k: number of triplets, 1 <= k <= min(m, n).
        tol: the residual to reach, relative to s_1; float32 input is iterated in float32 for tol >= 1e-6, else float64.
        generator: source of the random start block, on a's device; None takes a fresh one seeded with 0, so that the
            result is a function of the matrix alone.
        max_iterations: after that many passes the full decomposition is computed instead; ``method`` says so.

    Returns:
        The triplets in float64, with the residual reached.

    Raises:
        SpecdefError: a is not a non-empty matrix, k is out of range, tol is not positive, or a holds NaN or inf.

    Example:
        >>> a = torch.diag(torch.tensor([1.0, 5.0, 3.0]))
        >>> top_k_svd(a, 2).s.tolist()
        [5.0, 3.0]
    """
    _check(a, k, tol, max_iterations)
    if a.dtype not in (torch.float32, torch.float64):
        a = a.float()
    if a.shape[0] > a.shape[1]:
        wide = _top_k_wide(a.T, k, tol, generator, max_iterations)
        return TopK(wide.vh.T.contiguous(), wide.s, wide.u.T.contiguous(), *_provenance(wide))
    return _top_k_wide(a, k, tol, generator, max_iterations)


def top_k_values(a: Float[Tensor, "m n"], k: int) -> Float[Tensor, " k"]:
    """Leading k singular values, descending, as a function of the matrix that can be differentiated once.

    Math: d s_i / d a = u_i v_i^T. Inside a group of equal values the single gradients depend on the basis that the SVD
    happens to give; their sum over the whole group, sum u_i v_i^T, does not, and is the derivative of the sum of the
    values. Where k cuts such a group no derivative exists, and this gives one of the directions of ascent.

    Args:
        a: matrix [m, n], floating point, on any device.
        k: number of values, 1 <= k <= min(m, n).

    Returns:
        The values in a's dtype.

    Raises:
        SpecdefError: as `top_k_svd`.

    Example:
        >>> a = torch.diag(torch.tensor([1.0, 5.0, 3.0])).requires_grad_()
        >>> top_k_values(a, 2).sum().backward()
        >>> a.grad.diagonal().tolist()
        [0.0, 1.0, 1.0]
    """
    found = top_k_svd(a.detach(), k)
    u, vh = found.u.to(a.dtype), found.vh.to(a.dtype)
    return (u * (a @ vh.T)).sum(0)


def residual_of(a: Float[Tensor, "m n"], u: Float[Tensor, "m k"], s: Float[Tensor, " k"], vh: Tensor) -> float:
    """Relative two-sided residual max(||a v - u s||_F, ||a^T u - v s||_F) / s_1 in float64.

    Args:
        a: matrix [m, n], any floating dtype.
        u: left vectors [m, k].
        s: singular values [k], descending.
        vh: right vectors [k, n].

    Returns:
        The residual; 0.0 for a zero matrix and zero values, inf where s_1 is 0 and the residual is not.

    Example:
        >>> residual_of(torch.eye(3), torch.eye(3), torch.ones(3), torch.eye(3))
        0.0
    """
    u, s, vh = u.double(), s.double(), vh.double()
    forward = torch.linalg.norm(_times(a, vh.T) - u * s).item()
    backward = torch.linalg.norm(_transpose_times(a, u) - vh.T * s).item()
    worst, largest = float(max(forward, backward)), float(s[0])
    if largest == 0.0:
        return 0.0 if worst == 0.0 else math.inf
    return worst / largest


def _check(a: Tensor, k: int, tol: float, max_iterations: int) -> None:
    if a.ndim != 2 or 0 in a.shape:
        raise SpecdefError(f"`a` must be a non-empty matrix; got shape {list(a.shape)}. Pass a 2-D weight.")
    if not 1 <= k <= min(a.shape):
        raise SpecdefError(
            f"`k` must be between 1 and {min(a.shape)}, the short side of {list(a.shape)}; got {k}. Lower it."
        )
    if not tol > 0:
        raise SpecdefError(f"`tol` must be positive; got {tol}. Use 1e-6 for float32 weights.")
    if max_iterations < 1:
        raise SpecdefError(f"`max_iterations` must be at least 1; got {max_iterations}. Use the default.")
    if not torch.isfinite(a).all():
        raise SpecdefError("`a` must hold finite numbers; got NaN or inf. Check the checkpoint this weight came from.")


def _provenance(result: TopK) -> tuple[float, Literal["lanczos", "full"], int]:
    return result.residual, result.method, result.iterations


def _top_k_wide(a: Tensor, k: int, tol: float, generator: torch.Generator | None, max_iterations: int) -> TopK:
    short = a.shape[0]
    largest = a.abs().max().item()
    if largest == 0.0 or short <= FULL_SIZE or 4 * (k + OVERSAMPLING) > short:
        return _full(a, k)
    if not 1e-12 < largest < 1e12:  # squares must stay inside the working dtype's range
        exponent = math.frexp(largest)[1]
        scaled = _top_k_wide(torch.ldexp(a, torch.tensor(-exponent)), k, tol, generator, max_iterations)
        return TopK(scaled.u, torch.ldexp(scaled.s, torch.tensor(exponent)), scaled.vh, *_provenance(scaled))
    if generator is None:
        generator = torch.Generator(device=a.device).manual_seed(0)
    work = a if tol >= 1e-6 else a.double()
    start = torch.empty(short, 0, dtype=work.dtype, device=a.device)
    passes = 0
    while passes < max_iterations:
        cycles = _lanczos(work, k, start, generator)
        basis, bound, done = next(cycles)
        passes += done
        while bound > 0.5 * tol and passes < max_iterations:
            basis, bound, done = next(cycles)
            passes += done
        result = _rayleigh_ritz(a, basis, k, tol, passes)
        if result.residual <= tol:
            missed = _larger_than(work, result, tol, generator)
            if missed.shape[1] == 0:
                return result
            start = torch.cat([result.u.to(work.dtype), missed], dim=1)
        else:
            start = result.u.to(work.dtype)
    return _full(a, k)


def _full(a: Tensor, k: int) -> TopK:
    u, s, vh = torch.linalg.svd(a.double(), full_matrices=False)
    u, s, vh = u[:, :k].contiguous(), s[:k].contiguous(), vh[:k].contiguous()
    return TopK(u, s, vh, residual_of(a, u, s, vh), "full", 0)


def _lanczos(a: Tensor, k: int, start: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, float, int]]:
    """Yield (right Ritz basis [n, k + oversampling], estimated relative residual, passes since the last yield)."""
    m, n = a.shape
    keep = k + OVERSAMPLING
    width = min(max(4 * keep, keep + 4 * BLOCK), m - BLOCK)
    block = max(BLOCK, start.shape[1])
    fresh = torch.randn(m, block - start.shape[1], generator=generator, dtype=a.dtype, device=a.device)
    left = torch.empty(m, 0, dtype=a.dtype, device=a.device)
    right = torch.empty(n, 0, dtype=a.dtype, device=a.device)
    small = torch.empty(0, 0, dtype=a.dtype, device=a.device)
    block_left, _, _ = _orthonormalize(torch.cat([start, fresh], dim=1), left)
    passes = 0
    while True:
        previous = small.shape[0]
        block_right, along, new = _orthonormalize((block_left.T @ a).T, right)
        small = torch.cat([torch.nn.functional.pad(small, (0, new.shape[0])), torch.cat([along, new]).T])
        left, right = torch.cat([left, block_left], dim=1), torch.cat([right, block_right], dim=1)
        block_left, _, new = _orthonormalize(a @ block_right, left)
        passes += 1
        if small.shape[0] + block_left.shape[1] <= width:
            continue
        x, s, yh = torch.linalg.svd(small.double())
        tail = new.double() @ yh[:keep, previous:].T
        x, s, y = x[:, :keep].to(a.dtype), s[:keep], yh[:keep].T.to(a.dtype)
        left, right, small = left @ x, right @ y, torch.diag(s.to(a.dtype))
        yield right, (torch.linalg.norm(tail[:, :k]) / s[0]).item(), passes
        passes = 0


def _orthonormalize(block: Tensor, against: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split block = against @ along + basis @ new, with basis orthonormal and orthogonal to `against`.

    Normalising between projections keeps this true for a block that (nearly) lies in the span already: its normalised
    remainder is rounding noise with a part in the span, so projections repeat until one removes next to nothing.
    """
    basis, new = torch.linalg.qr(block)
    along = torch.zeros(against.shape[1], block.shape[1], dtype=block.dtype, device=block.device)
    for _ in range(MAX_PROJECTIONS):
        part = against.T @ basis
        along += part @ new
        basis, r = torch.linalg.qr(basis - against @ part)
        new = r @ new
        if part.numel() == 0 or part.abs().max() < PROJECTED:
            break
    return basis, along, new


def _rayleigh_ritz(a: Tensor, right: Tensor, k: int, tol: float, passes: int) -> TopK:
    """Best triplets within a right subspace, in float64.

    A float32 product carries rounding of about eps |a| |v|, several eps s_1 when the spectrum decays slowly. While the
    residual is above tol, the subspace is therefore widened by the residual itself, computed in float64.
    """
    basis, _ = torch.linalg.qr(right.double())
    image = _times(a, basis)
    for step in range(REFINEMENTS + 1):
        left, r = torch.linalg.qr(image)
        x, s, yh = torch.linalg.svd(r)
        u, s, vh = left @ x[:, :k], s[:k], yh[:k] @ basis.T
        remainder = _transpose_times(a, u) - vh.T * s
        result = TopK(u, s, vh, residual_of(a, u, s, vh), "lanczos", passes + step)
        if result.residual <= tol or basis.shape[1] + k > a.shape[0]:
            break
        block, _, _ = _orthonormalize(remainder, basis)
        basis, image = torch.cat([basis, block], dim=1), torch.cat([image, _times(a, block)], dim=1)
    return result


def _larger_than(a: Tensor, found: TopK, tol: float, generator: torch.Generator) -> Tensor:
    """Left vectors [m, j] outside `found` whose singular value exceeds the smallest one found; j = 0 if none."""
    u = found.u.to(a.dtype)
    start = torch.randn(a.shape[0], BLOCK, generator=generator, dtype=a.dtype, device=a.device)
    block, _, _ = _orthonormalize(start, u)
    blocks = []
    for _ in range(PROBE_STEPS):
        blocks.append(block)
        block, _, _ = _orthonormalize(a @ (block.T @ a).T, torch.cat([u, *blocks], dim=1))
    basis = torch.cat(blocks, dim=1)
    x, s, _ = torch.linalg.svd((basis.T @ a).double(), full_matrices=False)
    larger = s > found.s[-1] + 4 * tol * found.s[0]
    missed: Tensor = basis @ x[:, larger].to(a.dtype)
    return missed


def _times(a: Tensor, right: Tensor) -> Tensor:
    """A @ right in float64, widening a few rows of a at a time."""
    rows = max(1, CHUNK_ELEMENTS // a.shape[1])
    return torch.cat([chunk.double() @ right for chunk in a.split(rows)])


def _transpose_times(a: Tensor, left: Tensor) -> Tensor:
    """a^T @ left in float64, widening a few rows of a at a time."""
    rows = max(1, CHUNK_ELEMENTS // a.shape[1])
    total = torch.zeros(a.shape[1], left.shape[1], dtype=torch.float64, device=a.device)
    for chunk, part in zip(a.split(rows), left.split(rows), strict=True):
        total += chunk.double().T @ part
    return total
