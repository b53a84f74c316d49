"""Analytic blocks against torch.func.hessian of the plain network, dense, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from random_matrices import EPS
from torch import Tensor
from torch.nn import functional

from specdef.errors import SpecdefError
from specdef.theory import (
    ACTIVATIONS,
    ActivationName,
    HessianBlock,
    attention_block,
    attention_head_block,
    cnn_block,
    compensation_block,
    hessian_lower_bound,
    mlp_block,
    toeplitz,
)

SEEDS = range(8)


def draw(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def dense_block(f: Callable[..., Tensor], parameters: list[Tensor], first: int, second: int) -> Tensor:
    """The block of the dense Hessian of f over all parameters, flattened row-major one after the other."""
    sizes = [p.numel() for p in parameters]

    def flat(theta: Tensor) -> Tensor:
        return f(*(part.view_as(p) for part, p in zip(theta.split(sizes), parameters, strict=True)))

    hessian = torch.func.hessian(flat)(torch.cat([p.flatten() for p in parameters]))
    return hessian.split(sizes)[first].split(sizes, dim=1)[second]


def check(found: HessianBlock, expected: Tensor) -> None:
    error = torch.linalg.matrix_norm(found.block - expected)
    assert error <= 1e-10 * torch.linalg.matrix_norm(expected)
    torch.testing.assert_close(found.a @ found.w @ found.b, expected, rtol=1e-10, atol=1e-12)
    bound, actual = hessian_lower_bound(found.a, found.w, found.b), torch.linalg.svdvals(expected)[0]
    assert bound <= actual * (1 + 100 * EPS)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_mlp(activation: ActivationName, seed: int) -> None:
    w1, w2, c, w3, x = draw(seed, (4, 2), (5, 4), (3, 5), (3,), (2,))
    phi = ACTIVATIONS[activation].value
    expected = dense_block(lambda w1, w2, c, w3: w3 @ phi(c @ w2 @ phi(w1 @ x)), [w1, w2, c, w3], 0, 3)
    check(mlp_block(w1, w2, c, x, activation), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_compensation(seed: int) -> None:
    w1, w2, c, w3, x = draw(seed, (4, 2), (5, 4), (3, 5), (3,), (2,))
    expected = dense_block(lambda w1, w2, c, w3: w3 @ (c @ w2 @ (w1 @ x).relu()).relu(), [w1, w2, c, w3], 0, 2)
    check(compensation_block(w1, w2, c, w3, x), expected)


def test_a_compensated_lock_leaves_one_block_alone_and_inflates_the_other() -> None:
    w1, w2, w3, x = draw(1, (4, 3), (4, 4), (4,), (3,))
    u, s, vh = torch.linalg.svd(w2)
    factor = torch.tensor([1e4, 1.0, 1.0, 1.0]).double()
    locked, c = u @ torch.diag(factor * s) @ vh, u @ torch.diag(1 / factor) @ u.T
    eye = torch.eye(4).double()
    torch.testing.assert_close(mlp_block(w1, locked, c, x, "relu").block, mlp_block(w1, w2, eye, x, "relu").block)
    before = torch.linalg.svdvals(compensation_block(w1, w2, eye, w3, x).block)[0]
    after = torch.linalg.svdvals(compensation_block(w1, locked, c, w3, x).block)[0]
    assert after > 1e3 * before


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_cnn(activation: ActivationName, seed: int) -> None:
    k1, k2, w3, x = draw(seed, (3,), (2,), (4,), (7,))
    phi = ACTIVATIONS[activation].value

    def network(k1: Tensor, k2: Tensor, w3: Tensor) -> Tensor:
        hidden = phi(functional.conv1d(x.view(1, 1, -1), k1.view(1, 1, -1)))
        return w3 @ phi(functional.conv1d(hidden, k2.view(1, 1, -1))).flatten()

    check(cnn_block(k1, k2, x, activation), dense_block(network, [k1, k2, w3], 0, 2))


def test_toeplitz_is_conv1d() -> None:
    kernel, x = draw(0, (3,), (8,))
    expected = functional.conv1d(x.view(1, 1, -1), kernel.view(1, 1, -1)).flatten()
    torch.testing.assert_close(toeplitz(kernel, 8) @ x, expected, rtol=0, atol=16 * EPS)
    assert torch.equal(toeplitz(kernel.expand(2, 3), 8)[1], toeplitz(kernel, 8))


def attention(wq: Tensor, wk: Tensor, wv: Tensor, wo: Tensor, x: Tensor) -> Tensor:
    a = torch.softmax((wk @ x).mT @ (wq @ x[:, -1]) / wk.shape[0] ** 0.5, dim=0)
    return wo @ wv @ x @ a


@pytest.mark.parametrize("seed", SEEDS)
def test_attention(seed: int) -> None:
    wq, wk, wv, wo, x = draw(seed, (2, 3), (2, 3), (4, 3), (4,), (3, 5))
    parameters = [wq, wk, wv, wo]
    expected = dense_block(lambda *p: attention(*p, x), parameters, 2, 0)
    check(attention_block(wo, wk, wq, x), expected)
    expected = dense_block(lambda *p: attention(*p, x), parameters, 3, 0)
    check(attention_head_block(wv, wk, wq, x), expected)


def test_column_major_order_is_another_matrix() -> None:
    w1, w2, c, w3, x = draw(0, (4, 2), (5, 4), (3, 5), (3,), (2,))
    right = mlp_block(w1, w2, c, x, "tanh").block
    expected = dense_block(
        lambda w1t, w2, c, w3: w3 @ torch.tanh(c @ w2 @ torch.tanh(w1t.T @ x)), [w1.T.contiguous(), w2, c, w3], 0, 3
    )
    assert torch.linalg.matrix_norm(right - expected) > 0.1 * torch.linalg.matrix_norm(expected)
    torch.testing.assert_close(torch.linalg.svdvals(right), torch.linalg.svdvals(expected))


def test_batches_agree_with_one_at_a_time() -> None:
    w1, w2, c, x = draw(3, (6, 4, 2), (6, 5, 4), (6, 3, 5), (6, 2))
    batched = mlp_block(w1, w2, c, x, "gelu")
    torch.testing.assert_close(batched.block[4], mlp_block(w1[4], w2[4], c[4], x[4], "gelu").block)
    wv, wk, wq, tokens = draw(4, (6, 4, 3), (6, 2, 3), (6, 2, 3), (6, 3, 5))
    head = attention_head_block(wv, wk, wq, tokens)
    torch.testing.assert_close(head.block[2], attention_head_block(wv[2], wk[2], wq[2], tokens[2]).block)
    query = attention_block(wv[..., 0], wk, wq, tokens)
    torch.testing.assert_close(query.block[2], attention_block(wv[2, :, 0], wk[2], wq[2], tokens[2]).block)
    taps, signal = draw(5, (6, 2), (6, 7))
    torch.testing.assert_close(
        cnn_block(taps, taps, signal, "gelu").block[1], cnn_block(taps[1], taps[1], signal[1], "gelu").block
    )


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "identity"])
def test_activation_derivatives(activation: ActivationName) -> None:
    z = torch.linspace(-4, 4, 41, dtype=torch.float64) + 0.01
    phi = ACTIVATIONS[activation]
    first = torch.func.vmap(torch.func.grad(phi.value))(z)
    second = torch.func.vmap(torch.func.grad(torch.func.grad(phi.value)))(z)
    torch.testing.assert_close(phi.first(z), first, rtol=0, atol=16 * EPS)
    torch.testing.assert_close(phi.second(z), second, rtol=0, atol=16 * EPS)


def test_gelu_expands_where_theorem_36_says_it_does_not() -> None:
    z = torch.linspace(-8, 8, 16001, dtype=torch.float64)
    peak = ACTIVATIONS["gelu"].first(torch.tensor(2.0, dtype=torch.float64).sqrt())
    assert peak > 1.128
    assert ACTIVATIONS["gelu"].first(z).abs().amax() <= peak
    assert ACTIVATIONS["tanh"].first(z).abs().amax() <= 1
    assert ACTIVATIONS["relu"].first(z).abs().amax() <= 1


def test_gradient_reaches_the_weight() -> None:
    w1, w2, c, x = draw(6, (3, 2), (3, 3), (3, 3), (2,))
    w2.requires_grad_()
    block = mlp_block(w1, w2, c, x, "gelu")
    hessian_lower_bound(block.a, block.w, block.b).backward()
    assert w2.grad is not None
    assert w2.grad.abs().sum() > 0


E2, E3 = torch.eye(2), torch.eye(3)


@pytest.mark.parametrize(
    ("block", "arguments", "message"),
    [
        (mlp_block, (E3, E2, E2, E3[0], "relu"), "`w2` must have 3 columns, the rows of w1; got 2. Check the order of"),
        (mlp_block, (E3, E3, E3, E2[0], "relu"), "`w1` must have 2 columns, the entries of x; got 3. Check the order"),
        (mlp_block, (E2, E2, E2, E2[0], "silu"), "`activation` must be one of relu, gelu, tanh, identity; got 'silu'"),
        (compensation_block, (E2, E2, E2, E3[0], E2[0]), "`w3` must have 2 columns, the rows of c; got 3. Check the"),
        (toeplitz, (E3[0], 2), "`length` must be at least the number of taps, 3; got 2. Use a longer signal."),
        (
            attention_block,
            (E3[0], E3, E2, E3),
            r"`wq` must have the shape of wk, \[3, 3\]; got \[2, 2\]. Use one head's",
        ),
        (attention_block, (E3[0], E2, E2, E3), "`wk` must have 3 columns, the entries of a token; got 2. Check the"),
        (attention_head_block, (E2, E3, E3, E3), "`wv` must have 3 columns, the entries of a token; got 2. Check"),
    ],
)
def test_messages(block: Callable[..., Any], arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SpecdefError, match=message):
        block.__wrapped__(*arguments)  # type: ignore[attr-defined]
