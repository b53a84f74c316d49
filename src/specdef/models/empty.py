"""A model without its weights: what its configuration alone says of its modules and their shapes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from specdef.checkpoint.layout import is_pipeline
from specdef.errors import CheckpointError
from specdef.models.loading import model_class, unusable

if TYPE_CHECKING:
    from torch import nn


def empty_model(folder: Path) -> nn.Module:
    """The model that a folder's configuration describes, on torch's meta device: no memory is taken for its weights.

    Args:
        folder: a model's or a pipeline's; it may hold configurations and nothing else.

    Raises:
        CheckpointError: the configuration names no class that is known, or none can be made of it.
    """
    import torch

    if is_pipeline(folder):
        from specdef.models.pipeline import empty_pipeline

        return empty_pipeline(folder)
    from transformers import AutoConfig

    found = model_class(folder)
    build = found.from_config if found.__name__ == "AutoModel" else found
    try:
        with torch.device("meta"):
            model: nn.Module = build(AutoConfig.from_pretrained(folder, local_files_only=True))
    except Exception as error:  # whatever a stranger's config makes transformers raise
        raise unusable(folder, error) from error
    return model


def found_modules(folder: Path, modules: Iterable[str]) -> dict[str, nn.Module]:
    """Modules of a folder's model by their tensors' name, without their weights.

    They must be called so in memory, up to the model's prefix, or a locked folder could not be loaded.

    Raises:
        CheckpointError: the library names one of `modules` differently (ViT, multimodal wrappers).
    """
    model = empty_model(folder)
    own, found = dict(model.named_modules()), {}
    for module in modules:
        path = path_of(model, module, own)
        if path is None:
            raise CheckpointError(
                f"Tensor {module}.weight becomes a module of another name in {type(model).__name__}, so an inject lock "
                "could not be loaded. Use preset exact."
            )
        found[module] = own[path]
    return found


def path_of(model: nn.Module, name: str, modules: Collection[str]) -> str | None:
    """The path of a module that tensors' names call `name`, with or without the model's prefix; None where it is none.

    Args:
        model: knows its prefix.
        name: of the module.
        modules: paths of all the model's modules.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    return next((one for one in (name, name.removeprefix(prefix), prefix + name) if one in modules), None)
