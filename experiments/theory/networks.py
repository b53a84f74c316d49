"""The toy networks of Table 11, their locks, and their Hessians, analytic and automatic.

All widths are 3. The copy of the paper lost the number; it says that all dimensions are equal, and its printed means of
||x|| (1.62 over ten rows) fit three standard normal entries (1.60), not two or four (1.25, 1.88).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from specdef.theory import (
    ACTIVATIONS,
    ActivationName,
    HessianBlock,
    attention_block,
    attention_head_block,
    compensation_block,
    mlp_block,
)

SIZE = 3
Weights = dict[str, Tensor]
Output = Callable[[Mapping[str, Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class Locked:
    """A batch of networks, one per seed: weights, input, and the block to bound.

    Attributes:
        weights: name -> [seeds, ...], the parameters of the Hessian in this order.
        x: inputs [seeds, ...].
        output: f(weights, x), scalar, for one seed.
        block: analytic block with its factors.
        names: which two parameters the block belongs to.
    """

    weights: Weights
    x: Tensor
    output: Output
    block: HessianBlock
    names: tuple[str, str]


def with_sigma_1(weight: Tensor, multiplier: float) -> Tensor:
    """The weight scaled to sigma_1 = 1, then its largest singular value times the multiplier."""
    u, s, vh = torch.linalg.svd(weight)
    s = s / s[..., :1]
    s = torch.cat([multiplier * s[..., :1], s[..., 1:]], dim=-1)
    scaled: Tensor = (u * s.unsqueeze(-2)) @ vh
    return scaled


def draw(seeds: range, *names_and_shapes: tuple[str, tuple[int, ...]]) -> Weights:
    """Standard normal entries for vectors and inputs, variance 1 / 3 for matrices."""
    drawn: dict[str, list[Tensor]] = {name: [] for name, _ in names_and_shapes}
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for name, shape in names_and_shapes:
            values = torch.randn(shape, generator=generator, dtype=torch.float64)
            drawn[name].append(values / SIZE**0.5 if name.startswith("w") and len(shape) == 2 else values)
    return {name: torch.stack(values) for name, values in drawn.items()}


def full_hessian(net: Locked) -> Tensor:
    """Dense Hessians of f over all parameters, row-major, one after the other: [seeds, n, n]."""
    shapes = {name: weight.shape[1:] for name, weight in net.weights.items()}
    flat = torch.cat([weight.flatten(1) for weight in net.weights.values()], dim=1)

    def value(theta: Tensor, x: Tensor) -> Tensor:
        parts = theta.split([shape.numel() for shape in shapes.values()])
        return net.output({n: part.view(shapes[n]) for n, part in zip(shapes, parts, strict=True)}, x)

    hessians: Tensor = torch.func.vmap(torch.func.hessian(value))(flat, net.x)
    return hessians


def block_of(hessian: Tensor, net: Locked) -> Tensor:
    """The block of the automatic Hessian that the analytic one must equal."""
    sizes = [weight[0].numel() for weight in net.weights.values()]
    first, second = (list(net.weights).index(name) for name in net.names)
    return hessian.split(sizes, dim=1)[first].split(sizes, dim=2)[second]


MLP_SHAPES = (("w1", (3, 3)), ("w2", (3, 3)), ("w3", (3,)), ("x", (3,)))
ATTENTION_SHAPES = (("wq", (3, 3)), ("wk", (3, 3)), ("wv", (3, 3)), ("wo", (3,)), ("x", (3, 3)))


def _mlp_output(activation: ActivationName) -> Output:
    phi = ACTIVATIONS[activation].value

    def output(w: Mapping[str, Tensor], x: Tensor) -> Tensor:
        middle = w["w2"] @ phi(w["w1"] @ x)
        return w["w3"] @ phi(w["c"] @ middle if "c" in w else middle)

    return output


def _attention_output(w: Mapping[str, Tensor], x: Tensor) -> Tensor:
    a = torch.softmax((w["wk"] @ x).mT @ (w["wq"] @ x[:, -1]) / SIZE**0.5, dim=0)
    return w["wo"] @ (w["wv"] @ (x @ a))


def plain_mlp(seeds: range, multiplier: float, activation: ActivationName) -> Locked:
    """W2 with sigma_1 = multiplier and nothing to compensate it; block (W1, w3)."""
    w = draw(seeds, *MLP_SHAPES)
    x, w["w2"] = w.pop("x"), with_sigma_1(w["w2"], multiplier)
    eye = torch.eye(SIZE, dtype=torch.float64).expand(len(seeds), SIZE, SIZE)
    block = mlp_block(w["w1"], w["w2"], eye, x, activation)
    return Locked(w, x, _mlp_output(activation), block, ("w1", "w3"))


def compensated_mlp(seeds: range, multiplier: float, inner: bool) -> Locked:
    """ReLU; W2 deformed and C = U diag(s / s~) U^T, so that f is unchanged; block (W1, C) or, not inner, (W1, w3)."""
    w = draw(seeds, *MLP_SHAPES)
    x = w.pop("x")
    original, deformed = with_sigma_1(w["w2"], 1.0), with_sigma_1(w["w2"], multiplier)
    w["w2"], w["c"] = deformed, original @ torch.linalg.inv(deformed)
    w = {name: w[name] for name in ("w1", "w2", "c", "w3")}
    if inner:
        block, names = compensation_block(w["w1"], w["w2"], w["c"], w["w3"], x), ("w1", "c")
    else:
        block, names = mlp_block(w["w1"], w["w2"], w["c"], x, "relu"), ("w1", "w3")
    return Locked(w, x, _mlp_output("relu"), block, names)


def folded_mlp(seeds: range, multiplier: float) -> Locked:
    """ReLU; columns of W2 times a power of two, rows of W1 divided by it, all channels; block (W1, w3)."""
    w = draw(seeds, *MLP_SHAPES)
    x = w.pop("x")
    w["w1"], w["w2"] = w["w1"] / multiplier, with_sigma_1(w["w2"], 1.0) * multiplier
    eye = torch.eye(SIZE, dtype=torch.float64).expand(len(seeds), SIZE, SIZE)
    return Locked(w, x, _mlp_output("relu"), mlp_block(w["w1"], w["w2"], eye, x, "relu"), ("w1", "w3"))


def plain_attention(seeds: range, multiplier: float, weight: str) -> Locked:
    """W_V (block (w_o, W_Q)) or W_K (block (W_V, W_Q)) with sigma_1 = multiplier, nothing compensated."""
    w = draw(seeds, *ATTENTION_SHAPES)
    x = w.pop("x")
    w[weight] = with_sigma_1(w[weight], multiplier)
    return _attention(w, x, head=weight == "wv")


def folded_attention(seeds: range, multiplier: float, up: str) -> Locked:
    """Rows of W_V times a power of two and w_o divided by it (up = "wv"), or the other way round (up = "wo")."""
    w = draw(seeds, *ATTENTION_SHAPES)
    x = w.pop("x")
    w["wv"] = with_sigma_1(w["wv"], 1.0)
    factor = multiplier if up == "wv" else 1 / multiplier
    w["wv"], w["wo"] = w["wv"] * factor, w["wo"] / factor
    return _attention(w, x, head=up == "wv")


def _attention(w: Weights, x: Tensor, *, head: bool) -> Locked:
    if head:
        return Locked(w, x, _attention_output, attention_head_block(w["wv"], w["wk"], w["wq"], x), ("wo", "wq"))
    return Locked(w, x, _attention_output, attention_block(w["wo"], w["wk"], w["wq"], x), ("wv", "wq"))
