"""Models in memory where a verb also takes a folder: telling them apart, and a folder of one for what needs files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import TypeIs


def is_module(model: object, *, argument: str = "model") -> TypeIs[nn.Module]:
    """Whether an argument is a model in memory, not the name of a folder. Nothing heavy is imported for a name.

    Raises:
        CheckpointError: it is neither.
    """
    if isinstance(model, str | Path):
        return False
    from torch import nn

    if isinstance(model, nn.Module):
        return True
    raise CheckpointError(
        f"`{argument}` must be a folder, a hub id, a bundled model or a model in memory; got a {type(model).__name__}."
    )


def require_transformers(model: nn.Module, *, argument: str = "model") -> None:
    """Raise CheckpointError for a module that is no transformers model, whose config nothing can read."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise CheckpointError(
            f"`{argument}` must be a transformers model; got a {type(model).__name__}. Give the model that it wraps."
        )


def config_of(model: nn.Module) -> dict[str, Any]:
    """What ``config.json`` would say of a transformers model."""
    config: dict[str, Any] = dict(model.config.to_dict())  # type: ignore[union-attr, operator]
    return {**config, "architectures": [type(model).__name__]}


def save_module(model: nn.Module, processor: Any, folder: Path, *, argument: str = "model") -> Path:
    """Write a model in memory and its tokenizer as a folder; the model and its config stay as they are.

    Args:
        model: a transformers model, on any device.
        processor: its tokenizer, or None where its kind needs none.
        folder: to create.
        argument: what the user gave the model as.

    Raises:
        CheckpointError: it is no transformers model.
    """
    from specdef.models.loading import quiet

    require_transformers(model, argument=argument)
    written: Any = copy.copy(model)  # shares every weight; saving notes class and dtype in the config it is given
    written.config = copy.deepcopy(model.config)
    with quiet():
        written.save_pretrained(folder)
        if processor is not None:
            processor.save_pretrained(folder)
    return folder
