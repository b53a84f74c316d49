"""Optimizers by name, all from living libraries: torch.optim and pytorch-optimizer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from specdef.core.text import did_you_mean
from specdef.errors import SpecdefError

if TYPE_CHECKING:
    import torch

    Named = list[tuple[str, torch.nn.Parameter]]


@dataclass(frozen=True)
class OptimizerSpec:
    """How one optimizer is built and driven.

    Attributes:
        build: (parameters, lr, weight decay, ids of parameters that are embeddings) -> optimizer.
        curvature_every: steps between estimates of the Hessian's diagonal; 0 for first-order methods.
        closure: the optimizer evaluates the loss itself, several times a step.
        library: where the implementation comes from.
        options: settings that a recipe may change, by the library's own names.
    """

    build: Callable[[Any, float, float, set[int]], Any]
    curvature_every: int = 0
    closure: bool = False
    library: str = "torch"
    options: tuple[str, ...] = ()


def _adamw(named: Named, lr: float, decay: float, embeddings: set[int]) -> Any:
    import torch

    return torch.optim.AdamW([p for _, p in named], lr=lr, weight_decay=decay, fused=True)


def _sgd(named: Named, lr: float, decay: float, embeddings: set[int]) -> Any:
    import torch

    return torch.optim.SGD([p for _, p in named], lr=lr, momentum=0.9, weight_decay=decay)


def _adafactor(named: Named, lr: float, decay: float, embeddings: set[int]) -> Any:
    import torch

    return torch.optim.Adafactor([p for _, p in named], lr=lr, weight_decay=decay)


def _muon(named: Named, lr: float, decay: float, embeddings: set[int]) -> Any:
    import torch

    matrices = [p for _, p in named if p.ndim == 2 and id(p) not in embeddings]
    chosen = set(map(id, matrices))
    rest = [p for _, p in named if id(p) not in chosen]
    parts: list[Any] = []
    if matrices:
        parts.append(torch.optim.Muon(matrices, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    if rest:
        parts.append(torch.optim.AdamW(rest, lr=lr, weight_decay=decay, fused=True))
    return _joined(parts)


def _lbfgs(named: Named, lr: float, decay: float, embeddings: set[int]) -> Any:
    import torch

    return torch.optim.LBFGS([p for _, p in named], lr=lr, max_iter=4, history_size=10, line_search_fn="strong_wolfe")


def _third_party(name: str, **options: Any) -> Callable[[Any, float, float, set[int]], Any]:
    def build(named: Named, lr: float, decay: float, embeddings: set[int]) -> Any:
        if importlib.util.find_spec("pytorch_optimizer") is None:
            raise SpecdefError(f"Optimizer {name} needs pytorch-optimizer. Run `pip install specdef[attack]`.")
        import pytorch_optimizer

        return getattr(pytorch_optimizer, name)([p for _, p in named], lr=lr, weight_decay=decay, **options)

    return build


THIRD = "pytorch-optimizer"
OPTIMIZERS: dict[str, OptimizerSpec] = {
    "adamw": OptimizerSpec(_adamw, options=("betas", "amsgrad")),
    "sgd": OptimizerSpec(_sgd, options=("momentum", "dampening", "nesterov")),
    "adafactor": OptimizerSpec(_adafactor, options=("beta2_decay", "d")),
    "muon": OptimizerSpec(_muon, options=("momentum", "nesterov", "ns_steps", "betas")),
    "lion": OptimizerSpec(_third_party("Lion"), library=THIRD, options=("betas",)),
    "sophia": OptimizerSpec(_third_party("SophiaH", update_period=10), 10, library=THIRD, options=("betas", "p")),
    "adahessian": OptimizerSpec(
        _third_party("AdaHessian", update_period=1), 1, library=THIRD, options=("betas", "hessian_power")
    ),
    "kron": OptimizerSpec(_third_party("Kron"), library=THIRD, options=("momentum", "precondition_lr")),
    "soap": OptimizerSpec(
        _third_party("SOAP"), library=THIRD, options=("betas", "shampoo_beta", "precondition_frequency")
    ),
    "lbfgs": OptimizerSpec(_lbfgs, closure=True, options=("max_iter", "history_size")),
}
"""sgd has momentum 0.9; muon is torch.optim.Muon on matrices and AdamW on the rest; kron is PSGD."""


def optimizer_spec(name: str) -> OptimizerSpec:
    """The optimizer of that name.

    Raises:
        SpecdefError: there is none; near matches are named.
    """
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    hint = did_you_mean(name, OPTIMIZERS)
    raise SpecdefError(f"`optimizer` must be one of {', '.join(OPTIMIZERS)}; got {name!r}.{hint}")


def check_option(optimizer: str, name: str, value: object) -> None:
    """Refuse a setting that an optimizer does not have, and values that no setting takes.

    Raises:
        SpecdefError: it is so.
    """
    known = optimizer_spec(optimizer).options
    if name not in known:
        raise SpecdefError(f"`{name}` must be a setting of optimizer {optimizer} ({', '.join(known)}); got {value!r}.")
    parts = value if isinstance(value, tuple) else (value,)
    pair = name == "betas"
    if not parts or (pair and len(parts) != 2) or not all(isinstance(part, bool | int | float) for part in parts):
        wanted = "two numbers, such as 0.9,0.95" if pair else "a number, true or false"
        raise SpecdefError(f"`{name}` must be {wanted}; got {value!r}.")
    if pair and not all(0 <= part < 1 for part in parts):
        raise SpecdefError(f"`{name}` must be numbers of at least 0 and below 1; got {value!r}.")


def build_optimizer(
    name: str,
    model: torch.nn.Module,
    *,
    lr: float,
    weight_decay: float,
    eps: float | None = None,
    options: Sequence[tuple[str, Any]] = (),
    is_head: Callable[[str], bool] = lambda path: False,
) -> torch.optim.Optimizer:
    """An optimizer over the model's trainable parameters.

    Args:
        name: a key of `OPTIMIZERS`.
        model: its parameters with ``requires_grad`` are trained.
        lr: learning rate at the top of the schedule.
        weight_decay: decoupled where the optimizer knows it; lbfgs has none.
        eps: of the denominator; None keeps the optimizer's own.
        options: (name, value) of what is changed of the optimizer's other settings, names from its `OptimizerSpec`.
        is_head: whether a module of that path is an output head; muon leaves heads to AdamW, as it does embeddings.

    Raises:
        SpecdefError: unknown optimizer, or one without eps that is given one.
    """
    named = [(path, parameter) for path, parameter in model.named_parameters() if parameter.requires_grad]
    optimizer: torch.optim.Optimizer = optimizer_spec(name).build(named, lr, weight_decay, _table_ids(model, is_head))
    if eps is not None:
        if not all(isinstance(group.get("eps"), float) for group in optimizer.param_groups):
            raise SpecdefError(
                f"`eps` must be left out with optimizer {name}, which has none (or several); got {eps:g}."
            )
        for group in optimizer.param_groups:
            group["eps"] = eps
    for option, value in options:
        for group in optimizer.param_groups:
            if option in group:
                group[option] = value
    return optimizer


def _table_ids(model: torch.nn.Module, is_head: Callable[[str], bool]) -> set[int]:
    import torch

    tables = (module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding))
    heads = (p for path, p in model.named_parameters() if is_head(path.removesuffix(".weight")))
    return {id(parameter) for parameter in (*tables, *heads)}


def _joined(parts: Iterable[Any]) -> Any:
    """Several optimizers as one: one list of groups, which a schedule sets, and one step.

    A step hands every part its groups anew: `load_state_dict`, which accelerate calls, puts new ones in the list, and
    parts left with the old ones would train for ever at the warm-up's first learning rate, which is 0.
    """
    import torch

    class Joined(torch.optim.Optimizer):
        def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
            super().__init__([p for part in optimizers for group in part.param_groups for p in group["params"]], {})
            self.optimizers = optimizers
            self.param_groups = [group for part in optimizers for group in part.param_groups]

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            assert closure is None
            groups = iter(self.param_groups)
            for part in self.optimizers:
                part.param_groups = list(islice(groups, len(part.param_groups)))
                part.step()

    return Joined(list(parts))
