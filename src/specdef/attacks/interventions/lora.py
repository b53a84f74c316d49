"""Adapters. The one file of attacks that imports peft."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from specdef.attacks.base import Intervention, Trains
from specdef.errors import SpecdefError, UnreadyError
from specdef.models.base import Batch, LoadedModel
from specdef.training.recipe import Recipe


@dataclass(frozen=True)
class Lora(Intervention):
    """A parameter-efficient fine-tuning configuration.

    Attributes:
        kind: a PEFT type, such as ``LORA``, ``IA3`` or ``VERA`` (any that wraps linear layers).
        rank: for kind ``LORA`` alpha is twice the rank unless `arguments` say otherwise.
        targets: ``all`` linear layers and convolutions but the head and the layers a lock replaced, names such as
            ``q_proj``, or one regular expression (``re:...``). Named layers may be locked ones, for kind ``LORA``.
        arguments: further arguments of the PEFT config.
    """

    name: ClassVar[str] = "lora"
    trains: ClassVar[Trains] = Trains.BESIDE

    kind: str = "LORA"
    rank: int = 8
    targets: tuple[str, ...] = ("all",)
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise SpecdefError(f"`lora` must have a rank of at least 1; got {self.rank}.")
        if not self.targets or not all(self.targets):
            raise SpecdefError("`lora` must have targets, such as all or q_proj+v_proj; got none.")

    @property
    def label(self) -> str:
        """Short text for tables."""
        arguments = "".join(f", {name}={value}" for name, value in sorted(self.arguments.items()))
        return f"{self.kind.lower()} rank={self.rank}{arguments} on {','.join(self.targets)}"

    def modify(self, loaded: LoadedModel, batch: Batch, recipe: Recipe) -> Any:
        """The model with adapters; see `add_adapter`."""
        return add_adapter(loaded, self)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``rank=8,targets=all`` or ``rank=4,targets=q_proj+v_proj,kind=lora,lora_alpha=8``.

        Raises:
            SpecdefError: not of that form.
        """
        known: dict[str, Any] = {}
        arguments: dict[str, Any] = {}
        for part in filter(None, text.split(",")):
            name, equals, value = part.partition("=")
            if not equals or not value:
                raise SpecdefError(
                    f"`lora` must look like rank=8,targets=all or rank=4,targets=q_proj+v_proj; got {text!r}."
                )
            if name in ("rank", "r"):
                if not value.isdecimal():
                    raise SpecdefError(f"`lora` must have a whole number as rank; got {value!r}.")
                known["rank"] = int(value)
            elif name == "targets":
                known["targets"] = (_checked(value),) if value.startswith("re:") else tuple(value.split("+"))
            elif name == "kind":
                known["kind"] = value.upper()
            else:
                arguments[name] = _argument(value)
        return cls(**known, arguments=arguments)

    def to_wire(self) -> dict[str, Any]:
        """Version 1's field, with its names."""
        adapter = {"kind": self.kind, "r": self.rank, "targets": list(self.targets), "options": self.arguments}
        return {"adapter": adapter}

    @classmethod
    def from_wire(cls, name: str, value: Any) -> Self | None:
        """Read version 1's field."""
        if name != "adapter":
            return None
        return cls(value["kind"], value["r"], tuple(value["targets"]), dict(value["options"]))


KIND = Lora


def _argument(text: str) -> Any:
    import json

    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError:
        return text


def _checked(targets: str) -> str:
    try:
        re.compile(targets[3:])
    except re.error as error:
        raise SpecdefError(
            f"`lora` targets must be a regular expression after re:; got {targets!r} ({error})."
        ) from error
    return targets


def _refuse_constant(name: str) -> float:
    raise SpecdefError(f"`lora` options must be finite; got {name}.")


def add_adapter(loaded: LoadedModel, spec: Lora) -> Any:
    """Freeze the model and put trainable adapters beside its linear layers and its convolutions over images.

    Returns:
        The PEFT model: same function until it is trained.

    Raises:
        UnreadyError: peft is missing.
        SpecdefError: the targets match no layer.
    """
    if importlib.util.find_spec("peft") is None:
        raise UnreadyError("LoRA and other adapters need peft. Run `pip install specdef[attack]`.")
    import peft
    from torch import nn

    from specdef.locks.peft_layer import peft_layers

    model, heads = loaded.model, set(loaded.kind.head_names)
    # A locked layer of the paper's kind is no nn.Linear: `all` skips it, as stock PEFT does; LoRA reaches it by name.
    locked = peft_layers() if spec.kind == "LORA" else {}
    plain = (nn.Linear, nn.Conv2d)
    linears = {path for path, module in model.named_modules() if isinstance(module, plain)}
    named = {path for path, module in model.named_modules() if isinstance(module, (*plain, *locked))}
    if spec.targets == ("all",):
        targets: Any = sorted(path for path in linears if heads.isdisjoint(path.split(".")))
    elif spec.targets[0].startswith("re:"):
        targets = spec.targets[0][3:]
    else:
        targets = sorted(path for path in named if any(path == t or path.endswith(f".{t}") for t in spec.targets))
        missing = [t for t in spec.targets if not any(path == t or path.endswith(f".{t}") for path in targets)]
        if missing:
            known = sorted({path.rsplit(".", 1)[-1] for path in named})
            raise SpecdefError(f"`lora` targets must name linear layers ({', '.join(known)}); got {'+'.join(missing)}.")
    try:
        config_class = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(spec.kind)]
        arguments: dict[str, Any] = {"target_modules": targets, "task_type": loaded.kind.adapter_task_type}
        arguments |= spec.arguments
        if "r" in config_class.__dataclass_fields__:
            arguments["r"] = spec.rank
        elif spec.rank != Lora.rank:
            raise SpecdefError(f"`lora` must leave out rank for kind {spec.kind}, which has none; got {spec.rank}.")
        if spec.kind == "LORA":
            arguments.setdefault("lora_alpha", 2 * spec.rank)
        config = config_class(**arguments)
        if locked:
            config._register_custom_module(locked)
        adapted = peft.get_peft_model(model, config)
    except (ValueError, TypeError, KeyError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise SpecdefError(
            f"`lora` must be a configuration that peft accepts for this model; it says: {reason}"
        ) from error
    return adapted
