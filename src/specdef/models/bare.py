"""Layout `bare`: a file of weights alone, whose architecture the user names, written as a model folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.core.folders import new_folder, refuse_target
from specdef.errors import CheckpointError
from specdef.models import torchvision_resnet
from specdef.models.loading import is_fault, quiet, reason

if TYPE_CHECKING:
    from torch import Tensor

DEPTHS = {f"resnet{6 * blocks + 2}-cifar": blocks for blocks in (3, 5, 7, 9, 18)}
"""Architecture -> blocks of each of its three stages."""
WIDTHS = [16, 32, 64]
RENAMED = {"linear.": "classifier."}
"""How published files begin names, and what this project's folders write in its place."""


def write_folder(name: str, file: Path | str, out: Path | str) -> Path:
    """Write a file of weights as a folder that every verb reads: config.json and model.safetensors.

    Args:
        name: of the architecture, of `DEPTHS` or `torchvision_resnet.DEPTHS`.
        file: a state_dict, as safetensors or as ``torch.save`` wrote it (also under the key ``state_dict``); names may
            begin with ``module.``. Pickled code is never run.
        out: the folder to create.

    Raises:
        CheckpointError: unknown architecture, a file that cannot be read or holds code, or tensors that are not the
            architecture's.
    """
    known = (*DEPTHS, *torchvision_resnet.DEPTHS)
    if name not in known:
        raise CheckpointError(f"`name` must be drawn from {', '.join(known)} for a file of weights; got {name!r}.")
    file, out = Path(file), Path(out)
    if not file.is_file():
        raise CheckpointError(f"`name` must be followed by a file of weights, {name}:FILE; {file} does not exist.")
    refuse_target(out, None)
    import torch

    of_torchvision = name in torchvision_resnet.DEPTHS
    state = _named(_read(file), torchvision_resnet.renamed if of_torchvision else _renamed)
    make = torchvision_resnet.make if of_torchvision else _cifar
    with torch.device("meta"):
        wanted = make(name, state).state_dict()
    for key in wanted:  # files of before torch 0.4.1 lack it
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, torch.tensor(0))
    for key in sorted(wanted.keys() | state.keys()):
        found, expected = (list(held[key].shape) if key in held else None for held in (state, wanted))
        if found != expected:
            raise CheckpointError(
                f"`name` must be the architecture of {file}; {name} has tensor {key} of shape {expected}, the file of "
                f"shape {found}. Name another architecture."
            )
    model = make(name, state)
    model.load_state_dict(state)
    model.to(next(value.dtype for value in state.values() if value.is_floating_point()))
    with new_folder(out) as folder, quiet():
        model.save_pretrained(folder)
        for file_name, content in (torchvision_resnet.FILES if of_torchvision else {}).items():
            (folder / file_name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return out


def _cifar(name: str, state: Mapping[str, Any]) -> Any:
    from specdef.models.cifar_resnet import CifarResNetConfig, CifarResNetForImageClassification

    labels = state["classifier.bias"].shape[0] if "classifier.bias" in state else 10
    config = CifarResNetConfig(depths=[DEPTHS[name]] * 3, hidden_sizes=WIDTHS, num_labels=labels)
    return CifarResNetForImageClassification(config)


def _read(file: Path) -> Mapping[str, Any]:
    import pickle

    import torch
    from safetensors.torch import load_file

    from specdef.checkpoint.reader import looks_like_safetensors

    try:
        if looks_like_safetensors(file):
            return dict(load_file(file))
        held = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"`name` must be followed by a file of weights alone; {file} cannot be read without running what it holds "
            f"({reason(error)}). Get it as safetensors."
        ) from error
    except BaseException as error:  # whatever a damaged file makes torch raise
        if not is_fault(error):
            raise
        raise CheckpointError(
            f"`name` must be followed by a readable file of weights; {file} is not ({reason(error)}). Download it "
            "again."
        ) from error
    inner = held.get("state_dict", held) if isinstance(held, dict) else held
    if not isinstance(inner, dict) or not all(isinstance(value, torch.Tensor) for value in inner.values()):
        raise CheckpointError(
            f"`name` must be followed by a file that holds a state_dict; {file} holds something else."
        )
    return inner


def _named(state: Mapping[str, Any], rename: Callable[[str], str]) -> dict[str, Tensor]:
    """Tensors under the names that this project's folders write."""
    return {rename(str(key).removeprefix("module.")): value for key, value in state.items()}


def _renamed(name: str) -> str:
    old = next((start for start in RENAMED if name.startswith(start)), None)
    return name if old is None else RENAMED[old] + name.removeprefix(old)
