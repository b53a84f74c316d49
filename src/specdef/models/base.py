"""What a kind of model is: how it is loaded, fed and asked. A kind is one file of `specdef.models.kinds`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from specdef.checkpoint.layout import load_config
from specdef.core.registry import Registry, choices
from specdef.errors import CheckpointError
from specdef.models.probing import Probing

if TYPE_CHECKING:
    import torch

Batch = tuple[Any, ...]
"""Some encoded samples: tensors whose first axis runs over the samples. What each holds is the kind's business."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        model: in evaluation mode.
        processor: what turns raw samples into tensors: the tokenizer of a text model. None where there is none.
        kind: the model's kind.
    """

    model: Any
    processor: Any
    kind: ModelKind


class ModelKind(Probing, ABC):
    """One kind of model.

    Everything that trains, attacks, scores or differentiates a model does so through these methods, so that none of it
    knows what the model reads or writes. `probes`, `outputs` and `divergence` come from `Probing`; a kind may override
    them.

    Attributes:
        name: as the registry spells it.
        adapter_task_type: PEFT's ``task_type``.
        head_names: names of the modules that are output heads; adapters on "all" layers leave them out. See `is_head`.
        has_likelihood: whether the kind's loss is minus the log-likelihood of its targets, in nats.
        splits: whether `loss` is a mean over `num_targets` of rows that know nothing of each other: processes may
            share a batch.
        default_task: name of the task an attacker tries when none is named.
        default_utility: name of the utility that is watched when none is named.
        default_preset: the lock's preset when none is named: the one that certificates of such models favour; None
            where they favour none.
    """

    name: ClassVar[str]
    adapter_task_type: ClassVar[str | None] = None
    head_names: ClassVar[tuple[str, ...]] = ()
    has_likelihood: ClassVar[bool] = True
    splits: ClassVar[bool] = False
    default_task: ClassVar[str]
    default_utility: ClassVar[str]
    default_preset: ClassVar[str | None] = None

    def is_head(self, path: str) -> bool:
        """Whether the module of that path is an output head, or a part of one."""
        return any(part in self.head_names for part in path.split("."))

    @abstractmethod
    def matches(self, config: Mapping[str, Any]) -> bool:
        """Whether a folder with this configuration is of this kind. Nothing heavy is imported for the answer.

        The configuration is the folder's ``config.json``, or what `load_config` makes of a pipeline's components.
        """

    @abstractmethod
    def load_processor(self, folder: Path) -> Any:
        """What turns raw samples into tensors, from local files only.

        Raises:
            CheckpointError: the folder has none that can be used.
        """

    @abstractmethod
    def load(self, folder: Path, *, dtype: torch.dtype | None = None) -> LoadedModel:
        """The model and its processor, from local files only; weights keep their stored dtype when `dtype` is None.

        Raises:
            CheckpointError: a part cannot be loaded.
        """

    def save(self, loaded: LoadedModel, folder: Path) -> None:
        """Write a model and its processor into a folder that exists."""
        loaded.model.save_pretrained(folder)
        if loaded.processor is not None:
            loaded.processor.save_pretrained(folder)

    @abstractmethod
    def encode(self, samples: Sequence[Any], loaded: LoadedModel) -> Batch:
        """A task's samples as tensors.

        Raises:
            TaskError: a sample cannot be encoded for this model.
        """

    @abstractmethod
    def batch(self, rows: Batch, chosen: Sequence[int]) -> Batch:
        """Some of the encoded samples, ready for the model: padding that none of them needs is cut off."""

    @abstractmethod
    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Mean loss over the batch's targets, differentiable; the batch is moved to the model's device.

        `model` may be wrapped by accelerate or peft. Float64 stays float64, narrower arithmetic is summed in float32.
        """

    @abstractmethod
    def num_targets(self, batch: Batch) -> int:
        """How many targets `loss` is the mean over."""

    def row_losses(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Each row's loss, summed over its targets, and how many they are: both [rows], the first differentiable.

        Raises:
            CheckpointError: the kind's loss is no sum over rows.
        """
        raise CheckpointError(
            f"`model` must be of a kind whose loss is a sum over rows (causal-lm); it is of kind {self.name}."
        )

    def predictions(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [targets, classes] and classes [targets] whose mean cross-entropy `loss` is: for Gauss-Newton.

        Raises:
            CheckpointError: the kind's loss is no cross-entropy.
        """
        raise CheckpointError(
            f"`kind` must be hessian for a model of kind {self.name}, whose loss is no cross-entropy; got gauss-newton."
        )


MODEL_KINDS: Registry[ModelKind] = Registry(
    "model kind", "specdef.models.kinds", "specdef.model_kinds", error=CheckpointError
)


def find_kind(config: Mapping[str, Any]) -> ModelKind | None:
    """The kind of a ``config.json``; None when no kind knows it.

    Raises:
        CheckpointError: several kinds claim it.
    """
    found = [kind for kind in MODEL_KINDS if kind.matches(config)]
    if len(found) > 1:
        names = ", ".join(kind.name for kind in found)
        raise CheckpointError(f"`model` must be of one kind; {names} all claim it. Uninstall a plug-in.")
    return found[0] if found else None


def kind_of(folder: Path, *, argument: str = "model") -> ModelKind:
    """The kind of a model folder, from its ``config.json``.

    Args:
        folder: a model folder.
        argument: what the user gave it as.

    Raises:
        CheckpointError: no kind knows it: a vision model, a multimodal one, a bare encoder.
    """
    config = load_config(folder, argument=argument)
    kind = find_kind(config)
    if kind is None:
        raise CheckpointError(
            f"`{argument}` must be a model of a kind that can be attacked ({choices(MODEL_KINDS)}); {folder} is "
            f"{described(config)}. Give a folder saved from a class of such a kind."
        )
    return kind


def class_name(config: Mapping[str, Any]) -> str:
    """The class a ``config.json`` was saved from; "" when it names none."""
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else names
    return first if isinstance(first, str) else ""


def described(config: Mapping[str, Any]) -> str:
    """A model nobody knows, in words."""
    name = class_name(config)
    return f"a {name}" if name else "of a class that config.json does not name"


def is_multimodal(config: Mapping[str, Any]) -> bool:
    """Whether a model reads images or sound beside text, which samples of text do not feed."""
    return any(f"{sense}_config" in config for sense in ("vision", "audio", "image", "speech"))
