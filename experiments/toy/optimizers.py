"""One step of every optimizer, for a batch of networks that each have their own settings.

These are plain batched tensors because no library steps a thousand networks at once. Adam and AdaHessian follow
torch.optim.Adam and pytorch_optimizer.AdaHessian; KFAC takes the exact logistic Fisher in Kronecker form with factored
damping and no momentum; natural gradient, Newton and cubic Newton are dense and exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp

from experiments.toy import curvature
from experiments.toy.network import Signals, Stack, run

State = dict[str, Tensor]
Settings = dict[str, Tensor]
"""Name -> [batch] or [batch, parameters]."""
Step = Callable[["Point", Settings, State], Tensor]


@dataclass(frozen=True)
class Point:
    """Where a batch of networks stands: parameters, one pass, l' and l''."""

    stack: Stack
    theta: Tensor
    signals: Signals
    r: Tensor
    curvature: Tensor

    @property
    def gradient(self) -> Tensor:
        return curvature.gradient(self.signals, self.r)


def gd(at: Point, settings: Settings, state: State) -> Tensor:
    """lr may be one number per network or one per parameter."""
    return at.theta - _columns(settings["lr"]) * at.gradient


def adam(at: Point, settings: Settings, state: State) -> Tensor:
    g = at.gradient
    return at.theta - _adam(g, g, settings, state)


def adahessian(at: Point, settings: Settings, state: State) -> Tensor:
    """As published: the diagonal is estimated by z * (H z), one vector of random signs per step."""
    z = torch.randint(0, 2, at.theta.shape, generator=_signs(state)).to(at.theta.dtype) * 2 - 1
    x = at.signals.inputs[0][0, :, :2]

    def gradient(theta: Tensor) -> Tensor:
        signals = run(at.stack, theta, x)
        r = at.r + at.curvature * (signals.logits - at.signals.logits)  # l' to first order around at.theta
        return curvature.gradient(signals, r)

    g, product = jvp(gradient, (at.theta,), (z,))
    return at.theta - _adam(g, z * product, settings, state)


def _signs(state: State) -> torch.Generator:
    """A stream that depends on the step alone."""
    step = int(state["t"].item()) if state else 0
    return torch.Generator().manual_seed(step)


def adahessian_exact(at: Point, settings: Settings, state: State) -> Tensor:
    """The exact diagonal in place of the estimate."""
    return at.theta - _adam(at.gradient, curvature.diagonal(at.signals, at.curvature), settings, state)


def _adam(
    g: Tensor, scale: Tensor, settings: Settings, state: State, betas: tuple[float, float] = (0.9, 0.999)
) -> Tensor:
    betas = (0.9, 0.999)
    if not state:
        state["m"], state["v"], state["t"] = torch.zeros_like(g), torch.zeros_like(g), torch.zeros(())
    state["t"] = state["t"] + 1
    state["m"] = betas[0] * state["m"] + (1 - betas[0]) * g
    state["v"] = betas[1] * state["v"] + (1 - betas[1]) * scale.square()
    t = state["t"].item()
    root = (state["v"] / (1 - betas[1] ** t)).sqrt()
    eps = _columns(settings["eps"]) if "eps" in settings else 1e-8
    return _columns(settings["lr"]) * state["m"] / (1 - betas[0] ** t) / (root + eps)


def natural(at: Point, settings: Settings, state: State) -> Tensor:
    """(G + damping I) d = g, G the Fisher matrix, here equal to Gauss-Newton."""
    matrix = curvature.gauss_newton(at.signals, at.curvature)
    return at.theta - _columns(settings["lr"]) * _solve(matrix, _columns(settings["damping"]), at.gradient)


