"""Analytic off-diagonal blocks of network Hessians, with the factors A, W, B that Theorem 3 asks for.

The function is the scalar network output, not a loss (Remark 27). Order of vectorisation: row-major, ``W.flatten()``;
entry [(a, b), (i, j)] of a block is d^2 f / (d first[a, b] d second[i, j]). With it vec(u v^T) = u (x) v, and a
vector's Kronecker factor scales singular values without rotating them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from specdef.theory.activations import ActivationName, find_activation
from specdef.theory.requirements import TheoryError, as_matrix
from specdef.theory.upper import kron


@dataclass(frozen=True)
class HessianBlock:
    """One block of a Hessian and its factorisation.

    Math: block = A W B, the hypothesis of Theorems 3 and 24.

    Attributes:
        block: d^2 f / (d vec(first) d vec(second)) [*batch, rows, columns], float64.
        a: A [*batch, rows, n].
        w: W [*batch, n, p], the weight whose singular values the block inherits.
        b: B [*batch, p, columns].
    """

    block: Tensor
    a: Tensor
    w: Tensor
    b: Tensor


def _block(a: Tensor, w: Tensor, b: Tensor) -> HessianBlock:
    return HessianBlock(a @ w @ b, a, w, b)


def _vector(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x.unsqueeze(-1)).squeeze(-1)


def mlp_block(
    w1: Float[Tensor, "*batch h1 n"],
    w2: Float[Tensor, "*batch h2 h1"],
    c: Float[Tensor, "*batch h3 h2"],
    x: Float[Tensor, "*batch n"],
    activation: ActivationName,
) -> HessianBlock:
    """Block (W1, w3) of f(x) = w3^T phi(C W2 phi(W1 x)).

    Math (Appendix D.1, Examples 4 and 29): d^2 f / (dW1 dw3) = (D1 W2^T C^T D2) (x) x = A W B with A = D1 (x) x,
    W = W2^T, B = C^T D2, D_i = diag(phi'(z_i)); x as a column. The paper hangs x on B, which permutes entries of the
    block, not its singular values. Holds for any phi: f is linear in w3, so no phi'' appears. W2 enters only in the
    product C W2: a compensation with C W~2 = W2 leaves this block unchanged, and Theorem 3's bound of it must not grow.

    Args:
        w1: W1 [*batch, h1, n], any floating dtype.
        w2: W2 [*batch, h2, h1].
        c: C [*batch, h3, h2]; the identity for a plain three-layer network.
        x: input [*batch, n].
        activation: phi, both layers.

    Returns:
        The block [*batch, h1 n, h3] with A [h1 n, h1], W [h1, h2], B [h2, h3], float64.

    Raises:
        SpecdefError: shapes do not conform, or an unknown activation.

    Example:
        >>> eye = torch.eye(2)
        >>> mlp_block(eye, 3 * eye, eye, torch.tensor([1.0, 2.0]), "identity").block.tolist()
        [[3.0, 0.0], [6.0, 0.0], [0.0, 3.0], [0.0, 6.0]]
    """
    w1, w2, c, x = as_matrix("w1", w1), as_matrix("w2", w2), as_matrix("c", c), as_matrix("x", x, 1)
    _check_chain({"w1": w1, "w2": w2, "c": c}, x)
    phi = find_activation(activation)
    z1 = _vector(w1, x)
    z2 = _vector(c @ w2, phi.value(z1))
    a = kron(torch.diag_embed(phi.first(z1)), x.unsqueeze(-1))
    return _block(a, w2.mT, c.mT * phi.first(z2).unsqueeze(-2))


def compensation_block(
    w1: Float[Tensor, "*batch h1 n"],
    w2: Float[Tensor, "*batch h2 h1"],
    c: Float[Tensor, "*batch h3 h2"],
    w3: Float[Tensor, "*batch h3"],
    x: Float[Tensor, "*batch n"],
) -> HessianBlock:
    """Block (W1, C) of f(x) = w3^T relu(C W2 relu(W1 x)): the block a compensated lock inflates.

    Math: d^2 f / (dW1[a,b] dC[i,j]) = (D2 w3)_i (W2 D1)_{ja} x_b, so the block is A W B with A = D1 (x) x, W = W2^T,
    B = (D2 w3)^T (x) I. W2 stands without C, so scaling it shows although C W2 is unchanged (Theorem 31). ReLU only:
    another phi adds terms with phi''.

    Args:
        w1: W1 [*batch, h1, n], any floating dtype.
        w2: W2 [*batch, h2, h1].
        c: C [*batch, h3, h2].
        w3: w3 [*batch, h3].
        x: input [*batch, n].

    Returns:
        The block [*batch, h1 n, h3 h2] with A [h1 n, h1], W [h1, h2], B [h2, h3 h2], float64.

    Raises:
        SpecdefError: shapes do not conform.

    Example:
        >>> one = torch.ones(1, 1)
        >>> compensation_block(one, 8 * one, one / 8, torch.ones(1), 2 * torch.ones(1)).block.item()
        16.0
    """
    w1, w2, c = as_matrix("w1", w1), as_matrix("w2", w2), as_matrix("c", c)
    w3, x = as_matrix("w3", w3, 1), as_matrix("x", x, 1)
    _check_chain({"w1": w1, "w2": w2, "c": c, "w3": w3.unsqueeze(-2)}, x)
    phi = find_activation("relu")
    z1 = _vector(w1, x)
    z2 = _vector(c @ w2, phi.value(z1))
    a = kron(torch.diag_embed(phi.first(z1)), x.unsqueeze(-1))
    eye = torch.eye(w2.shape[-2], dtype=a.dtype, device=a.device)
    return _block(a, w2.mT, kron((phi.first(z2) * w3).unsqueeze(-2), eye))


def toeplitz(kernel: Float[Tensor, "*batch taps"], length: int) -> Float[Tensor, "*batch rows length"]:
    """The matrix of a one-dimensional convolution without padding.

    Math (Appendix D.1): T[i, i + j] = kernel[j], so T x equals ``torch.nn.functional.conv1d`` of x with the kernel
    (cross-correlation).

    Args:
        kernel: taps [*batch, taps], any floating dtype.
        length: of the signal, at least the number of taps.

    Returns:
        T [*batch, length - taps + 1, length], float64.

    Raises:
        SpecdefError: the signal is shorter than the kernel.

    Example:
        >>> toeplitz(torch.tensor([1.0, 2.0]), 3).tolist()
        [[1.0, 2.0, 0.0], [0.0, 1.0, 2.0]]
    """
    kernel = as_matrix("kernel", kernel, 1)
    taps = kernel.shape[-1]
    if length < taps:
        raise TheoryError(f"`length` must be at least the number of taps, {taps}; got {length}. Use a longer signal.")
    rows = length - taps + 1  # equal rows of length + 1, read as rows of length, shift by one each
    padded: Tensor = torch.nn.functional.pad(kernel, (0, length - taps + 1))
    repeated = padded.unsqueeze(-2).expand(*padded.shape[:-1], rows, length + 1)
    flat = repeated.reshape(*padded.shape[:-1], rows * (length + 1))
    return flat[..., : rows * length].reshape(*padded.shape[:-1], rows, length)


def cnn_block(
    kernel1: Float[Tensor, "*batch taps1"],
    kernel2: Float[Tensor, "*batch taps2"],
    x: Float[Tensor, "*batch length"],
    activation: ActivationName,
) -> HessianBlock:
    """Block (kernel1, w3) of f(x) = w3^T phi(T2 phi(T1 x)), T_i the Toeplitz matrices of two one-channel convolutions.

    Math (Appendix D.1): as `mlp_block` with T2 for W2, then summed over the entries that share a tap:
    d^2 f / (dkernel1 dw3) = P^T D1 T2^T D2 with patches P[a, j] = x[a + j], so A = P^T D1, W = T2^T, B = D2.

    Args:
        kernel1: taps of the first convolution [*batch, taps1], any floating dtype.
        kernel2: taps of the second [*batch, taps2].
        x: signal [*batch, length], length >= taps1 + taps2 - 1.
        activation: phi, both layers.

    Returns:
        The block [*batch, taps1, length - taps1 - taps2 + 2] with its factors, float64.

    Raises:
        SpecdefError: the signal is too short, or an unknown activation.

    Example:
        >>> cnn_block(torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0, 4.0]), "identity").block.tolist()
        [[6.0, 8.0]]
    """
    x = as_matrix("x", x, 1)
    t1 = toeplitz(kernel1, x.shape[-1])
    t2 = toeplitz(kernel2, t1.shape[-2])
    phi = find_activation(activation)
    z1 = _vector(t1, x)
    z2 = _vector(t2, phi.value(z1))
    patches = x.unfold(-1, kernel1.shape[-1], 1)
    return _block(patches.mT * phi.first(z1).unsqueeze(-2), t2.mT, torch.diag_embed(phi.first(z2)))


def attention_block(
    wo: Float[Tensor, "*batch dv"],
    wk: Float[Tensor, "*batch dk n"],
    wq: Float[Tensor, "*batch dk n"],
    x: Float[Tensor, "*batch n tokens"],
) -> HessianBlock:
    """Block (W_V, W_Q) of one query of self-attention, f = w_o^T W_V X a, a = softmax(X^T W_K^T W_Q x_last / sqrt(dk)).

    Math (Appendix D.1, Example 30): with S = diag(a) - a a^T, the block is w_o (x) (X S X^T W_K^T / sqrt(dk)) (x) x^T
    = A W B, A = w_o (x) (X S X^T / sqrt(dk)), W = W_K^T, B = I (x) x_last^T. W_V itself does not enter.

    Args:
        wo: w_o [*batch, dv], any floating dtype.
        wk: W_K [*batch, dk, n].
        wq: W_Q [*batch, dk, n].
        x: tokens in columns [*batch, n, tokens]; the last one is the query.

    Returns:
        The block [*batch, dv n, dk n] with A [dv n, n], W [n, dk], B [dk, dk n], float64.

    Raises:
        SpecdefError: shapes do not conform.

    Example:
        >>> one = torch.ones(1, 1)
        >>> attention_block(torch.ones(1), one, one, torch.tensor([[1.0, -1.0]])).block.shape
        torch.Size([1, 1])
    """
    wo = as_matrix("wo", wo, 1)
    spread, wk, x = _softmax_spread(wk, wq, x)
    eye = torch.eye(wk.shape[-2], dtype=x.dtype, device=x.device)
    return _block(kron(wo.unsqueeze(-1), spread), wk.mT, kron(eye, x[..., -1].unsqueeze(-2)))


def attention_head_block(
    wv: Float[Tensor, "*batch dv n"],
    wk: Float[Tensor, "*batch dk n"],
    wq: Float[Tensor, "*batch dk n"],
    x: Float[Tensor, "*batch n tokens"],
) -> HessianBlock:
    """Block (w_o, W_Q) of the same network: the one that W_V scales without touching the softmax.

    Math (Appendix D.1): (W_V X S X^T W_K^T / sqrt(dk)) (x) x_last^T = A W B with A = I, W = W_V and
    B = (X S X^T W_K^T / sqrt(dk)) (x) x_last^T.

    Args:
        wv: W_V [*batch, dv, n], any floating dtype.
        wk: W_K [*batch, dk, n].
        wq: W_Q [*batch, dk, n].
        x: tokens in columns [*batch, n, tokens]; the last one is the query.

    Returns:
        The block [*batch, dv, dk n] with A [dv, dv], W [dv, n], B [n, dk n], float64.

    Raises:
        SpecdefError: shapes do not conform.

    Example:
        >>> one = torch.ones(1, 1)
        >>> attention_head_block(one, one, one, torch.tensor([[1.0, -1.0]])).block.shape
        torch.Size([1, 1])
    """
    wv = as_matrix("wv", wv)
    spread, wk, x = _softmax_spread(wk, wq, x)
    _check_columns("wv", wv, x.shape[-2], "entries of a token")
    a = torch.eye(wv.shape[-2], dtype=x.dtype, device=x.device).expand(*wv.shape[:-1], wv.shape[-2])
    return _block(a, wv, kron(spread @ wk.mT, x[..., -1].unsqueeze(-2)))


def _softmax_spread(wk: Tensor, wq: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """X S X^T / sqrt(dk), and the checked W_K and X."""
    wk, wq, x = as_matrix("wk", wk), as_matrix("wq", wq), as_matrix("x", x)
    _check_columns("wk", wk, x.shape[-2], "entries of a token")
    if wq.shape[-2:] != wk.shape[-2:]:
        raise TheoryError(
            f"`wq` must have the shape of wk, {list(wk.shape[-2:])}; got {list(wq.shape[-2:])}. Use one head's."
        )
    root = math.sqrt(wk.shape[-2])
    scores = _vector((wk @ x).mT, _vector(wq, x[..., -1])) / root
    a = torch.softmax(scores, dim=-1)
    apart = x.unsqueeze(-1) - x.unsqueeze(-2)  # X S X^T = sum_{i<j} a_i a_j (x_i - x_j)(x_i - x_j)^T: no cancellation
    spread = torch.einsum("...ast,...bst,...s,...t->...ab", apart, apart, a, a) / 2
    return spread / root, wk, x


def _check_chain(weights: dict[str, Tensor], x: Tensor) -> None:
    width, what = x.shape[-1], "entries of x"
    for name, weight in weights.items():
        _check_columns(name, weight, width, what)
        width, what = weight.shape[-2], f"rows of {name}"


def _check_columns(name: str, weight: Tensor, expected: int, what: str) -> None:
    if weight.shape[-1] != expected:
        raise TheoryError(
            f"`{name}` must have {expected} columns, the {what}; got {weight.shape[-1]}. Check the order of the layers."
        )
