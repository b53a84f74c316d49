"""Where models come from: a local folder, a hub id, or a bundled one."""

from __future__ import annotations

import os
import re
from pathlib import Path

from specdef.checkpoint.layout import is_model_folder
from specdef.core.text import shown
from specdef.errors import CheckpointError
from specdef.models.bundled import PACKAGED, fetch

CONFIGS = Path(__file__).parents[1] / "data" / "configs"
"""Configurations of models whose weights do not ship here, by their ids on the hub."""


def find_model(name: str, *, argument: str = "model") -> Path:
    """The folder of a model given as a path, a hub id, or the name of a bundled one (``smollm2-135m``, ``minilm``).

    A bundled model is written once to the cache folder (``$SPECDEF_CACHE`` or ``~/.cache/specdef``).

    Raises:
        CheckpointError: nothing of that name, a folder that holds no model, or the hub cannot be reached.
    """
    return _find(name, argument)


def _find(name: str, argument: str, only: str | None = None) -> Path:
    """`find_model`; of a model on the hub, files of the pattern `only`, where one is given."""
    path = Path(name)
    try:
        if path.is_dir():
            if is_model_folder(path):
                return path
            raise CheckpointError(
                f"`{argument}` must be a Hugging Face model folder; {shown(path)} holds no config.json, nor the "
                "model_index.json of a pipeline. "
                "Give the folder that `save_pretrained` wrote."
            )
    except OSError as error:
        raise CheckpointError(
            f"`{argument}` must be a folder; {name[:60]!r} is not usable ({error.strerror})."
        ) from error
    if name in PACKAGED:
        cached = cache_folder() / f"{name}-fp32"
        if not cached.is_dir():
            cached.parent.mkdir(parents=True, exist_ok=True)
            fetch(name, cached)
        return cached
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        return _from_hub(name, argument, only)
    raise CheckpointError(
        f"`{argument}` must be a folder, a hub id such as org/name, {' or '.join(PACKAGED)}; got {name!r}."
    )


def find_config(name: str, *, argument: str = "model") -> Path:
    """The folder of a model's configuration, where its weights are not needed: of a model on the hub, nothing else is
    fetched, and nothing at all where it ships here.

    Raises:
        CheckpointError: as `find_model`.
    """
    shipped = CONFIGS / name
    plain = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None
    if plain and not Path(name).exists() and shipped.is_dir():
        return shipped
    return _find(name, argument, only="*.json")


def cache_folder() -> Path:
    """Where specdef keeps models it unpacked."""
    return Path(os.environ.get("SPECDEF_CACHE") or Path.home() / ".cache" / "specdef")


def _from_hub(name: str, argument: str, only: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        ignored = ["*.bin", "*.pt", "*.pth", "*.onnx", "*.gguf", "*.h5"]
        return Path(snapshot_download(name, allow_patterns=only, ignore_patterns=ignored))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"`{argument}` {name!r} is no local folder and could not be fetched from the hub ({reason}). "
            "Check the name and the network, or give a folder."
        ) from error
