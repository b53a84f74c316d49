"""Adapters. The one file that imports peft."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from specdef.errors import SpecdefError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class AdapterSpec:
    """A parameter-efficient fine-tuning configuration.

    Attributes:
        kind: a PEFT type, such as ``LORA``, ``IA3`` or ``VERA`` (any that wraps linear layers).
        r: rank; alpha is twice the rank unless `options` say otherwise.
        targets: ``all`` linear layers but the head, names such as ``q_proj``, or one regular expression (``re:...``).
        options: further arguments of the PEFT config.
    """

    kind: str = "LORA"
    r: int = 8
    targets: tuple[str, ...] = ("all",)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.r < 1:
            raise SpecdefError(f"`lora` must have a rank r of at least 1; got {self.r}.")

    @property
    def label(self) -> str:
        """Short text for tables."""
        options = "".join(f", {name}={value}" for name, value in sorted(self.options.items()))
        return f"{self.kind.lower()} r={self.r}{options} on {','.join(self.targets)}"


def parse_adapter(text: str) -> AdapterSpec:
    """Read ``r=8,targets=all`` or ``r=4,targets=q_proj+v_proj,kind=lora,lora_alpha=8``.

    Raises:
        SpecdefError: not of that form.
    """
    import json

    known: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise SpecdefError(f"`lora` must look like r=8,targets=all or r=4,targets=q_proj+v_proj; got {text!r}.")
        if name == "r":
            if not value.isdecimal():
                raise SpecdefError(f"`lora` must have a whole number as rank r; got {value!r}.")
            known["r"] = int(value)
        elif name == "targets":
            known["targets"] = (_checked(value),) if value.startswith("re:") else tuple(value.split("+"))
        elif name == "kind":
            known["kind"] = value.upper()
        else:
            try:
                options[name] = json.loads(value, parse_constant=_refuse_constant)
            except json.JSONDecodeError:
                options[name] = value
    return AdapterSpec(**known, options=options)


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


def add_adapter(model: nn.Module, spec: AdapterSpec) -> nn.Module:
    """Freeze the model and put trainable adapters beside its linear layers.

    Returns:
        The PEFT model: same function until it is trained.

    Raises:
        SpecdefError: peft is missing, or the targets match no layer.
    """
    if importlib.util.find_spec("peft") is None:
        raise SpecdefError("LoRA and other adapters need peft. Run `pip install specdef[attack]`.")
    import peft
    from torch import nn

    # A locked layer of the paper's kind is no nn.Linear; adapters skip it, as stock PEFT does.
    linears = {path for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    if spec.targets == ("all",):
        targets: Any = sorted(path for path in linears if not path.endswith("lm_head"))
    elif spec.targets[0].startswith("re:"):
        targets = spec.targets[0][3:]
    else:
        targets = sorted(path for path in linears if any(path == t or path.endswith(f".{t}") for t in spec.targets))
        missing = [t for t in spec.targets if not any(path == t or path.endswith(f".{t}") for path in targets)]
        if missing:
            known = sorted({path.rsplit(".", 1)[-1] for path in linears})
            raise SpecdefError(f"`lora` targets must name linear layers ({', '.join(known)}); got {'+'.join(missing)}.")
    try:
        config_class = peft.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(spec.kind)]
        arguments: dict[str, Any] = {"target_modules": targets, "task_type": "CAUSAL_LM", **spec.options}
        if "r" in config_class.__dataclass_fields__:
            arguments["r"] = spec.r
        if spec.kind == "LORA":
            arguments.setdefault("lora_alpha", 2 * spec.r)
        adapted: nn.Module = peft.get_peft_model(model, config_class(**arguments))
    except (ValueError, TypeError, KeyError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise SpecdefError(
            f"`lora` must be a configuration that peft accepts for this model; it says: {reason}"
        ) from error
    return adapted
