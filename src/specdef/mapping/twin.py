"""A random model of a configuration, its parameters seen as the tensors that `save_pretrained` writes."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from specdef.architectures.written import DECLARE
from specdef.errors import ArchitectureError
from specdef.mapping.shrink import TWINS, VOCAB, Sizes, shrunk
from specdef.models.loading import quiet, reason

MAX_WEIGHTS = 8_000_000
"""A twin that cannot be made smaller is not worked on."""


@dataclass
class Twin:
    """A tiny random model.

    Attributes:
        model: in evaluation mode.
        config: its configuration as data.
        ids: saved tensor -> for each of its numbers the place in the parameters' numbers, one after the other; -1 for
            what is no parameter.
        shapes: saved tensor -> shape, those without a parameter too.
        order: saved tensor -> when the forward pass first uses its module.
        transposed: saved tensors of linear layers that store [in, out].
    """

    model: Any
    config: dict[str, Any]
    ids: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    order: dict[str, int]
    transposed: frozenset[str] = frozenset()

    def values(self) -> Tensor:
        """All parameters' numbers in a row, in the model's dtype."""
        return torch.cat([p.detach().reshape(-1) for p in self.model.parameters()])

    def set_values(self, values: Tensor) -> None:
        """Put numbers back, as `values` gave them."""
        start = 0
        with torch.no_grad():
            for parameter in self.model.parameters():
                part = values[start : start + parameter.numel()]
                parameter.copy_(part.view_as(parameter))
                start += parameter.numel()

    def gradients(self) -> Tensor:
        """The parameters' gradients, in the same order; 0 where there is none."""
        found = []
        for p in self.model.parameters():
            found.append((torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1))
        return torch.cat(found)

    def outputs(self, seed: int) -> Tensor:
        """What the model says to inputs drawn from `seed`."""
        parameter = next(self.model.parameters())
        inputs = probes(self.model, self.config, seed)
        cast = {k: v.to(parameter.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        found: Tensor = self.model(**cast)[0]
        return found


def build_twin(config: Any, model_class: Any, sizes: tuple[Sizes, ...] = TWINS) -> Twin:
    """A shrunken random twin of a configuration.

    Args:
        config: transformers' configuration object.
        model_class: what to build: a class of transformers, or an auto class.
        sizes: what to shrink to, tried in turn.

    Raises:
        ArchitectureError: none can be built and run.
    """
    said: list[str] = []
    for one in sizes:
        try:
            with quiet():
                return _built(type(config).from_dict(shrunk(config.to_dict(), one)), model_class)
        except Exception as error:  # whatever a stranger's config makes transformers raise
            said.append(reason(error))
    raise ArchitectureError(
        f"`map` auto must be able to build a small model of {config.model_type!r}; transformers cannot ({said[0]}). "
        f"{DECLARE}"
    )


def _built(config: Any, model_class: Any) -> Twin:
    with torch.device("meta"):
        weights = sum(p.numel() for p in construct(config, model_class).parameters())
    if weights > MAX_WEIGHTS:
        raise ValueError(f"the shrunken model still has {weights:,} weights")
    torch.manual_seed(0)
    model = construct(config, model_class).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_weights(name, parameter, generator))
        for name, buffer in model.named_buffers():
            if "running_" in name:
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + (0.5 if name.endswith("var") else 0.0))
    model.double()
    ids, shapes = _saved_places(model)
    said = {**config.to_dict(), "architectures": [type(model).__name__], "model_type": config.model_type}
    twin = Twin(model, said, ids, shapes, {})
    _place(twin)
    return twin


def construct(config: Any, model_class: Any) -> Any:
    """A model of a class, or of an auto class, from its configuration."""
    build = model_class.from_config if hasattr(model_class, "from_config") else model_class
    own = copy.deepcopy(config)
    for part in (own, *(value for value in vars(own).values() if hasattr(value, "model_type"))):
        part._experts_implementation = "eager"  # the grouped product knows no float64
        part.use_cache = False
    own.architectures = own.architectures or []
    return build(own)


