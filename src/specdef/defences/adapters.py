"""Low-rank adapters that a defence trains, and merges at the end. peft is imported here alone of all defences."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from specdef.defences.descent import evaluating
from specdef.defences.hidden import layer_of
from specdef.defences.objective import Objective, TrainingOptions, require
from specdef.errors import SpecdefError
from specdef.models.base import LoadedModel

ALL = "all"


@dataclass(frozen=True)
class AdapterOptions(TrainingOptions):
    """Options of a defence that trains adapters.

    Attributes:
        lora_alpha: scale of the adapters; their output is multiplied by lora_alpha / rank.
        targets: names of the linear layers that get one, such as ``q_proj``; ``all`` for every one.
    """

    lora_alpha: int = 16
    targets: tuple[str, ...] = (ALL,)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.lora_alpha >= 1, "lora_alpha", "be at least 1", self.lora_alpha)
        named = bool(self.targets) and all(self.targets)
        require(named, "targets", "name linear layers, such as all or q_proj,v_proj", list(self.targets))


class AdapterObjective(Objective):
    """An objective whose model is the given one with adapters; `finish` merges them and takes them off.

    With the adapters off the model is the given one: no second copy of the weights is held for a reference.
    """

    @contextmanager
    def given_model(self) -> Iterator[None]:
        """`model` as it was given: adapters and dropout off, no gradients."""
        with evaluating(self.model), self.model.disable_adapter():
            yield

    def finish(self) -> None:
        """Add what the adapters learned to the given model's weights; nothing of peft is left in it."""
        self.model.merge_and_unload()


def with_adapters(
    loaded: LoadedModel, layers: Collection[int], *, rank: int, lora_alpha: int, targets: Sequence[str]
) -> Any:
    """Freeze a model and put trainable adapters beside linear layers: the same function until they are trained.

    Args:
        loaded: the model, which is changed in place.
        layers: numbers of the layers, from 0, whose linear layers get one; heads never do.
        rank: of the adapters; A is drawn by torch's generator, B is 0.
        lora_alpha: scale, see `AdapterOptions`.
        targets: names of linear layers, or ``all``.

    Returns:
        The PEFT model around the given one.

    Raises:
        SpecdefError: peft is missing, or a target is in none of the layers.
    """
    if importlib.util.find_spec("peft") is None:
        raise SpecdefError("Defences that train adapters need peft. Run `pip install specdef[attack]`.")
    import peft
    import torch

    linear = _linear_layers(loaded, layers)
    known = sorted({path.rsplit(".", 1)[-1] for path in linear})
    if ALL in targets:
        chosen = linear
    else:
        missing = sorted(set(targets) - set(known))
        offered = ", ".join(known)
        require(not missing, "targets", f"name linear layers of the trained layers ({offered})", ",".join(missing))
        chosen = [path for path in linear if path.rsplit(".", 1)[-1] in targets]
    require(bool(chosen), "model", "have linear layers to put adapters beside", "none in the trained layers")
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=lora_alpha,
        target_modules=chosen,
        task_type=loaded.kind.adapter_task_type,
        fan_in_fan_out=not isinstance(loaded.model.get_submodule(chosen[0]), torch.nn.Linear),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that is on its way out
        return peft.get_peft_model(loaded.model, config)


def _linear_layers(loaded: LoadedModel, layers: Collection[int]) -> list[str]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return [
        path
        for path, module in loaded.model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and layer_of(path) in layers and not loaded.kind.is_head(path)
    ]
