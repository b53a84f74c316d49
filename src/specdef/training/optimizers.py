"""Optimizers by name, all from living libraries: torch.optim and pytorch-optimizer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from specdef.core.text import did_you_mean
from specdef.errors import SpecdefError, UnreadyError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Trained:
    """What an optimizer is built over.

    Attributes:
        model: whose parameters they are.
        named: (path, parameter) of everything that is trained.
        tables: ids of parameters that are embeddings or output heads.
    """

    model: torch.nn.Module
    named: list[tuple[str, torch.nn.Parameter]]
    tables: set[int]

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Without their paths."""
        return [parameter for _, parameter in self.named]


@dataclass(frozen=True)
class OptimizerSpec:
    """How one optimizer is built and driven.

    Attributes:
        build: (what is trained, lr, weight decay) -> optimizer.
        curvature_every: steps between estimates of the Hessian's diagonal; 0 for first-order methods.
        takes_probes: its step is given the random signs too that the estimate was made with.
        closure: the optimizer evaluates the loss itself, several times a step.
        parts: it computes on parts of tensors what it computes on whole ones, so that a model may be sharded.
        alone: it looks at activations, of which a process among several sees those of its own rows only.
        states: numbers it keeps per trained number, as far as they grow with the model.
        library: where the implementation comes from.
        options: settings that a recipe may change, by the library's own names.
        invariant: the change of variables that leaves its steps alone, but for damping and averages over time; empty
            where there is none that a lock could use. Such an attacker need not search for the rate a lock asks for.
    """

    build: Callable[[Trained, float, float], Any]
    curvature_every: int = 0
    takes_probes: bool = False
    closure: bool = False
    parts: bool = False
    alone: bool = False
    states: float = 2
    library: str = "torch"
    options: tuple[str, ...] = ()
    invariant: str = ""


def _adamw(trained: Trained, lr: float, decay: float) -> Any:
    import torch

    return torch.optim.AdamW(trained.parameters, lr=lr, weight_decay=decay, fused=True)


def _sgd(trained: Trained, lr: float, decay: float) -> Any:
    import torch

    return torch.optim.SGD(trained.parameters, lr=lr, momentum=0.9, weight_decay=decay)


def _adafactor(trained: Trained, lr: float, decay: float) -> Any:
    import torch

    return torch.optim.Adafactor(trained.parameters, lr=lr, weight_decay=decay)


def _muon(trained: Trained, lr: float, decay: float) -> Any:
    import torch

    matrices = [p for p in trained.parameters if p.ndim == 2 and id(p) not in trained.tables]
    options: dict[str, Any] = {"lr": lr, "weight_decay": decay, "adjust_lr_fn": "match_rms_adamw"}
    return _beside_adamw(trained, matrices, lambda: torch.optim.Muon(matrices, **options), lr, decay)


def _beside_adamw(
    trained: Trained, chosen: list[torch.nn.Parameter], build: Callable[[], Any], lr: float, decay: float
) -> Any:
    """An optimizer of some parameters, and AdamW on the rest."""
    import torch

    ours = set(map(id, chosen))
    rest = [p for p in trained.parameters if id(p) not in ours]
    parts: list[Any] = [build()] if chosen else []
    if rest:
        parts.append(torch.optim.AdamW(rest, lr=lr, weight_decay=decay, fused=True))
    return _joined(parts)


def _lbfgs(trained: Trained, lr: float, decay: float) -> Any:
    import torch

    return torch.optim.LBFGS(trained.parameters, lr=lr, max_iter=4, history_size=10, line_search_fn="strong_wolfe")


def _adadelta(trained: Trained, lr: float, decay: float) -> Any:
    import torch

    return torch.optim.Adadelta(trained.parameters, lr=lr, weight_decay=decay)


def _xmat(trained: Trained, lr: float, decay: float) -> Any:
    from specdef.training.xmat import XMat

    return XMat(trained.parameters, lr, weight_decay=decay)