def _weights(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers away from values that hide a mistake: no norm at 1 (or 0, where 1 is added), no bias at 0."""
    draw = torch.randn(like.shape, generator=generator)
    first = like.detach().float()
    if like.ndim < 2 or float(first.std()) == 0.0:
        return first + draw.sign() * (0.2 + 0.4 * torch.rand(like.shape, generator=generator))
    if "embed" in name or "wte" in name or "wpe" in name:
        return draw
    fan_in = like[0].numel() if like.ndim > 3 else like.shape[-1]
    return draw * 1.5 / math.sqrt(fan_in)


def _saved_places(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, tuple[int, ...]]]:
    """Where each saved number comes from: every parameter holds its numbers' places, and the model is saved."""
    from safetensors import safe_open

    marked = copy.deepcopy(model)
    start = 0
    with torch.no_grad():
        for buffer in marked.buffers():
            if buffer.is_floating_point():
                buffer.fill_(-1.0)
        for parameter in marked.parameters():
            parameter.copy_(torch.arange(start, start + parameter.numel(), dtype=torch.float64).view_as(parameter))
            start += parameter.numel()
    ids, shapes = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        marked.save_pretrained(folder)  # type: ignore[operator]
        for path in sorted(Path(folder).glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118
                    found = file.get_tensor(name)
                    shapes[name] = tuple(found.shape)
                    if found.dtype == torch.float64 and found.numel() and float(found.min()) >= 0.0:
                        ids[name] = found.long()
    return ids, shapes


def _place(twin: Twin) -> None:
    """Fill in when each saved tensor's module is first entered, and which modules are transposed linears."""
    clock: dict[int, int] = {}
    owner: dict[int, nn.Module] = {}
    starts, start = [], 0
    for module in twin.model.modules():
        for parameter in module.parameters(recurse=False):
            owner.setdefault(id(parameter), module)
    for parameter in twin.model.parameters():
        starts.append((start, owner[id(parameter)]))
        start += parameter.numel()

    def entered(module: nn.Module, _: Any) -> None:
        clock.setdefault(id(module), len(clock))

    handles = [module.register_forward_pre_hook(entered) for module in twin.model.modules()]
    try:
        with torch.no_grad(), in_float64():
            twin.outputs(0)
    finally:
        for handle in handles:
            handle.remove()
    transposed = set()
    for name, places in twin.ids.items():
        first = int(places.reshape(-1)[0])
        module = next(m for at, m in reversed(starts) if at <= first)
        twin.order[name] = clock.get(id(module), len(clock))
        if type(module).__name__ == "Conv1D":
            transposed.add(name)
    twin.transposed = frozenset(transposed)


def probes(model: Any, config: Mapping[str, Any], seed: int) -> dict[str, Tensor]:
    """Inputs a model takes: random tokens of a length that varies with the seed, or random images."""
    generator = torch.Generator().manual_seed(1000 + seed)
    inner = config.get("text_config") or config
    main = getattr(model, "main_input_name", "input_ids")
    batch, length = (4, 24) if seed % 2 == 0 else (3, 17)
    if main == "pixel_values":
        vision = config.get("vision_config") or config
        size = vision.get("image_size") or 64
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return {"pixel_values": torch.randn(batch, vision.get("num_channels", 3), height, width, generator=generator)}
    low, high = 3, int(inner.get("vocab_size") or VOCAB)
    found = {"input_ids": torch.randint(low, high, (batch, length), generator=generator)}
    if getattr(model.config, "is_encoder_decoder", False):
        found["decoder_input_ids"] = torch.randint(low, high, (batch, 11), generator=generator)
    return found


class _Wide(TorchFunctionMode):
    """Keeps float64 where a model asks for float32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            return args[0].double()
        narrow = (torch.float32, torch.bfloat16, torch.float16)
        args = tuple(torch.float64 if any(a is d for d in narrow) else a for a in args)
        kwargs = {k: torch.float64 if any(v is d for d in narrow) else v for k, v in (kwargs or {}).items()}
        return func(*args, **kwargs)


@contextmanager
def in_float64() -> Iterator[None]:
    """Float64 throughout, whatever a model casts to."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Wide():
            yield
    finally:
        torch.set_default_dtype(before)
