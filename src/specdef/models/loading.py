"""Load a model folder with the class its config names, and its tokenizer, from local files only."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
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
    return _read(folder, dtype)[0]


def load_whole(folder: Path, *, dtype: torch.dtype | None = None) -> nn.Module:
    """The same of a folder that must hold every weight: what is missing would be drawn at random.

    Raises:
        CheckpointError: as `load`, or a tensor is missing.
    """
    model, missing = _read(folder, dtype)
    if missing:
        raise CheckpointError(
            f"Model {folder} must hold every weight of its class; {len(missing)} are missing, {missing[0]} first. "
            "Copy them from the original."
        )
    return model


def _read(folder: Path, dtype: torch.dtype | None) -> tuple[nn.Module, list[str]]:
    """The model in evaluation mode, and the names of weights that the folder lacks."""
    found = model_class(folder)
    kind: Any = "auto" if dtype is None else dtype
    try:
        with quiet():
            model, told = found.from_pretrained(folder, dtype=kind, local_files_only=True, output_loading_info=True)
    except Exception as error:  # whatever a stranger's config makes transformers raise
        raise unusable(folder, error) from error
    return model.eval(), sorted(told["missing_keys"])


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
    """The class that a folder's config.json names; transformers' ``AutoModel`` where it names none.

    Raises:
        CheckpointError: it is no model class of transformers, nor one of ours.
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