def _kfac(trained: Trained, lr: float, decay: float) -> Any:
    """The natural gradient on linear layers and convolutions that are trained whole, AdamW on the rest."""
    if importlib.util.find_spec("singd") is None:
        raise UnreadyError("Optimizer kfac needs singd. Run `pip install specdef[attack]`.")
    from singd.optim.optimizer import SINGD

    ours = set(map(id, trained.parameters))
    layers = [
        list(module.parameters(recurse=False))
        for module in trained.model.modules()
        if isinstance(module, SINGD.SUPPORTED_MODULES) and id(module.weight) not in trained.tables
    ]
    matrices = [p for layer in layers if ours.issuperset(map(id, layer)) for p in layer]
    options: dict[str, Any] = {"lr": lr, "weight_decay": decay, "kfac_like": True, "alpha1": 0.0}
    options |= {"normalize_lr_cov": True, "T": 1, "lr_cov": 0.01}
    return _beside_adamw(trained, matrices, lambda: SINGD(trained.model, matrices, **options), lr, decay)


def _third_party(name: str, **options: Any) -> Callable[[Trained, float, float], Any]:
    def build(trained: Trained, lr: float, decay: float) -> Any:
        if importlib.util.find_spec("pytorch_optimizer") is None:
            raise UnreadyError(f"Optimizer {name} needs pytorch-optimizer. Run `pip install specdef[attack]`.")
        import pytorch_optimizer

        return getattr(pytorch_optimizer, name)(trained.parameters, lr=lr, weight_decay=decay, **options)

    return build


THIRD = "pytorch-optimizer"
_WEIGHTS = "a scale of every weight of its own"
_LAYERS = "a linear map of every layer's inputs and of its outputs"
OPTIMIZERS: dict[str, OptimizerSpec] = {
    "adamw": OptimizerSpec(_adamw, parts=True, options=("betas", "amsgrad")),
    "sgd": OptimizerSpec(_sgd, parts=True, states=1, options=("momentum", "dampening", "nesterov")),
    "adafactor": OptimizerSpec(_adafactor, states=0, options=("beta2_decay", "d")),
    "muon": OptimizerSpec(_muon, parts=True, states=1, options=("momentum", "nesterov", "ns_steps", "betas")),
    "lion": OptimizerSpec(_third_party("Lion"), parts=True, states=1, library=THIRD, options=("betas",)),
    "sophia": OptimizerSpec(_third_party("SophiaH", update_period=10), 10, library=THIRD, options=("betas", "p")),
    "adahessian": OptimizerSpec(
        _third_party("AdaHessian", update_period=1),
        1,
        library=THIRD,
        options=("betas", "hessian_power"),
        invariant=_WEIGHTS,
    ),
    "kron": OptimizerSpec(
        _third_party("Kron"), library=THIRD, options=("momentum", "precondition_lr"), invariant=_LAYERS
    ),
    "soap": OptimizerSpec(
        _third_party("SOAP"), library=THIRD, options=("betas", "shampoo_beta", "precondition_frequency")
    ),
    "lbfgs": OptimizerSpec(_lbfgs, closure=True, parts=True, states=23, options=("max_iter", "history_size")),
    "adadelta": OptimizerSpec(_adadelta, parts=True, options=("rho",)),
    "xmat": OptimizerSpec(
        _xmat,
        1,
        takes_probes=True,
        library="specdef",
        options=("momentum", "precondition_lr"),
        invariant=_WEIGHTS,
    ),
    "kfac": OptimizerSpec(
        _kfac, alone=True, library="singd", options=("momentum", "damping", "lr_cov"), invariant=_LAYERS
    ),
}
"""sgd has momentum 0.9; muon is torch.optim.Muon on matrices and AdamW on the rest; kron is PSGD; kfac is the natural
gradient with K-FAC's form of the empirical Fisher matrix, without inverses."""


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
    trained = Trained(model, named, _table_ids(model, is_head))
    optimizer: torch.optim.Optimizer = optimizer_spec(name).build(trained, lr, weight_decay)
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
            if option == "max_iter" and "max_eval" in group:
                group["max_eval"] = value * 5 // 4  # torch's own limit, which it sets when the optimizer is made
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
