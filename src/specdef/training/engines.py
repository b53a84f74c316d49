"""Where gradients come from: one process, replicas of a model in several (DDP), or one model in parts (FSDP2).

accelerate places a model that is alone. Several processes get torch's own DDP and `fully_shard`: accelerate takes FSDP2
for GPUs only, and what runs on GPUs must be what the tests run on CPUs. Its launcher and its variables are obeyed.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from types import MethodType
from typing import TYPE_CHECKING, Any

from specdef.core.processes import size, summed
from specdef.errors import SpecdefError
from specdef.training.optimizers import OPTIMIZERS, optimizer_spec
from specdef.training.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


class Engine:
    """One process. The others differ in what they override.

    Attributes:
        model: what the loss is taken through: the model itself, or a wrapper of it.
    """

    def __init__(self, model: Any, accelerator: Accelerator | None = None) -> None:
        self.model, self._accelerator = model, accelerator

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a loss that is this process's part of the whole batch's."""
        assert self._accelerator is not None
        self._accelerator.backward(loss)

    def clip(self, parameters: Iterable[torch.nn.Parameter], most: float) -> None:
        """Scale gradients down to a norm of at most `most`, over all processes."""
        assert self._accelerator is not None
        self._accelerator.clip_grad_norm_(parameters, most)

    def part(self, *, last: bool) -> Any:
        """A context for one forward and backward pass of a step; gradients meet in the last."""
        return nullcontext()

    def total(self, value: float) -> float:
        """A number of this process added to the others'."""
        return value

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Add tensors, in place, to the others'."""


class Replicas(Engine):
    """Every process holds the model; gradients are averaged, so that each gives `size` times its part."""

    def backward(self, loss: torch.Tensor) -> None:
        """See `Engine.backward`."""
        (loss * size()).backward()

    def clip(self, parameters: Iterable[torch.nn.Parameter], most: float) -> None:
        """See `Engine.clip`."""
        import torch

        torch.nn.utils.clip_grad_norm_(parameters, most)

    def part(self, *, last: bool) -> Any:
        """See `Engine.part`."""
        return nullcontext() if last else self.model.no_sync()

    def total(self, value: float) -> float:
        """See `Engine.total`."""
        return summed([value])[0]

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """See `Engine.add_up`."""
        import torch

        for tensor in tensors:
            torch.distributed.all_reduce(tensor)


class Shards(Replicas):
    """Every process holds a part of each tensor; gradients meet after each backward pass. See `shard` for tensors that
    stay whole."""

    def clip(self, parameters: Iterable[torch.nn.Parameter], most: float) -> None:
        """See `Engine.clip`; torch's own takes no whole tensors beside parts."""
        import torch

        gradients = [one.grad for one in parameters if one.grad is not None]
        squares = {True: 0.0, False: 0.0}
        for gradient in gradients:
            squares[_is_part(gradient)] += float(held(gradient).double().square().sum())
        factor = most / (math.sqrt(summed([squares[True]])[0] + squares[False]) + 1e-6)
        with torch.no_grad():
            for gradient in gradients:
                held(gradient).mul_(1.0 if factor >= 1 else factor)  # not a number where the norm is none

    def part(self, *, last: bool) -> Any:
        """See `Engine.part`."""
        return nullcontext()


def is_sharded() -> bool:
    """Whether several processes share one model: what accelerate's launcher says with ``--use_fsdp``.

    Raises:
        SpecdefError: FSDP of version 1, or with weights kept in main memory.
    """
    if size() == 1 or os.environ.get("ACCELERATE_USE_FSDP", "").lower() != "true":
        return False
    if (version := os.environ.get("FSDP_VERSION", "2")) != "2":
        raise SpecdefError(f"`fsdp_version` must be 2; got {version}. Give `--fsdp_version 2` to accelerate launch.")
    if os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true":
        raise SpecdefError("`fsdp_offload_params` must be false; an attack keeps its weights on the device.")
    return True


def engine_of(
    model: torch.nn.Module, recipe: Recipe, build: Callable[[Any], torch.optim.Optimizer]
) -> tuple[Any, Engine, Any]:
    """The model to evaluate, what trains it, and its optimizer.

    Args:
        model: on its device, but for `Shards`, which takes it from anywhere; some of its parameters are trained.
        recipe: says the precision and the optimizer.
        build: makes the optimizer of a model as it will be trained.

    Raises:
        SpecdefError: the optimizer needs what no process of several has.
    """
    import torch

    refuse_optimizer(recipe)
    if recipe.precision == "bf16":
        model = model.to(torch.bfloat16)
    if size() == 1:
        accelerator = _accelerator(model, recipe)
        model, optimizer = accelerator.prepare(model, build(model))
        return model, Engine(model, accelerator), optimizer
    if is_sharded():
        shard(model, recipe.precision == "bf16-master")
        return model, Shards(model), build(model)
    if recipe.precision == "bf16-master":
        _compute_in_bf16(model)
    device = next(model.parameters()).device
    wrapped = torch.nn.parallel.DistributedDataParallel(model, device_ids=None if device.type == "cpu" else [device])
    return model, Replicas(wrapped), build(model)