def marquardt(at: Point, settings: Settings, state: State) -> Tensor:
    """(G + damping D) d = g, D the largest diagonal of G so far (More): no scaling of single parameters shows."""
    matrix = curvature.gauss_newton(at.signals, at.curvature)
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    state["D"] = torch.maximum(state["D"], diagonal) if state else diagonal
    scale = torch.where(state["D"] > 0, state["D"].rsqrt(), torch.zeros_like(diagonal))
    scaled = matrix * scale[:, :, None] * scale[:, None, :]
    step = scale * _solve(scaled, _columns(settings["damping"]), scale * at.gradient)
    return at.theta - _columns(settings["lr"]) * step


def newton(at: Point, settings: Settings, state: State) -> Tensor:
    """(H + damping I) d = g; H need not be positive, so saddles attract."""
    matrix = curvature.hessian(at.stack, at.theta, at.signals, at.r, at.curvature)
    return at.theta - _columns(settings["lr"]) * _solve(matrix, _columns(settings["damping"]), at.gradient)


def cubic(at: Point, settings: Settings, state: State) -> Tensor:
    """The global minimum of g d + d H d / 2 + M |d|^3 / 6 (Nesterov and Polyak), by bisection on M |d| / 2."""
    matrix = curvature.hessian(at.stack, at.theta, at.signals, at.r, at.curvature)
    values, vectors = torch.linalg.eigh(matrix)
    g = (vectors.mT @ at.gradient[..., None]).squeeze(-1)
    m = settings["M"]
    least = (-values[:, 0]).clamp(min=0)
    low, high = least.log().clamp(min=-60), (least + (m * g.norm(dim=1)).sqrt() + 1e-30).log() + 1
    for _ in range(60):  # |d(shift)| falls with the shift; wanted: shift = M |d| / 2
        middle = (low + high) / 2
        size = (g / (values + middle.exp()[:, None]).clamp(min=1e-300)).norm(dim=1)
        below = middle.exp() < m * size / 2
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    step = g / (values + high.exp()[:, None]).clamp(min=1e-300)
    return at.theta - _columns(settings["lr"]) * (vectors @ step[..., None]).squeeze(-1)


def kfac(at: Point, settings: Settings, state: State) -> Tensor:
    """(A + pi sqrt(damping) I)^-1 on inputs, (B + sqrt(damping) / pi I)^-1 on outputs of every layer."""
    samples = at.r.shape[-1]
    parts, damping = [], settings["damping"].sqrt()[:, None, None]
    for delta, a in zip(at.signals.deltas, at.signals.inputs, strict=True):
        inputs = a.mT @ a / samples
        outputs = (delta * at.curvature[..., None]).mT @ delta  # the mean over samples of l'' delta delta^T
        trace_in, trace_out = (f.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] for f in (inputs, outputs))
        pi = (trace_in / trace_out.clamp(min=1e-300)).sqrt().clamp(1e-150, 1e150)
        g = (delta * at.r[..., None]).mT @ a
        left = _solve_matrix(outputs, damping / pi, g)
        parts.append(_solve_matrix(inputs, damping * pi, left.mT).mT.flatten(1))
    return at.theta - _columns(settings["lr"]) * torch.cat(parts, dim=1)


def _columns(value: Tensor) -> Tensor:
    return value if value.ndim == 2 else value[:, None]


def _solve(matrix: Tensor, damping: Tensor, g: Tensor) -> Tensor:
    return _solve_matrix(matrix, damping[..., None], g[..., None]).squeeze(-1)


def _solve_matrix(matrix: Tensor, damping: Tensor, right: Tensor) -> Tensor:
    damped = matrix + damping * torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    solved: Tensor = torch.linalg.solve_ex(damped, right)[0]  # singular: not finite, and the run ends there
    return solved


STEPS: dict[str, Step] = {
    "GD": gd,
    "Adam": adam,
    "AdaHessian": adahessian,
    "AdaHessian, exact diagonal": adahessian_exact,
    "KFAC": kfac,
    "Natural gradient": natural,
    "Natural gradient, Marquardt": marquardt,
    "Newton": newton,
    "Cubic Newton": cubic,
}
