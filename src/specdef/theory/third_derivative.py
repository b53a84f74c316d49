"""The third derivative of a four-layer MLP as a tensor, and its exact decomposition T = P * Q + R (Example 53)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from specdef.theory.activations import ActivationName, find_activation
from specdef.theory.requirements import TheoryError, as_matrix


@dataclass(frozen=True)
class ThirdDerivative:
    """The tensor and its parts.

    Math: tensor = P * Q + R under the T-product.

    Attributes:
        tensor: T [*batch, h3, h1 n, h2 h1], float64.
        p: P [*batch, h3, h2, h2 h1], zero but for its first frontal slice.
        q: Q [*batch, h2, h1 n, h2 h1].
        r: R, the shape of T; 0 where every phi'' is, for ReLU everywhere.
    """

    tensor: Tensor
    p: Tensor
    q: Tensor
    r: Tensor


def mlp_third_derivative(
    w1: Float[Tensor, "*batch h1 n"],
    w2: Float[Tensor, "*batch h2 h1"],
    w3: Float[Tensor, "*batch h3 h2"],
    x: Float[Tensor, "*batch n"],
    activation: ActivationName,
) -> ThirdDerivative:
    """Derivative of f(x) = w4^T phi(W3 phi(W2 phi(W1 x))) with respect to w4, W1 and W2.

    Math (Example 53, (19), derived again): T[i, (c, d), (p, q)] = d^3 f / (dw4[i] dW1[c, d] dW2[p, q]), row-major.
    The frontal slice of W2[p, q] is D3 W3 D2 E_pq D1 (x) x^T plus
    R_pq = (D3' W3 D2 + D3 W3 D2') W2 D1 (x) x^T, D2' = diag(phi''(z2) o E_pq h1),
    D3' = diag(phi''(z3) o W3 D2 E_pq h1).
    The first factor P0 = D3 W3 D2 is the same in every slice. T(v) = P0 Q(v) + R(v) for every direction v of the third
    mode, Fourier vectors included, so That_k = P0 Qhat_k + Rhat_k. Hence the T-product needs Phat_k = P0 for all k: P
    holds P0 in its first frontal slice and 0 in the others (P0 in all of them would be another tensor).
    Care: Qhat_k = V_k D1 (x) x^T has rank 1, because the Fourier weights of W2, reshaped, are an outer product. For
    h2 > 1 its sigma_min is 0 and (18) with sigma_min(Qhat_k) is vacuous for every such network; the mirror bound
    min_k sigma_min(Phat_k) sigma_1(Q) is not. Nor do the tensor singular values of T and of its DFT along the third
    mode coincide, as the example says: they are not invariant under a unitary change of that mode.

    Args:
        w1: W1 [*batch, h1, n], any floating dtype.
        w2: W2 [*batch, h2, h1].
        w3: W3 [*batch, h3, h2].
        x: input [*batch, n].
        activation: phi, all three layers.

    Returns:
        T with P, Q and R, float64.

    Raises:
        SpecdefError: shapes do not conform, or an unknown activation.

    Example:
        >>> one = torch.ones(1, 1)
        >>> mlp_third_derivative(one, one, 5 * one, torch.ones(1), "relu").tensor.tolist()
        [[[5.0]]]
    """
    w1, w2, w3, x = as_matrix("w1", w1), as_matrix("w2", w2), as_matrix("w3", w3), as_matrix("x", x, 1)
    _check_chain(w1, w2, w3, x)
    phi = find_activation(activation)
    z1 = torch.einsum("...cd,...d->...c", w1, x)
    h1 = phi.value(z1)
    z2 = torch.einsum("...pq,...q->...p", w2, h1)
    z3 = torch.einsum("...ip,...p->...i", w3, phi.value(z2))
    d1, d2, d3 = phi.first(z1), phi.first(z2), phi.first(z3)
    num_slices = w2.shape[-2] * w2.shape[-1]
    p0 = d3.unsqueeze(-1) * w3 * d2.unsqueeze(-2)
    p = torch.nn.functional.pad(p0.unsqueeze(-1), (0, num_slices - 1))
    eye_p, eye_q = (torch.eye(width, dtype=x.dtype, device=x.device) for width in w2.shape[-2:])
    q = torch.einsum("kp,cq,...c,...d->...kcdpq", eye_p, eye_q, d1, x)
    outer = torch.einsum("...i,...ip,...p,...ik,...k,...kc->...icp", phi.second(z3), w3, d2, w3, d2, w2)
    inner = torch.einsum("...i,...ip,...p,...pc->...icp", d3, w3, phi.second(z2), w2)
    r = torch.einsum("...icp,...c,...d,...q->...icdpq", outer + inner, d1, x, h1)
    q, r = (part.flatten(-2).flatten(-3, -2) for part in (q, r))
    tensor = torch.einsum("...ik,...kjl->...ijl", p0, q) + r
    return ThirdDerivative(tensor, p, q, r)


def _check_chain(w1: Tensor, w2: Tensor, w3: Tensor, x: Tensor) -> None:
    width = x.shape[-1]
    for name, weight in (("w1", w1), ("w2", w2), ("w3", w3)):
        if weight.shape[-1] != width:
            raise TheoryError(
                f"`{name}` must have {width} columns, the width before it; got {weight.shape[-1]}. "
                "Check the order of the layers."
            )
        width = weight.shape[-2]