def refuse_optimizer(recipe: Recipe) -> None:
    """Refuse an optimizer that would not compute what it computes in one process.

    Raises:
        SpecdefError: it looks at activations of the whole batch, or needs whole tensors of a model in parts.
    """
    spec = optimizer_spec(recipe.optimizer)
    if size() > 1 and spec.alone:
        raise SpecdefError(
            f"`optimizer` must be one that looks at gradients alone where {size()} processes share a batch; got "
            f"{recipe.optimizer}. Start specdef by itself, without torchrun or accelerate launch."
        )
    if is_sharded() and not spec.parts:
        known = ", ".join(name for name, one in OPTIMIZERS.items() if one.parts)
        raise SpecdefError(
            f"`optimizer` must be one that works on parts of tensors where a model is sharded ({known}); got "
            f"{recipe.optimizer}. Start without `--use_fsdp`."
        )


def place(model: torch.nn.Module, device: str) -> None:
    """Put a model that is only measured where it computes, in place: on the device, or in parts."""
    if is_sharded():
        shard(model)
    else:
        model.to(device)


def shard(model: torch.nn.Module, bf16: bool = False) -> None:
    """Split every tensor of a model over the processes, in place; layers are gathered one by one as they compute.

    Tensors of another type than most, such as a lock's float64 among float32, stay whole: what is gathered together
    must be of one type.

    Args:
        model: the same in all processes.
        bf16: compute in bfloat16; the parts keep their type.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    inner = outer = MixedPrecisionPolicy()
    if bf16:
        inner = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
        outer = MixedPrecisionPolicy(torch.bfloat16, torch.float32, torch.float32)
    kind = "cuda" if torch.distributed.get_backend() != "gloo" else "cpu"
    mesh = init_device_mesh(kind, (size(),))
    asked = os.environ.get("FSDP_ACTIVATION_CHECKPOINTING", "false").lower() == "true"
    if asked and getattr(model, "supports_gradient_checkpointing", False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its new name is not in older transformers
            model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    whole = _of_another_type(model)
    for one in whole:
        one.data = one.data.to(kind)
        if one.requires_grad:
            one.register_hook(_mean)
    layers = set(getattr(model, "_no_split_modules", None) or ())
    for module in list(model.modules()):
        if type(module).__name__ in layers and module is not model:
            fully_shard(module, mesh=mesh, mp_policy=inner, ignored_params=whole)
    # Gathered weights left behind by an evaluation would be taken for the trained ones.
    fully_shard(model, mesh=mesh, mp_policy=outer, reshard_after_forward=True, ignored_params=whole)


def _of_another_type(model: torch.nn.Module) -> set[torch.nn.Parameter]:
    numbers: Counter[torch.dtype] = Counter()
    for one in model.parameters():
        numbers[one.dtype] += one.numel()
    usual = numbers.most_common(1)[0][0]
    return {one for one in model.parameters() if one.dtype != usual}


def _mean(gradient: torch.Tensor) -> torch.Tensor:
    """Of all processes: what FSDP does to the gradients of parts."""
    import torch

    met = gradient.contiguous().clone()
    torch.distributed.all_reduce(met)
    return met / size()


def _is_part(tensor: torch.Tensor) -> bool:
    return hasattr(tensor, "to_local")


def held(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor that this process has: all of them, but for a model in parts."""
    found: torch.Tensor = tensor.to_local() if _is_part(tensor) else tensor  # type: ignore[attr-defined]
    return found


def _compute_in_bf16(model: Any) -> None:
    """Bfloat16 arithmetic over float32 weights, as accelerate has it."""
    import torch
    from accelerate.utils import convert_outputs_to_fp32

    kind = next(model.parameters()).device.type
    forward = torch.autocast(kind, torch.bfloat16)(model.forward.__func__)
    model.forward = MethodType(convert_outputs_to_fp32(forward), model)


def _accelerator(model: torch.nn.Module, recipe: Recipe) -> Accelerator:
    """accelerate's view of the machine: the device the model is on."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # accelerate keeps one device and one precision per process; a library that trains twice must forget the first.
    AcceleratorState._reset_state(reset_partial_state=True)
    on_cpu = next(model.parameters()).device.type == "cpu"
    return Accelerator(mixed_precision="bf16" if recipe.precision == "bf16-master" else "no", cpu=on_cpu)
