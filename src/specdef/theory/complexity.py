"""How many iterations an optimizer needs, as a function of smoothness: what a lock makes grow.

All counts are sufficient numbers of iterations in the worst case over the function class, returned as real numbers:
round up. Arguments are floats or tensors that broadcast. Units: theta in u, the loss in l; so L is in l/u^2, L2 in
l/u^3, gradients in l/u.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specdef.theory.requirements import TheoryError, check_index, check_positive

Number = float | Tensor


def _wide(**arguments: Number) -> list[Tensor]:
    return [torch.as_tensor(check_positive(name, value), dtype=torch.float64) for name, value in arguments.items()]


def gradient_descent_iterations(smoothness: Number, distance: Number, tolerance: Number) -> Tensor:
    """Iterations of gradient descent with step 1/L until some gradient is small.

    Math (Propositions 1 and 11): min_{i<k} ||grad f(theta_i)|| <= eps for k >= (L ||theta_0 - theta*|| / eps)^2.
    From the descent lemma, k min ||grad||^2 <= 2 L (f_0 - f*), and f_0 - f* <= L ||theta_0 - theta*||^2 / 2.

    Args:
        smoothness: L, an upper bound of sigma_1(H) along the path (Proposition 13) [l/u^2].
        distance: ||theta_0 - theta*|| [u].
        tolerance: eps, gradient norm to reach [l/u].

    Returns:
        k, float64, a count.

    Raises:
        SpecdefError: an argument is not positive and finite.

    Example:
        >>> gradient_descent_iterations(10.0, 1.0, 0.1).item()
        10000.0
    """
    l1, distance, eps = _wide(smoothness=smoothness, distance=distance, tolerance=tolerance)
    return (l1 * distance / eps) ** 2


def nesterov_iterations(smoothness: Number, distance: Number, tolerance: Number) -> Tensor:
    """Iterations of Nesterov's method on a convex function until the loss is near its minimum.

    Math (Propositions 2 and 12): f(theta_k) - f* <= 2 L ||theta_0 - theta*||^2 / (k + 1)^2, hence <= eps for
    k >= sqrt(2 L ||theta_0 - theta*||^2 / eps) - 1. Below 0 means that theta_0 is good enough.

    Args:
        smoothness: L [l/u^2].
        distance: ||theta_0 - theta*|| [u].
        tolerance: eps, excess loss to reach [l].

    Returns:
        k, float64, a count, above -1.

    Raises:
        SpecdefError: an argument is not positive and finite.

    Example:
        >>> nesterov_iterations(50.0, 1.0, 0.01).item()
        99.0
    """
    l1, distance, eps = _wide(smoothness=smoothness, distance=distance, tolerance=tolerance)
    return (2 * l1 * distance**2 / eps).sqrt() - 1


def newton_radius(hessian_lipschitz: Number, strong_convexity: Number, c: Number = 0.5) -> Tensor:
    """Radius of the basin of Theorem 44.

    Math: ||theta_0 - theta*|| <= c mu / L2. For c < 2/3 the ball is invariant under Newton's iteration, which
    contracts by c / (2 (1 - c)) < 1.

    Args:
        hessian_lipschitz: L2, Lipschitz constant of the Hessian [l/u^3].
        strong_convexity: mu, smallest eigenvalue of the Hessian at theta* [l/u^2].
        c: share of the radius of guaranteed invertibility, in (0, 2/3).

    Returns:
        The radius, float64 [u].

    Raises:
        SpecdefError: an argument is not positive and finite, or c >= 2/3.

    Example:
        >>> newton_radius(4.0, 2.0).item()
        0.25
    """
    l2, mu, c = _wide(hessian_lipschitz=hessian_lipschitz, strong_convexity=strong_convexity, c=c)
    if not (c < 2 / 3).all():
        raise TheoryError(f"`c` must be below 2/3 for an invariant basin; got {c.tolist()}. The default is 0.5.")
    return c * mu / l2


def newton_step_bound(distance: Number, hessian_lipschitz: Number, strong_convexity: Number, c: Number = 0.5) -> Tensor:
    """Upper bound of the distance to the minimum after one Newton step.

    Math (Theorem 44): ||theta_{t+1} - theta*|| <= L2 / (2 mu (1 - c)) ||theta_t - theta*||^2 for
    ||theta_t - theta*|| <= c mu / L2. An equality for f' = mu x + L2 x^2 / 2 at x = -c mu / L2.

    Args:
        distance: ||theta_t - theta*||, inside the basin [u].
        hessian_lipschitz: L2 [l/u^3].
        strong_convexity: mu [l/u^2].
        c: share of the radius, in (0, 2/3).

    Returns:
        The bound, float64 [u].

    Raises:
        SpecdefError: an argument is out of range, or the distance is outside the basin.

    Example:
        >>> newton_step_bound(0.25, 4.0, 2.0).item()
        0.125
    """
    radius = newton_radius(hessian_lipschitz, strong_convexity, c)
    start, l2, mu, c = _wide(
        distance=distance, hessian_lipschitz=hessian_lipschitz, strong_convexity=strong_convexity, c=c
    )
    if not (start <= radius).all():
        raise TheoryError(
            f"`distance` must be at most c mu / L2 = {radius.tolist()}; got {start.tolist()}. "
            "The theorem is local: start closer or raise c (below 2/3)."
        )
    return l2 / (2 * mu * (1 - c)) * start**2


def newton_iterations(
    hessian_lipschitz: Number, strong_convexity: Number, distance: Number, tolerance: Number, c: Number = 0.5
) -> Tensor:
    """Iterations of Newton's method inside its basin until the minimum is near.

    Math (Appendix J.3.3): with q = L2 / (2 mu (1 - c)), q e_k <= (q e_0)^(2^k), hence e_k <= eps for
    k >= log2( ln(1 / (q eps)) / ln(1 / (q e_0)) ), about log2 log(1/eps). L2 enters the count doubly logarithmically;
    what a lock shrinks is the basin, `newton_radius`.

    Args:
        hessian_lipschitz: L2 [l/u^3].
        strong_convexity: mu [l/u^2].
        distance: e_0 = ||theta_0 - theta*|| [u], at most ``newton_radius(...)``.
        tolerance: eps, distance to reach [u].
        c: share of the radius, in (0, 2/3).

    Returns:
        k, float64, a count; 0 where the start is good enough.

    Raises:
        SpecdefError: an argument is out of range, or the start is outside the basin.

    Example:
        >>> newton_iterations(1.0, 1.0, 0.5, 0.5 ** 8).item()
        3.0
    """
    newton_step_bound(distance, hessian_lipschitz, strong_convexity, c)  # refuses a start outside the basin
    l2, mu, start, eps, c = _wide(
        hessian_lipschitz=hessian_lipschitz,
        strong_convexity=strong_convexity,
        distance=distance,
        tolerance=tolerance,
        c=c,
    )
    q = l2 / (2 * mu * (1 - c))
    ratio = (q * eps).log() / (q * start).log()  # both logarithms are negative: q e_0 <= c / (2 (1 - c)) < 1
    return ratio.clamp(min=1.0).log2()


def muon_iterations(smoothness: Number, gap: Number, tolerance: Number, rank: int) -> Tensor:
    """Iterations of Muon until some gradient is small in nuclear, hence in Frobenius, norm.

    Math (Theorem 40, leading term sqrt(L_F Delta_0 / T)): for exact gradients and no momentum,
    f(W - eta U V^T) <= f - eta ||G||_* + L_F eta^2 rank / 2. Summed over T steps with the constant step
    eta = sqrt(2 Delta_0 / (L_F rank T)), min ||G||_F <= min ||G||_* <= sqrt(2 rank L_F Delta_0 / T), so
    T >= 2 rank L_F Delta_0 / eps^2. Derived here: the copy of the paper lost the constants of (9) and (10).
    Normalising the update removes no factor of L_F.

    Args:
        smoothness: L_F, Lipschitz constant of the gradient in Frobenius norm [l/u^2].
        gap: Delta_0 = f(W_0) - f* [l].
        tolerance: eps, gradient norm to reach [l/u].
        rank: largest rank of a gradient, at most the short side of W.

    Returns:
        T, float64, a count.

    Raises:
        SpecdefError: an argument is not positive and finite, or rank < 1.

    Example:
        >>> muon_iterations(10.0, 1.0, 0.1, rank=2).round().item()
        4000.0
    """
    check_index("rank", rank, 1, 2**31, "the short side of W at most")
    l1, gap, eps = _wide(smoothness=smoothness, gap=gap, tolerance=tolerance)
    return 2 * rank * l1 * gap / eps**2


def muon_step(smoothness: Number, gap: Number, rank: int, num_steps: int) -> Tensor:
    """The constant step of `muon_iterations`.

    Math: eta = sqrt(2 Delta_0 / (L_F rank T)); the step shrinks as curvature grows.

    Args:
        smoothness: L_F [l/u^2].
        gap: Delta_0 [l].
        rank: largest rank of a gradient.
        num_steps: T.

    Returns:
        eta, float64 [u].

    Raises:
        SpecdefError: an argument is out of range.

    Example:
        >>> muon_step(2.0, 1.0, 1, 100).item()
        0.1
    """
    check_index("rank", rank, 1, 2**31, "the short side of W at most")
    check_index("num_steps", num_steps, 1, 2**62, "one step or more")
    l1, gap = _wide(smoothness=smoothness, gap=gap)
    return (2 * gap / (l1 * rank * num_steps)).sqrt()
