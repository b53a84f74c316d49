"""Load a model folder with the class its config names, and its tokenizer, from local files only."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.checkpoint.header import load_json_object
from specdef.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import nn


OWN_CLASSES = {"CifarResNetForImageClassification": "specdef.models.cifar_resnet"}
"""Model classes that transformers lacks -> the module that defines them."""


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back transformers' log and progress bars, and put the caller's settings back."""
    import functools

    from transformers import modeling_gguf_pytorch_utils as gguf_utils
    from transformers.utils import logging

    verbosity, had_bars, bar = logging.get_verbosity(), logging.is_progress_bar_enabled(), gguf_utils.tqdm
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    gguf_utils.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        gguf_utils.tqdm = bar
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


def load(folder: Path, *, dtype: torch.dtype | None = None) -> nn.Module:
    """Load a model folder with the class its config names, in evaluation mode, from local files only.

    Args:
        folder: a Hugging Face folder, locked or not.
        dtype: of the loaded weights; the stored one when None.

    Raises:
        CheckpointError: the config names no class of transformers, or loading fails.
    """
    chosen = model_class(folder)
    try:
        with quiet():
            model = chosen.from_pretrained(folder, dtype="auto" if dtype is None else dtype, local_files_only=True)
    except Exception as error:  # whatever a stranger's config makes transformers raise
        raise unusable(folder, error) from error
    return model.eval()  # type: ignore[no-any-return]


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, from local files only.

    Raises:
        CheckpointError: the folder has none that transformers can load.
    """
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except BaseException as error:  # whatever a stranger's tokenizer files make transformers raise
        if not is_fault(error):
            raise
        raise CheckpointError(
            f"Model {folder} must have a tokenizer that transformers loads; it has none ({reason(error)}). "
            "Copy the original's tokenizer files into it."
        ) from error


def is_fault(error: BaseException) -> bool:
    """Whether something went wrong, unlike Ctrl-C: a panic in the Rust part of tokenizers is no `Exception`."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def reason(error: BaseException) -> str:
    """The first line of what an error says, short enough for a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def unusable(folder: Path | str, error: Exception) -> CheckpointError:
    """The user's sentence for a folder transformers cannot load or run."""
    return CheckpointError(
        f"Model {folder} cannot be loaded and run by transformers ({reason(error)}). Repair its config.json."
    )


def model_class(folder: Path) -> Any:
    """The class of transformers that a folder's config.json names, or ``AutoModel``.

    Raises:
        CheckpointError: it names another.
    """
    import transformers

    names = load_json_object(folder / "config.json").get("architectures") or ["AutoModel"]
    name = str(names[0]) if isinstance(names, list) else str(names)
    if name in OWN_CLASSES:
        return getattr(importlib.import_module(OWN_CLASSES[name]), name)
    found = getattr(transformers, name, None)
    if name == "AutoModel" or (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        return found
    raise CheckpointError(
        f"`architectures` in {folder / 'config.json'} must name a model class of transformers; got {name!r}. Update it."
    )


def found_modules(folder: Path, modules: Iterable[str]) -> dict[str, nn.Module]:
    """Modules of a folder's model by their tensors' name, without their weights.

    They must be called so in memory, up to the model's prefix, or a locked folder could not be loaded.

    Raises:
        CheckpointError: transformers names one of `modules` differently (ViT, multimodal wrappers).
    """
    import torch
    from transformers import AutoConfig

    chosen = model_class(folder)
    build = chosen.from_config if chosen.__name__ == "AutoModel" else chosen
    try:
        with torch.device("meta"):
            model = build(AutoConfig.from_pretrained(folder, local_files_only=True))
    except Exception as error:  # whatever a stranger's config makes transformers raise
        raise unusable(folder, error) from error
    prefix = f"{model.base_model_prefix}."
    own, found = dict(model.named_modules()), {}
    for module in modules:
        path = next((one for one in (module, module.removeprefix(prefix), prefix + module) if one in own), None)
        if path is None:
            raise CheckpointError(
                f"Tensor {module}.weight becomes a module of another name in {type(model).__name__}, so an inject lock "
                "could not be loaded. Use preset exact."
            )
        found[module] = own[path]
    return found
